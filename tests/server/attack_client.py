"""A client that sends an attack and takes all that comes, and h11, which reads it by the letter of RFC 9112."""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from urllib.parse import urlsplit

import h11
from stopwatch import HANG_S, TRIES

NEXT_S = 0.2  # until the next segment, if the server waits for it before it responds
QUIET_S = 0.5  # without a further byte; the client then ends its side, because the server waits for more of a body
SILENT_S = 3.0  # the same before the first byte

_CLOSES = b"\r\nConnection: close\r\n"
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")  # that of the request
_NO_BODY = re.compile(rb"HTTP/1\.[01] (?:1|204|304)")
_VARYING = re.compile(rb"\r\n(?:x-amz|X)-(?i:request-id): [^\r]*|<RequestId>[^<]*")
_BOUNDARY = re.compile(rb"boundary=([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Answer:
    """A final response. `digest` is that of its body."""

    status: int
    closes: bool
    digest: bytes


class _Exchange(asyncio.Protocol):
    """Sends the segments, and keeps what comes until the server closes."""

    def __init__(self, segments: Sequence[bytes]) -> None:
        self._segments = list(segments)
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None
        self._next: asyncio.TimerHandle | None = None
        self.has_ended = False
        self.was_reset = False
        self.done: asyncio.Future[bytes] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()
        self._end_in(SILENT_S)

    def _end_in(self, seconds: float) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = self._loop.call_later(seconds, self._write_end)

    def _send(self) -> None:
        """Send a segment, and the next one once something comes, or soon."""
        if self._transport is None or self._transport.is_closing() or self.has_ended:
            return
        if self._segments:
            self._transport.write(self._segments.pop(0))
            if self._segments:
                self._next = self._loop.call_later(NEXT_S, self._send)

    def _write_end(self) -> None:
        if self._segments:  # a busy machine was late
            self._end_in(QUIET_S)
            return
        if self._transport is not None and not self._transport.is_closing():
            self.has_ended = True
            self._transport.write_eof()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._end_in(QUIET_S)
        if self._next is not None:
            self._next.cancel()
        if _CLOSES in data:  # as any client does, it sends nothing more
            self._segments.clear()
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        self.was_reset = exc is not None
        if not self.done.done():
            self.done.set_result(bytes(self._received))


async def exchanged(address: str, segments: Sequence[bytes]) -> tuple[bytes, bool]:
    """Send the segments on a connection of their own, and return all bytes until the server closes it.

    Also return whether the client ended its side before that. A server that closes while segments are on their way
    resets the connection, and a client on a busy machine may lose the response. It then tries again.
    """
    for _ in range(TRIES):
        exchange = await _exchanged(address, segments)
        if not exchange.was_reset:
            break
    return exchange.done.result(), exchange.has_ended


async def _exchanged(address: str, segments: Sequence[bytes]) -> _Exchange:
    where = urlsplit(address)
    assert where.hostname is not None
    assert where.port is not None
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(HANG_S):
        transport, exchange = await loop.create_connection(partial(_Exchange, segments), where.hostname, where.port)
        try:
            await exchange.done
        finally:
            transport.abort()
    return exchange


def answers_in(data: bytes, *, may_have_no_body: bool) -> list[Answer]:
    """Return the final responses in what a connection carried. Raises h11.RemoteProtocolError for any other bytes.

    `may_have_no_body` is True if one of the requests may be a HEAD. A response has then no body if the next one, or
    the end, follows its head.
    """
    boundary = _BOUNDARY.search(data)
    if boundary is not None:
        data = data.replace(boundary[1], b"0" * 32)
    data = _VARYING.sub(b"", data)
    found = []
    while data:
        head_size = data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data, 0, head_size)
        rest = data[head_size:]
        is_of_head = may_have_no_body and (not rest or rest.startswith(_VERSIONS))
        if is_of_head or _NO_BODY.match(data) is not None:
            size = head_size
        else:
            size = len(data) if length is None else head_size + int(length[1])
        answer = _answer(data[:size], is_of_head=is_of_head)
        if answer is not None:
            found.append(answer)
        data = data[size:]
    return found


@lru_cache(maxsize=4096)
def _answer(data: bytes, *, is_of_head: bool) -> Answer | None:
    """Return the only response in these bytes, None for an interim one."""
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method=b"HEAD" if is_of_head else b"GET", target=b"/", headers=[(b"Host", b"a")])
    connection.send(request)
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    response = connection.next_event()
    if isinstance(response, h11.InformationalResponse):
        return None
    assert isinstance(response, h11.Response), data[:300]
    options = {value.lower() for name, value in response.headers if name == b"connection"}
    closes = b"close" in options or (response.http_version == b"1.0" and b"keep-alive" not in options)
    digest = hashlib.sha256()
    while isinstance(event := connection.next_event(), h11.Data):
        digest.update(event.data)
    assert isinstance(event, h11.EndOfMessage), data[:300]
    assert connection.trailing_data == (b"", False), data[:300]
    # A new object without a name gets a random one, which is in the body.
    return Answer(response.status_code, closes, b"" if response.status_code == 201 else digest.digest())
