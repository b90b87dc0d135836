"""What a dataset is: samples by split, what its two sides are, and how a sample is read from its files."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from serving.imaging.decode import BrokenImage, ImageError, image_size, read_photo
from serving.imaging.labels import read_label
from trainer.batch import Domain
from trainer.errors import BrokenFile, UserError

Side = Literal["photo", "label"]
SIDES: tuple[Side, Side] = ("label", "photo")
SideKind = Literal["picture", "ids"]
"""picture: RGB, resized bicubically. ids: whole numbers of up to 16 bits, resized by nearest, as in an instance map."""


@dataclass(frozen=True)
class Sample:
    """One photo, one label map, or both of one scene; paths are relative to the root (or "scene:<split>:<index>")."""

    name: str
    photo: str | None
    label: str | None
    sides: tuple[tuple[str, str], ...] = ()
    """(name, path) of further sides of the same scene, such as an instance map or the previous frame."""

    def path(self, side: str) -> str | None:
        """The path of a side; None if the sample has none."""
        return {"photo": self.photo, "label": self.label, **dict(self.sides)}.get(side)

    @property
    def complete(self) -> bool:
        """Whether it can serve as a pair."""
        return self.photo is not None and self.label is not None


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk; scenes override the three ways of reading."""

    name: str
    root: Path | None
    label_domain: Domain
    terms: str
    splits: Mapping[str, tuple[Sample, ...]]
    notes: tuple[str, ...] = ()
    """What the user should know of the files that were found."""
    sides: Mapping[str, SideKind] = field(default_factory=dict)
    """The further sides that every pair of this dataset has."""
    flips: bool = True
    """Whether a mirrored sample could be one of the dataset's; not before a fixed camera."""

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
        return read_image(self.file(sample, "photo"))

    def read_label(self, sample: Sample) -> np.ndarray:
        """Class indices uint8[H,W] (0..C-1 or IGNORE), or the picture uint8[H,W,3] where the label side is pictures.

        Files are read by the rules of `serving.imaging`. The label must have the size of its photo.
        """
        path, classes = self.file(sample, "label"), self.label_domain.classes
        if classes is None:
            label = read_image(path)
        else:
            with image_errors(path):
                label = classes.id_to_index()[read_label(path, classes.imaging).ids]
        with suppress(BrokenFile):  # an unreadable photo is reported where the photo is read
            self.refuse_sizes(sample)
        return label

    def read_side(self, sample: Sample, side: str) -> np.ndarray:
        """A further side: a picture uint8[H,W,3] or ids int32[H,W]."""
        path = self.file(sample, side)
        if self.sides[side] == "picture":
            return read_image(path)
        try:
            with Image.open(path) as ids:
                return np.array(ids, dtype=np.int32)
        except OSError as error:
            raise BrokenFile(f"{path} cannot be read ({error})") from error

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        """(height, width) of one side, read from the file's header."""
        path = self.file(sample, side)
        with image_errors(path):
            return image_size(path)

    def refuse_sizes(self, sample: Sample) -> None:
        """Raise UserError where label and photo differ in size, and BrokenFile where a header cannot be read."""
        found, expected = (None if sample.path(side) is None else self.size(sample, side) for side in SIDES)
        if found is not None and expected is not None and found != expected:
            raise UserError(
                f"{self.file(sample, 'label')} is {found[0]}x{found[1]} (height x width), but its photo "
                f"{sample.photo} is {expected[0]}x{expected[1]}: a label map must have the size of its photo"
            )

    def digest(self, sample: Sample, side: Side) -> str:
        """The sha256 of the file."""
        path = self.file(sample, side)
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise BrokenFile(f"{path} cannot be read ({error.strerror})") from error

    def file(self, sample: Sample, side: str) -> Path:
        """Where one side of a sample lies."""
        relative = sample.path(side)
        if relative is None or self.root is None:
            raise UserError(f"{self.place}: sample {sample.name} has no {side}")
        return self.root / relative


def read_image(path: Path) -> np.ndarray:
    """A picture file as uint8[H,W,3]."""
    with image_errors(path):
        return read_photo(path)


def resized(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize to (height, width): a picture uint8[H,W,3] by Pillow's bicubic (antialiased), ids [H,W] by nearest."""
    how = Image.Resampling.BICUBIC if array.ndim == 3 else Image.Resampling.NEAREST
    return np.array(Image.fromarray(array).resize((size[1], size[0]), how))


@contextmanager
def image_errors(path: Path) -> Iterator[None]:
    """Raise the errors of `serving.imaging` as UserError or BrokenFile that names the path."""
    try:
        yield
    except BrokenImage as error:
        raise BrokenFile(f"{path}: {error.message} Replace the file, or remove it.") from error
    except ImageError as error:
        raise UserError(f"{path}: {error}") from error
