"""The fast path: a connection that answers plain requests for whole, fresh objects before aiohttp sees them.

What it does not answer goes to aiohttp untouched, at any time; the two may take turns on one connection. It answers
only while aiohttp waits for a request and nothing waits to be sent: so answers keep the order of their requests, and
a client that does not read is waited for by the ordinary path.

In an `InlineEventLoop` a connection at rest reads its requests itself, as soon as epoll tells of them. In any other
loop, and under TLS, requests come through asyncio's transport, and all else is the same.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Self

from aiohttp import web

from bucketfront.cache import Cache, Reader, page_cache
from bucketfront.errors import ProxyError
from bucketfront.http.ranges import Span
from bucketfront.server.fast_path.prepared import PreparedResponse, PreparedResponses
from bucketfront.server.fast_path.recogniser import PlainRequest
from bucketfront.server.http1.connection import Connection, ConnectionServer
from bucketfront.server.http1.event_loop import InlineEventLoop
from bucketfront.server.send.sender import BrokenOff, Sender, abort
from bucketfront.server.send.sendfile import MAX_PER_TURN_BYTES, SendfileBurst
from bucketfront.server.telemetry.access_log import CLIENT_CLOSED_REQUEST, AccessRecord
from bucketfront.server.telemetry.telemetry import Telemetry

READ = 8 << 10  # bytes that are read at once: more than a request has that is answered here
RESIDENT = 0.1  # seconds that an object sent from memory is taken to stay there
JOIN = 4 << 10  # bytes: what is shorter is copied together, which costs less than a list of pieces
MAX_HELD = 64 << 10  # bytes of requests behind an answer that is still being sent

log = logging.getLogger(__name__)


class FastPath:
    """What all connections of the listener share. `answered` counts the answers that were begun here. `clock` is the
    cache's, `wall` wall time in seconds since the epoch.
    """

    def __init__(
        self,
        recognise: Callable[[bytes], PlainRequest | None],
        hits: PreparedResponses,
        cache: Cache,
        telemetry: Telemetry,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.recognise = recognise
        self.hits = hits
        self.cache = cache
        self.telemetry = telemetry
        self.clock = clock
        self.wall = wall
        self.answered = 0


class FastConnection(Connection):
    """`_rest` sends what the socket did not take at once; meanwhile, what comes in is held."""

    __slots__ = ("_client", "_held", "_path", "_rest", "_socket")

    def __init__(self, manager: web.Server, path: FastPath, **options: Any) -> None:
        super().__init__(manager, **options)
        self._path = path
        self._client = "-"
        self._socket = -1  # the transport's descriptor; none where bytes have to be enciphered
        self._held = b""
        self._rest: asyncio.Task[None] | SendfileBurst | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else "-"
        super().connection_made(transport)
        if transport.get_extra_info("sslcontext") is None:
            self._socket = transport.get_extra_info("socket").fileno()
            if isinstance(self.loop, InlineEventLoop):
                self.loop.selector.inline_readers[self._socket] = self._is_taken

    def connection_lost(self, exc: BaseException | None) -> None:
        if isinstance(self.loop, InlineEventLoop):
            self.loop.selector.inline_readers.pop(self._socket, None)
        if isinstance(self._rest, SendfileBurst):
            self._rest.end()
        if isinstance(self._rest, asyncio.Task):
            self._rest.cancel()
        self._socket = -1
        self._held = b""
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        if isinstance(self._rest, SendfileBurst):
            self._rest.end()
        if isinstance(self._rest, asyncio.Task):
            self.refuse_further_requests()
            await asyncio.wait([self._rest], timeout=timeout)
        await super().shutdown(timeout)

    # --- requests ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._rest is not None:
            self._hold(data)
        elif not (self.is_at_rest() and self._is_answered(data)):
            super().data_received(data)

    def _is_taken(self) -> bool:
        """Called in the selector, where an exception would end the loop: it ends the connection, as asyncio does."""
        if self._rest is not None or not self.is_at_rest():
            return False
        try:
            data = os.read(self._socket, READ)
        except OSError:
            return False  # as the end of the stream: the transport finds it as well
        if not data:
            return False
        try:
            if not self._is_answered(data):
                super().data_received(data)
        except Exception:
            log.exception("a request failed in a way nobody foresaw")
            abort(self)
        return True

    # --- answers -------------------------------------------------------------------------------------------

    def _is_answered(self, data: bytes) -> bool:
        path = self._path
        asked = path.recognise(data)
        if asked is None:
            return False
        began, now = self.loop.time(), path.clock()
        answer = path.hits.answer(asked, now)
        if answer is None:
            return False
        lease = answer.lease
        length = answer.stop - answer.start
        if not length:
            self._write(answer.head)
        elif (body := lease.body) is not None:
            self._write(answer.head, body if length == len(body) else body[answer.start : answer.stop])
        elif not self._is_sent_from_file(answer, length, began):
            return False
        path.cache.record_use(lease, now)
        path.answered += 1
        self.count_request(began)
        if self._rest is None:
            path.telemetry.hit(answer.told, length, self._client, path.wall(), self.loop.time() - began)
        return True

    def _write(self, head: bytes, body: bytes | memoryview = b"") -> None:
        """As one. The transport would have to be given a copy of both; it gets what the socket does not take."""
        length = len(head) + len(body)
        sent = 0
        if self._socket >= 0:
            try:  # noqa: SIM105 - half a microsecond cheaper than `suppress`
                sent = os.writev(self._socket, (head, body)) if length > JOIN else os.write(self._socket, head + body)
            except OSError:
                pass  # the transport meets it again, and knows what to do with it
        if sent < length:
            assert self.transport is not None
            self.transport.write((head + body)[sent:])

    def _is_sent_from_file(self, answer: PreparedResponse, length: int, began: float) -> bool:
        """Whether the answer was begun; `_rest` is its end, unless the socket took all of it."""
        fd, offset, _ = answer.lease.region
        if length <= page_cache.PEEK:
            data = page_cache.peek(fd, offset + answer.start, length)
            if data is None:
                return False
            self._write(answer.head, data)
            return True
        at, stop = answer.start, answer.stop
        turn = Span(at, min(stop, at + MAX_PER_TURN_BYTES))
        if self._socket < 0 or not _is_resident(answer, turn, began):
            return False
        self._write(answer.head)
        assert self.transport is not None
        if self.transport.get_write_buffer_size():
            self._send_rest(answer, self._path.cache.reader_of(answer.lease), at, began)
            return True
        try:  # noqa: SIM105 - as in `_write`
            at += os.sendfile(self._socket, fd, offset + at, turn.stop - at)
        except OSError:
            pass  # who sends the rest meets it again
        if at < stop:
            self._spurt(answer, at, began)
        return True

    # --- an answer that takes longer -----------------------------------------------------------------------

    def _spurt(self, answer: PreparedResponse, at: int, began: float) -> None:
        reader = self._path.cache.reader_of(answer.lease)
        then = partial(self._spurted, answer, reader, began)
        try:
            self._rest = SendfileBurst(self._socket, answer.lease.region, Span(at, answer.stop), then)
        except OSError:
            then(at)  # no descriptor is left

    def _spurted(self, answer: PreparedResponse, reader: Reader, began: float, at: int) -> None:
        if at < answer.stop:
            self._send_rest(answer, reader, at, began)
            return
        reader.close()
        self._told(answer.told, at - answer.start, began)

    def _send_rest(self, answer: PreparedResponse, reader: Reader, at: int, began: float) -> None:
        sender = Sender(reader, (Span(at, answer.stop),), whole=False)
        task = self._rest = self.loop.create_task(self._sent(sender))
        # A callback, because a task that is cancelled before its first step never runs any of its own code.
        task.add_done_callback(lambda task: self._end(task, answer, at - answer.start + sender.sent, reader, began))

    async def _sent(self, sender: Sender) -> None:
        outlet = _Outlet(self)
        try:
            await sender.begin()
            await sender.send(outlet, outlet)
        except ProxyError as error:
            # Of the first bytes: a Sender aborts by itself only after those.
            abort(outlet)
            raise BrokenOff(str(error)) from error
        finally:
            await sender.close()

    def _end(
        self, task: "asyncio.Task[None]", answer: PreparedResponse, sent: int, reader: Reader, began: float
    ) -> None:
        reader.close()
        told, fault = answer.told, None
        error = None if task.cancelled() else task.exception()
        if isinstance(error, BrokenOff):
            fault = str(error)
            self._path.telemetry.cut()
        elif error is not None and not isinstance(error, ConnectionError):
            log.error("an answer failed in a way nobody foresaw", exc_info=error)
            fault = "internal error"
            self._path.telemetry.cut()
            abort(self)
        if task.cancelled() or error is not None:
            told = replace(told, status=CLIENT_CLOSED_REQUEST, fault=fault)
        self._told(told, sent, began)

    def _told(self, told: AccessRecord, sent: int, began: float) -> None:
        now = self.loop.time()
        self._path.telemetry.hit(told, sent, self._client, self._path.wall(), now - began)
        self._rest = None
        held, self._held = self._held, b""
        if self.transport is None or self.transport.is_closing():
            return
        self.count_request(now)
        if held:
            self.data_received(held)
        self.resume_transport_reading()

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MAX_HELD:
            self.pause_transport_reading()

    def sends_outside_aiohttp(self) -> bool:
        return self._rest is not None


def _is_resident(answer: PreparedResponse, turn: Span, now: float) -> bool:
    """Of a whole object that is sent again and again, asked once in a while. `now` as the loop's clock."""
    lease = answer.lease
    if now < lease.resident_until and turn.stop == lease.metadata.size:
        return True
    if not page_cache.is_resident(lease.region.fd, lease.region.locate(turn)):
        return False
    if turn.length == lease.metadata.size:
        lease.resident_until = now + RESIDENT
    return True


class _Outlet:
    """What a Sender needs of an aiohttp request and its response, of which there are none here."""

    def __init__(self, connection: FastConnection) -> None:
        self._connection = connection

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._connection.transport

    @property
    def writer(self) -> Self:
        return self

    def send_headers(self) -> None:
        """They are sent."""

    async def write(self, data: bytes) -> None:
        if self.transport is None:
            raise ConnectionResetError("the client left")
        self.transport.write(data)
        await self.drain()

    async def drain(self) -> None:
        await self._connection.drain()


class FastConnectionServer(ConnectionServer):
    """With `path` None all goes the ordinary way."""

    def __init__(self, handler: Any, path: FastPath | None, **options: Any) -> None:
        super().__init__(handler, **options)
        self._path = path

    def __call__(self) -> web.RequestHandler:
        if self._path is None:
            return super().__call__()
        return FastConnection(self, self._path, **self.connection_options)
