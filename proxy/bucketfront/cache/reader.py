"""What a request holds of the cache: metadata, an open descriptor, and "readable up to"."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Self

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.fill import Fill
from bucketfront.cache.fetch.part import ReaderCursor
from bucketfront.cache.storage.storage import Region, Storage
from bucketfront.errors import StoreError
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import Span


@dataclass(frozen=True, slots=True)
class ReaderDoor:
    """What a reader asks of the cache that lent it an entry."""

    fill_of: Callable[[Entry], Fill]
    stream: Callable[[Entry, Span], AsyncGenerator[bytes, None]]
    give_back: Callable[[Entry], None]
    store: Storage
    clock: Callable[[], float]


class Reader:
    """One request's grip on a pinned entry. Use as a context manager, or call `close`."""

    def __init__(self, entry: Entry, status: CacheStatus, lender: ReaderDoor) -> None:
        self._entry = entry
        self._lender = lender
        self._fill: Fill | None = None
        self._demand: ReaderCursor | None = None
        self._is_closed = False
        self.status = status

    @property
    def metadata(self) -> Metadata:
        return self._entry.metadata

    @property
    def age(self) -> float:
        """RFC 9111 section 4.2.3, in seconds."""
        return self._entry.age(self._lender.clock())

    @property
    def region(self) -> Region | None:
        """Where the object's bytes are, as long as this reader is open. None if bytes pass through."""
        file = self._entry.file
        return None if file is None else file.region

    def ask_for(self, span: Span, *, whole: bool = False) -> None:
        """What will be read next, in place of what was asked for before; `whole`: the object as a whole, not a range of
        it, which may be dropped at any time.

        The first call refines `status`: a fresh entry that lacks some of the bytes is a partial hit.
        """
        if self._entry.file is None:
            if span.start < span.stop and self.status.hit:
                self.status = CacheStatus(Forward.MISS, ttl=self.status.ttl)
            return
        fill = self._fill = self._lender.fill_of(self._entry)
        if self.status.hit and fill.readable(span.start, span.stop) < span.stop:
            self.status = CacheStatus(
                Forward.PARTIAL if self._entry.present else Forward.MISS,
                ttl=self.status.ttl,
                stored=not self._entry.is_removed,
                collapsed=fill.covers(span),
            )
        before, self._demand = self._demand, fill.join(span, whole=whole)
        if before is not None:
            # Only now: what the next span needs is not given up with the one before.
            fill.leave(before)

    def holds(self, span: Span) -> bool:
        """Whether every byte is in the file already."""
        if self._entry.file is None:
            return span.start == span.stop
        return self._lender.fill_of(self._entry).readable(span.start, span.stop) == span.stop

    def is_sound(self, span: Span) -> bool:
        """Whether every byte is in the file still, and none of them known to be wrong (I15). Raises ContentMismatch
        where the object is not what S3 says it is: what was sent of it may be wrong as well.
        """
        fill = self._lender.fill_of(self._entry)
        if fill.mismatch is not None:
            raise fill.mismatch
        return fill.readable(span.start, span.stop) == span.stop

    async def readable(self, offset: int) -> int:
        """The end of the stretch from `offset` on that is in the file. Raises StoreError: `stream` the rest."""
        if self._demand is None or self._fill is None:
            raise StoreError("no file to read from")
        return await self._fill.wait_readable(self._demand, offset)

    async def bring_in(self, span: Span) -> None:
        """Have these bytes of the file in memory. Raises StoreError."""
        assert self._entry.file is not None
        await self._lender.store.read_in(self._entry.file, span)

    async def read(self, span: Span) -> bytes:
        """These bytes of the file. Raises StoreError, EOFError."""
        assert self._entry.file is not None
        return await self._lender.store.read(self._entry.file, span)

    def stream(self, span: Span) -> AsyncGenerator[bytes, None]:
        """The same bytes without the cache."""
        return self._lender.stream(self._entry, span)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._demand is not None and self._fill is not None:
            self._fill.leave(self._demand)
        self._lender.give_back(self._entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
