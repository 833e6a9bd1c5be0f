"""Text from the event loop into a descriptor whose other end may be slow, or fail: the loop waits for neither.

Rule 1: `add` never blocks; what is not yet written is bounded in bytes, and what goes beyond the bound is lost.
Rule 2: a line that is lost is counted, whatever lost it.
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

LIMIT = 8 << 20  # bytes of text that may wait
SHARE = 1 << 20  # bytes per turn of the thread
WARNING_INTERVAL = 60.0  # seconds between two complaints about lost lines

log = logging.getLogger(__name__)


class LineWriter:
    """Writes ASCII lines to `descriptor`, and closes it at the end. `limit`, in bytes, bounds what waits.

    A thread of its own does the writing: neither a pipe that nobody reads nor a failing disk can be waited for in
    the event loop. It is a daemon, so that a reader that is stuck for good cannot keep the process from ending.
    """

    def __init__(self, descriptor: int, limit: int = LIMIT, write: Callable[[int, memoryview], int] = os.write) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._write_some = write
        # Of a pipe, only what fits into PIPE_BUF is taken in one piece: larger writes would mix with other writers'.
        self._step = select.PIPE_BUF if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else SHARE
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._waiting = 0  # bytes, those being written included
        self._lost = 0
        self._is_awake = False
        self._is_closing = False
        self._is_torn = False
        self._quiet_until = 0.0
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines that were not written: no room, an error of the disk or the reader, or the end."""
        return self._lost

    def add(self, text: bytes) -> None:
        """Whole lines, for the next `wake`."""
        with self._changed:
            if self._is_closing or self._waiting + len(text) > self._limit:
                self._lose(text.count(b"\n"), "it is closed" if self._is_closing else "its reader is too slow")
                return
            self._queue.append(text)
            self._waiting += len(text)

    def wake(self) -> None:
        """Have all written that was added."""
        with self._changed:
            if self._queue:
                self._is_awake = True
                self._changed.notify_all()

    def drain(self, patience: float) -> bool:
        """Wait, at most `patience` seconds, until all that was added is written or lost; whether it is."""
        self.wake()
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, patience)

    def close(self, patience: float) -> None:
        """Write what waits, for at most `patience` seconds (I20); the rest is lost."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(patience)
        with self._changed:
            left = b"".join(self._queue)
            self._queue.clear()
            self._waiting -= len(left)
            if left:
                self._lose(left.count(b"\n"), "its reader is stuck")

    def _run(self) -> None:
        try:
            while (share := self._next_share()) is not None:
                self._write(share)
                with self._changed:
                    self._waiting -= len(share)
                    self._changed.notify_all()
        finally:
            os.close(self._descriptor)

    def _next_share(self) -> bytes | None:
        """Waits for it. None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_awake or self._is_closing)
            if not self._queue:
                return None
            share, size = [], 0
            while self._queue and size < SHARE:
                share.append(self._queue.popleft())
                size += len(share[-1])
            self._is_awake = bool(self._queue)
            return b"".join(share)

    def _write(self, text: bytes) -> None:
        first = 0
        if self._is_torn:  # the next line must not be joined to what an error cut in two
            text, first = b"\n" + text, 1
        done = 0
        view = memoryview(text)
        while done < len(text):
            try:
                done += self._write_some(self._descriptor, view[done : self._cut(text, done)])
            except BlockingIOError:  # whoever shares our standard output has made it so
                self._wait_writable()
            except OSError as error:
                if done:
                    self._is_torn = text[done - 1] != ord("\n")
                with self._changed:
                    self._lose(text.count(b"\n", max(done, first)), error.strerror or str(error))
                return
        self._is_torn = False

    def _cut(self, text: bytes, start: int) -> int:
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
        self._quiet_until = now + WARNING_INTERVAL
        # Standard error often ends at the same reader: the loop must not wait for it there either.
        complaint = threading.Thread(
            target=log.warning,
            args=("the access log lost lines, %d since the start: %s", self._lost, reason),
            daemon=True,
        )
        with contextlib.suppress(RuntimeError):  # no thread to be had: no reason to fail a request, and the count tells
            complaint.start()
