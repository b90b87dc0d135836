"""The card and the preview of an exported model; previews show synthetic pictures, never those of a dataset."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from serving.imaging.decode import encode_grey, encode_photo, read_photo
from serving.imaging.labels import read_label
from trainer.batch import Classes, Domain, random
from trainer.data.dataset import Dataset, Sample, image_errors, resized
from trainer.data.layouts.files import PICTURES
from trainer.data.synthetic import scenes
from trainer.errors import UserError
from trainer.export.graphs import NOISE, PREVIOUS, Graph
from trainer.export.parity import run, translated
from trainer.grids import sample_grid
from trainer.metrics.predict import paint_label

SCENES = (3, 11)
"""Which scenes of split `val` a preview shows."""
PAIR_SIZE, SHOWN_PAIRS = (120, 160), 8


def preview(
    graphs: Sequence[Graph], label_domain: Domain, *, size: tuple[int, int], name: str, examples: Path | None
) -> Image.Image:
    """Show the graphs on synthetic pictures: photo, label, and what the model makes of them, with a legend.

    Label maps of `examples` where there are some; else street scenes where the model knows most of their classes; else
    blocks of the model's own classes in their colours.
    """
    classes = label_domain.classes
    streets = classes is None or len(set(classes.names) & set(scenes.CLASSES.names)) > classes.count // 2
    maps = [np.asarray(Image.open(path)) for path in sorted(examples.glob("*.png"))] if examples else []
    rows = []
    for place, index in enumerate(SCENES):
        if place < len(maps):
            known, photo = maps[place], _shown(maps[place], classes)
        elif classes is None or streets:
            photo, label = scenes.draw(index, height=size[0], width=size[1], split="val")
            known = np.fliplr(photo) if classes is None else translated(label, classes)
        else:
            known = _blocks(classes, index, size)
            photo = _shown(known, classes)
        row = {"photo": photo, "label": _shown(known, classes)}
        for graph in graphs:
            if graph.direction == "to_label":
                row["label from photo"] = _shown(_first_output(graph, photo), classes)
            else:
                row["photo from label"] = _first_output(graph, known)
        rows.append(row)
    drawn = "street scenes" if streets else "blocks of its classes"
    caption = f"{name} on {'its examples' if maps else f'{drawn} that fewpair draws itself'}"
    return sample_grid(rows, scale=max(1, 200 // size[1]), caption=caption, classes=classes)


def _blocks(classes: Classes, index: int, size: tuple[int, int]) -> np.ndarray:
    """A label map uint8[H,W] of raw ids: a background and rectangles of the other classes."""
    draw = random(index, 0, "preview blocks")
    ids = classes.index_to_id()
    order = draw.permutation(classes.count)
    label = np.full(size, ids[order[0]], dtype=np.uint8)
    for each in order[1:9]:
        height, width = (int(draw.integers(side // 6, side // 2 + 1)) for side in size)
        top, left = (
            int(draw.integers(0, side - extent + 1)) for side, extent in zip(size, (height, width), strict=True)
        )
        label[top : top + height, left : left + width] = ids[each]
    return label


def pairs_picture(dataset: Dataset, pairs: Sequence[Sample]) -> Image.Image:
    """The first pairs side by side, each photo above its label map in class colours."""
    height, width = PAIR_SIZE
    columns = []
    for pair in pairs[:SHOWN_PAIRS]:
        photo = Image.fromarray(dataset.read_photo(pair)).resize((width, height), Image.Resampling.LANCZOS)
        columns.append(np.concatenate([np.asarray(photo), paint_label(dataset, dataset.read_label(pair), PAIR_SIZE)]))
    return Image.fromarray(np.concatenate(columns, axis=1))


def write_examples(
    source: Path, graphs: Sequence[Graph], domain: Domain, *, size: Sequence[int], out: Path
) -> list[str]:
    """Write an example NAME.jpg for each picture in `source`, and return their names.

    A model that makes photos gets label maps (class ids or colours): NAME.png are their ids, NAME.jpg what it makes of
    them. Another one gets photos. Raises UserError where there are none, one cannot be read, or two have one name.
    """
    painter = next((graph for graph in graphs if graph.direction == "to_photo"), None)
    files = [path for path in sorted(source.iterdir()) if path.suffix.lower() in PICTURES]
    if not files:
        raise UserError(f"{source} holds no pictures for --examples")
    out.mkdir()
    names = []
    for path in files:
        names.append(re.sub("[^a-z0-9]+", "-", path.stem.lower()))
        if names[-1] in names[:-1]:
            raise UserError(f"{path} is the second example with the name {names[-1]}: give it another of a-z 0-9 -")
        with image_errors(path):
            if painter and domain.classes:
                given = resized(read_label(path, domain.classes.imaging).ids, size)
                (out / f"{names[-1]}.png").write_bytes(encode_grey(given))
            else:
                given = resized(read_photo(path), size)
        picture = _first_output(painter, given) if painter else given
        (out / f"{names[-1]}.jpg").write_bytes(encode_photo(picture, "jpeg"))
    return names


def card(manifest: Mapping[str, Any], *, rounding: str | None) -> str:
    """The README of an exported folder; `rounding` says what storing in fp16 changed."""
    page = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    page.filters["number"] = lambda each: "-" if each is None else f"{each:.3f}" if isinstance(each, float) else each
    template = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    return page.from_string(template).render(manifest, rounding=rounding)


def _first_output(graph: Graph, given: np.ndarray) -> np.ndarray:
    feeds = {graph.input.name: given[None]}
    if graph.noise_shape is not None:
        feeds[NOISE] = random(0, 0, "preview").standard_normal((1, *graph.noise_shape), dtype=np.float32)
    if graph.previous:
        feeds[PREVIOUS] = np.full((1, *given.shape[:2], 3), 128, np.uint8)
    return run(graph.model, feeds)[graph.outputs[0].name][0]


def _shown(label: np.ndarray, classes: Classes | None) -> np.ndarray:
    return label if classes is None else classes.index_to_color()[classes.id_to_index()[label]]
