"""The ResNet generator of Johnson et al. as CycleGAN, pix2pix and the hybrid paper use it."""

from torch import Tensor, nn

from trainer.networks.normalisation import BatchNorm


class ResNetGenerator(nn.Module):
    """Two stride-2 convolutions, residual blocks, two transposed convolutions.

    Input Float[B,channels_in,H,W], output Float[B,channels_out,H,W]: in (-1,1) where `tanh`, logits otherwise. H and W
    are multiples of 4 and at least 8. Full width (64) with 9 blocks has 11 378 179 parameters, with 6 blocks 7 837 699.
    The layers are named as in junyanz/pytorch-CycleGAN-and-pix2pix.
    """

    multiple_of = 4

    def __init__(self, channels_in: int, channels_out: int, *, width: int, blocks: int, tanh: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels_in, width, 7)]
        layers += [nn.InstanceNorm2d(width), nn.ReLU()]
        for channels in (2 * width, 4 * width):
            layers.append(nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1))
            layers += [nn.InstanceNorm2d(channels), nn.ReLU()]
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for channels in (2 * width, width):
            layers.append(nn.ConvTranspose2d(2 * channels, channels, 3, stride=2, padding=1, output_padding=1))
            layers += [nn.InstanceNorm2d(channels), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, channels_out, 7)]
        if tanh:
            layers.append(nn.Tanh())
        self.model = nn.Sequential(*layers)
        initialise(self)

    def forward(self, picture: Tensor) -> Tensor:
        return self.model(picture)


class ResidualBlock(nn.Module):
    """x + [reflect pad, conv 3x3, IN, ReLU, reflect pad, conv 3x3, IN](x), with no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv_block(features)


def initialise(network: nn.Module) -> None:
    """Weights of (transposed) convolutions ~ N(0, 0.02), of batch norms ~ N(1, 0.02), biases 0, as in pix2pix."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
