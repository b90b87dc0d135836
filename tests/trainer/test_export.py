"""Export: the files answer as torch does, at any size, and a folder is either whole and lawful or not there."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from tests.trainer.factories import SIZE, tiny_config, tiny_run
from trainer import parity
from trainer.batch import IGNORE, Domain, class_table
from trainer.data import scenes
from trainer.data.catalogue import Dataset, open_dataset
from trainer.data.loader import photo_to_uint8, prepare_photo
from trainer.data.pairs import select
from trainer.errors import UserError
from trainer.export import export, schema
from trainer.graphs import draw_graph, store_half, with_rounded_weights
from trainer.methods.base import Method
from trainer.metrics.evaluate import predict_label
from trainer.metrics.record import Provenance, evaluate_and_record
from trainer.recipes import Run
from trainer.rundir import build_method, create_run, load_method

ODD = class_table(
    [
        (7, "sky", (128, 128, 128), False),
        (200, "road", (128, 64, 128), False),
        (3, "void", (9, 9, 9), True),
        (0, "car", (64, 0, 128), False),
    ]
)
"""Raw ids that are neither in order nor equal to the class indices."""


def trained_run(path: Path, method: str = "hybrid", *, size: tuple[int, int] = SIZE, **changes: Any) -> Path:
    """The folder of a run whose weights are large enough to make confident, varied answers."""
    run: Run = tiny_run(method, config=tiny_config(method, **changes), size=size)
    folder = create_run(path, run, select(open_scenes(run), k=run.pairs, unpaired=run.unpaired, seed=run.seed))
    weights = lively(build_method(run, Domain("picture"), Domain("classes", scenes.CLASSES)))
    for checkpoint, step in (("best", 4), ("last", 6)):
        folder.save(checkpoint, {"step": step, "method": weights.state_dict(), "averaged": {}, "own": [{"method": {}}]})
    return path


def open_scenes(run: Run) -> Dataset:
    return open_dataset(run.data, None)


def lively(method: Method) -> Method:
    with torch.no_grad():
        for index, weights in enumerate(method.parameters()):
            weights.mul_(4)
            if weights.ndim == 1:
                weights.copy_(torch.linspace(-0.3, 0.3, weights.numel()) * (index % 3))
    return method.eval()


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def classes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("runs") / "classes", label_as="classes")


@pytest.fixture(scope="module")
def one_way_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photo -> label alone: quicker to export."""
    return trained_run(tmp_path_factory.mktemp("runs") / "one-way", "supervised", width=12)


@pytest.fixture(scope="module")
def exported(classes_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(classes_run, tmp_path_factory.mktemp("exported"), name="little")


def test_the_exported_graph_agrees_with_torch_at_a_size_it_was_not_exported_at(classes_run: Path, exported: Path) -> None:
    method, run, _ = load_method(classes_run)
    height, width = 44, 36
    assert (height, width) != run.size
    drawn = [scenes.draw(index, height=height, width=width) for index in range(3)]
    photos, labels = np.stack([scene[0] for scene in drawn]), np.stack([scene[1] for scene in drawn])
    ids, confidence = session(exported / "to_label.onnx").run(["label", "confidence"], {"photo": photos})
    (made,) = session(exported / "to_photo.onnx").run(["photo"], {"label": scenes.CLASSES.index_to_id()[labels]})
    with torch.inference_mode():
        pictures = torch.stack([prepare_photo(photo, (height, width)) for photo in photos])
        probabilities = method.label_scores(pictures).softmax(1).numpy()
        painted = photo_to_uint8(method.to_photo(torch.from_numpy(labels).long()))
    assert ids.dtype == confidence.dtype == made.dtype == np.uint8
    assert (ids != scenes.CLASSES.index_to_id()[probabilities.argmax(1)]).mean() <= 1e-3
    assert (np.abs(confidence.astype(int) - np.rint(255 * probabilities.max(1))) > 1).mean() <= 1e-3
    assert (np.abs(made.astype(int) - painted) > 1).mean() <= 1e-3
    assert len(np.unique(ids)) > 1
    assert made.std() > 5


def test_every_picture_of_a_batch_is_translated_as_if_it_were_alone(exported: Path) -> None:
    photos = np.stack([scenes.draw(index, height=32, width=48)[0] for index in range(3)])
    run = session(exported / "to_label.onnx")
    together = run.run(["label", "confidence"], {"photo": photos})
    for index in range(3):
        for whole, single in zip(together, run.run(["label", "confidence"], {"photo": photos[index : index + 1]}), strict=True):
            assert (np.abs(whole[index].astype(int) - single[0]) > 1).mean() <= 1e-3


def test_the_file_gives_the_label_map_that_evaluation_gives(classes_run: Path, exported: Path) -> None:
    method, run, _ = load_method(classes_run)
    photo = scenes.draw(5, height=90, width=120)[0]
    small = np.asarray(Image.fromarray(photo).resize((run.size[1], run.size[0]), Image.Resampling.BICUBIC))
    (ids,) = session(exported / "to_label.onnx").run(["label"], {"photo": small[None]})
    assert (scenes.CLASSES.id_to_index()[ids[0]] == predict_label(method, photo, size=run.size)).mean() >= 0.999


def test_the_folder_obeys_the_contract_and_its_digests_are_its_files(classes_run: Path, exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    jsonschema.Draft202012Validator(schema()).validate(manifest)
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md",
        "manifest.json",
        "preview.png",
        "to_label.onnx",
        "to_photo.onnx",
    ]
    assert manifest["name"] == exported.name == "little"
    for direction in manifest["directions"].values():
        assert hashlib.sha256((exported / direction["file"]).read_bytes()).hexdigest() == direction["sha256"]
    assert manifest["resize"] == {"rule": "exact", "height": 32, "width": 48, "filter": "bicubic"}
    assert manifest["multiple_of"] == 4
    assert manifest["tiling"] == "forbidden"
    assert manifest["training"]["steps"] == 4
    assert manifest["training"]["commit"] == json.loads((classes_run / "environment.json").read_text())["commit"]
    assert [row["id"] for row in manifest["domains"]["label"]["classes"]] == list(range(12))
    for rows in manifest["parity"].values():
        assert {row["batch"] for row in rows} == {1, 2}
        assert len({(row["height"], row["width"]) for row in rows}) == 2
        assert all(row["raw_max_difference"] <= 1e-4 for row in rows)
    with Image.open(exported / "preview.png") as picture:
        picture.load()
    card = (exported / "README.md").read_text()
    for heading in ("Data and terms", "How it was trained", "Figures", "Limits", "Parity", "License"):
        assert f"## {heading}" in card


def test_confidence_comes_with_class_scores_and_not_with_colours(exported: Path, tmp_path: Path) -> None:
    outputs = json.loads((exported / "manifest.json").read_text())["directions"]["to_label"]["outputs"]
    assert [output["name"] for output in outputs] == ["label", "confidence"]
    colours = export(trained_run(tmp_path / "run", "pix2pix", label_as="colours"), tmp_path / "exported")
    described = json.loads((colours / "manifest.json").read_text())["directions"]["to_label"]
    assert [output["name"] for output in described["outputs"]] == ["label"]
    assert [output.name for output in session(colours / "to_label.onnx").get_outputs()] == ["label"]


def test_a_method_of_one_direction_exports_that_direction_alone_and_is_named_after_data_and_recipe(
    one_way_run: Path, tmp_path: Path
) -> None:
    folder = export(one_way_run, tmp_path / "exported")
    assert folder.name == "scenes-tiny-supervised"
    assert not (folder / "to_photo.onnx").exists()


def test_weights_stored_in_fp16_halve_the_file_and_keep_every_tolerance(one_way_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(one_way_run, tmp_path / "run")
    state = torch.load(run / "best.ckpt", weights_only=True)
    # A trained network is sure of most pixels and bears the rounding; this random one only bears a little of it.
    state["method"] = {name: weights.half().float() * (1 + 2e-5) for name, weights in state["method"].items()}
    torch.save(state, run / "best.ckpt")
    whole = export(run, tmp_path / "exported", name="whole")
    half = export(run, tmp_path / "exported", name="half", half=True)
    assert (half / "to_label.onnx").stat().st_size < 0.6 * (whole / "to_label.onnx").stat().st_size
    stored = onnx.load(half / "to_label.onnx")
    assert any(weights.data_type == onnx.TensorProto.FLOAT16 for weights in stored.graph.initializer)
    for row in json.loads((half / "manifest.json").read_text())["parity"]["to_label"]:
        assert row["raw_max_difference"] <= 1e-4
        assert row["ids_different"] <= 1e-3
    assert "fp16" in (half / "README.md").read_text()
    photo = scenes.draw(7, height=32, width=48)[0]
    first, second = (session(folder / "to_label.onnx").run(["label"], {"photo": photo[None]})[0] for folder in (whole, half))
    assert (first == second).mean() >= 0.995


def test_fp16_weights_that_change_the_class_of_too_many_pixels_are_refused(
    one_way_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.export.IDS_TOLERANCE", -1.0)  # the weights are random: how many pixels change is chance
    with pytest.raises(UserError, match=r"fp16 weights change the class of \d+\.\d\d% of the pixels .*export without half"):
        export(one_way_run, tmp_path / "exported", half=True)
    assert not (tmp_path / "exported").exists()


def test_weights_that_fp16_would_change_are_left_in_fp32() -> None:
    exact, inexact = np.full((16, 32), 0.5, np.float32), np.full((16, 32), 0.1, np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["exact", "inexact"], ["sum"])],
        "little",
        [],
        [onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, (16, 32))],
        [onnx.numpy_helper.from_array(exact, "exact"), onnx.numpy_helper.from_array(inexact, "inexact")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    assert store_half(model) == 1
    assert {weights.name for weights in model.graph.initializer} == {"exact.fp16", "inexact"}
    (total,) = parity.run(model, {}).values()
    assert (total == exact + inexact).all()


def test_weights_beyond_fp16_are_refused_with_the_remedy(classes_run: Path) -> None:
    method, _, _ = load_method(classes_run)
    with torch.no_grad():
        next(weights for weights in method.parameters() if weights.numel() >= 256).fill_(1e6)
    with pytest.raises(UserError, match="export without half"):
        with_rounded_weights(method)


def test_over_a_tolerance_nothing_is_written_and_the_earlier_export_stays(
    one_way_run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "exported"
    shutil.copytree(exported, out / "little")
    before = {path.name: path.read_bytes() for path in (out / "little").iterdir()}
    honest = parity.run
    monkeypatch.setattr(parity, "run", lambda model, feeds: {name: value + 1 for name, value in honest(model, feeds).items()})
    with pytest.raises(UserError, match=r"to_label does not agree with torch on 1 x 32x48: floats differ by up to 1.*nothing was exported"):
        export(one_way_run, out, name="little")
    assert [path.name for path in out.iterdir()] == ["little"]
    assert {path.name: path.read_bytes() for path in (out / "little").iterdir()} == before


@pytest.mark.parametrize(
    ("raw", "over", "ids", "words"),
    [
        (2e-4, 0.0, 0.0, "floats differ by up to 0.0002"),
        (float("nan"), 0.0, 0.0, "floats differ by up to nan"),
        (None, 0.002, None, "0.20% of the levels"),
        (None, 0.0, 0.002, "0.20% of the pixels have another class"),
        (1e-5, 0.001, 0.001, None),
    ],
)
def test_each_tolerance_is_the_contract_s(raw: float | None, over: float, ids: float | None, words: str | None) -> None:
    excess = parity.Parity(1, 8, 8, raw, over, ids).excess()
    assert excess is None if words is None else words in (excess or "")


def test_a_failure_while_the_folder_is_written_leaves_nothing_behind(
    one_way_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.export.card", full)
    with pytest.raises(UserError, match=r"little could not be written .*No space left on device.*free some space"):
        export(one_way_run, tmp_path / "exported", name="little")
    assert list((tmp_path / "exported").iterdir()) == []


def test_an_earlier_export_of_the_name_is_replaced(one_way_run: Path, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    shutil.copytree(exported, out / "little")
    (out / "little" / "stale.onnx").write_bytes(b"")
    export(one_way_run, out, name="little", description="The second one.")
    assert [path.name for path in out.iterdir()] == ["little"]
    assert not (out / "little" / "stale.onnx").exists()
    assert json.loads((out / "little" / "manifest.json").read_text())["description"] == "The second one."


def test_a_name_that_the_contract_does_not_allow_is_refused_before_any_work(classes_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--name 'My Model' cannot name a model"):
        export(classes_run, tmp_path, name="My Model")


def test_the_shipped_file_says_what_it_is_and_nothing_of_the_machine_it_was_made_on(exported: Path) -> None:
    content = (exported / "to_label.onnx").read_bytes()
    assert b"/trainer/" not in content
    assert b".py" not in content
    properties = session(exported / "to_label.onnx").get_modelmeta().custom_metadata_map
    assert properties["name"] == "little"
    assert properties["multiple_of"] == "4"
    assert len(json.loads(properties["classes"])) == 12
    assert session(exported / "to_label.onnx").get_inputs()[0].shape[0] == "batch"


def test_the_figures_of_the_run_s_evaluation_of_these_weights_go_along(tmp_path: Path) -> None:
    path = trained_run(tmp_path / "run", "supervised")
    method, run, step = load_method(path)
    dataset = open_scenes(run)
    facts = {"dataset": "scenes", "size": run.size, "method": "supervised", "recipe": run.recipe, "pairs": 2, "unpaired": 4, "steps": 6}
    here = Provenance(split="val", step=step, seed=0, checkpoint="best", weights="averaged", **facts)
    dataset = dataclasses.replace(dataset, splits={**dataset.splits, "val": dataset.splits["val"][:3]})
    for provenance in (here, dataclasses.replace(here, weights="raw", split="test", limit=2), dataclasses.replace(here, limit=1)):
        found = evaluate_and_record(
            method, dataset, folder=path / "evaluation", provenance=provenance, train_samples=dataset.samples("train")[:2]
        )
    folder = export(path, tmp_path / "exported")
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    assert set(metrics) == {"val"}
    assert metrics["val"]["samples"] == 3
    assert found.figures["samples"] == 1
    assert f"| mean iou | {metrics['val']['mean_iou']:.3f} |" in (folder / "README.md").read_text()


def test_an_evaluation_of_an_earlier_checkpoint_is_left_out_and_said(
    one_way_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(one_way_run, path)
    for split, step in (("val", 2), ("test", 4)):  # `best` is at step 4
        told = {"split": split, "checkpoint": "best", "weights": "averaged", "limit": None, "step": step, "figures": {"mean_iou": 0.5}}
        (path / "evaluation" / f"{split}-best-averaged.json").write_text(json.dumps(told | {"floors": {}}))
    folder = export(path, tmp_path / "exported")
    assert set(json.loads((folder / "manifest.json").read_text())["metrics"]) == {"test"}
    said = capsys.readouterr().err
    assert "val-best-averaged.json is left out: it judged best at step 2, and best is now at step 4" in said
    assert f"fewpair evaluate {path} --split val --checkpoint best" in said


def test_the_graph_speaks_the_dataset_s_own_ids_and_ignores_void_255_and_unknown_ids(classes_run: Path) -> None:
    method = lively(
        build_method(tiny_run("hybrid", config=tiny_config("hybrid", label_as="classes")), Domain("picture"), Domain("classes", ODD))
    )
    photo = scenes.draw(1, height=32, width=48)[0]
    to_label = draw_graph(method, "to_label", name="odd", size=(32, 48), half=False)
    ids = parity.run(to_label.model, {"photo": photo[None]})["label"][0]
    assert set(np.unique(ids)) <= {7, 200, 0}
    assert (ODD.id_to_index()[ids] == predict_label(method, photo, size=(32, 48))).mean() >= 0.999
    to_photo = draw_graph(method, "to_photo", name="odd", size=(32, 48), half=False)
    answers = []
    for odd in (3, 255, 100):
        label = np.full((1, 32, 48), 7, np.uint8)
        label[:, :16] = odd
        answers.append(parity.run(to_photo.model, {"label": label})["photo"])
    assert (answers[0] == answers[1]).all()
    assert (answers[0] == answers[2]).all()
    label = torch.zeros(1, 32, 48, dtype=torch.long)
    label[:, :16] = IGNORE
    with torch.inference_mode():
        expected = photo_to_uint8(method.to_photo(label))
    assert (np.abs(answers[0].astype(int) - expected) > 1).mean() <= 1e-3


class Noisy(Method):
    """A translator between pictures that draws at random and needs multiples of 8."""

    directions = frozenset({"to_label", "to_photo"})
    multiple_of = 8
    noise_shape = (3, 1, 1)

    def __init__(self) -> None:
        super().__init__(None, photo_domain=Domain("picture"), label_domain=Domain("picture"), size=SIZE, seed=1)
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def to_label(self, photo: torch.Tensor) -> torch.Tensor:
        return self.layer(photo).tanh()

    def to_photo(self, label: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        assert noise is not None
        return (self.layer(label) + noise).tanh()


def test_label_sides_that_are_pictures_and_noise_as_an_input_are_exported_and_proven() -> None:
    method = Noisy().eval()
    for direction, given in (("to_label", "photo"), ("to_photo", "picture")):
        graph = draw_graph(method, direction, name="maps", size=(16, 24), half=False)
        assert graph.input.name == given
        assert graph.input.layout == "NHWC"
        rows = parity.prove(graph, method, size=(16, 24), material=parity.drawn(None))
        assert [(row["height"], row["width"], row["ids_different"]) for row in rows] == [(16, 24, None), (24, 32, None)]
    assert graph.noise_shape == (3, 1, 1)
    picture = np.zeros((1, 16, 24, 3), np.uint8)
    first, other = (
        parity.run(graph.model, {"picture": picture, "noise": np.full((1, 3, 1, 1), value, np.float32)})["photo"] for value in (0.0, 1.0)
    )
    assert (first != other).all()


def test_a_size_that_the_method_cannot_take_is_refused() -> None:
    with pytest.raises(UserError, match="20x24 is not a multiple of 8"):
        draw_graph(Noisy().eval(), "to_label", name="maps", size=(20, 24), half=False)


@pytest.mark.parametrize(("levels", "size"), [(4, (48, 80)), (5, (32, 64))])
def test_a_unet_is_exported_and_proven_at_one_unit_and_at_sizes_it_was_not_exported_at(
    levels: int, size: tuple[int, int], tmp_path: Path
) -> None:
    run = trained_run(tmp_path / "run", "pix2pix", generator="unet", levels=levels, label_as="classes", size=(2**levels, 2 ** (levels + 1)))
    folder = export(run, tmp_path / "exported", name="unet")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["multiple_of"] == 2**levels
    assert next((row["height"], row["width"]) for row in manifest["parity"]["to_label"]) == (2**levels, 2 ** (levels + 1))
    method, _, _ = load_method(run)
    photos = np.stack([scenes.draw(index, height=size[0], width=size[1])[0] for index in range(2)])
    (ids,) = session(folder / "to_label.onnx").run(["label"], {"photo": photos})
    with torch.inference_mode():
        expected = method.to_label(torch.stack([prepare_photo(photo, size) for photo in photos])).numpy()
    assert (ids != scenes.CLASSES.index_to_id()[expected]).mean() <= 1e-3
    assert len(np.unique(ids)) > 1
