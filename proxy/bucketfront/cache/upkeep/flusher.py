"""Writes changed entries to the index; in durable mode after the data that they claim (docs/invariants.md#no-holes)."""

import asyncio
import logging

from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.entries.removals import RemovalReason
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import Changes
from bucketfront.cache.storage.storage import Storage
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.errors import StoreError
from bucketfront.task_set import TaskSet

log = logging.getLogger(__name__)


class Flusher:
    """Flushes in the event loop, one flush at a time. If `is_durable` is true, a flush outlives a loss of power."""

    def __init__(
        self, index: Index, entries: EntryTable, disposal: Disposal, store: Storage, *, is_durable: bool
    ) -> None:
        self._index = index
        self._entries = entries
        self._disposal = disposal
        self._store = store
        self._is_durable = is_durable
        self._lock = asyncio.Lock()
        self._tasks = TaskSet()
        self.has_failed = False  # the index did not take the changes of the last flush

    async def flush(self) -> None:
        """Write the changes to the index. A failure counts as one of the disk, and the next flush tries again.

        It goes on if the caller is cancelled, because its changes would be lost otherwise.
        """
        await self._tasks.run(self._flush(), name="flush")

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
                self._store.note_failure(str(error))
                self.has_failed = True
                return
            self.has_failed = False
            self._entries.flushed(changes)
            try:
                self._entries.budget.overhead = await self._index.space()
            except StoreError as error:  # the number of the last flush is good enough
                self._store.note_failure(str(error))

    async def _synced(self, changes: Changes) -> Changes:
        """Sync the files, and return the changes that may be written then.

        An entry is removed if its sync fails, because the kernel has dropped the pages (docs/invariants.md#crash-only).
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
                self._disposal.remove(entry, RemovalReason.LOST)
            finally:
                self._disposal.unpin(entry)
        return changes.without(failed)

    async def recover(self) -> bool:
        """Begin again with an empty cache if another process deleted the folder or the index.

        Returns whether that was the case. Then the folder may have files without a row. Raises StoreError.
        """
        if not await self._store.has_lost(self._index.path.name, self._index.identity):
            return False
        async with self._lock:
            await self._store.renew()
            await self._index.renew()
            for entry in self._entries.remove_all():
                self._disposal.unlink_later(entry)
        log.warning("the cache folder, or the index in it, was gone: begun anew")
        return True
