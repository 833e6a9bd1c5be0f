"""The cache's time: what freshness, ages and the idle timer go by, whatever becomes of the wall clock.

A wall clock is set right (NTP), stands still with its machine (suspend, a snapshot), or is wrong at the start. Rule 1:
this clock never goes back, not over a restart either. Rule 2: it goes on at least as fast as time passes, and is never
behind the wall clock: what looks fresh is fresh (I7). Rule 3: time that went by at once - the wall clock jumped, or no
process ran - makes nothing idle: nobody could ask for it meanwhile.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

JUMP = 1.0  # seconds that the wall clock may be ahead, or a former run's, before it is no mere inaccuracy
MAX_JUMPS = 64  # remembered; of more than these in one idle timeout, the oldest count as time that passed
MAX_TIME = 1e11  # seconds since the epoch: what says more was no clock


def boottime() -> float:
    """Seconds since the machine started, those of a suspend among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock(Protocol):
    """A time in seconds that never goes back. `CacheClock` is the implementation."""

    def __call__(self) -> float:
        """Return the time now."""

    def ago(self, seconds: float) -> float:
        """Return the time of this clock when the process had run `seconds` less."""


class CacheClock:
    """Seconds since the epoch. `wall` is the wall clock, `elapsed` one that nobody sets; `newest` is the last time that
    a former run noted, None where there was none.
    """

    def __init__(self, wall: Callable[[], float], elapsed: Callable[[], float], newest: float | None = None) -> None:
        self._wall = wall
        self._elapsed = elapsed
        now, began = wall(), elapsed()
        if newest is None or newest > MAX_TIME:
            newest = now
        self.started = max(now, newest)
        self.went_back = newest > now + JUMP
        """Since the former run, so that nobody knows how long ago that was."""
        self._offset = self.started - began
        # (elapsed, offset): what was to be added to `elapsed` until it was this.
        self._jumps: deque[tuple[float, float]] = deque([(began, newest - began)], maxlen=MAX_JUMPS)

    def __call__(self) -> float:
        elapsed = self._elapsed()
        now, wall = elapsed + self._offset, self._wall()
        if wall > now + JUMP:
            self._jumps.append((elapsed, self._offset))
            self._offset = wall - elapsed
            return wall
        return now

    def ago(self, seconds: float) -> float:
        """What this clock said when the process had run `seconds` less, jumps apart."""
        self()
        then = self._elapsed() - seconds
        return then + next((offset for until, offset in self._jumps if then < until), self._offset)
