"""Tiny datasets on disk, with the folders, the file names and the raw ids that their publishers use."""

from pathlib import Path

import numpy as np

from tests.trainer.folders import photo_of, write

HEIGHT, WIDTH = 16, 24


def ids_of(values: list[int], *, number: int = 0) -> np.ndarray:
    """A label map uint8[16,24] in which every one of the raw ids occurs, in vertical stripes from a place that `number`
    shifts.
    """
    stripes = np.array(values, np.uint8)[(np.arange(WIDTH) + number) % len(values)]
    return np.repeat(stripes[None], HEIGHT, 0)


def pair(photo: Path, label: Path, values: list[int], *, number: int = 0) -> None:
    """A photo and its label map."""
    write(photo, photo_of(number, height=HEIGHT, width=WIDTH))
    write(label, ids_of(values, number=number))


def cityscapes(root: Path) -> Path:
    """leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, unpacked side by side."""
    number = 0
    for split, city, frames in (
        ("train", "aachen", ("000000_000019", "000001_000019")),
        ("train", "bochum", ("000000_000313",)),
        ("val", "frankfurt", ("000000_000294",)),
        ("test", "berlin", ("000000_000019",)),
    ):
        for frame in frames:
            stem = f"{city}_{frame}"
            truth = root / "gtFine" / split / city / f"{stem}_gtFine"
            pair(
                root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png",
                truth.with_name(f"{truth.name}_labelIds.png"),
                list(range(12)) if number % 2 else list(range(12, 34)),
                number=number,
            )
            write(truth.with_name(f"{truth.name}_color.png"), photo_of(number, height=HEIGHT, width=WIDTH))
            write(truth.with_name(f"{truth.name}_instanceIds.png"), ids_of([7, 26]).astype(np.uint16) * 1000)
            truth.with_name(f"{truth.name}_polygons.json").write_text("{}")
            number += 1
    (root / "README").write_text("the publisher's")
    return root


def ade20k(root: Path) -> Path:
    """ADEChallengeData2016.zip, unpacked."""
    for folder, stem, count in (("training", "ADE_train", 3), ("validation", "ADE_val", 2)):
        for number in range(1, count + 1):
            name = f"{stem}_{number:08d}"
            pair(
                root / "images" / folder / f"{name}.jpg",
                root / "annotations" / folder / f"{name}.png",
                [0, 1, 2, 7, 149, 150],
                number=number,
            )
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n")
    (root / "sceneCategories.txt").write_text("ADE_train_00000001 airport_terminal\n")
    return root


def coco_stuff(root: Path, *, photos: str, labels: str) -> Path:
    """Photos and stuffthingmaps, wherever a person unpacks them: "{split}" stands for train or val."""
    for split, names in (("train", (9, 25, 30)), ("val", (139,))):
        for name in names:
            pair(
                root / photos.format(split=split) / f"{name:012d}.jpg",
                root / labels.format(split=split) / f"{name:012d}.png",
                [0, 11, 94, 181, 255],
                number=name,
            )
    return root


def aligned(root: Path, **counts: int) -> Path:
    """A|B files as pix2pix's download script leaves them: {split}/N.jpg, twice as wide as high."""
    for split, count in counts.items():
        for number in range(1, count + 1):
            halves = [np.full((HEIGHT, HEIGHT, 3), level, np.uint8) for level in (40 + number, 200 + number)]
            write(root / split / f"{number}.jpg", np.concatenate(halves, axis=1), quality=100, subsampling=0)
    return root


def horse2zebra(root: Path) -> Path:
    """CycleGAN's horse2zebra.zip, unpacked; one name occurs on both sides."""
    for folder, names in (
        ("trainA", ("n02381460_2", "n02381460_14", "same")),
        ("trainB", ("n02391049_2", "n02391049_7", "n02391049_9", "same")),
        ("testA", ("n02381460_1000", "n02381460_1010")),
        ("testB", ("n02391049_100",)),
    ):
        for number, name in enumerate(names):
            write(
                root / folder / f"{name}.jpg",
                photo_of(number + 10 * len(folder) + ord(folder[-1]), height=HEIGHT, width=WIDTH),
            )
    return root
