"""The filling of one object through the cache's own door: it joins running fetches, and obeys the cache's budget."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from bucketfront.cache import Absent, Cache, Reader
from bucketfront.errors import (
    NoShare,
    ObjectChanged,
    OriginCircuitOpen,
    OriginServerError,
    OriginUnavailable,
    ProxyError,
    StoreError,
)
from bucketfront.http import ranges
from bucketfront.http.metadata import Metadata
from bucketfront.http.path_rules import Rules
from bucketfront.http.ranges import Demand, Span
from bucketfront.warm.allowance import Allowance
from bucketfront.warm.following import MAX_DOCUMENT_BYTES
from bucketfront.warm.item import Item
from bucketfront.warm.link import NotFollowed
from bucketfront.warm.pace import Pace

ATTEMPTS = 3  # of one object
PAUSE_S = 1.0  # before another attempt, at least; it is doubled each time
MAX_PAUSE_S = 60.0


class Verdict(Enum):
    """How the filling of one object ended, unless it failed."""

    FILLED = auto()  # some of its bytes were fetched
    FRESH = auto()  # all of its bytes were there, and fresh
    NOT_STORED = auto()  # a rule, its own fields or the disk keep it out of the cache
    NO_ROOM = auto()  # the cache is full


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict, and the number of bytes that were wanted."""

    verdict: Verdict
    count: int = 0


class NotFilled(ProxyError):
    """An object could not be filled. The message has the reason."""


class Owner(Protocol):
    """The job for which objects are filled."""

    def follows(self, item: Item, content_type: str) -> bool:
        """Return whether an item of that type is a document to follow."""

    async def follow(self, item: Item, content_type: str, read: Callable[[], Awaitable[bytes]]) -> None:
        """Follow a document, whose bytes `read` returns. Raises NotFollowed."""

    def note_bytes(self, count: int) -> None:
        """Count bytes that came."""


@dataclass(frozen=True, slots=True)
class Filler:
    """Fills objects of one job. `part` is the size of one request to the origin in bytes.

    `sleep` and `clock` are in seconds.
    """

    cache: Cache
    rules: Rules
    pace: Pace
    allowance: Allowance
    part: int
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def fill(self, item: Item, owner: Owner) -> Result:
        """Bring all wanted bytes of an object into the cache, and follow it if it is a document.

        Raises NotFilled, NotFollowed and other ProxyErrors.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._fill(item, owner)
            except (ObjectChanged, NoShare, OriginUnavailable) as error:
                if attempt == ATTEMPTS or not _may_pass(error):
                    raise
                await self.sleep(_pause(error, attempt))
        raise AssertionError("unreachable")

    async def _fill(self, item: Item, owner: Owner) -> Result:
        if self.rules.ruling(item.key.key).cache is False:
            return Result(Verdict.NOT_STORED)
        present = self.cache.present(item.key, item.spans)
        if present is not None:
            count = _length(item.spans(present.metadata.size))
            self.allowance.note_present(count)
            if present.is_fresh and not owner.follows(item, _content_type(present.metadata)):
                return Result(Verdict.FRESH, count)
            with await self._lookup(item) as reader:
                return await self._read(item, reader, owner)
        if not self.cache.disk_is_usable:
            raise StoreError("the disk of the cache failed a moment ago")
        # The lookup brings the first bytes: the size of one request, or all of a smaller object.
        first = self.part if item.size is None else min(item.size, self.part)
        if not self.allowance.take(first, self.cache.free_bytes):
            return Result(Verdict.NO_ROOM)
        try:
            with await self._lookup(item) as reader:
                return await self._read(item, reader, owner, first)
        finally:
            self.allowance.landed(first)

    async def _lookup(self, item: Item) -> Reader:
        """Return a reader of the fresh object. Raises NotFilled if there is no such object."""
        part = None if item.range is None else ranges.requested(item.range)
        found = await self.cache.lookup(item.key, wants_body=True, part=part)
        if not isinstance(found, Absent) and found.status.hit and (found.status.ttl or 0) <= 0:
            # It is revalidated in the background, and the version to fill is the one that this finds.
            found.close()
            found = await self.cache.lookup(item.key, wants_body=True, part=part, revalidate=True)
        if isinstance(found, Absent):
            raise NotFilled("there is no such object")
        if found.failure is not None:
            found.close()
            raise found.failure
        return found

    async def _read(self, item: Item, reader: Reader, owner: Owner, taken: int = 0) -> Result:
        """Bring what is missing of an object. There is room for the first `taken` bytes already."""
        size, content_type = reader.metadata.size, _content_type(reader.metadata)
        if size and not reader.is_stored:
            return Result(Verdict.NOT_STORED)
        verdict, spans = Verdict.FRESH, item.spans(size)
        for span in spans:
            if missing := reader.missing(span):
                verdict = Verdict.FILLED
                if not await self._bring(span, reader, owner, min(missing, taken)):
                    return Result(Verdict.NO_ROOM)
                taken = max(0, taken - missing)
        if owner.follows(item, content_type):
            await _follow(item, reader, owner)
        return Result(verdict, _length(spans))

    async def _bring(self, span: Span, reader: Reader, owner: Owner, taken: int) -> bool:
        """Bring the bytes of a span, part by part, each at its time. Returns False if the cache has no room."""
        for start in range(span.start, span.stop, self.part):
            piece = Span(start, min(start + self.part, span.stop))
            missing = reader.missing(piece)
            if not missing:
                continue
            more = max(0, missing - taken)
            taken = max(0, taken - missing)
            if more and not self.allowance.take(more, self.cache.free_bytes):
                return False
            try:
                began, wait = self.clock(), self.pace.take(missing, self.clock())
                await _until_readable(piece, reader)
            finally:
                if more:
                    self.allowance.landed(more)
            owner.note_bytes(missing)
            if (left := began + wait - self.clock()) > 0:
                await self.sleep(left)
        return True


def _length(spans: tuple[Span, ...]) -> int:
    return sum(span.length for span in spans)


def _content_type(metadata: Metadata) -> str:
    return _field(metadata, "content-type")


def _field(metadata: Metadata, wanted: str) -> str:
    return next((value for name, value in metadata.headers if name.lower() == wanted), "")


def _obstacle(item: Item, metadata: Metadata) -> str:
    """Return why a document cannot be followed, or nothing."""
    if item.range is not None:
        return "only a range of it was named"
    if metadata.size > MAX_DOCUMENT_BYTES:
        return f"it has more than {MAX_DOCUMENT_BYTES} bytes"
    if _field(metadata, "content-encoding").strip().lower() not in ("", "identity"):
        return "it has a Content-Encoding"
    return ""


def _may_pass(error: ProxyError) -> bool:
    """Return whether a failure may be over after a pause."""
    return isinstance(error, OriginCircuitOpen) or not (isinstance(error, OriginUnavailable) and error.is_final)


def _pause(error: ProxyError, attempt: int) -> float:
    retry_after = error.retry_after if isinstance(error, OriginServerError | OriginCircuitOpen) else None
    return min(MAX_PAUSE_S, max(retry_after or 0.0, PAUSE_S * 2.0 ** (attempt - 1)))


async def _follow(item: Item, reader: Reader, owner: Owner) -> None:
    content_type, whole = _content_type(reader.metadata), Span(0, reader.metadata.size)
    if obstacle := _obstacle(item, reader.metadata):
        raise NotFollowed(obstacle)
    await _until_readable(whole, reader)  # what an earlier run wrote is verified first

    async def read() -> bytes:
        return await reader.read(whole) if whole.length else b""

    await owner.follow(item, content_type, read)


async def _until_readable(span: Span, reader: Reader) -> None:
    reader.expect(span, Demand.WHOLE)
    offset = span.start
    while offset < span.stop:
        offset = await reader.readable(offset)
