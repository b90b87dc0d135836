"""Exported segmenters: as the judge of generated photos (FCN score), and to say how sure a model is of a photo."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serving.imaging.domain import ClassRow
from trainer.batch import IGNORE, Classes
from trainer.data.dataset import resized
from trainer.errors import UserError
from trainer.metrics.predict import Size
from trainer.metrics.segmentation import Confusion, Figures
from trainer.onnx_session import open_session

WANTED = "give the folder of a segmenter of these classes: fewpair train judge, then fewpair export"


class Judge:
    """A frozen segmentation model."""

    def __init__(self, session: Any, *, name: str, sha256: str, classes: Classes, size: Size) -> None:
        self.name, self.classes = name, classes
        self.sha256 = sha256
        """Of the ONNX file."""
        self._session = session
        self._ids = classes.id_to_index()
        self._size = size

    @property
    def has_confidence(self) -> bool:
        """Whether the model returns a confidence for each pixel."""
        return len(self._session.get_outputs()) > 1

    def label(self, photo: np.ndarray) -> np.ndarray:
        """Segment a photo uint8[H,W,3]: class indices of the dataset, uint8[h,w] at the judge's own size."""
        return self.label_and_confidence(photo)[0]

    def label_and_confidence(self, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class indices and confidence (0..255; 255 everywhere for a model without), uint8[h,w] each."""
        outputs = self._session.run(None, {"photo": resized(photo, self._size)[None]})
        ids, *confidence = (output[0] for output in outputs)
        indices: np.ndarray = self._ids[ids]
        if (indices == IGNORE).any():
            raise UserError(f"{self.name} returned an id that is not a class of its table")
        return indices, confidence[0] if confidence else np.full_like(indices, 255)


class FcnScore:
    """The judge's segmentation figures on generated photos, and for reference on the real photos."""

    def __init__(self, judge: Judge, classes: Classes) -> None:
        self.judge = judge
        self._confusions = {"judge": Confusion(classes), "judge_on_real": Confusion(classes)}

    def add(self, generated: np.ndarray, real: np.ndarray, label: np.ndarray) -> None:
        """Segment both photos, resize the results to the label's size with nearest, and count."""
        for confusion, photo in zip(self._confusions.values(), (generated, real), strict=True):
            confusion.add(label, resized(self.judge.label(photo), label.shape))

    def figures(self) -> Figures:
        """Return `judge_mean_iou` and so on for generated photos, `judge_on_real_mean_iou` and so on for real ones."""
        found = {prefix: confusion.figures() for prefix, confusion in self._confusions.items()}
        return {f"{prefix}_{name}": value for prefix, figures in found.items() for name, value in figures.items()}


def open_judge(path: Path, classes: Classes | None, *, device: str | torch.device = "cpu") -> Judge:
    """Open a model that `fewpair export` wrote. Raises UserError unless it has label maps, of `classes` if given."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        direction, rows = manifest["directions"]["to_label"], manifest["domains"]["label"]["classes"] or ()
        size = (int(manifest["resize"]["height"]), int(manifest["resize"]["width"]))
        content = (path / direction["file"]).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.filename} cannot be read ({error.strerror}); {WANTED}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not predict label maps ({error!r} in manifest.json); {WANTED}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if direction["sha256"] != sha256:
        raise UserError(f"{path}: {direction['file']} does not match the sha256 in its manifest: export again")
    own = Classes(tuple(ClassRow(row["id"], row["name"], (0, 0, 0), row["ignore"]) for row in rows))
    if classes is not None and own.names != classes.names:
        raise UserError(
            f"{path}: its classes ({', '.join(own.names)}) are not the dataset's ({', '.join(classes.names)}); {WANTED}"
        )
    session = open_session(content, device)
    return Judge(session, name=manifest["name"], sha256=sha256, classes=own, size=size)
