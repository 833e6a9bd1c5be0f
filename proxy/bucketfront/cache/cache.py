"""The one door to the cache: a key and a span go in; metadata, an open descriptor and "readable up to" come out.

The server never sees a flight, the index or a file's name, so that one day it may stand in another process.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Iterable
from dataclasses import dataclass

from bucketfront.cache.clock import Clock
from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.entries.hot_bodies import SMALL, HotBodies
from bucketfront.cache.entries.lease import Lease
from bucketfront.cache.entries.negative_cache import Absence, NegativeCache
from bucketfront.cache.fetch import passthrough, requests
from bucketfront.cache.fetch.fill import Fill
from bucketfront.cache.fetch.integrity import Integrity
from bucketfront.cache.fetch.part import FetchContext
from bucketfront.cache.fetch.read_ahead import ReadAhead
from bucketfront.cache.fetch.single_flight import Lookup, LookupResult, Lookups
from bucketfront.cache.origin import Origin, OriginResponse
from bucketfront.cache.reader import Reader, ReaderDoor
from bucketfront.cache.statistics import Statistics
from bucketfront.cache.storage import blocks, page_cache
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import PAGE_BLOCKS, Page, Row
from bucketfront.cache.storage.storage import Storage
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.cache.upkeep.flusher import Flusher
from bucketfront.cache.upkeep.open_files import OpenFiles
from bucketfront.cache.upkeep.purge import Purge
from bucketfront.cache.upkeep.space import Space
from bucketfront.cache.upload import Upload
from bucketfront.errors import (
    AccessDenied,
    ContentMismatch,
    NotCached,
    ObjectNotFound,
    OriginCircuitOpen,
    OriginUnavailable,
    ProxyError,
    StoreError,
)
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Span, Suffix
from bucketfront.keys import ObjectKey

NULL_VERSION = "null"  # S3's id of an object stored while its bucket had no versions
TOUCH_INTERVAL = 1.0  # seconds between two notes that a hit was used
PUBLISHING = 5.0  # seconds that a write waits until it is in the cache; it goes on after that
ASKS = 3  # HEADs of one write, where what others found meanwhile may be newer than their answers
RESTARTS = 4  # lookups of one request before it is given up: each one lost its entry to somebody else

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Absent:
    """S3 says 404, now or within `negative_ttl`."""

    status: CacheStatus


class Cache:
    """`clock` gives seconds since the epoch, and is never set back: see `cache.clock`. `is_durable`: what the
    index claims is to outlive power loss. `room`, `files` and `flusher` are the upkeep's as well.
    """

    def __init__(
        self,
        *,
        origin: Origin,
        store: Storage,
        index: Index,
        entries: EntryTable,
        disposal: Disposal,
        absences: NegativeCache,
        memory: HotBodies,
        integrity: Integrity,
        clock: Clock,
        is_durable: bool = False,
    ) -> None:
        self._origin = origin
        self._index = index
        self._store = store
        self._entries = entries
        self._absences = absences
        self._memory = memory
        self._clock = clock
        self._supply: FetchContext | None = None
        self._disposal = disposal
        self._lookups = Lookups(entries.pin, disposal.unpin)
        self._lender = ReaderDoor(self._fill_of, self._stream, self._give_back, store, clock)
        self._integrity = integrity
        self._comparing: set[asyncio.Task[None]] = set()
        self.flusher = Flusher(index, entries, disposal, store, is_durable=is_durable)
        self.room = Space(
            entries, disposal, store, flush=self.flusher.flush, promised=lambda: self.supply.traffic.reserved
        )
        self.files = OpenFiles(entries, disposal, store, self.room, self.flusher.flush)
        self._purges = Purge(
            entries=entries, disposal=disposal, lookups=self._lookups, absences=absences, flush=self.flusher.flush,
            is_durable=is_durable,
        )  # fmt: skip
        self._hits = self._stale_hits = self._misses = self._revalidations = self._passthroughs = 0
        self._written = 0
        self._scrubbed_blocks = 0

    def supply_with(self, supply: FetchContext) -> None:
        """What fills work with; it refers back to this cache, so it comes second."""
        self._supply = supply

    @property
    def supply(self) -> FetchContext:
        assert self._supply is not None, "call supply_with first"
        return self._supply

    @property
    def _ramp(self) -> ReadAhead:
        return ReadAhead(self.supply.block_size, self.supply.part_size, self.supply.parallel_parts)

    # --- leases ----------------------------------------------------------------------------------------------

    def lease(self, key: ObjectKey) -> Lease | None:
        """Return a lease on the fresh, complete entry of `key`. The caller reports each use with `record_use`.

        Returns None if the request needs `lookup`.
        """
        entry, now = self._entries.hot(key), self._clock()
        if entry is None or entry.ttl(now) <= 0:
            return None
        if entry.lease is None or not entry.lease.is_valid:
            entry.lease = self._grant(entry)
        return entry.lease

    def absence(self, key: ObjectKey) -> Absence | None:
        """S3's 404 for `key`, where it was within `negative_ttl` and nothing is known since."""
        return None if self._entries.hot(key) is not None else self._absences.find(key, self._clock())

    def was_absent(self, key: ObjectKey) -> bool:
        """The last that S3 was heard to say of `key` is 404, however long ago."""
        return self._absences.was(key)

    def _grant(self, entry: Entry) -> Lease | None:
        size = entry.metadata.size
        if entry.file is None or entry.unverified or not entry.is_complete(self.supply.block_size):
            return None
        body, region = None, entry.file.region
        if size <= SMALL and self._memory.has_room_for(size):
            found = page_cache.peek(region.fd, region.offset, size)
            if found is None:
                return None
            body = bytes(found)
        fresh_until = entry.validated_at + entry.freshness.ttl
        lease = Lease(
            entry.key, entry.id, entry.metadata, region, entry.validated_at, fresh_until, body, entry.accessed_at
        )
        if body is not None:
            for pushed_out in self._memory.keep(lease):
                pushed_out.revoke()
        return lease

    def record_use(self, lease: Lease, now: float) -> None:
        """Count a hit, and reset the idle timer once a second at most. `now` is by the cache's clock."""
        self._hits += 1
        if 0 <= now - lease.used_at < TOUCH_INTERVAL:
            return
        lease.used_at = now
        if (entry := self._leased(lease)) is not None:
            self._entries.touch(entry, now)
            self._memory.touch(lease)

    def reader_of(self, lease: Lease) -> Reader:
        """Return a reader for a response that takes more than this turn of the event loop. Pinned: close it."""
        entry = self._leased(lease)
        assert lease.is_valid
        assert entry is not None
        self._entries.pin(entry)
        return Reader(entry, CacheStatus(ttl=entry.ttl(self._clock())), self._lender)

    def _leased(self, lease: Lease) -> Entry | None:
        entry = self._entries.hot(lease.key)
        return entry if entry is not None and entry.id == lease.entry_id else None

    # --- reading -------------------------------------------------------------------------------------------

    async def lookup(
        self,
        key: ObjectKey,
        *,
        wants_body: bool,
        part: FromTo | Suffix | None = None,
        revalidate: bool = False,
        only_if_cached: bool = False,
    ) -> "Reader | Absent":
        """Who may answer for `key`. `part` is the range that the client asks for, the first of several;
        `revalidate`: the origin is to be asked however fresh the entry is; `only_if_cached`: it must not be asked.

        The Reader is pinned: close it. Raises OriginErrors other than ObjectNotFound; NotCached.
        """
        for _ in range(RESTARTS):
            now = self._clock()
            entry = self._entries.get(key)
            if entry is None and not revalidate and (ttl := self._absences.ttl(key, now)) is not None:
                self._hits += 1
                return Absent(CacheStatus(ttl=ttl))
            if entry is not None and not revalidate and (status := self._usable(entry, now)) is not None:
                self._entries.pin(entry)
            elif only_if_cached:
                raise NotCached(f"{key} is not in the cache")
            else:
                found = await self._ask(key, entry, part if wants_body else None, wants_body=wants_body)
                if isinstance(found, Absent):
                    return found
                entry, status = found
                revalidate = False
            try:
                if await self.files.open(entry, wants_body=wants_body):
                    self._entries.touch(entry, self._clock())
                    return Reader(entry, status, self._lender)
            except BaseException:
                self._disposal.unpin(entry)
                raise
            # Its file is gone, or not what the index says: the entry goes, and the next round is a miss.
            self._disposal.drop(entry)
            self._disposal.unpin(entry)
        raise OriginUnavailable(f"{key} changed {RESTARTS} times while it was looked up")

    def _usable(self, entry: Entry, now: float) -> CacheStatus | None:
        ttl = entry.ttl(now)
        if ttl > 0:
            self._hits += 1
            return CacheStatus(ttl=ttl)
        if -ttl < entry.freshness.stale_while_revalidate:
            self._stale_hits += 1
            if not self._lookups.is_running(entry.key):
                self._revalidate(entry)
            return CacheStatus(ttl=ttl, detail="stale-while-revalidate")
        return None

    def _revalidate(self, stale: Entry) -> None:
        """In the background, with a HEAD."""
        self._revalidations += 1

        async def find(lookup: Lookup) -> LookupResult:
            try:
                return await self._find(stale.key, stale, None, lookup, get=False)
            except AccessDenied:
                # Whoever asks next asks the origin itself, and hears of it.
                self._entries.expire(stale)
                raise

        self._lookups.start(stale.key, find, stale)

    async def _ask(
        self, key: ObjectKey, stale: Entry | None, part: FromTo | Suffix | None, *, wants_body: bool
    ) -> tuple[Entry, CacheStatus] | Absent:
        forward = Forward.MISS if stale is None else Forward.STALE
        joins = self._lookups.is_running(key)
        if stale is None:
            self._misses += 1
        else:
            self._revalidations += 1
            self._entries.pin(stale)  # it may be the answer in the end

        def find(lookup: Lookup) -> Coroutine[None, None, LookupResult]:
            return self._find(key, stale, part, lookup, get=wants_body)

        try:
            learned = await self._lookups.wait(key, find, stale)
            if joins and not learned.entry.freshness.storable:
                # RFC 9111 section 5.2.2.5: what must not be stored must not answer anybody else either.
                self._disposal.unpin(learned.entry)
                learned = await self._lookups.wait_alone(key, find, stale)
                joins = False
        except ObjectNotFound:
            remembered = self._absences.ttl(key, self._clock()) is not None
            return Absent(CacheStatus(forward, fwd_status=404, collapsed=joins, stored=remembered))
        except OriginUnavailable as error:
            now = self._clock()
            is_outage = isinstance(error, OriginCircuitOpen)
            if stale is None or stale.is_removed or -stale.ttl(now) >= _stale_window(stale, is_outage=is_outage):
                raise
            self._stale_hits += 1
            self._entries.pin(stale)
            log.info("%s is served stale: %s", key, error)
            return stale, CacheStatus(ttl=stale.ttl(now), detail="outage" if is_outage else "stale-if-error")
        finally:
            if stale is not None:
                self._disposal.unpin(stale)
        entry = learned.entry
        stored = entry.file_name is not None and not entry.is_removed and learned.is_new
        return entry, CacheStatus(forward, fwd_status=learned.status, stored=stored, collapsed=joins)

    async def _find(
        self, key: ObjectKey, stale: Entry | None, part: FromTo | Suffix | None, lookup: Lookup, *, get: bool
    ) -> LookupResult:
        """The one flight that asks the origin about `key`; gives an entry pinned once."""
        # What the answer says held at some time after this moment, so age counts from here (I7).
        asked_at = self._clock()
        try:
            status = 200
            if stale is None:
                answer = await requests.fetch_initial(self._origin, self._ramp, key, part, get=get)
            else:
                answer, status = await requests.revalidate(self._origin, self._ramp, stale, part, get=get)
        except ObjectNotFound:
            self._ended(key, lookup, None)
            if lookup.may_publish(None):
                self._absences.remember(key, self._clock())
                if stale is not None:
                    self._disposal.drop(stale)
            raise
        if stale is None or isinstance(answer, OriginResponse) or not stale.metadata.is_version(answer):
            return await self._create(key, answer, lookup, asked_at)
        self._ended(key, lookup, answer)
        if not stale.is_removed and lookup.may_publish(answer):
            self._entries.validated(stale, answer, asked_at)
        self._entries.pin(stale)
        return LookupResult(stale, status, is_new=False)

    async def _create(
        self, key: ObjectKey, answer: OriginResponse | Metadata, lookup: Lookup, asked_at: float
    ) -> LookupResult:
        """A new version becomes an entry; where bytes came with it, its first flight begins."""
        metadata = answer.metadata if isinstance(answer, OriginResponse) else answer
        entry = self._entries.create(key, metadata, asked_at)
        self._entries.pin(entry)
        try:
            if isinstance(answer, OriginResponse):
                # Before anybody else can see the entry: an entry gets one file in its life.
                await self.files.give(entry)
        except BaseException:
            assert isinstance(answer, OriginResponse)
            answer.body.close()
            self._disposal.drop(entry)
            self._disposal.unpin(entry)
            raise
        self._publish(entry, lookup)
        if not isinstance(answer, OriginResponse):
            return LookupResult(entry, 200)
        if entry.file is None:
            answer.body.close()
        else:
            self._fill_of(entry).adopt(answer)
        return LookupResult(entry, 206)

    def _publish(self, entry: Entry, lookup: Lookup) -> None:
        """A new version answers for its key, unless its lookup is out of date, or it is not to be kept."""
        self._ended(entry.key, lookup, entry.metadata)
        if is_kept := lookup.may_publish(entry.metadata):
            # Also a version that is not to be kept takes the place of the one before.
            self._absences.forget(entry.key)
            old = self._entries.publish(entry)
            if old is not None:
                self._disposal.discard(old)
        if not is_kept or not entry.freshness.storable:
            self._disposal.drop(entry)

    def _ended(self, key: ObjectKey, lookup: Lookup, found: Metadata | None) -> None:
        """What a superseded lookup found may be newer than what was found since, and its waiters know it: they get
        nothing older now (I7).
        """
        if not lookup.is_invalidated:
            return
        self._lookups.doubt(key, found)
        known = self._entries.get(key)
        if known is not None and (found is None or not known.metadata.is_version(found)):
            self._disposal.drop(known)

    def _fill_of(self, entry: Entry) -> Fill:
        fill = entry.fill
        if fill is None:
            fill = entry.fill = Fill(entry, self.supply)
        assert isinstance(fill, Fill)
        return fill

    def compare(self, entry: Entry) -> None:
        """Whether a complete object is what S3 says it is, in the background: what is not goes."""
        self._entries.pin(entry)
        task = asyncio.create_task(self._compare(entry), name=f"comparing {entry.key}")
        self._comparing.add(task)
        task.add_done_callback(self._comparing.discard)

    async def _compare(self, entry: Entry) -> None:
        try:
            await self.supply.comparison.check(entry, self.supply.part_size, is_urgent=False)
        except ContentMismatch as error:
            self._fill_of(entry).give_up(error)
        except StoreError as error:
            log.info("%s could not be compared: %s", entry.key, error)
        finally:
            self._disposal.unpin(entry)

    def _give_back(self, entry: Entry) -> None:
        self._entries.touch(entry, self._clock())
        self._disposal.unpin(entry)

    def _stream(self, entry: Entry, span: Span) -> AsyncGenerator[bytes, None]:
        self._passthroughs += 1
        return passthrough.stream(entry, span, self.supply)

    # --- writing -------------------------------------------------------------------------------------------

    def begin_write(self, key: ObjectKey, length: int | None) -> Upload:
        """A file for a body of `length` bytes on its way to S3; None where that is not known. Close it."""
        return Upload(
            key,
            length,
            store=self._store,
            budget=self._entries.budget,
            disposal=self._disposal,
            reserve=self.room.reserve,
            spare_descriptors=self.files.spare_descriptors,
            block_size=self.supply.block_size,
        )

    async def publish(self, writing: Upload, etag: str) -> None:
        """S3 has all of `writing`, calls it `etag`, and `invalidate` came after that: it becomes the entry of its key.

        Those who ask for the key meanwhile join. Whether S3 still has it, and what it says of it, one HEAD tells (I4);
        a write or a purge that comes meanwhile is the last word (I6). Returns when all this is over, or takes too long.
        """
        if not writing.is_whole:
            return
        key = writing.key

        async def find(lookup: Lookup) -> LookupResult:
            return await self._find_written(writing, etag, lookup)

        writing.keep()
        self._lookups.supersede(lambda known: known == key)
        lookup = self._lookups.start(key, find, None, on_end=writing.discard)
        try:
            async with asyncio.timeout(PUBLISHING):
                learned = await self._lookups.learned(lookup)
        except (ProxyError, TimeoutError) as error:
            log.info("%s was written, and is not in the cache: %s", key, str(error) or "S3 does not answer")
        else:
            self._disposal.unpin(learned.entry)

    async def _find_written(self, writing: Upload, etag: str, lookup: Lookup) -> LookupResult:
        key = writing.key
        for _ in range(ASKS):
            lookup.conflicting_results.clear()
            asked_at = self._clock()
            metadata = await requests.fetch_initial(self._origin, self._ramp, key, None, get=False)
            if not lookup.conflicting_results:
                break
        if isinstance(metadata, OriginResponse) or (metadata.etag, metadata.size) != (etag, writing.size):
            if isinstance(metadata, Metadata) and metadata.etag == etag:
                log.error("%s: the origin has %d of %d bytes that it took", key, metadata.size, writing.size)
            return await self._create(key, metadata, lookup, asked_at)
        if not writing.is_whole:
            return await self._create(key, metadata, lookup, asked_at)
        entry = self._entries.create(key, metadata, asked_at)
        self._entries.pin(entry)
        writing.hand_over(self._entries, entry)
        self._written += 1
        self._publish(entry, lookup)
        return LookupResult(entry, 200)

    # --- removing ------------------------------------------------------------------------------------------

    async def invalidate(self, *keys: ObjectKey) -> None:
        """Nothing from before this call answers a request begun after it (I5, I6).

        Versions with an id do not change by a write; the "null" one, of buckets without versions, does.
        """
        await self.purge([name for key in keys for name in (key, key._replace(version=NULL_VERSION))])

    async def purge(
        self,
        keys: Iterable[ObjectKey] = (),
        prefixes: Iterable[ObjectKey] = (),
        *,
        soft: bool = False,
        versions: bool = False,
    ) -> int:
        """Remove, or with `soft` mark stale, entries by key and by prefix; returns how many there were. `versions`:
        a key's pinned versions as well; a prefix always takes them along.

        Complete when it returns: files are unlinked, so it survives a restart (I27). A prefix is an ObjectKey whose
        key is the prefix. Raises StoreError when the disk refused: memory has forgotten the entries all the same.
        """
        return await self._purges.purge(keys, prefixes, soft=soft, versions=versions)

    async def scrub(self, row: Row, page: Page) -> int:
        """Read the blocks that a row of the index claims; those that went bad are given up, and so is an entry whose
        file is gone. Returns the bytes read. Raises StoreError.
        """
        block_size, claims = self.supply.block_size, tuple(page.claims())
        damage = await self._store.audit(row.file, row.metadata.size, claims, block_size)
        entry = self._entries.get(row.key) if damage != 0 else None
        if entry is not None and entry.id == row.id:
            log.warning("%s: %s", row.key, "its file is gone" if damage is None else "blocks went bad on the disk")
            if damage is None:
                self._disposal.drop(entry)
            else:
                await self._verify(entry, damage)
        self._scrubbed_blocks += len(claims)
        return blocks.allocated(page.present << page.number * PAGE_BLOCKS, row.metadata.size, block_size)

    async def _verify(self, entry: Entry, suspects: int) -> None:
        self._entries.pin(entry)
        try:
            self._entries.doubt(entry, suspects)
            await self.files.open(entry, wants_body=True)
            for block in blocks.members(suspects & entry.unverified):
                if entry.file is not None:
                    await self._fill_of(entry).verify(block)
        finally:
            self._disposal.unpin(entry)

    async def close(self) -> None:
        """End lookups and flights, close files, write the last changes: the next start is a clean one."""
        await self._lookups.close()
        await self.files.finish()
        while flights := list(self.supply.traffic.tasks):  # one that ends well just now may start the next
            for task in flights:
                task.cancel()
            await asyncio.gather(*flights, return_exceptions=True)
        for task in self._comparing:
            task.cancel()
        await asyncio.gather(*self._purges.running, *self._comparing, return_exceptions=True)
        await self._disposal.finish()
        await self.flusher.flush()
        for entry in self._entries.close():
            if entry.fill is not None:
                await entry.fill.verified()
            if entry.file is not None:
                await self._store.close_file(entry.file)
        await self._index.close(self._entries.changes())

    def statistics(self) -> Statistics:
        budget, traffic = self._entries.budget, self.supply.traffic
        return Statistics(
            entries=len(self._entries),
            bytes_used=budget.used,
            bytes_limit=budget.limit,
            index_bytes=budget.overhead,
            hits=self._hits,
            stale_hits=self._stale_hits,
            misses=self._misses,
            revalidations=self._revalidations,
            lookups=self._lookups.started,
            lookups_joined=self._lookups.joined,
            flights=traffic.started,
            flights_running=traffic.running,
            flights_split=traffic.split,
            hedges=traffic.hedges,
            hedges_won=traffic.hedges_won,
            retries_refused=self.supply.retries.refused,
            endings=tuple((ending.name.lower(), count) for ending, count in traffic.endings.items()),
            passthroughs=self._passthroughs,
            written=self._written,
            evicted=self._entries.evicted,
            corrupt_blocks=self._entries.corrupt_blocks,
            corrupt_objects=self._integrity.corrupt_objects,
            compared_objects=self._integrity.compared,
            scrubbed_blocks=self._scrubbed_blocks,
            disk_failures=self._store.failures,
            disk_is_usable=self._store.is_usable,
            absences=len(self._absences),
        )


def _stale_window(entry: Entry, *, is_outage: bool) -> float:
    """Seconds past its TTL that an entry may be used because the origin fails, or is out of reach altogether."""
    return entry.freshness.outage if is_outage else entry.freshness.stale_if_error
