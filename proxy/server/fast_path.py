"""The fast path: a connection that answers plain requests for whole, fresh objects before aiohttp sees them.

What it does not answer goes to aiohttp untouched, at any time; the two may take turns on one connection. It answers
only while aiohttp waits for a request and nothing waits to be sent: so answers keep the order of their requests, and
a client that does not read is waited for by the ordinary path.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy.cache import residency
from proxy.cache.cache import Cache, Reader
from proxy.errors import ProxyError
from proxy.http.ranges import Span
from proxy.server.connection import Connection, ConnectionServer
from proxy.server.hits import Answer, Hits
from proxy.server.observer import Observer
from proxy.server.plain_request import Asked
from proxy.server.pouring import TURN
from proxy.server.sending import BrokenOff, Sender, abort

MAX_HELD = 64 << 10  # bytes of requests behind an answer that is still being sent
CLIENT_CLOSED_REQUEST = 499  # nginx's word in logs for a client that left before its answer was whole

log = logging.getLogger("bucketfront.server")


class FastPath:
    """What all connections of the listener share. `answered` counts the answers that were begun here."""

    def __init__(
        self, recognise: Callable[[bytes], Asked | None], hits: Hits, cache: Cache, observer: Observer
    ) -> None:
        self.recognise = recognise
        self.hits = hits
        self.cache = cache
        self.observer = observer
        self.answered = 0


class FastConnection(Connection):
    """`_rest` sends what the socket did not take at once; meanwhile, what comes in is held."""

    __slots__ = ("_client", "_held", "_path", "_rest", "_sock")

    def __init__(self, manager: web.Server, path: FastPath, **options: Any) -> None:
        super().__init__(manager, **options)
        self._path = path
        self._client = "-"
        self._sock: socket.socket | None = None  # None where bytes have to be enciphered
        self._held = b""
        self._rest: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else "-"
        if transport.get_extra_info("sslcontext") is None:
            self._sock = transport.get_extra_info("socket")
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._held = b""
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        if self._rest is not None:
            self._close = True  # no further request of this connection is answered
            await asyncio.wait([self._rest], timeout=timeout)
        await super().shutdown(timeout)

    def data_received(self, data: bytes) -> None:
        if self._rest is not None:
            self._hold(data)
            return
        if self._is_at_rest():
            asked = self._path.recognise(data)
            if asked is not None and self._is_answered(asked):
                self._count_as_use()
                return
        super().data_received(data)

    def _is_at_rest(self) -> bool:
        """Whether aiohttp waits for the first byte of a request, and the client's kernel has taken all there was."""
        return (
            self._waiter is not None
            and not self._messages
            and not self._head_size
            and not self._left
            and not self._unread
            and not self._is_deaf
            and not self._close
            and self.transport is not None
            and not self.transport.get_write_buffer_size()
        )

    def _count_as_use(self) -> None:
        """For the two timers of the ordinary path."""
        if self._head_timer is not None:
            self._stop_timer()
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _is_answered(self, asked: Asked) -> bool:
        began = self._loop.time()
        answer = self._path.hits.answer(asked)
        if answer is None:
            return False
        assert self.transport is not None
        hit = answer.hit
        if answer.start == answer.stop:
            self.transport.write(answer.head)
        elif hit.body is not None:
            is_whole = answer.stop - answer.start == len(hit.body)
            self._write(answer.head, hit.body if is_whole else hit.body[answer.start : answer.stop])
        elif not self._is_sent_from_file(answer, began):
            return False
        self._path.cache.used(hit)
        self._path.answered += 1
        if self._rest is None:
            sent = answer.stop - answer.start
            self._path.observer.hit(answer.told, sent, self._client, time.time(), self._loop.time() - began)
        return True

    def _write(self, head: bytes, body: bytes | memoryview) -> None:
        """As one. The transport would have to be given a copy of both; it gets what the socket does not take."""
        assert self.transport is not None
        sent = 0
        if self._sock is not None:
            try:  # noqa: SIM105 - half a microsecond cheaper than `suppress`
                sent = os.writev(self._sock.fileno(), (head, body))
            except OSError:
                pass  # the transport meets it again, and knows what to do with it
        if sent < len(head) + len(body):
            self.transport.write((head + body)[sent:])

    def _is_sent_from_file(self, answer: Answer, began: float) -> bool:
        """Whether the answer was begun; `_rest` is its end, unless the socket took all of it."""
        transport, fd = self.transport, answer.hit.fd
        assert transport is not None
        if answer.stop - answer.start <= residency.PEEK:
            data = residency.peek(fd, answer.start, answer.stop - answer.start)
            if data is None:
                return False
            self._write(answer.head, data)
            return True
        turn = Span(answer.start, min(answer.stop, answer.start + TURN))
        if self._sock is None or not residency.is_resident(fd, turn):
            return False
        at = turn.start
        # Corked, head and first bytes leave as one: a copy in between would cost more than the two calls.
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        transport.write(answer.head)
        if not transport.get_write_buffer_size():
            at = _poured(self._sock.fileno(), fd, turn)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        if at < answer.stop:
            self._send_rest(answer, at, began)
        return True

    # --- an answer that takes longer -----------------------------------------------------------------------

    def _send_rest(self, answer: Answer, at: int, began: float) -> None:
        reader = self._path.cache.reader_of(answer.hit)
        sender = Sender(reader, (Span(at, answer.stop),), whole=False)
        task = self._rest = self._loop.create_task(self._sent(sender))
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

    def _end(self, task: "asyncio.Task[None]", answer: Answer, sent: int, reader: Reader, began: float) -> None:
        reader.close()
        self._rest = None
        told, fault = answer.told, None
        error = None if task.cancelled() else task.exception()
        if isinstance(error, BrokenOff):
            fault = str(error)
            self._path.observer.cut()
        elif error is not None and not isinstance(error, ConnectionError):
            log.error("an answer failed in a way nobody foresaw", exc_info=error)
            fault = "internal error"
            self._path.observer.cut()
            if self.transport is not None:
                self.transport.abort()
        if task.cancelled() or error is not None:
            told = replace(told, status=CLIENT_CLOSED_REQUEST, fault=fault)
        self._path.observer.hit(told, sent, self._client, time.time(), self._loop.time() - began)
        self._go_on()

    def _go_on(self) -> None:
        held, self._held = self._held, b""
        if self.transport is None or self.transport.is_closing():
            return
        self._count_as_use()
        if held:
            self.data_received(held)
        if not self._buffer_paused and not self._reading_paused:
            self._resume_transport_reading()

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MAX_HELD:
            self._pause_transport_reading()

    def _process_keepalive(self) -> None:
        if self._rest is not None:
            # aiohttp knows nothing of an answer that it does not send.
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()


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
        await self._connection._drain_helper()  # noqa: SLF001 - aiohttp's protocols have no public name for it


class FastConnectionServer(ConnectionServer):
    """With `path` None all goes the ordinary way."""

    def __init__(self, handler: Any, path: FastPath | None, **options: Any) -> None:
        super().__init__(handler, **options)
        self._path = path

    def __call__(self) -> RequestHandler:
        if self._path is None:
            return super().__call__()
        return FastConnection(self, self._path, loop=self._loop, **{**self._kwargs, "lingering_time": 0.0})


def _poured(sock: int, file: int, span: Span) -> int:
    """Send of the file what the socket takes at once. Returns the offset that was reached; what is in the way of the
    rest, whoever sends that meets it again.
    """
    at = span.start
    try:
        while at < span.stop:
            sent = os.sendfile(sock, file, at, span.stop - at)
            if not sent:
                break
            at += sent
    except OSError:
        pass
    return at
