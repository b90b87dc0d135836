"""How fast the device works its queue off, so that a newcomer hears at the door, rather than in the queue, that he would wait too long."""

from __future__ import annotations

import math
from collections import deque

_RUNS = 16  # few, so that a crowd which slows the machine down is noticed within a second or two
_OUTLIER_OF = 8  # of so many the longest is left out: one slow model, or one large picture, says nothing of the rest
_BETWEEN = 1.0  # seconds that lie between two runs at most where somebody waits; who waited and left is no reason for more
_RESERVE = 1.25  # the pace changes while somebody waits; so much longer than it says at most


class Pace:
    """The mean seconds for which one caller keeps the device from the next, of the last runs.

    It is counted by runs, not by requests: who asks for many pictures is in the line again for each, behind those who came meanwhile.
    """

    def __init__(self) -> None:
        self._last = -math.inf
        self._busy = False
        self._runs: deque[tuple[float, int]] = deque(maxlen=_RUNS)  # seconds, and who shared it

    def ran(self, *, began: float, now: float, callers: int, others_wait: bool) -> None:
        """Note a run that so many callers shared; while nobody waits for the device no time passes."""
        since = max(self._last, began - _BETWEEN) if self._busy else max(self._last, began)
        self._runs.append((now - since, callers))
        self._last, self._busy = now, others_wait

    @property
    def seconds(self) -> float:
        """For each caller; 0 where nothing was run yet, and nothing is known."""
        runs = sorted(self._runs)
        if len(runs) >= _OUTLIER_OF:
            runs.pop()
        return sum(seconds for seconds, _ in runs) / sum(callers for _, callers in runs) if runs else 0.0

    def wait(self, ahead: int) -> float:
        """The seconds that somebody with so many before him should be ready to wait."""
        return _RESERVE * ahead * self.seconds
