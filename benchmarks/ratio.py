"""How long a step of each recipe takes beside the others: one step of each in turn, the median of several rounds.

    python -m benchmarks.ratio --threads 1 --rounds 9 RECIPE ...
    python -m benchmarks.ratio --layouts RECIPE             contiguous beside channels-last memory

Processor time is measured, so that a busy machine counts less; quote the ratios, not the seconds.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.figures import Figure, in_turn, report
from benchmarks.steps import CLASSES, random_batch
from trainer.batch import Domain
from trainer.device import resolve_precision
from trainer.methods import METHODS
from trainer.recipes import RECIPES
from trainer.training.checkpointing import build_method
from trainer.training.loop import train_step
from trainer.training.state import TrainState


def main() -> None:
    """Measure and print; the last recipe named is 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layouts", action="store_true", help="measure each recipe in channels-last memory too")
    parser.add_argument("recipes", nargs="+", choices=list(RECIPES), metavar="RECIPE")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = torch.device("cpu")
    bf16 = resolve_precision("auto", device) == "bf16"
    actions: dict[str, Callable[[], object]] = {}
    for name in asked.recipes:
        run = RECIPES[name]
        for channels_last in (True, False) if asked.layouts else (METHODS[run.method].channels_last,):
            method = build_method(run, Domain("classes", CLASSES))
            if channels_last:
                method = method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            state, batch = TrainState.create(method), random_batch(run).to(device, channels_last=channels_last)
            title = f"{name}, channels-last" if channels_last and asked.layouts else name
            actions[title] = functools.partial(train_step, state, batch, steps=run.steps, bf16=bf16)
    took = in_turn(actions, rounds=asked.rounds, clock=time.process_time)
    median = {name: statistics.median(values) for name, values in took.items()}
    one = median[title]
    precision = "bf16" if bf16 else "fp32"
    report(
        f"A training step beside {asked.recipes[-1]}'s, CPU, {asked.threads} thread(s), {precision}, {asked.rounds} "
        "rounds",
        [Figure("step, ratio", value / one, "1", {"recipe": name}) for name, value in median.items()],
    )


if __name__ == "__main__":
    main()
