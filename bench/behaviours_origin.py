"""The origin of the table of behaviours: as much of S3 as a cache uses, with settings for each object.

It runs in the program that sends the requests, so that an object can be changed, broken or counted between two
requests. Each proxy has an origin of its own. An object's bytes are a function of its key and version
(`content.block`).
"""

import asyncio
import contextlib
import hashlib
import re
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

import content
from content import MIB

BUCKET = "bench"
LAST_MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
QUANTUM_S = 0.02  # seconds of its rate that a slow object sends at once
CHUNK_BYTES = 256 << 10  # bytes sent at once if there is no rate
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CODES = {
    400: ("Bad Request", "InvalidRequest"),
    403: ("Forbidden", "AccessDenied"),
    404: ("Not Found", "NoSuchKey"),
    405: ("Method Not Allowed", "MethodNotAllowed"),
    412: ("Precondition Failed", "PreconditionFailed"),
    416: ("Range Not Satisfiable", "InvalidRange"),
    500: ("Internal Server Error", "InternalError"),
    503: ("Service Unavailable", "SlowDown"),
}


@dataclass(slots=True)
class Thing:
    """An object. `fields` are the headers of its responses besides the validators.

    `status` is an error status for the next `failures` requests, or for all if that is None. `rate` is in bytes a
    second, `delay` in seconds before a head. `cut` is the bytes of a body after which the connection is reset. `drops`
    is the number of next requests whose connection is closed without a response.
    """

    name: str
    size: int
    fields: dict[str, str] = field(default_factory=dict)
    version: int = 1
    last_modified: str = LAST_MODIFIED
    status: int = 200
    failures: int | None = None
    rate: float = 0.0
    delay: float = 0.0
    cut: int | None = None
    drops: int = 0

    def etag(self, version: int | None = None) -> str:
        # Longer than an MD5, because an ETag in the form of an MD5 would have to match the bytes.
        digest = hashlib.sha1(self.seed(version).encode(), usedforsecurity=False).hexdigest()
        return f'"{digest}"'

    def seed(self, version: int | None = None) -> str:
        """Return the name under which `content` has the bytes of a version, None for the current one."""
        return f"{self.name}:{version or self.version}"

    def version_of(self, etag: str) -> int | None:
        """Return the version of an ETag, None if there is none. A weak ETag names the same version."""
        plain = etag.removeprefix("W/")
        return next((number for number in range(1, self.version + 1) if self.etag(number) == plain), None)


@dataclass(slots=True)
class OriginRequest:
    """One request for an object. `sent` counts the bytes of the body that the socket accepted."""

    method: str
    target: str
    fields: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a response. `span` is the bytes of the object that follow, `body` is sent in their place."""

    status: str
    fields: dict[str, str]
    span: tuple[int, int] = (0, 0)
    body: bytes = b""


class Origin:
    """An S3 on loopback. `requests` has every request in order of arrival."""

    def __init__(self) -> None:
        self.things: dict[str, Thing] = {}
        self.requests: list[OriginRequest] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    def has(self, name: str, size: int = 4096, **fields: str) -> Thing:
        """Add or replace an object. Names in `fields` have `_` in place of `-`, and an empty value removes a header."""
        named = {key.replace("_", "-"): value for key, value in fields.items() if value}
        thing = self.things[name] = Thing(name, size, {"Content-Type": "text/plain", **named})
        return thing

    async def start(self) -> None:
        """Listen, on the previous port if there was one. Do nothing if it already listens."""
        if self._server is not None and self._server.is_serving():
            return
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and reset the open ones."""
        assert self._server is not None
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            # The server must not log these: the end of an origin is part of the experiments.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._respond(reader, writer):
                    pass
        finally:
            writer.transport.abort()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send a response. Returns False if the connection ends."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        request = OriginRequest(method, target, fields)
        self.requests.append(request)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        thing = self._thing(request)
        if thing is not None and thing.drops:
            thing.drops -= 1
            return False
        if thing is not None and thing.delay:
            await asyncio.sleep(thing.delay)
        response = self._head(request, thing, body)
        request.status = int(response.status[:3])
        lines = [f"{name}: {value}" for name, value in response.fields.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {response.status}", *lines, "", ""]).encode("latin-1"))
        if method == "HEAD":
            return True
        writer.write(response.body)
        request.sent += len(response.body)
        return thing is None or await _send_object(thing, response.span, writer, request)

    def _thing(self, request: OriginRequest) -> Thing | None:
        path = unquote(urlsplit(request.target).path, "latin-1")
        return self.things.get(path.removeprefix(f"/{BUCKET}/"))

    def _head(self, request: OriginRequest, thing: Thing | None, body: bytes) -> Head:
        path = unquote(urlsplit(request.target).path, "latin-1")
        if path.rstrip("/") == f"/{BUCKET}":
            return _ok({})
        if request.method in ("PUT", "DELETE"):
            return self._written(request, path.removeprefix(f"/{BUCKET}/"), body)
        if request.method not in ("GET", "HEAD"):
            return error(405)
        if thing is None:
            return error(404)
        if thing.status != 200 and thing.failures != 0:
            if thing.failures is not None:
                thing.failures -= 1
            return error(thing.status)
        return _read(request, thing)

    def _written(self, request: OriginRequest, name: str, body: bytes) -> Head:
        """Apply S3's PutObject or DeleteObject. A put object has the bytes of a next version, whatever was sent."""
        if request.method == "DELETE":
            self.things.pop(name, None)
            return Head("204 No Content", _common())
        thing = self.things.setdefault(name, Thing(name, len(body), {"Content-Type": "text/plain"}, version=0))
        thing.version += 1
        thing.size = len(body)
        return _ok({"ETag": thing.etag()})


async def _send_object(
    thing: Thing, span: tuple[int, int], writer: asyncio.StreamWriter, request: OriginRequest
) -> bool:
    at, stop = span
    # Like at S3, only later requests see a change of the object.
    seed, cut = thing.seed(_requested_version(request, thing)), thing.cut
    writer.transport.set_write_buffer_limits(high=CHUNK_BYTES)
    while at < stop:
        number, within = divmod(at, MIB)
        length = min(int(thing.rate * QUANTUM_S) or CHUNK_BYTES, stop - at, MIB - within)
        if cut is not None:
            length = min(length, cut - request.sent)
            if not length:
                await asyncio.sleep(0.1)  # the written bytes leave before the reset
                return False
        writer.write(memoryview(content.block(seed, number))[within : within + length])
        await writer.drain()
        at += length
        request.sent += length
        await asyncio.sleep(QUANTUM_S if thing.rate else 0)
    await writer.drain()
    return True


def _common() -> dict[str, str]:
    return {"Date": formatdate(usegmt=True), "x-amz-request-id": "4442587FB7D0A2F9", "Server": "AmazonS3"}


def _ok(fields: dict[str, str]) -> Head:
    return Head("200 OK", {**_common(), **fields, "Content-Length": "0"})


def error(status: int) -> Head:
    """S3 API, "Error responses"."""
    reason, code = _CODES[status]
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{reason}</Message>'
        f"<BucketName>{BUCKET}</BucketName><RequestId>4442587FB7D0A2F9</RequestId></Error>"
    ).encode()
    fields = {**_common(), "Content-Type": "application/xml", "Content-Length": str(len(body))}
    return Head(f"{status} {reason}", fields, body=body)


def _requested_version(request: OriginRequest, thing: Thing) -> int:
    """Return the version of S3's versionId. Here the ids are 1, 2 and so on."""
    named = parse_qs(urlsplit(request.target).query).get("versionId", [""])[0]
    return int(named) if named.isdigit() and int(named) <= thing.version else thing.version


def _read(request: OriginRequest, thing: Thing) -> Head:
    """Apply S3's GetObject or HeadObject, with RFC 9110 sections 13 and 14 as far as S3 implements them."""
    field_of = request.fields.get
    version = _requested_version(request, thing)
    etag = thing.etag(version)
    fields = {
        **_common(),
        "ETag": etag,
        "x-amz-version-id": str(version),
        "Last-Modified": thing.last_modified,
        "Accept-Ranges": "bytes",
        **thing.fields,
    }
    if not thing.last_modified:
        del fields["Last-Modified"]
    disposition = parse_qs(urlsplit(request.target).query).get("response-content-disposition")
    if disposition is not None:
        if "authorization" not in request.fields:
            return error(400)  # S3 accepts it in signed requests only
        fields["Content-Disposition"] = disposition[0]
    wanted = field_of("if-match", "*")
    if wanted not in ("*", etag):
        return error(412)
    known = field_of("if-none-match")
    is_known = field_of("if-modified-since") == thing.last_modified if known is None else etag in known or known == "*"
    if is_known:
        fields.pop("Content-Type", None)
        return Head("304 Not Modified", fields)
    return _ranged(request, thing.size, fields)


def _ranged(request: OriginRequest, size: int, fields: dict[str, str]) -> Head:
    found = _RANGE.fullmatch(request.fields.get("range", ""))
    if found is None or request.fields.get("if-range", fields["ETag"]) != fields["ETag"]:
        return Head("200 OK", {**fields, "Content-Length": str(size)}, (0, size))
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        return error(416)
    fields["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Head("206 Partial Content", {**fields, "Content-Length": str(stop - start)}, (start, stop))
