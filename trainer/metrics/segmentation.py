"""How well label maps agree: one confusion matrix over all images, and the figures that are read off it."""

import numpy as np

from trainer.batch import IGNORE, Classes

Figures = dict[str, float | int | dict[str, float | None] | None]
"""Name -> figure; the figures of single classes sit in a dict of their own. None where nothing was there to measure."""


class Confusion:
    """Pixels counted by (true class, predicted class) over all images of a split; void truth is left out.

    One matrix over the whole split, not a mean over images: the protocol of Shukla et al., section 6, which is that of
    Cityscapes and of CycleGAN's evaluation.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.matrix = np.zeros((classes.count, classes.count), dtype=np.int64)
        """int64[C,C]; rows are the truth."""

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count one image: integer [H,W] class indices in 0..C-1; IGNORE in the truth is void, a prediction has no void."""
        if truth.shape != prediction.shape:
            raise ValueError(f"the truth is {truth.shape} and the prediction {prediction.shape}: bring them to one size first")
        counted = truth != IGNORE
        rows, columns = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
        count = self.classes.count
        for name, values in (("truth", rows), ("prediction", columns)):
            if values.size and not (0 <= values.min() and values.max() < count):
                raise ValueError(f"the {name} holds class {max(values.max(), -values.min())}, but the classes end at {count - 1}")
        self.matrix += np.bincount(rows * count + columns, minlength=count * count).reshape(count, count)

    def figures(self) -> Figures:
        """Every figure of this matrix.

        With n the matrix and row and column sums taken over it (Shukla et al., section 6):
        pixel accuracy = sum n_cc / sum n; class accuracy = n_cc / row_c; IoU = n_cc / (row_c + column_c - n_cc).
        `mean_class_accuracy` and `mean_iou` are means over the classes that the truth holds.
        `mean_iou_absent_as_zero` divides by all C classes, one that the truth lacks counting 0, as the older papers' code did.
        """
        right = np.diag(self.matrix)
        row, column = self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        present = row > 0
        if not present.any():
            scalars = ("pixel_accuracy", "mean_class_accuracy", "mean_iou", "mean_iou_absent_as_zero")
            unmeasured: Figures = dict.fromkeys(scalars)
            return {**unmeasured, "per_class_iou": dict.fromkeys(self.classes.names)}
        accuracy = right[present] / row[present]
        iou = right[present] / (row + column - right)[present]
        by_class = dict(zip(np.flatnonzero(present).tolist(), iou.tolist(), strict=True))
        return {
            "pixel_accuracy": float(right.sum() / self.matrix.sum()),
            "mean_class_accuracy": float(accuracy.mean()),
            "mean_iou": float(iou.mean()),
            "mean_iou_absent_as_zero": float(iou.sum() / self.classes.count),
            "per_class_iou": {name: by_class.get(index) for index, name in enumerate(self.classes.names)},
        }

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU over the classes that the truth holds; None where all of it is void."""
        figure = self.figures()["mean_iou"]
        assert figure is None or isinstance(figure, float)
        return figure
