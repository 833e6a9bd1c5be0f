"""The pace of requests to one bucket, after S3 has asked for fewer (SlowDown; S3 User Guide, "Best practices").

Requests are not limited at first. A throttled one limits the bucket to a share of the rate at which requests were sent.
From then on the limit grows steadily, because S3 raises its own limits under load, until it is dropped. Each throttled
request sets it anew. Requests that come too soon wait for their turn.
"""

from collections.abc import Callable

from bucketfront.errors import OriginThrottled

SHARE = 0.7  # of the measured rate after a throttled request, as in the SDKs' adaptive mode
RECOVERY_S = 10.0  # until the limit is again the rate that was throttled; it grows as fast after that
LIMITED_S = 60.0  # without a throttled request, until the limit is dropped; it is 2.5 times the measured rate by then
MIN_RATE = 10.0  # requests a second: less than any S3 allows, and enough for the requests that show its recovery
MAX_WAIT_S = 5.0  # for a turn; longer ones are refused, so that clients come back later
MEASURED_S = 0.5  # the time in which requests are counted


class Pace:
    """The pace of one bucket. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._period = 0  # number of the MEASURED_S that `_sent` counts
        self._sent = 0  # requests in it
        self._sent_before = 0  # requests in the period before
        self._throttled_at: float | None = None  # by the clock, while there is a limit
        self._throttled_rate = 0.0  # requests a second at that time
        self._next_turn = 0.0  # by the clock
        self.throttled_count = 0

    @property
    def limit(self) -> float | None:
        """Return the limit in requests a second, or None if there is none."""
        if self._throttled_at is None:
            return None
        elapsed = self._clock() - self._throttled_at
        if elapsed >= LIMITED_S:
            return None
        return max(MIN_RATE, self._throttled_rate * (SHARE + (1 - SHARE) * elapsed / RECOVERY_S))

    def take_turn(self) -> float:
        """Count a request, and return the seconds that it must wait. Raises OriginThrottled if they are too many."""
        limit, now = self.limit, self._clock()
        if limit is None:
            self._throttled_at = None
            self._count(now)
            return 0.0
        turn = max(now, self._next_turn)
        if turn - now > MAX_WAIT_S:
            raise OriginThrottled(f"S3 asked for fewer requests; the next turn is in {turn - now:.1f} s", turn - now)
        self._next_turn = turn + 1 / limit
        self._count(now)
        return turn - now

    def throttled(self) -> None:
        """Limit the rate because S3 throttled a request. Requests that were sent together limit it once."""
        self.throttled_count += 1
        now, limit = self._clock(), self.limit
        if self._throttled_at is not None and limit is not None and now - self._throttled_at < MEASURED_S:
            return
        self._count(now, 0)
        measured = max(self._sent, self._sent_before) / MEASURED_S
        self._throttled_rate = measured if limit is None else min(measured, limit)
        self._throttled_at = now
        self._next_turn = max(self._next_turn, now)

    def _count(self, now: float, requests: int = 1) -> None:
        period = int(now / MEASURED_S)
        if period != self._period:
            self._sent_before = self._sent if period == self._period + 1 else 0
            self._sent = 0
            self._period = period
        self._sent += requests
