"""The two halves agree: what the trainer evaluates is what the server answers. The only file that imports both."""

import io
import json
import os
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.client import Client
from serving.imaging.annotations import FORMATS
from serving.imaging.domain import ClassRow, Domain
from serving.models.session import has_vnni
from tests.serving.process import Server, running_server
from tests.trainer.factories import material_for, tiny_config, tiny_folder, tiny_run
from trainer.__main__ import main
from trainer.commands.session import start
from trainer.data.catalogue import open_dataset
from trainer.data.dataset import Dataset, resized
from trainer.data.synthetic import scenes
from trainer.export.export import export
from trainer.methods.base import Method
from trainer.metrics.predict import predict_labels, predict_photos
from trainer.training.checkpointing import load_method

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("FEWPAIR_DATA", ROOT.parent / "shared" / "data"))
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
SHIPPED = [Path(place).name for place in WHEEL["force-include"] if not Path(place).suffix]
"""The models that the wheel carries."""
EQUAL = 0.999
"""The share of pixels that must be equal between `fewpair evaluate` and the server."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small hybrid on small picture files."""
    folder = tmp_path_factory.mktemp("contract")
    root = tiny_folder(folder / "data")
    run = tiny_run(
        "hybrid",
        config=tiny_config("hybrid", label_as="classes", lr=5e-3),
        steps=30,
        size=(48, 64),
        data="folders",
        root=str(root),
    )
    dataset, selection = material_for(run)
    return start(folder / "run", run, dataset, selection, device="cpu").path


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server over the exported run and the models that the repository ships."""
    models = tmp_path_factory.mktemp("models")
    export(trained, models, name="tiny", checkpoint="last", half=True, force=True)
    for name in SHIPPED:
        shipped = ROOT / "exported" / name
        assert shipped.is_dir(), f"{shipped} ships with the repository, and is not there"
        (models / name).symlink_to(shipped)
    with running_server(models, tmp_path_factory.mktemp("server"), "--no-ui", "--default-model", "tiny") as server:
        yield server


@pytest.fixture(scope="module")
def served(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def ids_over_http(client: Client, photo: bytes, *, model: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(client.segment(photo, model=model, output="ids"))))


def expected_ids(method: Method, dataset: Dataset, photo: np.ndarray, *, size: tuple[int, int]) -> np.ndarray:
    """What `fewpair evaluate` counts, in the ids of the dataset's files."""
    assert dataset.label_domain.classes is not None
    return dataset.label_domain.classes.index_to_id()[
        resized(predict_labels(method, [photo], size=size)[0], photo.shape[:2])
    ]


def test_a_photo_gets_over_http_the_label_map_that_evaluate_counts(trained: Path, served: Client) -> None:
    method, run, _ = load_method(trained, checkpoint="last")
    dataset = open_dataset(run.data, Path(run.root or ""))
    equal = []
    for sample in [*dataset.samples("train"), *dataset.samples("val")]:
        photo = dataset.read_photo(sample)
        answer = ids_over_http(served, png(photo), model="tiny")
        expected = expected_ids(method, dataset, photo, size=run.size)
        assert answer.shape == expected.shape
        equal.append((answer == expected).mean())
    assert len({*map(int, np.unique(expected))}) > 1, "a map of one class would agree by chance"
    assert np.mean(equal) >= EQUAL


def test_a_label_map_gets_over_http_the_photo_that_evaluate_judges(trained: Path, served: Client) -> None:
    method, run, _ = load_method(trained, checkpoint="last")
    dataset = open_dataset(run.data, Path(run.root or ""))
    assert dataset.label_domain.classes is not None
    for sample in dataset.samples("val"):
        label = dataset.read_label(sample)
        made = served.synthesize(
            png(dataset.label_domain.classes.index_to_id()[label]), model="tiny", format="png", seed=0
        )
        answer = np.asarray(Image.open(io.BytesIO(made.photo)).convert("RGB")).astype(int)
        expected = predict_photos(method, [label], size=run.size, draws=[0])[0].astype(int)
        assert answer.shape == expected.shape, "the label map has the model's own size, so nothing is resized"
        assert (abs(answer - expected) > 1).mean() <= 2e-3


def test_the_shipped_semipaired_model_makes_three_photos_of_a_label_map_each_of_which_its_seed_makes_again(
    server: Server,
) -> None:
    label = png(scenes.CLASSES.index_to_id()[scenes.draw(0, height=128, width=192)[1]])

    def answer(**fields: str) -> httpx.Response:
        sent = {"model": "camvid-semipaired-compact", "format": "png"} | fields
        found = httpx.post(f"{server.url}/synthesize", files={"image": label}, data=sent, timeout=60)
        assert found.status_code == 200, found.text
        return found

    several = answer(seed="7", count="3")
    assert several.headers["X-Seed"] == "7,8,9"
    with zipfile.ZipFile(io.BytesIO(several.content)) as archive:
        photos = {name.removesuffix(".png").rpartition("-")[2]: archive.read(name) for name in archive.namelist()}
    assert list(photos) == ["7", "8", "9"]
    pixels = [np.asarray(Image.open(io.BytesIO(photo))).astype(int) for photo in photos.values()]
    assert {each.shape for each in pixels} == {(128, 192, 3)}
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(pixels[one] - pixels[other]).mean() > 1, "other noise is another photo"
    for seed, photo in photos.items():
        again = answer(seed=seed)
        assert again.headers["X-Seed"] == seed
        assert again.content == photo


def test_the_shipped_hybrid_model_answers_at_the_size_of_the_photo(served: Client) -> None:
    photo = scenes.draw(1, height=120, width=150)[0]
    ids = ids_over_http(served, png(photo), model="camvid-hybrid-compact")
    assert ids.shape == (120, 150)
    assert 1 < len(np.unique(ids)) <= 11
    assert ids.max() <= 10, "void is never answered"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason="CamVid is not here: put it into $FEWPAIR_DATA/camvid")
@pytest.mark.parametrize("name", [name for name in SHIPPED if (ROOT / "exported" / name / "to_label.onnx").is_file()])
def test_a_shipped_segmenter_reaches_over_http_the_figures_on_its_card(name: str, served: Client) -> None:
    from trainer.metrics.segmentation import Confusion

    manifest = json.loads((ROOT / "exported" / name / "manifest.json").read_text())
    dataset = open_dataset("camvid", DATA / "camvid")
    classes = dataset.label_domain.classes
    assert classes is not None
    confusion = Confusion(classes)
    for sample in dataset.samples("devtest"):
        answer = ids_over_http(served, (dataset.root / sample.photo).read_bytes(), model=name)
        confusion.add(dataset.read_label(sample), classes.id_to_index()[answer])
    in_8_bits = "int8" in manifest["directions"]["to_label"] and has_vnni()  # which may cost half a point
    tolerance = 5e-3 if in_8_bits else 5e-4
    assert confusion.mean_iou == pytest.approx(manifest["metrics"]["devtest"]["mean_iou"], abs=tolerance)


@pytest.mark.parametrize("format", FORMATS)
def test_what_predict_writes_for_a_labelling_tool_is_imported_unchanged(format, tmp_path):
    rows = [(2, "road", (9, 9, 9)), (5, "car & <cart>", (128, 0, 0)), (7, "sky", (0, 0, 200))]
    domain = Domain("classes", (*(ClassRow(*row, False) for row in rows), ClassRow(255, "void", (0, 0, 0), True)))
    ids = np.random.default_rng(0).choice([2, 5, 7, 255], (2, 9, 12)).astype(np.uint8).repeat(3, 1).repeat(3, 2)
    ids[:, 8:20, 8:28], ids[:, 10:14, 12:20] = 2, 7  # a region with a hole, in which another class lies
    writer = FORMATS[format](tmp_path / "export", domain)
    for number, name in enumerate(("a & 100%25+#.png", "deep/b.png")):
        photo = tmp_path / "photos" / name
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((27, 36, 3), 100 * number, np.uint8)).save(photo)
        writer.add(Path(name), ids[number], photo=photo)
    writer.close()
    words = ["--photos", str(tmp_path / "photos"), "--unlabelled=void", "--out", str(tmp_path / "out")]
    listed = ["--classes=road,car & <cart>,sky"] if format == "label-studio" else []
    assert main(["import", str(tmp_path / "export"), *listed, *words]) == 0
    dataset = open_dataset("folders", tmp_path / "out")
    classes = dataset.label_domain.classes
    assert classes is not None
    assert classes.names == ("road", "car & <cart>", "sky")
    expected = np.select([ids == 2, ids == 5, ids == 7], [0, 1, 2], 255)
    for sample, number in zip(dataset.samples("train"), (0, 1), strict=True):
        assert np.array_equal(dataset.read_label(sample), expected[number])
