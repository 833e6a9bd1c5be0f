"""The cache's upkeep, once a second: flush the index, remove idle entries, keep `min_free`, close cold files.

It also notices if the cache folder was deleted. One step handles a bounded number of entries and never holds the event
loop for long (docs/invariants.md#eviction-is-safe-and-bounded).
"""

import asyncio
import logging
from collections.abc import Callable

from bucketfront.cache.clock import Clock
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage.file_storage import FileStorage
from bucketfront.cache.storage.folder import FoundFile
from bucketfront.cache.storage.index import Index
from bucketfront.cache.upkeep.discard_queue import DiscardQueue
from bucketfront.cache.upkeep.flusher import Flusher
from bucketfront.cache.upkeep.idle_removal import IdleRemoval
from bucketfront.cache.upkeep.open_files import OpenFiles
from bucketfront.cache.upkeep.space_reservation import SpaceReservation
from bucketfront.errors import StoreError
from bucketfront.task_set import TaskSet

SWEEP_RETRY_S = 5.0  # after a sweep that met a failing disk
ROWS_TAGGED_AT_ONCE = 500  # in one transaction, about 10 ms, because flushes wait for it
TAG_PAUSE_S = 0.02  # between two of them: a million rows take a minute
FILES_PER_TURN = 200  # whose rows a sweep reads in one turn of the event loop, one or two milliseconds
FLUSH_BYTES = 1 << 20  # space for the changes of a second in the index's log
INTERVAL_S = 1.0  # between steps, and so the most that a kill can make the index forget

log = logging.getLogger(__name__)


class Housekeeper:
    """Four tasks: one runs a step each second, one removes stray files, one purged ones, and one tags old rows.

    Entries that were not used for `idle_timeout` seconds of `clock`, the cache's clock, are removed. `min_free` returns
    the bytes to keep free on a disk of a given size.
    """

    def __init__(
        self,
        *,
        entries: EntryTable,
        store: FileStorage,
        index: Index,
        flusher: Flusher,
        space: SpaceReservation,
        discards: DiscardQueue,
        open_files: OpenFiles,
        clock: Clock,
        idle_timeout: float,
        min_free: Callable[[int], int],
    ) -> None:
        self._entries = entries
        self._store = store
        self._index = index
        self._flusher = flusher
        self._space = space
        self._discards = discards
        self._open_files = open_files
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._min_free = min_free
        self._idle = IdleRemoval(entries, index, space, discards)
        self._tasks = TaskSet()
        self._left = 0  # bytes of files that the last sweep could not remove
        self.swept = asyncio.Event()  # every file that was there at the start belongs to an entry

    def change(self, idle_timeout: float, min_free: Callable[[int], int]) -> None:
        """Use other limits from the next step on."""
        self._idle_timeout, self._min_free = idle_timeout, min_free

    def start(self) -> None:
        self._tasks.start(self._run(), name="housekeeper")
        self._tasks.start(self._sweep_all(), name="sweep")
        self._tasks.start(self._discards.run(), name="discarded entries")
        self._tasks.start(self._tag_rows(), name="tags of old rows")

    async def stop(self) -> None:
        await self._tasks.close()

    async def _run(self) -> None:
        logged = ""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.step()
            except StoreError as error:
                if str(error) != logged:  # a disk may be full for days
                    logged = str(error)
                    log.warning("upkeep: %s", error)
            else:
                logged = ""

    async def step(self) -> None:
        """Run one round. Raises StoreError if the disk fails; the next round tries again."""
        lost: StoreError | None = None
        try:
            if await self._flusher.recover():
                await self.sweep()
        except StoreError as error:
            lost = error  # the rest of the round runs all the same
        await self._flusher.flush()
        if self._flusher.has_failed and await self._store.is_out_of_space():
            # Without space for the index, no entry would be removed for space either.
            await self._space.make_room(FLUSH_BYTES)
            await self._flusher.flush()
        await self._remove_idle()
        await self._keep_free()
        await self._open_files.cool()
        if lost is not None:
            raise lost

    async def _remove_idle(self) -> None:
        removed = await self._idle.remove(self._clock.ago(self._idle_timeout))
        if removed:
            log.info("%d idle entries removed", removed)
            await self._flusher.flush()

    async def measure(self) -> None:
        """Measure the disk's free space, and set how much of it must stay free. Raises StoreError.

        The share of the disk that `min_free` is must stay free of its inodes as well.
        """
        disk, budget = await self._space.sample_disk(), self._entries.budget
        budget.floor = self._min_free(disk.total)
        budget.inode_floor = disk.inodes * budget.floor // max(1, disk.total)

    async def _keep_free(self) -> None:
        await self.measure()
        budget = self._entries.budget
        over, files_over, removed = -budget.available, -budget.available_files, 0
        while budget.is_overdrawn and await self._space.free_discarded():
            pass
        while budget.is_overdrawn and (victims := self._entries.evict(-budget.available, -budget.available_files)):
            removed += len(victims)
            await self._space.unlink_evicted(victims)
        if removed:
            log.info(
                "%d bytes and %d files over the limit: %d entries removed", max(0, over), max(0, files_over), removed
            )

    async def _sweep_all(self) -> None:
        """Sweep until it succeeds, because stray files take space that is not counted.

        See docs/invariants.md#space-bound.
        """
        while True:
            try:
                await self._discards.empty()  # else the sweep takes files of purged entries for stray ones
                await self.sweep()
            except StoreError as error:
                log.info("the sweep is begun again in a while: %s", error)
                await asyncio.sleep(SWEEP_RETRY_S)
            else:
                self.swept.set()
                return

    async def _tag_rows(self) -> None:
        """Have the tags of rows in the index that an earlier release or other tag fields have left without."""
        has_more = True
        while has_more:
            try:
                has_more = await self._index.tag_rows(ROWS_TAGGED_AT_ONCE)
                await asyncio.sleep(TAG_PAUSE_S)
            except StoreError as error:
                log.info("the tags of old entries are noted in a while: %s", error)
                await asyncio.sleep(SWEEP_RETRY_S)

    async def sweep(self) -> None:
        """Remove the files that no row of the index names, which a kill left between a file and its row.

        Bytes of the other files that their rows are not charged for are given back. Raises the first StoreError after
        the whole sweep. A file that cannot be removed is charged until the next sweep.
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
        """Return the files without an entry, and trim those of entries."""
        found = [file for file in await self._store.files(shard) if file.changed_at < self._store.opened_at]
        known: dict[str, tuple[int, int]] = {}
        for page in self._index.files_of_shard(shard, FILES_PER_TURN):
            known |= page
            await asyncio.sleep(0)
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
            await self._open_files.trim(entry)
