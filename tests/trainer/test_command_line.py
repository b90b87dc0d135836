"""The command line: refusals, help, and the way from pairs to an exported model."""

import dataclasses
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.trainer.factories import ENCODER, tiny_folder
from tests.trainer.folders import TINY, ids_of, make_folders, open_folders, photo_of, write
from trainer import __main__ as command_line
from trainer.__main__ import COMMANDS, main
from trainer.commands.own_data import announce, recipe_for, scaled_stages
from trainer.data.selection.choose import select
from trainer.errors import UserError
from trainer.recipes import RECIPES

ROOT = Path(__file__).parents[2]


def error_text(capsys) -> str:
    """What was said on stderr, without tyro's boxes and line breaks."""
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def refused(capsys, *words: str) -> str:
    """The sentence with which the command is refused; exit code 2."""
    try:
        code = main(list(words))
    except SystemExit as left:  # tyro's own refusals
        code = left.code
    assert code == 2
    said = error_text(capsys)
    assert "Traceback" not in said
    return said


@pytest.fixture
def mine(tmp_path):
    """Somebody's own photos: six scenes, all labelled."""
    return tiny_folder(tmp_path / "mine")


def test_the_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS)


def test_a_misspelt_command_is_refused_with_a_suggestion(capsys):
    assert "did you mean train?" in refused(capsys, "trian")


def test_a_misspelt_recipe_is_refused_with_a_suggestion(capsys):
    assert "did you mean hybrid-compact?" in refused(capsys, "train", "hybrid-compat", "--out", "nowhere")


def test_a_misspelt_option_is_refused_with_a_suggestion_before_torch_is_imported():
    script = (
        "import sys; from trainer.__main__ import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    for words, meant in (
        (["train", "scenes-demo", "--setps", "4"], "--steps"),
        (["train", "hybrid-compact", "--config.widht", "4"], "--config.width"),
        (["pairs", "--ruel", "x"], "--rule"),
    ):
        done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 2, done.stderr
        assert f"did you mean {meant}?" in done.stderr


@pytest.mark.timeout(300)
def test_ctrl_c_while_torch_is_imported_ends_in_a_short_line_and_130(tmp_path):
    words = ["train", "supervised-compact", "--data", "scenes", "--steps", "2", "--out", str(tmp_path / "run")]
    running = subprocess.Popen([sys.executable, "-m", "trainer", *words], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    maps = Path(f"/proc/{running.pid}/maps")
    while "libtorch" not in maps.read_text():
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert "stopped by Ctrl-C" in said
    assert "Error" not in said
    assert not (tmp_path / "run").exists()


def test_the_help_of_train_shows_what_a_user_needs_and_points_to_the_recipes(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    options = re.findall(r"^\W*(--[a-z]+) ", said, re.MULTILINE)
    assert options == ["--root", "--out", "--pairs", "--to", "--data"]
    assert "--help-all" in said
    assert main(["train", "--help-all"]) == 0
    said = capsys.readouterr().out
    assert "hybrid-compact" in said
    assert "128x192" in said


def test_own_data_is_trained_without_naming_a_recipe(capsys, tmp_path):
    root, run = make_folders(tmp_path / "mine", count=3), tmp_path / "run"
    write(root / "photos" / "another.jpg", photo_of(9))
    small = [f"--config.{name.replace('_', '-')}={value}" for name, value in ENCODER.items()]
    words = ["train", "--data", "folders", "--root", str(root), "--out", str(run), *small, "--config.width", "4"]
    assert main([*words, "--config.warm-up", "0", "--steps", "1", "--device", "cpu", "--threads", "1"]) == 0
    assert "mean-teacher-compact: 3 pairs, 1 other photo at 64x64, about 1 minute" in capsys.readouterr().out
    config = json.loads((run / "config.json").read_text())
    assert (config["pairs"], config["unpaired"], config["size"]) == (3, 4, [64, 64])


def test_the_recipe_for_own_data_has_the_shape_of_its_photos_and_says_its_minutes(capsys, tmp_path):
    root = make_folders(tmp_path / "mine", count=0)
    write(root / "photos" / "street0.jpg", photo_of(0, height=480, width=360))
    with pytest.raises(UserError, match="no photo has a label map of the same file name yet; `fewpair pairs"):
        recipe_for(open_folders(root), to="label")
    write(root / "labels" / "street0.png", ids_of(0, height=480, width=360))
    write(root / "photos" / "street1.jpg", photo_of(1, height=480, width=360))
    segmenter = recipe_for(open_folders(root), to="label")
    assert (segmenter.method, segmenter.size, segmenter.pairs) == ("mean_teacher", (352, 256), "all")
    assert [stage[1:] for stage in segmenter.progressive] == [(128, 96), (256, 192)]
    painter = recipe_for(open_folders(root), to="photo")
    assert (painter.method, painter.size) == ("painter", (256, 192))
    assert [stage[1:] for stage in painter.progressive] == [(128, 96)]
    announce(painter, select(open_folders(root), k=1, unpaired=None, seed=0))
    said = capsys.readouterr().out
    assert "painter-compact: 1 pair, 1 other photo at 256x192, about 59 minutes on one CPU core" in said
    assert "the other photos are not read: train a segmenter first" in said
    smaller = dataclasses.replace(painter, size=(128, 96), progressive=scaled_stages(painter, (128, 96)), batch=4)
    announce(smaller, select(open_folders(root), k=1, unpaired=None, seed=0))
    assert "at 128x96, about 34 minutes" in capsys.readouterr().out


@pytest.mark.parametrize("size", [(128, 192), (192, 256), (224, 416), (160, 224), (256, 352)])
@pytest.mark.parametrize("name", ["mean-teacher-compact", "painter-compact"])
def test_the_stages_of_a_training_have_the_shape_of_its_size(name, size):
    for _, height, width in scaled_stages(RECIPES[name], size):
        assert abs(math.log(width / height * size[0] / size[1])) < 0.15


def test_the_help_of_a_recipe_shows_its_own_defaults(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "hybrid-compact", "--help"])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: 128x192)" in said
    assert "--config.label-as {colours,classes}" in said
    assert "--no-enlarge" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--size", "63"), "63 is not a size; write height x width, as in 128x192"),
        (("--size", "63x96"), "--size 63x96: hybrid needs multiples of 4; the nearest is 64x96"),
        (("--size", "16x16"), "--size 16x16: hybrid needs at least 32x32"),
        (("--steps", "0"), "--steps 0: give 1 or more"),
        (("--seed", "-1"), "--seed -1: give a whole number from 0"),
        (("--keep", "9000"), "--keep 9000: the run has steps 1 to 2000"),
        (("--config.width", "0"), "--config.width 0: give 1 or more"),
        (("--config.lr", "nan"), "--config.lr nan: give a number above 0"),
        (("--config.ema", "1"), "--config.ema 1.0: give a number from 0 to below 1"),
        (("--config.patch", "286", "--size", "64x96"), "--size 64x96: hybrid needs at least 96x96"),
        (("--config.pairs-cross-entropy", "inf"), "--config.pairs-cross-entropy inf: give 0 or more"),
        (("--pairs", "0"), "hybrid learns from pairs, but the selection from scenes has none: use --pairs 1 or more"),
        (("--pairs", "5000"), "5000 pairs are more than the 500 training pairs of scenes"),
        (("--pairs", "nowhere.json"), "--pairs nowhere.json: there is no such file, and it is no number"),
        (("--data", "camvid"), "--data camvid needs --root FOLDER"),
        (("--data", "cityscape"), "cityscape is not a dataset; did you mean cityscapes? Known: "),
        (("--device", "gpu"), "--device gpu"),
        (("--threads", "0"), "--threads 0: give 1 or more"),
    ],
)
def test_an_impossible_value_is_refused_before_a_folder_is_made(capsys, tmp_path, words, sentence):
    out = tmp_path / "run"
    data = () if "--data" in words else ("--data", "scenes")
    assert sentence in refused(capsys, "train", "hybrid-compact", *data, "--out", str(out), *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("pix2pix-compact --no-balanced", "--no-balanced (balanced=False): a step of pix2pix needs both halves"),
        ("tripathy-compact --no-balanced", "a step of tripathy needs both halves"),
        ("tripathy-compact --steps 400", "a quarter of the steps, as the paper does: --config.paired-steps 100"),
        ("ucsd-paired-compact --pairs 2 --size 96x128", "pix2pix needs multiples of 64; the nearest is 128x128"),
        ("ucsd-unpaired-compact --config.levels 1", "--config.levels 1: give a number from 2 to 10"),
        ("tcr-compact --no-balanced", "a step of tcr needs both halves"),
        ("oasis-compact --config.lr-discriminator 0", "--config.lr-discriminator 0.0: give a number above 0"),
        ("spade-compact --config.scales 0", "--config.scales 0: give 1 or more"),
        ("usis-compact --config.noise 0", "--config.noise 0: give 1 or more"),
        ("usis-compact --config.r1-every 0", "give 1 or more; --config.r1 0 leaves the penalty out"),
        ("usis-compact --config.width 10", "is not a multiple of 4, and there are four wavelet bands: take 8 or"),
        ("semipaired-compact --config.vgg nowhere.pth", "there is no such file; give a state dict of VGG-19"),
    ],
)
def test_a_method_refuses_what_it_cannot_do_before_a_folder_is_made(capsys, tmp_path, command, sentence):
    out = tmp_path / "run"
    assert sentence in refused(capsys, "train", *command.split(), "--data", "scenes", "--out", str(out))
    assert not out.exists()


def test_a_folder_that_is_not_a_run_is_refused(capsys, tmp_path):
    for words in (
        ("train", "--resume", str(tmp_path)),
        ("evaluate", str(tmp_path), "--split", "val"),
        ("export", str(tmp_path)),
    ):
        assert f"{tmp_path} is not the folder of a run" in refused(capsys, *words)
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read as JSON" in refused(capsys, "export", str(tmp_path))


@pytest.mark.parametrize(("name", "extra"), [("train", "train"), ("predict", "serve")])
def test_a_command_whose_extra_is_missing_names_it(capsys, monkeypatch, name, extra):
    def absent(module):
        raise ModuleNotFoundError("No module named 'absent'", name="absent")

    monkeypatch.setattr(command_line.importlib, "import_module", absent)
    assert f"pip install '.[{extra}]' in a clone of the project" in refused(capsys, name)


def test_ctrl_c_ends_in_a_short_line_and_130(capsys, monkeypatch):
    def stopped(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "load", stopped)
    assert main(["train"]) == 130
    assert error_text(capsys) == "fewpair: stopped by Ctrl-C"


def test_predict_and_serve_pass_their_arguments_to_the_server(monkeypatch):
    import serving.__main__

    given = []
    monkeypatch.setattr(serving.__main__, "main", lambda words: given.append(words) or 0)
    assert main(["serve", "--port", "3100"]) == 0
    assert main(["predict", "model", "photos", "--out", "answers"]) == 0
    assert given == [["--port", "3100"], ["predict", "model", "photos", "--out", "answers"]]


def test_from_pairs_to_an_evaluated_run_by_the_command_line(capsys, mine, tmp_path):
    data, pairs, run = ("--data", "folders", "--root", str(mine)), tmp_path / "pairs.json", tmp_path / "run"

    assert main(["pairs", *data, "--k", "2", "--unpaired", "4", "--out", str(pairs)]) == 0
    named = {entry["photo"] for entry in json.loads(pairs.read_text())["pairs"]}
    assert all(photo in capsys.readouterr().out for photo in sorted(named)[-1:])
    assert f"{pairs} exists" in refused(capsys, "pairs", *data, "--k", "2", "--out", str(pairs))

    training = ("train", "supervised-compact", *data, "--pairs", str(pairs), "--steps", "3", "--out", str(run), *TINY)
    assert "leave --unpaired out" in refused(capsys, *training, "--unpaired", "3")
    assert main(list(training)) == 0
    assert {entry["photo"] for entry in json.loads((run / "pairs.json").read_text())["pairs"]} == named
    config = json.loads((run / "config.json").read_text())
    assert (config["pairs"], config["unpaired"], config["steps"], config["config"]["width"]) == (2, 4, 3, 4)
    assert "holds a run already" in refused(capsys, *training)

    assert main(["train", "--resume", str(run)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--split", "train", "--limit", "2"]) == 0
    said = capsys.readouterr().out
    assert "mean iou" in said
    assert "commonest class per pixel" in said
    assert "has no split 'devtest'" in refused(capsys, "evaluate", str(run), "--split", "devtest")


def test_the_steps_of_the_readme_lead_from_photos_alone_to_an_evaluated_run(capsys, mine, tmp_path):
    (mine / "train" / "photos").rename(mine / "photos")
    labels = (mine / "train" / "labels").rename(tmp_path / "drawn by hand")
    shutil.rmtree(mine / "train")
    shutil.rmtree(mine / "val")
    data, pairs, run = ("--data", "folders", "--root", str(mine)), tmp_path / "pairs.json", tmp_path / "run"

    assert main(["pairs", *data, "--k", "2", "--unlabelled", "--out", str(pairs)]) == 0
    said = capsys.readouterr().out
    assert said.count("(to be labelled)") == 2
    assert "2 pairs, 4 other photos, once these are labelled" in said
    assert "label files hold" not in said
    training = ("train", "hybrid-compact", *data, "--pairs", str(pairs), "--steps", "2", "--out", str(run), *TINY)
    assert "2 of its 2 pairs have no label map yet" in refused(capsys, *training)

    (mine / "labels").mkdir()
    for entry in json.loads(pairs.read_text())["pairs"]:
        shutil.copy(labels / f"{entry['name']}.png", mine / "labels")
    assert main(list(training)) == 0
    said = capsys.readouterr().out
    assert "label maps that were added since join the unpaired pool" in said
    assert f"Next: fewpair evaluate {run}\n" in said
    assert main(["evaluate", str(run), "--split", "train"]) == 0


def test_a_method_whose_unpaired_half_would_be_empty_is_refused_with_what_to_do(capsys, mine, tmp_path):
    data, out = ("--data", "folders", "--root", str(mine)), tmp_path / "run"
    training = ("train", "hybrid-compact", *data, "--out", str(out), *TINY)
    assert "use --unpaired all" in refused(capsys, *training, "--pairs", "2", "--unpaired", "0")
    shutil.rmtree(mine / "train" / "labels")
    assert "`fewpair pairs --unlabelled` selects photos to label" in refused(
        capsys, *training, "--pairs", "2", "--unpaired", "all"
    )
    alone = ("train", "cyclegan-compact", *data, "--out", str(out), *TINY, "--unpaired", "all")
    said = refused(capsys, *alone)
    assert "cyclegan learns from unpaired label maps" in said
    assert "supervised-compact" in said
    assert not out.exists()


def test_a_val_split_without_a_pair_counts_as_none_with_a_message(capsys, mine, tmp_path):
    shutil.rmtree(mine / "val" / "labels")
    data, run = ("--data", "folders", "--root", str(mine)), tmp_path / "run"
    few = ("--pairs", "2", "--unpaired", "0", "--steps", "2")
    assert main(["train", "supervised-compact", *data, *few, "--out", str(run), *TINY]) == 0
    said = capsys.readouterr().out
    assert "no photo of `val` has a label map, so the best checkpoint is the last" in said
    assert f"Next: fewpair evaluate {run}\n" in said
    assert (run / "best.ckpt").exists()
