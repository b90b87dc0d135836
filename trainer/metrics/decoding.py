"""From a label map painted in colours to classes as the hybrid paper does it: brought to the label's size first, decoded then."""

import numpy as np
import torch
from PIL import Image

from trainer.batch import Classes
from trainer.labels import nearest_class


def upscaled_then_decoded(painted: np.ndarray, shape: tuple[int, ...], classes: Classes) -> np.ndarray:
    """uint8[h,w,3] -> uint8[height,width] class indices: stretched to `shape` as a picture, then the nearest class colour at each pixel.

    Shukla et al., section 6, who do not say how they interpolate: here Pillow's bilinear on 8-bit RGB, as the evaluation
    of pix2pix, whose protocol they follow, enlarges photos. Between two classes the blend of their colours is often nearest to a third
    one's (methods E.4), which our own order, decoded at the network's resolution and stretched with nearest, cannot bring forth.
    """
    large = Image.fromarray(painted).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    picture = torch.from_numpy(np.array(large)).permute(2, 0, 1).float() / 127.5 - 1
    return nearest_class(picture[None], classes)[0].numpy().astype(np.uint8)
