"""Write label maps in the formats of labelling tools: `fewpair predict --as`, and the server's polygons.

COCO, labelme and YOLO hold the outlines of regions along the pixels' edges, each hole on a cut of no width; CVAT,
Label Studio and VOC hold masks. `trainer/data/formats/` reads the same formats.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from serving.errors import Refusal
from serving.imaging.decode import Bytes, encode_label
from serving.imaging.domain import IGNORE, ClassRow, Domain
from serving.imaging.regions import MOST_EDGES, Region, regions

_BORDER = (224, 224, 192)  # VOC's colour of void
_LENGTH_BITS = (3, 4, 8, 16)  # in which Label Studio writes the length of a run


class Annotations:
    """The label maps of many photos in one format. `add` each, then `close`."""

    def __init__(self, out: Path, domain: Domain, *, min_area: int = 1) -> None:
        self._out, self._domain, self._min_area = out, domain, min_area
        self._rows = [row for row in domain.classes if not row.ignore]
        self._items: list[Any] = []
        self._written: set[Path] = set()

    def add(self, name: Path, ids: Bytes, *, photo: Path) -> None:
        """Take the ids uint8[H,W] of a photo, whose path in the annotations is `name`. Raises Refusal."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what belongs to all photos."""

    def _write(self, name: str | Path, content: bytes | str | Any) -> None:
        path = self._out / name
        if path in self._written:  # of photos whose names differ in their endings alone
            raise FileExistsError(f"{path} would overwrite the annotations of another photo")
        self._written.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, bytes | str) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


class Coco(Annotations):
    """One document `annotations.json`; category ids are the class ids."""

    def add(self, name: Path, ids: Bytes, *, photo: Path) -> None:
        outlined = outlines(ids, self._domain, min_area=self._min_area)
        self._items.append(({"file_name": name.as_posix(), "width": ids.shape[1], "height": ids.shape[0]}, outlined))

    def document(self) -> dict[str, Any]:
        """Return what `close` writes."""
        found = [(image, region) for image, (_, outlined) in enumerate(self._items, 1) for region in outlined]
        return {
            "images": [{"id": number, **image} for number, (image, _) in enumerate(self._items, 1)],
            "categories": [
                {"id": row.id, "name": row.name, "supercategory": "", "color": list(row.color)} for row in self._rows
            ],
            "annotations": [
                {
                    "id": number,
                    "image_id": image,
                    "category_id": region.row.id,
                    "segmentation": [region.outline.ravel().tolist()],
                    "area": region.area,
                    "bbox": list(region.box),
                    "iscrowd": 0,
                }
                for number, (image, region) in enumerate(found, 1)
            ],
        }

    def close(self) -> None:
        self._write("annotations.json", self.document())


class Labelme(Annotations):
    """A JSON file a photo, and `labels.txt`."""

    def add(self, name: Path, ids: Bytes, *, photo: Path) -> None:
        polygon: dict[str, Any] = {"shape_type": "polygon", "group_id": None, "flags": {}}
        drawn = outlines(ids, self._domain, min_area=self._min_area)
        shapes = [{"label": one.row.name, "points": one.outline.tolist(), **polygon} for one in drawn]
        target = (self._out / name).with_suffix(".json")
        image_path = Path(os.path.relpath(photo.resolve(), target.resolve().parent)).as_posix()
        image = {"imagePath": image_path, "imageData": None, "imageHeight": ids.shape[0], "imageWidth": ids.shape[1]}
        document = {"version": "5.0.0", "flags": {}, "shapes": shapes, **image}
        self._write(name.with_suffix(".json"), document)

    def close(self) -> None:
        self._write("labels.txt", "".join(f"{row.name}\n" for row in self._rows))


class Yolo(Annotations):
    """A text file a photo, and `data.yaml`."""

    def add(self, name: Path, ids: Bytes, *, photo: Path) -> None:
        lines = []
        for region in outlines(ids, self._domain, min_area=self._min_area):
            shares = (region.outline / ids.shape[::-1]).ravel()
            lines.append(f"{self._rows.index(region.row)} " + " ".join(f"{share:.6g}" for share in shares))
        self._write(Path("labels", name.with_suffix(".txt")), "\n".join(lines) + "\n")

    def close(self) -> None:
        names = "".join(f"  {number}: {json.dumps(row.name)}\n" for number, row in enumerate(self._rows))
        self._write("data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}")


class Cvat(Annotations):
    """One file `annotations.xml`, a mask for each class of a photo."""

    def add(self, name: Path, ids: Bytes, *, photo: Path) -> None:
        size = f'width="{ids.shape[1]}" height="{ids.shape[0]}"'
        masks = "".join(f"    {_cvat_mask(row, mask)}\n" for row, mask in _masks(ids, self._rows))
        image = f'  <image id="{len(self._items)}" name={quoteattr(name.as_posix())} {size}>\n{masks}  </image>\n'
        self._items.append(image)

    def close(self) -> None:
        labels = "".join(
            f"<label><name>{quoteattr(row.name)[1:-1]}</name><color>#{bytes(row.color).hex()}</color></label>"
            for row in self._rows
        )
        meta = f"  <version>1.1</version>\n  <meta><task><labels>{labels}</labels></task></meta>\n"
        self._write("annotations.xml", f"<annotations>\n{meta}{''.join(self._items)}</annotations>\n")


class LabelStudio(Annotations):
    """Tasks with predictions in `tasks.json`, and a labelling interface for them in `config.xml`."""

    def add(self, name: Path, ids: Bytes, *, photo: Path) -> None:
        brushes = [(row, brush_value(mask)) for row, mask in _masks(ids, self._rows)]
        results = studio_results(brushes, ids.shape, kind="brushlabels", tag="label", image="image")
        prediction = {"model_version": "fewpair", "result": results}
        address = f"/data/local-files/?d={quote(name.as_posix())}"
        self._items.append({"data": {"image": address}, "predictions": [prediction]})

    def close(self) -> None:
        labels = "".join(
            f'    <Label value={quoteattr(row.name)} background="#{bytes(row.color).hex()}"/>\n' for row in self._rows
        )
        brush = f'  <BrushLabels name="label" toName="image">\n{labels}  </BrushLabels>\n'
        self._write("config.xml", f'<View>\n  <Image name="image" value="$image"/>\n{brush}</View>\n')
        self._write("tasks.json", self._items)


class Voc(Annotations):
    """CVAT's "Segmentation mask 1.1": palette PNGs, and `labelmap.txt`, whose first class is background."""

    def __init__(self, out: Path, domain: Domain, *, min_area: int = 1) -> None:
        super().__init__(out, domain, min_area=min_area)
        if all(row.name != "background" for row in self._rows):
            self._rows.insert(0, ClassRow(IGNORE, "background", (0, 0, 0), False))
        self._rows.sort(key=lambda row: row.name != "background")
        rows = [ClassRow(number, row.name, row.color, False) for number, row in enumerate(self._rows)]
        self._voc = Domain("classes", (*rows, ClassRow(IGNORE, "void", _BORDER, True)))

    def add(self, name: Path, ids: Bytes, *, photo: Path) -> None:
        numbers = np.full(256, IGNORE, np.uint8)
        numbers[[row.id for row in self._rows]] = np.arange(len(self._rows))
        numbers[IGNORE] = IGNORE  # void stays void, whatever id a background has
        self._write(Path("SegmentationClass", name.with_suffix(".png")), encode_label(numbers[ids], self._voc))
        self._items.append(name.with_suffix("").as_posix())

    def close(self) -> None:
        lines = [f"{row.name}:{','.join(map(str, row.color))}::\n" for row in self._rows]
        self._write("labelmap.txt", "# label:color_rgb:parts:actions\n" + "".join(lines))
        self._write("ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in self._items))


FORMATS: dict[str, type[Annotations]] = {
    "coco": Coco,
    "cvat": Cvat,
    "label-studio": LabelStudio,
    "labelme": Labelme,
    "voc": Voc,
    "yolo": Yolo,
}


def outlines(ids: Bytes, domain: Domain, *, min_area: int) -> list[Region]:
    """Return the regions of a label map. Raises Refusal where there are too many."""
    found = regions(ids, domain, min_area=min_area)
    if found is None:
        raise _too_fragmented()
    return found


def _too_fragmented() -> Refusal:
    message = f"the label map has too many regions to outline: over {MOST_EDGES:,} edges between pixels."
    return Refusal(400, "too_fragmented", message, hint="Set output to ids, or use a smaller photo.")


def studio_results(
    values: Iterable[tuple[ClassRow, dict[str, Any]]], shape: tuple[int, ...], *, kind: str, tag: str, image: str
) -> list[dict[str, Any]]:
    """Return regions of a photo of that shape (height, width) as results of Label Studio.

    `values` are their classes and drawn values, `kind` is the type of the interface's tag of that name, whose photo is
    the tag `image`.
    """
    head = {"type": kind, "from_name": tag, "to_name": image, "image_rotation": 0}
    head |= {"original_width": shape[1], "original_height": shape[0]}
    named = [{**value, kind: [row.name]} for row, value in values]
    return [{"id": f"{number}", **head, "value": value} for number, value in enumerate(named)]


def brush_value(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return Label Studio's bit stream of a mask bool[H,W], as runs of RGBA, all 255 or all 0. Raises Refusal."""
    runs = _runs(mask)
    if len(runs) > MOST_EDGES:
        raise _too_fragmented()
    bits = [f"{4 * mask.size:032b}{8 - 1:05b}", *(f"{count - 1:04b}" for count in _LENGTH_BITS)]
    for index, length in enumerate(runs):
        left = 4 * length
        while left:
            part = min(left, 2 ** _LENGTH_BITS[-1])
            size = next(size for size, count in enumerate(_LENGTH_BITS) if part <= 2**count)
            bits.append(f"1{size:02b}{part - 1:0{_LENGTH_BITS[size]}b}{255 * (index % 2):08b}")
            left -= part
    text = "".join(bits)
    stream = int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8))
    return {"format": "rle", "rle": list(stream)}


def _cvat_mask(row: ClassRow, mask: NDArray[np.bool_]) -> str:
    """Return an element `mask`: its box, and its run lengths by rows inside it."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    inside = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    box = f'left="{xs[0]}" top="{ys[0]}" width="{inside.shape[1]}" height="{inside.shape[0]}"'
    runs = ", ".join(map(str, _runs(inside)))
    return f'<mask label={quoteattr(row.name)} source="auto" occluded="0" rle="{runs}" {box} z_order="0"/>'


def _masks(ids: Bytes, rows: list[ClassRow]) -> list[tuple[ClassRow, NDArray[np.bool_]]]:
    present = set(np.unique(ids).tolist())
    return [(row, ids == row.id) for row in rows if row.id in present]


def _runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return the run lengths of a mask by rows, zeros first."""
    flat = np.concatenate([[False], mask.ravel()])
    ends = [0, *np.flatnonzero(flat[1:] != flat[:-1]).tolist(), mask.size]
    return [after - before for before, after in pairwise(ends)]
