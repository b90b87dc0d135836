"""What layouts share: the root, files found by their stems, and photos matched with labels."""

import importlib
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

from trainer.batch import Classes, Domain
from trainer.data.dataset import Dataset, Sample
from trainer.errors import UserError

HEIF = (".heic", ".heif")
"""Read if the package pillow-heif is installed."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif")
NO_PICTURES = (".csv", ".json", ".txt", ".md", ".xml", ".yaml", ".yml", ".ini", ".db")
"""Ends of files that lie beside pictures and are ignored silently."""


@dataclass(frozen=True)
class Layout:
    """The folder of a dataset, and in words what has to lie there."""

    name: str
    root: Path
    text: str
    ignored: Counter[str] = field(default_factory=Counter)
    """The files that were not read, by type."""

    @classmethod
    def at(cls, name: str, root: Path | None, text: str) -> "Layout":
        """The layout below the folder that `--root` names. Raises UserError where there is none."""
        if root is None:
            raise UserError(f"--data {name} needs --root FOLDER, a folder that holds {text}")
        if not root.is_dir():
            raise UserError(f"--root {root}: there is no such folder; {name} expects one that holds {text}")
        return cls(name, root, text)

    def files(self, folder: Path, *, ending: str = "") -> dict[str, str]:
        """The pictures below a folder, by their stems (`by_stem`); others are counted in `ignored`."""
        return by_stem(self.root, folder, ending=ending, ignored=self.ignored)

    def require(self, path: Path) -> None:
        """Raise UserError where a folder of the layout is not there."""
        if not path.is_dir():
            raise UserError(f"{path} is missing; {self.name} expects a root that holds {self.text}")

    def holds_no_pictures(self, path: Path) -> UserError:
        """What to raise where a folder is empty."""
        types, others = ", ".join(PICTURES), "".join(f"; {note}" for note in ignored_files(self.ignored))
        return UserError(f"{path} holds no pictures ({types}){others}; {self.name} expects a root with {self.text}")

    def dataset(
        self,
        splits: Mapping[str, tuple[Sample, ...]],
        *,
        terms: str,
        classes: Classes | None,
        notes: tuple[str, ...] = (),
    ) -> Dataset:
        """The dataset, with notes on ignored files, and on names without a partner where both sides have some."""
        alone = (_alone(split, samples) for split, samples in splits.items())
        return Dataset(
            name=self.name,
            root=self.root,
            label_domain=Domain("picture") if classes is None else Domain("classes", classes),
            terms=terms,
            splits=MappingProxyType(dict(splits)),
            notes=(*ignored_files(self.ignored), *notes, *(note for note in alone if note is not None)),
        )


def by_stem(root: Path, folder: Path, *, ending: str = "", ignored: Counter[str] | None = None) -> dict[str, str]:
    """{path below the folder without its ending: path below the root}; two files of one stem are refused.

    Stems are in Unicode normal form NFC, as macOS writes "é" as two characters. Unreadable types are counted in
    `ignored`. No file is opened.
    """
    found: dict[str, str] = {}
    clashes: list[str] = []
    prefix = "" if folder == root else folder.relative_to(root).as_posix() + "/"
    for path in sorted(_pictures_below(folder, Counter() if ignored is None else ignored)):
        if not path.endswith(ending):
            continue
        if any("\ud800" <= character <= "\udfff" for character in path):  # bytes that are no text
            raise UserError(f"{folder}: the file name {path!a} is not UTF-8 (from an archive of Windows?): rename it")
        stem = unicodedata.normalize("NFC", path[: -len(ending)] if ending else path.rpartition(".")[0])
        if stem in found:
            clashes.append(f"{found[stem]} and {prefix}{path}")
        found[stem] = prefix + path
    if clashes:
        raise UserError(
            f"{root}: {first_of(clashes)} share a name, so pairs would be ambiguous: remove or rename one of each"
        )
    return found


def ignored_files(ignored: Counter[str]) -> tuple[str, ...]:
    """A note that counts the files that were ignored by type, if there are any."""
    if not ignored:
        return ()
    types = ", ".join(f"{count} {ending}" for ending, count in ignored.most_common())
    remedy = " (install pillow-heif to read HEIC)" if ignored.keys() & set(HEIF) else ""
    return (f"files of types that cannot be read were ignored: {types}{remedy}",)


def matched(photos: Mapping[str, str], labels: Mapping[str, str]) -> tuple[Sample, ...]:
    """Photos and labels of one stem become one sample, in the order of the stems."""
    return tuple(Sample(stem, photos.get(stem), labels.get(stem)) for stem in sorted(photos.keys() | labels.keys()))


def number_of(count: int, noun: str) -> str:
    """1 photo, 2 photos."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_of(names: Sequence[str]) -> str:
    """The first five names and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def counted(pairs: int, photos: int, labels: int = 0) -> str:
    """6 pairs, 34 other photos; also other label maps where there are some."""
    parts = [number_of(pairs, "pair"), number_of(photos, "other photo"), number_of(labels, "other label map")]
    return ", ".join(parts if labels else parts[:2])


def _pictures_below(folder: Path, ignored: Counter[str]) -> list[str]:
    """Every picture file below a folder, as a relative path with forward slashes; hidden ones are left out."""
    found: list[str] = []
    waiting = [("", os.fspath(folder))] if folder.is_dir() else []
    readable = (*PICTURES, *HEIF) if reads_heif() else PICTURES
    while waiting:
        prefix, place = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = entry.name.lower()
                if name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{prefix}{entry.name}/", entry.path))
                elif entry.is_dir():
                    ignored["that link to a folder"] += 1
                elif name.endswith(readable):  # a broken link too: it is reported where it is read
                    found.append(prefix + entry.name)
                elif not name.endswith(NO_PICTURES):
                    ignored[Path(name).suffix or "without an ending"] += 1
    return found


@cache
def reads_heif() -> bool:
    """Whether HEIC files can be read; registers the decoder."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def _alone(split: str, samples: tuple[Sample, ...]) -> str | None:
    """How many samples of a split have one side only, and the names of a few, where both sides have such samples."""
    photos = [sample.name for sample in samples if sample.label is None]
    labels = [sample.name for sample in samples if sample.photo is None]
    if not photos or not labels:
        return None
    counts = counted(len(samples) - len(photos) - len(labels), len(photos), len(labels))
    return f"{split}: {counts}, by their names (photos: {', '.join(photos[:3])}; label maps: {', '.join(labels[:3])})"
