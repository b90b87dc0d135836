"""Two sets of pictures that know nothing of each other, as CycleGAN publishes them: trainA, trainB, testA, testB (horse2zebra)."""

from pathlib import Path
from types import MappingProxyType

from trainer.batch import Domain
from trainer.data.dataset import Dataset, Sample
from trainer.data.layouts.files import PICTURES, by_stem, missing, required_root
from trainer.errors import UserError


def unaligned(name: str, root: Path | None) -> Dataset:
    """A is the photo side, B the label side, both pictures. There is no pair, not even where two files have one name."""
    layout = "trainA/NAME.jpg and trainB/NAME.jpg, and testA and testB"
    where = required_root(name, root, layout=layout)
    splits: dict[str, tuple[Sample, ...]] = {}
    for split in ("train", "val", "test"):
        sides = [where / f"{split}{letter}" for letter in "AB"]
        absent = [side for side in sides if not side.is_dir()]
        if absent and (split == "train" or len(absent) == 1):
            raise missing(absent[0], name=name, layout=layout)
        if absent:
            continue
        photos, labels = (by_stem(where, side) for side in sides)
        for side, found in zip(sides, (photos, labels), strict=True):
            if not found:
                raise UserError(f"{side} holds no pictures ({', '.join(PICTURES)}); {name} expects a root that holds {layout}")
        splits[split] = (
            *(Sample(f"A/{stem}", path, None) for stem, path in sorted(photos.items())),
            *(Sample(f"B/{stem}", None, path) for stem, path in sorted(labels.items())),
        )
    counts = ", ".join(
        f"{split} {sum(sample.label is None for sample in samples)} + {sum(sample.photo is None for sample in samples)}"
        for split, samples in splits.items()
    )
    return Dataset(
        name=name,
        root=where,
        photo_domain=Domain("picture"),
        label_domain=Domain("picture"),
        terms="yours",
        splits=MappingProxyType(splits),
        notes=(f"no pairs: A is the photo side, B the label side ({counts})",),
    )
