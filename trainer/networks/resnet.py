"""The ResNet generator of Johnson et al. as CycleGAN, pix2pix and the hybrid paper use it."""

from torch import Tensor, nn

from trainer.errors import UserError
from trainer.networks.normalisation import BatchNorm, InstanceNorm


class ResNetGenerator(nn.Module):
    """Two stride-2 convolutions, residual blocks, two transposed convolutions.

    Input Float[B,channels_in,H,W], output Float[B,channels_out,H,W]: in (-1,1) where `tanh`, logits otherwise. H and W
    are multiples of 4 and at least 8. Full width (64) with 9 blocks has 11 378 179 parameters, with 6 blocks 7 837 699.
    The layers sit in one Sequential called `model`, so that checkpoints of junyanz/pytorch-CycleGAN-and-pix2pix load.
    """

    multiple_of = 4

    def __init__(self, channels_in: int, channels_out: int, *, width: int, blocks: int, tanh: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels_in, width, 7), InstanceNorm(), nn.ReLU()]
        for channels in (width, 2 * width):
            layers += [nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1), InstanceNorm(), nn.ReLU()]
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            layers += [
                nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1),
                InstanceNorm(),
                nn.ReLU(),
            ]
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
            InstanceNorm(),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            InstanceNorm(),
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


def load_junyanz(network: ResNetGenerator, state: dict[str, Tensor]) -> None:
    """Load a ResNet generator's state dict as junyanz/pytorch-CycleGAN-and-pix2pix saves it (keys `model.N.*`).

    Unused statistics of instance norm and the prefix `module.` are dropped, and the numbering with dropout is undone.
    Raises UserError for another architecture.
    """
    unused = ("running_mean", "running_var", "num_batches_tracked")
    state = {key.removeprefix("module."): value for key, value in state.items() if not key.endswith(unused)}
    if any(".conv_block.6." in key for key in state):
        state = {key.replace(".conv_block.6.", ".conv_block.5."): value for key, value in state.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        blocks = len({key.split(".conv_block.")[0] for key in state if ".conv_block." in key})
        raise UserError(
            f"this checkpoint is another ResNet generator, with {blocks} blocks: set --config.blocks and "
            f"--config.width to the checkpoint's ({' '.join(str(error).split()[:30])} ...)"
        ) from error
