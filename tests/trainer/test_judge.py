"""The judge: its network and loss, how it is opened, what it says of generated photos, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.factories import LABELS, PHOTOS, SIZE, tiny_config, tiny_folder, tiny_label, tiny_run
from tests.trainer.folders import make_folders, open_folders
from tests.trainer.onnx_files import onnx_extractor, thresholding
from trainer import losses
from trainer.__main__ import main
from trainer.batch import IGNORE, Classes, Domain, class_table
from trainer.data import scenes
from trainer.data.catalogue import open_dataset
from trainer.data.pairs import select
from trainer.errors import UserError
from trainer.export import export
from trainer.methods import build
from trainer.metrics.evaluate import Seen, predict_label
from trainer.metrics.judge import Judge, Scale, Verdict, open_judge
from trainer.networks.segmenter import Segmenter
from trainer.rundir import build_method, create_run, load_method

TWO = class_table([(4, "dark", (0, 0, 0), False), (9, "void", (1, 1, 1), True), (7, "bright", (255, 255, 255), False)])


def test_the_segmenter_has_the_parameters_of_its_layers_and_answers_at_the_photo_s_size() -> None:
    def convolution(before: int, after: int) -> int:
        return 9 * before * after + 2 * after  # no bias; the norm's scale and shift

    w = 24
    stages = sum(convolution(n, 2 * n) + 2 * blocks * convolution(2 * n, 2 * n) for n, blocks in ((w, 1), (2 * w, 2), (4 * w, 1)))
    merges = sum(convolution(3 * n, n) for n in (4 * w, 2 * w, w))
    network = Segmenter(11, width=w)
    assert sum(parameter.numel() for parameter in network.parameters()) == convolution(3, w) + stages + merges + 11 * (w + 1)
    assert network(torch.zeros(2, 3, 48, 64)).shape == (2, 11, 48, 64)


def test_the_segmenter_judges_each_photo_alone() -> None:
    network, photos = Segmenter(3, width=8), torch.randn(3, 3, 32, 48)
    alone = torch.cat([network(photo[None]) for photo in photos])
    assert torch.allclose(network(photos), alone, atol=1e-5)


def test_a_width_that_the_norm_cannot_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--config\.width 12: the segmenter's width is a multiple of 8"):
        build("judge", tiny_config("judge", width=12), photo_domain=PHOTOS, label_domain=LABELS, size=SIZE, seed=0)


def test_the_judge_says_that_it_needs_classes() -> None:
    with pytest.raises(ValueError, match="judge needs a class table"):
        build("judge", tiny_config("judge"), photo_domain=PHOTOS, label_domain=Domain("picture"), size=SIZE, seed=0)


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


def test_all_pairs_are_every_pair_there_is_or_as_many_as_the_pool_holds(tmp_path: Path) -> None:
    dataset = open_folders(make_folders(tmp_path, count=5))
    assert {entry.name for entry in select(dataset, k="all", unpaired=0, seed=0).pairs} == {f"street{n}" for n in range(5)}
    (tmp_path / "labels" / "street2.png").unlink()
    some = open_folders(tmp_path)
    assert {entry.name for entry in select(some, k="all", unpaired=0, seed=0).pairs} == {f"street{n}" for n in (0, 1, 3, 4)}
    assert len(select(some, k="all", unpaired=None, seed=0).pairs) == 4
    assert len(select(some, k="all", unpaired=3, seed=0).pairs) == 3


def rows(classes: Classes) -> str:
    return json.dumps([{"id": row.id, "name": row.name, "color": row.color, "ignore": row.ignore} for row in classes.rows])


@pytest.fixture(scope="module")
def judge_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `judge` on scenes whose random weights tell photos apart."""
    path, run = tmp_path_factory.mktemp("runs") / "judge", tiny_run("judge")
    folder = create_run(path, run, select(open_dataset("scenes", None), k=2, unpaired=0, seed=0))
    method = build_method(run, Domain("picture"), Domain("classes", scenes.CLASSES))
    with torch.no_grad():
        method.segmenter.scores.weight.mul_(100)
    folder.save("best", {"step": 4, "method": method.state_dict(), "averaged": {}, "own": [{"method": {}}]})
    return path


@pytest.fixture(scope="module")
def exported(judge_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(judge_run, tmp_path_factory.mktemp("exported"), name="little-judge")


@pytest.mark.slow
def test_an_exported_judge_labels_as_its_run_does_whatever_the_photo_s_size(judge_run: Path, exported: Path) -> None:
    judge = open_judge(exported, scenes.CLASSES)
    method, run, _ = load_method(judge_run)
    for size in (run.size, (50, 70)):
        photo, _ = scenes.draw(3, height=size[0], width=size[1], split="val")
        label = judge.label(photo)
        assert label.shape == run.size
        assert len(np.unique(label)) > 1
        assert (label == predict_label(method, photo, size=run.size)).mean() > 0.999
    assert judge.name == "little-judge"
    assert judge.sha256 == json.loads((exported / "manifest.json").read_text())["directions"]["to_label"]["sha256"]


@pytest.mark.slow
def test_an_exported_judge_s_bare_file_carries_its_classes_and_its_step_of_size(exported: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(exported / "to_label.onnx", tmp_path / "segmenter.onnx"))
    photo, _ = scenes.draw(3, height=48, width=64, split="val")
    assert (open_judge(file, scenes.CLASSES).label(photo) == open_bare(exported).label(photo)).all()
    assert open_judge(file, scenes.CLASSES).label(photo[:41, :50]).shape == (41, 50)  # padded to multiples of 16, and cropped
    with pytest.raises(UserError, match="its class table and the dataset's disagree"):
        open_judge(file, TWO)


def open_bare(exported: Path) -> Judge:
    """The exported graph at the photo's own scale."""
    judge = open_judge(exported, scenes.CLASSES)
    judge._scale = Scale(multiple_of=16)
    return judge


def providers(judge: Judge) -> list[str]:
    return judge._session.get_providers()


def test_a_judge_that_cannot_run_on_cuda_judges_on_the_cpu_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = thresholding(tmp_path / "threshold.onnx")
    assert providers(open_judge(path, TWO)) == ["CPUExecutionProvider"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    judge = open_judge(path, TWO, device="cuda:0")
    assert providers(judge) == ["CPUExecutionProvider"]
    assert judge.label(np.full((2, 2, 3), 200, np.uint8)).tolist() == [[1, 1], [1, 1]]
    said = capsys.readouterr().err
    assert f"--judge {path} runs on the CPU, not on cuda:0: onnxruntime" in said
    assert "is built without it; for CUDA: pip install '.[cuda]' in a clone of the project" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine on which CUDA does not start")
def test_a_judge_whose_runtime_is_built_for_cuda_says_that_it_could_not_start_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    judge = open_judge(thresholding(tmp_path / "threshold.onnx"), TWO, device="cuda")
    assert providers(judge) == ["CPUExecutionProvider"]
    assert "threshold.onnx runs on the CPU, not on cuda: onnxruntime" in capfd.readouterr().err


@pytest.mark.gpu
def test_a_judge_runs_on_cuda_where_the_evaluation_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = open_judge(thresholding(tmp_path / "threshold.onnx"), TWO, device="cuda")
    assert providers(judge)[0] == "CUDAExecutionProvider"
    assert judge.label(np.full((2, 2, 3), 200, np.uint8)).tolist() == [[1, 1], [1, 1]]
    assert capsys.readouterr().err == ""


def test_any_onnx_segmenter_under_the_contract_is_a_judge_and_its_ids_are_the_dataset_s(tmp_path: Path) -> None:
    judge = open_judge(thresholding(tmp_path / "threshold.onnx"), TWO)
    photo = np.zeros((3, 4, 3), np.uint8)
    photo[:, 2:, 0] = 200
    assert judge.label(photo).tolist() == [[0, 0, 1, 1]] * 3
    assert judge.name == "threshold"


def test_a_judge_s_own_ids_may_be_other_ones_where_its_classes_are_the_same(tmp_path: Path) -> None:
    others = class_table([(0, "dark", (0, 0, 0), False), (1, "bright", (9, 9, 9), False)])
    judge = open_judge(thresholding(tmp_path / "threshold.onnx", ids=(0, 1), classes=rows(others)), TWO)
    assert judge.label(np.full((2, 2, 3), 200, np.uint8)).tolist() == [[1, 1], [1, 1]]


def test_class_tables_that_disagree_are_refused_with_the_first_difference(tmp_path: Path) -> None:
    turned = class_table([(7, "bright", (0, 0, 0), False), (4, "dark", (9, 9, 9), False)])
    path = thresholding(tmp_path / "threshold.onnx", classes=rows(turned))
    with pytest.raises(UserError, match="class 0 of 2 is bright there, and of 2 is dark here"):
        open_judge(path, TWO)
    fewer = class_table([(4, "dark", (0, 0, 0), False)])
    path = thresholding(tmp_path / "threshold.onnx", classes=rows(fewer))
    with pytest.raises(UserError, match="class 1 of 1 is nothing there, and of 2 is bright here"):
        open_judge(path, TWO)


@pytest.mark.slow
def test_what_is_no_judge_is_refused_with_the_contract(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such judge; a judge is a folder that `fewpair export` wrote"):
        open_judge(tmp_path / "nowhere", TWO)
    with pytest.raises(UserError, match=r"it holds no manifest\.json"):
        open_judge(tmp_path, TWO)
    with pytest.raises(UserError, match=r"its inputs and outputs are photo tensor\(uint8\), ids tensor\(uint8\); a judge is"):
        open_judge(thresholding(tmp_path / "odd.onnx", output="ids"), TWO)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"onnxruntime cannot load broken\.onnx"):
        open_judge(broken, TWO)
    changed = Path(shutil.copytree(exported, tmp_path / "changed"))
    manifest = json.loads((changed / "manifest.json").read_text())
    with (changed / "to_label.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"to_label\.onnx does not match its manifest \(sha256 [0-9a-f]{8}\.\.\): export it again"):
        open_judge(changed, scenes.CLASSES)
    (changed / "to_label.onnx").unlink()
    with pytest.raises(UserError, match=r"its manifest names to_label\.onnx, which is not there"):
        open_judge(changed, scenes.CLASSES)
    manifest["directions"] = {"to_photo": manifest["directions"]["to_label"]}
    (changed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="little-judge has no to_label direction"):
        open_judge(changed, scenes.CLASSES)


def test_an_answer_outside_the_class_table_is_refused_with_the_id(tmp_path: Path) -> None:
    judge = open_judge(thresholding(tmp_path / "threshold.onnx", ids=(4, 30)), TWO)
    assert judge.label(np.zeros((2, 2, 3), np.uint8)).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(UserError, match="judge threshold answers id 30, which is no class of the dataset's table"):
        judge.label(np.full((2, 2, 3), 200, np.uint8))


@pytest.mark.parametrize(
    ("scale", "size"),
    [(Scale("exact", 8, 12), (8, 12)), (Scale("fit", 10, 10), (10, 5)), (Scale(), (40, 20)), (Scale("none", 8, 12), (40, 20))],
)
def test_a_photo_is_brought_to_the_scale_that_the_manifest_says(scale: Scale, size: tuple[int, int]) -> None:
    assert scale.size(40, 20) == size


def test_a_verdict_counts_generated_and_real_photos_apart_at_the_label_s_own_size(tmp_path: Path) -> None:
    judge = open_judge(thresholding(tmp_path / "threshold.onnx"), TWO)
    verdict = Verdict(judge, TWO)
    generator = np.random.default_rng(0)
    hits = {"judge": 0, "judge_on_real": 0}
    counted = 0
    for _ in range(3):
        truth = generator.choice([0, 1, IGNORE], (9, 15)).astype(np.uint8)
        generated, real = (np.repeat(generator.choice([0, 255], (4, 6, 1)), 3, 2).astype(np.uint8) for _ in range(2))
        verdict.see(Seen(generated, real, truth))
        for name, photo in (("judge", generated), ("judge_on_real", real)):
            said = np.asarray(Image.fromarray((photo[..., 0] > 127).astype(np.uint8)).resize((15, 9), Image.Resampling.NEAREST))
            hits[name] += sum(said[y, x] == truth[y, x] for y in range(9) for x in range(15))
        counted += int((truth != IGNORE).sum())
    figures = verdict.figures()
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
    method = build_method(run, Domain("picture"), Domain("classes", scenes.CLASSES))
    folder.save("best", {"step": 4, "method": method.state_dict(), "averaged": {}, "own": [{"method": {}}]})
    evaluate = ["evaluate", str(folder.path), "--split", "val", "--limit", "5", "--device", "cpu"]
    extractor = onnx_extractor(tmp_path / "channel_means.onnx")
    assert main([*evaluate, "--judge", str(exported), "--features", str(extractor)]) == 0
    printed = capsys.readouterr().out
    assert "the judge on generated photos" in printed
    assert sum(line.startswith("  IoU road") for line in printed.splitlines()) == 2  # its own label maps', and the judge's
    assert "decoded as in the paper" in printed
    assert "5 generated against 5 real photos" in printed
    written = json.loads((folder.evaluations / "val-best-averaged-5-samples.json").read_text())
    assert written["photo_judge"]["name"] == "little-judge"
    assert len(written["photo_judge"]["sha256"]) == 64
    assert written["distribution"]["generated"] == 5
    assert written["figures"]["judge_on_real_pixel_accuracy"] is not None
    assert any(name.startswith("kid[channel_means") for name in written["figures"])
    assert main([*evaluate, "--judge", str(tmp_path / "nobody")]) == 2
    assert "there is no such judge" in capsys.readouterr().err


@pytest.mark.parametrize(("asked", "pairs"), [((), 6), (("--pairs", "2"), 2)])
def test_a_judge_is_trained_on_all_pairs_of_anybody_s_folder_or_on_a_few(tmp_path: Path, asked: tuple[str, ...], pairs: int) -> None:
    root, out = tiny_folder(tmp_path / "mine"), tmp_path / "run"
    small = ("--size", "32x48", "--config.width", "8", "--steps", "2", "--batch", "2", "--device", "cpu")
    assert main(["train", "judge", "--data", "folders", "--root", str(root), "--out", str(out), *small, *asked]) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["method"], config["pairs"], config["unpaired"]) == ("judge", pairs, 0)
    assert len(json.loads((out / "pairs.json").read_text())["pairs"]) == pairs
    method, _, step = load_method(out)
    assert step == 2
    photo, _ = scenes.draw(0, height=32, width=48, split="val")
    assert predict_label(method, photo, size=(32, 48)).max() < scenes.CLASSES.count
