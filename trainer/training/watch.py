"""Watches a training: cheap figures of what the method makes, and a line with the remedy where something goes wrong."""

from collections.abc import Mapping, Sequence
from math import inf, nan
from typing import Any

import numpy as np

from trainer.batch import Classes
from trainer.data.dataset import resized
from trainer.methods.base import Method
from trainer.metrics.evaluate import Scope, l1_levels, mean_distance
from trainer.metrics.predict import predict_labels, predict_photos

CHECKS, WINDOW = 2, 25
"""What is wrong shows in so many checks in a row; the losses of a discriminator in so many lines of the log."""
SPREAD, NOISE, RISING, CHECKERBOARD, STANDSTILL, SATURATED, LATENT = 0.1, 0.5, 0.05, 2.75, 0.005, 0.05, 0.7
"""Limits. Photos of different label maps: their distance, as a share of that of real photos. Photos of different noise:
their distance in levels of 255. Both are small in a young run, which is no collapse while they rise by that share of
their limits between the checks. The checkerboard, in times that of real photos (white noise has 2.5). A discriminator's
loss: how little it moves where it learns nothing, and how small it is where it has won, as shares. How far the
noise that is read in a photo lies from that which it was made with: sqrt(2/pi) = .80 where photos do not show it."""


Pictures = Sequence[np.ndarray]


def measure(
    method: Method, real: Pictures, labels: Pictures, classes: Classes | None, scope: Scope, *, photos: bool
) -> dict[str, float]:
    """Return figures `watch/...` on real photos and labels; of generated `photos`, once trained at this size, too."""
    figures: dict[str, float] = {}
    size = scope.size
    if "to_label" in method.directions and classes is not None:
        truth = np.stack([resized(label, size) for label in labels])
        figures["watch/classes"] = _count(predict_labels(method, real, size=size, device=scope.device))
        figures["watch/classes_of_labels"] = _count(truth[truth < classes.count])
    if "to_photo" in method.directions and photos:
        real = [resized(photo, size) for photo in real]
        made, again = (
            predict_photos(method, labels, size=size, draws=[draw] * len(labels), device=scope.device, stream="watch")
            for draw in (0, 1)
        )
        if len(real) > 1:
            figures["watch/spread"] = mean_distance(made) / max(mean_distance(real), 1e-6)
        if method.noise_shape is not None:
            figures["watch/noise"] = float(np.mean(list(map(l1_levels, made, again))))
        figures["watch/checkerboard"] = checkerboard(made) / checkerboard(real)
    return figures


def notices(lines: Sequence[Mapping[str, Any]], config: Any) -> dict[str, str]:
    """Return {kind: what is wrong and the remedy} from the lines of metrics.jsonl and the method's config."""
    checks = [line for line in lines if any(name.startswith("watch/") for name in line)][-CHECKS:]

    def within(name: str, low: float, high: float) -> bool:
        return len(checks) == CHECKS and all(low <= each.get(f"watch/{name}", nan) < high for each in checks)

    def stays(name: str, limit: float) -> bool:
        return within(name, 0, limit) and checks[-1][f"watch/{name}"] - checks[0][f"watch/{name}"] < RISING * limit

    lr, found = _option(config, "lr"), {}
    other = _option(config, "lr_discriminator" if hasattr(config, "lr_discriminator") else "lr")
    pulls = ("feature_matching", "perceptual", "features", "colour", "reconstruction")
    weights = " and ".join(_option(config, name) for name in pulls if getattr(config, name, 0)) or lr
    if within("classes", 0, 2) and within("classes_of_labels", 2, inf):
        found["one class"] = f"every pixel gets the same class: lower {lr}, and check the labels with `fewpair check`"
    if stays("spread", SPREAD):
        found["collapse"] = f"photos of different label maps are almost the same: train longer, or lower {other}"
    if stays("noise", NOISE):
        found["noise"] = f"photos of one label map are the same whatever the noise: train longer, or lower {weights}"
    if within("checkerboard", CHECKERBOARD, inf):
        found["checkerboard"] = f"photos have a checkerboard that real ones lack: train longer, or lower {lr}"
    logged = [line for line in lines if "peak_memory_mib" in line]
    if latent := getattr(config, "latent", 0):
        unread = np.array([line["generator/latent"] for line in logged[-CHECKS * WINDOW :]]) / latent
        if len(unread) == CHECKS * WINDOW and unread.reshape(CHECKS, WINDOW).mean(1).min() > LATENT:
            found["latent"] = (
                f"the noise cannot be read back from photos (error {unread.mean():.2f}, chance is .80): "
                f"lower {_option(config, 'kl')}"
            )
    for group in {name.partition("/")[0] for line in logged[-1:] for name in line if "discriminator" in name}:
        sums = [sum(value for name, value in line.items() if name.startswith(f"{group}/")) for line in logged]
        last = sums[-WINDOW:]
        if len(sums) >= WINDOW and max(last) < SATURATED * np.mean(sums[:5]):
            found[group] = f"the {group} tells real from generated without error and teaches nothing: lower {other}"
        elif len(sums) >= WINDOW and max(last) - min(last) < STANDSTILL * abs(np.mean(last)):
            found[group] = f"the {group} learns nothing, its loss stands at {last[-1]:.3g}: change {other}"
    return found


def checkerboard(pictures: Pictures | np.ndarray) -> float:
    """Return the energy of the pattern + - / - + in pictures uint8[H,W,3], as a share of that of neighbours."""
    grey = [np.asarray(picture, dtype=np.float64).mean(-1) for picture in pictures]
    right, down = [np.diff(each, axis=1) for each in grey], [np.diff(each, axis=0) for each in grey]
    edges = sum(float(np.square(each).mean()) for each in (*right, *down))
    return (1e-6 + sum(float(np.square(np.diff(each, axis=0)).mean()) for each in right)) / (1e-6 + edges)


def _option(config: Any, name: str) -> str:
    return f"--config.{name.replace('_', '-')} (it was {getattr(config, name, 'not given')})"


def _count(labels: np.ndarray) -> int:
    """The classes that hold a hundredth of the pixels or more."""
    return int((np.bincount(labels.ravel()) >= labels.size / 100).sum())
