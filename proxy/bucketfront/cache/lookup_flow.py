"""How a lookup finds the entry that serves a key.

Theory of operation
-------------------
`LookupFlow.lookup` takes an entry from memory or from the index. A fresh entry serves at once. So does a stale one
within `stale-while-revalidate`, and a lookup in the background revalidates it. In all other cases the request joins
the running lookup of the key, or starts one (see `cache.fetch.single_flight`):

- without an entry, an initial fetch gets the metadata and the first bytes with one ranged GET, or with a HEAD;
- with a stale entry, a conditional GET or a HEAD revalidates it;
- a new version becomes an entry (`_create`), its bytes become its first part fetch, and `_publish` makes it reachable;
- if the origin fails, the stale entry serves within `stale-if-error`, or within `outage` if the breaker is open.

An entry whose file turns out to be missing is removed, and the lookup starts again.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass

from bucketfront.cache.clock import Clock
from bucketfront.cache.entries.decision import Decision, decide
from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.negative_cache import NegativeCache
from bucketfront.cache.entries.removals import Removal, RemovalReason, StorageRefusal, refusal_of
from bucketfront.cache.fetch import requests
from bucketfront.cache.fetch.fill import Fill
from bucketfront.cache.fetch.part_fetch import FetchContext
from bucketfront.cache.fetch.passthrough import Spare
from bucketfront.cache.fetch.single_flight import Lookup, LookupResult, Lookups, Run
from bucketfront.cache.observed import Observed
from bucketfront.cache.origin import OriginResponse
from bucketfront.cache.reader import Reader, ReaderContext
from bucketfront.cache.statistics import Counters, Found
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.cache.upkeep.open_files import OpenFiles
from bucketfront.cache.upload import Upload
from bucketfront.errors import (
    AccessDenied,
    NotCached,
    ObjectNotFound,
    OriginCircuitOpen,
    OriginError,
    OriginRefused,
    OriginUnavailable,
    ProxyError,
)
from bucketfront.http.cache_status import CacheStatus, Detail, Forward
from bucketfront.http.cache_tags import TagFields
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.keys import ObjectKey

PUBLISH_TIMEOUT_S = 5.0  # how long a client waits for its upload to be in the cache; publishing continues after that
MAX_PUBLISH_HEADS = 3  # of one upload; each repeats because an invalidated lookup ended meanwhile with another result
MAX_RESTARTS = 4  # of one request's lookup; each because the entry's file was gone

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Absent:
    """S3 has no such object: it responded with 404, now or within `negative_ttl`. `observed` is as in `Reader`."""

    status: CacheStatus
    observed: Observed | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A version that the origin has shown to a client that asked it itself, and the status of that response.

    `last_modified` is None if the response has no such field. `status` is None if the origin has shown the version
    before, and the client may have it without another request.
    """

    etag: str
    last_modified: str | None
    status: int | None

    def is_of(self, metadata: Metadata) -> bool:
        """Return whether that is the version of the metadata, as far as the response shows."""
        return self.etag == metadata.etag and self.last_modified in (None, metadata.last_modified)


class LookupFlow:
    """Finds the entry that serves a key, and publishes new versions. Lives in the event loop."""

    def __init__(
        self,
        *,
        fetch_context: FetchContext,
        lookups: Lookups,
        negative_cache: NegativeCache,
        disposal: Disposal,
        open_files: OpenFiles,
        readers: ReaderContext,
        clock: Clock,
        counters: Counters,
        tag_fields: TagFields,
    ) -> None:
        self._fetch_context = fetch_context
        self._origin = fetch_context.origin
        self._entries = fetch_context.entries
        self._lookups = lookups
        self._negative_cache = negative_cache
        self._disposal = disposal
        self._open_files = open_files
        self._readers = readers
        self._clock = clock
        self._counters = counters
        self._tag_fields = tag_fields

    async def lookup(
        self,
        key: ObjectKey,
        *,
        wants_body: bool,
        part: FromTo | Suffix | None = None,
        revalidate: bool = False,
        only_if_cached: bool = False,
        shown: Shown | None = None,
    ) -> Reader | Absent:
        """Return a Reader for the object of `key`, or Absent. See `Cache.lookup` and `Cache.lookup_for_client`."""
        revalidate = revalidate or shown is not None
        for _ in range(MAX_RESTARTS):
            if not self._fetch_context.ownership.is_held:
                return await self._look_past(key, part, wants_body=wants_body, only_if_cached=only_if_cached)
            now = self._clock()
            entry = self._entries.get(key)
            absent_for = self._negative_cache.ttl(key, now) if entry is None else None
            decision = decide(entry, absent_for, now, revalidate=revalidate)
            if decision is Decision.ABSENT:
                self._counters.hits += 1
                return Absent(CacheStatus(ttl=absent_for))
            is_shown = entry is not None and shown is not None and shown.is_of(entry.metadata)
            if entry is not None and (is_shown or decision in (Decision.HIT, Decision.STALE)):
                self._entries.pin(entry)
                status, how = self._serve(entry, decision, now, shown if is_shown else None)
                failure = None
            elif only_if_cached:
                raise NotCached(f"{key} is not in the cache")
            else:
                found = await self._join_or_start(key, entry, part if wants_body else None, wants_body=wants_body)
                if found is None:
                    continue
                if isinstance(found, Absent):
                    return found
                entry, status, failure = found
                how = Found.ELSEWHERE if failure is None else Found.STALE
                revalidate = False
            try:
                if await self._open_files.open(entry, wants_body=wants_body):
                    self._entries.touch(entry, self._clock())
                    return Reader(entry, status, self._readers, how, failure)
            except BaseException:
                self._disposal.unpin(entry)
                raise
            # The file is gone, or does not have the blocks that the index claims. Without the entry, the next round is
            # a miss.
            self._disposal.remove(entry, RemovalReason.LOST)
            self._disposal.unpin(entry)
        raise OriginUnavailable(f"{key} changed {MAX_RESTARTS} times while it was looked up")

    async def _look_past(
        self, key: ObjectKey, part: FromTo | Suffix | None, *, wants_body: bool, only_if_cached: bool
    ) -> Reader | Absent:
        """Find the object at the origin alone. No other request shares the result, and the cache gets nothing."""
        if only_if_cached:
            raise NotCached(f"{key} is in no cache of this process")
        self._origin.admit(key, joins=False)
        self._counters.misses += 1

        def run(lookup: Lookup) -> Coroutine[None, None, LookupResult]:
            return self._run(key, None, part if wants_body else None, lookup, get=wants_body)

        try:
            result = await self._lookups.run_private(key, run, None)
        except ObjectNotFound:
            return Absent(CacheStatus(Forward.MISS, fwd_status=404))
        except OriginError as error:
            error.forward = Forward.MISS
            raise
        status = CacheStatus(Forward.MISS, fwd_status=result.status)
        return Reader(result.entry, status, self._readers, Found.ELSEWHERE)

    def _serve(self, entry: Entry, decision: Decision, now: float, shown: Shown | None) -> tuple[CacheStatus, Found]:
        """Return the cache status of an entry that serves at once. The reader counts it.

        A version that the origin has shown is confirmed for its client alone, because others may have an older one.
        """
        ttl = entry.ttl(now)
        if shown is not None:
            if shown.status is None:
                return CacheStatus(ttl=ttl), Found.FRESH
            self._counters.revalidations += 1
            return CacheStatus(_forward(entry, now), fwd_status=shown.status), Found.ELSEWHERE
        if decision is Decision.HIT:
            return CacheStatus(ttl=ttl), Found.FRESH
        if not self._lookups.is_running(entry.key):
            self._revalidate_later(entry)
        return CacheStatus(ttl=ttl, detail=Detail.STALE_WHILE_REVALIDATE), Found.STALE

    def _revalidate_later(self, stale: Entry) -> None:
        """Start a lookup in the background, with a HEAD."""
        self._counters.revalidations += 1

        async def run(lookup: Lookup) -> LookupResult:
            try:
                return await self._run(stale.key, stale, None, lookup, get=False)
            except AccessDenied:
                # The next request must send one to the origin, and get the 403 itself.
                self._entries.expire(stale)
                raise

        self._lookups.start(stale.key, run, stale)

    async def _join_or_start(
        self, key: ObjectKey, stale: Entry | None, part: FromTo | Suffix | None, *, wants_body: bool
    ) -> tuple[Entry, CacheStatus, OriginError | None] | Absent | None:
        """Wait for the lookup of `key`, joined or started. The entry that it returns is pinned.

        If it is stale, the error of the origin is the reason. Returns None if a purge by tag makes another lookup
        necessary.
        """
        forward = _forward(stale, self._clock())
        joins = self._lookups.is_running(key)
        before = None if stale is not None else self._entries.removals.last(key)
        # Here and not in the lookup's task, because other clients may wait for that.
        self._origin.admit(key, joins=joins)
        if stale is None:
            self._counters.misses += 1
        else:
            self._counters.revalidations += 1
            self._entries.pin(stale)  # it may serve in the end

        def run(lookup: Lookup) -> Coroutine[None, None, LookupResult]:
            return self._run(key, stale, part, lookup, get=wants_body)

        try:
            found = await self._joined(key, run, stale, joins=joins)
            if found is None:
                return None
            result, joins = found
        except ObjectNotFound:
            remembered = self._negative_cache.ttl(key, self._clock()) is not None
            return Absent(CacheStatus(forward, fwd_status=404, collapsed=joins, stored=remembered))
        except OriginUnavailable as error:
            now = self._clock()
            # Our own credentials, clock and configuration are repaired by people, which takes longer than a failure.
            is_outage = isinstance(error, OriginCircuitOpen | OriginRefused)
            if stale is None or stale.is_removed or -stale.ttl(now) >= _stale_window(stale, is_outage=is_outage):
                error.forward = forward
                raise
            self._entries.pin(stale)
            log.info("%s is served stale: %s", key, error)
            ttl, reason = stale.ttl(now), Detail.OUTAGE if is_outage else Detail.STALE_IF_ERROR
            if isinstance(error, OriginCircuitOpen):  # the origin got no request
                return stale, CacheStatus(ttl=ttl, detail=reason), error
            return stale, CacheStatus(forward, fwd_status=error.status, ttl=ttl, collapsed=joins, detail=reason), error
        except OriginError as error:
            error.forward = forward
            raise
        finally:
            if stale is not None:
                self._disposal.unpin(stale)
        entry = result.entry
        stored = entry.file_name is not None and not entry.is_removed and result.is_new
        detail = self._detail(key, before, is_stored=stored or not result.is_new)
        status = CacheStatus(forward, fwd_status=result.status, stored=stored, collapsed=joins, detail=detail)
        return entry, status, None

    def _detail(self, key: ObjectKey, before: Removal | None, *, is_stored: bool) -> Detail | None:
        """Return why the object is not stored, or else why it was not in the cache. `before` is of before the lookup.

        Returns None if that is not known.
        """
        after = None if is_stored else self._entries.removals.last(key)
        known = after if after is not None and isinstance(after.reason, StorageRefusal) else before
        return None if known is None else Detail(known.reason.value)

    async def _joined(
        self, key: ObjectKey, run: Run, stale: Entry | None, *, joins: bool
    ) -> tuple[LookupResult, bool] | None:
        """Return the result of a lookup, joined or started, and whether it is that of another request.

        Returns None as `Lookups.join_or_start` does.
        """
        result = await self._lookups.join_or_start(key, run, stale)
        if result is None or not joins or result.entry.freshness.storable:
            return None if result is None else (result, joins)
        # RFC 9111 section 5.2.2.5: a response that must not be stored must not serve another request either.
        self._disposal.unpin(result.entry)
        return await self._lookups.run_private(key, run, stale), False

    # --- inside a lookup's task ------------------------------------------------------------------------------

    async def _run(
        self, key: ObjectKey, stale: Entry | None, part: FromTo | Suffix | None, lookup: Lookup, *, get: bool
    ) -> LookupResult:
        """Send the request of a lookup, and return an entry that is pinned once."""
        # The response may describe the object at any time after the request was sent, so its age counts from here:
        # bounded staleness (docs/invariants.md#bounded-staleness).
        sent_at = self._clock()
        try:
            status = 200
            if stale is None:
                response = await requests.fetch_initial(
                    self._origin, self._fetch_context.first_read_ahead, key, part, get=get
                )
            else:
                response, status = await requests.revalidate(
                    self._origin, self._fetch_context.first_read_ahead, stale, part, get=get
                )
        except ObjectNotFound:
            self._report_conflict(key, lookup, None)
            if lookup.may_publish(None):
                self._negative_cache.remember(key, self._clock())
                if stale is not None:
                    self._disposal.remove(stale, RemovalReason.DELETED)
            raise
        if stale is None or isinstance(response, OriginResponse) or not _confirms(response, status, stale):
            return await self._create(key, response, lookup, sent_at)
        self._report_conflict(key, lookup, response)
        if not stale.is_removed and lookup.may_publish(response):
            self._entries.confirm(stale, response, sent_at)
        self._entries.pin(stale)
        return LookupResult(stale, status, is_new=False)

    async def _create(
        self, key: ObjectKey, response: OriginResponse | Metadata, lookup: Lookup, sent_at: float
    ) -> LookupResult:
        """Make an entry of a new version. The bytes of a response become its first part fetch."""
        metadata = response.metadata if isinstance(response, OriginResponse) else response
        if not metadata.has_validator:
            log.info("%s is not cached: the origin sent no ETag that can tell its versions apart", key)
        entry = self._entries.create(key, metadata, sent_at)
        self._entries.pin(entry)
        if isinstance(response, OriginResponse):
            try:
                # Before the entry is reachable, because it gets one file in its life.
                await self._open_files.give(entry)
            except BaseException:
                response.body.close()
                self._disposal.remove(entry, StorageRefusal.OVERTAKEN)
                self._disposal.unpin(entry)
                raise
        self._publish(entry, lookup)
        if not isinstance(response, OriginResponse):
            return LookupResult(entry, 200)
        if entry.file is None:
            entry.spare = Spare(response)
        else:
            Fill.of(entry, self._fetch_context).adopt(response)
        return LookupResult(entry, response.status)

    def _publish(self, entry: Entry, lookup: Lookup) -> None:
        """Make a new version the entry of its key, unless its lookup may not publish, or it must not be stored."""
        self._report_conflict(entry.key, lookup, entry.metadata)
        if not self._fetch_context.ownership.is_held:
            self._disposal.remove(entry, StorageRefusal.OVERTAKEN)
            return
        if may_publish := lookup.may_publish(entry.metadata):
            # A version that must not be stored still replaces the one before.
            self._negative_cache.forget(entry.key)
            old = self._entries.publish(entry)
            if old is not None:
                self._disposal.unlink_later(old)
        if not entry.freshness.storable:
            self._disposal.remove(entry, refusal_of(entry.freshness.basis))
        elif not may_publish:
            self._disposal.remove(entry, StorageRefusal.OVERTAKEN)

    def _report_conflict(self, key: ObjectKey, lookup: Lookup, found: Metadata | None) -> None:
        """Handle the result of an invalidated lookup, None for a 404, which may be newer than what is known.

        Its waiters get this result, and must not get an older version afterwards. So an entry of another version is
        removed, and the shared lookup gets this result as a conflicting one.
        """
        if found is not None:
            self._lookups.check_tags(key, lookup, lambda: self._tag_fields.tags(found.headers))
        if not lookup.is_invalidated:
            return
        self._lookups.add_conflict(key, found)
        known = self._entries.get(key) if self._fetch_context.ownership.is_held else None
        if known is not None and (found is None or not known.metadata.is_version(found)):
            self._disposal.remove(known, RemovalReason.DELETED if found is None else RemovalReason.CHANGED)

    # --- publishing uploads ----------------------------------------------------------------------------------

    async def publish_upload(self, upload: Upload, etag: str) -> None:
        """Publish an upload as the entry of its key. See `Cache.publish`."""
        if not upload.is_whole or not self._fetch_context.ownership.is_held:
            return
        key = upload.key

        async def run(lookup: Lookup) -> LookupResult:
            return await self._run_upload(upload, etag, lookup)

        upload.keep()
        self._lookups.invalidate([key])
        lookup = self._lookups.start(key, run, None, on_end=upload.discard, written_etag=etag)
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                result = await self._lookups.result(lookup)
        except (ProxyError, TimeoutError) as error:
            log.info("%s was written, and is not in the cache: %s", key, str(error) or "S3 does not answer")
        else:
            self._disposal.unpin(result.entry)

    async def _run_upload(self, upload: Upload, etag: str, lookup: Lookup) -> LookupResult:
        """Make the upload's file the entry, if a HEAD confirms that S3 has this body. Otherwise create the entry."""
        key = upload.key
        for _ in range(MAX_PUBLISH_HEADS):
            lookup.conflicting_results.clear()
            sent_at = self._clock()
            metadata = await requests.fetch_initial(
                self._origin, self._fetch_context.first_read_ahead, key, None, get=False
            )
            if not lookup.conflicting_results:
                break
        if isinstance(metadata, OriginResponse) or (metadata.etag, metadata.size) != (etag, upload.size):
            if isinstance(metadata, Metadata) and metadata.etag == etag:
                log.error("%s: the origin has %d of %d bytes that it took", key, metadata.size, upload.size)
            return await self._create(key, metadata, lookup, sent_at)
        if not upload.is_whole:
            return await self._create(key, metadata, lookup, sent_at)
        entry = self._entries.create(key, metadata, sent_at)
        self._entries.pin(entry)
        upload.hand_over(self._entries, entry)
        self._counters.written += 1
        self._publish(entry, lookup)
        return LookupResult(entry, 200)


def _forward(known: Entry | None, now: float) -> Forward:
    """Return why a request goes to the origin although the cache may have an entry (RFC 9211 section 2.2)."""
    if known is None:
        return Forward.MISS
    return Forward.REQUEST if known.ttl(now) > 0 else Forward.STALE


def _confirms(found: Metadata, status: int, stale: Entry) -> bool:
    """Return whether the origin still has the version of a stale entry, after a response with `found`."""
    return stale.metadata.is_version(found) and (status == 304 or found.has_second_validator)


def _stale_window(entry: Entry, *, is_outage: bool) -> float:
    """Return the seconds past its TTL in which an entry may serve because the origin fails or cannot be reached."""
    return entry.freshness.outage if is_outage else entry.freshness.stale_if_error
