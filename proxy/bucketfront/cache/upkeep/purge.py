"""Purges: they remove the selected entries, mark them stale, or only count them (docs/invariants.md#no-stale-fill).

Theory of operation
-------------------
A purge runs in turns of the event loop, and no order of its steps lets an entry escape:

1. Running lookups of selected keys are invalidated, and remembered 404s are forgotten. From now on, what a lookup
   publishes under a selected key is newer than the purge.
   The tags of what a lookup will find are not known yet; `Lookups.check_tags` compares them later.
2. Entries in memory are handled, as of one moment after step 1. Lookups that ended before have published theirs there.
3. Rows of the index are handled page by page. An entry that left memory during step 2 has its row, because only
   flushed entries leave. Rows that are to be removed are discarded: no lookup finds them from then on, and
   `cache.upkeep.discard_queue` unlinks their files. The purge waits for that unless there are many.

Each entry counts once. The parts of a selection are handled one after another, and a later part skips what an earlier
one has.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from itertools import combinations

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.entry_table import PAGE_ENTRIES, EntryTable
from bucketfront.cache.entries.negative_cache import NegativeCache
from bucketfront.cache.entries.removals import RemovalReason
from bucketfront.cache.fetch.single_flight import Lookups
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.ownership import Ownership
from bucketfront.cache.storage.records import RowName
from bucketfront.cache.upkeep.announcements import Announcements, Cause
from bucketfront.cache.upkeep.discard_queue import DiscardQueue
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.cache.upkeep.flusher import Flusher
from bucketfront.cache.upkeep.purge_selection import PurgeSelection
from bucketfront.errors import StoreError
from bucketfront.http.cache_tags import TagFields
from bucketfront.keys import ObjectKey
from bucketfront.task_set import TaskSet

MAX_SAMPLE = 1000  # keys that a purge returns
ROWS_TAGGED_AT_ONCE = 1000  # in one transaction of the index's thread, about 20 ms
PAGE_ROWS = 200  # rows of the index in one turn of the event loop, for which hits wait: one or two milliseconds
PAGE_IDS = 400  # the same without their keys
MAX_AWAITED = 1000  # files that a purge waits for, which takes a few hundredths of a second
MAX_EXPIRED = 4096  # cold entries that are marked stale before a flush writes them, which takes some milliseconds

log = logging.getLogger(__name__)


class PurgeMode(Enum):
    REMOVE = auto()
    EXPIRE = auto()  # mark stale, so that the next use revalidates
    COUNT = auto()  # change nothing


@dataclass(frozen=True, slots=True)
class Purged:
    """How many entries a purge had, and the keys of some that it looked at, at most MAX_SAMPLE."""

    count: int
    sample: tuple[ObjectKey, ...] = ()


class Purge:
    """Runs purges in the event loop.

    If `is_durable` is true, a purge outlives a loss of power. While another process owns the cache, that one
    invalidates what is written here, and no other purge is possible.
    """

    def __init__(
        self,
        *,
        entries: EntryTable,
        index: Index,
        disposal: Disposal,
        discards: DiscardQueue,
        lookups: Lookups,
        negative_cache: NegativeCache,
        flusher: Flusher,
        tag_fields: TagFields,
        is_durable: bool,
        ownership: Ownership,
        announcements: Announcements | None = None,
    ) -> None:
        self._ownership = ownership
        self._announcements = announcements or Announcements()
        self.entries = entries
        self.index = index
        self.tag_fields = tag_fields
        self._disposal = disposal
        self._discards = discards
        self._lookups = lookups
        self._negative_cache = negative_cache
        self._flusher = flusher
        self._is_durable = is_durable
        self.running = TaskSet()

    async def purge(
        self,
        selection: PurgeSelection,
        mode: PurgeMode,
        reason: RemovalReason = RemovalReason.PURGED,
        *,
        announces: bool = True,
    ) -> Purged:
        """See `Cache.purge_selected`. `reason` is why its entries are removed.

        With `announces` other caches learn of it, after its end in this one.
        """
        if not self._ownership.is_held and reason is RemovalReason.WRITTEN:
            await self._ownership.forward(list(selection.keys))
            if not self._ownership.is_held:
                return Purged(0)
        self._ownership.require()
        # A purge that has begun ends, even if its caller is cancelled.
        run = self._announced if announces and mode is not PurgeMode.COUNT else self._run
        return await self.running.run(run(selection, mode, reason))

    async def _run(self, selection: PurgeSelection, mode: PurgeMode, reason: RemovalReason) -> Purged:
        return await _Run(self, selection, mode, reason).run()

    async def _announced(self, selection: PurgeSelection, mode: PurgeMode, reason: RemovalReason) -> Purged:
        try:
            return await self._run(selection, mode, reason)
        finally:
            cause = Cause.WRITTEN if reason is RemovalReason.WRITTEN else Cause.PURGED
            self._announcements.note(selection, cause, is_soft=mode is PurgeMode.EXPIRE)
            await self._announcements.published()

    async def expire_everything(self, now: float) -> None:
        """See `Cache.expire_everything`."""
        self._ownership.require()
        self._lookups.invalidate_all()
        for key in self._negative_cache.keys():  # noqa: SIM118 - no dict
            self._negative_cache.forget(key)
        self.entries.distrust(now)
        await self.running.run(self.index.distrust(now))

    def begin(self, selection: PurgeSelection, mode: PurgeMode) -> None:
        """See `Cache.purge_later`."""
        self.running.start(self._run_unwatched(selection, mode), name="purge")

    async def _run_unwatched(self, selection: PurgeSelection, mode: PurgeMode) -> None:
        try:
            purged = await self._announced(selection, mode, RemovalReason.PURGED)
        except StoreError as error:
            log.warning("a purge in the background: memory has forgotten the objects, but the disk refused: %s", error)
        else:
            log.info("a purge in the background has ended: %d purged", purged.count)

    async def invalidate(self, selection: PurgeSelection) -> None:
        """Invalidate the running lookups and forget the 404s of what is selected."""
        self._lookups.purge_tags(selection.tags)
        self.void([key for key in selection.keys if not self._follows_spared_write(selection, key)])
        if selection.needs_walk:
            for page in _pages([*self._lookups.running(), *self._negative_cache.keys()]):
                self.void([key for key in page if selection.has(key)])
                await asyncio.sleep(0)

    def _follows_spared_write(self, selection: PurgeSelection, key: ObjectKey) -> bool:
        """Return whether the running lookup of a key publishes the version that the purge is to spare."""
        etag = self._lookups.written_etag(key) if selection.spared else None
        return etag is not None and selection.spares_write(key, etag)

    def void(self, keys: Collection[ObjectKey]) -> None:
        """Invalidate the running lookups and forget the 404s of these keys."""
        self._lookups.invalidate(keys)
        for key in keys:
            self._negative_cache.forget(key)

    def expire(self, found: Sequence[Entry] | Sequence[RowName]) -> None:
        """Mark entries stale."""
        for each in found:
            entry = self.entries.hot(each.key)
            if entry is not None and entry.id == each.id:
                self.entries.expire(entry)
            else:
                self.entries.expire_row(each.id)

    async def finish_expiring(self) -> None:
        """Write which entries are stale. Raises StoreError if the index does not take it."""
        await self._flush()

    async def discard(self, ids: set[int], reason: RemovalReason) -> None:
        """Remove entries of the index, those among them that have come into memory with their files. Raises StoreError.

        `finish_discarding` makes it last.
        """
        _, hot = self.entries.discard(ids)
        if self.entries.wants_writing:
            await self._flusher.flush()
        if hot:
            await self.remove(hot, reason)

    async def finish_discarding(self) -> None:
        """Write which entries are discarded, and wait for their files unless they are many. Raises StoreError."""
        if not len(self._discards):
            return
        await self._flush()
        if len(self._discards) <= MAX_AWAITED:
            await self._discards.empty()
        self._discards.notify()

    async def _flush(self) -> None:
        """Write the changes of the purge, which must outlive a kill. Raises StoreError."""
        await self._flusher.flush()
        if self._flusher.has_failed:
            raise StoreError("the cache index could not be written")

    async def remove(self, found: Sequence[Entry], reason: RemovalReason) -> None:
        """Remove entries, and return once their files are unlinked. Raises StoreError."""
        for entry in found:
            self.entries.remove(entry, reason)
        await self._disposal.unlink(found)
        if self._is_durable or self.entries.wants_flush:
            await self._flusher.flush()  # in durable mode a file that reappears after a loss of power has no row then


class _Run:
    """One purge."""

    def __init__(self, purge: Purge, selection: PurgeSelection, mode: PurgeMode, reason: RemovalReason) -> None:
        self._purge = purge
        self._entries = purge.entries
        self._index = purge.index
        self._selection = selection
        self._mode = mode
        self._reason = reason
        self._count = 0
        self._sample: list[ObjectKey] = []
        self._in_memory: set[int] = set()  # entries that step 2 has handled
        self._expired = 0  # since the last flush
        self._failures: list[StoreError] = []

    async def run(self) -> Purged:
        if self._mode is not PurgeMode.COUNT:
            await self._purge.invalidate(self._selection)
        for batch in self._batches():
            await self._handle(batch)
        await self._run_rows()
        with self._noting_failures():
            if self._expired:
                await self._purge.finish_expiring()
            elif self._mode is PurgeMode.REMOVE:
                await self._purge.finish_discarding()
        if self._failures:
            raise self._failures[0]
        return Purged(self._count, tuple(self._sample))

    async def _run_rows(self) -> None:
        if self._takes_whole_ranges:
            for ids in self._pages_of_ids():
                await self._handle_ids(ids)
        else:
            for rows in self._pages_of_rows():
                await self._handle_rows(rows)
        if self._selection.tags:
            await self._tag_rows()
            for rows in self._tagged_rows():
                await self._handle_rows(rows)

    async def _handle(self, batch: list[Entry]) -> None:
        found = [entry for entry in batch if not entry.is_removed]
        self._count += len(found)
        self._sample += [entry.key for entry in found[: MAX_SAMPLE - len(self._sample)]]
        if found:
            await self._act(found)
        await asyncio.sleep(0)

    async def _handle_ids(self, page: Sequence[int]) -> None:
        ids = {entry for entry in page if not self._entries.is_gone(entry)}
        self._count += len(ids)
        with self._noting_failures():
            await self._purge.discard(ids, self._reason)
        await asyncio.sleep(0)

    async def _handle_rows(self, rows: Sequence[RowName]) -> None:
        found = [row for row in rows if row.id not in self._in_memory and not self._entries.is_gone(row.id)]
        self._count += len(found)
        self._sample += [row.key for row in found[: MAX_SAMPLE - len(self._sample)]]
        self._void_tagged(found)
        if self._mode is PurgeMode.REMOVE:
            with self._noting_failures():
                await self._purge.discard({row.id for row in found}, self._reason)
        elif self._mode is PurgeMode.EXPIRE:
            await self._expire(found)
        await asyncio.sleep(0)

    async def _act(self, found: list[Entry]) -> None:
        self._void_tagged(found)
        if self._mode is PurgeMode.REMOVE:
            with self._noting_failures():
                await self._purge.remove(found, self._reason)
        elif self._mode is PurgeMode.EXPIRE:
            await self._expire(found)

    def _void_tagged(self, found: Sequence[Entry] | Sequence[RowName]) -> None:
        if self._selection.tags and self._mode is not PurgeMode.COUNT:
            # A running revalidation may get a response without the tag, which is no newer than the purge all the same.
            self._purge.void([each.key for each in found])

    async def _expire(self, found: Sequence[Entry] | Sequence[RowName]) -> None:
        self._purge.expire(found)
        self._expired += len(found)
        if self._expired >= MAX_EXPIRED:
            self._expired = 0
            with self._noting_failures():
                await self._purge.finish_expiring()

    @contextmanager
    def _noting_failures(self) -> Iterator[None]:
        """Note a failure of the disk. These entries are removed from memory, and the others are to be as well."""
        try:
            yield
        except StoreError as error:
            self._failures.append(error)

    def _batches(self) -> Iterator[list[Entry]]:
        """Yield the selected entries in memory, and those of `keys`, each once.

        The caller may `await` between two batches.
        """
        selection = self._selection
        for page in _pages(list(selection.keys)):
            yield list(self._of_keys(page))
        if not selection.needs_walk:
            return
        for page in _pages([entry.key for entry in self._entries.hot_entries()]):
            yield list(self._hot(page))

    @property
    def _takes_whole_ranges(self) -> bool:
        """Return whether all rows of disjoint ranges are removed, so that their keys need not be read one by one."""
        selection = self._selection
        if self._mode is not PurgeMode.REMOVE or selection.keys or any(each.glob for each in selection.ranges):
            return False
        return not any(each.meets(other) for each, other in combinations(selection.ranges, 2))

    def _pages_of_ids(self) -> Iterator[Sequence[int]]:
        """Yield what `_pages_of_rows` does, the ids alone."""
        if self._selection.everything:
            yield from self._index.all_ids(PAGE_IDS)
        for each in self._selection.ranges:
            yield from self._index.ids_below(each.bucket, each.prefix, PAGE_IDS)

    def _pages_of_rows(self) -> Iterator[Sequence[RowName]]:
        """Yield the rows that the selection has by their keys, each once, and some that were in memory before.

        The caller may `await` between two pages. Raises StoreError.
        """
        selection = self._selection
        if selection.everything:
            yield from self._index.all_names(PAGE_ROWS)
            return
        if selection.versions:
            yield from self._versions()
        for each in selection.ranges:
            is_done = selection.before(each)
            for rows in self._index.below(each.bucket, each.prefix, PAGE_ROWS):
                yield [row for row in rows if each.has(row.key) and not is_done(row.key)]

    def _versions(self) -> Iterator[Sequence[RowName]]:
        """Yield the pinned versions of the selected keys. There may be many keys without one."""
        keys = self._selection.keys
        for page in _pages([key for key in keys if key.version is None]):
            for key in page:
                for rows in self._index.below(key.bucket, f"{key.key}\0", PAGE_ENTRIES):
                    yield [row for row in rows if row.key not in keys]
            yield []

    def _is_spared(self, key: ObjectKey) -> bool:
        if key not in self._selection.spared:
            return False
        try:
            entry = self._entries.peek(key)
        except StoreError:  # the next read of the index reports it
            return False
        return entry is not None and self._selection.spares(key, entry.metadata)

    def _of_keys(self, keys: Sequence[ObjectKey]) -> Iterator[Entry]:
        for key in keys:
            if self._is_spared(key):
                continue
            if (hot := self._entries.hot(key)) is not None:
                yield hot
                continue
            try:
                row = self._index.outline_of(key)
            except StoreError as error:
                if self._mode is not PurgeMode.COUNT:
                    self._entries.expire_on_load(key)
                self._failures.append(error)
            else:
                if row is not None and (cold := self._entries.of_row(row)) is not None:
                    yield cold

    def _hot(self, keys: Sequence[ObjectKey]) -> Iterator[Entry]:
        for key in keys:
            entry = None if key in self._selection.keys else self._entries.hot(key)
            if entry is not None and (self._selection.has(key) or self._is_tagged(entry)):
                self._in_memory.add(entry.id)
                yield entry

    def _is_tagged(self, entry: Entry) -> bool:
        tags = self._selection.tags
        return bool(tags) and not self._purge.tag_fields.tags(entry.metadata.headers).isdisjoint(tags)

    async def _tag_rows(self) -> None:
        """Have the tags of all rows in the index. The housekeeper may not have come to them after an upgrade."""
        while await self._index.tag_rows(ROWS_TAGGED_AT_ONCE):
            pass

    def _tagged_rows(self) -> Iterator[Sequence[RowName]]:
        """Yield what `_pages_of_rows` does not: the entries on disk that have a tag."""
        selection = self._selection
        for number, tag in enumerate(selection.tags):
            for rows in self._index.tagged(tag, selection.tags[:number], PAGE_ROWS):
                # The index may not know yet that an entry in memory has other tags now.
                yield [row for row in rows if not selection.has(row.key) and self._may_be_tagged(row)]

    def _may_be_tagged(self, row: RowName) -> bool:
        entry = self._entries.hot(row.key)
        return entry is None or entry.id != row.id or self._is_tagged(entry)


def _pages(keys: Sequence[ObjectKey]) -> Iterator[Sequence[ObjectKey]]:
    for at in range(0, len(keys), PAGE_ENTRIES):
        yield keys[at : at + PAGE_ENTRIES]
