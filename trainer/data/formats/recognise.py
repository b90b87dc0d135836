"""Open an export, a folder, a ZIP or a file, and find out which format it has."""

import tempfile
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.data.formats import cityscapes, coco, cvat, label_studio, labelme, masks, supervisely, voc, yolo
from trainer.data.formats.shapes import Export, Label, Picture, read_json
from trainer.data.layouts.files import first_of
from trainer.errors import UserError

Reader = Callable[[Path, Sequence[Path], Sequence[Label] | None], Export]
READERS: dict[str, Reader] = {
    "COCO JSON": coco.read,
    "CVAT for images": cvat.read,
    "labelme JSON": labelme.read,
    "Label Studio JSON": label_studio.read,
    "Cityscapes JSON": cityscapes.read,
    "Supervisely JSON": supervisely.read,
    "VOC masks": voc.read,
    "YOLO segmentation": yolo.read,
    "binary masks": masks.read,
}
LISTS = ("labelmap.txt", "classes.txt", "labels.txt", "class_names.txt", "meta.json")
"""Files that list classes."""


@contextmanager
def opened_export(path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield the folder of an export and its files; a ZIP is unpacked for as long."""
    with tempfile.TemporaryDirectory(prefix="fewpair-import-") as unpacked:
        if path.suffix.lower() == ".zip":
            try:
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(unpacked)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                problem = "it is broken, has a password or an unknown compression"
                raise UserError(
                    f"{path} cannot be unpacked ({problem}): export it again, or unpack it first"
                ) from error
            path = Path(unpacked)
        elif path.is_file():
            yield path.parent, [path]
            return
        elif not path.is_dir():
            raise UserError(f"{path} does not exist: give the folder, the ZIP or the file that the tool exported")
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith((".", "__"))]
        yield path, files


def read_export(root: Path, files: Sequence[Path], given: Sequence[Label] | None) -> tuple[str, Export]:
    """Return the name of the format and what its reader returns. Raises UserError unless one format is found."""
    found: dict[str, list[Path]] = defaultdict(list)
    ignored = []
    for file in files:
        kind = _kind(file)
        if kind is not None:
            found[kind].append(file)
        elif file.suffix.lower() in (".json", ".xml", ".txt") and file.name not in LISTS and file.stat().st_size:
            ignored.append(str(file.relative_to(root)))
    if not found:
        paths = [file for file in files if file.suffix.lower() == ".png" and masks.mask_of(file) is not None]
        found |= {"binary masks": paths} if paths else {}
    if len(found) == 1:
        ((name, paths),) = found.items()
        with _complete(root, name):
            export = READERS[name](root, paths, given)
        remarks = (*export.remarks, f"ignored: {first_of(ignored)}") if ignored else export.remarks
        return name, replace(export, pictures=lambda: _pictures(root, name, export), remarks=remarks)
    if found:
        kinds = ", ".join(f"{name} (as {paths[0].relative_to(root)})" for name, paths in found.items())
        raise UserError(f"{root} holds several formats: {kinds}; give the folder or file of one of them")
    endings = Counter(file.suffix.lower() or "without an ending" for file in files)
    there = ", ".join(f"{count} {ending}" for ending, count in endings.most_common()) or "nothing"
    raise UserError(
        f"{root} holds no export that can be read ({', '.join(READERS)}); found: {there}. "
        "Label maps in PNG files, one a photo, need no import: see README, Your own photos"
    )


def _pictures(root: Path, name: str, export: Export) -> Iterator[Picture]:
    with _complete(root, name):
        yield from export.pictures()


@contextmanager
def _complete(root: Path, name: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        problem = f"without {error}" if isinstance(error, KeyError) else f"that cannot be read ({error})"
        raise UserError(f"{root} holds {name} {problem}: export it again") from error


def _kind(file: Path) -> str | None:
    ending = file.suffix.lower()
    if ending == ".json":
        return _kind_of_json(read_json(file), file)
    if ending == ".xml":
        return "CVAT for images" if cvat.parsed(file).tag == "annotations" else None
    if ending == ".png" and voc.FOLDERS & set(file.parts):
        return "VOC masks"
    return "YOLO segmentation" if ending == ".txt" and file.name not in LISTS and yolo.is_label_file(file) else None


def _kind_of_json(content: Any, file: Path) -> str | None:
    if isinstance(content, list):
        if content and all(isinstance(task, dict) and "data" in task for task in content):
            return "Label Studio JSON"
        if content and isinstance(content[0], dict) and "annotation_id" in content[0]:
            raise UserError(f'{file} is Label Studio\'s "JSON-MIN": export "JSON"')
    keys = set(content) if isinstance(content, dict) else set()
    kinds = {
        "COCO JSON": {"images", "annotations", "categories"},
        "labelme JSON": {"shapes", "imagePath"},
        "Cityscapes JSON": {"objects", "imgHeight"},
        "Supervisely JSON": {"objects", "size"},
    }
    return next((kind for kind, needed in kinds.items() if needed <= keys), None)
