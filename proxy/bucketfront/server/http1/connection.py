"""aiohttp's connection with deadlines, bounds and an orderly close, and with a response to each request.

Theory of operation
-------------------
`data_received` feeds the client's bytes to aiohttp's parser in the pieces of `Receiver`, because a parser that refuses
a head forgets the requests it read in the same call. If parser and receiver disagree about a body, the connection
receives no more. aiohttp queues each request, its handler task takes them in order, and `finish_response` decides
whether the connection outlives the response. A refused request has its response behind those of the requests before it
(`_refuse`). The last of these responses closes the connection.

A client that is done is not one that left (RFC 9112 section 9.6). Behind a whole request the end of the client's bytes
is a STOP. Within a body it is the end of the connection, but not of the requests before. If the connection is lost,
reads are cancelled, and writes whose body arrived whole are carried out all the same (`carries_out`). TLS has no
half-closed connections in asyncio, so there an end is a loss.

Three deadlines surround this. A head has HEAD_TIMEOUT_S, and `_head_timer` runs while one is due. A small response and
the rest of a body that no handler read have theirs in `finish_response`. aiohttp's keep-alive timer bounds idle time.

See docs/invariants.md#memory, docs/invariants.md#deadlines-everywhere and docs/invariants.md#one-framing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from bucketfront.http.cache_status import CacheStatus, Detail, Forward
from bucketfront.http.grammar import Headers
from bucketfront.server.access.client_certificate import ClientCertificate, client_certificate
from bucketfront.server.client_progress import ClientWatch, abort_if_stalled
from bucketfront.server.error_responses import error_response
from bucketfront.server.http1 import framing
from bucketfront.server.http1.aiohttp_private import (
    AiohttpConnection,
    AiohttpServer,
    Request,
    is_refused,
    limit_read_size,
    unsent_bytes,
)
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.receiver import BodyVerdict, ClientEnd, ReceiveEvent, Receiver
from bucketfront.server.http1.tls_transport import RESPONSE_FIELDS
from bucketfront.server.telemetry.exchange import Exchange, new_request_id

log = logging.getLogger(__name__)

MAX_READ_BYTES = 32 << 10  # from a connection at once
BODY_BUFFER_BYTES = 16 << 10  # of a body, before a handler reads it; aiohttp stops at twice as many
HEAD_TIMEOUT_S = 10.0  # from a request's first byte, or from the connection's start, to the end of its head
MAX_TARGET_BYTES = 16 << 10  # a key of 1024 bytes, each percent-encoded, and a query
MAX_FIELD_BYTES = 8 << 10  # of a field's name, and of its value: most servers take as many
MAX_FIELDS = 128
MAX_DRAIN_BYTES = 64 << 10  # of a body that no handler reads; after a longer one the connection closes
DRAIN_TIMEOUT_S = 1.0  # for those bytes
CANCEL_TIMEOUT_S = 1.0  # for a cancelled request to end at a stop
LINGER_TIMEOUT_S = 1.0  # for a client to read the last response, while the proxy drops what it still sends

_WRITES = (hdrs.METH_PUT, hdrs.METH_POST, hdrs.METH_PATCH, hdrs.METH_DELETE)
_REFUSALS = {
    400: "the request is malformed",
    414: "the request target is too long",
    431: "the head of the request is too long",
    501: "there is no such method here",
    505: "only HTTP/1.0 and HTTP/1.1 are spoken here",
}


Gate = Callable[[], Awaitable[None]]


def _ignore(exchange: Exchange, status: int) -> None:
    """Do nothing, for a listener without a log."""


class Connection(AiohttpConnection):
    __slots__ = (
        "_body", "_has_served", "_head_timer", "_limit", "_lingers", "_made_by", "_on_refused", "_receiver",
        "_under_way", "carries_out", "client_certificate", "has_ended", "is_stopped", "response_fields",
    )  # fmt: skip

    is_stopped: bool  # the proxy ended the request under way, because it stops
    has_ended: bool  # the client has closed its sending side
    carries_out: bool  # the client is lost, and its writes go on
    response_fields: Headers  # of each response on this connection
    client_certificate: ClientCertificate | None  # verified in the handshake
    _has_served: bool  # no request is handled any more
    _lingers: bool  # the last response is sent, and only the client's end is awaited
    _under_way: web.BaseRequest | None  # the request whose response is not over
    _receiver: Receiver
    _head_timer: asyncio.TimerHandle | None
    _body: StreamReader  # of the newest request

    def __init__(self, manager: web.Server, limit: ConnectionLimit, **options: Any) -> None:
        super().__init__(manager, **options)
        self._limit = limit
        self._on_refused = manager.on_refused if isinstance(manager, ConnectionServer) else _ignore
        self._made_by = manager

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_stopped = self.has_ended = self.carries_out = self._has_served = self._lingers = False
        self._under_way = None
        self._receiver, self._body = Receiver(), EMPTY_PAYLOAD
        self._head_timer = None
        self._start_head_timer()
        super().connection_made(transport)
        self.response_fields, self.client_certificate = (), None
        if transport.get_extra_info("sslcontext") is not None:
            assert isinstance(transport, asyncio.Transport)
            self.response_fields = transport.get_extra_info(RESPONSE_FIELDS)
            self.client_certificate = client_certificate(transport.get_extra_info("ssl_object"))
            # The transport below TLS has a buffer as well. With a limit of 0 asyncio's TLS would pause for good.
            transport.set_write_buffer_limits(1)
        else:
            # asyncio would read 256 KiB at once, and each upload would hold as many bytes here.
            limit_read_size(transport, MAX_READ_BYTES)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        self._receiver.stop()
        if self.carries_out or self._begins_to_carry_out():
            self.lose_transport(exc)
        else:
            super().connection_lost(exc)

    def end_received(self) -> bool:
        """Return whether the connection stays open, because it still owes responses."""
        self.has_ended = True
        stays_open = not self._lingers and self._end_receiving()
        if not stays_open and self.transport is not None and unsent_bytes(self.transport):
            abort_if_stalled(self.transport)
        return stays_open

    def close(self) -> None:
        """Close after the request under way, and receive its body until then.

        aiohttp would read no byte of that body, so that the request could not end.
        """
        self._receiver.advance(ReceiveEvent.CLOSE)
        if not self.is_responding:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Wait `timeout` seconds for the request under way. aiohttp's own `shutdown` reads no further byte of it."""
        self.close()
        if self.is_responding and self.handler_task is not None:
            await asyncio.wait([self.handler_task], timeout=timeout)
        self.is_stopped = self.transport is not None or self.carries_out
        await super().shutdown(CANCEL_TIMEOUT_S)

    async def start(self) -> None:
        """Handle all requests of the connection, and bound the time until the client has taken the last response."""
        transport = self.transport
        try:
            await super().start()
            if self._under_way is not None and not self.carries_out:
                # Its response did not reach the client. That shows here before the event loop reports the loss.
                self._under_way = None
                self._receiver.stop()
                self._begins_to_carry_out()
            while self.carries_out and self.has_queued_request and not self.is_closing:
                await super().start()  # it ends with the first response that has no client
        finally:
            self._has_served = True
            if self.carries_out:
                self._limit.release()
                super().connection_lost(None)
            elif transport is not None and unsent_bytes(transport):
                abort_if_stalled(transport)

    def data_received(self, data: bytes) -> None:
        """Feed the parser so that no call of it sees more than the end of one head."""
        receiver = self._receiver
        if receiver.is_dropping:
            return
        before = self.requests_parsed
        if not data:
            self._feed(b"")  # aiohttp resumes a body whose buffer was full
        data = receiver.held_and(data)
        at = 0
        while at < len(data) and self._may_parse() and self._agrees():
            end = receiver.end_of_piece(data, at)
            self._feed(data[at:end])
            at = end
        receiver.hold(b"" if self.is_closing else data[at:])
        if self.has_ended:
            self.close_unless_responding()
        if self.requests_parsed != before:
            self._stop_head_timer()
        elif not self.is_responding:
            self._start_head_timer()

    def begin_request(self, request: web.BaseRequest) -> None:
        """Note the request whose turn it is."""
        self._under_way = request

    def close_unless_responding(self) -> None:
        """Close the connection of a client that has closed its side, unless it still owes responses."""
        if not self.end_received() and self.transport is not None:
            self.transport.close()

    def is_at_rest(self) -> bool:
        """Return whether the next byte begins a request, and the client's kernel has taken every response.

        Then a request may be handled here without aiohttp: it changes no order of responses.
        """
        return (
            self.awaits_request
            and self._receiver.is_between_requests()
            and self.transport is not None
            and not self.transport.get_write_buffer_size()
        )

    async def before_head(self) -> None:
        if isinstance(self._made_by, ConnectionServer) and self._made_by.gate is not None:
            await self._made_by.gate()

    def idle_since(self) -> float | None:
        return None if self.sends_outside_aiohttp() or not self.is_at_rest() else self.last_used

    def make_way(self) -> None:
        if self.transport is not None:
            self.transport.close()
            self.transport.abort()  # TLS would wait for the client's end as well

    def count_request(self, now: float) -> None:
        """Treat the connection as after a request of aiohttp's: the head is over, and idle time starts anew.

        `now` is the loop's time.
        """
        if self._head_timer is not None:
            self._stop_head_timer()
        self.postpone_keepalive(now)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response, then drain the rest of the request's body or close the connection.

        A small response has its deadline here. `Sender` has that of an object's bytes.
        """
        body = request.content
        if self._is_last_response or (self.is_draining and not resp.prepared):
            resp.force_close()
        if not body.is_eof() and hdrs.EXPECT in request.headers:
            resp.force_close()  # the body may follow or not: RFC 9110 section 10.1.1
        try:
            async with ClientWatch().wait(self.transport):
                resp, is_lost = await super().finish_response(request, resp, start_time)
                if not is_lost:
                    # aiohttp drains within a response, not between two. Without this a client that only sends requests
                    # would fill memory with its responses.
                    await self.drain()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return resp, True
        if is_lost:
            return resp, True
        self._under_way = None
        # `close` may have been called, or the client may have ended, while the response was on its way.
        if resp.keep_alive and (self._is_last_response or not await self._is_drained(request)):
            resp.force_close()
        if not resp.keep_alive:
            await self._linger(may_send_more=self._receiver.is_dropping or not body.is_eof())
        elif not self.has_queued_request and self._receiver.has_begun_next:
            self._start_head_timer()  # the next request has begun already
        return resp, False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """Return the response to a request that aiohttp's parser refused, or whose handler failed.

        aiohttp's own page would be HTML and would quote the client's bytes.
        """
        if request.writer.output_size:
            raise ConnectionResetError("a response had begun")
        exchange = Exchange(request, self.loop.time(), of_connection=self.response_fields)
        exchange.status = CacheStatus(Forward.BYPASS, detail=Detail.REFUSED)
        exchange.request_id = new_request_id()
        if isinstance(exc, HttpProcessingError):
            status = framing.status_of_parser_error(exc, self.max_line_size)
        if status not in _REFUSALS:
            log.error("a request failed with an unexpected error", exc_info=exc)
        response = error_response(exchange, status, _REFUSALS.get(status, "internal error"))
        response.force_close()
        if isinstance(exc, HttpProcessingError):
            exchange.fault = _REFUSALS.get(status, "internal error")
            self._on_refused(exchange, status)
        return response

    @property
    def is_draining(self) -> bool:
        return self._limit.is_draining and not self.has_queued_request and not self._receiver.has_begun_next

    @property
    def _is_last_response(self) -> bool:
        receiver = self._receiver
        return receiver.is_at_last_response or (receiver.is_stopped and not self.has_queued_request)

    def _begins_to_carry_out(self) -> bool:
        """Go on without the client if a write arrived whole and has no outcome yet, and return whether that is so.

        Drops what else is queued.
        """
        if self._has_served:
            return False
        may_begin = self._receiver.is_stopped
        self.keep_queued_requests(lambda message, body: may_begin and _is_whole_write(message.method, body))
        request = self._under_way
        self.carries_out = self.has_queued_request or (
            request is not None and _is_whole_write(request.method, request.content)
        )
        if self.carries_out:
            self._limit.acquire()  # its socket is about to be released
        return self.carries_out

    def _end_receiving(self) -> bool:
        """Stop receiving behind the last byte of the client. Returns whether the connection still owes responses.

        The newest request has no response if its body is not whole.
        """
        meaning = self._receiver.meaning_of_end(is_body_paused=self.is_body_paused)
        if meaning is ClientEnd.HELD:
            return True  # `data_received` comes back to this
        if meaning is ClientEnd.WITHIN_BODY:
            if not self.has_queued_request:
                return False
            self.drop_newest_request()
        self._receiver.stop()
        is_owed = self.has_queued_request or self._under_way is not None
        return is_owed and self.transport is not None and self.transport.can_write_eof()

    def _may_parse(self) -> bool:
        is_over = self._receiver.is_over or self.is_closing
        return self.has_room_for_request and not (is_over or self.is_body_paused)

    def _feed(self, piece: bytes) -> None:
        receiver, before = self._receiver, self.requests_parsed
        is_body = receiver.is_in_body
        parsable = receiver.parsable(piece)
        super().data_received(parsable)
        has_request = self.requests_parsed != before
        receiver.count_parsed(parsable, is_of_head=not is_body and not has_request)
        if has_request:
            if not (is_body and self._has_parsed_too_much(before)):
                self._check_newest()
        elif len(parsable) < len(piece):
            self._refuse(framing.BadFraming("the head is too long", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        else:
            self._check_body()

    def _agrees(self) -> bool:
        """Return whether the parser took the newest body for whole if it is. Else stop behind that request."""
        if self._receiver.is_body_due(is_whole=self._body.is_eof()):
            self._break_body()
            return False
        return True

    def _has_parsed_too_much(self, before: int) -> bool:
        """Drop the requests that the parser found within a body, and stop receiving."""
        if self.newest_request is None:
            return False
        for _ in range(self.requests_parsed - before):
            self.drop_newest_request()
        self._break_body()
        return True

    def _check_body(self) -> None:
        verdict = self._receiver.verdict(is_whole=self._body.is_eof())
        if verdict is BodyVerdict.BROKEN:
            self._break_body()
        elif verdict is BodyVerdict.TRAILERS:
            self._receiver.advance(ReceiveEvent.STOP)

    def _break_body(self) -> None:
        """Stop within the newest body. Without the error a handler that reads it could wait for ever."""
        self._receiver.advance(ReceiveEvent.STOP)
        self._body.set_exception(framing.BadFraming("the body's framing is malformed"))

    def _check_newest(self) -> None:
        newest = self.newest_request
        if newest is None:
            self._receiver.advance(ReceiveEvent.STOP)
            if not self._body.is_eof():
                self._break_body()
            return
        message, body = newest
        try:
            framing.check_version(message.version)
            length = None if message.chunked else framing.body_length(message.headers)
        except framing.BadFraming as error:
            self.drop_newest_request()
            self._refuse(error)
            return
        self._body = body
        self._receiver.begin_body(length)
        if message.upgrade and (self.is_upgraded or body is not EMPTY_PAYLOAD):
            # The parser stops at an upgrade, and drops the bytes behind the body of one.
            self.replace_newest_request(message._replace(should_close=True), body)
        if self.is_upgraded:
            self._receiver.advance(ReceiveEvent.STOP)

    def _refuse(self, error: framing.BadFraming) -> None:
        self._receiver.advance(ReceiveEvent.STOP)
        self.queue_error(error.status, error)

    async def _is_drained(self, request: web.BaseRequest) -> bool:
        """Read the rest of the request's body. Returns whether it ended soon and after few bytes."""
        body, left = request.content, MAX_DRAIN_BYTES
        if body.is_eof():
            return True
        if (request.content_length or 0) - body.total_bytes > left:
            return False
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while not body.is_eof() and left >= 0 and self.transport is not None:
                    left -= len(await body.readany())
        except (TimeoutError, framing.BadFraming, web.RequestPayloadError):
            return False
        return body.is_eof()

    async def _linger(self, *, may_send_more: bool) -> None:
        """End the sending side and wait until the client closes.

        RFC 9112 section 9.6: closing at once would reset the connection, and the client might lose the response. TLS
        has no end of one side, so a client that waits for the end would wait in vain, unless it is still sending.
        """
        self._receiver.stop()
        self._lingers = True
        self.keep_queued_requests(lambda *_: False)
        if self.transport is None or self.transport.is_closing() or self.has_ended:
            return
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:
                return  # the client reset the connection, and the loop has not noticed yet
        elif not may_send_more:
            return
        self.transport.resume_reading()
        await asyncio.sleep(LINGER_TIMEOUT_S)  # `connection_lost` cancels it

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.force_close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _is_whole_write(method: str, body: StreamReader) -> bool:
    return method in _WRITES and body.is_eof()


class ConnectionServer(AiohttpServer):
    """Makes the connections of a listener. `limit` counts those that go on without a client.

    `on_refused` gets each request that the parser refuses, with the status of its response. No handler sees it. No head
    of a response leaves before `gate` has returned.
    """

    def __init__(
        self,
        handler: Any,
        limit: ConnectionLimit,
        on_refused: Callable[[Exchange, int], None] = _ignore,
        **options: Any,
    ) -> None:
        self.limit = limit
        self.on_refused = on_refused
        self.gate: Gate | None = None
        # `finish_response` drains bodies with a bound. aiohttp's own lingering has none.
        super().__init__(handler, request_factory=self._request, **{**options, "lingering_time": 0.0})

    @staticmethod
    def _request(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        """Return a request as aiohttp makes it, but HTTP/1.1 in place of a message that the parser refused.

        aiohttp gives that one the version 1.0, and its response repeats it. RFC 9110 section 6.2 wants the highest
        version that the server speaks.
        """
        assert isinstance(protocol, Connection)
        if is_refused(message):
            message = message._replace(version=HttpVersion11)
        request = Request(message, payload, protocol, writer, task, protocol.loop)
        protocol.begin_request(request)
        return request

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self.limit, **self.connection_options)
