"""The pace of a job: how many bytes a second it may bring, and how many it has brought of late. Pure."""

from collections import deque

SAMPLE_INTERVAL_S = 1.0
WINDOW_S = 10.0  # of the measured rate: steady enough to read, and soon right after a change


class Pace:
    """Spreads bytes over time. `rate` is in bytes a second, None without a limit."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._ready_at = 0.0

    def take(self, count: int, now: float) -> float:
        """Take the next free time for `count` bytes. Return how many seconds to wait until it ends."""
        if self._rate is None:
            return 0.0
        self._ready_at = max(self._ready_at, now) + count / self._rate
        return self._ready_at - now


class Meter:
    """Measures the rate of the last WINDOW_S seconds, from totals that the caller notes."""

    def __init__(self, now: float) -> None:
        self._samples: deque[tuple[float, int]] = deque(((now, 0),))

    def note(self, total: int, now: float) -> None:
        """Note the bytes up to now."""
        if now - self._samples[-1][0] < SAMPLE_INTERVAL_S:
            return
        self._samples.append((now, total))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()

    def rate(self, total: int, now: float) -> float:
        """Return the bytes a second since the oldest sample."""
        since, before = self._samples[0]
        return (total - before) / (now - since) if now > since else 0.0
