"""Augmentation of batches: random scaling of photos with their label maps, colour jitter, ClassMix, DiffAugment.

Everything is a function of the generators given, one per sample, and photos stay in [-1,1].
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from trainer.batch import IGNORE, LabelMap, Photo

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in brightness (ITU-R BT.601)."""


def rescaled(
    photo: Photo, label: LabelMap, draws: Sequence[np.random.Generator], *, strength: float
) -> tuple[Photo, LabelMap]:
    """Scale photo and label together, about a random place; label pixels from outside the picture are void.

    The factor is log-uniform between 1 / (1 + strength / 2) and 1 + strength, and the picture's shape changes by up to
    exp(.3 x strength). The photo is read bilinearly and mirrored at its border, the label by nearest. strength 0
    changes nothing.
    """
    if strength == 0 or len(photo) == 0:
        return photo, label
    windows = torch.zeros(len(photo), 2, 3)
    for window, draw in zip(windows, draws, strict=True):
        factor = math.exp(draw.uniform(-math.log1p(strength / 2), math.log1p(strength)))
        aspect = math.exp(draw.uniform(-0.15, 0.15) * strength)
        shares = (1 / (factor * aspect), aspect / factor)  # of the width and of the height that is read
        for axis, share in enumerate(shares):
            window[axis, axis] = share
            window[axis, 2] = draw.uniform(-1, 1) * abs(1 - share)
    grid = _grid(windows.to(photo.device), photo.shape)
    seen = grid_sample(photo, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return seen, warped_label(label, windows)[0]


def drawn_warps(
    draws: Sequence[np.random.Generator], size: tuple[int, int], *, translation: float, rotation: float, shear: float
) -> Tensor:
    """One affine warp per draw, Float[B,2,3] as for torch's `affine_grid`: from places in the output to the input.

    Uniform in +-translation pixels per axis, +-rotation degrees and +-shear degrees per axis, about the middle.
    """
    height, width = size
    warps = []
    for draw in draws:
        angle, shear_x, shear_y = (math.radians(limit * draw.uniform(-1, 1)) for limit in (rotation, shear, shear))
        turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrix = turned @ np.array([[1, math.tan(shear_x)], [math.tan(shear_y), 1]])
        shift = translation * draw.uniform(-1, 1, size=2)
        # affine_grid counts from -1 to 1 along both sides, whatever their lengths
        warps.append(
            [
                [matrix[0, 0], matrix[0, 1] * height / width, 2 * shift[0] / width],
                [matrix[1, 0] * width / height, matrix[1, 1], 2 * shift[1] / height],
            ]
        )
    return torch.tensor(np.array(warps), dtype=torch.float32).reshape(-1, 2, 3)


def warped(photo: Photo, warps: Tensor) -> Photo:
    """Photos under `warps`, bilinear; 0 (grey) where the warp reads outside the picture. Gradients flow."""
    grid = _grid(warps.to(photo.device), photo.shape)
    return grid_sample(photo, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def warped_label(label: LabelMap, warps: Tensor) -> tuple[LabelMap, Tensor]:
    """Label maps under `warps`, by nearest, void outside the picture, and where they are inside, Float[B,1,H,W]."""
    grid = _grid(warps.to(label.device), (len(label), 1, *label.shape[1:]))
    shifted = (label - IGNORE).float().unsqueeze(1)  # grid_sample puts 0 outside the picture, which must mean void
    drawn = grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False).squeeze(1)
    whole = grid_sample(torch.ones_like(shifted), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return drawn.round().long() + IGNORE, (whole > 1 - 1e-4).float()


def _grid(warps: Tensor, shape: Sequence[int]) -> Tensor:
    """In fp32: autocast's bf16 would move pixels by up to two."""
    with torch.autocast(warps.device.type, enabled=False):
        return affine_grid(warps.float(), list(shape), align_corners=False)


def colour_jittered(photo: Photo, draws: Sequence[np.random.Generator], *, strength: float) -> Photo:
    """Colour jitter: gamma, brightness, colour cast, contrast, hue, saturation, blur and noise.

    At strength 1: gamma in exp(+-.7), brightness in exp(-.5..+.4), each channel in exp(+-.15), contrast in exp(+-.5),
    hue turned by up to .3 rad about the grey axis, saturation 1 +- .8 (grey in one of ten), blurred and made noisy in
    four of ten each. 0 changes nothing.
    """
    if strength == 0 or len(photo) == 0:
        return photo
    return torch.stack([_jittered(one, draw, strength) for one, draw in zip(photo, draws, strict=True)])


def class_mixed(
    photo: Photo,
    label: LabelMap,
    onto: tuple[Photo, LabelMap],
    draws: Sequence[np.random.Generator],
    *,
    preference: Tensor,
) -> tuple[Photo, LabelMap]:
    """Paste half of the classes of each label, with their photo, on another (ClassMix, Olsson et al. 2021).

    `onto` has the same batch length and size. `preference` Float[C] >= 0: how much likelier a class is to be among
    those taken than another; a class of preference 0 is never taken. Void is never pasted.
    """
    taken = torch.zeros_like(label, dtype=torch.bool)
    wanted = preference.double().cpu().numpy()
    for mask, each, draw in zip(taken, label, draws, strict=True):
        present = [index for index in torch.unique(each).tolist() if index != IGNORE and wanted[index] > 0]
        if present:
            chances = wanted[present] / wanted[present].sum()
            for index in draw.choice(present, size=max(1, len(present) // 2), replace=False, p=chances):
                mask |= each == int(index)
    return torch.where(taken.unsqueeze(1), photo, onto[0]), torch.where(taken, label, onto[1])


def _jittered(photo: Tensor, draw: np.random.Generator, strength: float) -> Tensor:
    """Float[3,H,W] in [-1,1], the same."""

    def factor(low: float, high: float) -> float:
        return math.exp(draw.uniform(low, high) * strength)

    light = ((photo.float() + 1) / 2).clamp(1e-3, 1) ** factor(-0.7, 0.7)
    gains = factor(-0.5, 0.4) * np.array([factor(-0.15, 0.15) for _ in range(3)])
    light = light * torch.tensor(gains).to(light).view(3, 1, 1)
    middle = light.mean()
    light = (light - middle) * factor(-0.5, 0.5) + middle
    saturation = 0.0 if draw.random() < 0.1 * strength else max(0.0, 1 + draw.uniform(-0.8, 0.8) * strength)
    mixture = torch.from_numpy(_hue_and_saturation(draw.uniform(-0.3, 0.3) * strength, saturation)).to(light)
    light = torch.einsum("ij,jhw->ihw", mixture, light)
    if draw.random() < 0.4 * strength:
        light = _blurred(light, draw.uniform(0.3, 1.5))
    if draw.random() < 0.4 * strength:
        light = light + torch.from_numpy(draw.normal(0, draw.uniform(0.01, 0.06), tuple(light.shape))).to(light)
    return (light.clamp(0, 1) * 2 - 1).to(photo.dtype)


def _hue_and_saturation(angle: float, saturation: float) -> np.ndarray:
    """Float[3,3] on RGB: brightness kept, what is left turned about the grey axis (Rodrigues) and scaled."""
    cosine, sine = math.cos(angle), math.sin(angle) / math.sqrt(3)
    turn = cosine * np.eye(3) + sine * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) + (1 - cosine) / 3
    grey = np.ones((3, 1)) @ np.array([LUMA])
    return np.asarray(grey + saturation * turn @ (np.eye(3) - grey))


def _blurred(picture: Tensor, sigma: float) -> Tensor:
    """A Gaussian of `sigma` pixels over Float[3,H,W]; the border is repeated outwards."""
    reach = max(1, math.ceil(2.5 * sigma))
    places = torch.arange(-reach, reach + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    spread = pad(picture.unsqueeze(1), (reach, reach, reach, reach), mode="replicate")
    return conv2d(conv2d(spread, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)).squeeze(1)


def diff_augmented(photo: Photo, condition: Tensor, draws: Sequence[np.random.Generator]) -> tuple[Photo, Tensor]:
    """Augment photos and their condition alike, with gradients to the photos (DiffAugment, Zhao et al. 2020).

    Brightness is shifted by +-.5, saturation scaled by 0 to 2, contrast by .5 to 1.5; photo and condition are shifted
    by up to an eighth of each side (0 moves in) and, in one of two draws, lose a rectangle of half of each side. photo
    Float[B,3,H,W] in [-1,1], condition Float[B,C,H,W].
    """
    photos, conditions = [], []
    height, width = photo.shape[-2:]
    for one, other, draw in zip(photo, condition, draws, strict=True):
        light = one + draw.uniform(-0.5, 0.5)
        grey = light.mean(0, keepdim=True)
        light = (light - grey) * draw.uniform(0, 2) + grey
        middle = light.mean()
        light = (light - middle) * draw.uniform(0.5, 1.5) + middle
        down, right = (int(draw.integers(-(side // 8), side // 8 + 1)) for side in (height, width))
        both = torch.cat([light, other])
        both = pad(both, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
        both = both[:, max(-down, 0) : max(-down, 0) + height, max(-right, 0) : max(-right, 0) + width]
        if draw.random() < 0.5:
            top, left = (int(draw.integers(-(side // 4), side - side // 4)) for side in (height, width))
            keep = torch.ones(1, height, width, device=photo.device, dtype=photo.dtype)
            keep[:, max(top, 0) : top + height // 2, max(left, 0) : left + width // 2] = 0
            both = both * keep
        photos.append(both[:3])
        conditions.append(both[3:])
    return torch.stack(photos), torch.stack(conditions)
