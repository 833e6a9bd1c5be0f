"""The queue of discarded entries: those that large purges removed, and whose files and rows are still there.

Theory of operation
-------------------
A purge of a million entries must not take as long as a million files take to unlink. It marks the entries as discarded
in memory and in the index, and from then on no lookup finds them, also after a kill. Their bytes stay charged. This
queue unlinks the files a batch at a time. Then the index forgets the batch, and the budget gets its bytes back: no byte
is given back before the file system has freed it (docs/invariants.md#space-bound).

A request that needs space takes it from this queue before an entry is evicted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.storage import Storage
from bucketfront.errors import StoreError
from bucketfront.task_set import TaskSet

BATCH_FILES = 128  # unlinked in one call of a thread, and forgotten in one transaction: some milliseconds each
PAUSE_S = 0.005  # between two batches in the background, which leaves the disk and the index to requests
RETRY_S = 5.0  # after a failure of the disk

log = logging.getLogger(__name__)


class DiscardQueue:
    """Removes the files and rows of discarded entries, in the event loop. `flush` writes changes to the index."""

    def __init__(self, entries: EntryTable, index: Index, store: Storage, flush: Callable[[], Awaitable[None]]) -> None:
        self._entries = entries
        self._index = index
        self._store = store
        self._flush = flush
        self._lock = asyncio.Lock()
        self._tasks = TaskSet()
        self._has_more = asyncio.Event()

    def __len__(self) -> int:
        """Return how many discarded entries still take space."""
        return self._entries.discarded

    def notify(self) -> None:
        """Have `run` go on, because a purge has discarded entries."""
        self._has_more.set()

    async def run(self) -> None:
        """Empty the queue, and again after each purge."""
        while True:
            self._has_more.clear()
            try:
                while await self.free():  # noqa: ASYNC110 - the pause waits for nothing
                    await asyncio.sleep(PAUSE_S)
            except StoreError as error:
                log.info("the files of purged objects are removed in a while: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            await self._has_more.wait()

    async def empty(self) -> None:
        """Remove the files and rows of all entries that are in the queue. Raises StoreError."""
        while await self.free():
            pass

    async def free(self) -> bool:
        """Remove the files and rows of one batch. Returns False if the queue is empty. Raises StoreError.

        It goes on if the caller is cancelled, because the budget would lose these bytes otherwise.
        """
        if not len(self):
            return False
        return await self._tasks.run(self._free())

    async def finish(self) -> None:
        """Wait until the batch that is being removed is gone."""
        await self._tasks.wait()

    async def _free(self) -> bool:
        async with self._lock:
            ids, rows = self._index.discarded(BATCH_FILES)
            if not ids:
                await self._flush()
                ids, rows = self._index.discarded(BATCH_FILES)
            if not ids:
                return False
            await self._store.remove_all([row.file for row in rows])
            await self._index.forget(ids)
            self._entries.free_discarded(ids, rows)
            return True
