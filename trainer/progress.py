"""How far a long piece of work is, in words that suit who reads: a bar on a terminal, a line now and then in a file or a pipe."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

EVERY = 60.0
"""Seconds between two lines where nobody watches."""
FIRST = 5.0
"""Seconds until the first of them: what is done sooner needs none."""


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
        """Put the bar away; who was told of the beginning is told of the end."""
        self._bar.close()
        if self._told and error is None:
            self._say("done")

    def _say(self, rest: str) -> None:
        print(f"{self.what}: {self._done} of {self.total} {self.unit}s, {rest}", file=sys.stderr, flush=True)


def spoken(seconds: float) -> str:
    """2 h 05 min, 12 min, 2 min 30 s, 40 s."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
