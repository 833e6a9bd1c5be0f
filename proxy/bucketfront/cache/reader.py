"""A request's access to one entry: metadata, an open descriptor, and how far its bytes are readable."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, replace
from typing import Self

from bucketfront.cache.clock import Clock
from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch import passthrough
from bucketfront.cache.fetch.fill import Fill
from bucketfront.cache.fetch.part_fetch import FetchContext
from bucketfront.cache.fetch.reader_cursor import ReaderCursor
from bucketfront.cache.observed import Observed
from bucketfront.cache.statistics import Counters, Found
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.storage import Region
from bucketfront.errors import NotCached, OriginError, StoreError
from bucketfront.http.cache_status import CacheStatus, Detail, Forward
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import Demand, Span


@dataclass(frozen=True, slots=True)
class ReaderContext:
    """What all readers share. `clock` is the cache's clock."""

    fetch_context: FetchContext
    clock: Clock
    counters: Counters


class Reader:
    """One request's hold on a pinned entry. Use it as a context manager, or call `close`.

    `found` is how the lookup found the entry. `failure` is the error of the origin because of which the entry is served
    stale. `is_use_noted`: the use of the entry was noted before.
    """

    def __init__(
        self,
        entry: Entry,
        status: CacheStatus,
        context: ReaderContext,
        found: Found,
        failure: OriginError | None = None,
        *,
        is_use_noted: bool = False,
    ) -> None:
        self._entry = entry
        self._context = context
        self._fill: Fill | None = None
        self._cursor: ReaderCursor | None = None
        self._is_closed = False
        # All bytes that were requested were present. A miss may find its own ones if they come fast.
        self._found_all = not is_use_noted and (status.hit or status.fwd_status == 304)
        self._found = found
        self._lacked: Forward | None = None  # MISS or PARTIAL once it is known that requested bytes are missing
        self._lacks_later_span = False  # some of the bytes behind the announced ones are missing
        self._lost_blocks = 0  # of the fill, when the latest span was announced
        self._held: int | None = None  # the blocks that were present when the first span was announced
        self._awaits_status = False  # bytes were requested after the lookup, so that their status is the origin's
        self.status = status
        self.failure = failure
        self.observed: Observed | None = None  # set if the cache does not serve, but only shows what it would do

    @property
    def metadata(self) -> Metadata:
        return self._entry.metadata

    @property
    def validated_at(self) -> float:
        """Return when the origin last confirmed the version, by the cache's clock."""
        return self._entry.validated_at

    @property
    def lifetime(self) -> float:
        """Return for how many seconds after `validated_at` the version may serve, with all stale windows."""
        freshness = self._entry.freshness
        window = max(freshness.stale_while_revalidate, freshness.stale_if_error, freshness.outage)
        return freshness.ttl + (window if self._has_stale_window else 0.0)

    @property
    def _has_stale_window(self) -> bool:
        return self.status.detail in (Detail.STALE_WHILE_REVALIDATE, Detail.STALE_IF_ERROR, Detail.OUTAGE)

    @property
    def age(self) -> float:
        """Return the response's age in seconds, by RFC 9111 section 4.2.3."""
        return self._entry.age(self._context.clock())

    @property
    def region(self) -> Region | None:
        """Return where the object's bytes are until this reader closes, or None if they pass through uncached."""
        file = self._entry.file
        return None if file is None else file.region

    @property
    def is_stored(self) -> bool:
        """Return whether later requests find what this reader reads."""
        return self._entry.file is not None and not self._entry.is_removed

    def missing(self, span: Span) -> int:
        """Return how many bytes of the span are in blocks that the file does not have yet."""
        entry, size = self._entry, self._context.fetch_context.block_size
        runs = blocks.missing(entry.present, blocks.covering(span, size))
        return sum(blocks.span_of(run, entry.metadata.size, size).length for run in runs)

    def expect(self, span: Span, demand: Demand = Demand.BOUNDED) -> None:
        """Announce the bytes to be read next, in place of those announced before.

        `demand` is the client's. An open-ended range may be dropped at any time, so it gets less read-ahead.

        The first call refines `status`: a fresh entry that lacks some of the bytes is a partial hit.
        """
        if self._entry.file is None:
            if span.start < span.stop and self.status.hit:
                self._awaits_status = True
                self._lacked = Forward.MISS
                known = self._context.fetch_context.entries.removals.last(self._entry.key)
                detail = None if known is None else Detail(known.reason.value)
                self.status = CacheStatus(Forward.MISS, ttl=self.status.ttl, detail=detail)
            return
        if self._held is None:
            self._held = self._entry.present
        fill = self._fill = Fill.of(self._entry, self._context.fetch_context)
        self._lost_blocks = fill.verification.lost_blocks
        holds = fill.holds(span)
        self._found_all = self._found_all and holds
        if not holds and (self.status.hit or self._lacks_later_span):
            fill.origin_status = None
            self._forwarded(collapsed=fill.covers(span))
            self._context.fetch_context.origin.admit(self._entry.key, joins=True)
        before, self._cursor = self._cursor, fill.join(span, demand)
        if before is not None:
            # Leave only now, so that part fetches which the new span needs are not ended with the old one.
            fill.leave(before)

    def announce_later(self, spans: Iterable[Span]) -> None:
        """Announce the spans that follow the first one, before the head: a hit that lacks bytes of them is partial."""
        if self.status.hit and not all(self.holds(span) for span in spans):
            self._forwarded(collapsed=False)
            self._awaits_status, self._lacks_later_span = False, True

    def require(self, spans: Iterable[Span]) -> None:
        """Raise NotCached unless every byte of the spans is in the file. Then the lookup counts as no hit."""
        if not all(self.holds(span) for span in spans):
            self._found = Found.ELSEWHERE
            raise NotCached("some of the bytes are not in the cache")

    def _forwarded(self, *, collapsed: bool) -> None:
        self._awaits_status, self._lacks_later_span = True, False
        self._lacked = Forward.PARTIAL if self._entry.present else Forward.MISS
        self.status = CacheStatus(
            self._lacked,
            ttl=self.status.ttl,
            stored=not self._entry.is_removed,
            collapsed=collapsed,
            detail=self.status.detail,
        )

    def _note_status(self, status: int | None) -> None:
        if self._awaits_status and status is not None:
            self._awaits_status = False
            self.status = replace(self.status, fwd_status=status)

    def holds(self, span: Span) -> bool:
        """Return whether every byte of the span is in the file, verified or not."""
        if self._entry.file is None:
            return span.start == span.stop
        return Fill.of(self._entry, self._context.fetch_context).holds(span)

    def held(self, span: Span) -> int:
        """Return how many bytes of the span the file had when the first span was announced."""
        size, held = self._context.fetch_context.block_size, self._held or 0
        run = blocks.covering(span, size)
        count = (held & blocks.mask(run)).bit_count() * size
        if held >> run.start & 1:
            count -= span.start - run.start * size
        if held >> max(run.stop - 1, 0) & 1:
            count -= run.stop * size - span.stop
        return max(0, count)

    def note_sent(self, span: Span) -> None:
        """Note that these bytes were sent to a client, so that they did not come from the origin in vain."""
        if self._entry.unread:
            self._entry.unread &= ~blocks.mask(blocks.covering(span, self._context.fetch_context.block_size))

    def is_sound(self, span: Span) -> bool:
        """Return whether every byte of the span is still in the file, and no block of it was found corrupt.

        See docs/invariants.md#self-healing. Raises ContentMismatch if the object does not fit S3's checksum, because
        bytes that were sent before may be wrong as well.
        """
        fill = Fill.of(self._entry, self._context.fetch_context)
        if fill.mismatch is not None:
            raise fill.mismatch
        return fill.readable(span.start, span.stop) == span.stop

    async def readable(self, offset: int) -> int:
        """Wait for the byte at `offset` and return the end of the stretch there that is in the file.

        Raises StoreError if the rest has to come from `stream`.
        """
        if self._cursor is None or self._fill is None:
            raise StoreError("no file to read from")
        upto = await self._fill.wait_readable(self._cursor, offset)
        if self.status.hit and self._fill.verification.lost_blocks != self._lost_blocks:
            self._forwarded(collapsed=False)  # a block that the file had was corrupt
        self._note_status(self._fill.origin_status)
        return upto

    async def load(self, span: Span) -> None:
        """Read these bytes of the file into the page cache. Raises StoreError."""
        assert self._entry.file is not None
        await self._context.fetch_context.store.read_in(self._entry.file, span)

    async def read(self, span: Span) -> bytes:
        """Return these bytes of the file. Raises StoreError, and EOFError if the file is shorter."""
        assert self._entry.file is not None
        return await self._context.fetch_context.store.read(self._entry.file, span)

    async def supply(self, start: int, data: bytes) -> int:
        """Store blocks of the version that another cache had. See `Fill.supply`, also for what it raises."""
        if not self.is_stored:
            return 0
        return await Fill.of(self._entry, self._context.fetch_context).supply(start, data)

    def stream(self, span: Span, *, continues: bool = False) -> AsyncGenerator[bytes, None]:
        """Return these bytes straight from the origin. Close the generator when done.

        `continues`: other bytes of the object were sent before, so these must be of the same version.
        """
        self._context.counters.passthroughs += 1
        if self.status.hit:
            self.status = CacheStatus(Forward.MISS, ttl=self.status.ttl)
            self._awaits_status = True
            self._lacked = Forward.PARTIAL if continues else Forward.MISS
        return passthrough.stream(
            self._entry, span, self._context.fetch_context, self._note_status, continues=continues
        )

    def close(self) -> None:
        """Leave the fill, unpin the entry, and count the lookup. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._context.counters.count(
            self._found, lacked_all=self._lacked is Forward.MISS, lacked_some=self._lacked is not None
        )
        if self._cursor is not None and self._fill is not None:
            self._fill.leave(self._cursor)
        fetch_context = self._context.fetch_context
        is_use = self._cursor is not None and self._found_all
        note = fetch_context.entries.use if is_use else fetch_context.entries.touch
        note(self._entry, self._context.clock())
        fetch_context.unpin(self._entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
