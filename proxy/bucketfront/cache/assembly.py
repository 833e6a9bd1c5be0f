"""Build the cache from its parts: storage, index, entries, part fetches, the `Cache` itself and its upkeep.

`open_cache` opens the folder of a cache and runs all of it. `assemble` only builds the objects, over a storage and an
index that are open. This module alone knows all parts of the cache.
"""

import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bucketfront.cache.bypass import Bypass
from bucketfront.cache.cache import Cache
from bucketfront.cache.clock import CacheClock, Clock, boottime
from bucketfront.cache.entries.budget import Budget
from bucketfront.cache.entries.entry_table import EntryTable, FreshnessOf
from bucketfront.cache.entries.eviction import PolicyFactory
from bucketfront.cache.entries.freshness_bound import FreshnessBound
from bucketfront.cache.entries.hot_bodies import HotBodies
from bucketfront.cache.entries.lru_with_probation import LruWithProbation
from bucketfront.cache.entries.negative_cache import NegativeCache
from bucketfront.cache.entries.removals import Removals
from bucketfront.cache.entries.s3_fifo import S3Fifo
from bucketfront.cache.fetch.integrity import Comparison, Integrity
from bucketfront.cache.fetch.part_fetch import FetchContext, FetchStats
from bucketfront.cache.fetch.single_flight import Lookups
from bucketfront.cache.fetch.traffic import Traffic
from bucketfront.cache.housekeeper import Housekeeper
from bucketfront.cache.lookup_flow import LookupFlow
from bucketfront.cache.mode import CacheMode
from bucketfront.cache.origin import Origin
from bucketfront.cache.reader import ReaderContext
from bucketfront.cache.scrubber import Scrubber
from bucketfront.cache.shadow import Shadow
from bucketfront.cache.statistics import Counters
from bucketfront.cache.storage.boot import boot_id
from bucketfront.cache.storage.file_storage import FileStorage
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import NEVER_VALIDATED
from bucketfront.cache.storage.storage import Storage
from bucketfront.cache.upkeep.announcements import Announcements
from bucketfront.cache.upkeep.discard_queue import DiscardQueue
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.cache.upkeep.flusher import Flusher
from bucketfront.cache.upkeep.open_files import OpenFiles
from bucketfront.cache.upkeep.purge import Purge
from bucketfront.cache.upkeep.space_reservation import SpaceReservation
from bucketfront.cache.views import Views
from bucketfront.errors import IndexTooNew, StoreError
from bucketfront.fair_share import Shares
from bucketfront.http.cache_tags import TagFields
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget

POLICIES: dict[str, PolicyFactory] = {"lru": LruWithProbation, "s3-fifo": S3Fifo}

log = logging.getLogger(__name__)

RESERVED_UPLOADS_PART = 2  # of the cache: uploads of one client that run must not push out more than the other half


def _no_mount(_: ObjectKey) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """The values that configure a cache. Sizes are in bytes, times in seconds.

    `policy` returns how long a version is fresh, and `negative_ttl` how long a 404 holds. `min_free` returns the space
    to keep free on a disk of a given size. `hot_limit` bounds the entries in memory, and so the open files.
    `is_durable`: what the index claims must outlive a loss of power. `share_of_one` is what the uploads of one client
    may have of the cache, from 0 to 1. `mount_of` returns the name of a key's mount, from a closed set.
    `tag_fields` name the tags of objects. `ttl_when_lost` bounds the freshness of all entries from the last time on at
    which the changes of other caches were known (see `FreshnessBound`).
    """

    max_size: int
    block_size: int
    part_size: int
    parallel_parts: int
    read_ahead_limit: int  # part fetches
    read_ahead_max: int  # bytes ahead of one reader
    hot_limit: int
    memory: int
    policy: FreshnessOf
    negative_ttl: Callable[[ObjectKey], float]
    idle_timeout: float
    reader_timeout: float
    min_free: Callable[[int], int]
    after_disconnect: Literal["finish", "stop", "auto"]
    split_distance: int = 0
    is_durable: bool = False
    eviction: Literal["lru", "s3-fifo"] = "lru"
    share_of_one: float = 1.0
    tag_fields: TagFields = field(default_factory=TagFields)
    mount_of: Callable[[ObjectKey], str] = _no_mount
    mode: CacheMode = CacheMode.SERVE
    ttl_when_lost: float = math.inf


@dataclass(frozen=True, slots=True)
class CacheAssembly:
    """A cache and its parts. The other rooms use `cache`; the composition root and the tests see all of it."""

    cache: Cache
    clock: Clock
    store: FileStorage
    index: Index
    entries: EntryTable
    lookups: Lookups
    fetch_context: FetchContext
    disposal: Disposal
    discards: DiscardQueue
    flusher: Flusher
    space: SpaceReservation
    open_files: OpenFiles
    purges: Purge
    housekeeper: Housekeeper
    scrubber: Scrubber

    def change(self, options: CacheOptions) -> None:
        """Use the options that can change while the cache runs: those of freshness, memory, idle time and free space.

        Holders of leases must ask for others after this.
        """
        self.cache.change(options.policy, options.negative_ttl, options.memory)
        self.housekeeper.change(options.idle_timeout, options.min_free)

    async def close(self) -> None:
        """End lookups and part fetches, close files and write the last changes, so that the next start is clean.

        What another process owns stays as it is.
        """
        if self.cache.shadow is not None:
            await self.cache.shadow.close()
        await self.lookups.close()
        await self.open_files.finish()
        await self.fetch_context.tasks.close()
        await self.purges.running.wait()
        await self.disposal.finish()
        await self.discards.finish()
        if not self.store.ownership.is_held:
            return
        await self.flusher.flush()
        for entry in self.entries.close():
            if entry.fill is not None:
                await entry.fill.verification.wait()
            if entry.file is not None:
                await self.fetch_context.store.close_file(entry.file)
        await self.index.close(self.entries.changes())


def assemble(
    origin: Origin,
    store: FileStorage,
    index: Index,
    clock: Clock,
    options: CacheOptions,
    *,
    storage: Storage | None = None,
    overhead: int = 0,
    trusted_since: float = NEVER_VALIDATED,
    retries: RetryBudget | None = None,
    hedges: RetryBudget | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> CacheAssembly:
    """Build a cache over the open folder `store` and its index. `storage` holds the versions in place of `store`.

    `overhead` is the bytes that the index takes. Entries are stale that were validated before `trusted_since`.
    """
    storage = storage or store
    traffic, announcements = Traffic(options.mount_of), Announcements()
    entries = _open_entries(index, options, overhead, trusted_since, Removals(clock), traffic, announcements)
    stats, counters, integrity = FetchStats(options.read_ahead_limit), Counters(), Integrity()
    disposal = Disposal(entries, storage)
    flusher = Flusher(index, entries, disposal, storage, is_durable=options.is_durable)
    discards = DiscardQueue(entries, index, storage, flusher.flush)
    space = SpaceReservation(
        entries, disposal, discards, storage, flush=flusher.flush, promised=lambda: stats.reserved
    )  # fmt: skip
    open_files = OpenFiles(entries, disposal, storage, space, flusher.flush)
    fetch_context = FetchContext(
        origin=origin, store=storage, entries=entries, stats=stats, space=space,
        unpin=disposal.unpin, remove=disposal.remove, comparison=Comparison(origin, storage, integrity),
        clock=monotonic, retries=retries or RetryBudget(clock=monotonic), hedges=hedges or RetryBudget(),
        block_size=options.block_size, part_size=options.part_size, split_distance=options.split_distance,
        parallel_parts=options.parallel_parts, after_disconnect=options.after_disconnect,
        read_ahead_max=options.read_ahead_max, reader_timeout=options.reader_timeout, traffic=traffic,
        ownership=store.ownership,
    )  # fmt: skip
    lookups, negative_cache = Lookups(entries.pin, disposal.unpin), NegativeCache(options.negative_ttl, entries.bound)
    readers = ReaderContext(fetch_context, clock, counters)
    purges = Purge(
        entries=entries, index=index, disposal=disposal, discards=discards, lookups=lookups,
        negative_cache=negative_cache, flusher=flusher, tag_fields=options.tag_fields, is_durable=options.is_durable,
        ownership=store.ownership, announcements=announcements,
    )  # fmt: skip
    flow = LookupFlow(
        fetch_context=fetch_context, lookups=lookups, negative_cache=negative_cache, disposal=disposal,
        open_files=open_files, readers=readers, clock=clock, counters=counters, tag_fields=options.tag_fields,
    )  # fmt: skip
    cache = Cache(
        readers=readers, lookups=lookups, lookup_flow=flow,
        bypass=_bypass(options.mode, readers, negative_cache, flow), negative_cache=negative_cache,
        hot_bodies=HotBodies(options.memory), disposal=disposal, open_files=open_files, purges=purges,
        integrity=integrity, views=Views(entries, negative_cache, lookups, clock, options.block_size),
        upload_shares=Shares(options.max_size, options.share_of_one, RESERVED_UPLOADS_PART), flush=flusher.flush,
        announcements=announcements,
    )  # fmt: skip
    housekeeper = Housekeeper(
        entries=entries, store=store, index=index, flusher=flusher, space=space, discards=discards,
        open_files=open_files, clock=clock, idle_timeout=options.idle_timeout, min_free=options.min_free,
    )  # fmt: skip
    scrubber = Scrubber(
        index=index, fetch_context=fetch_context, open_files=open_files, counters=counters, clock=monotonic
    )
    return CacheAssembly(
        cache, clock, store, index, entries, lookups, fetch_context, disposal, discards, flusher, space, open_files,
        purges, housekeeper, scrubber,
    )  # fmt: skip


def _bypass(mode: CacheMode, readers: ReaderContext, negative_cache: NegativeCache, flow: LookupFlow) -> Bypass | None:
    if mode is CacheMode.SERVE:
        return None
    shadow = Shadow(flow, readers.clock) if mode is CacheMode.SHADOW else None
    return Bypass(readers, negative_cache, readers.clock, mode, shadow)


def _open_entries(
    index: Index,
    options: CacheOptions,
    overhead: int,
    trusted_since: float,
    removals: Removals,
    traffic: Traffic,
    announcements: Announcements,
) -> EntryTable:
    entries = EntryTable(
        index,
        Budget(options.max_size, overhead=overhead),
        options.policy,
        block_size=options.block_size,
        hot_limit=options.hot_limit,
        removals=removals,
        trusted_since=trusted_since,
        eviction=POLICIES[options.eviction],
        on_unread=traffic.note_unread,
        bound=FreshnessBound(options.ttl_when_lost),
        on_change=announcements.note_version,
    )
    entries.open()
    return entries


@asynccontextmanager
async def open_cache(
    folder: Path,
    origin: Origin,
    options: CacheOptions,
    *,
    origin_name: str,
    retries: RetryBudget,
    wall: Callable[[], float] = time.time,
    elapsed: Callable[[], float] = boottime,
) -> AsyncIterator[CacheAssembly]:
    """Run a cache in `folder` inside the block, and close it cleanly after it.

    `origin_name` names the endpoint in the index, because it is a part of the cache key. `wall` and `elapsed` are the
    clocks of `CacheClock`. Raises StoreError.
    """
    async with AsyncExitStack() as stack:
        store = FileStorage(folder, time.monotonic)
        store.open()
        stack.callback(store.close)
        index = _open_index(store, origin_name, options, wall())
        stack.callback(index.abandon)
        clock = CacheClock(wall, elapsed, index.newest_access())
        assembly = assemble(
            origin, store, index, clock, options, retries=retries, overhead=await index.space(),
            trusted_since=clock.started if clock.went_back else NEVER_VALIDATED,
        )  # fmt: skip
        stack.push_async_callback(assembly.close)
        housekeeper = assembly.housekeeper
        with suppress(StoreError):  # it is counted, and a failing disk must not prevent the start
            await housekeeper.measure()
        if not index.was_clean:
            assembly.space.hold_until(housekeeper.swept)
        housekeeper.start()
        stack.push_async_callback(housekeeper.stop)
        assembly.scrubber.start()
        stack.push_async_callback(assembly.scrubber.stop)
        yield assembly


def _open_index(store: FileStorage, origin_name: str, options: CacheOptions, started_at: float) -> Index:
    index = Index(
        store.root / "index.db",
        origin=origin_name,
        block_size=options.block_size,
        is_durable=options.is_durable,
        boot=boot_id(),
        started_at=started_at,
        tag_fields=options.tag_fields,
    )
    try:
        index.open()
    except StoreError as error:
        if isinstance(error, IndexTooNew) or not store.is_full:
            raise
        log.warning("the cache's disk is full, what it holds is not used: %s", error)
        index.open_in_memory()
    return index
