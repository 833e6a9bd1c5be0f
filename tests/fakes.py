"""Stand-ins for what tests must control: origins in memory, a clock, and an HTTP server that misbehaves on purpose.

All origins pass `tests/s3/test_s3_conformance.py`, as the real one does. They share `FakeOrigin`, which
calls two hooks: `_before_call` ahead of every get and head, `_before_read` ahead of every piece of a body.
"""

import asyncio
import contextlib
import hashlib
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from bucketfront.cache.origin import NotModified, OriginResponse
from bucketfront.errors import (
    BodyTruncated,
    DeleteMarker,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    RangeUnsatisfiable,
    StoreError,
    WriteRefused,
)
from bucketfront.http.metadata import OBJECT_HEADERS, USER_METADATA_PREFIX, Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.upload.spool import Spool
from bucketfront.s3.upload.uploader import Announce, Written, no_announcement

LAST_MODIFIED = "Wed, 21 Oct 2015 07:28:00 GMT"
NO_HEADERS: Mapping[str, str] = {}


def object_bytes(size: int, seed: int = 0) -> bytes:
    """`size` bytes, the same for the same seed. None is zero: a hole in a sparse file shows."""
    return random.Random(seed).randbytes(size).replace(b"\0", b"\1")


class FakeClock:
    """Seconds; they pass when the test says so."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def ago(self, seconds: float) -> float:
        return self.now - seconds

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of an object."""

    content: bytes
    metadata: Metadata


class FakeBody:
    """Pieces of `chunk_size` bytes. `cut_at`: the offset in the object at which the origin breaks off."""

    def __init__(self, origin: "FakeOrigin", content: bytes, start: int, stop: int, cut_at: int | None) -> None:
        self._origin = origin
        self._content = content
        self._offset = start
        self._stop = stop
        self._cut_at = cut_at
        self._is_closed = False

    async def read(self) -> bytes:
        assert not self._is_closed, "read after close"
        if self._offset == self._stop:
            return b""
        await self._origin._before_read()
        stop = min(self._offset + self._origin.chunk_size, self._stop)
        if self._cut_at is not None:
            if self._offset >= self._cut_at:
                raise BodyTruncated(f"the body ended {self._stop - self._offset} bytes early")
            stop = min(stop, self._cut_at)
        data = self._content[self._offset : stop]
        self._offset = stop
        self._origin.bytes_sent += len(data)
        return data

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._origin.open_bodies -= 1


class FakeOrigin:
    """An S3 in memory that counts what it is asked. `chunk_size`: bytes of one piece of a body.

    With `is_versioned` each write adds a version, and a delete a delete marker; else both touch the version "null".
    """

    def __init__(self, chunk_size: int = 1 << 16) -> None:
        self.chunk_size = chunk_size
        self.is_versioned = False
        self.objects: dict[ObjectKey, Stored] = {}
        self.versions: dict[ObjectKey, Stored | None] = {}  # by keys with a version; None: a delete marker
        self._numbers = itertools.count(1)  # of versions
        self.calls = 0  # gets and heads, whatever became of them
        self.reads: list[tuple[ObjectKey, int, int]] = []  # (key, start, stop) of each 200 or 206
        self.heads: list[ObjectKey] = []
        self.bytes_sent = 0  # bytes of bodies that were really read
        self.open_bodies = 0  # answers whose body is not closed: connections held

    def store(
        self,
        key: ObjectKey,
        content: bytes,
        headers: Mapping[str, str] = NO_HEADERS,
        last_modified: str | None = LAST_MODIFIED,
    ) -> Metadata:
        """Make `content` the current version, as somebody else's write would. Returns its metadata."""
        version = self._next_version(key)
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        given = {"content-type": "binary/octet-stream"} | {name.lower(): value for name, value in headers.items()}
        passed = [(name, given[name.lower()]) for name in OBJECT_HEADERS if name.lower() in given]
        user = [(name, given[name]) for name in sorted(given) if name.startswith(USER_METADATA_PREFIX)]
        metadata = Metadata(
            etag, len(content), last_modified, tuple(passed + user), version=version if self.is_versioned else None
        )
        self.objects[key] = self.versions[key._replace(version=version)] = Stored(content, metadata)
        return metadata

    async def get(
        self,
        key: ObjectKey,
        part: FromTo | Suffix,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> OriginResponse | NotModified:
        self.calls += 1
        await self._before_call()
        stored = self._named(key)
        if not self._matches(stored, if_match):
            raise ObjectChanged(f"{key}: asked for {if_match}, is {stored.metadata.etag}")
        if if_none_match == stored.metadata.etag:
            return _not_modified(stored.metadata)
        span = part.within(len(stored.content))
        if span is None:
            raise RangeUnsatisfiable(f"{key}: {part} of {len(stored.content)} bytes")
        self.reads.append((key, span.start, span.stop))
        self.open_bodies += 1
        body = FakeBody(self, stored.content, span.start, span.stop, self._cut(span.start))
        return OriginResponse(stored.metadata, span.start, span.stop, body)

    async def head(self, key: ObjectKey, *, if_none_match: str | None = None) -> Metadata | NotModified:
        self.calls += 1
        self.heads.append(key)
        await self._before_call()
        stored = self._named(key)
        return _not_modified(stored.metadata) if if_none_match == stored.metadata.etag else stored.metadata

    async def put(
        self,
        key: ObjectKey,
        chunks: AsyncIterator[bytes],
        length: int | None,
        head: WriteHead,
        spool: Spool | None = None,
        about_to_write: Announce = no_announcement,
    ) -> Written:
        """As `S3Uploader.put`: all of the body or none of it (I8), spooled as far as the disk takes it."""
        content = b""
        async for chunk in chunks:
            content += chunk
            if spool is not None:
                try:
                    await spool.write(chunk)
                except StoreError:
                    spool = None
        if length is not None and len(content) < length:
            raise WriteRefused(f"{key}: the body ended {length - len(content)} bytes early")
        await about_to_write()
        user = {f"{USER_METADATA_PREFIX}{name}": value for name, value in head.metadata}
        return Written(self.store(key, content[:length], dict(head.headers) | user).etag)

    async def delete(self, key: ObjectKey) -> None:
        marker = key._replace(version=self._next_version(key))
        self.objects.pop(key, None)
        if self.is_versioned:
            self.versions[marker] = None
        else:
            self.versions.pop(marker, None)

    def _next_version(self, key: ObjectKey) -> str:
        assert key.version is None, "a version of the past is never written"
        return f"version-{next(self._numbers)}" if self.is_versioned else "null"

    def _named(self, key: ObjectKey) -> Stored:
        """The current object, or the version that the key names."""
        try:
            stored = self.objects[key] if key.version is None else self.versions[key]
        except KeyError:
            raise ObjectNotFound(f"{key} does not exist") from None
        if stored is None:
            raise DeleteMarker(f"{key} is a delete marker")
        return stored

    def _matches(self, stored: Stored, if_match: str | None) -> bool:
        return if_match is None or if_match == stored.metadata.etag

    def _cut(self, start: int) -> int | None:
        return None

    async def _before_call(self) -> None: ...

    async def _before_read(self) -> None: ...


def _not_modified(metadata: Metadata) -> NotModified:
    """RFC 9110 section 15.4.5: what a 304 repeats of the 200."""
    return NotModified(
        metadata.last_modified, metadata.age, metadata.header("cache-control"), metadata.header("expires")
    )


class ConnectionLimit:
    """Lets one waiter through per release, in order of arrival. Nothing sleeps: the test is the clock."""

    def __init__(self) -> None:
        self.waiting = 0  # who stands at the gate now
        self._is_open = False
        self._permits = asyncio.Semaphore(0)
        self._arrived = asyncio.Event()

    def release(self, n: int = 1) -> None:
        for _ in range(n):
            self._permits.release()

    def open(self) -> None:
        """For good."""
        self._is_open = True
        self.release(self.waiting)

    async def wait_for(self, waiting: int) -> None:
        """Until that many stand at the gate."""
        while self.waiting < waiting:
            self._arrived.clear()
            await self._arrived.wait()

    async def enter(self) -> None:
        if self._is_open:
            return
        self.waiting += 1
        self._arrived.set()
        try:
            await self._permits.acquire()
        finally:
            self.waiting -= 1


class SlowOrigin(FakeOrigin):
    """Every piece of a body waits at `reads_gate`; with `holds_calls` every get and head at `calls_gate`, too."""

    def __init__(self, chunk_size: int = 1 << 16, *, holds_calls: bool = False) -> None:
        super().__init__(chunk_size)
        self.calls_gate = ConnectionLimit()
        self.reads_gate = ConnectionLimit()
        if not holds_calls:
            self.calls_gate.open()

    def release(self, n: int = 1) -> None:
        """Let `n` pieces of bodies through."""
        self.reads_gate.release(n)

    def open(self) -> None:
        self.calls_gate.open()
        self.reads_gate.open()

    async def _before_call(self) -> None:
        await self.calls_gate.enter()

    async def _before_read(self) -> None:
        await self.reads_gate.enter()


class TruncatingOrigin(FakeOrigin):
    """Breaks bodies off, as told."""

    def __init__(self, chunk_size: int = 1 << 16) -> None:
        super().__init__(chunk_size)
        self._cuts: dict[int, int] = {}

    def truncate(self, after: int, *, call: int = 1) -> None:
        """Cut the body of the `call`-th get from now on (1: the next) after `after` bytes."""
        self._cuts[len(self.reads) + call] = after

    def _cut(self, start: int) -> int | None:
        after = self._cuts.pop(len(self.reads), None)
        return None if after is None else start + after


class ChangingOrigin(FakeOrigin):
    """Changes versions between calls; `store` changes one on demand. A body once begun stays at its version.

    `ignores_if_match`: answers 206 of whatever is current, as some S3-alikes have done.
    """

    def __init__(self, chunk_size: int = 1 << 16, *, ignores_if_match: bool = False) -> None:
        super().__init__(chunk_size)
        self._ignores_if_match = ignores_if_match
        self._due: list[tuple[int, ObjectKey, bytes]] = []

    def change(self, key: ObjectKey, content: bytes, *, after_calls: int) -> None:
        """Store `content` when that many more gets and heads have been answered."""
        self._due.append((self.calls + after_calls, key, content))

    async def _before_call(self) -> None:
        due = [change for change in self._due if change[0] < self.calls]
        self._due = [change for change in self._due if change[0] >= self.calls]
        for _, key, content in due:
            self.store(key, content)

    def _matches(self, stored: Stored, if_match: str | None) -> bool:
        return self._ignores_if_match or super()._matches(stored, if_match)


class FailingOrigin(FakeOrigin):
    """Raises what it is given, one error per get or head, then works again."""

    def __init__(self, chunk_size: int = 1 << 16) -> None:
        super().__init__(chunk_size)
        self._errors: deque[OriginError] = deque()

    def fail(self, *errors: OriginError) -> None:
        self._errors.extend(errors)

    async def _before_call(self) -> None:
        if self._errors:
            raise self._errors.popleft()


# --- an HTTP server that misbehaves on purpose ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """One request's head. `headers` have lower-case names."""

    method: str
    target: str
    headers: Mapping[str, str]


class RawConnection:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.ended = asyncio.Event()  # the client closed it, or the script did

    async def head(self) -> Head | None:
        """The next request's head; None when the client closed the connection instead."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        request, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = request.split(" ")
        pairs = (line.partition(":") for line in lines)
        return Head(method, target, {name.lower(): value.strip() for name, _, value in pairs})

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def hang(self) -> None:
        """Say nothing until the client closes the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[RawConnection, Head], Awaitable[None]]


class RawServer:
    """Runs `script` for each request on a free loopback port. An async context manager.

    The script answers, and reads the body if there is one; when it returns, the next head is read.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections: list[RawConnection] = []
        self.heads: list[Head] = []
        self.asked = asyncio.Event()  # a first head came

    @property
    def endpoint_url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self.connections:
            connection.reset()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(RawConnection(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: RawConnection) -> None:
        self.connections.append(connection)
        try:
            while (head := await connection.head()) is not None:
                self.heads.append(head)
                self.asked.set()
                await self._script(connection, head)
        finally:
            connection.writer.close()
            connection.ended.set()


def answering(*answers: bytes | None) -> Script:
    """The n-th request gets the n-th answer, later ones the last; HEAD gets its head only. None: no answer.

    Bodies of requests are not read.
    """
    left = deque(answers)

    async def script(connection: RawConnection, head: Head) -> None:
        answer = left.popleft() if len(left) > 1 else left[0]
        if answer is None:
            await connection.hang()
        else:
            end = answer.index(b"\r\n\r\n") + 4
            await connection.send(answer[:end] if head.method == "HEAD" else answer)

    return script


def response(status: str, body: bytes = b"", /, *, length: int | None = None, **headers: str | None) -> bytes:
    """An HTTP/1.1 response. `length`: what Content-Length says instead of the truth; -1 for no such header.

    Header names have '_' for '-'; None leaves one out.
    """
    declared = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}"]
    if declared >= 0:
        lines.append(f"Content-Length: {declared}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
