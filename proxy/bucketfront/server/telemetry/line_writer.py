"""Writes lines from the event loop into a descriptor whose other end may be slow or fail.

1. `add` never blocks. The bytes that wait have a bound, and lines beyond it are lost.
2. Each lost line is counted, whatever the reason.
3. A reopened log has each line once: those added before `reopen` in the old file, later ones in the new file.
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

    `open_again` opens the file at the log's path, and may raise OSError. None means that the log has no path.

    A thread does the writing, so that the event loop waits neither for a stuck pipe nor for a failing disk. It is a
    daemon, so that a reader that is stuck for good does not keep the process from ending.
    """

    def __init__(
        self,
        descriptor: int,
        limit: int = MAX_WAITING_BYTES,
        write: Callable[[int, memoryview], int] = os.write,
        open_again: Callable[[], int] | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._write_some = write
        self._open_again = open_again
        self._step = _step(descriptor)
        self._changed = threading.Condition()
        self._queue: deque[bytes | None] = deque()  # None is the place of a `reopen` among the lines
        self._is_reopening = False
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
            return self._changed.wait_for(
                lambda: not (self._waiting or self._is_reopening or None in self._queue), timeout_s
            )

    def reopen(self) -> None:
        """Write the lines that are added later to a file that is opened anew. Never blocks.

        If that fails, a warning has the reason, and the lines go on in the old file.
        """
        with self._changed:
            if not self._is_closing and not (self._queue and self._queue[-1] is None):
                self._queue.append(None)
                self._is_awake = True
                self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Write the waiting lines within `timeout_s` (docs/invariants.md#deadlines-everywhere). The rest is lost."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            left = b"".join(filter(None, self._queue))
            self._queue.clear()
            self._waiting -= len(left)
            if left:
                self._lose(left.count(b"\n"), "its reader is stuck")

    def _run(self) -> None:
        try:
            while (text := self._next_text()) is not None:
                if self._is_reopening:
                    self._reopen()
                self._write(text)
                with self._changed:
                    self._waiting -= len(text)
                    self._is_reopening = False
                    self._changed.notify_all()
        finally:
            os.close(self._descriptor)

    def _next_text(self) -> bytes | None:
        """Wait for text that may be written, and return it. Returns None at the end.

        If `reopen` was called before the text, it sets `_is_reopening`. Then the text may be empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_awake or self._is_closing)
            if not self._queue:
                return None
            texts: list[bytes] = []
            size = 0
            if self._queue[0] is None:
                self._queue.popleft()
                self._is_reopening = True
            while self._queue and size < MAX_WRITE_BYTES and (text := self._queue[0]) is not None:
                self._queue.popleft()
                texts.append(text)
                size += len(text)
            self._is_awake = bool(self._queue)
            return b"".join(texts)

    def _reopen(self) -> None:
        if self._open_again is None:
            self._warn("the access log is standard output, which cannot be reopened; its lines go on there")
            return
        try:
            descriptor = self._open_again()
        except OSError as error:
            reason = error.strerror or str(error)
            self._warn("the access log cannot be reopened, and its lines go on in the old file: %s", reason)
            return
        with contextlib.suppress(OSError):  # an error of the old file, whose lines no call can write any more
            os.close(self._descriptor)
        self._descriptor, self._step, self._is_torn = descriptor, _step(descriptor), False

    def _write(self, text: bytes) -> None:
        if not text:
            return
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
        self._warn("the access log lost lines, %d since the start: %s", self._lost, reason)

    def _warn(self, message: str, *values: object) -> None:
        # Standard error often has the same reader, and the loop must not wait for it there either.
        warning = threading.Thread(target=log.warning, args=(message, *values), daemon=True)
        with contextlib.suppress(RuntimeError):  # without a free thread there is no warning, but the count is right
            warning.start()


def _step(descriptor: int) -> int:
    """Return how many bytes one write takes."""
    # A write of at most PIPE_BUF bytes to a pipe is atomic. A larger one could mix with those of other writers.
    return select.PIPE_BUF if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else MAX_WRITE_BYTES
