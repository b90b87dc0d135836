"""Conversions of label maps between class indices, one-hot channels and colours, and their borders."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainer.batch import IGNORE, Classes, LabelMap, OneHot, Photo


def one_hot(label: LabelMap, count: int) -> OneHot:
    """Long[B,H,W] -> Float[B,C,H,W]; all zero where the index is outside 0..C-1 (so where it is IGNORE)."""
    indices = torch.arange(count, device=label.device).view(1, count, 1, 1)
    return (label.unsqueeze(1) == indices).float()


def colors(label: LabelMap, classes: Classes) -> Photo:
    """Long[B,H,W] -> Float[B,3,H,W] in [-1,1]: each pixel in its class's colour, in the void colour where ignored."""
    palette = torch.from_numpy(classes.index_to_color()).to(label.device).float() / 127.5 - 1
    index = torch.where((label >= 0) & (label < classes.count), label, classes.count)
    return palette[index].permute(0, 3, 1, 2)  # B,H,W,3 -> B,3,H,W


def nearest_class(picture: Photo, classes: Classes) -> LabelMap:
    """Float[B,3,H,W] in [-1,1] -> Long[B,H,W]: the class whose colour is nearest (Euclidean in RGB); never void.

    Shukla et al., section 5: the generated map is decoded to the nearest of the class colours.
    """
    palette = (torch.from_numpy(classes.palette).to(picture.device).float() / 127.5 - 1).T.contiguous()  # 3,C
    # |p - q|^2 = |p|^2 - 2 p.q + |q|^2, and |p|^2 is the same for all classes
    distance = torch.einsum("bkhw,kc->bchw", picture.float(), -2 * palette) + (palette**2).sum(0).view(1, -1, 1, 1)
    return distance.argmin(1)


def counted(label: LabelMap) -> Tensor:
    """Float[B,1,H,W]: 1 where the label counts, 0 where it is void."""
    return (label != IGNORE).unsqueeze(1).float()


def borders(ids: Tensor) -> Tensor:
    """Long[B,H,W] -> Float[B,1,H,W]: 1 where one of the four neighbours has another id (pix2pixHD, section 3.3)."""
    down, right = (ids[:, 1:] != ids[:, :-1]).float(), (ids[:, :, 1:] != ids[:, :, :-1]).float()
    both_ways = (pad(down, (0, 0, 1, 0)), pad(down, (0, 0, 0, 1)), pad(right, (1, 0)), pad(right, (0, 1)))
    return torch.stack(both_ways, 1).amax(1, keepdim=True)
