"""The loop: resume bit for bit, survive what happens to long runs, and log what was minimised."""

import dataclasses
import json
import multiprocessing
import os
import random as chance
import signal
import subprocess
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.factories import (
    ENCODER,
    LABELS,
    VARIANTS,
    after_each_step,
    differences,
    encoder_file,
    killed_after,
    material_for,
    small_run,
    tiny_batch,
    tiny_config,
    tiny_folder,
    tiny_method,
    tiny_run,
    tiny_size,
    trained,
    variant_name,
)
from trainer.batch import random
from trainer.commands import train as commands
from trainer.commands.session import resume, start, train_run
from trainer.data.dataset import Dataset
from trainer.data.loader import Loader
from trainer.data.selection.selection import Selection
from trainer.device import device_named, resolve_precision
from trainer.errors import UserError
from trainer.methods import METHODS, base
from trainer.methods.base import Method, Update
from trainer.metrics import evaluate
from trainer.networks import encoders, init
from trainer.networks.ema import EMA, in_place_of
from trainer.recipes import RECIPES
from trainer.run import Run, from_json
from trainer.training import environment, validation
from trainer.training.checkpointing import RunDir, build_method, create_run, load_method, open_run
from trainer.training.loop import train_step
from trainer.training.state import TrainState
from trainer.training.validation import Validation


def new_run(folder: Path, name: str, **changes: Any) -> tuple[RunDir, Dataset, Selection]:
    run = small_run(folder, name, **changes)
    dataset, selection = material_for(run)
    return create_run(folder / "run", run, selection), dataset, selection


ACROSS_SIZES = pytest.param("mean_teacher", ((0.5, 32, 32),), id="across a change of size")


@pytest.mark.parametrize(("name", "progressive"), [*((name, ()) for name in METHODS), ACROSS_SIZES])
def test_a_resumed_run_continues_bit_for_bit(name: str, progressive: Any, tmp_path: Path) -> None:
    run = small_run(tmp_path, name, steps=6 if progressive else 4, save_every=2, progressive=progressive)
    run = dataclasses.replace(run, evaluate_every=run.steps)
    dataset, selection = material_for(run)
    unbroken = create_run(tmp_path / "unbroken", run, selection)
    train_run(unbroken, dataset, selection, device="cpu")
    broken = create_run(tmp_path / "broken", run, selection)
    with killed_after(3):
        train_run(broken, dataset, selection, device="cpu")
    assert broken.load("last")["step"] == 2
    train_run(broken, dataset, selection, device="cpu")

    for name in ("last", "best"):
        assert differences(unbroken.load(name), broken.load(name)) == []
    lines = [[json.loads(line) for line in folder.metrics.read_text().splitlines()] for folder in (unbroken, broken)]
    for one, other in zip(*lines, strict=True):
        timed = {"seconds", "peak_memory_mib", "evaluation_seconds"}
        assert {key: value for key, value in one.items() if key not in timed} == {
            key: value for key, value in other.items() if key not in timed
        }


@pytest.mark.slow
def test_a_run_killed_at_two_random_moments_ends_in_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    run = small_run(tmp_path, "hybrid", steps=40, save_every=2, evaluate_every=20)
    _, selection = material_for(run)
    forks = multiprocessing.get_context("forkserver")
    # imported once, not in each of six processes; an optimiser's first step imports the second, which takes as long as
    # all the rest
    forks.set_forkserver_preload(["trainer.commands.train", "torch._dynamo"])

    def process(folder: RunDir) -> "ForkServerProcess":
        words = ["--resume", str(folder.path), "--device", "cpu", "--threads", "1"]
        child = forks.Process(target=commands.train, args=(words,))
        child.start()
        return child

    def ended(child: "ForkServerProcess") -> bool:
        child.join(timeout=300)
        return child.exitcode == 0

    def logged(folder: RunDir) -> int:
        return len(folder.metrics.read_text().splitlines()) if folder.metrics.exists() else 0

    unbroken = create_run(tmp_path / "unbroken", run, selection)
    assert ended(process(unbroken))

    killed = create_run(tmp_path / "killed", run, selection)
    draw = chance.Random(7)
    for _ in range(2):
        child = process(killed)
        until = logged(killed) + draw.randint(3, 12)
        deadline = time.monotonic() + 120
        while logged(killed) < until and child.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(draw.random() * 0.05)
        assert child.is_alive(), "the process must still have been at work"
        child.kill()
        child.join(timeout=30)
        assert child.exitcode == -signal.SIGKILL
        if killed.checkpoint("last").exists():
            assert killed.load("last")["step"] % 2 == 0
    assert ended(process(killed))

    assert killed.load("last")["step"] == 40
    for name in ("last", "best"):
        assert differences(unbroken.load(name), killed.load(name)) == []


def test_what_is_logged_is_what_was_minimised(tmp_path: Path) -> None:
    run = small_run(tmp_path, "hybrid", steps=2, precision="fp32")
    dataset, selection = material_for(run)
    folder = start(tmp_path / "run", run, dataset, selection, device="cpu")
    logged = [json.loads(line) for line in folder.metrics.read_text().splitlines()]

    # the same two steps by hand: fp32, plain Adam, each update's sum minimised before the next is asked for
    method = build_method(run, dataset.label_domain)
    loader = Loader(dataset, selection, size=run.size, batch=run.batch, seed=run.seed)
    groups = method.parameter_groups()
    weights = {
        name: [parameter for module in group.modules for parameter in module.parameters()]
        for name, group in groups.items()
    }
    optimisers = {
        name: torch.optim.Adam(weights[name], lr=group.lr, betas=group.betas) for name, group in groups.items()
    }
    for step in range(2):
        by_hand = {}
        for update in method.step(loader.batch(step), step):
            total = torch.stack(list(update.losses.values())).sum()
            for weight, gradient in zip(
                weights[update.groups], torch.autograd.grad(total, weights[update.groups]), strict=True
            ):
                weight.grad = gradient
            optimisers[update.groups].step()
            by_hand |= {f"{update.groups}/{term}": loss.item() for term, loss in update.losses.items()}
        line = logged[step]
        assert line["step"] == step + 1
        assert {name: line[name] for name in by_hand} == pytest.approx(by_hand, rel=1e-4)


def test_the_best_checkpoint_of_a_run_that_makes_photos_alone_is_the_last(tmp_path: Path) -> None:
    config = tiny_config("pix2pix", direction="to_photo")
    folder = trained(tmp_path, "pix2pix", steps=4, evaluate_every=1, config=config)
    assert folder.load("best")["step"] == 4


def test_a_finished_run_holds_everything_that_it_should(tmp_path: Path) -> None:
    folder = trained(tmp_path, "hybrid", steps=4, evaluate_every=2, keep=(3,))
    held = {path.name for path in folder.path.iterdir()}
    assert held >= {"config.json", "pairs.json", "classes.csv", "environment.json", "metrics.jsonl", "samples", "tb"}
    assert held >= {"last.ckpt", "best.ckpt", "step-000003.ckpt"}
    assert {path.name for path in folder.samples.iterdir()} == {"step-000002.png", "step-000004.png"}
    evaluated = [line for line in map(json.loads, folder.metrics.read_text().splitlines()) if "val/mean_iou" in line]
    assert [line["step"] for line in evaluated] == [2, 4]
    assert all("val_raw/mean_iou" in line for line in evaluated)
    best = max(evaluated, key=lambda line: line["val/mean_iou"])
    assert folder.load("best")["step"] == best["step"]
    method, loaded, step = load_method(folder.path, checkpoint="last")
    assert (loaded, step, method.training) == (folder.run, 4, False)
    averaged = folder.load("last")["averaged"]["generators"]
    assert all(torch.equal(dict(method.named_parameters())[name], value) for name, value in averaged.items())


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_term_and_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the (loss|weight) \S.* is not finite at step \d+") as caught:
        trained(tmp_path, "supervised", steps=40, config=tiny_config("supervised", lr=1e38), save_every=1)
    said = str(caught.value)
    assert "last.ckpt" in said
    assert "--resume" in said
    held = open_run(tmp_path / "run").load("last")
    assert held["step"] < int(said.split("at step ")[1].split(";")[0])
    assert all(torch.isfinite(value).all() for value in held["method"].values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    folder, dataset, selection = new_run(tmp_path, "supervised", steps=8, save_every=2)
    held: list[TrainState] = []
    prepared = TrainState.create

    def keep(*given: Any, **named: Any) -> TrainState:
        held.append(prepared(*given, **named))
        return held[-1]

    def ruin(step: int) -> None:
        if step == 4:  # the losses of this step were finite, but its update is not
            next(held[0].method.parameters()).data[0] = float("nan")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainState, "create", keep)
        with (
            pytest.raises(
                UserError, match=r"the weight segmenter\S+ is not finite at step 4; the last good checkpoint"
            ),
            after_each_step(ruin),
        ):
            train_run(folder, dataset, selection, device="cpu")
    assert folder.load("last")["step"] == 2


@pytest.mark.parametrize("full", ["last.ckpt.part", "metrics.jsonl", "samples/step-000004.png"])
def test_a_full_disk_ends_in_a_sentence_and_leaves_the_last_checkpoint_whole(full: str, tmp_path: Path) -> None:
    folder, dataset, selection = new_run(tmp_path, "supervised", steps=6, evaluate_every=4)

    def fill(step: int) -> None:
        if step == 3:
            (folder.path / full).unlink(missing_ok=True)
            (folder.path / full).symlink_to("/dev/full")  # every write to it fails as on a full disk

    no_space = pytest.raises(UserError, match=r"no space is left .*last.ckpt.*Free some disk space.*--resume")
    with no_space, after_each_step(fill):
        train_run(folder, dataset, selection, device="cpu")
    assert folder.load("last")["step"] == 2


def test_ctrl_c_in_the_last_evaluation_stops_the_run(tmp_path: Path) -> None:
    folder, dataset, selection = new_run(tmp_path, "supervised", steps=3, evaluate_every=100)
    evaluated = Validation.evaluate

    def press(*given: Any, **named: Any) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return evaluated(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validation, "evaluate", press)
        with pytest.raises(KeyboardInterrupt):
            train_run(folder, dataset, selection, device="cpu")
    assert folder.load("last")["step"] == 3


def test_ctrl_c_saves_and_leaves_after_the_step_it_is_in(tmp_path: Path) -> None:
    folder, dataset, selection = new_run(tmp_path, "supervised", steps=5, save_every=4)

    def press(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    said = f"stopped at step 2 of {folder.run.steps}; continue with: fewpair train --resume {folder.path}"
    with pytest.raises(KeyboardInterrupt, match=said), after_each_step(press):
        train_run(folder, dataset, selection, device="cpu")
    assert folder.load("last")["step"] == 2
    with pytest.raises(UserError, match="has no checkpoint best; it has last: add --checkpoint last"):
        folder.load("best")


def test_a_folder_left_by_a_process_that_was_killed_as_it_began_is_taken_again_and_no_other_one(tmp_path: Path) -> None:
    run = small_run(tmp_path, "supervised", steps=1)
    _, selection = material_for(run)
    folder = create_run(tmp_path / "run", run, selection)
    (folder.path / "config.json").rename(folder.path / "config.json.part")
    assert create_run(tmp_path / "run", run, selection).run == open_run(tmp_path / "run").run
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("dear to me")
    with pytest.raises(UserError, match="not a run"):
        create_run(tmp_path / "photos", run, selection)


def test_a_damaged_checkpoint_is_refused_with_its_path(tmp_path: Path) -> None:
    folder = trained(tmp_path, "supervised", steps=1)
    damaged = folder.checkpoint("last")
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(UserError, match=str(damaged)):
        folder.load("last")


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    class Sly:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("executed",))

    held = RunDir(tmp_path, tiny_run("supervised"))
    torch.save({"format": 1, "step": 0, "payload": Sly()}, held.checkpoint("last"))
    with pytest.raises(UserError, match="not a readable checkpoint"):
        held.load("last")


def test_a_run_is_read_back_from_its_json_and_unknown_fields_are_named() -> None:
    for run in RECIPES.values():
        assert from_json(json.loads(json.dumps(dataclasses.asdict(run)))) == run
    values = json.loads(json.dumps(dataclasses.asdict(RECIPES["hybrid-compact"])))
    values["config"]["widht"] = 3
    with pytest.raises(UserError, match="widht"):
        from_json(values)


def test_every_recipe_can_be_built_and_says_what_it_is_expected_to_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    # the power iterations of spectral norm take a minute, even without data
    monkeypatch.setattr(init.parametrizations, "spectral_norm", lambda convolution: convolution)
    monkeypatch.setattr(init, "update_spectral_norm", lambda *_, **__: None)
    for name, run in RECIPES.items():
        assert isinstance(run, Run)
        assert run.recipe == name
        assert run.expected
        with torch.device("meta"):
            method = build_method(run, LABELS)
        assert set(method.directions) <= {"to_label", "to_photo"}


def test_the_average_follows_the_weights_and_forgets_the_first_ones_in_short_runs() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    average = EMA({"weight": weight}, decay=0.999)
    slow = torch.zeros(3)
    for t in range(20):
        with torch.no_grad():
            weight += 1
        decay = min(0.999, (1 + t) / (10 + t))
        slow = decay * slow + (1 - decay) * weight.detach()
        average.update(t)
    assert torch.allclose(average.state_dict()["weight"], slow, rtol=1e-5)
    assert slow[0] > 10
    live = weight.detach().clone()
    with in_place_of({"weight": weight}, average.state_dict()):
        assert torch.allclose(weight.detach(), slow, rtol=1e-5)
    assert torch.equal(weight.detach(), live)


@pytest.mark.parametrize("name", ["mps", "meta", "gpu", "cuda:first"])
def test_a_device_that_runs_are_not_made_for_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--device {name} is not a device; say auto, cpu, cuda or cuda:N"):
        device_named(name)


def test_a_run_is_recorded_where_git_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.environment()["commit"] == "unknown"


def test_the_commit_of_a_repository_that_fewpair_is_installed_in_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for words in ("init", "-c user.name=x -c user.email=x commit --allow-empty -m x"):
        subprocess.run(["git", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    package = tmp_path / "site-packages" / "trainer" / "training"
    package.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    assert environment.environment()["commit"] == "unknown"


def test_cuda_where_there_is_none_is_refused_with_the_reason() -> None:
    if torch.cuda.is_available():
        assert device_named("cuda").type == "cuda"
        return
    with pytest.raises(UserError, match="finds no such CUDA device"):
        device_named("cuda")


def without_dropout(method: Method) -> Method:
    """Its draws come from the device's own generator, so no two devices agree on them."""
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return method


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=variant_name)
def test_a_step_on_cuda_agrees_with_the_cpu(
    name: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.backends.cudnn, "allow_tf32", False
    )  # its convolutions would round to ten bits, as much as is allowed below
    device = torch.device("cuda")
    losses = [
        train_step(
            TrainState.create(without_dropout(tiny_method(name, **changes)).to(place)),
            tiny_batch(size=tiny_size(name)).to(place),
            steps=6,
        )
        for place in (torch.device("cpu"), device)
    ]
    for term, value in losses[0].items():
        assert losses[1][term].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-4), term


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=variant_name)
def test_a_run_on_cuda_in_bf16_goes_on_after_a_break(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    folder, dataset, selection = new_run(tmp_path, name, steps=4, config=tiny_config(name, **changes), precision="bf16")
    with killed_after(3):
        train_run(folder, dataset, selection, device="cuda")
    resume(folder, device="cuda")
    assert folder.load("last")["step"] == 4


def test_an_unbalanced_run_trains_on_one_half_alone_in_most_steps(tmp_path: Path) -> None:
    folder = trained(tmp_path, "hybrid", steps=4, pairs=2, unpaired=4, balanced=False)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    losses = [line for line in lines if "generators/cycle_photo" in line]
    assert ["generators/pairs_label" in line for line in losses] == [False, True, False, True]


def test_a_config_json_from_before_a_field_existed_or_was_renamed_is_read() -> None:
    values = dataclasses.asdict(RECIPES["hybrid-compact"])
    del values["balanced"], values["expected"], values["config"]["ema"]
    values["config"]["game"] = values["config"].pop("gan_loss")
    assert from_json(values).balanced is True
    assert from_json(values).config.ema == 0.999


def test_a_config_json_may_hold_an_option_of_an_earlier_version_that_was_not_used() -> None:
    values = dataclasses.asdict(RECIPES["hybrid-compact"])
    assert from_json(values | {"label_weights": None}) == RECIPES["hybrid-compact"]
    with pytest.raises(UserError, match="label_weights"):
        from_json(values | {"label_weights": "latest_net_G.pth"})


def test_validation_evaluates_a_limited_number_of_samples_and_the_run_records_its_precision(tmp_path, monkeypatch):
    run = small_run(tmp_path, "supervised", steps=1)
    evaluated: list[int] = []
    predict = evaluate.predict_labels
    monkeypatch.setattr(
        evaluate,
        "predict_labels",
        lambda method, photos, **how: evaluated.append(len(photos)) or predict(method, photos, **how),
    )
    monkeypatch.setattr(validation, "LIMIT", 1)
    folder = start(tmp_path / "run", run, *material_for(run), device="cpu")
    assert folder.run.precision == resolve_precision("auto", torch.device("cpu")) != run.precision == "auto"
    assert evaluated == [1, 1], "the raw and the averaged weights, on one of two samples each"


def test_batch_statistics_are_estimated_for_evaluations_not_at_every_save(tmp_path, monkeypatch):
    estimated: list[int] = []
    monkeypatch.setattr(TrainState, "estimate_statistics", lambda state, _: estimated.append(state.step))
    trained(tmp_path, "supervised", steps=4, save_every=1, evaluate_every=2)
    assert estimated == [2, 4]


def test_a_run_that_is_being_trained_is_refused_with_the_process_id(tmp_path: Path) -> None:
    run = small_run(tmp_path, "supervised", steps=2)
    _, selection = material_for(run)
    folder = create_run(tmp_path / "run", run, selection)
    with folder.lock(), pytest.raises(UserError, match=rf"is being trained by process {os.getpid()}: wait for it"):
        resume(folder, device="cpu")
    assert not folder.checkpoint("last").exists()
    resume(folder, device="cpu")
    assert folder.load("last")["step"] == 2


def test_a_resumed_run_uses_the_threads_that_it_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path, "supervised", steps=1)
    _, selection = material_for(run)
    threads = torch.get_num_threads()
    asked: list[int | None] = []
    monkeypatch.setattr(commands, "use_threads", asked.append)
    folder = create_run(tmp_path / "run", run, selection)
    assert folder.environment()["threads"] == threads
    commands.train(["--resume", str(folder.path), "--device", "cpu"])
    commands.train(["--resume", str(folder.path), "--device", "cpu", "--threads", "1"])
    assert asked == [threads, 1]


def test_pretrained_weights_are_read_once_at_the_start_and_their_path_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = encoders.pretrained_weights
    monkeypatch.setattr(encoders, "pretrained_weights", lambda *given: read.append(given[0]) or load(*given))
    monkeypatch.chdir(Path(encoder_file()).parent)
    words = ["mean-teacher-compact", "--data", "folders", "--root", str(tiny_folder(tmp_path / "data"))]
    words += ["--config.encoder", ENCODER["encoder"], "--config.encoder-weights", Path(encoder_file()).name]
    words += ["--config.warm-up", "0", "--config.width", "4", "--pairs", "2", "--size", "64x64", "--steps", "1"]
    commands.train([*words, "--device", "cpu", "--out", str(tmp_path / "run")])
    assert read == [ENCODER["encoder"]]
    run = open_run(tmp_path / "run").run
    assert run.config.encoder_weights == encoder_file()
    assert run.progressive == ((0.375, 64, 64), (0.75, 64, 64)), "not smaller than 64 a side"


def test_an_update_of_several_groups_moves_them_all_by_one_backward_pass() -> None:
    method = tiny_method("hybrid")
    update = next(update for update in method.step(tiny_batch(), 0) if update.groups == "generators")

    def step(batch: Any, i: int) -> Any:
        loss = sum(parameter.square().sum() for parameter in method.parameters())
        yield Update(("discriminators", "generators"), {"size": loss})

    state = TrainState.create(method)
    before = {name: value.clone() for name, value in method.named_parameters()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method, "step", step)
        losses = train_step(state, tiny_batch(), steps=6)
    assert update.losses
    assert list(losses) == ["discriminators+generators/size"]
    assert all(not torch.equal(value, before[name]) for name, value in method.named_parameters() if before[name].any())


@pytest.mark.parametrize("name", ["mean_teacher", "painter"])
def test_checkpoints_keep_the_names_of_their_tensors(name: str) -> None:
    """Runs of hours and published checkpoints hold these names."""
    names = set(tiny_method(name).state_dict())
    expected = {
        "mean_teacher": {
            "segmenter.encoder.network.conv_stem.weight",
            "segmenter.decoder.lateral.0.weight",
            "segmenter.decoder.smooth.0.0.weight",
            "segmenter.decoder.head.1.bias",
            "teacher.network.decoder.head.1.bias",
            "pixels",
        },
        "painter": {
            "generator.start.weight",
            "generator.blocks.0.conv_1.parametrizations.weight.original",
            "generator.blocks.0.conv_1.parametrizations.weight.0._u",
            "generator.to_photo.1.bias",
            "conditional.critics.1.layers.0.0.weight",
            "projected.across_channels.0.weight",
            "projected.heads.0.0.parametrizations.weight.0._v",
        },
    }[name]
    assert expected <= names


def test_processes_draw_their_own_augmentations_and_pool_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny_method("mean_teacher")
    alone = [draw.random() for draw in method.draws(3, "rescale pairs", 2)]
    assert alone == [random(method.seed, 3, "rescale pairs", index).random() for index in (0, 1)]
    monkeypatch.setattr(base, "rank", lambda: 1)
    assert [draw.random() for draw in method.draws(3, "rescale pairs", 2)] == [
        random(method.seed, 3, "rescale pairs", index).random() for index in (2, 3)
    ]

    def drawn(rank: int) -> list[float]:
        monkeypatch.setattr(base, "rank", lambda: rank)
        pool = base.PicturePool(2, seed=0, stream="pool")
        return [float(pool(torch.full((1, 1, 1, 1), float(step)), step)) for step in range(20)]

    assert drawn(0) != drawn(1)
