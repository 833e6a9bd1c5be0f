"""A sink of the access log that keeps its lines in memory. `is_stuck`, `error` and `may_open` belong to the test."""

import time

POLL_S = 0.005  # between two looks of `drain`


class MemorySink:
    """Fulfils AccessLogSink without a thread or a descriptor. At most `limit` bytes wait.

    While `is_stuck` is true, no line is written. While `error` is set, each line that would be written is lost. While
    `may_open` is false, no file can be opened. `files` are the log's files, the oldest first.
    """

    def __init__(self, limit: int = 8 << 20) -> None:
        self.files = [b""]
        self.is_stuck = False
        self.error: OSError | None = None
        self.may_open = True
        self.lost = 0
        self._limit = limit
        self._waiting: list[bytes | None] = []  # None is the place of a `reopen` among the lines
        self._is_closed = False

    def add(self, text: bytes) -> None:
        if self._is_closed or sum(map(len, filter(None, self._waiting))) + len(text) > self._limit:
            self.lost += text.count(b"\n")
        else:
            self._waiting.append(text)

    def flush(self) -> None:
        if self.is_stuck:
            return
        for text in self._waiting:
            if text is None:
                self.files += [b""] if self.may_open else []
            elif self.error is None:
                self.files[-1] += text
            else:
                self.lost += text.count(b"\n")
        self._waiting = []

    def reopen(self) -> None:
        if not self._is_closed:
            self._waiting.append(None)
            self.flush()

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
            self.lost += b"".join(filter(None, self._waiting)).count(b"\n")
            self._waiting = []
