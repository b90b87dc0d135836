"""The PatchGAN discriminators of pix2pix (methods.md A.3): one logit for each overlapping patch."""

from torch import Tensor, nn

from trainer.networks.normalisation import InstanceNorm
from trainer.networks.resnet import initialise


class PatchGAN(nn.Module):
    """Scores patches: Float[B,channels_in,H,W] -> logits Float[B,1,h,w]; no sigmoid.

    `layers` n sets the receptive field: n=1: 16, n=3: 70 (the default of the papers), n=5: 286 pixels. The first and the last
    convolution are not normalised. At full width (64), 3 channels in and n=3 there are 2 764 737 parameters and the map of a 256x256
    picture is 30x30.
    """

    def __init__(self, channels_in: int, *, width: int, layers: int = 3) -> None:
        super().__init__()
        stack: list[nn.Module] = [nn.Conv2d(channels_in, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for depth in range(1, layers + 1):
            wider = width * min(2**depth, 8)
            stack += [
                nn.Conv2d(channels, wider, 4, stride=2 if depth < layers else 1, padding=1),
                InstanceNorm(),
                nn.LeakyReLU(0.2),
            ]
            channels = wider
        stack.append(nn.Conv2d(channels, 1, 4, padding=1))
        self.model = nn.Sequential(*stack)
        initialise(self)

    def forward(self, picture: Tensor) -> Tensor:
        return self.model(picture)
