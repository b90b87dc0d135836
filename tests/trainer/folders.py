"""A person's own folder of photos, labels and a class table, as real files."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.__main__ import main
from trainer.data.catalogue import open_dataset
from trainer.data.dataset import Dataset, Sample

TINY = ("--size=32x48", "--config.width=4", "--config.blocks=1", "--evaluate-every=1000", "--device=cpu", "--threads=1")
"""Options of `fewpair train` that make a run small."""
TABLE = "id,name,r,g,b,ignore\n0,sky,128,128,128,0\n3,road,128,64,128,0\n7,car,64,0,128,0\n9,void,0,0,0,1\n"


def photo_of(number: int, *, height: int = 20, width: int = 30) -> np.ndarray:
    """A photo of smooth random colours."""
    small = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def ids_of(number: int, *, height: int = 20, width: int = 30) -> np.ndarray:
    """A label map of raw ids."""
    cells = np.random.default_rng(100 + number).choice([0, 3, 7, 9], (5, 6)).astype(np.uint8)
    return np.repeat(np.repeat(cells, height // 5, 0), width // 6, 1)


def write(path: Path, array: np.ndarray, **options: object) -> Path:
    """An array as a picture file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]
    return path


def make_folders(root: Path, *, count: int = 4, split: str = "", table: str | None = TABLE) -> Path:
    """`count` photos (JPEG) with label maps (8-bit index PNG) and a class table."""
    root.mkdir(parents=True, exist_ok=True)
    if table is not None:
        (root / "classes.csv").write_text(table)
    for number in range(count):
        write(root / split / "photos" / f"street{number}.jpg", photo_of(number), quality=95)
        write(root / split / "labels" / f"street{number}.png", ids_of(number))
    return root


def open_folders(root: Path) -> Dataset:
    """The folder as a dataset."""
    return open_dataset("folders", root)


def first(dataset: Dataset) -> Sample:
    """The first training sample."""
    return dataset.samples("train")[0]


def camvid() -> Dataset:
    """CamVid where it lies on this machine; otherwise the test is skipped with the reason."""
    data = Path(os.environ.get("FEWPAIR_DATA", Path(__file__).parents[2] / "../shared/data"))
    if not (data / "camvid" / "classes.csv").is_file():
        pytest.skip(f"CamVid is not in {data / 'camvid'} (set FEWPAIR_DATA to the folder that holds camvid/)")
    return open_dataset("camvid", data / "camvid")


def said(capsys, *words: str) -> str:
    """What a refused command prints."""
    assert main(list(words)) == 2
    return capsys.readouterr().err
