"""A segmentation network on a pretrained encoder: a light feature-pyramid decoder."""

import json
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trainer.batch import Photo, Scores
from trainer.errors import UserError
from trainer.networks.encoders import Encoder


class PyramidSegmenter(nn.Module):
    """Photo Float[B,3,H,W] in [-1,1] -> scores Float[B,classes,H,W]; H, W: multiples of the encoder's last stride.

    Scores are computed at the encoder's finest stride and enlarged bilinearly.
    """

    def __init__(self, classes: int, *, encoder: str, width: int) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        self.decoder = PyramidDecoder(self.encoder.channels, classes, width=width)
        self.multiple_of = self.encoder.strides[-1]

    def forward(self, photo: Photo) -> Scores:
        return _resized(self.decoder(self.encoder(photo)), photo)


def load_segmenter(run: Path, *, classes: int) -> PyramidSegmenter:
    """The frozen segmenter of a `mean_teacher` run: its last averaged weights, in eval mode. Raises UserError."""
    try:
        method = json.loads((run / "config.json").read_text())
        state = torch.load(run / "last.ckpt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{run} cannot be read as a run of mean_teacher ({error}); name its folder") from error
    if method["method"] != "mean_teacher":
        raise UserError(f"{run} is a run of {method['method']}; a run of mean_teacher is needed here")
    values = state["own"][0]["method"] | state["averaged"]["segmenter"]
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and a resumed run draws as an unbroken one
        network = PyramidSegmenter(classes, encoder=method["config"]["encoder"], width=method["config"]["width"])
    own = {name.removeprefix("segmenter."): value for name, value in values.items() if name.startswith("segmenter.")}
    found = own["decoder.head.1.weight"].shape[0]
    if found != classes:
        raise UserError(f"the segmenter of {run} has {found} classes, but this dataset has {classes}")
    network.load_state_dict(own)
    return network.eval().requires_grad_(False)


class PyramidDecoder(nn.Module):
    """Feature maps from fine to coarse -> scores at the finest map's size (feature pyramid, Lin et al. 2017, figure 3).

    Each map is brought to `width` channels (1x1), added to the enlarged coarser one, and smoothed by a depthwise
    separable convolution. There is no normalisation: with few labels it is worse with group or batch norm.
    """

    def __init__(self, channels: tuple[int, ...], classes: int, *, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in channels)
        self.smooth = nn.ModuleList(_separable(width) for _ in channels[:-1])
        self.head = nn.Sequential(_separable(width), nn.Conv2d(width, classes, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        features = self.lateral[-1](maps[-1])
        layers = list(zip(self.smooth, self.lateral[:-1], maps[:-1], strict=True))
        for smooth, lateral, finer in reversed(layers):
            features = smooth(_resized(features, finer) + lateral(finer))
        return self.head(features)


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1), nn.ReLU())


def _resized(features: Tensor, like: Tensor) -> Tensor:
    return interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)
