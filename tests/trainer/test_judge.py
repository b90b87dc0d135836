"""The judge: its network and loss, how it is opened, what it says of generated photos, and what is refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.extractors import write_extractor
from tests.trainer.factories import LABELS, SIZE, class_table, tiny_config, tiny_folder, tiny_label, tiny_run
from tests.trainer.onnx_files import thresholding
from trainer import losses
from trainer.__main__ import main
from trainer.batch import IGNORE, Classes, Domain
from trainer.data.catalogue import open_dataset
from trainer.data.selection.choose import select
from trainer.data.synthetic import scenes
from trainer.errors import UserError
from trainer.export.export import export
from trainer.methods import METHODS
from trainer.metrics.judge import FcnScore, Judge, open_judge
from trainer.metrics.predict import predict_labels
from trainer.networks.segmenter import Segmenter
from trainer.training.checkpointing import build_method, create_run, load_method

TWO = class_table([(4, "dark", (0, 0, 0), False), (9, "void", (1, 1, 1), True), (7, "bright", (255, 255, 255), False)])


def test_the_segmenter_judges_each_photo_alone() -> None:
    network, photos = Segmenter(3, width=8), torch.randn(3, 3, 32, 48)
    alone = torch.cat([network(photo[None]) for photo in photos])
    assert torch.allclose(network(photos), alone, atol=1e-5)


def test_a_width_that_the_norm_cannot_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--config\.width 12: the segmenter's width is a multiple of 8"):
        METHODS["judge"](tiny_config("judge", width=12), LABELS, size=SIZE, seed=0)


def test_the_judge_says_that_it_needs_classes() -> None:
    with pytest.raises(ValueError, match="judge needs a class table"):
        METHODS["judge"](tiny_config("judge"), Domain("picture"), size=SIZE, seed=0)


def test_the_dice_loss_is_its_equation_class_by_class_without_void_and_without_absent_classes() -> None:
    label = tiny_label(2, size=(16, 16), seed=3)
    label[label == 1] = 0  # class 1 is absent
    scores = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    share = torch.softmax(scores.double(), 1)
    terms = []
    for c in (0, 2):
        overlap = predicted = held = 0.0
        for b in range(2):
            for y in range(16):
                for x in range(16):
                    if label[b, y, x] == IGNORE:
                        continue
                    p, t = share[b, c, y, x].item(), float(label[b, y, x] == c)
                    overlap, predicted, held = overlap + p * t, predicted + p, held + t
        terms.append(1 - 2 * overlap / (predicted + held))
    assert losses.soft_dice(scores, label).item() == pytest.approx(np.mean(terms), rel=1e-5)
    assert losses.soft_dice(scores, torch.full_like(label, IGNORE)).item() == 0


def exported_judge(
    folder: Path, classes: Classes = TWO, *, size: tuple[int, int] = (4, 6), confidence: bool = False
) -> Path:
    """An export of a judge that tells bright photos from dark ones, with its classes' own ids."""
    folder.mkdir()
    path = thresholding(folder / "to_label.onnx", ids=tuple(row.id for row in classes.real), confidence=confidence)
    rows = [{"id": row.id, "name": row.name, "color": row.color, "ignore": row.ignore} for row in classes.rows]
    direction = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    manifest = {"name": "threshold", "directions": {"to_label": direction}, "domains": {"label": {"classes": rows}}}
    manifest["resize"] = {"rule": "exact", "height": size[0], "width": size[1], "filter": "bicubic"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def judge_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `judge` on scenes whose random weights tell photos apart."""
    path, run = tmp_path_factory.mktemp("runs") / "judge", tiny_run("judge")
    folder = create_run(path, run, select(open_dataset("scenes", None), k=2, unpaired=0, seed=0))
    method = build_method(run, Domain("classes", scenes.CLASSES))
    with torch.no_grad():
        method.segmenter.scores.weight.mul_(100)
    folder.save("best", {"step": 4, "method": method.state_dict(), "averaged": {}, "own": [{"method": {}}]})
    return path


@pytest.fixture(scope="module")
def exported(judge_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(judge_run, tmp_path_factory.mktemp("exported"), name="little-judge", force=True)


@pytest.mark.slow
def test_an_exported_judge_labels_as_its_run_does_whatever_the_photo_s_size(judge_run: Path, exported: Path) -> None:
    judge = open_judge(exported, scenes.CLASSES)
    method, run, _ = load_method(judge_run)
    for size in (run.size, (50, 70)):
        photo, _ = scenes.draw(3, height=size[0], width=size[1], split="val")
        label = judge.label(photo)
        assert label.shape == run.size
        assert len(np.unique(label)) > 1
        assert (label == predict_labels(method, [photo], size=run.size)[0]).mean() > 0.999
    assert judge.name == "little-judge"
    assert judge.sha256 == json.loads((exported / "manifest.json").read_text())["directions"]["to_label"]["sha256"]


def providers(judge: Judge) -> list[str]:
    return judge._session.get_providers()


def test_a_judge_that_cannot_run_on_cuda_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported_judge(tmp_path / "judge")
    assert providers(open_judge(path, TWO)) == ["CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="--device cuda:0: onnxruntime cannot use CUDA here; use --device cpu"):
        open_judge(path, TWO, device="cuda:0")


@pytest.mark.gpu
def test_a_judge_runs_on_cuda_where_the_evaluation_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = open_judge(exported_judge(tmp_path / "judge"), TWO, device="cuda")
    assert providers(judge)[0] == "CUDAExecutionProvider"
    assert (judge.label(np.full((2, 2, 3), 200, np.uint8)) == 1).all()
    assert capsys.readouterr().err == ""


def test_a_judge_with_other_ids_returns_the_dataset_s_indices(tmp_path: Path) -> None:
    others = class_table([(0, "dark", (0, 0, 0), False), (1, "bright", (9, 9, 9), False)])
    judge = open_judge(exported_judge(tmp_path / "judge", others), TWO)
    photo = np.zeros((4, 6, 3), np.uint8)
    photo[:, 3:, 0] = 200
    assert judge.label(photo).tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    assert judge.name == "threshold"


def test_what_is_not_a_judge_of_the_dataset_s_classes_is_refused_with_the_remedy(tmp_path: Path) -> None:
    turned = class_table([(7, "bright", (0, 0, 0), False), (4, "dark", (9, 9, 9), False)])
    path = exported_judge(tmp_path / "turned", turned)
    with pytest.raises(
        UserError, match=r"its classes \(bright, dark\) are not the dataset's \(dark, bright\).*train judge"
    ):
        open_judge(path, TWO)
    with pytest.raises(UserError, match=r"nowhere/manifest\.json cannot be read \(No such file.*fewpair train judge"):
        open_judge(tmp_path / "nowhere", TWO)
    path = exported_judge(tmp_path / "changed")
    manifest = json.loads((path / "manifest.json").read_text())
    with (path / "to_label.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"to_label\.onnx does not match the sha256 in its manifest: export again"):
        open_judge(path, TWO)
    (path / "to_label.onnx").unlink()
    with pytest.raises(UserError, match=r"to_label\.onnx cannot be read"):
        open_judge(path, TWO)
    manifest["directions"] = {"to_photo": manifest["directions"]["to_label"]}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="does not predict label maps"):
        open_judge(path, TWO)


def test_the_fcn_score_counts_generated_and_real_photos_apart_at_the_label_s_own_size(tmp_path: Path) -> None:
    score = FcnScore(open_judge(exported_judge(tmp_path / "judge"), TWO), TWO)
    generator = np.random.default_rng(0)
    hits = {"judge": 0, "judge_on_real": 0}
    counted = 0
    for _ in range(3):
        truth = generator.choice([0, 1, IGNORE], (9, 15)).astype(np.uint8)
        generated, real = (np.repeat(generator.choice([0, 255], (4, 6, 1)), 3, 2).astype(np.uint8) for _ in range(2))
        score.add(generated, real, truth)
        for name, photo in (("judge", generated), ("judge_on_real", real)):
            said = np.asarray(
                Image.fromarray((photo[..., 0] > 127).astype(np.uint8)).resize((15, 9), Image.Resampling.NEAREST)
            )
            hits[name] += sum(said[y, x] == truth[y, x] for y in range(9) for x in range(15))
        counted += int((truth != IGNORE).sum())
    figures = score.figures()
    for name, right in hits.items():
        assert figures[f"{name}_pixel_accuracy"] == pytest.approx(right / counted)
    per_class = figures["judge_per_class_iou"]
    assert isinstance(per_class, dict)
    assert set(per_class) == {"dark", "bright"}
    assert figures["judge_mean_iou"] == pytest.approx(np.mean(list(per_class.values())))
    assert {"judge_mean_class_accuracy", "judge_on_real_mean_iou", "judge_on_real_per_class_iou"} <= figures.keys()


@pytest.mark.slow
def test_the_command_line_scores_a_run_by_a_judge_and_an_extractor(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run("hybrid")
    folder = create_run(tmp_path / "run", run, select(open_dataset("scenes", None), k=2, unpaired=4, seed=0))
    method = build_method(run, Domain("classes", scenes.CLASSES))
    folder.save("best", {"step": 4, "method": method.state_dict(), "averaged": {}, "own": [{"method": {}}]})
    evaluate = ["evaluate", str(folder.path), "--split", "val", "--limit", "5", "--device", "cpu"]
    extractor = write_extractor(tmp_path / "channel_means.onnx")
    assert main([*evaluate, "--judge", str(exported), "--features", str(extractor)]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{line} " in printed for line in ("iou road", "judge iou road", "judge mean iou"))
    written = json.loads(
        (next(folder.evaluations.glob("val-best-averaged-5-samples-little-judge-channel_means*.json"))).read_text()
    )
    assert written["photo_judge"]["name"] == "little-judge"
    assert len(written["photo_judge"]["sha256"]) == 64
    assert written["distribution"]["photos"] == 5
    assert written["figures"]["judge_on_real_pixel_accuracy"] is not None
    assert any(name.startswith("kid[channel_means") for name in written["figures"])
    assert main([*evaluate, "--judge", str(tmp_path / "nobody")]) == 2
    assert "nobody/manifest.json cannot be read" in capsys.readouterr().err


def test_a_judge_is_trained_on_all_pairs_of_a_user_s_folder(tmp_path: Path) -> None:
    root, out = tiny_folder(tmp_path / "mine"), tmp_path / "run"
    small = ("--size", "32x48", "--config.width", "8", "--steps", "2", "--batch", "2", "--device", "cpu")
    assert main(["train", "judge", "--data", "folders", "--root", str(root), "--out", str(out), *small]) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["method"], config["pairs"], config["unpaired"]) == ("judge", 6, 0)
    assert len(json.loads((out / "pairs.json").read_text())["pairs"]) == 6
    method, _, step = load_method(out)
    assert step == 2
    photo, _ = scenes.draw(0, height=32, width=48, split="val")
    assert predict_labels(method, [photo], size=(32, 48))[0].max() < scenes.CLASSES.count
