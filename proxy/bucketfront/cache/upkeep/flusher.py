"""What memory knows and the index does not is written there; where that is wanted, after the data it is about (I2)."""

import asyncio
import logging

from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import Changes
from bucketfront.cache.storage.storage import Storage
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.errors import StoreError

log = logging.getLogger(__name__)


class Flusher:
    """`is_durable`: what the index claims is to outlive power loss."""

    def __init__(
        self, index: Index, entries: EntryTable, disposal: Disposal, store: Storage, *, is_durable: bool
    ) -> None:
        self._index = index
        self._entries = entries
        self._disposal = disposal
        self._store = store
        self._is_durable = is_durable
        self._lock = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()

    async def flush(self) -> None:
        """Write to the index what has changed. A failure is the disk's: it is tried again at the next flush. It is not
        broken off with its caller: what it took in hand would be forgotten.
        """
        task = asyncio.create_task(self._flush(), name="flush")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.shield(task)

    async def _flush(self) -> None:
        async with self._lock:
            changes = self._entries.changes()
            if not changes:
                return
            if self._is_durable:
                changes = await self._synced(changes)
            try:
                await self._index.flush(changes)
            except StoreError as error:
                self._entries.not_flushed(changes)
                self._store.failed(str(error))
                return
            self._entries.flushed(changes)
            try:
                self._entries.budget.overhead = await self._index.space()
            except StoreError as error:  # the number of the last flush is good enough
                self._store.failed(str(error))

    async def _synced(self, changes: Changes) -> Changes:
        """Data first, then the claims (I2): what of `changes` may be written now that the files were synced. An entry
        whose file could not be is removed (I14).
        """
        failed: set[int] = set()
        written = {entry for entry, _, _ in changes.sums}
        for row in changes.rows:
            entry = self._entries.hot(row.key)
            if row.id not in written or entry is None or entry.id != row.id or entry.file is None:
                continue
            self._entries.pin(entry)
            try:
                await self._store.sync(entry.file)
            except StoreError as error:
                log.warning("%s is discarded: %s", entry.key, error)
                failed.add(entry.id)
                self._disposal.drop(entry)
            finally:
                self._disposal.unpin(entry)
        return changes.without(failed)

    async def recover(self) -> bool:
        """Begin anew where the folder, or the index in it, was deleted under this process. True: it had to; files that
        nobody knows of may be left. Raises StoreError.
        """
        if not await self._store.has_lost(self._index.path.name, self._index.identity):
            return False
        async with self._lock:
            await self._store.renew()
            await self._index.renew()
            for entry in self._entries.forget():
                self._disposal.discard(entry)
        log.warning("the cache folder, or the index in it, was gone: begun anew")
        return True
