"""Find the photos that labels belong to, by their names and folders."""

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath

from trainer.data.formats.label_studio import UPLOAD
from trainer.data.formats.shapes import Picture, Unusable
from trainer.data.layouts.files import HEIF, PICTURES

SPLITS = {"train": "train", "valid": "val", "val": "val", "test": "test"}
PHOTO_FOLDERS = ("images", "img", "photos", "JPEGImages", "leftImg8bit", "data")
"""Folders that are left out of the names of photos."""


class Photos:
    """The photos below a folder. `targets` has for each its split ("" where there is only one) and its name there."""

    def __init__(self, folder: Path, *, masks: Sequence[Path], embedded: Path | None) -> None:
        found = [
            path
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in (*PICTURES, *HEIF)
            and not any(part.startswith((".", "__", "Segmentation")) for part in path.relative_to(folder).parts)
            and not set(masks) & set(path.parents)
        ]
        self.targets: dict[Path, tuple[str, Path]] = {}
        self.same_name: list[str] = []
        self._folder, self._embedded = folder, embedded
        self._by_stem = defaultdict(list)
        splits = {path: _split(path.relative_to(folder)) for path in found}
        self._several = "train" in splits.values() and len(set(splits.values())) > 1
        self._taken: set[tuple[str, Path]] = set()
        for path in found:
            self._by_stem[_stem(path.name)].append(path)
            inner = [part for part in path.relative_to(folder).parts[:-1] if part not in (*PHOTO_FOLDERS, *SPLITS)]
            if not self._take(path, splits[path], Path(*inner, path.name)):
                self.same_name.append(str(path.relative_to(folder)))

    def _take(self, path: Path, split: str, name: Path) -> bool:
        """Give a photo its target; False where another photo has it."""
        target = ((split or "train") if self._several else "", name)
        key = (target[0], name.with_suffix(""))
        if key in self._taken:
            return False
        self._taken.add(key)
        self.targets[path] = target
        return True

    def find(self, picture: Picture) -> Path:
        """Return the photo of that name, whatever its ending; of several that in the most similar folder.

        Raises Unusable where there is none, or several.
        """
        name = PurePosixPath(posixpath.normpath(picture.name))
        stem = _stem(name.name)
        candidates = self._by_stem[stem] or self._by_stem[UPLOAD.sub("", stem)]
        split, elsewhere = _split(name), candidates
        if split:
            candidates = [path for path in candidates if _split(path.relative_to(self._folder)) in ("", split)]
        if not candidates and picture.photo is not None and self._embedded is not None:
            return self._unpacked(name, picture.photo, self._embedded)
        if not candidates and elsewhere:
            raise Unusable(f"a photo of the split {split} that is in another split only: move the photo or its labels")
        if not candidates:
            raise Unusable("a photo that was not found: name the folder of the photos with --photos")
        common = [
            (path.parent.relative_to(self._folder) == Path(name.parent), *_common(path, name)) for path in candidates
        ]
        best = [path for path, score in zip(candidates, common, strict=True) if score == max(common)]
        if best[0] not in self.targets:
            raise Unusable("a photo whose name another photo has")
        if len(best) > 1:
            raise Unusable(f"a name that {len(best)} photos have: keep the folders that the tool names, or rename them")
        return best[0]

    def _unpacked(self, name: PurePosixPath, content: bytes, folder: Path) -> Path:
        """Write the photo that a label file holds, below its folder."""
        if name.is_absolute() or ".." in name.parts:
            raise Unusable("an embedded photo whose path leaves the export: import the folder that holds both")
        path = folder / name
        if not self._take(path, _split(name), Path(name)):
            raise Unusable("a photo whose name another photo has")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


def _stem(name: str) -> str:
    ending = PurePosixPath(name).suffix
    known = ending.lower() in (*PICTURES, *HEIF)
    return unicodedata.normalize("NFC", name.removesuffix(ending) if known else name)


def _common(path: Path, name: PurePosixPath) -> tuple[int, bool]:
    """Return how many folders above two files have the same names, and whether the files have."""
    above = zip(path.parent.parts[::-1], name.parent.parts[::-1], strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], above))), path.name == name.name


def _split(path: PurePath) -> str:
    return next((SPLITS[part] for part in path.parts[:-1] if part in SPLITS), "")
