"""A training step of a recipe beside a plain one: same networks, batch and losses, at 128x192.

The plain one is as public implementations are: fp32, torch's default Adam, one forward for each half and term, and two
or more backward passes. The VGG loss of semipaired is left out of both, as its weights are not installed.
"""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import Figure, compared, in_turn, median
from benchmarks.steps import CLASSES, random_batch
from trainer import losses
from trainer.batch import Batch, Domain
from trainer.device import resolve_precision
from trainer.networks.frozen import frozen
from trainer.recipes import RECIPES
from trainer.training.checkpointing import build_method
from trainer.training.loop import train_step
from trainer.training.state import TrainState

CPU = torch.device("cpu")
EQUAL = 1e-3
SMALL = (64, 96)
Losses = Iterator[tuple[str, list[Any]]]
"""Groups in the order in which they move, with losses whose backward passes are separate."""


def hybrid(method: Any, batch: Batch, i: int) -> Losses:
    """Trainer.methods.hybrid with each half on its own."""
    config, gan = method.config, losses.GAN_LOSSES[method.config.gan_loss]
    label_d, photo_d = method.label_discriminator, method.photo_discriminator
    made, on_label, on_photo = [], [], []
    for name, half in (("paired", batch.paired), ("unpaired", batch.unpaired)):
        drawn = method.encode(half.label)
        raw, photo = method.label_generator(half.photo), method.photo_generator(drawn)
        label = method.probabilities(raw)
        made.append((name, half, drawn, raw, label, photo))
        on_label.append(gan.discriminator(label_d(drawn), label_d(method.pools[f"{name}_label"](label, i))))
        on_photo.append(gan.discriminator(photo_d(half.photo), photo_d(method.pools[f"{name}_photo"](photo, i))))
    yield "discriminators", [sum(on_label), sum(on_photo)]
    total = torch.zeros(())
    for name, half, drawn, raw, label, photo in made:
        with frozen(label_d), frozen(photo_d):
            total = total + config.adversarial * gan.generator(label_d(label), gan.real_logits(label_d, drawn))
            total = total + config.adversarial * gan.generator(photo_d(photo), gan.real_logits(photo_d, half.photo))
        total = total + config.cycle * losses.difference(method.photo_generator(label), half.photo)
        total = total + config.cycle_cross_entropy * losses.cross_entropy(method.label_generator(photo), half.label)
        if name == "paired":
            total = total + config.pairs_cross_entropy * losses.cross_entropy(raw, half.label)
            total = total + config.reconstruction * losses.difference(photo, half.photo)
    yield "generators", [total]


def mean_teacher(method: Any, batch: Batch, i: int) -> Losses:
    """Trainer.methods.segmentation's MeanTeacher with the student's two views one after the other."""
    pairs = method._augmented(batch.paired, i)
    method._count(pairs.label)
    view = method._labelled_by_the_teacher(batch.unpaired.photo, pairs, i)
    supervised = sum(method.supervised_losses(method.segmenter(pairs.photo), pairs.label).values())
    unpaired = losses.cross_entropy(method.segmenter(view.photo), view.label)
    yield "segmenter", [supervised, method._weight(i) * unpaired]
    method.teacher.follow(method.segmenter, i)


def as_written(method: Any, batch: Batch, i: int) -> Losses:
    """The method's own step, where it has a forward for each term already."""
    for update in method.step(batch, i):
        yield update.groups, [sum(update.losses.values())]


PLAIN: dict[str, Callable[[Any, Batch, int], Losses]] = {
    "hybrid-compact": hybrid,
    "mean-teacher-compact": mean_teacher,
    "semipaired-compact": as_written,
}


def steps_of(recipe: str, size: tuple[int, int], who: str) -> Callable[[], dict[str, float]]:
    """A function that takes the next step and returns the sum of the losses of each group.

    `who`: fewpair (the recipe's precision), fewpair fp32, or plain.
    """
    run = RECIPES[recipe]
    changed = {"perceptual": 0.0} if hasattr(run.config, "perceptual") else {}
    run = dataclasses.replace(run, size=size, config=dataclasses.replace(run.config, **changed))
    torch.manual_seed(0)
    batch, method = random_batch(run), build_method(run, Domain("classes", CLASSES))
    if method.channels_last and who != "plain":  # as the training loop does
        batch = batch.to(CPU, channels_last=True)
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = TrainState.create(method)
    state.step = getattr(run.config, "warm_up", 0)
    bf16 = who == "fewpair" and resolve_precision(run.precision, CPU) == "bf16"
    groups: dict[str, Any] = state.groups  # of ParameterGroup
    adams = {name: torch.optim.Adam(one.parameters(), lr=one.lr, betas=one.betas) for name, one in groups.items()}
    averaged = {name: [weight.detach().clone() for weight in groups[name].parameters()] for name in state.averages}

    def ours() -> dict[str, float]:
        seen: dict[str, float] = {}
        for name, loss in train_step(state, batch, steps=run.steps, bf16=bf16).items():
            seen[name.partition("/")[0]] = seen.get(name.partition("/")[0], 0.0) + loss.item()
        state.step += 1
        return seen

    def plain() -> dict[str, float]:
        seen: dict[str, float] = {}
        for name, terms in PLAIN[recipe](state.method, batch, state.step):
            adams[name].zero_grad()
            for term in terms:
                term.backward()
            adams[name].step()
            seen[name] = seen.get(name, 0.0) + torch.stack(terms).sum().item()
        for name, weights in averaged.items():
            for average, weight in zip(weights, groups[name].parameters(), strict=True):
                average.mul_(groups[name].ema).add_(weight.detach(), alpha=1 - groups[name].ema)
        state.step += 1
        return seen

    return plain if who == "plain" else ours


def memory_of(recipe: str, size: tuple[int, int], who: str, threads: int) -> int:
    """MiB by which building the networks and three steps raise the process's peak."""
    torch.set_num_threads(threads)
    before, step = high_water(), steps_of(recipe, size, who)
    for _ in range(3):
        step()
    return high_water() - before


def high_water() -> int:
    """The most memory that this process has held, in MiB; what getrusage says may be that of the one that began it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) >> 10


def measure(*, threads: int, quick: bool) -> list[Figure]:
    """Time and memory of each recipe's step, and how far the losses of hybrid's are apart in fp32."""
    torch.set_num_threads(threads)
    size, rounds, figures = (SMALL, 2, []) if quick else ((128, 192), 5, [])
    for recipe in list(PLAIN)[:1] if quick else PLAIN:
        of = {"recipe": recipe, "size": "x".join(map(str, size)), "batch": RECIPES[recipe].batch}
        took = in_turn({who: steps_of(recipe, size, who) for who in ("fewpair", "plain")}, rounds=rounds)
        figures += compared("training step", took, of)
        for who, row in took.items():
            rates = [2 * RECIPES[recipe].batch / seconds for seconds in row]
            figures.append(median("images a second", rates, "1/s", of | {"by": who}))
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                added = pool.submit(memory_of, recipe, size, who, threads).result()
            figures.append(Figure("peak memory", added, "MiB", of | {"by": who}))
    ours, plain = (steps_of("hybrid-compact", SMALL, who) for who in ("fewpair fp32", "plain"))
    apart = [largest_difference(ours(), plain()) for _ in range(3 if quick else 20)]
    of = {"recipe": "hybrid-compact", "size": "x".join(map(str, SMALL)), "steps": len(apart)}
    figures.append(Figure("largest relative difference of a loss in fp32", max(apart), "1", of))
    equal = next((step for step, value in enumerate(apart) if value > EQUAL), len(apart))
    return [*figures, Figure(f"first steps whose losses agree within {EQUAL:g}", equal, "steps", of)]


def largest_difference(one: dict[str, float], other: dict[str, float]) -> float:
    """The largest relative difference of two steps' losses."""
    return max(abs(value / other[name] - 1) for name, value in one.items())
