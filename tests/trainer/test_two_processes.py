"""Two processes under torchrun train one run with equal weights, and resume it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.factories import differences, material_for, tiny_folder, tiny_run
from trainer.batch import Domain
from trainer.commands.session import resume
from trainer.data.synthetic import scenes
from trainer.distributed import average_gradients
from trainer.errors import UserError
from trainer.training.checkpointing import RunDir, build_method, create_run, open_run
from trainer.training.state import TrainState

OTHERS = (("bicycle_gan", 1000), ("cc_fpse", 1000), ("dance", 1000))
# Each run up to its third step; then each process writes down its own method, so that they can be compared. After that
# the first run is gone on with, in a copy of its folder, and made once more from its beginning.
SHARE = """
import shutil, sys, torch
from pathlib import Path
from trainer.commands import session
from trainer.training.checkpointing import open_run
from trainer.training.logger import Logger
from trainer.training.state import TrainState
kept = []
create = TrainState.create
TrainState.create = lambda *a, **k: kept.append(create(*a, **k)) or kept[-1]
class Cut(Exception): pass
ticked = Logger.tick
def stop(logger):
    ticked(logger)
    if logger.state.step == 3: raise Cut
Logger.tick = stop
for path in sys.argv[1:]:
    folder = open_run(Path(path))
    dataset = folder.dataset()
    try:
        session.train_run(folder, dataset, folder.selection(dataset), device="cpu")
    except Cut:
        method = kept[-1].method
        rank = torch.distributed.get_rank()
        torch.save([dict(method.named_parameters()), dict(method.named_buffers())], folder.path / f"method-{rank}.pt")
Logger.tick = ticked

broken = open_run(Path(sys.argv[1]))
resumed, unbroken = (broken.path.with_name(name) for name in ("resumed", "unbroken"))
if rank == 0:
    shutil.copytree(broken.path, resumed)
torch.distributed.barrier()
session.resume(open_run(resumed), device="cpu")
dataset = broken.dataset()
session.start(unbroken, broken.run, dataset, broken.selection(dataset), device="cpu")
"""


def test_gradients_and_moments_take_the_memory_layout_of_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    # A fused optimiser takes all of them as they lie in memory.
    monkeypatch.setattr("trainer.distributed.world", lambda: 2)
    monkeypatch.setattr("trainer.distributed.sum_over_processes", lambda values: 2 * values)
    layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layer(torch.randn(1, 3, 8, 8)).square().sum().backward()
    before = layer.weight.grad.clone()
    average_gradients(layer.parameters())
    assert torch.equal(layer.weight.grad, before)
    assert layer.weight.grad.stride() == layer.weight.stride() == before.stride()
    monkeypatch.undo()

    run = tiny_run("spade")
    saved, resumed = (TrainState.create(build_method(run, Domain("classes", scenes.CLASSES))) for _ in range(2))
    for optimiser in saved.optimisers.values():
        for parameter in optimiser.param_groups[0]["params"]:
            parameter.grad = torch.randn_like(parameter)
        optimiser.step()
    resumed.method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    resumed.load(saved.state_dict())
    for one, other in zip(saved.optimisers.values(), resumed.optimisers.values(), strict=True):
        for former, (parameter, moments) in zip(one.state.values(), other.state.items(), strict=True):
            assert torch.equal(moments["exp_avg"], former["exp_avg"])
            assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == parameter.stride()


def torchrun(script: str, *folders: RunDir) -> None:
    path = folders[0].path.with_name("share.py")
    path.write_text(script)
    runs = [str(folder.path) for folder in folders]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(path), *runs],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr


def methods_of(folder: RunDir) -> list[list[dict[str, torch.Tensor]]]:
    """The parameters and the buffers of each process, as CUT left them."""
    return [torch.load(folder.path / f"method-{rank}.pt", weights_only=True) for rank in (0, 1)]


def unlike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    """A run of each method that ended in its third step, with what each of two processes then held."""
    here = tmp_path_factory.mktemp("broken")
    tiny_folder(here / "data")
    folders = {}
    for name, evaluate_every in (("hybrid", 1000), ("semipaired", 2), ("pix2pixhd", 1000), *OTHERS):
        data = {"data": "walker", "unpaired": 0} if name == "dance" else {"data": "folders", "root": str(here / "data")}
        run = tiny_run(name, **data, steps=4, evaluate_every=evaluate_every)
        folders[name] = create_run(here / name, run, material_for(run)[1])
    torchrun(SHARE, *folders.values())
    return folders


@pytest.mark.slow
def test_two_processes_share_a_run_hold_equal_weights_and_resume_together(broken: dict[str, RunDir]) -> None:
    """Batch statistics differ on the CPU: torch's SyncBatchNorm, which equals them on CUDA, does not run there."""
    folder = broken["hybrid"]
    (first, _), (second, _) = methods_of(folder)
    assert unlike(first, second) == []
    own = folder.load("last")["own"]
    assert not torch.equal(
        own[0]["method"]["pools.paired_label.pictures"], own[1]["method"]["pools.paired_label.pictures"]
    )
    resumed, unbroken = (open_run(folder.path.with_name(name)) for name in ("resumed", "unbroken"))
    assert resumed.load("last")["step"] == folder.run.steps
    assert differences(unbroken.load("last"), resumed.load("last")) == []
    with pytest.raises(UserError, match="saved by 2 processes"):
        resume(folder, device="cpu")

    (first, _), (second, _) = methods_of(broken["pix2pixhd"])
    assert unlike(first, second) == []
    adam = broken["pix2pixhd"].load("last")["optimisers"]["discriminator"]["state"]
    names = [name.removeprefix("discriminator.") for name in first if name.startswith("discriminator.")]
    steps = {name.split(".")[1]: int(adam[place]["step"]) for place, name in enumerate(names)}
    assert steps["0"] + 1 == steps["1"] == steps["2"], (
        "the finest discriminator rests in the first stage, which has one step"
    )

    for name, _ in OTHERS:
        first, second = (weights for weights, _ in methods_of(broken[name]))
        assert unlike(first, second) == []

    (weights, buffers), (other_weights, other_buffers) = methods_of(broken["semipaired"])
    assert unlike(weights, other_weights) == []
    assert {name.rpartition(".")[2] for name in unlike(buffers, other_buffers)} == {"running_mean", "running_var"}
