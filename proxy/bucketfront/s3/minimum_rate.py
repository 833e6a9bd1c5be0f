"""The slowest that a body may come, and with that how long a part may take: its length at this rate, and a window.

Without it a byte now and then would hold a connection for as long as it likes: `read_timeout` sees each one.
"""

WINDOW = 10.0  # seconds of waiting after which the rate is looked at
# Bytes a second. Slow links are legitimate: with all 64 connections of the default at once, this is half a Mbit/s.
# S3 gives 1 MB/s at least to each.
MIN_RATE = 1 << 10


class MinimumRate:
    """Of one body. Only the time spent waiting for the origin counts: while our disk or our reader is slow, nobody
    waits for it, and what it has sent meanwhile is there at once.
    """

    def __init__(self) -> None:
        self._waited = 0.0  # seconds of this window
        self._came = 0  # bytes in it

    def waited(self, seconds: float, count: int) -> None:
        """`count` bytes came after so long a wait; 0 where the wait was cut short."""
        self._waited += seconds
        self._came += count

    def is_kept(self) -> bool:
        """Whether the window that has passed, if one has, brought enough. The next one begins then."""
        if self._waited < WINDOW:
            return True
        is_enough = self._came >= MIN_RATE * self._waited
        self._waited, self._came = 0.0, 0
        return is_enough
