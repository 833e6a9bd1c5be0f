"""The door to the cache. A key goes in, and a `Reader` comes out: metadata, an open descriptor, a readable stretch.

Other rooms never see a part fetch, the index or the name of a file. `cache.assembly` puts the cache together.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from bucketfront.cache.adoption import Adopter, AdoptionRefusal
from bucketfront.cache.bypass import Bypass
from bucketfront.cache.entries.entry import MAX_USES, Entry
from bucketfront.cache.entries.entry_table import FreshnessOf
from bucketfront.cache.entries.freshness_bound import FreshnessBound
from bucketfront.cache.entries.hot_bodies import MAX_BODY_BYTES, HotBodies
from bucketfront.cache.entries.lease import Lease
from bucketfront.cache.entries.negative_cache import Absence, NegativeCache, Refusal
from bucketfront.cache.entries.removals import RemovalFigures, RemovalReason, StorageRefusal
from bucketfront.cache.fetch.fill_view import FillView
from bucketfront.cache.fetch.integrity import Integrity
from bucketfront.cache.fetch.single_flight import Lookups
from bucketfront.cache.fetch.traffic import Account, Cause, Waste
from bucketfront.cache.held import MAX_SPANS, Held, Present
from bucketfront.cache.lookup_flow import Absent, LookupFlow, Shown
from bucketfront.cache.mode import CacheMode
from bucketfront.cache.reader import Reader, ReaderContext
from bucketfront.cache.shadow import Shadow
from bucketfront.cache.snapshot import Snapshot
from bucketfront.cache.statistics import Found, Statistics
from bucketfront.cache.storage import blocks, page_cache
from bucketfront.cache.upkeep.announcements import Announcements, Announcer, Invalidation
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.cache.upkeep.open_files import OpenFiles
from bucketfront.cache.upkeep.purge import Purge, Purged, PurgeMode
from bucketfront.cache.upkeep.purge_selection import KeyRange, PurgeSelection
from bucketfront.cache.upload import Upload
from bucketfront.cache.views import EntryView, KeyView, Views
from bucketfront.errors import StoreError
from bucketfront.fair_share import Shares
from bucketfront.http.cache_status import CacheStatus
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Span, Suffix
from bucketfront.keys import ObjectKey

NULL_VERSION = "null"  # S3's id of an object that was stored while its bucket had no versioning
MAX_FILLS = 100  # in one view, unless its caller wants fewer or more
TOUCH_INTERVAL_S = 1.0  # an idle timer is reset at most so often, because idle timeouts are much longer


class Cache:
    """What the rest of bucketfront uses of the cache. Lives in the event loop."""

    def __init__(
        self,
        *,
        readers: ReaderContext,
        lookups: Lookups,
        lookup_flow: LookupFlow,
        bypass: Bypass | None,
        negative_cache: NegativeCache,
        hot_bodies: HotBodies,
        disposal: Disposal,
        open_files: OpenFiles,
        purges: Purge,
        integrity: Integrity,
        views: Views,
        upload_shares: Shares,
        flush: Callable[[], Awaitable[None]],
        announcements: Announcements,
    ) -> None:
        """`bypass` serves the clients if the cache does not. `upload_shares` are those of clients in the space
        that uploads take until they are published.

        `flush` writes changed entries to the index.
        """
        self._readers = readers
        self._fetch_context = readers.fetch_context
        self._entries = readers.fetch_context.entries
        self._clock = readers.clock
        self._counters = readers.counters
        self._lookups = lookups
        self._lookup_flow = lookup_flow
        self._bypass = bypass
        self._negative_cache = negative_cache
        self._hot_bodies = hot_bodies
        self._disposal = disposal
        self._open_files = open_files
        self._purges = purges
        self._integrity = integrity
        self._views = views
        self._upload_shares = upload_shares
        self._flush = flush
        self._announcements = announcements
        self._adopter = Adopter(lookup_flow, self._entries, open_files)

    @property
    def mode(self) -> CacheMode:
        """Return whether the cache serves clients, or only shows what it would do."""
        return CacheMode.SERVE if self._bypass is None else self._bypass.mode

    @property
    def shadow(self) -> Shadow | None:
        """Return what compares the cache with S3. Returns None in other modes."""
        return None if self._bypass is None else self._bypass.shadow

    def change(self, policy: FreshnessOf, negative_ttl: Callable[[ObjectKey], float], memory: int) -> None:
        """Use other rules from now on, for all that is in the cache. `memory` is in bytes.

        A lease that was granted before may still be valid: its holder asks for another one.
        """
        self._entries.change_policy(policy)
        self._negative_cache.change_ttl(negative_ttl)
        for lease in self._hot_bodies.resize(memory):
            lease.revoke()

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
        """Return S3's 404 for `key` if it came within `negative_ttl` and no object of that name was seen since."""
        return None if self._entries.hot(key) is not None else self._negative_cache.find(key, self._clock())

    def was_absent(self, key: ObjectKey) -> bool:
        """Return whether S3's last known response for `key` is a 404, however old."""
        return self._negative_cache.contains(key)

    def forget_absences(self) -> None:
        """Forget all remembered 404s and refusals."""
        for key in self._negative_cache.keys():  # noqa: SIM118 - no dict
            self._negative_cache.forget(key)

    def refuse(self, key: ObjectKey, *, is_denied: bool) -> None:
        """Remember for `negative_ttl` that the origin refused an optional object, or failed. See `refusal`."""
        self._negative_cache.refuse(key, self._clock(), is_denied=is_denied)

    def refusal(self, key: ObjectKey) -> Refusal | None:
        """Return the refusal of `key` if it holds and no entry may serve. It is no response for a client.

        If the cache does not serve, there is none: each request goes to the origin.
        """
        if self._bypass is not None:
            return None
        return None if self._entries.hot(key) is not None else self._negative_cache.refusal(key, self._clock())

    def _grant(self, entry: Entry) -> Lease | None:
        size = entry.metadata.size
        if entry.file is None or entry.unverified or not entry.is_complete(self._fetch_context.block_size):
            return None
        body, region = None, entry.file.region
        if size <= MAX_BODY_BYTES and self._hot_bodies.has_room_for(size):
            found = page_cache.peek(region.fd, region.offset, size)
            if found is None:
                return None
            body = bytes(found)
        fresh_until = entry.validated_at + entry.freshness.ttl
        lease = Lease(entry.key, entry.id, entry.metadata, region, entry.validated_at, fresh_until, body, entry.bound)
        if body is not None:
            for pushed_out in self._hot_bodies.keep(lease):
                pushed_out.revoke()
        return lease

    def lend(self, lease: Lease, on_revoke: Callable[[Callable[[], None]], None]) -> None:
        """Have `on_revoke` called when the lease ends, for a holder outside this process.

        Its argument is to be called once the holder has closed its copy of the descriptor. Until then the space of
        the file counts as taken.
        """
        entry = self._leased(lease)
        assert lease.is_valid
        assert entry is not None

        def end() -> None:
            self._entries.pin(entry)
            on_revoke(lambda: self._disposal.unpin(entry))

        lease.on_revoke = end

    def record_uses(self, lease: Lease, now: float, times: int) -> None:
        """Count hits of a holder outside this process. `now` is by the cache's clock."""
        self._counters.hits += times - 1
        self.record_use(lease, now)

    def record_use(self, lease: Lease, now: float) -> None:
        """Count a hit, and note the use of the entry. `now` is by the cache's clock.

        Once the entry counts as popular, its uses are noted at most once in TOUCH_INTERVAL_S.
        """
        self._counters.hits += 1
        if 0 <= now - lease.used_at < TOUCH_INTERVAL_S:
            return
        if (entry := self._leased(lease)) is not None:
            entry.unread = 0  # a hit of a complete object counts as a read of all of it
            self._entries.use(entry, now)
            self._hot_bodies.touch(lease)
            if entry.uses == MAX_USES:
                lease.used_at = now

    def reader_of(self, lease: Lease) -> Reader:
        """Return a reader for a response that takes more than this turn of the event loop. Close it."""
        entry = self._leased(lease)
        assert lease.is_valid
        assert entry is not None
        self._entries.pin(entry)
        return Reader(
            entry, CacheStatus(ttl=entry.ttl(self._clock())), self._readers, Found.ELSEWHERE, is_use_noted=True
        )

    def _leased(self, lease: Lease) -> Entry | None:
        entry = self._entries.hot(lease.key)
        return entry if entry is not None and entry.id == lease.entry_id else None

    # --- reading ---------------------------------------------------------------------------------------------

    def lookup(
        self,
        key: ObjectKey,
        *,
        wants_body: bool,
        part: FromTo | Suffix | None = None,
        revalidate: bool = False,
        only_if_cached: bool = False,
    ) -> Coroutine[Any, Any, Reader | Absent]:
        """Find the object of `key`, in the cache or at the origin. Close the Reader, because it pins an entry.

        `part` is the client's range, the first one of several. `revalidate` sends a request to the origin even for a
        fresh entry. `only_if_cached` sends none.

        Raises OriginErrors except ObjectNotFound. Raises NotCached if `only_if_cached` finds no entry.
        """
        return self._lookup_flow.lookup(
            key, wants_body=wants_body, part=part, revalidate=revalidate, only_if_cached=only_if_cached
        )

    def lookup_for_client(
        self,
        key: ObjectKey,
        *,
        wants_body: bool,
        part: FromTo | Suffix | None = None,
        revalidate: bool = False,
        only_if_cached: bool = False,
        shown: Shown | None = None,
    ) -> Coroutine[Any, Any, Reader | Absent]:
        """Find the object that a client gets: by `lookup`, or straight at the origin if the cache does not serve.

        With `shown` an entry of that version serves without a request, and one of another version is revalidated. The
        Reader may have another version in the end.
        """
        if self._bypass is None:
            return self._lookup_flow.lookup(
                key,
                wants_body=wants_body,
                part=part,
                revalidate=revalidate,
                only_if_cached=only_if_cached,
                shown=shown,
            )
        return self._bypass.lookup(
            key, wants_body=wants_body, part=part, revalidate=revalidate, only_if_cached=only_if_cached
        )

    # --- looking without a use -------------------------------------------------------------------------------

    @property
    def free_bytes(self) -> int:
        """Return how many bytes fit without an eviction, within `max_size` and `min_free`."""
        return max(0, self._entries.budget.available)

    @property
    def disk_is_usable(self) -> bool:
        """Return whether new objects can be stored: the disk did not fail a moment ago."""
        return self._fetch_context.store.is_usable

    @property
    def block_size(self) -> int:
        """Return `block_size` in bytes."""
        return self._fetch_context.block_size

    @property
    def capacity(self) -> int:
        """Return `max_size` in bytes."""
        return self._entries.budget.limit

    def present(self, key: ObjectKey, part: Callable[[int], Iterable[Span]]) -> Present | None:
        """Return what is known of an entry that has all bytes which `part` selects of its size.

        Returns None if it has not. This is no use of the entry, and brings nothing into memory.
        """
        try:
            entry = self._entries.peek(key)
        except StoreError:  # the lookup of the object reports it
            return None
        if entry is None or (entry.metadata.size and entry.file_name is None):
            return None
        block_size = self._fetch_context.block_size
        wanted = (blocks.mask(blocks.covering(one, block_size)) for one in part(entry.metadata.size) if one.length)
        if any(mask & ~entry.present for mask in wanted):
            return None
        is_read = not entry.present or bool(entry.present & ~entry.unread)
        return Present(entry.metadata, entry.ttl(self._clock()) > 0, is_read)

    async def flush(self) -> None:
        """Write what memory knows of entries to the index, so that `newest` shows it."""
        await self._flush()

    def newest(self, limit: int, before: tuple[float, int] | None = None) -> list[Held]:
        """Return what is held by last access, the newest first, and only what is behind the place `before`.

        Entries that were removed a short while ago are among them, without their key.

        A use between two calls moves an entry to the front, so that a later page does not have it. Raises StoreError.
        """
        return [self._held(*found) for found in self._entries.newest(limit, before)]

    def _held(self, accessed_at: float, entry_id: int, entry: Entry | None) -> Held:
        if entry is None:
            return Held(entry_id, None, 0, (), is_complete=False, accessed_at=accessed_at, uses=0)
        size, block_size = entry.metadata.size, self._fetch_context.block_size
        runs = blocks.first_runs(entry.present, MAX_SPANS)
        spans = tuple(blocks.span_of(range(start, stop), size, block_size) for start, stop in runs)
        return Held(entry.id, entry.key, size, spans, entry.is_complete(block_size), accessed_at, max(0, entry.uses))

    async def snapshot(self, key: ObjectKey) -> Snapshot | None:
        """Return the bytes that are held of a key, for an archive. Close it, because it pins an entry.

        Returns None if no bytes are held. This is no use of the entry, and sends no request. Raises StoreError.
        """
        was_hot = self._entries.hot(key) is not None
        entry = self._entries.find(key)
        if entry is None:
            return None
        self._entries.pin(entry)
        found = Snapshot(entry, self._fetch_context, was_hot=was_hot)
        try:
            await self._open_files.open(entry, wants_body=False)
        except BaseException:
            found.close()
            raise
        if entry.metadata.size and entry.file is None:
            found.close()
            return None
        return found

    # --- writing ---------------------------------------------------------------------------------------------

    def begin_write(self, key: ObjectKey, length: int | None) -> Upload:
        """Return a file for a body on its way to S3. `length` is in bytes, None if it is not declared. Close it."""
        return Upload(
            key,
            length,
            store=self._fetch_context.store,
            budget=self._entries.budget,
            disposal=self._disposal,
            space=self._fetch_context.space,
            spare_descriptors=self._open_files.spare_descriptors,
            block_size=self._fetch_context.block_size,
            shares=self._upload_shares,
        )

    async def publish(self, upload: Upload, etag: str) -> None:
        """Make the upload the entry of its key. S3 has all of it as `etag`, and `invalidate` was called after that.

        Requests for the key join meanwhile. One HEAD confirms that S3 still has this body, and is the source of its
        metadata (docs/invariants.md#one-source-of-metadata). A write or purge that comes meanwhile prevails:
        no stale fill (docs/invariants.md#no-stale-fill). Returns when that is over, or takes too long. In the mode
        OBSERVE it does nothing.
        """
        if self.mode is CacheMode.OBSERVE:
            return
        await self._lookup_flow.publish_upload(upload, etag)

    async def adopt(self, key: ObjectKey, claimed: Metadata, uses: int) -> Reader | AdoptionRefusal:
        """Return a reader whose `supply` takes bytes that another cache had of the claimed version. Close it.

        S3 confirms before that it has this version, with a HEAD unless the entry of the key is fresh. `uses` are
        requests that the other cache has counted. Raises OriginErrors except ObjectNotFound.
        """
        return await self._adopter.adopt(key, claimed, uses)

    # --- removing --------------------------------------------------------------------------------------------

    async def invalidate(self, *keys: ObjectKey, announces: bool = True) -> None:
        """Make all that is known of these objects void for requests that begin later.

        With `announces` other caches learn of it. See docs/invariants.md#read-your-writes. A write does not change
        versions that have an id, except the "null" version of buckets without versioning.
        """
        named = [name for key in keys for name in (key, key._replace(version=NULL_VERSION))]
        await self._purges.purge(PurgeSelection.of(named), PurgeMode.REMOVE, RemovalReason.WRITTEN, announces=announces)

    async def purge(
        self,
        keys: Iterable[ObjectKey] = (),
        prefixes: Iterable[ObjectKey] = (),
        *,
        soft: bool = False,
        versions: bool = False,
    ) -> int:
        """Remove the entries of keys and prefixes, or mark them stale with `soft`. Return their number.

        A prefix is an ObjectKey whose key is the prefix. `versions` includes the pinned versions of a key; a prefix
        always includes them. Raises StoreError as `purge_selected` does.
        """
        ranges = (KeyRange(prefix.bucket, prefix.key) for prefix in prefixes)
        selection = PurgeSelection.of(keys, ranges, versions=versions)
        purged = await self.purge_selected(selection, PurgeMode.EXPIRE if soft else PurgeMode.REMOVE)
        return purged.count

    async def purge_selected(self, selection: PurgeSelection, mode: PurgeMode) -> Purged:
        """Remove the selected entries, mark them stale, or only count them.

        When it returns, the index knows which entries are removed or stale, so a purge survives a restart
        (docs/invariants.md#admin-is-apart). The files of removed entries are unlinked, or will be if there are many:
        see `cache.upkeep.discard_queue`. Raises StoreError if the disk fails, after it cleared the memory.
        """
        return await self._purges.purge(selection, mode)

    def purge_later(self, selection: PurgeSelection, mode: PurgeMode) -> None:
        """Do the same in the background. The log has its end."""
        self._purges.begin(selection, mode)

    # --- other caches ------------------------------------------------------------------------------------------

    @property
    def bound(self) -> FreshnessBound:
        """Return what bounds the freshness of all entries while changes elsewhere may be missed."""
        return self._entries.bound

    def announce_to(self, announcer: Announcer | None) -> None:
        """Let other caches learn of each invalidation that begins here from now on: purges, writes, other versions."""
        self._announcements.announcer = announcer

    async def apply(self, invalidation: Invalidation) -> None:
        """Do what another cache has announced, and do not announce it again. Raises StoreError as `purge_selected`."""
        keys, etag = invalidation.selection.keys, invalidation.etag
        if etag is not None and keys and all(self._has_version(key, etag) for key in keys):
            return
        mode = PurgeMode.EXPIRE if invalidation.is_soft else PurgeMode.REMOVE
        await self._purges.purge(invalidation.selection, mode, announces=False)

    def _has_version(self, key: ObjectKey, etag: str) -> bool:
        """Return whether the entry of `key` is the version with an ETag, and no lookup may replace it."""
        try:
            entry = self._entries.peek(key)
        except StoreError:
            return False
        return entry is not None and entry.metadata.etag == etag and not self._lookups.is_running(key)

    async def expire_everything(self) -> None:
        """Make all stale that was validated before now, and forget the 404s, because changes may have been missed.

        That takes one step, however many entries there are. When it returns, it survives a restart. Raises StoreError
        if the index did not take it; then it holds until a restart.
        """
        await self._purges.expire_everything(self._clock())

    # --- what operators see ------------------------------------------------------------------------------------

    def explain(self, key: ObjectKey) -> KeyView:
        """Return what the cache knows of a key. Changes nothing. Raises StoreError if the index fails."""
        return self._views.of_key(key)

    def entries(
        self, bucket: str, prefix: str, after: ObjectKey | None, limit: int
    ) -> tuple[Sequence[EntryView], ObjectKey | None]:
        """Return entries below a prefix in the order of their keys, only those behind `after`, at most `limit`.

        The second value is the key behind which the next page begins, None at the end. While the files of a large
        purge are removed, pages may have fewer entries than `limit`. It takes up to 50 us for each. Raises StoreError
        if the index fails.
        """
        return self._views.below(bucket, prefix, after, limit)

    def fills(self, limit: int = MAX_FILLS) -> tuple[FillView, ...]:
        """Return the fills that fetch bytes now, the oldest first, at most `limit`."""
        return tuple(fill.view() for fill in islice(self._fetch_context.stats.fills, limit))

    def removals(self) -> tuple[RemovalFigures, ...]:
        """Return how many entries were removed for each reason, with the ages that they had."""
        return self._entries.removals.figures

    def storage_refusals(self) -> tuple[tuple[StorageRefusal, int], ...]:
        """Return how many objects were not stored, by the reason."""
        return self._entries.removals.refusals

    # --- figures ---------------------------------------------------------------------------------------------

    def note_closed_body(self, key: ObjectKey, count: int) -> None:
        """Count bytes of an object that the origin has sent, and that are fetched again because they went elsewhere."""
        account = self._fetch_context.traffic.of(key)
        account.add(Cause.PASS_THROUGH, count)
        account.waste(Waste.TWICE, count)

    @property
    def traffic(self) -> Mapping[str, Account]:
        """Return the bytes that came from the origin, by mount."""
        return self._fetch_context.traffic.accounts

    def statistics(self) -> Statistics:
        """Return the figures of this moment."""
        budget, counters = self._entries.budget, self._counters
        stats, store = self._fetch_context.stats, self._fetch_context.store
        return Statistics(
            entries=len(self._entries),
            bytes_used=budget.used,
            bytes_limit=budget.limit,
            index_bytes=budget.overhead,
            hits=counters.hits,
            stale_hits=counters.stale_hits,
            partials=counters.partials,
            misses=counters.misses,
            revalidations=counters.revalidations,
            lookups=self._lookups.started,
            lookups_joined=self._lookups.joined,
            flights=stats.started,
            flights_running=stats.running,
            flights_split=stats.split,
            hedges=stats.hedges,
            hedges_won=stats.hedges_won,
            retries_refused=self._fetch_context.retries.refused,
            endings=tuple((outcome.value, count) for outcome, count in stats.outcomes.items()),
            passthroughs=counters.passthroughs,
            passthrough_pauses=stats.pauses,
            written=counters.written,
            evicted=self._entries.evicted,
            corrupt_blocks=self._entries.corrupt_blocks,
            corrupt_objects=self._integrity.corrupt_objects,
            compared_objects=self._integrity.compared,
            scrubbed_blocks=counters.scrubbed_blocks,
            disk_failures=store.failures,
            disk_is_usable=store.is_usable,
            absences=len(self._negative_cache),
            disk_size=budget.disk_size,
            disk_free=budget.disk_free,
            disk_inodes=budget.inodes,
            disk_free_inodes=budget.free_inodes,
        )
