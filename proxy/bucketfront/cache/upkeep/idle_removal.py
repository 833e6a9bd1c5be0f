"""The removal of entries that were not used for long, also while the files of purged ones are being removed.

Theory of operation
-------------------
The idle entries are the oldest ones. While `DiscardQueue` works, the oldest rows of the index may be a million of
entries that a purge removed, and no turn of the event loop may go through them all. So they are read by pages, some
pages in each step of the housekeeper, and the next step goes on behind them. An entry that was in use when its row was
read has its turn once the queue is empty.
"""

import asyncio

from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import Outline
from bucketfront.cache.upkeep.discard_queue import DiscardQueue
from bucketfront.cache.upkeep.space_reservation import SpaceReservation

PAGE_ROWS = 200  # in one turn of the event loop, about a millisecond
PAGES_PER_STEP = 100  # a tenth of a second of each second: a million rows take less than a minute


class IdleRemoval:
    """Removes idle entries in the event loop, the least recently used ones first."""

    def __init__(self, entries: EntryTable, index: Index, space: SpaceReservation, discards: DiscardQueue) -> None:
        self._entries = entries
        self._index = index
        self._space = space
        self._discards = discards
        self._last: Outline | None = None  # of the rows that were read since the queue was empty

    async def remove(self, before: float) -> int:
        """Remove the entries without an access since `before`, in seconds since the epoch. Raises StoreError.

        Returns how many were removed. The next call goes on with the others.
        """
        removed = 0
        if len(self._discards):
            for _ in range(PAGES_PER_STEP):
                rows = [row for row in self._index.oldest(PAGE_ROWS, self._last) if row.accessed_at < before]
                if not rows:
                    break
                self._last = rows[-1]
                idle = self._entries.evict_idle_rows(rows, before)
                removed += len(idle)
                await self._space.unlink_evicted(idle)
                await asyncio.sleep(0)
            return removed
        self._last = None
        while idle := self._entries.evict_idle(before):
            removed += len(idle)
            await self._space.unlink_evicted(idle)
        return removed
