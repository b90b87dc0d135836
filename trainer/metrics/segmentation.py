"""Pixel accuracy, class accuracy and IoU of label maps, from one confusion matrix over all images."""

import numpy as np

from trainer.batch import IGNORE, Classes

Figures = dict[str, float | int | dict[str, float | None] | None]
"""Name -> value; values per class are in a nested dict. None where there was nothing to measure."""


class Confusion:
    """Pixel counts by (true class, predicted class) over all images of a split; void pixels are left out.

    One matrix over the whole split, not a mean over images (Shukla et al., section 6; Cityscapes).
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.matrix = np.zeros((classes.count, classes.count), dtype=np.int64)
        """int64[C,C]; rows are the truth."""

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count one image of class indices [H,W] in 0..C-1; the truth may hold IGNORE (void) too."""
        if truth.shape != prediction.shape:
            raise ValueError(f"truth and prediction must have one size, got {truth.shape} and {prediction.shape}")
        counted = truth != IGNORE
        rows, columns = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
        count = self.classes.count
        for name, values in (("truth", rows), ("prediction", columns)):
            if (values >= count).any():
                raise ValueError(f"the {name} holds class {values.max()}, but the last class is {count - 1}")
        self.matrix += np.bincount(rows * count + columns, minlength=count * count).reshape(count, count)

    def figures(self) -> Figures:
        """Return all figures of the matrix n (Shukla et al., section 6).

        pixel accuracy = sum n_cc / sum n; class accuracy = n_cc / row_c; IoU = n_cc / (row_c + column_c - n_cc).
        `mean_class_accuracy` and `mean_iou` are means over the classes that the truth holds; `mean_iou_absent_as_zero`
        divides by all C classes, as the older papers' code did. All are None where the truth is void everywhere.
        """
        right = np.diag(self.matrix)
        row, column = self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        present = row > 0
        accuracy = right[present] / row[present]
        iou = right[present] / (row + column - right)[present]
        by_class = dict(zip(np.flatnonzero(present).tolist(), iou.tolist(), strict=True))
        return {
            "pixel_accuracy": float(right.sum() / row.sum()) if present.any() else None,
            "mean_class_accuracy": float(accuracy.mean()) if present.any() else None,
            "mean_iou": float(iou.mean()) if present.any() else None,
            "mean_iou_absent_as_zero": float(iou.sum() / self.classes.count) if present.any() else None,
            "per_class_iou": {name: by_class.get(index) for index, name in enumerate(self.classes.names)},
        }

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU over the classes that the truth holds; None if all of it is void."""
        figure = self.figures()["mean_iou"]
        assert figure is None or isinstance(figure, float)
        return figure
