"""The perceptual (VGG) loss: the distance of two photos in the features of a classification network."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import VGG19_Weights, vgg19

from trainer.batch import Photo
from trainer.errors import UserError
from trainer.networks.encoders import read_state_dict

WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weights of relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1, as in pix2pixHD's released code."""
COMPARED, COMPARED_PARTIAL = (1, 6, 11, 20, 29), (3, 10, 17)
"""The numbers of these layers in torchvision's network, and in that with normalised activations."""

WANTED = "a state dict of VGG-19 for the perceptual loss, or set its weight to 0 (--config.perceptual 0)"


class PerceptualLoss(nn.Module):
    """sum_l weight_l mean |VGG_l(made) - VGG_l(real)|, a scalar in fp32 (Wang et al., pix2pixHD, Eq. 5).

    `source`: None for torchvision's VGG-19 (downloaded once), or a state dict file: a VGG-19 in torchvision's layout,
    or one with normalised activations up to relu3_1 (numbers 0, 2, 5, 9, 12, 16), whose three weights are then scaled
    to the same sum as the five. Figures of the two are not comparable. Photos go in as they are, in [-1,1], for
    torchvision's, without ImageNet's normalisation, as the papers' code does; in [0,1] for the other.

    The weights are read by `load`, or else when they are first needed, so a trained method is evaluated and exported
    without them; they are no parameters and part of no state dict.
    """

    def __init__(self, source: Path | None) -> None:
        super().__init__()
        self.source = source
        self._loaded: list[nn.Sequential] = []  # a list, so that it is no submodule
        self._compared: tuple[int, ...] = ()

    def load(self, device: torch.device | str = "cpu") -> None:
        """Read the weights once and bring them to the device. Raises UserError where there are none."""
        if not self._loaded:
            read = _downloaded() if self.source is None else read_state_dict(self.source, wanted=WANTED)
            state = {name.removeprefix("features."): value for name, value in read.items()}
            partial = "0.weight" in state and state["0.weight"].shape[2:] == (1, 1)
            vgg, self._compared = _network(partial=partial)
            known = {name: value for name, value in state.items() if name in vgg.state_dict()}
            try:
                vgg.load_state_dict(known, assign=True)
            except RuntimeError as error:
                raise UserError(
                    f"{self.source or 'the download'} is no VGG-19 that the perceptual loss can read "
                    f"({' '.join(str(error).split()[:40])}); name a file in torchvision's layout, "
                    "or one with normalised activations up to relu3_1"
                ) from error
            self._loaded.append(vgg.float().requires_grad_(False))
        self._loaded[0].to(device)

    def forward(self, made: Photo, real: Photo) -> Tensor:
        """made, real: Float[B,3,H,W] in [-1,1], at least 16x16; the gradient goes to `made`."""
        with torch.no_grad():
            targets = self.features(real)
        weights = WEIGHTS[: len(targets)]
        scale = sum(WEIGHTS) / sum(weights)
        terms = [
            scale * weight * (one.float() - other.float()).abs().mean()
            for weight, one, other in zip(weights, self.features(made), targets, strict=True)
        ]
        return torch.stack(terms).sum()

    def features(self, photo: Photo) -> list[Tensor]:
        """The outputs of the compared layers."""
        self.load(photo.device)
        features, found = (photo + 1) / 2 if self._compared == COMPARED_PARTIAL else photo, []
        for number, layer in enumerate(self._loaded[0]):
            features = layer(features)
            if number in self._compared:
                found.append(features)
        return found


def _network(*, partial: bool) -> tuple[nn.Sequential, tuple[int, ...]]:
    """VGG-19 up to relu5_1, or `partial` up to relu3_1, and the numbers of the layers that are compared."""
    with torch.device("meta"):  # draws no random numbers
        if not partial:
            return vgg19().features[:30], COMPARED
        layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
        for before, after in ((3, 64), (64, 64), (64, 128), (128, 128), (128, 256)):
            if len(layers) > 1 and before != after:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(before, after, 3), nn.ReLU()]
    return nn.Sequential(*layers), COMPARED_PARTIAL


def _downloaded() -> dict[str, Tensor]:
    try:
        return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"torchvision's VGG-19 cannot be downloaded ({error}): name a local file of VGG-19 weights for the "
            "perceptual loss (--config.vgg FILE), or set its weight to 0 (--config.perceptual 0)"
        ) from error
