"""The reservation of space, which evicts entries until the budget has enough (docs/invariants.md#space-bound)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage.storage import Storage
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.errors import StoreFull

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
        store: Storage,
        *,
        flush: Callable[[], Awaitable[None]],
        promised: Callable[[], int],
    ) -> None:
        self._entries = entries
        self._disposal = disposal
        self._store = store
        self._flush = flush
        self._promised = promised
        self._swept: asyncio.Event | None = None

    async def reserve(self, count: int) -> None:
        """Take `count` bytes from the budget, and evict entries for them. Raises StoreFull if all others are pinned."""
        if self._swept is not None:
            await self._until_swept(self._swept)
        budget = self._entries.budget
        while budget.available < count:
            victims = self._entries.evict(count - budget.available)
            if not victims:
                raise StoreFull(f"no room for {count} bytes: {budget.used} of {budget.limit} are in use")
            await self.unlink_evicted(victims)
        budget.take(count)

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

    async def sample_disk(self) -> int:
        """Note the free space of the disk in the budget. Returns the total bytes of the disk. Raises StoreError."""
        budget = self._entries.budget
        promised = self._promised() - budget.taken
        free, total = await self._store.disk_space()
        budget.sample(free, promised + budget.taken)
        return total
