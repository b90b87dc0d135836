"""The training loop; read this first. A method yields its losses, the loop optimises, logs, evaluates and saves."""

from collections.abc import Callable
from contextlib import closing, nullcontext

import torch
from torch import Tensor

from trainer.batch import Batch
from trainer.data.dataset import Dataset
from trainer.data.selection.selection import Selection
from trainer.device import resolve_precision
from trainer.distributed import any_process, average_gradients, rank, wait, world
from trainer.methods.base import Method
from trainer.networks.normalisation import synchronise_batch_norm
from trainer.training.batches import make_loader, statistics_batches
from trainer.training.checkpointing import RunDir
from trainer.training.logger import Logger
from trainer.training.state import TrainState, refuse_not_finite
from trainer.training.validation import Validation


def train(
    folder: RunDir,
    method: Method,
    dataset: Dataset,
    selection: Selection,
    *,
    device: torch.device,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Train a run from its last checkpoint, if it has one, to its last step; `method` holds its initial weights.

    Ends earlier after a step at which `interrupted` is True on any process; everything is saved then. Under torchrun
    each process takes `run.batch` samples, gradients are averaged, and the first process evaluates and saves.
    """
    run = folder.run
    if world() > 1 and device.type == "cuda":
        synchronise_batch_norm(method)
    torch.manual_seed(run.seed + rank())
    memory = torch.channels_last if method.channels_last else torch.preserve_format
    state = TrainState.create(method.to(device, memory_format=memory))  # type: ignore[call-overload]
    if folder.checkpoint("last").exists():
        state.load(folder.load("last", device=device))
    loader = make_loader(run, method, dataset, selection)
    validation = Validation(folder, selection, device=device)
    bf16 = resolve_precision(run.precision, device) == "bf16"

    def save(name: str) -> None:
        content = state.state_dict()
        if rank() == 0:
            folder.save(name, content)
        wait()

    with closing(Logger(folder, state, device)) as logger:
        for batch in loader.prefetch(state.step, run.steps):
            batch = batch.to(device, channels_last=method.channels_last)
            losses = train_step(state, batch, steps=run.steps, bf16=bf16)
            state.step += 1
            logger.tick()
            evaluate = state.step % run.evaluate_every == 0 or state.step == run.steps
            saving = evaluate or state.step % run.save_every == 0 or state.step in run.keep
            # Whatever is saved is logged, so that each loss behind a checkpoint was checked.
            log = saving or state.step % run.log_every == 0
            # All processes must call `any_process`, so several do it only where they log.
            stopping = (log or world() == 1) and any_process(interrupted(), device)
            if log or stopping:
                refuse_not_finite(folder, state, losses, device)
                logger.log(losses)
            if saving and rank() == 0:
                validation.watch(state, logger, photos=loader.size_at(state.step - 1) == run.size)
            if evaluate:
                batches = statistics_batches(loader, state.step)
                moved = (batch.to(device, channels_last=method.channels_last) for batch in batches)
                state.estimate_statistics(moved)  # on each process, for SyncBatchNorm
                improved = rank() == 0 and validation.evaluate(state, logger, last=state.step == run.steps)
                if any_process(improved, device):
                    save("best")
                stopping = stopping or any_process(interrupted(), device)
            if state.step in run.keep:
                save(f"step-{state.step:06d}")
            if saving or stopping:
                save("last")
                logger.start_clock()  # neither evaluation nor saving counts as training time
            if stopping:
                break
    return state


def train_step(state: TrainState, batch: Batch, *, steps: int, bf16: bool = False) -> dict[str, Tensor]:
    """Optimise each update that the method yields before asking for the next. Returns the losses as `group/term`.

    Only the parameters of the groups that an update names get gradients and move.
    """
    logged: dict[str, Tensor] = {}
    moved: set[str] = set()
    updates = state.method.step(batch, state.step)
    while True:
        # Autocast is entered anew for each update: kept open across an optimiser step it would use cached bf16 weights.
        with torch.autocast(batch.paired.photo.device.type, torch.bfloat16) if bf16 else nullcontext():
            update = next(updates, None)
        if update is None:
            break
        names = (update.groups,) if isinstance(update.groups, str) else update.groups
        parameters = [parameter for name in names for parameter in state.groups[name].parameters()]
        torch.stack(list(update.losses.values())).sum().backward(inputs=parameters)
        average_gradients(parameters)
        for name in names:
            group, optimiser = state.groups[name], state.optimisers[name]
            for part in optimiser.param_groups:
                part["lr"] = group.lr * part.get("factor", 1.0) * group.schedule(state.step, steps)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        moved.update(names)
        logged |= {f"{'+'.join(names)}/{term}": loss.detach() for term, loss in update.losses.items()}
    state.statistics = {}  # they belong to the weights before this step
    for name in moved & state.averages.keys():  # once per step, however many updates a group had
        state.averages[name].update(state.step)
    return logged
