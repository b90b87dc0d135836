"""Proves an exported graph equal to its method: both translate the same pictures, and the differences are measured."""

from dataclasses import asdict, dataclass

import numpy as np
import onnx
import torch
from torch import Tensor

from trainer.batch import IGNORE, Classes, random
from trainer.data.loader import photo_to_uint8
from trainer.data.synthetic import scenes
from trainer.errors import UserError
from trainer.export.graphs import NOISE, PREVIOUS, RAW, Graph
from trainer.methods.base import Method
from trainer.metrics.predict import evaluating
from trainer.onnx_session import open_session

RAW_TOLERANCE = 1e-3  # an eighth of a photo's level; torch's own rounding reaches 2e-4 in cc_fpse
VALUES_TOLERANCE = 1e-3
IDS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Parity:
    """One size's differences, as the manifest holds them."""

    batch: int
    height: int
    width: int
    raw_max_difference: float | None
    values_over_one_level: float
    ids_different: float | None

    def excess(self) -> str | None:
        """Which tolerance is exceeded, in words; None where all are kept."""
        if self.raw_max_difference is not None and not self.raw_max_difference <= RAW_TOLERANCE:
            return f"floats differ by up to {self.raw_max_difference:.2g} (at most {RAW_TOLERANCE:g} is allowed)"
        if not self.values_over_one_level <= VALUES_TOLERANCE:
            return (
                f"{self.values_over_one_level:.2%} of the levels differ by more than one (at most "
                f"{VALUES_TOLERANCE:.1%} is allowed)"
            )
        if self.ids_different is not None and not self.ids_different <= IDS_TOLERANCE:
            return f"{self.ids_different:.2%} of the pixels have another class (at most {IDS_TOLERANCE:.1%} is allowed)"
        return None


def prove(graph: Graph, method: Method, *, size: tuple[int, int]) -> list[dict[str, object]]:
    """Compare graph and method on one picture at the training size and two at another. Raises UserError."""
    rows = []
    for batch, (height, width) in ((1, size), (2, other_size(size, method.multiple_of))):
        row = compared(graph, method, *drawn(method.label_domain.classes, batch, (height, width)))
        excess = row.excess()
        if excess is not None:
            raise UserError(
                f"the exported {graph.direction} does not agree with torch on {batch} x {height}x{width}: {excess}; "
                "nothing was exported"
            )
        rows.append(asdict(row))
    return rows


def prove_style(model: onnx.ModelProto, method: Method) -> None:
    """Compare the style graph with the method on photos of two scenes. Raises UserError."""
    assert method.style_size is not None
    photos, _ = drawn(None, 2, method.style_size)
    with evaluating(method, "cpu"):
        expected = method.style_of(_float(photos)).numpy()
    difference = float(np.abs(run(model, {"photo": photos})[NOISE] - expected).max())
    if not difference <= RAW_TOLERANCE:
        raise UserError(f"the exported style graph differs from torch by up to {difference:.2g}; nothing was exported")


def compared(graph: Graph, method: Method, photos: np.ndarray, labels: np.ndarray) -> Parity:
    """The differences between graph and method on these pictures."""
    given = photos if graph.direction == "to_label" else labels
    feeds: dict[str, np.ndarray] = {graph.input.name: given}
    if graph.noise_shape is not None:
        shape = (len(given), *graph.noise_shape)
        feeds[NOISE] = random(method.seed, 0, "parity").standard_normal(shape, dtype=np.float32)
    if graph.previous:
        feeds[PREVIOUS] = photos
    expected = _by_torch(graph, method, feeds)
    answers = run(graph.model, feeds)
    raw = None
    if graph.under_test is not None:
        raw = float(np.abs(run(graph.under_test, feeds)[RAW] - expected[RAW]).max())
    ids, over, values = None, 0, 0
    for output in graph.outputs:
        ours, theirs = answers[output.name], expected[output.name]
        if ours.shape != theirs.shape:
            raise UserError(f"the exported {graph.direction} answers {ours.shape} where torch answers {theirs.shape}")
        if output.kind == "label":
            ids = float((ours != theirs).mean())
        else:
            over += int((np.abs(ours.astype(np.int16) - theirs.astype(np.int16)) > 1).sum())
            values += ours.size
    return Parity(len(given), given.shape[1], given.shape[2], raw, over / values if values else 0.0, ids)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph once on the CPU and return its outputs by name."""
    names = [output.name for output in model.graph.output]
    return dict(zip(names, open_session(model.SerializeToString()).run(names, feeds), strict=True))


def other_size(size: tuple[int, int], unit: int) -> tuple[int, int]:
    """A size that differs from `size` in both sides, of another shape, in multiples of `unit`."""
    height, width = size
    return (height * 3 // 4 // unit * unit if height >= 8 * unit else height + unit), width + unit


def drawn(classes: Classes | None, batch: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return synthetic scenes as photos uint8[N,H,W,3] and labels: uint8[N,H,W] raw ids, or uint8[N,H,W,3] pictures.

    Label maps hold the void id, 255 and an id outside the table too, as a server's uploads may.
    """
    photos, labels = [], []
    for index in range(batch):
        photo, label = scenes.draw(index, height=size[0], width=size[1], split="val")
        photos.append(photo)
        # where labels are pictures: some picture that is not the photo
        labels.append(np.fliplr(photo) if classes is None else _with_odd_ids(translated(label, classes), classes))
    return np.stack(photos), np.stack(labels)


def translated(label: np.ndarray, classes: Classes) -> np.ndarray:
    """Return a scene's class indices as raw ids of another table: of the class of the same name, or of one by rank."""
    lookup = np.full(256, IGNORE, dtype=np.uint8)
    for index, name in enumerate(scenes.CLASSES.names):
        lookup[index] = classes.names.index(name) if name in classes.names else index % classes.count
    return classes.index_to_id()[lookup[label]]


def _with_odd_ids(ids: np.ndarray, classes: Classes) -> np.ndarray:
    """The label map with patches of 255 and, where one exists, of an id that the table does not list."""
    ids = ids.copy()
    ids[:2, :3] = IGNORE
    listed = {row.id for row in classes.rows}
    ids[2:4, :3] = next((odd for odd in range(IGNORE) if odd not in listed), IGNORE)
    return ids


def _by_torch(graph: Graph, method: Method, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the method answers through its own interface, with numpy's lookups and rounding around it."""
    given, classes = feeds[graph.input.name], method.label_domain.classes
    with evaluating(method, "cpu"):
        if graph.direction == "to_photo":
            known = _float(given) if classes is None else torch.from_numpy(classes.id_to_index()[given]).long()
            if graph.previous:
                photo = method.next_photo(known, _float(feeds[PREVIOUS]))
            else:
                photo = method.to_photo(known, torch.from_numpy(feeds[NOISE]) if graph.noise_shape else None)
            return {"photo": photo_to_uint8(photo), RAW: photo.numpy()}
        answer = method.to_label(_float(given))
        if classes is None:
            return {"picture": photo_to_uint8(answer), RAW: answer.numpy()}
        expected = {"label": classes.index_to_id()[answer.numpy()]}
        scores = method.label_scores(_float(given))
        if scores is not None:
            assert bool((scores.argmax(1) == answer).all()), "to_label and label_scores of this method disagree"
            probabilities = torch.softmax(scores.float(), 1).numpy()
            expected |= {"confidence": np.rint(probabilities.max(1) * 255).astype(np.uint8), RAW: probabilities}
        return expected


def _float(photos: np.ndarray) -> Tensor:
    return torch.from_numpy(photos.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
