"""A judge: a segmenter in an ONNX file; generated photos are scored by what it recognises in them (the FCN score)."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from trainer.batch import IGNORE, Class, Classes
from trainer.errors import UserError
from trainer.metrics.evaluate import Seen, stretch
from trainer.metrics.runtime import open_session
from trainer.metrics.segmentation import Confusion, Figures

CONTRACT = (
    "a judge is a folder that `fewpair export` wrote, with a to_label direction, or an .onnx file that takes `photo` u8[N,H,W,3] RGB and "
    "answers `label` u8[N,H,W] in class ids"
)
FILTERS = {name: Image.Resampling[name.upper()] for name in ("bicubic", "bilinear", "lanczos", "box")}


@dataclass(frozen=True)
class Scale:
    """How a photo is brought to the judge's scale: the manifest's `resize` and `multiple_of` (exported/README.md)."""

    rule: str = "none"
    height: int | None = None
    width: int | None = None
    filter: str = "bicubic"
    multiple_of: int = 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width that a photo of this one is resized to."""
        if self.rule == "none" or self.height is None or self.width is None:
            return height, width
        if self.rule == "exact":
            return self.height, self.width
        scale = min(self.height / height, self.width / width)
        return max(1, round(height * scale)), max(1, round(width * scale))


class Judge:
    """A frozen segmenter over a dataset's classes."""

    def __init__(self, session: Any, *, name: str, sha256: str, ids: np.ndarray, scale: Scale) -> None:
        self.name = name
        self.sha256 = sha256
        """Of the ONNX file."""
        self._session = session
        self._ids = ids
        self._scale = scale

    def label(self, photo: np.ndarray) -> np.ndarray:
        """uint8[H,W,3] -> uint8[h,w] class indices of the dataset at the judge's own scale, of the same aspect or stretched as it was."""
        height, width = self._scale.size(*photo.shape[:2])
        if (height, width) != photo.shape[:2]:
            photo = np.asarray(Image.fromarray(photo).resize((width, height), FILTERS[self._scale.filter]))
        unit = self._scale.multiple_of
        padded = np.pad(photo, ((0, -height % unit), (0, -width % unit), (0, 0)), mode="edge")
        answer = self._session.run(["label"], {"photo": padded[None]})[0]
        if answer.dtype != np.uint8 or answer.shape != (1, *padded.shape[:2]):
            raise UserError(f"judge {self.name} answers {answer.dtype}{list(answer.shape)} to a photo of {list(padded.shape)}: {CONTRACT}")
        indices = self._ids[answer[0, :height, :width]]
        if (indices == IGNORE).any():
            strange = int(answer[0, :height, :width][indices == IGNORE][0])
            raise UserError(f"judge {self.name} answers id {strange}, which is no class of the dataset's table: take another judge")
        return indices


class Verdict:
    """What a judge recognises in generated photos, and in the real photos of the same label maps: the most that it could be asked for."""

    def __init__(self, judge: Judge, classes: Classes) -> None:
        self.judge = judge
        self._generated, self._real = Confusion(classes), Confusion(classes)

    def see(self, seen: Seen) -> None:
        """Label both photos, stretch the labels to the truth's size with nearest, and count (the FCN score)."""
        for confusion, photo in ((self._generated, seen.generated), (self._real, seen.real)):
            confusion.add(seen.label, stretch(self.judge.label(photo), seen.label.shape))

    def figures(self) -> Figures:
        """`judge_mean_iou` and its like for the generated photos, `judge_on_real_mean_iou` and its like for the real ones."""
        generated = {f"judge_{name}": value for name, value in self._generated.figures().items()}
        return generated | {f"judge_on_real_{name}": value for name, value in self._real.figures().items()}


def open_judge(path: Path, classes: Classes, *, device: str | torch.device = "cpu") -> Judge:
    """The judge in an exported folder or an .onnx file, held against the dataset's class table; on the CPU, and said, where CUDA fails.

    Raises UserError where there is none, where its file is not the one its manifest names, or where the tables disagree. A bare file may
    carry the metadata `multiple_of` and `classes` (a JSON list of {id, name, ignore}), as ours do; without `classes` its ids are taken
    to be the dataset's own.
    """
    file, manifest = _found(path)
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if manifest is not None and manifest["directions"]["to_label"]["sha256"] != sha256:
        raise UserError(f"--judge {path}: {file.name} does not match its manifest (sha256 {sha256[:8]}..): export it again")
    try:
        session = open_session(content, torch.device(device), what=f"--judge {path}")
    except Exception as error:  # onnxruntime's own exceptions have no common class of their own
        raise UserError(f"--judge {path}: onnxruntime cannot load {file.name} ({str(error).splitlines()[0]})") from error
    _refuse_other_tensors(session, path)
    facts = session.get_modelmeta().custom_metadata_map
    if manifest is None:
        scale = Scale(multiple_of=int(facts.get("multiple_of", 1)))
        rows = json.loads(facts["classes"]) if "classes" in facts else None
    else:
        scale = Scale(**manifest["resize"], multiple_of=manifest["multiple_of"])
        rows = manifest["domains"]["label"]["classes"]
    ids = classes.id_to_index()
    if rows is not None:
        own = Classes(tuple(Class(row["id"], row["name"], (0, 0, 0), row["ignore"]) for row in rows))
        _refuse_other_classes(path, own, classes)
        ids = own.id_to_index()
    name = path.stem if manifest is None else manifest["name"]
    return Judge(session, name=name, sha256=sha256, ids=ids, scale=scale)


def _found(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """The judge's file and, where it lies in an exported folder, its manifest."""
    if path.is_file() and path.suffix == ".onnx":
        return path, None
    manifest = path / "manifest.json"
    if not manifest.is_file():
        raise UserError(f"--judge {path}: {'it holds no manifest.json' if path.is_dir() else 'there is no such judge'}; {CONTRACT}")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    if "to_label" not in content["directions"]:
        raise UserError(f"--judge {path}: {content['name']} has no to_label direction; {CONTRACT}")
    if content["domains"]["label"]["kind"] != "classes":
        raise UserError(f"--judge {path}: {content['name']} answers pictures, not classes; {CONTRACT}")
    file = path / content["directions"]["to_label"]["file"]
    if not file.is_file():
        raise UserError(f"--judge {path}: its manifest names {file.name}, which is not there: export it again")
    return file, content


def _refuse_other_tensors(session: Any, path: Path) -> None:
    inputs = {each.name: each.type for each in session.get_inputs()}
    outputs = {each.name: each.type for each in session.get_outputs()}
    if inputs != {"photo": "tensor(uint8)"} or outputs.get("label") != "tensor(uint8)":
        told = ", ".join(f"{name} {kind}" for name, kind in (inputs | outputs).items())
        raise UserError(f"--judge {path}: its inputs and outputs are {told}; {CONTRACT}")


def _refuse_other_classes(path: Path, own: Classes, classes: Classes) -> None:
    if own.names == classes.names:
        return
    places = range(max(own.count, classes.count))
    first = next(place for place in places if own.names[place : place + 1] != classes.names[place : place + 1])
    theirs, ours = ((names[first] if first < len(names) else "nothing") for names in (own.names, classes.names))
    raise UserError(
        f"--judge {path}: its class table and the dataset's disagree (class {first} of {own.count} is {theirs} there, and of "
        f"{classes.count} is {ours} here): train a judge on this dataset: fewpair train judge"
    )
