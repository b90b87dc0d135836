"""Find the photos that labels belong to, by their names and folders."""

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath

from trainer.data.formats.label_studio import UPLOAD
from trainer.data.formats.shapes import Picture, Unusable
from trainer.data.formats.voc import NO_PHOTOS
from trainer.data.layouts.files import HEIF, PICTURES, reads_heif

SPLITS = {"train": "train", "valid": "val", "val": "val", "test": "test"}
PHOTO_FOLDERS = ("images", "img", "photos", "JPEGImages", "leftImg8bit", "data")
"""Folders that are left out of the names of photos."""


class Photos:
    """The photos below folders; `targets` has for each its split ("" where there is only one) and its name there."""

    def __init__(self, folders: Mapping[str, Path], *, masks: Sequence[Path], embedded: Path | None) -> None:
        self.targets: dict[Path, tuple[str, Path]] = {}
        self.same_name: list[str] = []
        self._embedded = embedded  # None: the folders are those of a project, by their splits
        self._by_stem = defaultdict(list)
        self._places: dict[Path, tuple[str, Path]] = {}
        endings = (*PICTURES, *HEIF) if reads_heif() else PICTURES
        for split, folder in folders.items():
            for path in sorted(folder.rglob("*")):
                place = path.relative_to(folder)
                hidden = any(part.startswith((".", "__")) or part in NO_PHOTOS for part in place.parts)
                if path.suffix.lower() in endings and not hidden and not set(masks) & set(path.parents):
                    self._places[path] = (split or _split(place), place)
                    self._by_stem[_stem(path.name)].append(path)
                    self.targets |= {path: (split, place)} if embedded is None else {}
        self._several = {"train"} < {split for split, _ in self._places.values()}
        self._taken: set[tuple[str, Path]] = set()
        for path, (split, place) in self._places.items() if embedded is not None else ():
            if not self._take(path, split, Path(*_inner(place), path.name)):
                self.same_name.append(str(place))

    def _take(self, path: Path, split: str, name: Path) -> bool:
        """Give a photo its target; False where another photo has it."""
        target = ((split or "train") if self._several else "", name)
        key = (target[0], name.with_suffix(""))
        if key in self._taken:
            return False
        self._taken.add(key)
        self.targets[path] = target
        return True

    def find(self, picture: Picture) -> tuple[Path, tuple[int, ...]]:
        """Return the photo of that name, with any ending, and how well it fits; the best where there are several.

        An embedded photo comes before those in other folders. Raises Unusable where there is none, or several.
        """
        name = PurePosixPath(posixpath.normpath(picture.name.replace("\\", "/")))
        stem = _stem(name.name)
        candidates = self._by_stem[stem] or self._by_stem[UPLOAD.sub("", stem)]
        split, elsewhere = _split(name), candidates
        if split:
            candidates = [path for path in candidates if self._places[path][0] in ("", split)]
        scores = {path: self._score(path, name) for path in candidates}
        there = any(_common(kept := _inner(self._places[path][1]), _inner(name)) == len(kept) for path in candidates)
        if picture.photo is not None and self._embedded is not None and not there:
            return self._unpacked(name, picture.photo, self._embedded), (True, True, 0, True)
        if not candidates and elsewhere:
            raise Unusable(f"a photo of the split {split} that is in another split only: move the photo or its labels")
        if not candidates:
            remedy = "add it to photos/" if self._embedded is None else "name the folder of the photos with --photos"
            raise Unusable(f"a photo that was not found: {remedy}")
        best = [path for path in candidates if scores[path] == max(scores.values())]
        if best[0] not in self.targets:
            raise Unusable("another photo has the same name")
        if len(best) > 1:
            raise Unusable(f"{len(best)} photos have this name: keep the tool's folders, or rename them")
        return best[0], scores[best[0]]

    def _score(self, path: Path, name: PurePosixPath) -> tuple[int, ...]:
        """Return whether folders agree, are equal, how many of the last ones are, and whether the endings are."""
        place = self._places[path][1]
        common = _common(_inner(path), _inner(name))
        agree = common > 0 or not _inner(place) or not _inner(name)
        return agree, place.parent == Path(name.parent), common, path.name == name.name

    def _unpacked(self, name: PurePosixPath, content: bytes, folder: Path) -> Path:
        """Write the photo that a label file holds, below its folder."""
        if name.is_absolute() or ".." in name.parts:
            raise Unusable("an embedded photo whose path leaves the export: import the folder that holds both")
        path = folder / name
        if not self._take(path, _split(name), Path(name)):
            raise Unusable("another photo has the same name")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


def _stem(name: str) -> str:
    ending = PurePosixPath(name).suffix
    known = ending.lower() in (*PICTURES, *HEIF)
    return unicodedata.normalize("NFC", name.removesuffix(ending) if known else name)


def _inner(path: PurePath) -> Sequence[str]:
    """Return the folders above a file that its name keeps."""
    return [part for part in path.parts[:-1] if part not in (*PHOTO_FOLDERS, *SPLITS)]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many of the last folders are equal."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one[::-1], other[::-1], strict=False))))


def _split(path: PurePath) -> str:
    return next((SPLITS[part] for part in path.parts[:-1] if part in SPLITS), "")
