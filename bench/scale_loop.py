"""The cache's own classes in an event loop, and how long each piece of upkeep holds it."""

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import scale_folder
from scale_folder import BUCKET, CHARGED, Groups, key_of

from bucketfront.cache.assembly import CacheAssembly, CacheOptions, assemble
from bucketfront.cache.clock import CacheClock
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.origin import NotModified, OriginResponse
from bucketfront.cache.storage.boot import boot_id
from bucketfront.cache.storage.file_storage import FileStorage
from bucketfront.cache.storage.index import Index
from bucketfront.cache.upkeep.purge import PurgeMode
from bucketfront.cache.upkeep.purge_selection import KeyRange, PathGlob, PurgeSelection
from bucketfront.config.freshness_policy import FreshnessPolicy
from bucketfront.config.settings import Settings
from bucketfront.errors import OriginUnavailable
from bucketfront.http.cache_tags import TagFields
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.keys import ObjectKey
from bucketfront.server.http1.descriptors import MAX_HOT_FILES

TURN_S = 0.001  # seconds that the watcher sleeps
PART_BYTES = 8 << 20  # bytes, the default of `origin.part_size`
RESERVERS = 16  # small misses at once into a full cache
ORPHANS = 2000  # files that have no row
COLD = 300  # lookups with an empty page cache


@dataclass(frozen=True, slots=True)
class Held:
    """How long a piece of work held the loop, in seconds. `busiest` is the loop thread's processor time in the worst of
    the gaps, which other load on the machine does not increase.
    """

    longest: float
    busiest: float
    took: float
    count: int

    @property
    def summary(self) -> str:
        return f"{self.count} in {self.took:.2f} s, of the longest gap {self.busiest * 1000:.1f} ms processor time"


class Watcher:
    """Records the longest time between its turns, beyond its intended sleep."""

    def __init__(self) -> None:
        self.longest = self.busiest = 0.0

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        await asyncio.sleep(0.05)
        try:
            yield
            await asyncio.sleep(2 * TURN_S)
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self) -> None:
        at, busy = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(TURN_S)
            now, used = time.perf_counter(), time.thread_time()
            self.longest = max(self.longest, now - at - TURN_S)
            self.busiest = max(self.busiest, used - busy)
            at, busy = now, used


async def held_by(work: Callable[[], Awaitable[int]]) -> Held:
    """Measure `work`, which returns how many entries it handled."""
    watcher, began = Watcher(), time.perf_counter()
    async with watcher.watching():
        began = time.perf_counter()
        count = await work()
        took = time.perf_counter() - began
    return Held(watcher.longest, watcher.busiest, took, count)


class NoOrigin:
    """An origin that no scenario uses."""

    async def get(
        self, key: ObjectKey, part: FromTo | Suffix, *, if_match: str | None = None, if_none_match: str | None = None
    ) -> OriginResponse | NotModified:
        raise OriginUnavailable(f"{key} {part} {if_match} {if_none_match}")

    async def head(self, key: ObjectKey, *, if_none_match: str | None = None) -> Metadata | NotModified:
        raise OriginUnavailable(f"{key} {if_none_match}")

    def admit(self, key: ObjectKey, *, joins: bool) -> None:
        """Admit all."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A cache over a folder, built as `app.py` builds it, without listeners. Its clock stands still."""

    assembly: CacheAssembly
    groups: Groups
    folder: Path
    now: float

    @property
    def entries(self) -> EntryTable:
        return self.assembly.entries

    def key(self, rank: int) -> ObjectKey:
        return ObjectKey(BUCKET, key_of(self.groups, rank))

    def warm_up(self, count: int = MAX_HOT_FILES) -> None:
        """Fill the memory with entries up to the limit, none of them among the oldest."""
        chance = random.Random(2)
        for _ in range(count):
            entry = self.entries.get(self.key(chance.randrange(self.groups.filed.stop, self.groups.hits.start)))
            if entry is not None:  # an earlier measurement may have purged it
                self.entries.touch(entry, self.now)


@contextlib.asynccontextmanager
async def opened(
    folder: Path, settings: Settings, groups: Groups, now: float, idle_timeout: float = 1e12
) -> AsyncGenerator[Bench, None]:
    """Open a cache that is closed cleanly after the block."""
    store = FileStorage(folder, time.monotonic)
    store.open()
    index = Index(
        folder / "index.db", settings.origin.endpoint_url or "", block_size=settings.cache.block_size, boot=boot_id(),
        tag_fields=TagFields(settings.cache.tag_headers),
    )  # fmt: skip
    index.open()
    options = CacheOptions(
        max_size=1 << 50, block_size=scale_folder.BLOCK, part_size=PART_BYTES, parallel_parts=8, read_ahead_limit=8,
        read_ahead_max=64 << 20, hot_limit=MAX_HOT_FILES, memory=64 << 20, negative_ttl=lambda _: 10.0,
        idle_timeout=idle_timeout,
        policy=FreshnessPolicy(settings.freshness).lifetime,
        tag_fields=TagFields(settings.cache.tag_headers),
        reader_timeout=60.0, min_free=lambda _: 0, after_disconnect="auto",
    )  # fmt: skip
    clock = CacheClock(lambda: now, lambda: now)
    cache = assemble(NoOrigin(), store, index, clock, options, overhead=await index.space())
    try:
        yield Bench(cache, groups, folder, now)
    finally:
        await cache.close()
        store.close()


# --- lookups ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Times:
    """Durations in seconds."""

    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, found: list[float]) -> "Times":
        cuts = statistics.quantiles(found, n=100)
        return cls(cuts[49], cuts[98], max(found))


def lookups(bench: Bench, count: int, *, forgotten: bool) -> Times:
    """Look up random entries that are not in memory. With `forgotten` the index is not in the page cache either."""
    chance = random.Random(3 + forgotten)
    took = []
    for _ in range(count):
        key = bench.key(chance.randrange(bench.groups.filed.stop, bench.groups.hits.start))
        if forgotten:
            scale_folder.forget(bench.folder)
        began = time.perf_counter()
        entry = bench.entries.get(key)
        took.append(time.perf_counter() - began)
        assert entry is not None
        bench.entries.cool()
    return Times.of(took)


# --- upkeep ----------------------------------------------------------------------------------------------------


async def idle(bench: Bench) -> int:
    """Run the housekeeper's step that finds a batch of idle entries."""
    await bench.assembly.housekeeper.step()
    return bench.entries.evicted


async def reserve_small(bench: Bench) -> int:
    """Reserve space for many small misses at once in a full cache, where each replaces an entry."""

    async def misses() -> None:
        while bench.entries.evicted < bench.groups.batch:
            await bench.assembly.space.reserve(CHARGED)

    _fill_up(bench)
    await asyncio.gather(*(misses() for _ in range(RESERVERS)))
    return bench.entries.evicted


async def reserve_parts(bench: Bench) -> int:
    """Reserve space for a large object in parts while the cache is full of small ones."""
    _fill_up(bench)
    while bench.entries.evicted < bench.groups.batch:
        await bench.assembly.space.reserve(PART_BYTES)
    return bench.entries.evicted


async def over(bench: Bench) -> int:
    """Run the housekeeper's step that finds the cache too full by a batch, as after a start with a smaller
    `max_size`.
    """
    _fill_up(bench)
    bench.entries.budget.limit -= bench.groups.batch * CHARGED
    await bench.assembly.housekeeper.step()
    return bench.entries.evicted


async def sweep(bench: Bench) -> int:
    """Run the search for orphans that follows a start."""
    await bench.assembly.housekeeper.sweep()
    return ORPHANS


async def purge(bench: Bench) -> int:
    """Purge a prefix with a batch of entries below it."""
    return await bench.assembly.cache.purge(prefixes=[ObjectKey(BUCKET, scale_folder.prefix(1))])


async def count_by_glob(bench: Bench) -> int:
    """Count what matches a glob that begins with a wildcard, so that each key is compared with it."""
    glob = PathGlob("**/season-?/*-1080p.m4s")
    selection = PurgeSelection.of(ranges=[KeyRange(BUCKET, glob.glob.head, glob)])
    return (await bench.assembly.cache.purge_selected(selection, PurgeMode.COUNT)).count


async def purge_tag(bench: Bench) -> int:
    """Purge by a tag that one of TAGS entries has. The rows get their tags before that, as after an upgrade."""
    selection = PurgeSelection.of(tags=[scale_folder.tag(1)])
    return (await bench.assembly.cache.purge_selected(selection, PurgeMode.REMOVE)).count


async def purge_other_tag(bench: Bench) -> int:
    """Purge by another tag, once all rows have theirs."""
    selection = PurgeSelection.of(tags=[scale_folder.tag(2)])
    return (await bench.assembly.cache.purge_selected(selection, PurgeMode.REMOVE)).count


async def expire_all(bench: Bench) -> int:
    """Mark all entries stale."""
    return (await bench.assembly.cache.purge_selected(PurgeSelection.of(everything=True), PurgeMode.EXPIRE)).count


async def purge_all(bench: Bench) -> int:
    """Remove all entries."""
    return (await bench.assembly.cache.purge_selected(PurgeSelection.of(everything=True), PurgeMode.REMOVE)).count


def _fill_up(bench: Bench) -> None:
    budget = bench.entries.budget
    budget.limit = budget.used + budget.overhead


def idle_timeout_for(groups: Groups, rank: int, now: float) -> float:
    """Return the setting, in seconds, with which entries of this rank and above stay at the time `now`."""
    return now - scale_folder.accessed_at(groups, rank, now)
