"""The origin of the benchmark: as much of S3 as a cache uses, with counters and a rate per connection.

It serves `GET` and `HEAD` of `/<bucket>/<key>` for the keys of `content.py`, with `Range` (one range), `If-Match` and
`If-None-Match`, and `HEAD /<bucket>`. It ignores signatures. Bytes are counted once the kernel has accepted them.

`GET /_control?rate=N&delay=S` sets bytes a second of each connection and seconds before a first byte, 0 for none. `GET
/_counters?key=K` returns the requests and bytes of a key. `GET /_counters?reset=1` returns those of all keys and resets
them.

It prints its port and runs until its standard input ends. Usage: `origin.py [RATE [DELAY]]`.
"""

import asyncio
import contextlib
import json
import re
import socket
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import content

BURST_S = 0.01  # seconds of its rate that a connection may catch up
QUANTUM_S = 0.005  # seconds of its rate that are sent at once
CHUNK_BYTES = 256 << 10  # bytes sent at once if there is no limit
LAST_MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(slots=True)
class Transfer:
    """A running transfer of the bytes [start, stop), of which `sent` are sent."""

    start: int
    stop: int
    sent: int = 0


@dataclass(slots=True)
class Count:
    """The counters of one key. `requests` are (method, start, stop), `requested` is the sum of the ranges of GETs."""

    requested: int = 0
    sent: int = 0
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    running: list[Transfer] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        running = [(each.start, each.stop, each.sent) for each in self.running]
        return {"asked": self.requested, "sent": self.sent, "requests": self.requests, "running": running}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a response. `span` is the bytes of the object that follow a GET."""

    status: str
    fields: dict[str, str]
    span: tuple[int, int] = (0, 0)


class Origin:
    def __init__(self, rate: float, delay: float) -> None:
        self.rate = rate
        self.delay = delay
        self.counts: dict[str, Count] = {}

    def count(self, key: str) -> Count:
        return self.counts.setdefault(key, Count())

    def control(self, request: Request) -> dict[str, Any]:
        query = {name: values[-1] for name, values in request.query.items()}
        if request.path == "/_control":
            self.rate = float(query.get("rate", self.rate))
            self.delay = float(query.get("delay", self.delay))
            return {"rate": self.rate, "delay": self.delay}
        if "key" in query:
            return self.count(query["key"]).as_json()
        by_key = {key: count.as_json() for key, count in self.counts.items()}
        if "reset" in query:
            self.counts = {}
        return by_key


class Connection:
    """One client, which sends one request at a time and gets at most the origin's rate."""

    def __init__(self, origin: Origin, sock: socket.socket) -> None:
        self._origin = origin
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._unread = b""
        self._due = 0.0

    async def serve(self) -> None:
        with self._sock, contextlib.suppress(ConnectionError):
            self._sock.setblocking(False)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := await self._request()) is not None:
                await self._respond(request)

    async def _request(self) -> Request | None:
        while b"\r\n\r\n" not in self._unread:
            data = await self._loop.sock_recv(self._sock, 65536)
            if not data:
                return None
            self._unread += data
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        url = urlsplit(target)
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        return Request(method, unquote(url.path), parse_qs(url.query), headers)

    async def _respond(self, request: Request) -> None:
        if request.path in ("/_control", "/_counters"):
            body = json.dumps(self._origin.control(request)).encode()
            fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            await self._send(memoryview(_encoded(Head("200 OK", fields)) + body))
            return
        _, _, rest = request.path.partition("/")
        _, _, key = rest.partition("/")
        head = _head(request, key)
        if self._origin.delay:
            await asyncio.sleep(self._origin.delay)
        start, stop = head.span
        transfer = Transfer(start, stop)
        count = self._origin.count(key)
        if request.method == "GET" and start < stop:
            count.requested += stop - start
            count.requests.append((request.method, start, stop))
            count.running.append(transfer)
        try:
            await self._send(memoryview(_encoded(head)))
            if request.method == "GET":
                await self._send_object(key, transfer, count)
        finally:
            with contextlib.suppress(ValueError):
                count.running.remove(transfer)

    async def _send_object(self, key: str, transfer: Transfer, count: Count) -> None:
        at = transfer.start
        while at < transfer.stop:
            rate = self._origin.rate
            length = min(int(rate * QUANTUM_S) or CHUNK_BYTES, transfer.stop - at)
            if rate:
                await self._pace(length / rate)
            else:
                await asyncio.sleep(0)
            while length:
                number, within = divmod(at, content.MIB)
                piece = memoryview(content.block(key, number))[within : within + length]
                length -= len(piece)
                at += len(piece)
                await self._send(piece, transfer, count)

    async def _pace(self, seconds: float) -> None:
        now = self._loop.time()
        self._due = max(self._due, now - BURST_S) + seconds
        if self._due > now:
            await asyncio.sleep(self._due - now)

    async def _send(self, data: memoryview, transfer: Transfer | None = None, count: Count | None = None) -> None:
        while data:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                await self._writable()
                continue
            data = data[sent:]
            if transfer is not None and count is not None:
                transfer.sent += sent
                count.sent += sent

    async def _writable(self) -> None:
        ready = self._loop.create_future()
        self._loop.add_writer(self._sock, _wake, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._sock)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _encoded(head: Head) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.fields.items())
    return f"HTTP/1.1 {head.status}\r\n{lines}\r\n".encode()


def _head(request: Request, key: str) -> Head:
    """Return the response's head by RFC 9110 sections 13 and 14, as far as S3 GetObject implements them."""
    if not key:
        return Head("200 OK", {"Content-Length": "0"})
    size = content.size_of(key)
    if size is None:
        return Head("404 Not Found", {"Content-Length": "0", "Content-Type": "application/xml"})
    etag = content.etag_of(key, size)
    fields = {
        "ETag": etag,
        "Last-Modified": LAST_MODIFIED,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        "Server": "origin",
    }
    if request.headers.get("if-match", etag) not in (etag, "*"):
        return Head("412 Precondition Failed", {"Content-Length": "0"})
    if request.headers.get("if-none-match") in (etag, "*"):
        return Head("304 Not Modified", fields)
    return _ranged(request, size, fields)


def _ranged(request: Request, size: int, fields: dict[str, str]) -> Head:
    wanted = _RANGE.fullmatch(request.headers.get("range", ""))
    if wanted is None:
        return Head("200 OK", {**fields, "Content-Length": str(size)}, (0, size))
    first, last = wanted.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        return Head("416 Range Not Satisfiable", {"Content-Length": "0", "Content-Range": f"bytes */{size}"})
    fields["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Head("206 Partial Content", {**fields, "Content-Length": str(stop - start)}, (start, stop))


async def main(rate: float, delay: float) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    origin = Origin(rate, delay)
    running: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(Connection(origin, sock).serve())
            running.add(task)
            task.add_done_callback(running.discard)

    accepting = asyncio.create_task(accept())
    await ended.wait()
    for task in (accepting, *running):
        task.cancel()
    await asyncio.gather(accepting, *running, return_exceptions=True)
    listener.close()


if __name__ == "__main__":
    given = [*map(float, sys.argv[1:]), 0.0, 0.0]
    asyncio.run(main(given[0], given[1]))
