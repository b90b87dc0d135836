"""Where each dataset keeps its files, what its two sides are, and how a sample is read."""

import csv
import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from trainer.batch import Class, Classes, Domain
from trainer.data import decode, scenes
from trainer.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
CAMVID_TERMS = "CamVid (Brostow, Shotton, Fauqueur, Cipolla, ECCV 2008), SegNet split; non-commercial research"
SCENE_SIZE = (360, 480)
SCENE_SPLITS = {"train": 500, "val": 40, "test": 100}

Side = Literal["photo", "label"]


@dataclass(frozen=True)
class Sample:
    """One photo, one label map, or both of one scene; paths are relative to the dataset's root ("scene:<split>:<index>" if drawn)."""

    name: str
    photo: str | None
    label: str | None

    @property
    def complete(self) -> bool:
        """Whether it can serve as a pair."""
        return self.photo is not None and self.label is not None


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk; scenes override the three ways of reading."""

    name: str
    root: Path | None
    photo_domain: Domain
    label_domain: Domain
    terms: str
    splits: Mapping[str, tuple[Sample, ...]]
    label_spelling: decode.Spelling | None = None
    """How the label files say a class; None where the label side is pictures."""
    notes: tuple[str, ...] = ()
    """What a person should know of the files that were found: spelling, unpaired material."""

    @property
    def place(self) -> str:
        """The dataset in an error message: "camvid in data/camvid"."""
        return self.name if self.root is None else f"{self.name} in {self.root}"

    def samples(self, split: str) -> tuple[Sample, ...]:
        """The samples of a split, in the order of their names."""
        if split not in self.splits:
            raise UserError(f"{self.place} has no split {split!r}; it has {', '.join(self.splits)}")
        return self.splits[split]

    def read_photo(self, sample: Sample) -> np.ndarray:
        """The photo as uint8[H,W,3]."""
        return decode.read_photo(self.file(sample, "photo"))

    def read_label(self, sample: Sample) -> np.ndarray:
        """Class indices uint8[H,W] (0..C-1 or IGNORE), or the picture uint8[H,W,3] where the label side is pictures.

        It must have the size of its photo; a photo whose size cannot be read is found broken where the photo itself is read.
        """
        path = self.file(sample, "label")
        classes = self.label_domain.classes
        if classes is None or self.label_spelling is None:
            label = decode.read_photo(path)
        else:
            label = decode.read_label(path, classes, spelling=self.label_spelling)
        with suppress(decode.BrokenFile):
            expected = None if sample.photo is None else decode.photo_size(self.file(sample, "photo"))
            if expected is not None and label.shape[:2] != expected:
                raise UserError(
                    f"{path} is {label.shape[0]}x{label.shape[1]} (height x width), but its photo {sample.photo} is "
                    f"{expected[0]}x{expected[1]}: a label map must have the size of its photo"
                )
        return label

    def digest(self, sample: Sample, side: Side) -> str:
        """The sha256 of the file."""
        path = self.file(sample, side)
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise decode.BrokenFile(f"{path} cannot be read ({error.strerror})") from error

    def file(self, sample: Sample, side: Side) -> Path:
        """Where one side of a sample lies."""
        relative = sample.photo if side == "photo" else sample.label
        if relative is None or self.root is None:
            raise UserError(f"{self.place}: sample {sample.name} has no {side}")
        return self.root / relative


@dataclass(frozen=True)
class Scenes(Dataset):
    """The built-in scenes: nothing lies on disk, every sample is drawn when it is read."""

    def read_photo(self, sample: Sample) -> np.ndarray:
        """The photo as uint8[H,W,3]."""
        return _drawn(sample.photo or "")[0].copy()

    def read_label(self, sample: Sample) -> np.ndarray:
        """Class indices uint8[H,W]."""
        return _drawn(sample.label or "")[1].copy()

    def digest(self, sample: Sample, side: Side) -> str:
        """The sha256 of the drawn array."""
        array = self.read_photo(sample) if side == "photo" else self.read_label(sample)
        return hashlib.sha256(array.tobytes()).hexdigest()


@dataclass(frozen=True)
class Row:
    """One line of the catalogue."""

    open: Callable[[str, Path | None], Dataset]
    summary: str


def open_dataset(name: str, root: Path | None) -> Dataset:
    """The dataset called `name`, its files listed and its class table read; the pictures themselves are read later."""
    if name not in CATALOGUE:
        raise UserError(f"--data {name}: there is no such dataset; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name].open(name, None if root is None else Path(root))


def read_classes(path: Path) -> Classes:
    """A class table from CSV: `id,name,r,g,b,ignore`, or `index,...` without `ignore`: there a row called void or unlabeled is ignored."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip().lower() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            identity = "id" if "id" in columns else "index"
            missing = [column for column in (identity, "name", "r", "g", "b") if column not in columns]
            if missing:
                raise UserError(f"{path} line 1: the column {', '.join(missing)} is missing; the first line must be id,name,r,g,b,ignore")
            rows: list[Class] = []
            for record in reader:
                row = _class_row(f"{path} line {reader.line_num}", record, identity=identity)
                for earlier in rows:
                    if row.id == earlier.id or row.name == earlier.name:
                        what = f"id {row.id}" if row.id == earlier.id else f"name {row.name!r}"
                        raise UserError(f"{path} line {reader.line_num}: {what} is already taken by {earlier.name} (id {earlier.id})")
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a class table ({error})") from error
    classes = Classes(tuple(rows))
    if classes.count == 0:
        raise UserError(f"{path} lists no class that counts; each row is id,name,r,g,b,ignore")
    return classes


def _class_row(where: str, record: Mapping[str, str | None], *, identity: str) -> Class:
    def number(column: str) -> int:
        text = (record.get(column) or "").strip()
        if not text.isascii() or not text.isdigit() or int(text) > 255:
            raise UserError(f"{where}: {column} is {text!r}, but must be a whole number from 0 to 255")
        return int(text)

    name = (record.get("name") or "").strip()
    if not name:
        raise UserError(f"{where}: the class has no name")
    if "ignore" in record:
        word = (record["ignore"] or "").strip().lower()
        if word not in ("", "0", "1", "true", "false", "yes", "no"):
            raise UserError(f"{where}: ignore is {word!r}, but must be 0 or 1")
        ignore = word in ("1", "true", "yes")
    else:
        ignore = name.lower() in ("void", "unlabeled", "unlabelled")
    return Class(number(identity), name, (number("r"), number("g"), number("b")), ignore)


def _scenes(name: str, root: Path | None) -> Dataset:
    if root is not None:
        raise UserError(f"--data {name} draws its own pictures: leave out --root {root}")
    splits = {
        split: tuple(Sample(f"{split}-{index:05d}", f"scene:{split}:{index}", f"scene:{split}:{index}") for index in range(count))
        for split, count in SCENE_SPLITS.items()
    }
    return Scenes(
        name=name,
        root=None,
        photo_domain=Domain("picture"),
        label_domain=Domain("classes", scenes.CLASSES),
        terms="drawn by fewpair itself; no conditions",
        splits=MappingProxyType(splits),
        label_spelling="ids",
    )


@lru_cache(maxsize=32)
def _drawn(reference: str) -> tuple[np.ndarray, np.ndarray]:
    _, split, index = reference.split(":")
    height, width = SCENE_SIZE
    return scenes.draw(int(index), height=height, width=width, split=split)


def _camvid(name: str, root: Path | None) -> Dataset:
    layout = "train/photo/NAME.jpg, train/label/NAME.png, the same under val and devtest, and classes.csv"
    where = _root(name, root, layout=layout)
    folders = {split: where / split for split in ("train", "val", "devtest") if split == "train" or (where / split).is_dir()}
    if not (where / "train" / "label").is_dir():
        raise UserError(f"{where / 'train' / 'label'} is missing; {name} expects a root that holds {layout}")
    return _listed(name, where, folders, layout=layout, sides=("photo", "label"), terms=CAMVID_TERMS, table=where / "classes.csv")


def _folders(name: str, root: Path | None) -> Dataset:
    layout = "photos/NAME.jpg, labels/NAME.png and classes.csv (splits: train/photos, train/labels, val/photos, ...)"
    where = _root(name, root, layout=layout)
    return _listed(
        name, where, _split_folders(where), layout=layout, sides=("photos", "labels"), terms="yours", table=where / "classes.csv"
    )


def _pictures(name: str, root: Path | None) -> Dataset:
    layout = "photos/NAME.jpg and labels/NAME.png (splits: train/photos, train/labels, val/photos, ...)"
    where = _root(name, root, layout=layout)
    return _listed(name, where, _split_folders(where), layout=layout, sides=("photos", "labels"), terms="yours", table=None)


CATALOGUE: dict[str, Row] = {
    "scenes": Row(_scenes, "street scenes that fewpair draws itself"),
    "camvid": Row(_camvid, "CamVid, SegNet split, 11 classes"),
    "folders": Row(_folders, "your own photos/ and labels/ with a classes.csv, paired by file name"),
    "pictures": Row(_pictures, "your own photos/ and labels/ where the label side is pictures too, paired by file name"),
}
"""Every dataset that `--data` names."""


def _root(name: str, root: Path | None, *, layout: str) -> Path:
    if root is None:
        raise UserError(f"--data {name} needs --root FOLDER, a folder that holds {layout}")
    if not root.is_dir():
        raise UserError(f"--root {root}: there is no such folder; {name} expects one that holds {layout}")
    return root


def _split_folders(root: Path) -> dict[str, Path]:
    """Each sub-folder with photos or labels is a split; without one called train, the root's own photos/ and labels/ are `train`."""
    found = {folder.name: folder for folder in sorted(root.iterdir()) if (folder / "photos").is_dir() or (folder / "labels").is_dir()}
    return found if "train" in found else {"train": root, **found}


def _listed(
    name: str, root: Path, folders: Mapping[str, Path], *, layout: str, sides: tuple[str, str], terms: str, table: Path | None
) -> Dataset:
    """The files of each split; the folder of the labels may be absent while nothing is labelled yet."""
    if not (folders["train"] / sides[0]).is_dir():
        raise UserError(f"{folders['train'] / sides[0]} is missing; {name} expects a root that holds {layout}")
    if table is not None and not table.is_file():
        raise UserError(f"{table} is missing; {name} expects a root that holds {layout}; the table's first line is id,name,r,g,b,ignore")
    classes = None if table is None else read_classes(table)
    splits: dict[str, tuple[Sample, ...]] = {}
    notes: list[str] = []
    for split, folder in folders.items():
        photos, labels = (_by_stem(root, folder / side) for side in sides)
        stems = sorted(photos.keys() | labels.keys())
        splits[split] = tuple(Sample(stem, photos.get(stem), labels.get(stem)) for stem in stems)
        photos_alone, labels_alone = len(photos.keys() - labels.keys()), len(labels.keys() - photos.keys())
        if photos_alone or labels_alone:
            pairs = len(stems) - photos_alone - labels_alone
            notes.append(f"{split}: {pairs} pairs, {photos_alone} photos without a label, {labels_alone} labels without a photo")
    if not splits["train"]:
        raise UserError(f"{folders['train']} holds no pictures ({', '.join(PICTURES)}); {name} expects a root that holds {layout}")
    outside = [root / side for side in sides if folders["train"] != root and (root / side).is_dir()]
    if outside:
        notes.append(f"{' and '.join(map(str, outside))} is not used, because {folders['train']} is there: move what it holds into that")
    spelling = None if classes is None else _spelling(root, splits, classes)
    if name != "camvid" and spelling is not None and any(sample.label for samples in splits.values() for sample in samples):
        notes.insert(0, f"label files hold class {spelling}" if spelling == "ids" else "label files hold palette colours")
    return Dataset(
        name=name,
        root=root,
        photo_domain=Domain("picture"),
        label_domain=Domain("picture") if classes is None else Domain("classes", classes),
        terms=terms,
        splits=MappingProxyType(splits),
        label_spelling=spelling,
        notes=tuple(notes),
    )


def _by_stem(root: Path, folder: Path) -> dict[str, str]:
    """{path below the folder without its ending: path below the root}; two files of one stem are refused."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.suffix.lower() not in PICTURES or path.name.startswith(".") or not path.is_file():
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        relative = path.relative_to(root).as_posix()
        if stem in found:
            raise UserError(
                f"{root}: {found[stem]} and {relative} share the name {stem}, so pairs would be ambiguous: remove or rename one"
            )
        found[stem] = relative
    return found


def _spelling(root: Path, splits: Mapping[str, tuple[Sample, ...]], classes: Classes) -> decode.Spelling:
    """Found from up to 20 label files over the splits; files that disagree are refused."""
    files = [root / sample.label for samples in splits.values() for sample in samples if sample.label is not None]
    seen: dict[decode.Spelling, Path] = {}
    for path in files[:: max(1, len(files) // 20)]:
        try:
            seen.setdefault(decode.spelling_of(path, classes), path)
        except decode.BrokenFile:
            continue
    if len(seen) == 2:
        raise UserError(f"{seen['ids']} holds class ids, but {seen['colours']} holds palette colours: spell all label files one way")
    spelling: decode.Spelling = next(iter(seen), "ids")
    colours = [row.color for row in classes.rows]
    if spelling == "colours" and len(set(colours)) < len(colours):
        twice = next(row for row in classes.rows if colours.count(row.color) > 1)
        raise UserError(f"{root / 'classes.csv'}: colour {twice.color} of {twice.name} is used twice, but the label files hold colours")
    return spelling
