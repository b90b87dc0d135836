"""How `fewpair demo` trains: as many steps as fit into a few minutes at the pace measured first, continued where it was stopped."""

import dataclasses
import json
import shutil
import statistics
import time
from pathlib import Path

import torch

from trainer.data.catalogue import Dataset, open_dataset
from trainer.data.loader import Loader
from trainer.data.pairs import Selection, select
from trainer.errors import UserError
from trainer.loop import FiniteWatch, advance, prepare, resume, start
from trainer.machine import device_named, moves_in_bf16
from trainer.progress import Progress, spoken
from trainer.recipes import RECIPES, Run
from trainer.rundir import RunDir, build_method, open_run

TRAINING_SECONDS = 150.0
"""What training should take, evaluations aside; a slower machine takes fewer steps."""
FEWEST_STEPS = 100
"""Below this the model learns too little to be worth serving."""
LONGER = 1.25
"""Training that took so many times as long as was aimed at is told of with the reason."""
AGAIN = "the same command (make demo, or fewpair demo)"
"""What goes on with a demo that was stopped."""


def trained(folder: Path, *, recipe: str, steps: int | None) -> RunDir:
    """The trained run in `folder`: continued where an earlier demo was stopped, else new, of `steps` steps or of as many as fit."""
    run = RECIPES[recipe] if steps is None else dataclasses.replace(RECIPES[recipe], steps=steps)
    print(f"1. Draw scenes, and choose {run.pairs} whose label map may be seen", flush=True)
    dataset = open_dataset(run.data, None)
    if folder.exists():
        earlier = _to_continue(folder, run, dataset, any_length=steps is None)
        if earlier is not None:
            print(f"\n2. Train: continue {folder}", flush=True)
            return resume(earlier, again=AGAIN)
        _remove_earlier(folder, recipe)
    selection = select(dataset, k=run.pairs, unpaired=run.unpaired, seed=run.seed)
    _draw(dataset, selection)
    pace = seconds_a_step(run, dataset, selection)
    if steps is None:
        run = dataclasses.replace(run, steps=steps_that_fit(pace, planned=run.steps))
    print(f"\n2. Train {run.method} on {run.pairs} pairs and {run.unpaired} unpaired photos and label maps")
    print(aimed_at(run.steps, pace, planned=RECIPES[recipe].steps if steps is None else steps), flush=True)
    result = start(folder, run, dataset, selection, again=AGAIN)
    print(taken(seconds_of(result), aimed=run.steps * pace), flush=True)
    return result


def steps_that_fit(seconds_a_step: float, *, planned: int) -> int:
    """The planned steps, or as many whole tens as fit into TRAINING_SECONDS, but never fewer than FEWEST_STEPS."""
    fitting = int(TRAINING_SECONDS / max(seconds_a_step, 1e-9)) // 10 * 10
    return min(planned, max(FEWEST_STEPS, fitting))


def aimed_at(steps: int, pace: float, *, planned: int) -> str:
    """What is promised of the time, before training: an aim, with the measurement that it rests on."""
    instead = f" instead of the recipe's {planned}" if steps < planned else ""
    fewest = ", the fewest that teach it enough" if steps < planned and steps * pace > TRAINING_SECONDS else ""
    return (
        f"{steps} steps{instead}{fewest}: about {spoken(steps * pace)} and the evaluations on `val`, at the {pace:.2g} s that a step "
        "takes at this moment; longer where the machine gets busier on the way"
    )


def taken(seconds: float, *, aimed: float) -> str:
    """What training took, beside what it aimed at where that was far less."""
    late = f"; {spoken(aimed)} was the aim, and the machine has been slower than when the pace was measured"
    return f"Training took {spoken(seconds)}, evaluations aside" + (late if seconds > LONGER * aimed else "")


def seconds_a_step(run: Run, dataset: Dataset, selection: Selection) -> float:
    """What a step takes here and now: the median of a few, on a copy of the method that is thrown away."""
    device = device_named("auto")
    trainee = prepare(build_method(run, dataset.photo_domain, dataset.label_domain).to(device), fused=True)
    loader = Loader(dataset, selection.streams(dataset), size=run.size, batch=run.batch, seed=run.seed)
    bf16, watch, took = moves_in_bf16(device, run.precision), FiniteWatch(device), []
    for step in range(8):
        began = time.perf_counter()
        advance(trainee, loader.batch(step).to(device), run, bf16=bf16, watch=watch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return statistics.median(took[2:])  # the first ones warm up


def seconds_of(folder: RunDir) -> float:
    """The training seconds that a run has logged."""
    return float(json.loads(folder.metrics.read_text().splitlines()[-1])["seconds"])


def _to_continue(folder: Path, run: Run, dataset: Dataset, *, any_length: bool) -> RunDir | None:
    """The earlier demo's run, where it is the one that is asked for; None where another version made it, or it is no run at all."""
    try:
        earlier = open_run(folder)
        earlier.selection(dataset)
        wanted = dataclasses.replace(run, steps=earlier.run.steps) if any_length else run
        return earlier if earlier.run == wanted else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _remove_earlier(path: Path, recipe: str) -> None:
    """Make room for a new run, where what stands there is an earlier demo's and nobody else's."""
    try:
        there = json.loads((path / "config.json").read_text())["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        there = None
    if there != recipe:
        raise UserError(
            f"{path} is in the way, and is not the run of an earlier demo: name another folder with --run, or remove it yourself"
        )
    shutil.rmtree(path)


def _draw(dataset: Dataset, selection: Selection) -> None:
    """Draw every scene once; the dataset keeps them."""
    streams = selection.streams(dataset)
    samples = {sample.name: sample for sample in (*streams.pairs, *streams.photos, *streams.labels, *dataset.samples("val"))}
    with Progress(len(samples), what="draw", unit="scene", shown=True) as bar:
        for sample in samples.values():
            dataset.read_photo(sample)
            bar.update()
