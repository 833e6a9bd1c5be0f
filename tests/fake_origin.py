"""An S3 in memory whose responses wait, break off and deceive as a test configures them.

Without faults it passes tests/s3/test_s3_conformance.py, as the real origin does.
"""

import asyncio
import hashlib
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace

from fakes import object_bytes

from bucketfront.cache.origin import NotModified, OriginResponse
from bucketfront.errors import (
    BodyTruncated,
    DeleteMarker,
    Fault,
    NoSuchBucket,
    ObjectChanged,
    ObjectNotFound,
    OriginTimeout,
    RangeUnsatisfiable,
    StoreError,
    WriteRefused,
)
from bucketfront.http.metadata import OBJECT_HEADERS, Metadata
from bucketfront.http.ranges import FromTo, Span, Suffix
from bucketfront.http.response_fields import USER_METADATA_PREFIX
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.listing import Listed, ListPage
from bucketfront.s3.upload.spool import Spool
from bucketfront.s3.upload.uploader import Announce, Written, no_announcement

BLOCK = 16384  # bytes; more than the overhead of an entry, so that an audit sees one block too many
KEY = ObjectKey("bucket", "a/b.mp4")
LAST_MODIFIED = "Wed, 21 Oct 2015 07:28:00 GMT"
NO_HEADERS: Mapping[str, str] = {}

content = object_bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of one object at the origin."""

    content: bytes
    metadata: Metadata


@dataclass
class FakeOrigin:
    """Objects, counters, and the faults to come.

    With `is_versioned` each write adds a version and each delete adds a delete marker; otherwise both change the
    version "null". Each call and each read of a body waits up to `jitter` turns of the event loop, drawn from `chance`.
    """

    chance: random.Random = field(default_factory=lambda: random.Random(0))
    chunk: int = BLOCK  # bytes of one piece of a body
    is_versioned: bool = False
    absent_buckets: frozenset[str] = frozenset()
    jitter: int = 1
    page_keys: int = 1000  # of a page of a list
    objects: dict[ObjectKey, Stored] = field(default_factory=dict)
    versions: dict[ObjectKey, Stored | None] = field(default_factory=dict)  # by keys with an id; None: delete marker
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))  # of versions

    # Counters.
    keys: list[ObjectKey] = field(default_factory=list)  # of GETs, failed ones as well
    requested: list[tuple[int, int]] = field(default_factory=list)  # spans of GETs that got a body
    reads: list[tuple[int, int]] = field(default_factory=list)  # spans that were read from bodies
    gets: int = 0
    heads: int = 0
    conditional: int = 0  # lookups that named the version they had
    bodies: int = 0  # bodies that are not closed yet

    # Faults to come.
    door: asyncio.Event | None = None  # every new response waits for it
    late: asyncio.Event | None = None  # a GET waits for it once its response is ready
    gates: dict[int, asyncio.Event] = field(default_factory=dict)  # by the offset at which a body waits for it
    errors: "deque[Exception | None]" = field(default_factory=deque)  # raised by the next calls, one each
    cuts: list[int] = field(default_factory=list)  # offsets at which a body ends early, once each
    # by the number of a GET, from 1: the offset at which its body stalls
    stalls: dict[int, int] = field(default_factory=dict)
    deaf: set[int] = field(default_factory=set)  # numbers of GETs that never get a head
    read_timeout: int | None = None  # turns of the loop after which such a GET or body fails; None: never
    ration: int | None = None  # bytes after which each body times out because it is too slow
    lies: "deque[bytes | None]" = field(default_factory=deque)  # bodies of the next GETs, sent under the true ETag
    checksum: tuple[str, str] | None = None  # a checksum that HEADs carry
    ignores_if_match: bool = False

    def put(self, data: bytes, etag: str = '"1"', key: ObjectKey = KEY, **headers: str) -> bytes:
        """Store `data` as another client's write would. Header names have '_' for '-'. Returns `data`."""
        self.store(key, data, {name.replace("_", "-"): value for name, value in headers.items()}, etag=etag)
        return data

    def store(
        self, key: ObjectKey, data: bytes, headers: Mapping[str, str] = NO_HEADERS, etag: str | None = None
    ) -> Metadata:
        """Make `data` the current version. Without `etag` it has the one that S3 gives it."""
        version = self._next_version(key)
        given = {"content-type": "binary/octet-stream"} | {name.lower(): value for name, value in headers.items()}
        passed = [(name, given[name.lower()]) for name in OBJECT_HEADERS if name.lower() in given]
        user = [(name, given[name]) for name in sorted(given) if name.startswith(USER_METADATA_PREFIX)]
        metadata = Metadata(
            f'"{hashlib.md5(data).hexdigest()}"' if etag is None else etag,
            len(data),
            LAST_MODIFIED,
            tuple(passed + user),
            version=version if self.is_versioned else None,
        )
        self.objects[key] = self.versions[key._replace(version=version)] = Stored(data, metadata)
        return metadata

    def gate(self, offset: int) -> asyncio.Event:
        return self.gates.setdefault(offset, asyncio.Event())

    async def get(
        self,
        key: ObjectKey,
        part: FromTo | Suffix,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> OriginResponse | NotModified:
        self.gets += 1
        number = self.gets
        self.keys.append(key)
        late = self.late
        if number in self.deaf:
            await self.stall()
        stored = await self._find(key, if_none_match)
        metadata, data = stored.metadata, stored.content
        if not self.ignores_if_match and if_match not in (None, metadata.etag):
            raise ObjectChanged(f"{key} is {metadata.etag}")
        if if_none_match == metadata.etag:
            return _not_modified(metadata)
        span = part.within(len(data))
        if span is None:
            raise RangeUnsatisfiable(f"{part} of {len(data)} bytes")
        self.requested.append((span.start, span.stop))
        lie = self.lies.popleft() if self.lies else None
        body = FakeBody(self, data if lie is None else lie, span, self.stalls.get(number))
        if late is not None:
            await late.wait()
        return OriginResponse(metadata, span.start, span.stop, body)

    def admit(self, key: ObjectKey, *, joins: bool) -> None:
        """Admit all."""

    async def head(self, key: ObjectKey, *, if_none_match: str | None = None) -> Metadata | NotModified:
        self.heads += 1
        metadata = (await self._find(key, if_none_match)).metadata
        if if_none_match == metadata.etag:
            return _not_modified(metadata)
        return replace(metadata, checksum=self.checksum)

    async def list_objects(self, bucket: str, prefix: str, token: str | None = None) -> ListPage:
        """Return a page of `page_keys` at most. `token` is the last key of the page before."""
        await self.pause()
        if bucket in self.absent_buckets:
            raise NoSuchBucket(f"there is no bucket {bucket}", Fault.CONFIGURATION)
        listed = sorted(key for key in self.objects if key.bucket == bucket and key.key.startswith(prefix))
        names = [key for key in listed if token is None or key.key.encode() > token.encode()]
        page = tuple(Listed(key, len(self.objects[key].content)) for key in names[: self.page_keys])
        return ListPage(page, page[-1].key.key if len(names) > self.page_keys else None)

    async def delete(self, key: ObjectKey) -> None:
        marker = key._replace(version=self._next_version(key))
        self.objects.pop(key, None)
        if self.is_versioned:
            self.versions[marker] = None
        else:
            self.versions.pop(marker, None)

    async def pause(self) -> None:
        for _ in range(self.chance.randrange(self.jitter + 1)):
            await asyncio.sleep(0)

    async def stall(self) -> None:
        """Wait for the read timeout."""
        if self.read_timeout is None:
            await asyncio.Event().wait()
        for _ in range(self.read_timeout or 0):
            await asyncio.sleep(0)
        raise OriginTimeout("silence")

    def _next_version(self, key: ObjectKey) -> str:
        assert key.version is None, "a version of the past is never written"
        return f"version-{next(self.numbers)}" if self.is_versioned else "null"

    async def _find(self, key: ObjectKey, if_none_match: str | None) -> Stored:
        self.conditional += if_none_match is not None
        error = self.errors.popleft() if self.errors else None
        await self.pause()
        if self.door is not None:
            await self.door.wait()
        if error is not None:
            raise error
        return self.find(key)

    def find(self, key: ObjectKey) -> Stored:
        """Return the current object, or the version that the key names."""
        if key.bucket in self.absent_buckets:
            raise NoSuchBucket(f"there is no bucket {key.bucket}", Fault.CONFIGURATION)
        try:
            stored = self.objects[key] if key.version is None else self.versions[key]
        except KeyError:
            raise ObjectNotFound(f"{key} does not exist") from None
        if stored is None:
            raise DeleteMarker(f"{key} is a delete marker")
        return stored


class FakeBody:
    """The body of one GET. It gives all bytes before the offset of a fault."""

    def __init__(self, origin: FakeOrigin, data: bytes, span: Span, stall: int | None) -> None:
        self._origin = origin
        self._data = data
        self._span = span
        self._at = span.start
        self._stall = stall
        self._ends_at = None if origin.ration is None else span.start + origin.ration
        self._is_open = True
        origin.bodies += 1

    async def read(self) -> bytes:
        assert self._is_open, "read after close"
        origin = self._origin
        await origin.pause()
        if self._at == self._stall:
            await origin.stall()
        if self._at == self._ends_at and self._at < self._span.stop:
            raise OriginTimeout("the body comes too slowly")
        if (gate := origin.gates.get(self._at)) is not None:
            await gate.wait()
        if self._at in origin.cuts and self._at < self._span.stop:
            origin.cuts.remove(self._at)
            raise BodyTruncated(f"cut at {self._at}")
        faults = [*origin.gates, *origin.cuts, *(at for at in (self._stall, self._ends_at) if at is not None)]
        stop = min([self._span.stop, self._at + origin.chunk, *(at for at in faults if self._at < at)])
        start, self._at = self._at, stop
        if start < stop:
            origin.reads.append((start, stop))
        return self._data[start:stop]

    def close(self) -> None:
        self._origin.bodies -= self._is_open
        self._is_open = False


class FakeUploader:
    """`S3Uploader` over a `FakeOrigin`."""

    def __init__(self, origin: FakeOrigin) -> None:
        self._origin = origin

    async def put(
        self,
        key: ObjectKey,
        chunks: AsyncIterator[bytes],
        length: int | None,
        head: WriteHead,
        spool: Spool | None = None,
        about_to_write: Announce = no_announcement,
    ) -> Written:
        """Store all of the body or none of it (I8), and spool as much of it as the disk accepts."""
        data = b""
        async for chunk in chunks:
            data += chunk
            if spool is not None:
                try:
                    await spool.write(chunk)
                except StoreError:
                    spool = None
        if length is not None and len(data) < length:
            raise WriteRefused(f"{key}: the body ended {length - len(data)} bytes early")
        await about_to_write()
        user = {f"{USER_METADATA_PREFIX}{name}": value for name, value in head.metadata}
        return Written(self._origin.store(key, data[:length], dict(head.headers) | user).etag)

    async def delete(self, key: ObjectKey) -> None:
        await self._origin.delete(key)


def _not_modified(metadata: Metadata) -> NotModified:
    """Return the fields of the 200 that a 304 repeats (RFC 9110 section 15.4.5)."""
    named = ("cache-control", "expires")
    return NotModified(
        metadata.last_modified, metadata.age, tuple(pair for pair in metadata.headers if pair[0].lower() in named)
    )
