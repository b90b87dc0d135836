"""A SPADE generator that grows with the size that it is trained at."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu

from trainer.batch import OneHot, Photo
from trainer.networks.spade import SpadeBlock, doubled, with_code

BASE = 32
"""The coarsest level is this many times smaller than the photo."""
GRAIN = 4
"""Channels of fixed noise with a value for each pixel."""
TILE = 64
"""The fixed noise repeats after so many pixels."""
GRID = (48, 64)
"""The size at which the prior reads label maps."""
CELL = 16
"""Pixels of that size on the side of a cell."""
RIDGE = 0.01
"""Penalty of the prior's ridge regression; chosen on CamVid's val."""
STYLED = 16.0
"""As the last noise value: the others are the photo's code itself. Standard normal noise does not reach half of it."""


class PyramidGenerator(nn.Module):
    """Label map and noise -> photo: SPADE blocks from 1/32 of the photo's size to the whole (Park et al., figure 4).

    label Float[B,channels,H,W] one-hot, noise Float[B,code+1] ~ N(0,1) -> Float[B,3,H,W] in (-1,1). H and W are
    multiples of 32. The photo's code Float[B,code] is predicted from the whole map and moved by the noise; with STYLED
    as the last noise value it is the rest of the noise. It is spread over the pixels: SPADE modulates by a pixel's
    neighbourhood and instance norm removes what the whole picture has in common, so without the code nothing could
    tell dusk from day. The finest `pictures` levels have a picture each, and the photo is their sum, each enlarged
    (skip generator, Karras et al. 2020, figure 7); those after the first begin at zero. So a generator trained at a
    half of the size (`skip` = 1: the finest level is left out) goes on at the next size where it was.

    What varies from pixel to pixel comes from GRAIN channels of fixed noise, which the first two noise values move;
    borders are mirrored. With zero padding and without grain, textures lay at the same place in all photos.

    widths: channels of the six levels, coarse to fine.
    """

    multiple_of = BASE
    grain: Tensor

    def __init__(self, channels: int, *, widths: tuple[int, ...], hidden: int, code: int, pictures: int) -> None:
        super().__init__()
        if BASE >> (len(widths) - 1) != 1:
            raise ValueError(
                f"{len(widths)} widths were given; from 1/{BASE} of the size to the whole there are 6 levels"
            )
        self.noise_shape = (code + 1,)
        self.prior = _Prior(channels, code)
        condition = channels + code + GRAIN
        grain = torch.randn(GRAIN, TILE, TILE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("grain", grain)
        self.start = nn.Conv2d(condition, widths[0], 3, padding=1, padding_mode="reflect")
        self.blocks = nn.ModuleList(
            SpadeBlock(before, after, condition=condition, hidden=hidden, norm="instance", padding="reflect")
            for before, after in pairwise((widths[0], *widths))
        )
        self.to_photo = nn.ModuleList(
            nn.Conv2d(width, 3, 3, padding=1, padding_mode="reflect") for width in widths[-pictures:]
        )
        for module in self.modules():
            if type(module) is nn.Conv2d:  # SPADE's begin small, which learns more slowly
                module.reset_parameters()
        for value in self.to_photo[1:].parameters():
            nn.init.zeros_(value)

    def forward(self, label: OneHot, noise: Tensor, skip: int = 0) -> Photo:
        """skip: levels left out at the fine end; the label and the photo are then 2^skip times smaller than in use."""
        drawn, mark = noise[:, :-1], noise[:, -1:]
        code = torch.where(mark > STYLED / 2, drawn, self.prior(self.shares(label, skip), drawn))
        return self.paint(label, code, noise, skip)

    def shares(self, label: OneHot, skip: int = 0) -> Tensor:
        """Return the classes' shares of the cells of a label map, Float[B,channels*cells]."""
        seen = avg_pool2d(label, 1 << max(0, len(self.blocks) - skip - 4))
        return avg_pool2d(interpolate(seen, size=GRID, mode="bilinear", align_corners=False), CELL).flatten(1)

    def paint(self, label: OneHot, code: Tensor, noise: Tensor, skip: int = 0) -> Photo:
        """Return the photo with this code, Float[B,code]. The noise moves the grain alone."""
        levels = len(self.blocks) - skip
        conditions = [label]  # from the finest level to the coarsest
        for _ in range(levels - 1):
            conditions.append(avg_pool2d(conditions[-1], 2))
        shift = (noise[:, :2] * 1000).round().long()
        first = len(self.blocks) - len(self.to_photo)
        features = with_code(self.start, self._with_grain(conditions[-1], shift), code)
        photo = None
        for depth in range(levels):
            if depth:
                features = doubled(features)
            features = self.blocks[depth](features, self._with_grain(conditions[-1 - depth], shift), code)
            if depth >= first:
                picture = self.to_photo[depth - first](leaky_relu(features, 0.2))
                if photo is not None:
                    picture = interpolate(photo, scale_factor=2.0, mode="bilinear", align_corners=False) + picture
                photo = picture
        if photo is None:
            raise ValueError(f"skip {skip} leaves no level with a picture: the finest {len(self.to_photo)} have one")
        return torch.tanh(photo.float())

    def _with_grain(self, here: Tensor, shift: Tensor) -> Tensor:
        """The condition at a level, and the grain, moved by `shift` Long[B,2] pixels."""
        rows, columns = (
            (torch.arange(side, device=shift.device) + shift[:, axis, None]) % TILE
            for axis, side in enumerate(here.shape[2:])
        )
        grain = self.grain[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)
        return torch.cat([here, grain.to(here.dtype)], 1)


class _Prior(nn.Module):
    """The code expected for a label map, and the deviation of codes from it: fitted to a trained encoder's codes.

    Linear in the classes' shares of the map's 3x4 cells. Networks in its place, trained with the generator, overfitted
    to the training maps, and expected too bright photos of others.
    """

    weight: Tensor
    bias: Tensor
    deviation: Tensor

    def __init__(self, channels: int, values: int) -> None:
        super().__init__()
        cells = (GRID[0] // CELL) * (GRID[1] // CELL)
        self.register_buffer("weight", torch.zeros(channels * cells, values))
        self.register_buffer("bias", torch.zeros(values))
        self.register_buffer("deviation", torch.ones(values))

    def forward(self, shares: Tensor, drawn: Tensor) -> Tensor:
        return shares @ self.weight + self.bias + self.deviation * drawn

    def fit(self, shares: Tensor, mean: Tensor, deviation: Tensor) -> None:
        """Fit by ridge regression to shares Float[N,S], means and deviations Float[N,values] of encoded photos."""
        inputs, centre = shares.double() - shares.double().mean(0), mean.double().mean(0)
        covariance = inputs.T @ inputs / len(inputs) + RIDGE * torch.eye(inputs.shape[1]).to(inputs)
        weight = torch.linalg.solve(covariance, inputs.T @ (mean.double() - centre) / len(inputs))
        left = mean.double() - centre - inputs @ weight
        self.weight.copy_(weight)
        self.bias.copy_(centre - shares.double().mean(0) @ weight)
        self.deviation.copy_((left.square() + deviation.double().square()).mean(0).sqrt())


class StyleEncoder(nn.Module):
    """Photo Float[B,3,H,W] -> mean and deviation of its code, Float[B,values] each (SPADE's encoder, without norm)."""

    size = (2 * GRID[0], 2 * GRID[1])
    """Photos are reduced to this height and width."""

    def __init__(self, values: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        layers = [
            layer
            for before, after in pairwise(widths)
            for layer in (nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.2))
        ]
        self.model = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d((3, 4)), nn.Flatten(), nn.Linear(widths[-1] * 12, 2 * values)
        )

    def forward(self, photo: Photo) -> tuple[Tensor, Tensor]:
        seen = interpolate(photo, size=self.size, mode="area")
        mean, log_deviation = self.model(seen).float().chunk(2, 1)
        return mean, torch.exp(log_deviation.clamp(-5, 2))
