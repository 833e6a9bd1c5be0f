"""Reads the stored blocks, round after round, and removes the corrupt ones, so that they are fetched again.

See docs/invariants.md#self-healing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.removals import RemovalReason
from bucketfront.cache.fetch.fill import Fill
from bucketfront.cache.fetch.part_fetch import FetchContext
from bucketfront.cache.statistics import Counters
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import PAGE_BLOCKS, Page, Row
from bucketfront.cache.upkeep.open_files import OpenFiles
from bucketfront.errors import StoreError
from bucketfront.task_set import TaskSet

READ_RATE = 8 << 20  # bytes a second: 10 GiB in 22 minutes, 1 TiB in a day and a half
FILE_COST_BYTES = 128 << 10  # counted for each file besides its own bytes: 64 files a second, a million in four hours
ROUND_INTERVAL_S = 3600.0  # from the start of one round to the next, at least
PAUSE_S = 60.0  # before each round, at least, because a start has more urgent work
PAGE_ROWS = 64  # of the index, read at a time

log = logging.getLogger(__name__)


class Scrubber:
    """A task that reads each block once in ROUND_INTERVAL_S, or as often as READ_RATE allows.

    `clock` is monotonic, in seconds, and `sleep` takes seconds.
    """

    def __init__(
        self,
        *,
        index: Index,
        fetch_context: FetchContext,
        open_files: OpenFiles,
        counters: Counters,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._index = index
        self._fetch_context = fetch_context
        self._entries = fetch_context.entries
        self._open_files = open_files
        self._counters = counters
        self._clock = clock
        self._sleep = sleep
        self._tasks = TaskSet()

    def start(self) -> None:
        self._tasks.start(self._run(), name="scrubber")

    async def stop(self) -> None:
        await self._tasks.close()

    async def _run(self) -> None:
        pause = PAUSE_S
        while True:
            await self._sleep(pause)
            began = self._clock()
            try:
                await self.round()
            except StoreError as error:
                log.warning("the round is given up: %s", error)
            pause = max(PAUSE_S, ROUND_INTERVAL_S - (self._clock() - began))

    async def round(self) -> None:
        """Read the blocks of all entries in the index. Raises StoreError if the disk or the index fails."""
        last = 0
        while rows := self._index.rows_after(last, PAGE_ROWS):
            for row in rows:
                for page in self._index.pages(row.id):
                    count = await self._scrub(row, page)
                    await self._sleep((count + FILE_COST_BYTES) / READ_RATE)
            last = rows[-1].id

    async def _scrub(self, row: Row, page: Page) -> int:
        """Read the blocks of one page of a row, and return their bytes.

        Corrupt blocks are removed, and so is an entry whose file is gone. Raises StoreError.
        """
        block_size, claims = self._fetch_context.block_size, tuple(page.claims())
        damage = await self._fetch_context.store.audit(row.file, row.metadata.size, claims, block_size)
        entry = self._entries.get(row.key) if damage != 0 else None
        if entry is not None and entry.id == row.id:
            log.warning("%s: %s", row.key, "its file is gone" if damage is None else "blocks went bad on the disk")
            if damage is None:
                self._fetch_context.remove(entry, RemovalReason.LOST)
            else:
                await self._verify(entry, damage)
        self._counters.scrubbed_blocks += len(claims)
        return blocks.allocated(page.present << page.number * PAGE_BLOCKS, row.metadata.size, block_size)

    async def _verify(self, entry: Entry, suspects: int) -> None:
        """Read the suspect blocks once more, as the fill does before it serves unverified ones."""
        self._entries.pin(entry)
        try:
            self._entries.mark_unverified(entry, suspects)
            await self._open_files.open(entry, wants_body=True)
            for block in blocks.members(suspects & entry.unverified):
                if entry.file is not None:
                    await Fill.of(entry, self._fetch_context).verification.verify(block)
        finally:
            self._fetch_context.unpin(entry)
