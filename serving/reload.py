"""Picks up new, changed and removed models without a restart: POST /v1/admin/reload, in every worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from time import perf_counter
from typing import Any

from serving.errors import Refusal, ServingError
from serving.memory import give_back
from serving.shelf import Restocked, Shelf
from serving.workers import Board

logger = logging.getLogger("fewpair.serving")
_EACH = 0.25  # seconds between two looks at whether another worker was asked
_PATIENCE = 30.0  # seconds for which others are waited for, beside twice the time that it took here


class Reloader:
    """Reloads this worker's shelf, one reload at a time, and has the other workers reload theirs.

    `load` makes a new shelf of the present one, in a thread; `put` has the server answer from it, on the loop.
    """

    def __init__(
        self, shelf: Callable[[], Shelf], load: Callable[[Shelf], Restocked], put: Callable[[Shelf], None], *, board: Board | None
    ) -> None:
        self._shelf, self._load, self._put = shelf, load, put
        self._board = board
        self._one_at_a_time = asyncio.Lock()
        self._done = 0 if board is None else board.asked()  # what was asked before this worker's first look is in it
        self._reloads: set[asyncio.Task[dict[str, Any]]] = set()

    async def reload(self) -> dict[str, Any]:
        """Reload all workers; what changed, as `described.Reloaded` says. It goes on to its end where its caller goes away.

        Refusal where the models folder cannot be read; the former models go on answering then.
        """
        task = asyncio.create_task(self._everywhere())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        return await asyncio.shield(task)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Reload whenever another worker was asked to."""
        if self._board is None:
            yield
            return
        self._board.join()
        self._board.tell(self._done, _versions(self._shelf()))
        watch = asyncio.create_task(self._follow(self._board))
        try:
            yield
        finally:
            watch.cancel()
            self._board.leave()

    async def _everywhere(self) -> dict[str, Any]:
        if self._board is None:
            return {**_described(await self._here()), "workers": {"reloaded": 1, "behind": []}}
        async with self._board.alone():
            started = perf_counter()
            number = self._board.ask()
            found = await self._here(number)
            patience = _PATIENCE + 2 * (perf_counter() - started)
            return {**_described(found), "workers": await self._others(self._board, number, found.shelf, patience=patience)}

    async def _here(self, number: int = 0) -> Restocked:
        async with self._one_at_a_time:
            try:
                found = await asyncio.to_thread(self._load, self._shelf())
            except ServingError as error:
                self._tell(number, {"trouble": str(error)})
                raise Refusal(409, "cannot_reload", error.message, hint=error.hint) from error
            self._put(found.shelf)
            await asyncio.to_thread(give_back)
            self._tell(number, _versions(found.shelf))
            logger.info(
                "models reloaded: added %s; changed %s; removed %s; kept %d; failed %s",
                *(", ".join(names) or "none" for names in (found.added, found.changed, found.removed)),
                len(found.kept),
                ", ".join(found.shelf.broken) or "none",
            )
            return found

    def _tell(self, number: int, outcome: dict[str, Any]) -> None:
        self._done = max(self._done, number)
        if self._board is not None:
            self._board.tell(number, outcome)

    async def _follow(self, board: Board) -> None:
        while True:
            await asyncio.sleep(_EACH)
            try:
                asked = board.asked()
                if asked > self._done:
                    await self._here(asked)
            except Refusal as refusal:
                logger.warning("the models were not reloaded: %s", refusal)
            except Exception:  # the next reload may go well, and is not to be missed
                logger.exception("the models were not reloaded")

    async def _others(self, board: Board, number: int, shelf: Shelf, *, patience: float) -> dict[str, Any]:
        """How many workers have reloaded, and which have not, or not to the same models."""
        until = perf_counter() + patience
        while True:
            told = board.others()
            late = [worker for worker, outcome in told.items() if outcome is None or outcome["number"] < number]
            if not late or perf_counter() > until:
                break
            await asyncio.sleep(_EACH / 5)
        behind = [{"worker": worker, "reason": why} for worker, outcome in told.items() if (why := _why_behind(outcome, number, shelf))]
        return {"reloaded": 1 + len(told) - len(behind), "behind": behind}


def _described(found: Restocked) -> dict[str, Any]:
    shelf = found.shelf
    return {
        "added": list(found.added),
        "changed": list(found.changed),
        "removed": list(found.removed),
        "kept": list(found.kept),
        "failed": [{"name": name, "reason": why, "former_answers": name in shelf.models} for name, why in shelf.broken.items()],
        "defaults": dict(shelf.defaults),
    }


def _versions(shelf: Shelf) -> dict[str, Any]:
    return {"models": {name: model.manifest.digest for name, model in shelf.models.items()}}


def _why_behind(outcome: dict[str, Any] | None, number: int, shelf: Shelf) -> str | None:
    if outcome is None or outcome["number"] < number:
        return "it has not answered in time; it goes on with the former models until it is done"
    if "trouble" in outcome:
        return str(outcome["trouble"])
    theirs, ours = outcome["models"], _versions(shelf)["models"]
    if theirs == ours:
        return None
    differ = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    return f"it serves other versions of {', '.join(differ)}; reload again when the models folder has come to rest"
