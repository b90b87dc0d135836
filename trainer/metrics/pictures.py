"""Photos and coloured label maps for sample grids: a sample, and what a method makes of it."""

import numpy as np
import torch

from trainer.batch import Classes
from trainer.data.dataset import Dataset
from trainer.data.loader import photo_to_uint8, prepare_label, prepare_photo
from trainer.methods.base import Method
from trainer.metrics.predict import Size, predict_labels, predict_photos


def translations(
    method: Method,
    dataset: Dataset,
    photo: np.ndarray,
    label: np.ndarray,
    *,
    size: Size,
    device: str | torch.device = "cpu",
    draw: int = 0,
) -> dict[str, np.ndarray]:
    """Return a sample and all that the method makes of it, uint8[h,w,3] at the network's size, by column heading."""
    pictures = {"photo": photo_to_uint8(prepare_photo(photo, size)), "label": paint_label(dataset, label, size)}
    predicted = None
    if "to_label" in method.directions:
        predicted = predict_labels(method, [photo], size=size, device=device)[0]
        pictures["label from photo"] = paint_label(dataset, predicted, size)
    if "to_photo" in method.directions:
        for title, known in (("photo from label", label), ("reconstructed photo", predicted)):
            if known is not None:
                pictures[title] = predict_photos(method, [known], size=size, device=device, draws=[draw])[0]
    return pictures


def colourise(indices: np.ndarray, classes: Classes) -> np.ndarray:
    """Paint class indices [H,W] in their colours, uint8[H,W,3]; void takes the void colour."""
    return classes.index_to_color()[indices]


def paint_label(dataset: Dataset, label: np.ndarray, size: Size) -> np.ndarray:
    """Return a label of the dataset as a picture uint8[H,W,3], resized to `size` as the networks see it."""
    prepared, classes = prepare_label(label, size), dataset.label_domain.classes
    return photo_to_uint8(prepared) if classes is None else colourise(prepared.numpy().astype(np.uint8), classes)
