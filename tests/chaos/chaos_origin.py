"""An S3 on loopback that keeps a history, and that fails, deceives and stalls as a script directs.

Objects are functions (`chaos_content.py`), so an object of 1 GiB costs no memory. Uploads with such content are kept as
functions as well, all others as bytes.
"""

import asyncio
import contextlib
import hashlib
import itertools
import re
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote

import chaos_content as content
from behaviour import CODES, HONEST, Behaviour, OriginRequest, Script, honest
from chaos_uploads import NoSuchUpload, UploadHandler
from fakes import RawConnection

FOREIGN = 0  # the version of bytes that are not from `chaos_content`
VERSION_HEADER = "x-amz-meta-version"  # carries the version of an object in reads and writes
WATCH_INTERVAL_S, PUNCTUAL_S = 0.1, 0.4  # seconds
MAX_LOGGED_REQUESTS = 20_000  # requests that are remembered
PIECE = 64 << 10

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_KEPT = ("content-type", "content-encoding", "content-language", "content-disposition", "cache-control", "expires")


@dataclass(frozen=True, slots=True)
class Change:
    """The object got this version at `at`, in monotonic seconds. `version` is None for a delete."""

    key: str
    version: int | None
    size: int
    etag: str
    at: float


@dataclass(frozen=True, slots=True)
class Misdeed:
    """A request whose response was not as S3 would send it. Times are monotonic seconds.

    `key` is None if it concerns all of them: a busy machine did not let the origin run.
    """

    key: str | None
    method: str
    behaviour: Behaviour
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object. `literal` is None if its bytes are from `chaos_content`."""

    key: str
    version: int
    size: int
    etag: str
    headers: tuple[tuple[str, str], ...]
    last_modified: str
    id: str
    literal: bytes | None = None

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        if self.literal is None:
            yield from content.pieces(self.key, self.version, start, stop)
        else:
            yield self.literal[start:stop]


class _Refused(Exception):
    def __init__(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


class ChaosOrigin:
    """One bucket. An async context manager; `script` may be replaced at any time.

    With `is_versioned` each write adds a version with an id, and a delete adds a delete marker.
    """

    def __init__(self, bucket: str = "bucket", script: Script = honest, *, is_versioned: bool = False) -> None:
        self.bucket = bucket
        self.script = script
        self.is_versioned = is_versioned
        self.history: list[Change] = []
        self.misdeeds: list[Misdeed] = []
        self.requests: deque[OriginRequest] = deque(maxlen=MAX_LOGGED_REQUESTS)
        self.counts: Counter[str] = Counter()  # requests by method, and "body bytes" of objects sent
        self.uploads = UploadHandler()
        self._current: dict[str, Version] = {}
        self._by_id: dict[tuple[str, str], Version | None] = {}  # None: a delete marker
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)
        self._lies = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

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

    # --- what its owner does, past all requests ----------------------------------------------------------------

    def store(self, key: str, size: int, **headers: str) -> int:
        """Store a new version as another client would. Returns its number. `headers` have `_` in place of `-`."""
        version = next(self._numbers)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._add(key, version, size, content.etag(key, version, size), named)
        return version

    def store_bytes(self, key: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Store any bytes. `headers` have lower-case names; they carry the version of bytes too short to identify
        it.
        """
        named = headers.get(VERSION_HEADER)
        finding = content.check(key, data, 0, None if named is None else int(named))
        if len(finding.versions) == 1 and finding.is_all(finding.versions[0]):
            (version,) = finding.versions
            self._add(key, version, len(data), content.etag(key, version, len(data)), headers)
        else:
            self._add(key, FOREIGN, len(data), f'"{hashlib.md5(data).hexdigest()}"', headers, data)

    def delete(self, key: str) -> str:
        """Delete the object. Returns the id of the delete marker."""
        marker = self._new_id()
        self._current.pop(key, None)
        if self.is_versioned:
            self._by_id[key, marker] = None
        else:
            self._by_id.pop((key, marker), None)
        self.history.append(Change(key, None, 0, "", time.monotonic()))
        return marker

    def stored(self, key: str) -> bytes | None:
        """Return the current object's bytes."""
        found = self._current.get(key)
        return None if found is None else b"".join(found.pieces(0, found.size))

    @property
    def keys(self) -> list[str]:
        return sorted(self._current)

    def last_modified(self) -> dict[str, str]:
        """Return the Last-Modified of all current objects, by key."""
        return {key: version.last_modified for key, version in self._current.items()}

    def drain_history(self) -> list[Change]:
        """Return the changes since the last call."""
        taken, self.history = self.history, []
        return taken

    def drain_requests(self) -> list[OriginRequest]:
        """Return the requests since the last call, of those that are remembered."""
        taken = list(self.requests)
        self.requests.clear()
        return taken

    async def watch_itself(self) -> None:
        """Note as misdeeds the times in which the machine did not let this process run. Ends with its cancellation."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(WATCH_INTERVAL_S)
            if (ended := time.monotonic()) - began > PUNCTUAL_S:
                self.misdeeds.append(Misdeed(None, "", Behaviour(pause=ended - began), began, ended))

    def drain_misdeeds(self) -> list[Misdeed]:
        taken, self.misdeeds = self.misdeeds, []
        return taken

    def _add(
        self, key: str, version: int, size: int, etag: str, headers: Mapping[str, str], literal: bytes | None = None
    ) -> None:
        kept = {"content-type": "binary/octet-stream"}
        kept |= {name: value for name, value in headers.items() if name in _KEPT or name.startswith("x-amz-meta-")}
        if version != FOREIGN:
            kept[VERSION_HEADER] = str(version)
        made = Version(key, version, size, etag, tuple(kept.items()), formatdate(usegmt=True), self._new_id(), literal)
        self._current[key] = self._by_id[key, made.id] = made
        self.history.append(Change(key, version, size, etag, time.monotonic()))

    def _new_id(self) -> str:
        return f"id-{next(self._ids)}x" if self.is_versioned else "null"

    # --- HTTP --------------------------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(RawConnection(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: RawConnection) -> None:
        try:
            while (head := await connection.head()) is not None:
                query, key = _target(head.target, self.bucket)
                request = OriginRequest(
                    head.method, f"{head.method} {head.target}", tuple(head.headers.items()), key, time.monotonic()
                )
                self.requests.append(request)
                self.counts[head.method] += 1
                behaviour = self.script(request)
                try:
                    if not await self._exchange(connection, request, query, behaviour):
                        return
                finally:
                    if behaviour != HONEST:
                        self.misdeeds.append(Misdeed(key, head.method, behaviour, request.at, time.monotonic()))
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client left
        finally:
            connection.writer.close()

    async def _exchange(
        self, connection: RawConnection, request: OriginRequest, query: dict[str, str], behaviour: Behaviour
    ) -> bool:
        """Process one request. Returns whether the connection continues."""
        await asyncio.sleep(behaviour.pause)
        body = await self._body(connection, request, behaviour)
        if body is None:
            return False
        if behaviour.garbage is not None and request.method in ("GET", "HEAD"):
            await connection.send(behaviour.garbage)
            return False
        if request.method == "GET" and "uploads" in query:
            listed = self.uploads.listed(self.bucket)
            await connection.send(_head(200, {"Content-Type": "application/xml"}, len(listed)) + listed)
            return True
        if request.method in ("GET", "HEAD"):
            return await self._read(connection, request, query, behaviour)
        return await self._write(connection, request, query, body, behaviour)

    async def _body(self, connection: RawConnection, request: OriginRequest, behaviour: Behaviour) -> bytes | None:
        """Return the body of a request, None if the script cuts it off."""
        length = int(request.header("content-length") or 0)
        if (request.header("expect") or "").lower() == "100-continue":
            await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.method in ("PUT", "DELETE") and behaviour.cut_at:
            await connection.reader.readexactly(min(length, behaviour.cut_at))
            _cut(connection, behaviour)
            return None
        if behaviour.early_at is not None and behaviour.status is not None:
            await connection.reader.readexactly(min(length, behaviour.early_at))
            refused = _scripted(behaviour.status)
            refused.headers["Connection"] = "close"
            await connection.send(_error(refused, request))
            await connection.hang()  # a close would send a reset, which may overtake the response
            return None
        if behaviour.trickle is None:
            body: bytes = await connection.reader.readexactly(length)
            return body
        step, interval = behaviour.trickle
        taken = []
        for at in range(0, length, step):
            taken.append(await connection.reader.readexactly(min(step, length - at)))
            await asyncio.sleep(interval)
        return b"".join(taken)

    async def _write(
        self,
        connection: RawConnection,
        request: OriginRequest,
        query: dict[str, str],
        body: bytes,
        behaviour: Behaviour,
    ) -> bool:
        try:
            response = self._changed(request, query, body, behaviour)
        except _Refused as refused:
            await connection.send(_error(refused, request))
            return True
        if behaviour.cut_at is not None:
            _cut(connection, behaviour)
            return False
        if behaviour.stall_at is not None:
            await connection.hang()
            return False
        if behaviour.garbage is not None:
            await connection.send(behaviour.garbage)
            return False
        await connection.send(response)
        return True

    def _changed(self, request: OriginRequest, query: dict[str, str], body: bytes, behaviour: Behaviour) -> bytes:
        if behaviour.status is not None and behaviour.status >= 300:
            raise _scripted(behaviour.status)
        if request.key is not None and ("uploads" in query or "uploadId" in query):
            try:
                return self._uploaded(request, request.key, query, body)
            except NoSuchUpload:
                raise _Refused(404, "NoSuchUpload") from None
        if request.method == "PUT" and request.key is not None and request.header("content-length") is not None:
            self.store_bytes(request.key, body, {name.lower(): value for name, value in request.headers})
            return _head(200, {"ETag": self._current[request.key].etag}, 0)
        if request.method == "DELETE" and request.key is not None:
            self.delete(request.key)
            return _head(204, {}, None)
        raise _Refused(501, "NotImplemented")

    def _uploaded(self, request: OriginRequest, key: str, query: dict[str, str], body: bytes) -> bytes:
        """Process one step of a multipart upload."""
        number = query.get("uploadId", "")
        if request.method == "PUT":
            return _head(200, {"ETag": self.uploads.part(number, int(query["partNumber"]), body)}, 0)
        if request.method == "DELETE":
            self.uploads.abort(number)
            return _head(204, {}, None)
        if "uploads" in query:
            number = self.uploads.begin(key, {name.lower(): value for name, value in request.headers})
            document = f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
        else:
            upload, data = self.uploads.completed(number, body)
            self.store_bytes(key, data, upload.headers)
            etag = self._current[key].etag.replace('"', "&quot;")
            document = f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        return _head(200, {"Content-Type": "application/xml"}, len(document)) + document.encode()

    async def _read(
        self, connection: RawConnection, request: OriginRequest, query: dict[str, str], behaviour: Behaviour
    ) -> bool:
        self._swap(request, behaviour, at="before head")
        try:
            if behaviour.status is not None and behaviour.status >= 300:
                raise _scripted(behaviour.status)
            found = self._found(request.key, query.get("versionId"))
            span = self._span(request, found, behaviour)
        except _Refused as refused:
            await connection.send(_error(refused, request))
            return True
        headers = self._object_headers(found)
        if behaviour.etag is not None:
            headers["ETag"] = behaviour.etag.format(next(self._lies))
        status, (start, stop) = 200 if span is None else 206, span or (0, found.size)
        if span is not None:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.size}"
        if behaviour.content_range is not None:
            headers["Content-Range"] = behaviour.content_range
        length = stop - start
        if request.method == "HEAD":
            await connection.send(_head(status, headers, length))
            self._swap(request, behaviour, at="after head")
            return True
        connection.writer.write(_head(status, headers, max(0, length + behaviour.extra_length)))
        self._swap(request, behaviour, at="after head")
        return await self._send(connection, request, found, (start, stop), behaviour)

    async def _send(
        self,
        connection: RawConnection,
        request: OriginRequest,
        found: Version,
        span: tuple[int, int],
        behaviour: Behaviour,
    ) -> bool:
        """Send the body. Like S3, it continues with the version that it began with."""
        sent = 0
        stops = sorted(
            at
            for at in (behaviour.swap, behaviour.cut_at, behaviour.stall_at, behaviour.flip_at)
            if isinstance(at, int)
        )
        step, interval = behaviour.trickle or (PIECE, 0.0)
        start, stop = span
        while True:
            self._swap(request, behaviour, at=sent)
            if sent == behaviour.cut_at:
                with contextlib.suppress(ConnectionError):
                    await _flushed(connection)
                _cut(connection, behaviour)
                return False
            if sent == behaviour.stall_at:
                await connection.hang()
                return False
            if start + sent == stop:
                break
            until = min([stop, start + sent + step, *(start + at for at in stops if at > sent)])
            data = b"".join(found.pieces(start + sent, until))
            if behaviour.flip_at == sent:
                data = bytes([data[0] ^ 1]) + data[1:]
            connection.writer.write(data)
            await connection.writer.drain()
            sent = until - start
            self.counts["body bytes"] += len(data)
            if interval:
                await asyncio.sleep(interval)
        return behaviour.extra_length <= 0

    def _swap(self, request: OriginRequest, behaviour: Behaviour, at: str | int) -> None:
        if behaviour.swap == at and request.key in self._current:
            old = self._current[request.key]
            self.store(request.key, old.size if behaviour.swap_size is None else behaviour.swap_size)

    def _found(self, key: str | None, version_id: str | None) -> Version:
        if key is None:
            raise _Refused(404, "NoSuchBucket")
        if version_id is None:
            found = self._current.get(key)
            if found is None:
                raise _Refused(404, "NoSuchKey")
            return found
        if (key, version_id) not in self._by_id:
            raise _Refused(404, "NoSuchVersion")
        named = self._by_id[key, version_id]
        if named is None:
            raise _Refused(405, "MethodNotAllowed", {"x-amz-delete-marker": "true", "Allow": "DELETE"})
        return named

    def _span(self, request: OriginRequest, found: Version, behaviour: Behaviour) -> tuple[int, int] | None:
        """Return the requested bytes, None for all of them (RFC 9110 sections 13.2.2 and 14.2)."""
        if_match, if_none_match = request.header("if-match"), request.header("if-none-match")
        if if_match not in (None, "*", found.etag) and not behaviour.ignores_if_match:
            raise _Refused(412, "PreconditionFailed")
        if if_none_match in ("*", found.etag):
            raise _Refused(304, "", self._object_headers(found))
        wanted = _RANGE.fullmatch(request.range or "")
        if wanted is None or wanted[0] == "bytes=-" or request.method == "HEAD" or behaviour.status == 200:
            return None
        first, last = wanted.groups()
        if not first:
            start, stop = max(0, found.size - int(last)), found.size
        else:
            start, stop = int(first), min(found.size, int(last) + 1) if last else found.size
        if start >= stop:
            raise _Refused(416, "InvalidRange", {"Content-Range": f"bytes */{found.size}"})
        return start, stop

    def _object_headers(self, found: Version) -> dict[str, str]:
        named = {
            "ETag": found.etag,
            "Last-Modified": found.last_modified,
            "Accept-Ranges": "bytes",
            **dict(found.headers),
        }
        return {**named, "x-amz-version-id": found.id} if self.is_versioned else named


def _target(target: str, bucket: str) -> tuple[dict[str, str], str | None]:
    """Return the query, and the key: every byte after the bucket's slash, with dots and slashes as sent."""
    path, _, query = target.partition("?")
    _, _, rest = path.partition("/")
    named, slash, key = rest.partition("/")
    is_object = named == bucket and bool(slash and key)
    return dict(parse_qsl(query, keep_blank_values=True)), unquote(key) if is_object else None


def _head(status: int, headers: Mapping[str, str], length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {status} Any", f"Date: {formatdate(usegmt=True)}", "x-amz-request-id: chaos"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8")


def _error(refused: _Refused, request: OriginRequest) -> bytes:
    if refused.status == 304:
        return _head(304, refused.headers, None)
    body = f"<?xml version='1.0'?><Error><Code>{refused.code}</Code><Message>as told</Message></Error>".encode()
    head = _head(refused.status, {"Content-Type": "application/xml", **refused.headers}, len(body))
    return head if request.method == "HEAD" else head + body


def _scripted(status: int) -> _Refused:
    if status in (301, 302, 307, 308):
        return _Refused(status, "PermanentRedirect", {"Location": "http://127.0.0.1:9/elsewhere"})
    headers = {"Content-Range": "bytes */0"} if status == 416 else {}
    return _Refused(status, CODES[status], headers)


async def _flushed(connection: RawConnection) -> None:
    """Wait until the kernel has sent all written bytes, because a reset would drop them."""
    transport = connection.writer.transport
    transport.set_write_buffer_limits(0)
    await connection.writer.drain()


def _cut(connection: RawConnection, behaviour: Behaviour) -> None:
    if behaviour.with_reset:
        found = connection.writer.get_extra_info("socket")
        # Without time to linger, a close is a reset.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.writer.transport.abort()
    else:
        connection.writer.close()
