"""Reads what the cache has stored, round after round, and has what went bad on the disk fetched again (I15)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bucketfront.cache.cache import Cache
from bucketfront.cache.storage.index import Index
from bucketfront.errors import StoreError

RATE = 8 << 20  # bytes a second: 10 GiB in 22 minutes, 1 TiB in a day and a half
FILE_COST = 128 << 10  # bytes that a file counts as besides its own: 64 files a second, a million in four hours
PERIOD = 3600.0  # seconds from one round's begin to the next one's, at the least
PAUSE = 60.0  # seconds before a round, at the least: a start has other things to do
PAGE = 64  # rows of the index read at a time

log = logging.getLogger(__name__)


class Scrubber:
    """A block is read once in PERIOD, or in the time that all of them take at RATE, whichever is longer.

    `clock` is monotonic, in seconds, and so is what `sleep` takes.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        index: Index,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cache = cache
        self._index = index
        self._clock = clock
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="scrubber")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = PAUSE
        while True:
            await self._sleep(pause)
            began = self._clock()
            try:
                await self.round()
            except StoreError as error:
                log.warning("the round is given up: %s", error)
            pause = max(PAUSE, PERIOD - (self._clock() - began))

    async def round(self) -> None:
        """All entries that the index has. Raises StoreError where the disk or the index fails."""
        last = 0
        while rows := self._index.rows_after(last, PAGE):
            for row in rows:
                for page in self._index.pages(row.id):
                    count = await self._cache.scrub(row, page)
                    await self._sleep((count + FILE_COST) / RATE)
            last = rows[-1].id
