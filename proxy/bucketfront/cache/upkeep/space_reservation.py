"""The reservation of space, which evicts entries until the budget has enough (docs/invariants.md#space-bound).

The budget knows what the file system reports. A quota, and some other limits, show only when a call is refused.
`SpaceReservation.fit` evicts then, and calls again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage.storage import DiskSpace, Storage
from bucketfront.cache.upkeep.discard_queue import DiscardQueue
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.errors import DiskFull, StoreFull

T = TypeVar("T")

MAX_REFUSALS = 4  # of one call; a disk that is full in spite of so many evictions is filled by another program
SWEEP_TIMEOUT_S = 1.0  # enough for some hundred thousand files

log = logging.getLogger(__name__)


class SpaceReservation:
    """Reserves and frees space. Use it in the event loop.

    `flush` writes changed entries to the index. `promised` returns the bytes that running part fetches have reserved.
    """

    def __init__(
        self,
        entries: EntryTable,
        disposal: Disposal,
        discards: DiscardQueue,
        store: Storage,
        *,
        flush: Callable[[], Awaitable[None]],
        promised: Callable[[], int],
    ) -> None:
        self._entries = entries
        self._disposal = disposal
        self._discards = discards
        self._store = store
        self._flush = flush
        self._promised = promised
        self._swept: asyncio.Event | None = None

    async def reserve(self, count: int, files: int = 0) -> None:
        """Take `count` bytes from the budget, and `files` that will be made, and evict entries for them.

        Raises StoreFull if all others are pinned.
        """
        if self._swept is not None:
            await self._until_swept(self._swept)
        budget = self._entries.budget
        while budget.available < count or budget.available_files < files:
            if await self.free_discarded():
                continue
            victims = self._entries.evict(count - budget.available, files - budget.available_files)
            if not victims:
                used = f"{budget.used} of {budget.limit} bytes are in use"
                raise StoreFull(f"no room for {count} bytes and {files} files: {used}")
            await self.unlink_evicted(victims)
        budget.take(count)
        budget.take_files(files)

    async def fit(self, call: Callable[[], Awaitable[T]], count: int) -> T:
        """Return the result of `call`, which writes `count` bytes or makes a file.

        If the disk is full although the budget has space, entries are evicted and the call is repeated. Raises DiskFull
        if that does not help, and what `call` raises.
        """
        for _ in range(MAX_REFUSALS):
            try:
                return await call()
            except DiskFull as error:
                refusal = error
            if not await self.make_room(count):
                break
        self._store.note_failure(str(refusal))
        raise refusal

    async def make_room(self, count: int) -> bool:
        """Evict entries of `count` bytes, at least one. Returns False if all are pinned. Raises StoreError."""
        if await self.free_discarded():
            return True
        victims = self._entries.evict(count, 1)
        await self.unlink_evicted(victims)
        return bool(victims)

    async def free_discarded(self) -> bool:
        """Free some of the space of purged entries. Returns False if they take none any more. Raises StoreError."""
        if not await self._discards.free():
            return False
        if self._entries.budget.is_bound_by_disk:
            await self.sample_disk()
        return True

    def hold_until(self, swept: asyncio.Event) -> None:
        """Reserve nothing before the event `swept`, or for SWEEP_TIMEOUT_S at most.

        After a kill, files without a row take space that is not counted.
        """
        self._swept = swept

    async def _until_swept(self, swept: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(SWEEP_TIMEOUT_S):
                await swept.wait()
        except TimeoutError:
            log.info("the sweep takes longer than %g s: caching goes on beside it", SWEEP_TIMEOUT_S)
        self._swept = None

    async def unlink_evicted(self, victims: list[Entry]) -> None:
        """Unlink entries that `EntryTable` has evicted, and return when their space is free. Raises StoreError."""
        await self._disposal.unlink(victims)
        if self._entries.budget.is_bound_by_disk:
            await self.sample_disk()
        if self._entries.wants_flush:
            await self._flush()

    async def sample_disk(self) -> DiskSpace:
        """Note the free space of the disk in the budget, and return it. Raises StoreError."""
        budget = self._entries.budget
        promised, files = self._promised() - budget.taken, budget.files_taken
        disk = await self._store.disk_space()
        budget.sample(disk.free, promised + budget.taken)
        budget.disk_size, budget.inodes = disk.total, disk.inodes
        budget.sample_inodes(disk.free_inodes if disk.inodes else None, budget.files_taken - files)
        return disk
