"""ADE20K as the MIT scene parsing benchmark lays it out: 150 classes, 0 is void."""

from pathlib import Path

from trainer.data.dataset import Dataset
from trainer.data.layouts.files import published, required_root

TERMS = "ADE20K (Zhou et al., CVPR 2017), scene parsing benchmark; non-commercial research and education"


def ade20k(name: str, root: Path | None) -> Dataset:
    """ADEChallengeData2016 or the folder that holds it; label files hold 1..150, and 0 ("other objects") is void.

    Names are the first of each line of the benchmark's objectInfo150.txt, colours those of its color150.mat. That gives one grey,
    (140, 140, 140), to road and to skyscraper alike; a model's palette needs distinct colours, so skyscraper is (140, 140, 180) here.
    """
    layout = (
        "images/training/ADE_train_*.jpg and annotations/training/ADE_train_*.png, "
        "the same under validation (or the folder ADEChallengeData2016 with all that)"
    )
    where = required_root(name, root, layout=layout)
    inside = "ADEChallengeData2016/" if (where / "ADEChallengeData2016").is_dir() else ""
    return published(
        name,
        where,
        layout=layout,
        folders={
            "train": (f"{inside}images/training", f"{inside}annotations/training"),
            "val": (f"{inside}images/validation", f"{inside}annotations/validation"),
            "test": (f"{inside}images/testing", None),
        },
        terms=TERMS,
    )
