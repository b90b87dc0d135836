"""THE LOOP: read this first. It pulls updates from a method, optimises, averages, logs, evaluates and saves."""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainer.average import Average
from trainer.batch import Batch
from trainer.data.catalogue import Dataset
from trainer.data.loader import Loader, Streams
from trainer.data.pairs import Selection
from trainer.data.rare_sampling import likelihood_of
from trainer.errors import UserError
from trainer.machine import device_named, moves_in_bf16
from trainer.methods import METHODS
from trainer.methods.base import Method, Player
from trainer.processes import ALONE, Processes, join
from trainer.recipes import Run
from trainer.record import Record
from trainer.rundir import RunDir, begin_with_given_weights, build_method, create_run
from trainer.trainee import Trainee


def start(
    out: Path,
    run: Run,
    dataset: Dataset,
    selection: Selection,
    *,
    device: str = "auto",
    skip_broken: bool = False,
    progress: bool = True,
    again: str | None = None,
) -> RunDir:
    """Train a new run in the folder `out` to its last step. Raises UserError with the remedy where it cannot go on."""
    refuse_unbalanced(run)
    processes, _ = join(device_named(device))
    if processes.first:
        create_run(out, run, selection)
    processes.wait()
    return train(RunDir(out, run), dataset, selection, device=device, skip_broken=skip_broken, progress=progress, again=again)


def resume(folder: RunDir, *, device: str = "auto", skip_broken: bool = False, progress: bool = True, again: str | None = None) -> RunDir:
    """Continue a run from its last checkpoint: on the CPU, with equal threads and versions, bit for bit."""
    processes, _ = join(device_named(device))
    if processes.first:
        folder.note_resumed()
    dataset = folder.dataset()
    return train(folder, dataset, folder.selection(dataset), device=device, skip_broken=skip_broken, progress=progress, again=again)


def train(
    folder: RunDir,
    dataset: Dataset,
    selection: Selection,
    *,
    device: str = "auto",
    skip_broken: bool = False,
    progress: bool = True,
    fused: bool = True,
    after_step: Callable[[int], None] | None = None,
    again: str | None = None,
) -> RunDir:
    """The run in `folder`, from its last checkpoint if it has one, to its last step or to Ctrl-C.

    `again` is the command that goes on with it, as a person who has stopped it is told; None: `fewpair train --resume`.
    Under torchrun every process takes `run.batch` samples of its own, gradients are averaged, and the first one evaluates and saves.
    """
    run = folder.run
    processes, place = join(device_named(device))
    again = again or f"fewpair train --resume {folder.path}"
    with _explained(folder, again=again):
        method = build_method(run, dataset.photo_domain, dataset.label_domain)
        method.check_steps(run.steps)
        if not folder.checkpoint("last").exists():
            begin_with_given_weights(method, run)
        torch.manual_seed(run.seed + processes.rank)
        trainee = prepare(method.to(place), fused=fused)
        if folder.checkpoint("last").exists():
            trainee.load(folder.load("last", device=place), processes)
        streams = _needed(method, selection.streams(dataset))
        loader = Loader(
            dataset,
            streams,
            size=run.size,
            batch=run.batch,
            seed=run.seed,
            balanced=run.balanced,
            likelihood=likelihood_of(
                dataset,
                streams.pairs,
                when=method.rare_classes,
                steps=run.steps,
                size=run.size,
                skip_broken=skip_broken,
                report_in=folder.path if processes.first else None,
            ),
            skip_broken=skip_broken,
            rank=processes.rank,
            world=processes.world,
        )
        images = run.batch * processes.world * sum(loader.filled)
        with (
            Record(folder, trainee, dataset, place, processes, loader, images=images, progress=progress, skip_broken=skip_broken) as record,
            _interruptible() as interrupted,
        ):
            stopped = _play(folder, trainee, loader, record, place, processes, interrupted=interrupted, after_step=after_step)
    if stopped:
        if processes.first:
            print(f"stopped at step {trainee.step} of {run.steps}; go on with: {again}", flush=True)
        raise KeyboardInterrupt
    if loader.skipped:
        print(f"{loader.skipped} broken files were skipped; the warnings above name them")
    return folder


def _play(
    folder: RunDir,
    trainee: Trainee,
    loader: Loader,
    record: Record,
    place: torch.device,
    processes: Processes,
    *,
    interrupted: Callable[[], bool],
    after_step: Callable[[int], None] | None,
) -> bool:
    """Step by step to the run's last one. Returns whether Ctrl-C stopped it; all that was done is saved then."""
    run = folder.run
    bf16, watch = moves_in_bf16(place, run.precision), FiniteWatch(place)
    record.start_clock()
    for batch in loader.prefetch(trainee.step, run.steps):
        losses = advance(trainee, batch.to(place), run, bf16=bf16, watch=watch, processes=processes)
        trainee.step += 1
        record.tick()
        if after_step is not None:
            after_step(trainee.step)

        due = _due(run, trainee.step)
        asking = due.logging or processes.world == 1  # all processes must ask together, so not after every step
        stopping = asking and processes.any(interrupted(), place)
        if due.logging or stopping:
            watch.check(folder, trainee, processes)
            record.log(losses)
        if due.evaluating:
            record.evaluate(last=trainee.step == run.steps)
            stopping = stopping or processes.any(interrupted(), place)  # it may have been pressed meanwhile
        if due.keeping:
            record.save(f"step-{trainee.step:06d}")
        if due.saving or stopping:
            record.save("last")
            record.start_clock()  # neither evaluation nor saving counts as training time
        if stopping:
            return True
    return False


class Due(NamedTuple):
    """What is to be done after a step. Whatever is saved is logged, so that every loss behind a checkpoint was looked at."""

    logging: bool
    evaluating: bool
    keeping: bool
    saving: bool


def _due(run: Run, step: int) -> Due:
    evaluating = step % run.evaluate_every == 0 or step == run.steps
    keeping = step in run.keep
    saving = step % run.save_every == 0 or evaluating or keeping
    return Due(logging=step % run.log_every == 0 or saving, evaluating=evaluating, keeping=keeping, saving=saving)


def prepare(method: Method, *, fused: bool) -> Trainee:
    """The method with an optimiser for each player and a running average for each that asks for one."""
    players = method.players()
    optimisers = {
        name: torch.optim.Adam(_groups(player), lr=player.lr, betas=player.betas, fused=fused) for name, player in players.items()
    }
    names = {parameter: name for name, parameter in method.named_parameters()}
    averages = {
        name: Average({names[parameter]: parameter for parameter in _parameters(player)}, decay=player.ema)
        for name, player in players.items()
        if player.ema is not None
    }
    return Trainee(method.train(), players, optimisers, averages)


def advance(
    trainee: Trainee, batch: Batch, run: Run, *, bf16: bool, watch: "FiniteWatch", processes: Processes = ALONE
) -> dict[str, Tensor]:
    """One step: every update the method yields, optimised before the next is asked for. Returns the losses as `player/term`."""
    logged: dict[str, Tensor] = {}
    moved: set[str] = set()
    updates = trainee.method.step(batch, trainee.step)
    while True:
        # Autocast is entered afresh for each update: one kept open across an optimiser step goes on using the old bf16 weights.
        with torch.autocast(batch.paired.photo.device.type, torch.bfloat16) if bf16 else nullcontext():
            update = next(updates, None)
        if update is None:
            break
        player, optimiser = trainee.players[update.player], trainee.optimisers[update.player]
        total = torch.stack(list(update.losses.values())).sum()
        total.backward(inputs=_parameters(player))
        processes.average_gradients(_parameters(player))
        for group in optimiser.param_groups:
            group["lr"] = player.lr * group.get("factor", 1.0) * player.schedule(trainee.step, run.steps)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        moved.add(update.player)
        for name, loss in update.losses.items():
            logged[f"{update.player}/{name}"] = loss.detach()
    for name in moved & trainee.averages.keys():  # once a step, however often a player moved
        trainee.averages[name].update(trainee.step)
    watch.note(logged, trainee.step + 1)
    return logged


class FiniteWatch:
    """Remembers on the device, for each term, the first step at which it was not finite; read only when the log is."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._first: dict[str, Tensor] = {}

    def note(self, losses: dict[str, Tensor], step: int) -> None:
        """Look at one step's losses without waiting for the device."""
        for name, loss in losses.items():
            first = self._first.setdefault(name, torch.full((), torch.iinfo(torch.int64).max, device=self._device))
            self._first[name] = torch.where(torch.isfinite(loss), first, first.clamp(max=step))

    def check(self, folder: RunDir, trainee: Trainee, processes: Processes) -> None:
        """Raises UserError, on all processes at once, where a loss or a weight is not finite: so nothing that is not is ever saved."""
        never = torch.iinfo(torch.int64).max
        bad = [(step, f"the loss {name}") for name, first in self._first.items() if (step := int(first)) != never]
        if not bad:
            bad = [(trainee.step, f"the weight {name}") for name in trainee.not_finite()]
        if processes.any(bool(bad), self._device):
            step, what = min(bad, default=(trainee.step, "a loss of another process"))
            raise UserError(
                f"{what} is not finite at step {step}; {_last_good(folder)}. Go on from there with fewpair train --resume {folder.path}; "
                f"where that ends the same way, start again with a lower --config.lr or with --precision fp32"
            )


@contextmanager
def _explained(folder: RunDir, *, again: str) -> Iterator[None]:
    """A full disk and a full GPU, wherever in training they are met, end in a sentence."""
    run = folder.run
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"no space is left for {folder.path}; {_last_good(folder)}. Free some disk space, then: {again}") from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the GPU ran out of memory ({run.size[0]}x{run.size[1]}, batch {run.batch}); {_last_good(folder)}. "
            f"Start a run with a smaller --size, --batch or --config.width"
        ) from error


def _last_good(folder: RunDir) -> str:
    last = folder.checkpoint("last")
    return f"the last good checkpoint is {last}" if last.exists() else f"no checkpoint had been saved in {folder.path} yet"


def _parameters(player: Player) -> list[nn.Parameter]:
    return [parameter for module in player.modules for parameter in module.parameters()]


def refuse_unbalanced(run: Run) -> None:
    """Raises UserError where a run would leave a half of the Batch empty that its method cannot do without."""
    if not run.balanced and not METHODS[run.method].spares_a_half:
        raise UserError(
            f"--no-balanced (balanced=False): a step of {run.method} cannot go on with pairs alone or unpaired samples alone, so there is "
            "nothing to balance: leave it out"
        )


def _groups(player: Player) -> list[dict[str, Any]]:
    """What Adam moves: one group, or one a module where their learning rates differ."""
    if player.factors is None:
        return [{"params": _parameters(player)}]
    return [{"params": list(module.parameters()), "factor": factor} for module, factor in zip(player.modules, player.factors, strict=True)]


def _needed(method: Method, streams: Streams) -> Streams:
    """The streams that the method reads; those it does not read are left empty, so nothing is decoded for them."""
    needs = method.needs()
    if "pairs" in needs and not streams.pairs:
        raise UserError("this method learns from pairs, but the run has none: ask for at least --pairs 1")
    if "unpaired" in needs and not streams.photos:
        raise UserError("this method learns from unpaired samples, but the run has none: ask for at least --unpaired 1")
    return Streams(
        pairs=streams.pairs if "pairs" in needs else (),
        photos=streams.photos if "unpaired" in needs else (),
        labels=streams.labels if "unpaired" in needs else (),
        labels_from=streams.labels_from,
    )


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the loop to stop after the step it is in; a second one stops at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        os.write(2, b"\nstopping after this step; once more stops at once\n")  # print may be in the middle of a line of its own

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
