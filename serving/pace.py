"""How fast requests are answered, so that a newcomer hears at the door, rather than in the queue, that he would wait too long."""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean

_ANSWERS = (
    16  # so few that a crowd which slows the machine down is noticed within a second or two, so many that one large picture is not all
)
_RESERVE = 1.25  # the pace changes while somebody waits; so much longer than it says at most


class Pace:
    """The mean seconds between two of the last answers, as long as there was somebody to answer."""

    def __init__(self) -> None:
        self._last = -math.inf
        self._seconds: deque[float] = deque(maxlen=_ANSWERS)

    def answered(self, *, since: float, now: float) -> None:
        """Note that who had been there `since` was answered `now`; while nobody was there no time passes."""
        self._seconds.append(now - max(self._last, since))
        self._last = now

    @property
    def seconds(self) -> float:
        """From one answer to the next; 0 where none was given yet, and nothing is known."""
        return fmean(self._seconds) if self._seconds else 0.0

    def wait(self, ahead: int) -> float:
        """The seconds that somebody with so many before him should be ready to wait."""
        return _RESERVE * ahead * self.seconds
