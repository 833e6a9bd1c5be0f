"""The notices of this node on their way to the bus, in memory, with a bound. Synchronous, and no I/O here."""

import asyncio
from collections import deque
from collections.abc import Iterable

from bucketfront.fleet.notice import Notice, Signal, encoded

MAX_QUEUED = 10_000  # notices
MAX_QUEUED_BYTES = 16 << 20


class Outbox:
    """A queue of encoded notices. If it overflows, one notice takes the place of all: `EVERYTHING_STALE`."""

    def __init__(self) -> None:
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._has_more = asyncio.Event()
        self._has_sent = asyncio.Event()
        self.added = 0  # notices since the start, also those that an overflow has replaced
        self.sent = 0  # of them, those that the bus has, or that one on the bus has replaced
        self.overflows = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, notice: Notice) -> int:
        """Queue a notice. Returns the number up to which `sent` must come until the bus has it."""
        self._put(encoded(notice))
        return self.added

    def _put(self, forms: Iterable[bytes]) -> None:
        for form in forms:
            self._queue.append(form)
            self._bytes += len(form)
            self.added += 1
        if len(self._queue) > MAX_QUEUED or self._bytes > MAX_QUEUED_BYTES:
            self.overflows += 1
            self._queue.clear()
            self._bytes = 0
            (everything,) = encoded(Signal.EVERYTHING_STALE)
            self._queue.append(everything)
            self._bytes = len(everything)
        self._has_more.set()

    def first(self, count: int) -> list[bytes]:
        """Return the first notices of the queue, which stay in it until `note_sent`."""
        return [self._queue[number] for number in range(min(count, len(self._queue)))]

    def note_sent(self, notices: list[bytes]) -> None:
        """Take notices from the queue, because the bus has them. An overflow meanwhile has replaced some."""
        for notice in notices:
            if not self._queue or self._queue[0] is not notice:
                break
            self._queue.popleft()
            self._bytes -= len(notice)
        self.sent = self.added - len(self._queue)
        self._has_sent.set()

    async def filled(self) -> None:
        """Wait until the queue has something."""
        while not self._queue:
            self._has_more.clear()
            await self._has_more.wait()

    async def emptied(self, number: int) -> None:
        """Wait until the bus has all notices up to a number."""
        while self.sent < number:
            self._has_sent.clear()
            await self._has_sent.wait()
