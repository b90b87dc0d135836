"""How fast the device works its queue off, so that a newcomer hears at the door, rather than in the queue, that he would wait too long."""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean

_RUNS = 16  # few, so that a crowd which slows the machine down is noticed within a second or two
_OUTLIER_OF = 8  # of so many the longest is left out: one slow model, or one large picture, says nothing of the rest
_RESERVE = 1.25  # the pace changes while somebody waits; so much longer than it says at most


class Pace:
    """The mean seconds for which one caller keeps the device from the next, of the last runs.

    It is counted by runs, not by requests: who asks for many pictures is in the line again for each, behind those who came meanwhile.
    """

    def __init__(self) -> None:
        self._last = -math.inf
        self._busy = False
        self._seconds: deque[float] = deque(maxlen=_RUNS)

    def ran(self, *, began: float, now: float, callers: int, others_wait: bool) -> None:
        """Note a run that so many callers shared; while nobody waits for the device no time passes."""
        seconds = now - (self._last if self._busy else max(self._last, began))
        self._seconds.extend([seconds / callers] * callers)
        self._last, self._busy = now, others_wait

    @property
    def seconds(self) -> float:
        """For each caller; 0 where nothing was run yet, and nothing is known."""
        counted = sorted(self._seconds)
        if len(counted) >= _OUTLIER_OF:
            counted.pop()
        return fmean(counted) if counted else 0.0

    def wait(self, ahead: int) -> float:
        """The seconds that somebody with so many before him should be ready to wait."""
        return _RESERVE * ahead * self.seconds
