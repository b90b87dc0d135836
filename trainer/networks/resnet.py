"""The ResNet generator of Johnson et al. as CycleGAN, pix2pix and the hybrid paper use it, and pix2pixHD's enhancer."""

from itertools import pairwise

from torch import Tensor, nn

from trainer.networks.normalisation import BatchNorm


class ResNetGenerator(nn.Module):
    """Stride-2 convolutions, residual blocks, as many transposed convolutions.

    Input Float[B,channels_in,H,W], output Float[B,channels_out,H,W]: in (-1,1) where `tanh`, logits otherwise. H and W
    are multiples of 2^halvings and at least twice that. Full width (64) with 9 blocks has 11 378 179 parameters, with 6
    blocks 7 837 699; pix2pixHD's global generator (4 halvings, 9 blocks) has 182 546 755 with 36 channels in. The
    layers are named as in junyanz/pytorch-CycleGAN-and-pix2pix.
    """

    multiple_of = 4

    def __init__(
        self, channels_in: int, channels_out: int, *, width: int, blocks: int, tanh: bool, halvings: int = 2
    ) -> None:
        super().__init__()
        self.multiple_of = 2**halvings
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels_in, width, 7)]
        layers += [nn.InstanceNorm2d(width), nn.ReLU()]
        widths = [width * 2**level for level in range(halvings + 1)]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.InstanceNorm2d(after), nn.ReLU()]
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        for before, after in pairwise(reversed(widths)):
            layers.append(nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1))
            layers += [nn.InstanceNorm2d(after), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, channels_out, 7)]
        if tanh:
            layers.append(nn.Tanh())
        self.model = nn.Sequential(*layers)
        initialise_normal(self)

    def forward(self, picture: Tensor) -> Tensor:
        return self.model(picture)

    def features(self, picture: Tensor) -> Tensor:
        """The last features Float[B,width,H,W], from which the last three layers of `tanh` make the picture."""
        return self.model[:-3](picture)


class LocalEnhancer(nn.Module):
    """pix2pixHD's G2 (Wang et al., section 3.1): global features at half the size and the label make the photo.

    label Float[B,channels,H,W], features Float[B,features,H/2,W/2] of the global generator -> Float[B,3,H,W] in (-1,1).
    At full width (32 and 64 features) there are 319 715 parameters with 36 channels.
    """

    def __init__(self, channels: int, *, width: int, features: int) -> None:
        super().__init__()
        front: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7)]
        front += [nn.InstanceNorm2d(width), nn.ReLU(), nn.Conv2d(width, features, 3, stride=2, padding=1)]
        self.front = nn.Sequential(*front, nn.InstanceNorm2d(features), nn.ReLU())
        back: list[nn.Module] = [ResidualBlock(features) for _ in range(3)]
        back.append(nn.ConvTranspose2d(features, width, 3, stride=2, padding=1, output_padding=1))
        back += [nn.InstanceNorm2d(width), nn.ReLU(), nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.back = nn.Sequential(*back)
        initialise_normal(self)

    def forward(self, label: Tensor, features: Tensor) -> Tensor:
        return self.back(self.front(label) + features)


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


def initialise_normal(network: nn.Module) -> None:
    """Weights of (transposed) convolutions ~ N(0, 0.02), of batch norms ~ N(1, 0.02), biases 0, as in pix2pix."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
