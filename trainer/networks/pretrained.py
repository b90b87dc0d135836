"""MobileNetV2 with ImageNet weights, and a light decoder on top of it: a segmenter that needs few labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu6

from trainer.errors import UserError
from trainer.weights import read_state_dict

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""MobileNetV2's table 2: expansion, channels, blocks, stride of the first block."""
TAPS = {1: 16, 3: 24, 6: 32, 13: 96, 17: 320}
"""The last layer at each stride (2, 4, 8, 16, 32) and its channels."""

Padding = Literal["around", "after"]
"""Where a stride-2 convolution is padded: one pixel all around (torchvision), or below and to the right (Keras, and so some ONNX files)."""


@dataclass(frozen=True)
class EncoderWeights:
    """MobileNetV2's weights as a file gives them: norms folded, in the order of the convolutions, and what the input must look like."""

    source: str
    """The file, or where else they come from."""
    kernels: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    padding: Padding
    mean: tuple[float, float, float]
    """Taken off a photo in [-1,1]."""
    spread: tuple[float, float, float]
    """Then divided by."""


class PretrainedSegmenter(nn.Module):
    """An encoder and a top-down decoder: Float[B,3,H,W] in [-1,1] -> class scores Float[B,C,H,W]; H and W are multiples of 32.

    Scores are made at stride 2 and enlarged bilinearly to the photo's size.
    """

    multiple_of = 32

    def __init__(self, channels_out: int, *, width: int) -> None:
        super().__init__()
        self.encoder = MobileNetV2()
        self.decoder = PyramidDecoder(tuple(TAPS.values()), channels_out, width=width)

    def forward(self, photo: Tensor) -> Tensor:
        return _enlarged(self.decoder(self.encoder(photo)), photo)


class PyramidDecoder(nn.Module):
    """Maps from fine to coarse, with `channels_in` channels -> scores at the finest one's size.

    A feature pyramid (Lin et al. 2017, figure 3): each map is brought to `width` channels by a 1x1 convolution and added to the coarser
    one, enlarged, then smoothed; the smoothing is depthwise separable. No normalisation: it is shallow, and what it reads is in range.
    """

    def __init__(self, channels_in: tuple[int, ...], channels_out: int, *, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in channels_in)
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1), nn.ReLU())
            for _ in channels_in[:-1]
        )
        self.head = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, channels_out, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        features = self.lateral[-1](maps[-1])
        for smooth, lateral, finer in zip(reversed(self.smooth), reversed(self.lateral[:-1]), reversed(maps[:-1]), strict=True):
            features = smooth(_enlarged(features, finer) + lateral(finer))
        return self.head(features)


class MobileNetV2(nn.Module):
    """The convolutions of MobileNetV2 (Sandler et al. 2018, table 2) up to stride 32, with their batch norms folded into them.

    Float[B,3,H,W] in [-1,1] -> five maps at strides 2, 4, 8, 16, 32 with 16, 24, 32, 96, 320 channels. Folded, the norms keep ImageNet's
    statistics while the weights are tuned, so a sample's result does not depend on its batch mates. What differs between published
    weights (the input's mean and spread, the padding) is part of the state, so that a checkpoint needs no second look at the file.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [Convolution(3, 32, 3, stride=2)]
        channels = 32
        for expansion, wider, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, wider, expansion=expansion, stride=stride if block == 0 else 1))
                channels = wider
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("spread", torch.ones(1, 3, 1, 1))

    def forward(self, photo: Tensor) -> list[Tensor]:
        # channels-last: without instance norm it saves a fifth of a step on the CPU (docs/decisions/0005 is about networks that have it)
        features = ((photo - self.mean) / self.spread).contiguous(memory_format=torch.channels_last)
        maps = []
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in TAPS:
                maps.append(features)
        return maps

    def load(self, weights: EncoderWeights) -> None:
        """Take over a file's weights. Raises UserError where they are another architecture's."""
        own = self._convolutions()
        if len(weights.kernels) < len(own):
            raise UserError(f"{weights.source} holds {len(weights.kernels)} convolutions, but MobileNetV2 has {len(own)} and one more")
        with torch.no_grad():
            for index, convolution in enumerate(own):
                pairs = ((convolution.weight, weights.kernels[index]), (convolution.bias, weights.biases[index]))
                for mine, theirs in pairs:
                    if mine is None or mine.shape != theirs.shape:
                        raise UserError(
                            f"{weights.source} is not MobileNetV2: its convolution {index + 1} is {tuple(weights.kernels[index].shape)}, "
                            f"but MobileNetV2's is {tuple(convolution.weight.shape)}"
                        )
                    mine.copy_(theirs)
            self.mean.copy_(torch.tensor(weights.mean).view(1, 3, 1, 1))
            self.spread.copy_(torch.tensor(weights.spread).view(1, 3, 1, 1))
        self.set_extra_state({"padding": weights.padding})

    def get_extra_state(self) -> dict[str, Padding]:
        return {"padding": self._convolutions()[0].padded}

    def set_extra_state(self, state: dict[str, Padding]) -> None:
        for convolution in self._convolutions():
            convolution.padded = state["padding"]

    def _convolutions(self) -> "list[Convolution]":
        return [module for module in self.modules() if isinstance(module, Convolution)]


class Convolution(nn.Conv2d):
    """A convolution that keeps the size, or halves it by stride 2 with either padding; ReLU6 after it unless `linear`.

    It starts from random numbers of the right size for ReLU without norms (He et al. 2015).
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, groups: int = 1, linear: bool = False) -> None:
        super().__init__(channels_in, channels_out, kernel, stride=stride, groups=groups)
        self.linear = linear
        self.padded: Padding = "around"
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear" if linear else "relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        if self.kernel_size[0] == 3:
            features = pad(features, (0, 1, 0, 1) if self.stride[0] == 2 and self.padded == "after" else (1, 1, 1, 1))
        features = super().forward(features)
        return features if self.linear else relu6(features)


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter depthwise by 3x3, narrow by a linear 1x1; added to its input where size and channels allow."""

    def __init__(self, channels_in: int, channels_out: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        widen = [Convolution(channels_in, wide, 1)] if expansion > 1 else []
        self.body = nn.Sequential(
            *widen, Convolution(wide, wide, 3, stride=stride, groups=wide), Convolution(wide, channels_out, 1, linear=True)
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features) if self.residual else self.body(features)


def read_weights(path: Path | None) -> EncoderWeights:
    """ImageNet weights of MobileNetV2: torchvision's (None: downloaded by it, kept in its cache; .pth: its state dict), or an ONNX file's.

    The ONNX file takes `image` Float[B,3,H,W] in [-1,1] and has its norms folded, as the feature extractors of `fewpair pairs` do.
    Raises UserError with the remedy where the weights cannot be had or are not MobileNetV2's.
    """
    if path is None:
        return _of_torchvision(_downloaded(), source="torchvision")
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file; give a torchvision state dict of mobilenet_v2 (.pth) or an ONNX file of it (.onnx)"
        )
    return (
        _of_onnx(path)
        if path.suffix == ".onnx"
        else _of_torchvision(read_state_dict(path, source=str(path), wanted="a state dict of torchvision's mobilenet_v2"), source=str(path))
    )


def _downloaded() -> dict[str, Tensor]:
    from torchvision.models import MobileNet_V2_Weights  # takes seconds, and a file of weights may need it not

    try:
        return dict(MobileNet_V2_Weights.IMAGENET1K_V2.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"torchvision's weights of mobilenet_v2 cannot be downloaded ({error}); "
            "name a file of them with --config.encoder-weights, or do without: --config.encoder none"
        ) from error


def _of_torchvision(state: dict[str, Tensor], *, source: str) -> EncoderWeights:
    """Norms folded: w' = w g / sqrt(v + eps), b' = b - m g / sqrt(v + eps) for the statistics m, v and the affine g, b of each norm."""
    from torchvision.models import mobilenet_v2

    features = mobilenet_v2(weights=None).features
    held = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    wanted = features.state_dict()
    unfit = [key for key, value in wanted.items() if key not in held or held[key].shape != value.shape]
    if unfit:
        raise UserError(
            f"{source} is not a state dict of torchvision's mobilenet_v2: {len(unfit)} of its {len(wanted)} tensors are absent "
            f"or of another shape, as is features.{unfit[0]}"
        )
    features.load_state_dict(held, strict=False)
    kernels, biases = [], []
    convolutions = [module for module in features.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in features.modules() if isinstance(module, nn.BatchNorm2d)]
    for convolution, norm in zip(convolutions, norms, strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        kernels.append(convolution.weight.detach() * factor.view(-1, 1, 1, 1))
        biases.append(norm.bias.detach() - norm.running_mean * factor)
    # torchvision's (x - mean) / std for x in [0,1], said of photos in [-1,1]
    mean, spread = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return EncoderWeights(
        source,
        tuple(kernels),
        tuple(biases),
        padding="around",
        mean=(2 * mean[0] - 1, 2 * mean[1] - 1, 2 * mean[2] - 1),
        spread=(2 * spread[0], 2 * spread[1], 2 * spread[2]),
    )


def _of_onnx(path: Path) -> EncoderWeights:
    """The kernels and biases of the file's Conv nodes, in order; its padding is read from the first of them."""
    try:
        graph = onnx.load(path).graph
    except (OSError, DecodeError) as error:
        raise UserError(f"{path} cannot be read as an ONNX file ({error})") from error
    values = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    if not nodes or any(len(node.input) != 3 or not set(node.input[1:]) <= values.keys() for node in nodes):
        raise UserError(
            f"{path} is not MobileNetV2 with its norms folded: not each of its {len(nodes)} convolutions has a kernel and a bias"
        )
    pads = next((list(attribute.ints) for attribute in nodes[0].attribute if attribute.name == "pads"), [])
    return EncoderWeights(
        str(path),
        tuple(values[node.input[1]] for node in nodes),
        tuple(values[node.input[2]] for node in nodes),
        padding="after" if pads == [0, 0, 1, 1] else "around",
        mean=(0.0, 0.0, 0.0),
        spread=(1.0, 1.0, 1.0),
    )


def _enlarged(features: Tensor, like: Tensor) -> Tensor:
    return interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)
