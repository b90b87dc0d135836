"""Seconds and peak memory of a training step of every method, and its share of the convolution peak."""

import argparse
import dataclasses
import importlib.util
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import Figure, report

if (
    importlib.util.find_spec("tensorboard") is None
):  # a step writes no log, so a machine without TensorBoard can be measured
    sys.modules["torch.utils.tensorboard"] = types.ModuleType("torch.utils.tensorboard")
    sys.modules["torch.utils.tensorboard"].SummaryWriter = object  # type: ignore[attr-defined]

from serving.imaging.domain import ClassRow
from trainer.batch import Batch, Classes, Domain, Pairs
from trainer.device import device_named, memory_peak
from trainer.methods import METHODS
from trainer.recipes import RECIPES
from trainer.run import Run
from trainer.training.checkpointing import build_method
from trainer.training.loop import train_step
from trainer.training.state import TrainState

CLASSES = Classes(tuple(ClassRow(index, f"class {index}", (index, index, index), False) for index in range(11)))
WARM_UP = 4


def main() -> int:
    """Measure, print, and return 1 where a method could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda (default) or cpu")
    parser.add_argument("--quick", action="store_true", help="tiny networks, a fraction of a second each")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each step is timed (default: %(default)s)")
    asked = parser.parse_args()
    device = device_named(asked.device)
    peak = convolution_peak(device, quick=asked.quick)
    figures, failed = [peak], False
    for run in runs(quick=asked.quick):
        for channels_last in (False, True) if device.type == "cuda" else (METHODS[run.method].channels_last,):
            seconds = 0.5 if asked.quick else asked.seconds
            try:
                figures += measure(run, device, channels_last=channels_last, peak=peak, seconds=seconds)
            except Exception as error:  # the others are worth measuring all the same
                failed, note = True, f"failed: {type(error).__name__}: {error}"
                figures.append(Figure("training step", None, "s", {"recipe": run.recipe}, note=note))
            if device.type == "cuda":
                torch.cuda.empty_cache()
    report(f"Training steps on {_name(device)}, torch {torch.__version__}, bf16 autocast, random batches", figures)
    return int(failed)


def runs(*, quick: bool) -> list[Run]:
    """The compact and the paper's recipe of each method; with `quick`, one tiny run of each."""
    chosen = []
    for name in METHODS:
        recipes = [run for run in RECIPES.values() if run.method == name]
        names = {f"{name.replace('_', '-')}-{size}" for size in ("compact", "paper")}
        wanted = [run for run in recipes if run.recipe in names] or recipes[:1]
        chosen += [_tiny(wanted[0])] if quick and wanted else wanted
        if not wanted:
            raise SystemExit(f"no recipe trains {name}: add one to RECIPES")
    return chosen


def measure(run: Run, device: torch.device, *, channels_last: bool, peak: Figure, seconds: float) -> list[Figure]:
    """Time, memory, floating-point operations and share of the peak of one run's step."""
    method = build_method(run, Domain("classes", CLASSES)).to(device)
    if channels_last:
        method = method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = TrainState.create(method)
    batch = random_batch(run).to(device, channels_last=channels_last)

    def step() -> None:
        train_step(state, batch, steps=run.steps, bf16=True)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with FlopCounterMode(display=False) as counter:
        step()
    took, count = timed(step, device, seconds=seconds)
    operations = counter.get_total_flops()
    of = {
        "recipe": run.recipe,
        "size": f"{run.size[0]}x{run.size[1]}",
        "batch": run.batch,
        "layout": "channels-last" if channels_last else "contiguous",
    }
    memory = "of the device's allocator" if device.type == "cuda" else "of the process, so far"
    share = None if not peak.value else operations / took / (peak.value * 1e12)
    return [
        Figure("training step", took, "s", of, note=None if count > 2 else f"the mean of only {count} steps"),
        Figure("peak memory", memory_peak(device), "MiB", of, note=memory),
        Figure("floating-point operations", operations / 1e9, "GFLOP", of),
        Figure("share of the convolution peak", share, "1", of),
    ]


def convolution_peak(device: torch.device, *, quick: bool) -> Figure:
    """TFLOP/s of a large 3x3 convolution in bf16: the ceiling that the steps are compared with."""
    batch, channels, side = (1, 64, 64) if quick else (16, 512, 128)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False, device=device, dtype=torch.bfloat16)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = torch.randn(batch, channels, side, side, device=device).to(torch.bfloat16, memory_format=torch.channels_last)
    with torch.no_grad():
        took, _ = timed(lambda: layer(data), device, seconds=0.3 if quick else 3.0)
    operations = 2 * batch * channels * channels * 9 * side * side
    return Figure(
        "convolution peak", operations / took / 1e12, "TFLOP/s", {"shape": f"{batch}x{channels}x{side}x{side} 3x3"}
    )


def timed(action: Callable[[], object], device: torch.device, *, seconds: float) -> tuple[float, int]:
    """The mean time of an action and how often it ran: first to warm up, then for about `seconds`."""
    for _ in range(WARM_UP):
        action()
    _wait(device)
    began = time.perf_counter()
    action()
    _wait(device)
    count = max(2, int(seconds / max(time.perf_counter() - began, 1e-6)))
    began = time.perf_counter()
    for _ in range(count):
        action()
    _wait(device)
    return (time.perf_counter() - began) / count, count


def random_batch(run: Run) -> Batch:
    """Both halves, random: the time of a step does not depend on what it sees."""
    height, width = run.size

    def half() -> Pairs:
        return Pairs(
            torch.rand(run.batch, 3, height, width) * 2 - 1, torch.randint(0, CLASSES.count, (run.batch, height, width))
        )

    return Batch(half(), half())


def _tiny(run: Run) -> Run:
    small: dict[str, Any] = {"width": 8, "blocks": 1}
    known = {field.name for field in dataclasses.fields(run.config)}
    config = dataclasses.replace(run.config, **{name: value for name, value in small.items() if name in known})
    return dataclasses.replace(run, recipe=f"{run.recipe} (tiny)", config=config, size=(64, 64))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


if __name__ == "__main__":
    sys.exit(main())
