"""Export: the files answer as torch does, at any size, and a folder is either whole and lawful or not there."""

import dataclasses
import hashlib
import json
import re
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

from tests.trainer.factories import SIZE, class_table, tiny_config, tiny_run
from trainer.batch import Domain
from trainer.data.catalogue import open_dataset
from trainer.data.dataset import Dataset
from trainer.data.selection.choose import select
from trainer.data.synthetic import scenes
from trainer.errors import UserError
from trainer.export import card, parity
from trainer.export.export import export, reasons_against, schema
from trainer.export.graphs import Graph, draw_graph, stored_half
from trainer.methods.base import Method
from trainer.methods.segmentation import SupervisedConfig
from trainer.metrics.evaluate import Scope
from trainer.metrics.predict import evaluating
from trainer.metrics.record import evaluate_and_record
from trainer.run import Run
from trainer.training.checkpointing import build_method, create_run, load_method, open_run


def trained_run(
    path: Path, method: str = "hybrid", *, size: tuple[int, int] = SIZE, factor: float = 4, **changes: Any
) -> Path:
    """The folder of a run whose weights are large enough to make confident, varied answers."""
    run: Run = tiny_run(method, config=tiny_config(method, **changes), size=size)
    folder = create_run(path, run, select(open_scenes(run), k=run.pairs, unpaired=run.unpaired, seed=run.seed))
    weights = lively(build_method(run, Domain("classes", scenes.CLASSES)), factor)
    for checkpoint, step in (("best", 4), ("last", 6)):
        folder.save(checkpoint, {"step": step, "method": weights.state_dict(), "averaged": {}, "own": [{"method": {}}]})
    return path


def open_scenes(run: Run) -> Dataset:
    return open_dataset(run.data, None)


def lively(method: Method, factor: float = 4) -> Method:
    with torch.no_grad():
        for index, weights in enumerate(method.parameters()):
            weights.mul_(factor)
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
def one_way_graph(one_way_run: Path) -> Graph:
    method, run, _ = load_method(one_way_run)
    with evaluating(method, "cpu"):
        return draw_graph(method, "to_label", size=run.size)


@pytest.fixture
def drawn(one_way_graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of the one-way run take the graph that is drawn once, as torch's exporter takes most of their time."""
    monkeypatch.setattr("trainer.export.export.draw_graph", lambda *_, **__: one_way_graph)


@pytest.fixture(scope="module")
def exported(classes_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawings = tmp_path_factory.mktemp("drawings")
    Image.fromarray(np.array([[0, 3], [255, 5]], np.uint8)).save(drawings / "My street.png")
    return export(classes_run, tmp_path_factory.mktemp("exported"), name="little", force=True, examples=drawings)


def test_the_folder_obeys_the_contract_and_its_digests_are_its_files(classes_run: Path, exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    jsonschema.Draft202012Validator(schema()).validate(manifest)
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md",
        "examples",
        "manifest.json",
        "pairs.jpg",
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
    assert (manifest["training"]["steps"], manifest["training"]["weights"]) == (4, "averaged")
    assert manifest["training"]["commit"] == json.loads((classes_run / "environment.json").read_text())["commit"]
    assert [row["id"] for row in manifest["domains"]["label"]["classes"]] == list(range(12))
    for rows in manifest["parity"].values():
        assert {row["batch"] for row in rows} == {1, 2}
        assert len({(row["height"], row["width"]) for row in rows}) == 2
        assert all(row["raw_max_difference"] <= 1e-4 for row in rows)
    for name in ("preview.png", "pairs.jpg"):
        with Image.open(exported / name) as picture:
            picture.load()
    card = (exported / "README.md").read_text()
    for heading in ("Data and terms", "How it was trained", "Figures", "Limits", "Parity", "License"):
        assert f"## {heading}" in card


def test_an_example_is_a_map_in_the_models_classes_and_at_its_size_with_the_photo_that_the_model_makes_of_it(
    exported: Path,
) -> None:
    assert json.loads((exported / "manifest.json").read_text())["examples"] == ["my-street"]
    with Image.open(exported / "examples/my-street.png") as picture:
        ids = np.array(picture)
    assert np.array_equal(ids, np.array([[0, 3], [255, 5]], np.uint8).repeat(16, 0).repeat(24, 1))
    (made,) = session(exported / "to_photo.onnx").run(None, {"label": ids[None]})
    with Image.open(exported / "examples/my-street.jpg") as picture:
        assert np.abs(np.array(picture).astype(int) - made[0]).mean() < 4  # JPEG


def test_a_folder_that_is_missing_or_has_no_pictures_or_two_of_one_name_is_refused_as_examples(
    one_way_run: Path, drawn: None, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in (("nowhere", "there is no such folder"), ("empty", "empty holds no pictures for --examples")):
        with pytest.raises(UserError, match=reason):
            export(one_way_run, tmp_path / "exported", force=True, examples=tmp_path / name)
    for name in ("My street", "my_street"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "empty" / f"{name}.png")
    with pytest.raises(UserError, match=r"my_street\.png is the second example with the name my-street"):
        export(one_way_run, tmp_path / "exported", force=True, examples=tmp_path / "empty")
    assert not any((tmp_path / "exported").iterdir())


def test_a_unet_with_colour_output_has_no_confidence_and_needs_multiples_of_its_strides(
    exported: Path, tmp_path: Path
) -> None:
    outputs = json.loads((exported / "manifest.json").read_text())["directions"]["to_label"]["outputs"]
    assert [output["name"] for output in outputs] == ["label", "confidence"]
    unet = {"generator": "unet", "levels": 4, "label_as": "colours", "size": (16, 32)}
    colours = export(trained_run(tmp_path / "run", "pix2pix", **unet), tmp_path / "exported", force=True)
    manifest = json.loads((colours / "manifest.json").read_text())
    assert [output["name"] for output in manifest["directions"]["to_label"]["outputs"]] == ["label"]
    assert [output.name for output in session(colours / "to_label.onnx").get_outputs()] == ["label"]
    assert manifest["multiple_of"] == 16
    assert [(row["height"], row["width"]) for row in manifest["parity"]["to_label"]] == [(16, 32), (32, 48)]


def test_weights_stored_in_fp16_halve_the_file_and_keep_every_tolerance(
    one_way_run: Path, one_way_graph: Graph, tmp_path: Path
) -> None:
    run = shutil.copytree(one_way_run, tmp_path / "run")
    state = torch.load(run / "best.ckpt", weights_only=True)
    # A trained network is sure of most pixels and bears the rounding; this random one only bears a little of it.
    state["method"] = {name: weights.half().float() * (1 + 2e-5) for name, weights in state["method"].items()}
    torch.save(state, run / "best.ckpt")
    half = export(run, tmp_path / "exported", name="half", half=True, force=True)
    assert (half / "to_label.onnx").stat().st_size < 0.6 * one_way_graph.model.ByteSize()
    stored = onnx.load(half / "to_label.onnx")
    assert any(weights.data_type == onnx.TensorProto.FLOAT16 for weights in stored.graph.initializer)
    for row in json.loads((half / "manifest.json").read_text())["parity"]["to_label"]:
        assert row["raw_max_difference"] <= 1e-4
        assert row["ids_different"] <= 1e-3
    assert "fp16" in (half / "README.md").read_text()


@pytest.mark.usefixtures("drawn")
def test_fp16_weights_that_change_the_class_of_too_many_pixels_are_refused(
    one_way_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The weights are random: how many pixels change is chance.
    monkeypatch.setattr("trainer.export.export.IDS_TOLERANCE", -1.0)
    with pytest.raises(UserError, match=r"fp16 weights change the class of \d+\.\d+% of .*export without half"):
        export(one_way_run, tmp_path / "exported", half=True, force=True)
    assert not (tmp_path / "exported").exists()


@pytest.mark.usefixtures("drawn")
def test_an_export_in_int8_has_a_second_graph_that_answers_alike_and_says_what_it_changes(
    one_way_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.export.int8.KEPT", 0)  # so that the few convolutions here are in 8 bits
    folder = export(one_way_run, tmp_path / "exported", name="small", int8=True, force=True)
    small = json.loads((folder / "manifest.json").read_text())["directions"]["to_label"]["int8"]
    change = r"mean IoU \d\.\d+ for \d\.\d+ on 24 samples of val, another class at \d+\.\d% of the pixels"
    assert re.fullmatch(change, small["change"])
    assert small["change"] in (folder / "README.md").read_text()
    graphs = [onnx.load(folder / name) for name in ("to_label.onnx", small["file"])]
    assert onnx.TensorProto.INT8 in {weights.data_type for weights in graphs[1].graph.initializer}
    photos, _ = parity.drawn(None, 3, (64, 48))
    plain, short = (parity.run(graph, {"photo": photos})["label"] for graph in graphs)
    assert 0 < (plain != short).mean() < 0.2  # random weights are sure of few pixels; chance would change .9
    monkeypatch.setattr("trainer.export.int8.LARGEST_LOSS", -1.0)
    with pytest.raises(UserError, match=rf"to_label in int8 has {change}: export without --int8"):
        export(one_way_run, tmp_path / "exported", name="other", int8=True, force=True)
    assert not (tmp_path / "exported" / "other").exists()


def test_large_weights_are_rounded_to_fp16_small_ones_stay_and_those_beyond_it_are_refused() -> None:
    def graph(large: float) -> onnx.ModelProto:
        values = {"large": np.full((16, 32), large, np.float32), "small": np.full(1, 0.1, np.float32)}
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Add", ["large", "small"], ["sum"])],
            "little",
            [],
            [onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, (16, 32))],
            [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
        )
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)

    model = stored_half(graph(0.1))
    assert {weights.name for weights in model.graph.initializer} == {"large.fp16", "small"}
    (total,) = parity.run(model, {}).values()
    assert (total == np.float32(np.float16(0.1)) + np.float32(0.1)).all()
    with pytest.raises(UserError, match="export without half"):
        stored_half(graph(1e6))


@pytest.mark.usefixtures("drawn")
def test_over_a_tolerance_nothing_is_written_and_the_earlier_export_stays(
    one_way_run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "exported"
    shutil.copytree(exported, out / "little")
    before = {path: path.read_bytes() for path in (out / "little").rglob("*.*")}
    honest = parity.run
    monkeypatch.setattr(
        parity, "run", lambda model, feeds: {name: value + 1 for name, value in honest(model, feeds).items()}
    )
    with pytest.raises(
        UserError,
        match=r"to_label does not agree with torch on 1 x 32x48: floats differ by up to 1.*nothing was exported",
    ):
        export(one_way_run, out, name="little", force=True, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["little"]
    assert {path: path.read_bytes() for path in (out / "little").rglob("*.*")} == before


@pytest.mark.usefixtures("drawn")
def test_a_failure_while_the_folder_is_written_leaves_nothing_behind(
    one_way_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.export.export.card", full)
    with pytest.raises(UserError, match=r"little could not be written .*No space left on device.*free some space"):
        export(one_way_run, tmp_path / "exported", name="little", force=True)
    assert list((tmp_path / "exported").iterdir()) == []


@pytest.mark.usefixtures("drawn")
def test_an_earlier_export_comes_back_where_the_new_one_cannot_take_its_place(
    one_way_run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "exported", Path.rename
    shutil.copytree(exported, out / "little")

    def refused(path: Path, target: Path) -> Path:
        if path.name.startswith(".little") and path.suffix != ".former":
            raise OSError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(UserError, match="little could not be written"):
        export(one_way_run, out, name="little", force=True, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["little"]
    assert (out / "little" / "manifest.json").is_file()


@pytest.mark.usefixtures("drawn")
def test_an_earlier_export_of_the_name_is_replaced(one_way_run: Path, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    shutil.copytree(exported, out / "little")
    (out / "little" / "stale.onnx").write_bytes(b"")
    export(one_way_run, out, name="little", description="The second one.", force=True, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["little"]
    assert not (out / "little" / "stale.onnx").exists()
    assert json.loads((out / "little" / "manifest.json").read_text())["description"] == "The second one."


@pytest.mark.usefixtures("drawn")
def test_figures_on_photos_seen_in_training_are_marked_in_manifest_and_card(one_way_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(one_way_run, tmp_path / "run"))
    evaluated = {"split": "val", "checkpoint": "best", "weights": "averaged", "limit": None, "step": 4}
    evaluated["figures"] = {"mean_iou": 0.9, "seen_in_training": 3}
    (run / "evaluation" / "val-best-averaged.json").write_text(json.dumps(evaluated))
    folder = export(run, tmp_path / "out", name="little")
    assert json.loads((folder / "manifest.json").read_text())["metrics"]["val"]["seen_in_training"] == 3
    assert "On split `val` (3 of its photos were seen in training)" in (folder / "README.md").read_text()


def test_an_earlier_export_is_not_replaced_without_overwrite(one_way_run: Path, tmp_path: Path) -> None:
    (tmp_path / "little").mkdir()
    with pytest.raises(UserError, match=r"little exists: name the model otherwise with --name, or replace it"):
        export(one_way_run, tmp_path, name="little", force=True)


def test_a_run_that_was_not_evaluated_or_is_below_its_baseline_is_refused(one_way_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not worth serving: to_label has not been evaluated"):
        export(one_way_run, tmp_path, name="little")
    run = Path(shutil.copytree(one_way_run, tmp_path / "run"))
    evaluated = {"split": "val", "checkpoint": "best", "weights": "averaged", "limit": None, "step": 4}
    evaluated |= {"figures": {"mean_iou": 0.09}, "baselines": {"commonest_class_per_pixel": {"mean_iou": 0.139}}}
    (run / "evaluation" / "val-best-averaged.json").write_text(json.dumps(evaluated))
    with pytest.raises(UserError, match=r"reaches mean IoU 0\.090 on val, not above the baseline 0\.139"):
        export(run, tmp_path / "out", name="little")
    assert not (tmp_path / "out").exists()


def test_one_direction_of_a_run_is_exported_alone(one_way_run: Path, tmp_path: Path) -> None:
    run = trained_run(tmp_path / "run", "hybrid")
    evaluated = {"split": "val", "checkpoint": "best", "weights": "averaged", "limit": None, "step": 4}
    evaluated |= {"figures": {"samples": 3, "mean_iou": 0.5, "per_class_iou": {"car": 0.5}, "photo_l1_levels": 40.0}}
    evaluated |= {"baselines": {"commonest_class_per_pixel": {"mean_iou": 0.139}}}
    (run / "evaluation" / "val-best-averaged.json").write_text(json.dumps(evaluated))
    folder = export(run, tmp_path / "out", name="little", direction="to_photo")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["directions"]) == ["to_photo"]
    assert set(manifest["metrics"]["val"]) == {"samples", "photo_l1_levels"}
    assert not manifest["baselines"]
    assert manifest["description"].startswith("Label map to photo, learnt with hybrid")
    with pytest.raises(UserError, match="--direction to_photo: supervised has only to_label"):
        export(one_way_run, tmp_path / "out", name="other", direction="to_photo")


def test_directions_are_judged_by_other_photos_than_those_seen_in_training() -> None:
    baselines = {split: {"commonest_class_per_pixel": {"mean_iou": 0.2}} for split in ("train", "val")}
    good, bad = {"mean_iou": 0.5}, {"mean_iou": 0.1}
    both = ("to_label", "to_photo")
    assert reasons_against(("to_label",), {"train": good, "val": bad}, baselines).keys() == {"to_label"}
    assert reasons_against(("to_label",), {"train": bad, "val": good}, baselines) == {}
    assert reasons_against(("to_label",), {"train": good}, baselines) == {}
    assert reasons_against(both, {"val": good}, baselines) == {"to_photo": "has not been evaluated"}
    assert reasons_against(both, {"val": good | {"photo_l1_levels": 40.0}}, baselines) == {}
    judged = {"val": good | {"photo_l1_levels": 40.0, "judge_mean_iou": 0.1}}
    assert reasons_against(both, judged, baselines).keys() == {"to_photo"}


def test_the_preview_of_a_model_of_other_things_than_streets_shows_its_own_classes() -> None:
    cells = class_table([(1, "nucleus", (200, 0, 0), False), (2, "membrane", (0, 200, 0), False)])
    blocks = card._blocks(cells, 3, (32, 48))
    assert set(np.unique(blocks)) == {1, 2}


def test_the_shipped_file_says_what_it_is_and_nothing_of_the_machine_it_was_made_on(exported: Path) -> None:
    content = (exported / "to_label.onnx").read_bytes()
    assert b"/trainer/" not in content
    assert b".py" not in content


@pytest.mark.usefixtures("drawn")
def test_the_run_s_evaluations_of_these_weights_go_along_and_those_of_an_earlier_checkpoint_are_left_out(
    one_way_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(shutil.copytree(one_way_run, tmp_path / "run"))
    method, run, step = load_method(path)
    folder, dataset = open_run(path), open_scenes(run)
    selection = folder.selection(dataset)
    dataset = dataclasses.replace(dataset, splits={**dataset.splits, "val": dataset.splits["val"][:3]})
    for split, weights, limit in (("val", "averaged", None), ("test", "raw", 2), ("val", "averaged", 1)):
        evaluate_and_record(
            method,
            dataset,
            dataclasses.replace(selection, pairs=(*selection.pairs, dataset.samples("val")[0])),
            Scope(split, run.size, limit),
            run=run,
            step=step,
            checkpoint="best",
            weights=weights,
            folder=folder.evaluations,
        )
    stale = json.loads((folder.evaluations / "val-best-averaged.json").read_text()) | {"split": "train", "step": 2}
    (folder.evaluations / "train-best-averaged.json").write_text(json.dumps(stale))  # `best` is at step 4
    written = export(path, tmp_path / "exported", force=True)
    assert written.name == "scenes-tiny-supervised"
    assert not (written / "to_photo.onnx").exists()
    metrics = json.loads((written / "manifest.json").read_text())["metrics"]
    assert set(metrics) == {"val"}
    assert metrics["val"]["samples"] == 3
    card = (written / "README.md").read_text()
    assert f"| mean iou | {metrics['val']['mean_iou']:.3f} |" in card
    assert "On split `val` (1 of its photos were seen in training):" in card
    said = capsys.readouterr().err
    assert "train-best-averaged.json is left out: it evaluated step 2, but best is now at step 4" in said
    assert f"fewpair evaluate {path} --split train --checkpoint best" in said


class Noisy(Method):
    """A translator between pictures that draws at random and needs multiples of 8."""

    directions = frozenset({"to_label", "to_photo"})
    multiple_of = 8
    noise_shape = (3, 1, 1)

    def __init__(self) -> None:
        super().__init__(SupervisedConfig(), Domain("picture"), size=SIZE, seed=1)
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
        graph = draw_graph(method, direction, size=(16, 24))
        assert graph.input.name == given
        assert graph.input.layout == "NHWC"
        rows = parity.prove(graph, method, size=(16, 24))
        assert [(row["height"], row["width"], row["ids_different"]) for row in rows] == [(16, 24, None), (24, 32, None)]
    assert graph.noise_shape == (3, 1, 1)
    picture = np.zeros((1, 16, 24, 3), np.uint8)
    first, other = (
        parity.run(graph.model, {"picture": picture, "noise": np.full((1, 3, 1, 1), value, np.float32)})["photo"]
        for value in (0.0, 1.0)
    )
    assert (first != other).all()


@pytest.mark.parametrize(("name", "factor"), [("painter", 2.0), ("bicycle_gan", 40.0)])
def test_a_method_is_exported_with_the_graph_that_reads_a_photo_s_style(
    name: str, factor: float, tmp_path: Path
) -> None:
    run = trained_run(tmp_path / "run", name, size=(64, 64), factor=factor)
    folder = export(run, tmp_path / "exported", name="little", force=True)
    style = json.loads((folder / "manifest.json").read_text())["style"]
    content = (folder / style["file"]).read_bytes()
    assert style["sha256"] == hashlib.sha256(content).hexdigest()
    photos, _ = parity.drawn(None, 3, tuple(style["size"]))
    found = parity.run(onnx.load_from_string(content), {"photo": photos})["noise"]
    method, _, _ = load_method(run)
    with evaluating(method, "cpu"):
        expected = method.style_of(torch.from_numpy(photos).permute(0, 3, 1, 2) / 127.5 - 1)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=0)
    assert not np.allclose(found[0], found[1])


def test_a_size_that_the_method_cannot_take_is_refused() -> None:
    with pytest.raises(UserError, match="20x24 is not a multiple of 8"):
        draw_graph(Noisy().eval(), "to_label", size=(20, 24))
