"""The lowest rate at which a body from the origin may arrive. It bounds how long a part takes.

An origin that sends a byte now and then keeps `read_timeout`, and could hold a connection for ever
(docs/invariants.md#deadlines-everywhere).
"""

WINDOW_S = 10.0  # of waiting, after which the rate is compared: long enough for a TCP retransmission or a pause at S3
# Slow links are legitimate: with all 64 connections of the default this is half a Mbit/s. S3 gives each 1 MB/s or more.
MIN_BYTES_PER_S = 1 << 10


class MinimumRate:
    """The rate of one body. Only time spent in waiting for the origin counts.

    While the disk or the reader is slow, no read waits, and what the origin sent meanwhile is available at once.
    """

    def __init__(self) -> None:
        self._waited = 0.0  # seconds of this window
        self._received = 0  # bytes in it

    def waited(self, seconds: float, count: int) -> None:
        """Count `count` bytes after a wait of `seconds`. A wait that was cancelled has 0 bytes."""
        self._waited += seconds
        self._received += count

    def is_kept(self) -> bool:
        """Return False if a window is over and brought too few bytes. Begin the next one once a window is over."""
        if self._waited < WINDOW_S:
            return True
        is_enough = self._received >= MIN_BYTES_PER_S * self._waited
        self._waited, self._received = 0.0, 0
        return is_enough
