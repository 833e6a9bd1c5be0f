"""A sink of the access log that keeps its lines in memory. `is_stuck` and `error` are in the hands of the test."""

import time

POLL_S = 0.005  # between two looks of `drain`


class MemorySink:
    """Fulfils AccessLogSink without a thread or a descriptor. At most `limit` bytes wait.

    While `is_stuck` is true, no line is written. While `error` is set, each line that would be written is lost.
    """

    def __init__(self, limit: int = 8 << 20) -> None:
        self.written = b""
        self.is_stuck = False
        self.error: OSError | None = None
        self.lost = 0
        self._limit = limit
        self._waiting = b""
        self._is_closed = False

    def add(self, text: bytes) -> None:
        if self._is_closed or len(self._waiting) + len(text) > self._limit:
            self.lost += text.count(b"\n")
        else:
            self._waiting += text

    def flush(self) -> None:
        if self.is_stuck:
            return
        if self.error is None:
            self.written += self._waiting
        else:
            self.lost += self._waiting.count(b"\n")
        self._waiting = b""

    def drain(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        self.flush()
        while self._waiting and time.monotonic() < until:
            time.sleep(POLL_S)
            self.flush()
        return not self._waiting

    def close(self, timeout_s: float) -> None:
        self._is_closed = True
        if not self.drain(timeout_s):
            self.lost += self._waiting.count(b"\n")
            self._waiting = b""
