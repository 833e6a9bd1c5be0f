"""The cache's upkeep, once a second: flush the index, remove idle entries, keep `min_free`, close cold files, and see
whether the folder is still there.

One step handles a bounded number of entries and never holds the loop for long (I18).
"""

import asyncio
import logging
from collections.abc import Callable

from bucketfront.cache.cache import Cache
from bucketfront.cache.clock import Clock
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage.file_storage import FileStorage
from bucketfront.cache.storage.folder import FoundFile
from bucketfront.cache.storage.index import Index
from bucketfront.errors import StoreError

SWEEP_AGAIN = 5.0  # seconds after a sweep that met a failing disk
INTERVAL = 1.0  # seconds; the most that a kill can make the index forget

log = logging.getLogger(__name__)


class Housekeeper:
    """It removes entries that were not used for `idle_timeout` seconds of `clock`. `min_free` gives bytes from a disk's
    total.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        entries: EntryTable,
        store: FileStorage,
        index: Index,
        clock: Clock,
        idle_timeout: float,
        min_free: Callable[[int], int],
    ) -> None:
        self._cache = cache
        self._entries = entries
        self._store = store
        self._index = index
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._min_free = min_free
        self._tasks: list[asyncio.Task[None]] = []
        self._left = 0  # bytes of files that the last sweep could not remove
        self.swept = asyncio.Event()  # every file that was there at the start is an entry's

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._run(), name="evictor"),
            asyncio.create_task(self._sweep_all(), name="sweep"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        told = ""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.step()
            except StoreError as error:
                if str(error) != told:  # a disk may be full for days
                    told = str(error)
                    log.warning("upkeep: %s", error)
            else:
                told = ""

    async def step(self) -> None:
        """One round. Raises StoreError when the disk fails; the next round tries again."""
        lost: StoreError | None = None
        try:
            if await self._cache.flusher.recover():
                await self.sweep()
        except StoreError as error:
            lost = error  # the rest is due all the same
        await self._cache.flusher.flush()
        await self._remove_idle()
        await self._keep_free()
        await self._cache.files.cool()
        if lost is not None:
            raise lost

    async def _remove_idle(self) -> None:
        removed = 0
        while idle := self._entries.idle(self._clock.ago(self._idle_timeout)):
            removed += len(idle)
            await self._cache.room.evict(idle)
        if removed:
            log.info("%d idle entries removed", removed)
            await self._cache.flusher.flush()

    async def measure(self) -> None:
        """What the disk has free, and what of it is to stay so. Raises StoreError."""
        self._entries.budget.floor = self._min_free(await self._cache.room.sample_disk())

    async def _keep_free(self) -> None:
        await self.measure()
        budget = self._entries.budget
        over, removed = -budget.room, 0
        while budget.room < 0 and (victims := self._entries.victims(-budget.room)):
            removed += len(victims)
            await self._cache.room.evict(victims)
        if removed:
            log.info("%d bytes over the limit: %d entries removed", over, removed)

    async def _sweep_all(self) -> None:
        """Until all is swept: what nobody knows of takes space that nobody counts (I17)."""
        while True:
            try:
                await self.sweep()
            except StoreError as error:
                log.info("the sweep is begun again in a while: %s", error)
                await asyncio.sleep(SWEEP_AGAIN)
            else:
                self.swept.set()
                return

    async def sweep(self) -> None:
        """Remove files that no row names: what a kill left between a file and its row; and give back what a kill left
        in files beyond what their rows are charged for. Raises StoreError, the first of those that it met; the rest is
        swept all the same, and what has to stay is charged until the next sweep.
        """
        removed = left = 0
        failed: StoreError | None = None
        for shard in await self._store.shards():
            try:
                unknown = await self._strays_in(shard)
            except StoreError as error:
                failed = failed or error
                continue
            for file in unknown:
                try:
                    await self._store.remove(file.name)
                    removed += 1
                except StoreError as error:
                    failed = failed or error
                    left += file.allocated
        self._entries.budget.take(left)
        self._entries.budget.give_back(self._left)
        self._left = left
        if removed:
            log.info("%d orphan files removed", removed)
        if failed is not None:
            raise failed

    async def _strays_in(self, shard: str) -> list[FoundFile]:
        """Files of no entry. Those of entries are trimmed on the way."""
        found = [file for file in await self._store.files(shard) if file.changed_at < self._store.opened_at]
        known = self._index.files_of_shard(shard)
        for file in found:
            entry, charged = known.get(file.name, (0, file.allocated))
            if file.allocated > charged:
                await self._trim(entry)
        unknown = [file for file in found if file.name not in known]
        hot = self._entries.hot_files() if unknown else set()
        return [file for file in unknown if file.name not in hot]

    async def _trim(self, entry_id: int) -> None:
        row = self._index.row(entry_id)
        entry = None if row is None else self._entries.get(row.key)
        if entry is not None and entry.id == entry_id:
            await self._cache.files.trim(entry)
