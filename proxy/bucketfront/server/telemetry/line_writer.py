"""Writes lines from the event loop into a descriptor whose other end may be slow or fail.

1. `add` never blocks. The bytes that wait have a bound, and lines beyond it are lost.
2. Each lost line is counted, whatever the reason.
"""

import contextlib
import logging
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable

MAX_WAITING_BYTES = 8 << 20  # of text: some seconds of lines at full load (docs/invariants.md#memory)
MAX_WRITE_BYTES = 1 << 20  # in one turn of the thread; a larger write gains no speed
WARNING_INTERVAL_S = 60.0  # between two warnings about lost lines; the metric has the exact count

log = logging.getLogger(__name__)


class LineWriter:
    """Writes ASCII lines to `descriptor`, and closes it at the end. At most `limit` bytes wait.

    A thread does the writing, so that the event loop waits neither for a stuck pipe nor for a failing disk. It is a
    daemon, so that a reader that is stuck for good does not keep the process from ending.
    """

    def __init__(
        self,
        descriptor: int,
        limit: int = MAX_WAITING_BYTES,
        write: Callable[[int, memoryview], int] = os.write,
    ) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._write_some = write
        # A write of at most PIPE_BUF bytes to a pipe is atomic. A larger one could mix with those of other writers.
        self._step = select.PIPE_BUF if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else MAX_WRITE_BYTES
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._waiting = 0  # bytes, with those that are being written
        self._lost = 0
        self._is_awake = False
        self._is_closing = False
        self._is_torn = False
        self._quiet_until = 0.0
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        return self._lost

    def add(self, text: bytes) -> None:
        with self._changed:
            if self._is_closing or self._waiting + len(text) > self._limit:
                self._lose(text.count(b"\n"), "it is closed" if self._is_closing else "its reader is too slow")
                return
            self._queue.append(text)
            self._waiting += len(text)

    def flush(self) -> None:
        with self._changed:
            if self._queue:
                self._is_awake = True
                self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until all lines that were added are written or lost. Returns False if that takes longer."""
        self.flush()
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Write the waiting lines within `timeout_s` (docs/invariants.md#deadlines-everywhere). The rest is lost."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            left = b"".join(self._queue)
            self._queue.clear()
            self._waiting -= len(left)
            if left:
                self._lose(left.count(b"\n"), "its reader is stuck")

    def _run(self) -> None:
        try:
            while (text := self._next_text()) is not None:
                self._write(text)
                with self._changed:
                    self._waiting -= len(text)
                    self._changed.notify_all()
        finally:
            os.close(self._descriptor)

    def _next_text(self) -> bytes | None:
        """Wait for text that may be written, and return it. Returns None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_awake or self._is_closing)
            if not self._queue:
                return None
            texts, size = [], 0
            while self._queue and size < MAX_WRITE_BYTES:
                texts.append(self._queue.popleft())
                size += len(texts[-1])
            self._is_awake = bool(self._queue)
            return b"".join(texts)

    def _write(self, text: bytes) -> None:
        first = 0
        if self._is_torn:  # an error cut the last line in two, and the next one needs a line of its own
            text, first = b"\n" + text, 1
        done = 0
        view = memoryview(text)
        while done < len(text):
            try:
                done += self._write_some(self._descriptor, view[done : self._cut(text, done)])
            except BlockingIOError:  # another process that shares standard output made it non-blocking
                self._wait_writable()
            except OSError as error:
                if done:
                    self._is_torn = text[done - 1] != ord("\n")
                with self._changed:
                    self._lose(text.count(b"\n", max(done, first)), error.strerror or str(error))
                return
        self._is_torn = False

    def _cut(self, text: bytes, start: int) -> int:
        """Return the end of what one write takes: whole lines, if a line is not too long for it."""
        end = start + self._step
        if end >= len(text):
            return len(text)
        return text.rfind(b"\n", start, end) + 1 or end

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll()

    def _lose(self, lines: int, reason: str) -> None:
        self._lost += lines
        now = time.monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + WARNING_INTERVAL_S
        # Standard error often has the same reader, and the loop must not wait for it there either.
        warning = threading.Thread(
            target=log.warning,
            args=("the access log lost lines, %d since the start: %s", self._lost, reason),
            daemon=True,
        )
        with contextlib.suppress(RuntimeError):  # without a free thread there is no warning, but the count is right
            warning.start()
