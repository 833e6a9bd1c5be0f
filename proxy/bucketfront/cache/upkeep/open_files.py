"""The files of entries: it creates, opens and closes them.

If the disk or the budget refuses, the entry has no file and its bytes pass through
(docs/invariants.md#disk-faults-degrade).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bucketfront.cache.entries.entry import ENTRY_BYTES, Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.entries.removals import refusal_because_of
from bucketfront.cache.storage.storage import Storage
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.cache.upkeep.space_reservation import SpaceReservation
from bucketfront.errors import ObjectTooLarge, StoreError

log = logging.getLogger(__name__)


class OpenFiles:
    """Creates and opens files in the event loop, each once for all its users. `flush` writes changes to the index."""

    def __init__(
        self,
        entries: EntryTable,
        disposal: Disposal,
        store: Storage,
        space: SpaceReservation,
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._entries = entries
        self._disposal = disposal
        self._store = store
        self._space = space
        self._flush = flush
        self._opening: dict[int, asyncio.Task[None]] = {}

    async def give(self, entry: Entry) -> None:
        """Create a file for the entry, unless the disk or the budget refuses."""
        try:
            await self._create(entry)
        except StoreError as error:
            self._go_on_uncached(entry, error)

    def _go_on_uncached(self, entry: Entry, error: StoreError) -> None:
        self._entries.removals.refused(entry.key, refusal_because_of(error))
        log.info("%s goes on uncached: %s", entry.key, error)

    async def _create(self, entry: Entry) -> None:
        """Create the file. Raises StoreError or StoreFull, and then the entry stays in memory only."""
        if entry.metadata.size + ENTRY_BYTES > self._entries.budget.limit:
            raise ObjectTooLarge(f"{entry.key} has {entry.metadata.size} bytes, more than the whole cache")
        if not self._store.is_usable:
            raise StoreError("the disk failed a moment ago")
        await self.spare_descriptors()
        await self._space.reserve(ENTRY_BYTES, files=1)
        try:
            file = await self._space.fit(lambda: self._store.create(entry.metadata.size), ENTRY_BYTES)
        except BaseException:
            self._entries.budget.give_back(ENTRY_BYTES)
            raise
        self._entries.attach(entry, file)
        if entry.is_removed:  # it was purged meanwhile
            self._disposal.unlink_later(entry)

    async def open(self, entry: Entry, *, wants_body: bool) -> bool:
        """Open the entry's file if it needs one. Returns False if the entry is of no use because its file is gone.

        A HEAD needs the file as well: after a kill, a purged entry may still have its row, but not its file
        (docs/invariants.md#admin-is-apart).
        """
        if entry.file is not None or not self._store.is_usable:
            return True
        if entry.file_name is None and (entry.is_removed or not wants_body or not entry.metadata.size):
            # There are no bytes to read, or they are not stored and pass through.
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
            # This takes a while for a large object with many gaps.
            known = self._entries.present_spans(entry) if self._entries.wants_trimming(entry) else None
            file = await self._store.open_file(entry.file_name, entry.metadata.size, known)
            if file is not None:
                self._entries.attach(entry, file)
        except StoreError as error:
            self._go_on_uncached(entry, error)
        finally:
            self._disposal.unpin(entry)

    async def trim(self, entry: Entry) -> None:
        """Free the space of bytes outside the present blocks, which an unclean stop has left in the file."""
        if entry.file is None and self._entries.wants_trimming(entry):
            await self.open(entry, wants_body=True)

    async def cool(self) -> None:
        """Close the files of entries that leave memory because there are too many. Raises StoreError."""
        cooled = self._entries.cool()
        files = [entry.file for entry in cooled if entry.file is not None]
        for entry in cooled:
            entry.file = None
        # All are closed even if one fails, because no entry knows them any more.
        await asyncio.gather(*map(self._store.close_file, files))

    async def spare_descriptors(self) -> None:
        """Make sure that one more file may be opened (docs/invariants.md#descriptors)."""
        if self._entries.is_crowded:
            await self._flush()  # changed entries stay in memory until they are flushed
            await self.cool()

    async def finish(self) -> None:
        """Wait for the files that are being opened."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
