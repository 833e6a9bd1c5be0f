"""Lookups straight at the origin, past the cache, for the modes in which the cache does not serve.

Each request is one of its own at the origin: it joins no lookup, and leaves no entry. Its bytes pass through
(`cache.fetch.passthrough`), with the bounds and deadlines of all bytes that are not stored.
"""

from dataclasses import dataclass, replace

from bucketfront.cache.clock import Clock
from bucketfront.cache.entries.negative_cache import NegativeCache
from bucketfront.cache.fetch import requests
from bucketfront.cache.fetch.passthrough import Spare
from bucketfront.cache.lookup_flow import Absent
from bucketfront.cache.mode import CacheMode
from bucketfront.cache.observed import Observed
from bucketfront.cache.origin import OriginResponse
from bucketfront.cache.reader import Reader, ReaderContext
from bucketfront.cache.shadow import ComparedReader, Comparison, Shadow
from bucketfront.cache.statistics import Found
from bucketfront.errors import NotCached, ObjectNotFound, OriginError
from bucketfront.http.cache_status import CacheStatus, Detail, Forward
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.keys import ObjectKey

_DETAILS = {CacheMode.OBSERVE: Detail.OBSERVE, CacheMode.SHADOW: Detail.SHADOW}


@dataclass(frozen=True, slots=True)
class Bypass:
    """Finds objects at the origin alone. `mode` is the reason, which clients see in `Cache-Status`.

    `shadow` compares what they find with the cache.
    """

    readers: ReaderContext
    negative_cache: NegativeCache
    clock: Clock
    mode: CacheMode
    shadow: Shadow | None = None

    async def lookup(
        self,
        key: ObjectKey,
        *,
        wants_body: bool,
        part: FromTo | Suffix | None = None,
        revalidate: bool = False,
        only_if_cached: bool = False,
    ) -> Reader | Absent:
        """Return a Reader for what the origin has now, or Absent. Otherwise as `Cache.lookup`."""
        if only_if_cached:
            raise NotCached(f"cache.mode is {self.mode}, so that nothing is served from the cache")
        self.readers.fetch_context.origin.admit(key, joins=False)
        comparison = None
        if self.shadow is not None:
            comparison = self.shadow.begin(key, part, wants_body=wants_body, revalidate=revalidate)
        try:
            return await self._read(key, part if wants_body else None, comparison, wants_body=wants_body)
        except BaseException:
            if comparison is not None:
                comparison.end()
            raise

    async def _read(
        self, key: ObjectKey, part: FromTo | Suffix | None, comparison: Comparison | None, *, wants_body: bool
    ) -> Reader | Absent:
        context, detail = self.readers.fetch_context, _DETAILS[self.mode]
        sent_at = self.clock()
        # No block has to be whole, so the range is exactly the client's.
        read_ahead = replace(context.first_read_ahead, block_size=1)
        try:
            response = await requests.fetch_initial(context.origin, read_ahead, key, part, get=wants_body)
        except ObjectNotFound:
            if comparison is not None:
                comparison.respond(None)
                comparison.end()
            status = CacheStatus(Forward.BYPASS, fwd_status=404, detail=detail)
            return Absent(status, Observed.absence(self.negative_cache.ttl_of(key)))
        except OriginError as error:
            error.forward = Forward.BYPASS
            raise
        metadata, spare, origin_status = response, None, 200
        if isinstance(response, OriginResponse):
            metadata, spare, origin_status = response.metadata, Spare(response), response.status
        assert isinstance(metadata, Metadata)
        entry = context.entries.create_unstored(key, metadata, sent_at)
        context.entries.pin(entry)
        entry.spare = spare
        status = CacheStatus(Forward.BYPASS, fwd_status=origin_status, detail=detail)
        if comparison is None:
            reader = Reader(entry, status, self.readers, Found.ELSEWHERE)
        else:
            comparison.respond(metadata)
            reader = ComparedReader(entry, status, self.readers, Found.ELSEWHERE, comparison=comparison)
        reader.observed = Observed.of(metadata.etag, entry.freshness)
        return reader
