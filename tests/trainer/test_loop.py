"""The loop: resume bit for bit, survive what happens to long runs, and log what was minimised."""

import json
import multiprocessing
import os
import random as chance
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.factories import (
    LABELS,
    PHOTOS,
    VARIANTS,
    material_for,
    tiny_batch,
    tiny_config,
    tiny_folder,
    tiny_method,
    tiny_run,
    tiny_size,
    variant_name,
)
from trainer import loop
from trainer.average import Average
from trainer.commands import train as commands
from trainer.data.loader import Loader
from trainer.errors import UserError
from trainer.loop import FiniteWatch, advance, prepare, resume, start, train
from trainer.machine import device_named
from trainer.methods.base import Method
from trainer.networks.resnet import ResNetGenerator
from trainer.recipes import RECIPES, Run, from_json, to_json
from trainer.rundir import RunDir, begin_with_given_weights, build_method, create_run, load_method, open_run
from trainer.trainee import Trainee
from trainer.validation import Validation


class Killed(Exception):
    """Stands for a power cut between two steps."""


def flat(state: Any, path: str = "") -> dict[str, Any]:
    """A checkpoint's leaves under their paths."""
    if isinstance(state, dict):
        return {key: value for name, inner in state.items() for key, value in flat(inner, f"{path}/{name}").items()}
    if isinstance(state, list | tuple):
        return {key: value for index, inner in enumerate(state) for key, value in flat(inner, f"{path}/{index}").items()}
    return {path: state}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The paths at which two checkpoints differ, the clock aside."""
    left, right = flat(one), flat(other)
    assert left.keys() == right.keys()
    return [
        path
        for path in left
        if path != "/elapsed"
        and not (torch.equal(left[path], right[path]) if isinstance(left[path], torch.Tensor) else left[path] == right[path])
    ]


def small_run(folder: Path, name: str, **changes: Any) -> Run:
    """A short run on a handful of small picture files."""
    return tiny_run(name, data="folders", root=str(tiny_folder(folder / "data")), **changes)


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=variant_name)
def test_a_resumed_run_continues_bit_for_bit(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    run = small_run(tmp_path, name, steps=8, config=tiny_config(name, **changes), save_every=3, evaluate_every=4)
    dataset, selection = material_for(run)
    unbroken = create_run(tmp_path / "unbroken", run, selection)
    train(unbroken, dataset, selection, device="cpu", progress=False, fused=False)

    def cut(step: int) -> None:
        if step == 7:
            raise Killed

    broken = create_run(tmp_path / "broken", run, selection)
    with pytest.raises(Killed):
        train(broken, dataset, selection, device="cpu", progress=False, fused=False, after_step=cut)
    assert broken.load("last")["step"] == 6
    train(broken, dataset, selection, device="cpu", progress=False, fused=False)

    for name in ("last", "best"):
        assert differences(unbroken.load(name), broken.load(name)) == []
    lines = [[json.loads(line) for line in folder.metrics.read_text().splitlines()] for folder in (unbroken, broken)]
    for one, other in zip(*lines, strict=True):
        timed = {"seconds", "peak_memory_mib", "evaluation_seconds"}
        assert {key: value for key, value in one.items() if key not in timed} == {
            key: value for key, value in other.items() if key not in timed
        }


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_in_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    run = small_run(tmp_path, "hybrid", steps=160, save_every=2, evaluate_every=20)
    _, selection = material_for(run)
    forks = multiprocessing.get_context("forkserver")
    # imported once, not in each of twelve processes; an optimiser's first step imports the second, which takes as long as all the rest
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
    for _ in range(10):
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

    assert killed.load("last")["step"] == 160
    for name in ("last", "best"):
        assert differences(unbroken.load(name), killed.load(name)) == []


def test_what_is_logged_is_what_was_minimised(tmp_path: Path) -> None:
    run = small_run(tmp_path, "hybrid", steps=2, precision="fp32")
    dataset, selection = material_for(run)
    folder = start(tmp_path / "run", run, dataset, selection, device="cpu", progress=False)
    logged = [json.loads(line) for line in folder.metrics.read_text().splitlines()]

    # the same two steps by hand: fp32, plain Adam, each update's sum minimised before the next is asked for
    method = build_method(run, dataset.photo_domain, dataset.label_domain)
    loader = Loader(dataset, selection.streams(dataset), size=run.size, batch=run.batch, seed=run.seed)
    players = method.players()
    weights = {name: [parameter for module in player.modules for parameter in module.parameters()] for name, player in players.items()}
    optimisers = {name: torch.optim.Adam(weights[name], lr=player.lr, betas=player.betas) for name, player in players.items()}
    for step in range(2):
        by_hand = {}
        for update in method.step(loader.batch(step), step):
            total = torch.stack(list(update.losses.values())).sum()
            for weight, gradient in zip(weights[update.player], torch.autograd.grad(total, weights[update.player]), strict=True):
                weight.grad = gradient
            optimisers[update.player].step()
            by_hand |= {f"{update.player}/{term}": loss.item() for term, loss in update.losses.items()}
        line = logged[step]
        assert line["step"] == step + 1
        assert {name: line[name] for name in by_hand} == pytest.approx(by_hand, rel=1e-4)


def test_a_finished_run_holds_everything_that_it_should(tmp_path: Path) -> None:
    run = small_run(tmp_path, "hybrid", steps=4, evaluate_every=2, keep=(3,))
    dataset, selection = material_for(run)
    folder = start(tmp_path / "run", run, dataset, selection, device="cpu", progress=False)
    held = {path.name for path in folder.path.iterdir()}
    assert held >= {
        "config.json",
        "pairs.json",
        "environment.json",
        "metrics.jsonl",
        "samples",
        "last.ckpt",
        "best.ckpt",
        "step-000003.ckpt",
        "tb",
    }
    assert {path.name for path in folder.samples.iterdir()} == {"step-000002.png", "step-000004.png"}
    evaluated = [line for line in map(json.loads, folder.metrics.read_text().splitlines()) if "val/mean_iou" in line]
    assert [line["step"] for line in evaluated] == [2, 4]
    assert all("val_raw/mean_iou" in line for line in evaluated)
    best = max(evaluated, key=lambda line: line["val/mean_iou"])
    assert folder.load("best")["step"] == best["step"]
    method, loaded, step = load_method(folder.path, checkpoint="last")
    assert (loaded, step, method.training) == (run, 4, False)
    averaged = folder.load("last")["averaged"]["generators"]
    assert all(torch.equal(dict(method.named_parameters())[name], value) for name, value in averaged.items())


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_term_and_checkpoint(tmp_path: Path) -> None:
    run = small_run(tmp_path, "supervised", steps=40, config=tiny_config("supervised", lr=1e38), save_every=1)
    dataset, selection = material_for(run)
    with pytest.raises(UserError, match=r"the (loss|weight) \S.* is not finite at step \d+") as caught:
        start(tmp_path / "run", run, dataset, selection, device="cpu", progress=False)
    said = str(caught.value)
    assert "last.ckpt" in said
    assert "--resume" in said
    held = open_run(tmp_path / "run").load("last")
    assert held["step"] < int(said.split("at step ")[1].split(";")[0])
    assert all(torch.isfinite(value).all() for value in held["method"].values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    run = small_run(tmp_path, "supervised", steps=8, save_every=2)
    dataset, selection = material_for(run)
    folder = create_run(tmp_path / "run", run, selection)
    held: list[Trainee] = []
    prepared = loop.prepare

    def keep(*given: Any, **named: Any) -> Trainee:
        held.append(prepared(*given, **named))
        return held[-1]

    def ruin(step: int) -> None:
        if step == 4:  # the losses of this step were finite, but its update is not
            next(held[0].method.parameters()).data[0] = float("nan")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "prepare", keep)
        with pytest.raises(UserError, match=r"the weight label_generator\S+ is not finite at step 4; the last good checkpoint"):
            train(folder, dataset, selection, device="cpu", progress=False, after_step=ruin)
    assert folder.load("last")["step"] == 2


def test_a_full_disk_ends_in_a_sentence_and_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    run = small_run(tmp_path, "supervised", steps=6)
    dataset, selection = material_for(run)
    folder = create_run(tmp_path / "run", run, selection)

    def fill(step: int) -> None:
        if step == 3:
            (folder.path / "last.part").symlink_to("/dev/full")  # every write to it fails as on a full disk

    with pytest.raises(UserError, match=r"checkpoint at step 4 could not be written.*Free some disk space.*--resume"):
        train(folder, dataset, selection, device="cpu", progress=False, after_step=fill)
    assert folder.load("last")["step"] == 2
    train(folder, dataset, selection, device="cpu", progress=False)
    assert folder.load("last")["step"] == 6


@pytest.mark.parametrize("full", ["metrics.jsonl", "samples/step-000004.png"])
def test_a_full_disk_is_told_in_a_sentence_wherever_it_is_met(full: str, tmp_path: Path) -> None:
    run = small_run(tmp_path, "supervised", steps=6, evaluate_every=4)
    dataset, selection = material_for(run)
    folder = create_run(tmp_path / "run", run, selection)

    def fill(step: int) -> None:
        if step == 3:
            (folder.path / full).unlink(missing_ok=True)
            (folder.path / full).symlink_to("/dev/full")

    with pytest.raises(UserError, match=r"no space is left .*last.ckpt.*Free some disk space.*--resume"):
        train(folder, dataset, selection, device="cpu", progress=False, after_step=fill)
    assert folder.load("last")["step"] == 2


def test_ctrl_c_in_the_last_evaluation_is_heard(tmp_path: Path) -> None:
    run = small_run(tmp_path, "supervised", steps=3, evaluate_every=100)
    dataset, selection = material_for(run)
    folder = create_run(tmp_path / "run", run, selection)
    evaluated = Validation.evaluate

    def press(*given: Any, **named: Any) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return evaluated(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validation, "evaluate", press)
        with pytest.raises(KeyboardInterrupt):
            train(folder, dataset, selection, device="cpu", progress=False)
    assert folder.load("last")["step"] == 3


def test_ctrl_c_saves_and_leaves_after_the_step_it_is_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path, "supervised", steps=50, save_every=40)
    dataset, selection = material_for(run)
    folder = create_run(tmp_path / "run", run, selection)

    def press(step: int) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(folder, dataset, selection, device="cpu", progress=False, after_step=press)
    assert folder.load("last")["step"] == 7
    assert "--resume" in capsys.readouterr().out


def test_a_run_is_not_started_over_another_one(tmp_path: Path) -> None:
    run = small_run(tmp_path, "supervised", steps=1)
    _, selection = material_for(run)
    create_run(tmp_path / "run", run, selection)
    with pytest.raises(UserError, match="holds a run already"):
        create_run(tmp_path / "run", run, selection)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("dear to me")
    with pytest.raises(UserError, match="not a run"):
        create_run(tmp_path / "photos", run, selection)


def test_a_folder_left_by_a_process_that_was_killed_as_it_began_is_taken_again(tmp_path: Path) -> None:
    run = small_run(tmp_path, "supervised", steps=1)
    _, selection = material_for(run)
    folder = create_run(tmp_path / "run", run, selection)
    (folder.path / "config.json").rename(folder.path / "config.json.part")
    assert create_run(tmp_path / "run", run, selection).run == open_run(tmp_path / "run").run


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        open_run(tmp_path)


def test_a_damaged_checkpoint_is_refused_with_its_path(tmp_path: Path) -> None:
    run = small_run(tmp_path, "supervised", steps=1)
    dataset, selection = material_for(run)
    folder = start(tmp_path / "run", run, dataset, selection, device="cpu", progress=False)
    damaged = folder.checkpoint("last")
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(UserError, match=str(damaged)):
        folder.load("last")


def test_a_checkpoint_holds_no_code() -> None:
    class Sly:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("executed",))

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run = tiny_run("supervised")
        held = RunDir(Path(folder), run)
        torch.save({"format": 1, "step": 0, "payload": Sly()}, held.checkpoint("last"))
        with pytest.raises(UserError, match="not a readable checkpoint"):
            held.load("last")


def test_a_run_is_read_back_from_its_json_and_unknown_fields_are_named() -> None:
    for run in RECIPES.values():
        assert from_json(json.loads(json.dumps(to_json(run)))) == run
    values = json.loads(json.dumps(to_json(RECIPES["hybrid-compact"])))
    values["config"]["widht"] = 3
    with pytest.raises(UserError, match="widht"):
        from_json(values)


def test_every_recipe_can_be_built_and_says_what_it_is_expected_to_reach() -> None:
    for name, run in RECIPES.items():
        assert isinstance(run, Run)
        assert run.recipe == name
        assert run.expected
        method = build_method(run, PHOTOS, LABELS)
        assert set(method.directions) <= {"to_label", "to_photo"}


def test_the_average_follows_the_weights_and_forgets_the_first_ones_in_short_runs() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    average = Average({"weight": weight}, decay=0.999)
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
    with average.in_place():
        assert torch.allclose(weight.detach(), slow, rtol=1e-5)
    assert torch.equal(weight.detach(), live)


def test_cuda_where_there_is_none_is_refused_with_the_reason() -> None:
    if torch.cuda.is_available():
        assert device_named("cuda").type == "cuda"
        return
    with pytest.raises(UserError, match="no CUDA device is found"):
        device_named("cuda")


def test_a_run_starts_from_published_generators_and_refuses_what_is_none(tmp_path: Path) -> None:
    given = ResNetGenerator(3, 3, width=4, blocks=1, tanh=True)
    path = tmp_path / "latest_net_G_A.pth"
    torch.save(given.state_dict(), path)
    run = tiny_run("hybrid", label_weights=str(path))
    method = tiny_method("hybrid", seed=3)
    begin_with_given_weights(method, run)
    assert all(torch.equal(method.label_generator.state_dict()[name], value) for name, value in given.state_dict().items())
    with pytest.raises(UserError, match=r"latest_net_G_A\.pth.*set blocks"):
        begin_with_given_weights(tiny_method("hybrid", blocks=2), run)
    with pytest.raises(UserError, match="supervised has no ResNet generator that makes a photo"):
        begin_with_given_weights(tiny_method("supervised"), tiny_run("supervised", photo_weights=str(path)))
    torch.save([1, 2], path)
    with pytest.raises(UserError, match=r"holds a list, but a latest_net_G\.pth as CycleGAN and pix2pix save it is expected"):
        begin_with_given_weights(method, run)
    path.write_text("not weights")
    with pytest.raises(UserError, match="cannot be read"):
        begin_with_given_weights(method, run)


def without_dropout(method: Method) -> Method:
    """Its draws come from the device's own generator, so no two devices agree on them."""
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return method


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=variant_name)
def test_a_step_on_cuda_agrees_with_the_cpu(name: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # its convolutions would round to ten bits, as much as is allowed below
    device = torch.device("cuda")
    losses = [
        advance(
            prepare(without_dropout(tiny_method(name, **changes)).to(place), fused=False),
            tiny_batch(size=tiny_size(name)).to(place),
            tiny_run(name),
            bf16=False,
            watch=FiniteWatch(place),
        )
        for place in (torch.device("cpu"), device)
    ]
    for term, value in losses[0].items():
        assert losses[1][term].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-4), term


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=variant_name)
def test_a_run_on_cuda_in_bf16_goes_on_after_a_break(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    run = small_run(tmp_path, name, steps=4, config=tiny_config(name, **changes), precision="bf16")
    dataset, selection = material_for(run)
    folder = create_run(tmp_path / "run", run, selection)

    def cut(step: int) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(folder, dataset, selection, device="cuda", progress=False, after_step=cut)
    resume(folder, device="cuda", progress=False)
    assert folder.load("last")["step"] == 4


def test_an_unbalanced_run_trains_on_one_half_alone_in_most_steps(tmp_path: Path) -> None:
    run = small_run(tmp_path, "hybrid", steps=4, pairs=2, unpaired=4, balanced=False)
    dataset, selection = material_for(run)
    folder = start(tmp_path / "run", run, dataset, selection, device="cpu", progress=False)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    losses = [line for line in lines if "generators/cycle_photo" in line]
    assert ["generators/pairs_label" in line for line in losses] == [False, True, False, True]


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan", "supervised"])
def test_a_method_that_reads_one_half_refuses_to_be_unbalanced(name: str, tmp_path: Path) -> None:
    run = tiny_run(name, balanced=False)
    dataset, selection = material_for(run)
    with pytest.raises(UserError, match=f"balanced=False.*a step of {name}"):
        start(tmp_path / "run", run, dataset, selection, device="cpu", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_config_json_from_before_a_field_existed_takes_its_default() -> None:
    values = to_json(RECIPES["hybrid-compact"])
    del values["balanced"], values["expected"], values["config"]["ema"]
    assert from_json(values).balanced is True
    assert from_json(values).config.ema == 0.999
