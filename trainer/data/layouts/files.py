"""What layouts share: the root, files found by their stems, photos matched with labels, and how label files say a class."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from trainer.batch import Classes, Domain
from trainer.data import decode
from trainer.data.class_table import shipped
from trainer.data.dataset import Dataset, Sample
from trainer.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def required_root(name: str, root: Path | None, *, layout: str) -> Path:
    """The folder that `--root` names. Raises UserError with the layout that is expected there."""
    if root is None:
        raise UserError(f"--data {name} needs --root FOLDER, a folder that holds {layout}")
    if not root.is_dir():
        raise UserError(f"--root {root}: there is no such folder; {name} expects one that holds {layout}")
    return root


def missing(path: Path, *, name: str, layout: str) -> UserError:
    """What to raise where a part of the layout is not there."""
    return UserError(f"{path} is missing; {name} expects a root that holds {layout}")


def published(
    name: str,
    root: Path,
    *,
    layout: str,
    folders: Mapping[str, tuple[str, str | None]],
    terms: str,
    endings: tuple[str, str] = ("", ""),
) -> Dataset:
    """A dataset whose publisher fixes its folders and ids: {split: (photos, labels)} below the root, the class table shipped as `name`.

    A split whose labels are None has photos alone; a split whose photos are not there is left out, except `train`. `endings` are what
    file names end in behind the stem that photo and label share; files that end otherwise are passed over.
    """
    for folder in folders["train"]:
        if folder is not None and not (root / folder).is_dir():
            raise missing(root / folder, name=name, layout=layout)
    splits: dict[str, tuple[Sample, ...]] = {}
    for split, (photos, labels) in folders.items():
        if (root / photos).is_dir():
            found = {} if labels is None else by_stem(root, root / labels, ending=endings[1])
            splits[split] = matched(by_stem(root, root / photos, ending=endings[0]), found)
    if not any(sample.complete for sample in splits["train"]):
        raise UserError(f"{root}: no training photo has its label map; {name} expects a root that holds {layout}")
    return assembled(name, root, splits, terms=terms, classes=shipped(name), spelling="ids")


def assembled(
    name: str,
    root: Path,
    splits: Mapping[str, tuple[Sample, ...]],
    *,
    terms: str,
    classes: Classes | None,
    spelling: decode.Spelling | None,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The dataset, with a note on what has no partner in each split."""
    return Dataset(
        name=name,
        root=root,
        photo_domain=Domain("picture"),
        label_domain=Domain("picture") if classes is None else Domain("classes", classes),
        terms=terms,
        splits=MappingProxyType(dict(splits)),
        label_spelling=spelling,
        notes=(*notes, *(note for split, samples in splits.items() if (note := _alone(split, samples)) is not None)),
    )


def by_stem(root: Path, folder: Path, *, ending: str = "") -> dict[str, str]:
    """{path below the folder without its ending: path below the root}; two files of one stem are refused.

    Folders are only listed: a hundred thousand pictures take about a second, and none is opened.
    """
    found: dict[str, str] = {}
    prefix = "" if folder == root else folder.relative_to(root).as_posix() + "/"
    for path in sorted(_pictures_below(folder)):
        if not path.endswith(ending):
            continue
        stem = path[: -len(ending)] if ending else path.rpartition(".")[0]
        if stem in found:
            raise UserError(
                f"{root}: {found[stem]} and {prefix}{path} share the name {stem}, so pairs would be ambiguous: remove or rename one"
            )
        found[stem] = prefix + path
    return found


def matched(photos: Mapping[str, str], labels: Mapping[str, str]) -> tuple[Sample, ...]:
    """Photos and labels of one stem become one sample, in the order of the stems."""
    return tuple(Sample(stem, photos.get(stem), labels.get(stem)) for stem in sorted(photos.keys() | labels.keys()))


def found_spelling(root: Path, splits: Mapping[str, tuple[Sample, ...]], classes: Classes) -> decode.Spelling:
    """Found from up to 20 label files over the splits; files that disagree are refused."""
    files = [root / sample.label for samples in splits.values() for sample in samples if sample.label is not None]
    seen: dict[decode.Spelling, Path] = {}
    jpegs = [path for path in files if path.suffix.lower() in (".jpg", ".jpeg")]  # refused, however many others there are
    for path in [*jpegs[:1], *files[:: max(1, len(files) // 20)]]:
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


def number_of(count: int, noun: str) -> str:
    """1 photo, 2 photos."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _pictures_below(folder: Path) -> list[str]:
    """Every picture file below a folder, as a path relative to it with forward slashes; hidden files and folders are passed over."""
    found: list[str] = []
    waiting = [("", os.fspath(folder))] if folder.is_dir() else []
    while waiting:
        prefix, place = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{prefix}{entry.name}/", entry.path))
                elif entry.name.lower().endswith(PICTURES) and entry.is_file():
                    found.append(prefix + entry.name)
    return found


def _alone(split: str, samples: tuple[Sample, ...]) -> str | None:
    photos = sum(sample.label is None for sample in samples)
    labels = sum(sample.photo is None for sample in samples)
    if not photos and not labels:
        return None
    pairs = number_of(len(samples) - photos - labels, "pair")
    return f"{split}: {pairs}, {number_of(photos, 'photo')} without a label, {number_of(labels, 'label')} without a photo"
