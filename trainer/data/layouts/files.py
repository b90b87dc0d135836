"""What layouts share: the root, files paired by their stems, the splits, and how label files say a class."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from trainer.batch import Classes, Domain
from trainer.data import decode
from trainer.data.class_table import read_classes
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


def split_folders(root: Path) -> dict[str, Path]:
    """Each sub-folder with photos or labels is a split; without one called train, the root's own photos/ and labels/ are `train`."""
    found = {folder.name: folder for folder in sorted(root.iterdir()) if (folder / "photos").is_dir() or (folder / "labels").is_dir()}
    return found if "train" in found else {"train": root, **found}


def listed(
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
        photos, labels = (by_stem(root, folder / side) for side in sides)
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
    spelling = None if classes is None else found_spelling(root, splits, classes)
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


def by_stem(root: Path, folder: Path) -> dict[str, str]:
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


def found_spelling(root: Path, splits: Mapping[str, tuple[Sample, ...]], classes: Classes) -> decode.Spelling:
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
