"""The command line: what a person types, what is refused with which sentence, and the way from pairs to an exported model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import __main__ as command_line
from trainer.__main__ import COMMANDS, main

TINY = ("--size", "32x48", "--config.width", "4", "--config.blocks", "1", "--evaluate-every", "1000", "--device", "cpu", "--threads", "1")


def told(capsys) -> str:
    """What was said on stderr, without tyro's boxes and line breaks."""
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def refused(capsys, *words: str) -> str:
    """The sentence with which the command is refused; exit code 2."""
    try:
        code = main(list(words))
    except SystemExit as left:  # tyro's own refusals
        code = left.code
    assert code == 2
    said = told(capsys)
    assert "Traceback" not in said
    return said


@pytest.fixture
def mine(tmp_path):
    """Somebody's own photos: six scenes, all labelled."""
    from tests.trainer.factories import tiny_folder

    return tiny_folder(tmp_path / "mine")


def test_the_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS)


def test_the_bare_name_prints_the_help(capsys):
    assert main([]) == 0
    assert "usage: fewpair" in capsys.readouterr().out


def test_a_misspelt_command_is_refused_with_a_suggestion(capsys):
    assert "did you mean 'train'?" in refused(capsys, "trian")


def test_a_misspelt_recipe_is_refused_with_a_suggestion(capsys):
    assert "did you mean 'hybrid-compact'?" in refused(capsys, "train", "hybrid-compat", "--out", "nowhere")


def test_a_misspelt_flag_is_refused_with_a_suggestion(capsys, tmp_path):
    said = refused(capsys, "train", "scenes-demo", "--out", str(tmp_path / "run"), "--setps", "4")
    assert "Perhaps you meant: --steps" in said


def test_a_misspelt_choice_of_the_method_is_refused_with_a_suggestion(capsys, tmp_path):
    said = refused(capsys, "train", "scenes-demo", "--out", str(tmp_path / "run"), "--config.widht", "4")
    assert "--config.width" in said


def test_train_without_a_recipe_lists_the_recipes(capsys):
    assert main(["train", "--help"]) == 0
    said = capsys.readouterr().out
    assert "hybrid-compact" in said
    assert "128x192" in said


def test_the_help_of_a_recipe_shows_its_own_defaults(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "hybrid-compact", "--help"])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: 128x192)" in said
    assert "--config.label-as {colours,classes}" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--size", "63"), "63 is not a size; write height x width, as in 128x192"),
        (("--size", "63x96"), "--size 63x96: hybrid needs multiples of 4; the nearest size is 64x96"),
        (("--size", "16x16"), "--size 16x16: the networks need at least 32x32"),
        (("--steps", "0"), "--steps 0: give 1 or more"),
        (("--seed", "-1"), "--seed -1: give a whole number from 0"),
        (("--seed", str(2**64)), "give a whole number from 0"),
        (("--keep", "9000"), "--keep 9000: the run has steps 1 to 400"),
        (("--config.width", "0"), "--config.width 0: give 1 or more"),
        (("--config.blocks", "-1"), "--config.blocks -1: give 0 or more"),
        (("--config.pool", "-1"), "--config.pool -1: give 0 or more"),
        (("--config.lr", "0"), "--config.lr 0.0: give a number above 0"),
        (("--config.lr", "nan"), "--config.lr nan: give a number above 0"),
        (("--config.ema", "1"), "--config.ema 1.0: give a number from 0 to below 1"),
        (("--config.patch", "286"), "--size 64x96: hybrid with this patch needs at least 96x96"),
        (("--config.cycle", "-1"), "--config.cycle -1.0: give 0 or more"),
        (("--config.pairs-cross-entropy", "inf"), "--config.pairs-cross-entropy inf: give 0 or more"),
        (("--pairs", "0"), "hybrid learns from pairs: ask for at least --pairs 1"),
        (("--pairs", "5000"), "--pairs 5000 asks for more than the 500 training samples of scenes"),
        (("--pairs", "nowhere.json"), "--pairs nowhere.json: there is no such file, and it is not a number"),
        (("--data", "camvid"), "--data camvid needs --root FOLDER"),
        (("--data", "cityscape"), "--data cityscape: there is no such dataset"),
        (("--device", "gpu"), "--device gpu"),
        (("--threads", "0"), "--threads 0: give 1 or more"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_a_folder_is_made(capsys, tmp_path, words, sentence):
    out = tmp_path / "run"
    assert sentence in refused(capsys, "train", "scenes-demo", "--out", str(out), *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("recipe", "words", "sentence"),
    [
        ("pix2pix-compact", ("--no-balanced",), "--no-balanced (balanced=False): a step of pix2pix cannot go on with"),
        ("tripathy-compact", ("--no-balanced",), "a step of tripathy cannot go on with"),
        ("tripathy-compact", ("--steps", "400"), "give a quarter of the steps, as the paper does: --config.paired-steps 100"),
        (
            "ucsd-paired-compact",
            ("--pairs", "2", "--size", "96x128"),
            "--size 96x128: pix2pix needs multiples of 64; the nearest size is 128x128",
        ),
        ("ucsd-unpaired-compact", ("--config.levels", "1"), "--config.levels 1: give a number from 2 to 10"),
        ("tcr-compact", ("--no-balanced",), "a step of tcr cannot go on with"),
        ("oasis-compact", ("--config.lr-discriminator", "0"), "--config.lr-discriminator 0.0: give a number above 0"),
        ("spade-compact", ("--config.scales", "0"), "--config.scales 0: give 1 or more"),
        ("usis-compact", ("--config.noise", "0"), "--config.noise 0: give 1 or more"),
        ("usis-compact", ("--config.r1-every", "0"), "--config.r1-every 0: give 1 or more; --config.r1 0 leaves the penalty out"),
        ("usis-compact", ("--config.width", "10"), "width 10 is not a multiple of 4, and the wavelet transform has four bands: take 8 or"),
        ("semipaired-compact", ("--config.vgg", "nowhere.pth"), "nowhere.pth: there is no such file; give a state dict of VGG-19"),
    ],
)
def test_a_method_refuses_what_it_cannot_do_before_a_folder_is_made(capsys, tmp_path, recipe, words, sentence):
    out = tmp_path / "run"
    assert sentence in refused(capsys, "train", recipe, "--data", "scenes", "--out", str(out), *words)
    assert not out.exists()


def test_a_folder_that_is_not_a_run_is_refused(capsys, tmp_path):
    for words in (("train", "--resume", str(tmp_path)), ("evaluate", str(tmp_path), "--split", "val"), ("export", str(tmp_path))):
        assert f"{tmp_path} is not the folder of a run" in refused(capsys, *words)


@pytest.mark.parametrize(("name", "extra"), [("train", "train"), ("evaluate", "train"), ("serve", "serve"), ("predict", "serve")])
def test_a_command_whose_extra_is_missing_names_it(capsys, monkeypatch, name, extra):
    def absent(module):
        raise ModuleNotFoundError("No module named 'absent'", name="absent")

    monkeypatch.setattr(command_line.importlib, "import_module", absent)
    assert f"pip install '.[{extra}]' in a clone of the project" in refused(capsys, name)


def test_a_defect_of_our_own_is_not_taken_for_a_missing_extra(monkeypatch):
    def absent(module):
        raise ModuleNotFoundError("No module named 'trainer.absent'", name="trainer.absent")

    monkeypatch.setattr(command_line.importlib, "import_module", absent)
    with pytest.raises(ModuleNotFoundError):
        main(["train"])


def test_ctrl_c_ends_in_a_short_line_and_130(capsys, monkeypatch):
    def stopped(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "load", stopped)
    assert main(["train"]) == 130
    assert told(capsys) == "fewpair: stopped by Ctrl-C"


def test_predict_and_serve_hand_their_words_to_the_server(monkeypatch):
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


def test_the_way_of_the_readme_from_photos_alone_to_an_evaluated_run(capsys, mine, tmp_path):
    (mine / "train" / "photos").rename(mine / "photos")
    labels = (mine / "train" / "labels").rename(tmp_path / "drawn by hand")
    shutil.rmtree(mine / "train")
    shutil.rmtree(mine / "val")
    data, pairs, run = ("--data", "folders", "--root", str(mine)), tmp_path / "pairs.json", tmp_path / "run"

    assert main(["pairs", *data, "--k", "2", "--unlabelled", "--out", str(pairs)]) == 0
    said = capsys.readouterr().out
    assert said.count("(to be labelled)") == 2
    assert "2 pairs, 6 photos and 0 label maps unpaired" in said
    assert "label files hold" not in said
    training = ("train", "hybrid-compact", *data, "--pairs", str(pairs), "--steps", "2", "--out", str(run), *TINY)
    assert "2 of its 2 pairs have no label map yet" in refused(capsys, *training)

    (mine / "labels").mkdir()
    for entry in json.loads(pairs.read_text())["pairs"]:
        shutil.copy(labels / f"{entry['name']}.png", mine / "labels")
    assert main(list(training)) == 0
    said = capsys.readouterr().out
    assert "2 label maps that have appeared since it was written join the unpaired pool" in said
    assert f"Next: fewpair evaluate {run} --split train" in said
    assert main(["evaluate", str(run), "--split", "train"]) == 0


def test_a_method_whose_unpaired_half_would_be_empty_is_refused_with_what_to_do(capsys, mine, tmp_path):
    data, out = ("--data", "folders", "--root", str(mine)), tmp_path / "run"
    training = ("train", "hybrid-compact", *data, "--out", str(out), *TINY)
    assert "ask for --unpaired all" in refused(capsys, *training, "--pairs", "2", "--unpaired", "0")
    shutil.rmtree(mine / "train" / "labels")
    assert "`fewpair pairs --unlabelled` chooses the photos to label" in refused(capsys, *training, "--pairs", "2", "--unpaired", "all")
    alone = ("train", "cyclegan-compact", *data, "--out", str(out), *TINY, "--unpaired", "all")
    said = refused(capsys, *alone)
    assert "holds no label maps: add some" in said
    assert "supervised-compact" in said
    assert not out.exists()


def test_a_run_goes_past_broken_files_in_training_validation_and_evaluation(capsys, mine, tmp_path):
    data, run = ("--data", "folders", "--root", str(mine)), tmp_path / "run"
    for path in (mine / "val" / "photos" / "0.jpg", mine / "train" / "photos" / "1.jpg"):
        path.write_bytes(path.read_bytes()[:700])
    training = ("train", "supervised-compact", *data, "--pairs", "6", "--unpaired", "0", "--steps", "6", "--out", str(run), *TINY)
    assert main([*training, "--skip-broken"]) == 0
    assert "--split val" in capsys.readouterr().out
    assert "0.jpg cannot be read as a picture" in refused(capsys, "evaluate", str(run), "--split", "val")
    assert main(["evaluate", str(run), "--split", "val", "--skip-broken"]) == 0
    said = capsys.readouterr().out
    assert f"skipped: {mine / 'val' / 'photos' / '0.jpg'} cannot be read" in said
    assert "--skip-broken" not in said
    assert json.loads((run / "evaluation" / "val-best-averaged.json").read_text())["figures"]["skipped"] == 1


def test_a_val_split_without_a_pair_counts_as_none_and_it_is_said(capsys, mine, tmp_path):
    shutil.rmtree(mine / "val" / "labels")
    data, run = ("--data", "folders", "--root", str(mine)), tmp_path / "run"
    assert main(["train", "supervised-compact", *data, "--pairs", "2", "--unpaired", "0", "--steps", "2", "--out", str(run), *TINY]) == 0
    said = capsys.readouterr().out
    assert "`val` has no photo with a label map of its name, so the last weights count as the best" in said
    assert f"evaluate {run} --split train" in said
    assert (run / "best.ckpt").exists()


def test_python_m_trainer_is_the_same_command_line():
    answer = subprocess.run([sys.executable, "-m", "trainer", "--version"], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert answer.stdout.startswith("fewpair ")
