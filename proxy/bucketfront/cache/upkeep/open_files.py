"""The files of entries: made, opened and closed. Where the disk or the budget refuses, bytes pass through (I16)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bucketfront.cache.entries.entry import ENTRY_BYTES, Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage.storage import Storage
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.cache.upkeep.space import Space
from bucketfront.errors import StoreError, StoreFull

log = logging.getLogger(__name__)


class OpenFiles:
    """`flush` writes to the index what has changed."""

    def __init__(
        self,
        entries: EntryTable,
        disposal: Disposal,
        store: Storage,
        room: Space,
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._entries = entries
        self._disposal = disposal
        self._store = store
        self._room = room
        self._flush = flush
        self._opening: dict[int, asyncio.Task[None]] = {}

    async def give(self, entry: Entry) -> None:
        """Have a file for the entry's bytes, unless the disk or the budget refuses."""
        try:
            await self._create(entry)
        except StoreError as error:
            log.info("%s goes on uncached: %s", entry.key, error)

    async def _create(self, entry: Entry) -> None:
        """Raises StoreError, StoreFull: the entry stays metadata only."""
        if entry.metadata.size + ENTRY_BYTES > self._entries.budget.limit:
            raise StoreFull(f"{entry.key} has {entry.metadata.size} bytes, more than the whole cache")
        if not self._store.is_usable:
            raise StoreError("the disk failed a moment ago")
        await self.spare_descriptors()
        await self._room.reserve(ENTRY_BYTES)
        try:
            file = await self._store.create(entry.metadata.size)
        except BaseException:
            self._entries.budget.give_back(ENTRY_BYTES)
            raise
        self._entries.attach(entry, file)
        if entry.is_removed:  # purged while its file was made
            self._disposal.discard(entry)

    async def open(self, entry: Entry, *, wants_body: bool) -> bool:
        """Have the entry's file open, or know that it has none. False: the entry cannot be used.

        A HEAD, too, needs the file of an entry that has one: what was purged has only its row left after a kill (I27).
        """
        if entry.file is not None or not self._store.is_usable:
            return True
        if entry.file_name is None and (entry.is_removed or not wants_body or not entry.metadata.size):
            # Nothing to read, or not to be kept: then its bytes pass through.
            return True
        task = self._opening.get(entry.id)
        if task is None:
            task = self._opening[entry.id] = asyncio.create_task(self._open(entry))
            task.add_done_callback(lambda _: self._opening.pop(entry.id))
        await asyncio.shield(task)
        return entry.file is not None or entry.file_name is None or not self._store.is_usable

    async def _open(self, entry: Entry) -> None:
        self._entries.pin(entry)
        try:
            await self.spare_descriptors()
            if entry.file_name is None:
                await self.give(entry)
                return
            # Of a large object with many gaps it takes a while to know.
            known = self._entries.present_spans(entry) if self._entries.wants_trimming(entry) else None
            file = await self._store.open_file(entry.file_name, entry.metadata.size, known)
            if file is not None:
                self._entries.attach(entry, file)
        except StoreError as error:
            log.info("%s goes on uncached: %s", entry.key, error)
        finally:
            self._disposal.unpin(entry)

    async def trim(self, entry: Entry) -> None:
        """Give back what the entry's file has beside its present blocks, after an unclean stop."""
        if entry.file is None and self._entries.wants_trimming(entry):
            await self.open(entry, wants_body=True)

    async def cool(self) -> None:
        """Close the files of entries that leave memory because there are too many."""
        cooled = self._entries.cooled()
        files = [entry.file for entry in cooled if entry.file is not None]
        for entry in cooled:
            entry.file = None
        # None of them stays open because another one fails: nobody knows them any more.
        await asyncio.gather(*map(self._store.close_file, files))

    async def spare_descriptors(self) -> None:
        """Before one more is opened."""
        if self._entries.is_crowded:
            await self._flush()  # what the index does not know yet stays in memory
            await self.cool()

    async def finish(self) -> None:
        """Wait for those that are being opened."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
