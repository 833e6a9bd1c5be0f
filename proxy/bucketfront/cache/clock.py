"""The cache's clock, for freshness, ages and the idle timer.

A wall clock is set right (NTP), stands still with its machine (suspend, a snapshot), or is wrong at the start.

Rule 1: this clock never goes back, also across a restart.
Rule 2: it runs at least as fast as time passes, and is never behind the wall clock. So what looks fresh is fresh
(docs/invariants.md#bounded-staleness).
Rule 3: time that passed at once makes nothing idle, because no request could arrive in it. Time passes at once if the
wall clock jumps, or while no process runs.
"""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

JUMP_S = 1.0  # the wall clock or a former run may be ahead by so much before that counts as a jump
MAX_JUMPS = 64  # remembered; if one idle timeout has more, the oldest count as time that passed
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # that of macOS includes suspended time
MAX_TIME = 1e11  # seconds since the epoch, beyond any real clock


boottime: Callable[[], float] = partial(time.clock_gettime, _BOOTTIME)
"""Returns the seconds since the machine started, suspended time included. Each hit reads it, so it is no function."""


class Clock(Protocol):
    """A time in seconds that never goes back. `CacheClock` is the implementation."""

    def __call__(self) -> float:
        """Return the time now."""

    def ago(self, seconds: float) -> float:
        """Return the time of this clock when the process had run `seconds` less."""


class CacheClock:
    """A callable that returns seconds since the epoch.

    `wall` is the wall clock, and `elapsed` a clock that is never set. `newest` is the last time that a former run
    noted, None without a former run.
    """

    def __init__(self, wall: Callable[[], float], elapsed: Callable[[], float], newest: float | None = None) -> None:
        self._wall = wall
        self._elapsed = elapsed
        now, began = wall(), elapsed()
        if newest is None or newest > MAX_TIME:
            newest = now
        self.started = max(now, newest)
        self.went_back = newest > now + JUMP_S
        """Whether the wall clock is behind the former run, so that the time since then is unknown."""
        self._offset = self.started - began
        # (elapsed, offset): the offset that held until `elapsed` had this value.
        self._jumps: deque[tuple[float, float]] = deque([(began, newest - began)], maxlen=MAX_JUMPS)

    def __call__(self) -> float:
        elapsed = self._elapsed()
        now, wall = elapsed + self._offset, self._wall()
        if wall > now + JUMP_S:
            self._jumps.append((elapsed, self._offset))
            self._offset = wall - elapsed
            return wall
        return now

    def ago(self, seconds: float) -> float:
        """Return what this clock showed when the process had run `seconds` less, without the jumps since then."""
        self()
        then = self._elapsed() - seconds
        return then + next((offset for until, offset in self._jumps if then < until), self._offset)
