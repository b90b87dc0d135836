"""The perceptual (VGG) loss: how far two photos lie apart in the features of a network that was trained to name things."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, pad, relu

from trainer.batch import Photo
from trainer.errors import UserError
from trainer.weights import read_state_dict

WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Of relu1_1, relu2_1, relu3_1, relu4_1, relu5_1 (pix2pixHD's released code; SPADE, OASIS and the semi-paired method follow it)."""

FETCHED = "torchvision's VGG-19"


class Layer(NamedTuple):
    """One convolution: its number in the file's Sequential, whether a pooling comes before it, whether its output is compared."""

    number: int
    pooled: bool
    compared: bool


TORCHVISION = (
    *(Layer(0, False, True), Layer(2, False, False)),
    *(Layer(5, True, True), Layer(7, False, False)),
    *(Layer(10, True, True), Layer(12, False, False), Layer(14, False, False), Layer(16, False, False)),
    *(Layer(19, True, True), Layer(21, False, False), Layer(23, False, False), Layer(25, False, False)),
    Layer(28, True, True),
)
"""VGG-19 up to relu5_1 as torchvision numbers it."""

PARTIAL = (*(Layer(2, False, True), Layer(5, False, False)), *(Layer(9, True, True), Layer(12, False, False)), Layer(16, True, True))
"""VGG-19 with normalised activations up to relu3_1, as style transfer uses it; number 0 is a 1x1 convolution of the colours."""


class PerceptualLoss(nn.Module):
    """sum_l weight_l mean |VGG_l(made) - VGG_l(real)|, a scalar in fp32 (Wang et al., pix2pixHD, Eq. 5).

    `source`: None for torchvision's VGG-19 (fetched once, then read from torch's cache), or a state dict file: a VGG-19 in torchvision's
    layout, or one with normalised activations up to relu3_1 (numbers 0, 2, 5, 9, 12, 16), whose three weights are then scaled to the same
    sum as the five. Figures of the two are not comparable. Photos go in as they are, in [-1,1], for torchvision's, without ImageNet's
    normalisation, as the papers' code does; in [0,1] for the other.

    Its weights are read by `load`, or else when they are first needed, so a trained method is evaluated and exported without them; they are
    no parameters and part of no state dict.

    Raises UserError from `load` where there are none.
    """

    def __init__(self, source: Path | None) -> None:
        super().__init__()
        self.source = source
        self.layers: tuple[Layer, ...] = ()

    def load(self, device: torch.device | str = "cpu") -> None:
        """Read the weights, if they were not read before."""
        if self.layers:
            return
        state = _fetched() if self.source is None else _read(self.source)
        layers = PARTIAL if _shape(state, "0.weight") == (3, 3, 1, 1) else TORCHVISION
        partial = layers is PARTIAL
        for number, channels in _expected(layers):
            for kind, shape in (("weight", (*channels, *((1, 1) if partial and number == 0 else (3, 3)))), ("bias", channels[:1])):
                if _shape(state, f"{number}.{kind}") != shape:
                    raise UserError(
                        f"{self.source or FETCHED} is no VGG-19 that the perceptual loss can read: {number}.{kind} is "
                        f"{_shape(state, f'{number}.{kind}') or 'missing'} and should be {shape}; name a file in torchvision's layout, "
                        "or one with normalised activations up to relu3_1"
                    )
                self.register_buffer(f"{kind}_{number}", state[f"{number}.{kind}"].float().to(device), persistent=False)
        self.layers = layers

    def forward(self, made: Photo, real: Photo) -> Tensor:
        """made, real: Float[B,3,H,W] in [-1,1], at least 16x16; the gradient goes to `made`."""
        self.load(made.device)
        with torch.no_grad():
            targets = self.features(real)
        found = self.features(made)
        weights = WEIGHTS[: len(found)]
        scale = sum(WEIGHTS) / sum(weights)
        terms = [
            scale * weight * (one.float() - other.float()).abs().mean() for weight, one, other in zip(weights, found, targets, strict=True)
        ]
        return torch.stack(terms).sum()

    def features(self, photo: Photo) -> list[Tensor]:
        """The compared layers' outputs."""
        partial = self.layers is PARTIAL
        features = conv2d((photo + 1) / 2, self._weight(0), self._bias(0)) if partial else photo
        answers = []
        for number, pooled, compared in self.layers:
            features = max_pool2d(features, 2) if pooled else features
            features = pad(features, (1, 1, 1, 1), mode="reflect" if partial else "constant")
            features = relu(conv2d(features, self._weight(number), self._bias(number)))
            if compared:
                answers.append(features)
        return answers

    def _weight(self, number: int) -> Tensor:
        return self.get_buffer(f"weight_{number}")

    def _bias(self, number: int) -> Tensor:
        return self.get_buffer(f"bias_{number}")


def _expected(layers: tuple[Layer, ...]) -> list[tuple[int, tuple[int, int]]]:
    """Each convolution's number and its channels (out, in)."""
    expected = [(0, (3, 3))] if layers is PARTIAL else []
    before, stage = 3, 0
    for number, pooled, _ in layers:
        stage += pooled
        after = min(64 * 2**stage, 512)
        expected.append((number, (after, before)))
        before = after
    return expected


def _shape(state: dict[str, Tensor], key: str) -> tuple[int, ...]:
    """() where there is no such tensor."""
    return tuple(state[key].shape) if key in state else ()


def _read(path: Path) -> dict[str, Tensor]:
    wanted = "a state dict of VGG-19 for the perceptual loss, or set its weight to 0 (--config.perceptual 0)"
    state = read_state_dict(path, source=str(path), wanted=wanted)
    return {name.removeprefix("features."): value for name, value in state.items()}


def _fetched() -> dict[str, Tensor]:
    from torchvision.models import VGG19_Weights  # slow to import, and needed by those who train with it only

    try:
        state = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{FETCHED} cannot be fetched here ({error}): name a local file of VGG-19 weights for the perceptual loss "
            "(--config.vgg FILE), or set its weight to 0 (--config.perceptual 0)"
        ) from error
    return {name.removeprefix("features."): value for name, value in state.items()}
