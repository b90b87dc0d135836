"""The discriminator of CC-FPSE: a feature pyramid of the photo, scored beside an embedding of the label map."""

from itertools import accumulate, pairwise

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from trainer.batch import OneHot, Photo
from trainer.networks.init import SpectralConv2d


class PyramidDiscriminator(nn.Module):
    """Photo Float[B,3,H,W] and label Float[B,channels,H,W] one-hot -> outputs at 1/4, 1/8 and 1/16 of the size.

    The last output of each scale is its logits Float[B,1,h,w]: a score of the pyramid's features plus their inner
    product with the label's embedding (Liu et al. 2019). Before it come the encoder's features of that
    size, after those of 1/16 also the last ones of 1/32. The trunk sees the photo alone. H and W are multiples of 32.
    At full width (64) there are 5 175 873 parameters for 36 channels.
    """

    smallest = 64
    """At 32x32 the last map has one pixel, of which instance norm leaves nothing."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        steps = [3, *(width * factor for factor in (1, 2, 4, 8, 8))]
        self.encoder = nn.ModuleList(_layer(before, after, 3, stride=2) for before, after in pairwise(steps))
        self.lateral = nn.ModuleList(_layer(each, 4 * width, 1) for each in steps[2:])
        self.smooth = nn.ModuleList(_layer(4 * width, 2 * width, 3) for _ in range(3))
        self.score = nn.Conv2d(2 * width, 1, 1)
        self.segment = nn.Conv2d(2 * width, 2 * width, 1)
        self.embedding = nn.Conv2d(channels, 2 * width, 1)

    def forward(self, photo: Photo, label: OneHot) -> list[list[Tensor]]:
        features = list(accumulate(self.encoder, lambda maps, layer: layer(maps), initial=photo))[2:]
        pyramid = [lateral(each) for lateral, each in zip(self.lateral, features, strict=True)]
        for level in (2, 1, 0):
            enlarged = interpolate(pyramid[level + 1], scale_factor=2.0, mode="bilinear", align_corners=False)
            pyramid[level] = enlarged + pyramid[level]
        answers = []
        for level, smooth in enumerate(self.smooth):
            found = smooth(pyramid[level])
            # the embedding is linear: it commutes with the mean over pixels, and there are fewer of those afterwards
            meant = self.embedding(avg_pool2d(label, 4 * 2**level))
            answers.append([features[level], self.score(found) + (meant * self.segment(found)).sum(1, keepdim=True)])
        answers[-1].insert(1, features[-1])
        return answers


def _layer(before: int, after: int, side: int, *, stride: int = 1) -> nn.Sequential:
    convolution = SpectralConv2d(before, after, side, stride=stride, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.InstanceNorm2d(after), nn.LeakyReLU(0.2))
