"""How far a long piece of work is, in words that suit who reads: a bar on a terminal, a line now and then in a file or a pipe."""

import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, TypeVar

from tqdm import tqdm

EVERY = 60.0
"""Seconds between two lines where nobody watches."""
FIRST = 5.0
"""Seconds until the first of them: what is done sooner needs none."""


Item = TypeVar("Item", covariant=True)


class Counted(Protocol[Item]):
    """What has a length and can be gone through."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Item]: ...


def told(items: Counted[Item], *, what: str, unit: str, shown: bool) -> Iterator[Item]:
    """The items one after the other, counted as each is done with."""
    with Progress(len(items), what=what, unit=unit, shown=shown) as progress:
        for item in items:
            yield item
            progress.update()


class Progress:
    """Counts a piece of work on standard error."""

    def __init__(self, total: int, *, what: str, unit: str, shown: bool) -> None:
        self.total = total
        self.what = what
        self.unit = unit
        live = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=what, unit=unit, disable=not (shown and live), dynamic_ncols=True)
        self._tells = shown and not live
        self._told = False
        self._beside = ""
        self._done = self._known = 0
        self._began = time.monotonic()
        self._due = self._began + FIRST

    def known(self, count: int) -> None:
        """So much was there already: it counts as done, and tells nothing of how long the rest takes."""
        self._known = count
        self._done += count
        self._began = time.monotonic()
        self._bar.update(count)
        self._bar.unpause()

    def beside(self, figure: str) -> None:
        """A figure that is shown beside the count from now on."""
        self._beside = f", {figure}"
        self._bar.set_postfix_str(figure, refresh=False)

    def update(self, count: int = 1) -> None:
        """So much more is done."""
        self._done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._tells and now >= self._due:
            self._due, self._told = now + EVERY, True
            worked = self._done - self._known
            left = (self.total - self._done) * (now - self._began) / worked
            self._say(f"about {spoken(left)} left")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Put the bar away; who was told of the work is told that all of it is done."""
        self._bar.close()
        if self._told and error is None and self._done == self.total:
            self._say("done")

    def _say(self, rest: str) -> None:
        print(f"{self.what}: {self._done} of {self.total} {self.unit}s, {rest}{self._beside}", file=sys.stderr, flush=True)


def spoken(seconds: float) -> str:
    """2 h 05 min, 12 min, 2 min 30 s, 40 s."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
