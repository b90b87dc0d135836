"""The generators that a method can be asked for by name."""

from typing import Literal

from trainer.networks.resnet import ResNetGenerator
from trainer.networks.unet import UNetGenerator

GeneratorName = Literal["resnet", "unet", "unet-no-skip"]


def generator_named(
    name: GeneratorName, channels_in: int, channels_out: int, *, width: int, blocks: int, levels: int, tanh: bool
) -> ResNetGenerator | UNetGenerator:
    """`blocks` is what the ResNet generator has of residual blocks, `levels` how often the U-Nets halve the picture."""
    if name == "resnet":
        return ResNetGenerator(channels_in, channels_out, width=width, blocks=blocks, tanh=tanh)
    return UNetGenerator(channels_in, channels_out, width=width, levels=levels, skips=name == "unet", tanh=tanh)
