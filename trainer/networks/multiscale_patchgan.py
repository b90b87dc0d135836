"""The discriminators of the SPADE baseline: PatchGANs of pix2pixHD at two scales, with spectral and instance norm."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from trainer.batch import OneHot, Photo
from trainer.networks.normalisation import InstanceNorm
from trainer.networks.spectral import spectral, xavier


class MultiScalePatchGAN(nn.Module):
    """Photo Float[B,3,H,W] and its label Float[B,channels,H,W] one-hot -> for each scale what five layers make of them.

    Each scale's answer is the features of its four layers and, last, its logits Float[B,1,h,w]. Scale s sees both pictures averaged down
    s times. Park et al. put real and generated photos through it in one batch; instance norm keeps samples apart, so it changes nothing.
    """

    def __init__(self, channels: int, *, width: int, scales: int = 2) -> None:
        super().__init__()
        self.critics = nn.ModuleList(_Critic(3 + channels, width) for _ in range(scales))

    def forward(self, photo: Photo, label: OneHot) -> list[list[Tensor]]:
        picture = torch.cat([label, photo], 1)
        answers = []
        for critic in self.critics:
            answers.append(critic(picture))
            picture = avg_pool2d(picture, 3, stride=2, padding=1, count_include_pad=False)
        return answers


class _Critic(nn.Module):
    """conv k4 p2 to 1, 2, 4 times the width with stride 2, then 8 times with stride 1, then one logit a patch."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        first = nn.Sequential(xavier(nn.Conv2d(channels, width, 4, stride=2, padding=2)), nn.LeakyReLU(0.2))
        inner = [
            nn.Sequential(
                # no bias, which the norm would take out again
                spectral(nn.Conv2d(width * before, width * after, 4, stride=stride, padding=2, bias=False)),
                InstanceNorm(),
                nn.LeakyReLU(0.2),
            )
            for before, after, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1))
        ]
        self.layers = nn.ModuleList([first, *inner, xavier(nn.Conv2d(8 * width, 1, 4, padding=2))])

    def forward(self, picture: Tensor) -> list[Tensor]:
        answers = [self.layers[0](picture)]
        for layer in list(self.layers)[1:]:
            answers.append(layer(answers[-1]))
        return answers
