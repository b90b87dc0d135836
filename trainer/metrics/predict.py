"""Inference for evaluation, in fp32 and eval mode at the network's resolution, and its pictures for sample grids."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from trainer.batch import random
from trainer.data.dataset import Dataset, resized
from trainer.data.loader import photo_to_uint8, prepared
from trainer.errors import UserError
from trainer.methods.base import Method

Size = tuple[int, int]
"""(height, width)."""


@contextmanager
def evaluating(method: Method, device: str | torch.device) -> Iterator[None]:
    """Put the method on the device, in eval mode, in fp32 and without gradients; restore its modes afterwards."""
    method.to(device)
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    try:
        with torch.inference_mode(), torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        for module, training in modes:
            module.training = training


def predict_labels(
    method: Method, photos: Sequence[np.ndarray], *, size: Size, device: str | torch.device = "cpu"
) -> np.ndarray:
    """Translate photos uint8[H,W,3] of any size to labels: class indices uint8[N,h,w], or pictures uint8[N,h,w,3]."""
    given = torch.stack([prepared(photo, size) for photo in photos])
    with evaluating(method, device):
        labels = method.to_label(given.to(device)).cpu()
    return photo_to_uint8(labels) if method.label_domain.kind == "picture" else labels.numpy().astype(np.uint8)


def predict_probabilities(
    method: Method, photo: np.ndarray, *, size: Size, device: str | torch.device = "cpu"
) -> np.ndarray:
    """The probability of each class for a photo uint8[H,W,3]: Float32[C,h,w]. Raises UserError without class scores."""
    with evaluating(method, device):
        scores = method.label_scores(prepared(photo, size)[None].to(device))
        if scores is None:
            raise UserError("this run's method gives no probability of a class: train one that does (fewpair train)")
        return torch.softmax(scores[0].float(), 0).cpu().numpy()


def predict_photos(
    method: Method,
    labels: Sequence[np.ndarray],
    *,
    size: Size,
    draws: Sequence[int],
    device: str | torch.device = "cpu",
    stream: str = "evaluation",
) -> np.ndarray:
    """Translate labels to photos uint8[N,h,w,3], with noise by the method's seed, `stream` and numbers in `draws`."""
    given = torch.stack([prepared(label, size) for label in labels])
    noise, shape = None, method.noise_shape
    if shape is not None:
        generators = (random(method.seed, 0, stream, draw) for draw in draws)
        noise = torch.from_numpy(np.stack([each.standard_normal(shape, dtype=np.float32) for each in generators]))
        noise = noise.to(device)
    with evaluating(method, device):
        return photo_to_uint8(method.to_photo(given.to(device), noise).cpu())


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
    pictures = {"photo": resized(photo, size), "label": paint_label(dataset, label, size)}
    predicted = None
    if "to_label" in method.directions:
        predicted = predict_labels(method, [photo], size=size, device=device)[0]
        pictures["label from photo"] = paint_label(dataset, predicted, size)
    if "to_photo" in method.directions:
        for title, known in (("photo from label", label), ("reconstructed photo", predicted)):
            if known is not None:
                pictures[title] = predict_photos(method, [known], size=size, device=device, draws=[draw])[0]
    return pictures


def paint_label(dataset: Dataset, label: np.ndarray, size: Size) -> np.ndarray:
    """Return a label of the dataset as a picture uint8[H,W,3], resized to `size` as the networks see it."""
    shown, classes = resized(label, size), dataset.label_domain.classes
    return shown if classes is None else classes.index_to_color()[shown]
