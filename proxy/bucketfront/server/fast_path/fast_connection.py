"""A connection that serves plain requests for whole, fresh objects before aiohttp's parser sees them.

Theory of operation
-------------------
A request that the fast path does not serve goes to aiohttp unchanged. The two take turns on one connection. The fast
path serves a request only while aiohttp waits for one and no byte waits to be sent. So responses keep the order of
their requests, and only the ordinary path waits for a client that does not read.

In an `InlineEventLoop` an idle connection reads its requests itself, as soon as epoll reports them. In any other loop
requests come through asyncio's transport, and everything else is the same.

A response that the socket does not take at once continues by callbacks (`Burst`), and after a while in a task
(`Sender`). Requests that arrive meanwhile are held.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Self

from aiohttp import web

from bucketfront.cache import Lease, page_cache
from bucketfront.errors import ProxyError
from bucketfront.http.grammar import Headers
from bucketfront.http.ranges import Demand, Span
from bucketfront.server import client_address
from bucketfront.server.cut import BrokenOff, Cut, broken_off
from bucketfront.server.fast_path.fast_path import FastPath
from bucketfront.server.fast_path.prepared import PreparedResponse
from bucketfront.server.fast_path.recogniser import FORWARDED_FOR, LOGGED, REQUEST_ID, PlainRequest
from bucketfront.server.http1.connection import Connection, ConnectionServer
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.event_loop import InlineEventLoop
from bucketfront.server.http1.tls_transport import TlsTransport
from bucketfront.server.send.enciphered import MAX_PIECE_BYTES, EncipheredBurst, send_some
from bucketfront.server.send.sender import BodyReader, Sender, abort
from bucketfront.server.send.sendfile import MAX_PER_TURN_BYTES, Burst, SendfileBurst
from bucketfront.server.telemetry.access_log import CLIENT_CLOSED_REQUEST, AccessRecord
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.server.telemetry.logged_fields import LoggedFields
from bucketfront.server.telemetry.origin_failure import origin_failure

READ_BYTES = 8 << 10  # at once; more than the largest plain request
RESIDENT_S = 0.1  # that an object sent from memory is expected to stay there; after that the proxy looks again
MAX_JOIN_BYTES = 4 << 10  # of a response that is copied together, which costs less than a list of pieces
MAX_HELD_BYTES = 64 << 10  # of requests behind a response that is still being sent (docs/invariants.md#memory)

log = logging.getLogger(__name__)


class Awaited:
    """What a subclass waits for before it serves what it holds."""


class FastConnection(Connection):
    """`_sending` is what continues a response, and `_held` are the bytes that arrive meanwhile.

    `_end_of_head` has the fields of each response on this connection. Without TLS there are none.
    `_peer` is the address of the other end, and `_client` that of the last request's client. `_begun` has the record
    and the fields of the request whose response continues. `_recognised` is the last plain request, behind what
    recognised it and its bytes.
    """

    __slots__ = (
        "_begun", "_client", "_end_of_head", "_held", "_path", "_peer", "_readable", "_recognised", "_sending",
        "_socket",
    )  # fmt: skip

    _begun: tuple[AccessRecord, LoggedFields]
    _recognised: tuple[Callable[[bytes], PlainRequest | None], bytes, PlainRequest]

    def __init__(self, manager: web.Server, limit: ConnectionLimit, path: FastPath, **options: Any) -> None:
        super().__init__(manager, limit, **options)
        self._path = path
        self._peer = self._client = "-"
        self._socket = -1  # the transport's descriptor to write to, or -1 under TLS
        self._readable = -1  # the descriptor that has an inline reader
        self._end_of_head = b"\r\n"
        self._held = b""
        self._sending: asyncio.Task[None] | Burst | Awaited | None = None
        self._recognised = path.recognise, b"", ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._peer = self._client = str(peer[0]) if isinstance(peer, tuple) else "-"
        super().connection_made(transport)
        if transport.get_extra_info("sslcontext") is None:
            self._socket = transport.get_extra_info("socket").fileno()
            if isinstance(self.loop, InlineEventLoop):
                self._readable = self._socket
                self.loop.selector.inline_readers[self._readable] = self._read_inline
        elif isinstance(self.loop, InlineEventLoop):
            assert isinstance(transport, TlsTransport)
            self._readable = transport.get_extra_info("socket").fileno()
            self.loop.selector.inline_readers[self._readable] = partial(self._read_inline_tls, transport)
        self.end_heads_with(self.response_fields)

    def leave_to_transport(self) -> None:
        """Read and write by the transport alone, as in a loop that is not asyncio's own."""
        if isinstance(self.loop, InlineEventLoop):
            self.loop.selector.inline_readers.pop(self._readable, None)
        self._socket = -1

    def end_heads_with(self, fields: Headers) -> None:
        """Let each response of the fast path have these fields."""
        if fields:
            lines = (f"{name}: {value}\r\n" for name, value in fields)
            self._end_of_head = "".join((*lines, "\r\n")).encode("ascii")

    def connection_lost(self, exc: BaseException | None) -> None:
        if isinstance(self.loop, InlineEventLoop):
            self.loop.selector.inline_readers.pop(self._readable, None)
        if isinstance(self._sending, Burst):
            self._sending.end()
        if isinstance(self._sending, asyncio.Task):
            self._sending.cancel()
        self._socket = -1
        held, self._held = self._held, b""
        if held:
            self._pass_on(held)  # its writes may have to be carried out
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        if isinstance(self._sending, Burst):
            self._sending.end()
        if isinstance(self._sending, asyncio.Task):
            self.refuse_further_requests()
            await asyncio.wait([self._sending], timeout=timeout)
        await super().shutdown(timeout)

    # --- requests ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Serve bytes that have arrived now, or were held."""
        if self._sending is not None:
            self._hold(data)
        elif not (self.is_at_rest() and self._serve(data)):
            self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        """Have bytes served that are no plain request, or not one that the fast path serves."""
        super().data_received(data)

    def end_received(self) -> bool:
        if self._sending is None:
            return super().end_received()
        self.has_ended = True  # `_finish` goes on with the requests before the end
        return True

    def _read_inline(self) -> bool:
        """Read and handle what has arrived. Returns False if asyncio's transport must read it.

        The selector calls this, where an exception would end the loop. It ends the connection instead, as in asyncio.
        """
        if self._sending is not None or not self.is_at_rest():
            return False
        try:
            data = os.read(self._socket, READ_BYTES)
        except OSError:
            return False  # the transport meets the same error
        if not data:
            return False  # the transport sees the end of the stream as well
        try:
            if not self._serve(data):
                self._pass_on(data)
        except Exception:
            log.exception("a request failed with an unexpected error")
            abort(self)
        return True

    def _read_inline_tls(self, transport: TlsTransport) -> bool:
        """Do under TLS what `_read_inline` does."""
        if self._sending is not None or not self.is_at_rest():
            return False
        try:
            data = os.read(self._readable, READ_BYTES)
        except OSError:
            return False
        if not data:
            return False
        try:
            plain = transport.decipher(data)
            if plain and not self._serve(plain):
                self._pass_on(plain)
        except Exception:
            log.exception("a request failed with an unexpected error")
            abort(self)
        return True

    # --- responses -----------------------------------------------------------------------------------------

    def _serve(self, data: bytes) -> bool:
        """Begin the response to a plain request. Returns False, without any effect, if aiohttp must serve it."""
        path = self._path
        by, head, request = self._recognised
        # Players that poll a playlist send equal heads, and a comparison is cheaper. A reload changes `recognise`.
        if data != head or by is not path.recognise:
            if (found := path.recognise(data)) is None:
                return False
            request = found
            self._recognised = path.recognise, data if path.remembers else b"", request
        began, now = self.loop.time(), path.clock()
        response = path.prepared.find(request, now)
        if response is None:
            return False
        lease = response.lease
        length = response.stop - response.start
        if path.addresses.reads:
            self._client = self._client_of(request[FORWARDED_FOR])
        head = response.head
        if (name := request[REQUEST_ID]) is not None:
            head = b"%bX-Request-Id: %b\r\n\r\n" % (head[:-2], name)
        if not length:
            self._write(head)
        elif (body := lease.body) is not None:
            self._write(head, body if length == len(body) else body[response.start : response.stop])
        elif not self._send_from_file(response, head, length, began):
            return False
        path.cache.record_use(lease, now)
        path.served += 1
        self.count_request(began)
        fields = request[LOGGED]
        if self._sending is None:
            path.telemetry.add(response.record, length, self._client, path.wall(), self.loop.time() - began, fields)
        else:
            self._begun = replace(response.record, first_byte=self.loop.time() - began), fields
        return True

    def _client_of(self, forwarded_for: bytes | None) -> str:
        """Return the address of the client of a request, for the log."""
        if forwarded_for is None:
            return self._peer
        fields = {client_address.X_FORWARDED_FOR: forwarded_for.decode("ascii")}
        return client_address.shown(self._path.addresses.of(self._peer, fields.get), self._peer)

    def _write(self, head: bytes, body: bytes | memoryview = b"") -> None:
        """Send both in one system call. The transport gets only the rest, because it would copy everything."""
        length = len(head) + len(body)
        sent = 0
        if self._socket >= 0:
            try:
                if length > MAX_JOIN_BYTES:
                    sent = os.writev(self._socket, (head, body))
                else:
                    sent = os.write(self._socket, head + body)
            except OSError:
                pass  # the transport meets the same error, and handles it
        else:
            head = head[:-2] + self._end_of_head
        if sent < length:
            assert self.transport is not None
            self.transport.write((head + body)[sent:])

    def _send_from_file(self, response: PreparedResponse, head: bytes, length: int, began: float) -> bool:
        """Begin to send a response from its file. `_sending` is set unless the socket took everything.

        Returns False, without any effect, if the bytes are not in the page cache.
        """
        fd, offset, _ = response.lease.region
        if length <= page_cache.MAX_PEEK_BYTES:
            data = page_cache.peek(fd, offset + response.start, length)
            if data is None:
                return False
            self._write(head, data)
            return True
        if self._socket < 0:
            return isinstance(self.transport, TlsTransport) and self._send_enciphered(response, head, began)
        at, stop = response.start, response.stop
        turn_stop = min(stop, at + MAX_PER_TURN_BYTES)
        if not _is_resident(response.lease, at, turn_stop, began):
            return False
        self._write(head)
        assert self.transport is not None
        if self.transport.get_write_buffer_size():
            self._send_in_task(response, self._path.cache.reader_of(response.lease), at, began)
            return True
        try:  # noqa: SIM105 - as in `_write`
            at += os.sendfile(self._socket, fd, offset + at, turn_stop - at)
        except OSError:
            pass  # the burst meets the same error
        if at < stop:
            self._send_in_burst(response, at, began)
        return True

    def _send_enciphered(self, response: PreparedResponse, head: bytes, began: float) -> bool:
        """Begin to send a response over TLS, as `_send_from_file` does without it."""
        region, at, transport = response.lease.region, response.start, self.transport
        assert isinstance(transport, TlsTransport)
        data = page_cache.peek(region.fd, region.offset + at, min(MAX_PIECE_BYTES, response.stop - at))
        if data is None:
            return False
        self._write(head, data)
        at += len(data)
        try:  # noqa: SIM105 - as in `_write`
            at = send_some(transport, region, Span(at, response.stop))
        except (OSError, EOFError):
            pass  # the burst meets the same error
        if at < response.stop:
            self._send_in_burst(response, at, began)
        return True

    # --- a response that takes longer ----------------------------------------------------------------------

    def _send_in_burst(self, response: PreparedResponse, at: int, began: float) -> None:
        reader = self._path.cache.reader_of(response.lease)
        on_end = partial(self._end_burst, response, reader, began)
        region, span = response.lease.region, Span(at, response.stop)
        try:
            if isinstance(self.transport, TlsTransport):
                self._sending = EncipheredBurst(self.transport, region, span, on_end)
            else:
                self._sending = SendfileBurst(self._socket, region, span, on_end)
        except OSError:
            on_end(at)  # the process has no descriptor left

    def _end_burst(self, response: PreparedResponse, reader: BodyReader, began: float, at: int) -> None:
        if at < response.stop:
            self._send_in_task(response, reader, at, began)
            return
        reader.close()
        self._finish(self._begun[0], at - response.start, began)

    def _send_in_task(self, response: PreparedResponse, reader: BodyReader, at: int, began: float) -> None:
        sender = Sender(reader, (Span(at, response.stop),), Demand.BOUNDED, response.min_rate)
        task = self._sending = self.loop.create_task(self._run_sender(sender))
        # A callback, because a task that is cancelled before its first step runs none of its own code.
        task.add_done_callback(lambda task: self._end_task(task, at - response.start + sender.sent, reader, began))

    async def _run_sender(self, sender: Sender) -> None:
        outlet = _Outlet(self)
        try:
            await sender.begin()
            await sender.send(outlet, outlet)
        except ProxyError as error:
            # `begin` raised it. An error of `send` has aborted the connection already.
            abort(outlet)
            raise broken_off(error) from error
        finally:
            await sender.close()

    def _end_task(self, task: "asyncio.Task[None]", sent: int, reader: BodyReader, began: float) -> None:
        reader.close()
        record, _ = self._begun
        error = None if task.cancelled() else task.exception()
        if isinstance(error, BrokenOff):
            record = replace(record, fault=str(error), cut=error.cut, failure=origin_failure(error))
        elif error is not None and not isinstance(error, ConnectionError):
            log.error("a response failed with an unexpected error", exc_info=error)
            record = replace(record, fault="internal error", cut=Cut.BUG)
            abort(self)
        elif (error is not None or task.cancelled()) and self.is_stopped:
            record = replace(record, fault="the proxy stops", cut=Cut.STOP)
        elif error is not None or task.cancelled():
            record = replace(record, status=CLIENT_CLOSED_REQUEST)
        self._finish(record, sent, began)

    def _finish(self, record: AccessRecord, sent: int, began: float) -> None:
        """Record the response, and continue with the requests that arrived meanwhile."""
        now = self.loop.time()
        self._path.telemetry.add(record, sent, self._client, self._path.wall(), now - began, self._begun[1])
        self._sending = None
        if self.transport is None or self.transport.is_closing():
            return  # `connection_lost` looks at what is held
        self.count_request(now)
        self._after_response()

    def _after_response(self) -> None:
        """Continue with the requests that arrived meanwhile."""
        held, self._held = self._held, b""
        if held:
            self._take(held)
        if self.has_ended and self._sending is None:
            self.close_unless_responding()
        self.resume_transport_reading()

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MAX_HELD_BYTES:
            self.pause_transport_reading()

    def sends_outside_aiohttp(self) -> bool:
        return self._sending is not None


def _is_resident(lease: Lease, start: int, stop: int, now: float) -> bool:
    """Return whether the bytes [start, stop) are in the page cache. `now` is the loop's time.

    For a whole object that is sent often, the kernel's reply holds for RESIDENT_S.
    """
    if now < lease.resident_until and stop == lease.metadata.size:
        return True
    if not page_cache.is_resident(lease.region.fd, lease.region.locate(Span(start, stop))):
        return False
    if not start and stop == lease.metadata.size:
        lease.resident_until = now + RESIDENT_S
    return True


class _Outlet:
    """Stands for the aiohttp request and response that a Sender needs."""

    def __init__(self, connection: FastConnection) -> None:
        self._connection = connection

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._connection.transport

    @property
    def writer(self) -> Self:
        return self

    def send_headers(self) -> None:
        """Do nothing, because the head has left already."""

    async def write(self, data: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the client left")
        self.transport.write(data)
        await self.drain()

    async def drain(self) -> None:
        await self._connection.drain()


class FastConnectionServer(ConnectionServer):
    """Makes the connections of the listener."""

    def __init__(
        self,
        handler: Any,
        limit: ConnectionLimit,
        on_refused: Callable[[Exchange, int], None],
        path: FastPath,
        **options: Any,
    ) -> None:
        super().__init__(handler, limit, on_refused, **options)
        self.path = path

    def __call__(self) -> web.RequestHandler:
        return FastConnection(self, self.limit, self.path, **self.connection_options)
