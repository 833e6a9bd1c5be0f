"""Room for new bytes: taken from the budget, for which the entries that were used least lately give way (I17)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage.storage import Storage
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.errors import StoreFull

SWEEP_PATIENCE = 1.0  # seconds: enough for some hundred thousand files

log = logging.getLogger(__name__)


class Space:
    """`flush` writes to the index what has changed; `promised` gives the bytes that flights have taken for blocks to
    come.
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
        """Take `count` bytes from the budget, evicting for them. Raises StoreFull."""
        if self._swept is not None:
            await self._until_swept(self._swept)
        budget = self._entries.budget
        while budget.room < count:
            victims = self._entries.victims(count - budget.room)
            if not victims:
                raise StoreFull(f"no room for {count} bytes: {budget.used} of {budget.limit} are in use")
            await self.evict(victims)
        budget.take(count)

    def hold_until(self, swept: asyncio.Event) -> None:
        """Nothing is reserved before this, for SWEEP_PATIENCE at most: after a kill, files that no row names take space
        that is not counted (I17).
        """
        self._swept = swept

    async def _until_swept(self, swept: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(SWEEP_PATIENCE):
                await swept.wait()
        except TimeoutError:
            log.info("the sweep takes longer than %g s: caching goes on beside it", SWEEP_PATIENCE)
        self._swept = None

    async def evict(self, victims: list[Entry]) -> None:
        """Unlink entries that `EntryTable` has removed; returns when their space is free."""
        await self._disposal.unlink(victims)
        if self._entries.budget.is_bound_by_disk:
            await self.sample_disk()
        if self._entries.wants_flush:
            await self._flush()

    async def sample_disk(self) -> int:
        """Look how much the disk has free. Returns the bytes it has in all. Raises StoreError."""
        budget = self._entries.budget
        promised = self._promised() - budget.taken
        free, total = await self._store.disk_space()
        budget.sample(free, promised + budget.taken)
        return total
