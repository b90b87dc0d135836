"""What a dataset is: samples by split, what its two sides are, and how a sample is read from its files."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from trainer.batch import Domain
from trainer.data import decode
from trainer.errors import UserError

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
            try:
                label = decode.read_label(path, classes, spelling=self.label_spelling)
            except decode.BrokenFile:
                raise
            except UserError as error:
                raise UserError(f"{self.name}: {error}") from error
        with suppress(decode.BrokenFile):
            self._refuse_size(sample, (label.shape[0], label.shape[1]))
        return label

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        """(height, width) of one side, read from the file's head alone."""
        path = self.file(sample, side)
        return decode.photo_size(path, upright=side == "photo" or self.label_domain.kind == "picture")

    def refuse_sizes(self, sample: Sample) -> None:
        """Raises UserError where the label has another size than its photo, and BrokenFile where the head of a file cannot be read."""
        if sample.label is None:
            self.size(sample, "photo")
        else:
            self._refuse_size(sample, self.size(sample, "label"))

    def _refuse_size(self, sample: Sample, found: tuple[int, int]) -> None:
        expected = None if sample.photo is None else self.size(sample, "photo")
        if expected is not None and found != expected:
            raise UserError(
                f"{self.file(sample, 'label')} is {found[0]}x{found[1]} (height x width), but its photo {sample.photo} is "
                f"{expected[0]}x{expected[1]}: a label map must have the size of its photo"
            )

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
