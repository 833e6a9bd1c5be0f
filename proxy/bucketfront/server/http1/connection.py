"""aiohttp's connection, with what its parser and its end of a connection lack (I19, I20, I24).

A deadline and a bound for the head of a request, one answer for each request whatever else the segment holds, an end to
a body whose framing is broken, an orderly close, and answers of our own to what the parser refuses.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.server.error_responses import error_response
from bucketfront.server.http1 import framing
from bucketfront.server.http1.aiohttp_private import AiohttpConnection, AiohttpServer, limit_read_size
from bucketfront.server.send.sendfile import CLIENT_TIMEOUT_S
from bucketfront.server.telemetry.exchange import Exchange

log = logging.getLogger(__name__)

READ = 32 << 10  # bytes read from a connection at once
READ_AHEAD = 16 << 10  # bytes of a body that are read before somebody asks for them; aiohttp stops at twice as many
HEAD_TIMEOUT = 10.0  # seconds from a request's first byte, or from the connection's start, to the end of its head
MAX_HEAD = 64 << 10  # bytes; aiohttp bounds each field and their number, 1 MiB in all
MAX_DRAIN = 64 << 10  # bytes of a body nobody reads that the connection may outlive
DRAIN_TIMEOUT = 1.0  # seconds for them
ENDING = 1.0  # seconds that a request has at a stop once it was cancelled
LINGER = 1.0  # seconds for a client to read our last answer, while what it still sends is dropped

_HEAD_END = b"\r\n\r\n"
_GAP = len(b"GET / HTTP/1.0")  # bytes between the ends of two heads, at the least
_CHUNKED = 1 << 70  # bytes: more than a Content-Length that the parser takes; nothing behind such a body is answered
_WORDS = {
    400: "the request is malformed",
    414: "the request target is too long",
    431: "the head of the request is too long",
    505: "only HTTP/1.0 and HTTP/1.1 are spoken here",
}


class Connection(AiohttpConnection):
    """aiohttp's keep-alive timer bounds the idle time and the head alike; a slow head deserves less patience."""

    __slots__ = ("_body", "_head_size", "_head_timer", "_is_deaf", "_is_last", "_last", "_left", "_unread")

    _head_timer: asyncio.TimerHandle | None
    _is_deaf: bool  # what still comes is not parsed
    _is_last: bool  # no request after the one under way is parsed
    _unread: bytes  # not parsed yet: the queue of requests, or the buffer of a body, is full
    _last: bytes  # the last bytes parsed, in which the end of a head may have begun
    _body: StreamReader  # of the request parsed last
    _left: int  # bytes of that body still to be parsed
    _head_size: int  # bytes parsed since that request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._is_deaf, self._is_last, self._unread, self._last = False, False, b"", b""
        self._body, self._left, self._head_size = EMPTY_PAYLOAD, 0, 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.force_close)
        super().connection_made(transport)
        if transport.get_extra_info("sslcontext") is not None:
            assert isinstance(transport, asyncio.Transport)
            # The transport below has a buffer as well (I19). Not 0: asyncio's TLS would pause for good.
            transport.set_write_buffer_limits(1)
        else:
            # asyncio would read 256 KiB at once, and of each upload as many bytes would wait here (I19).
            limit_read_size(transport, READ)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        self._is_deaf, self._unread = True, b""
        super().connection_lost(exc)

    def close(self) -> None:
        """After the request under way, whose body is still read. aiohttp would read none of it, and neither end."""
        self._is_last = True
        if not self.is_responding:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """From its own `shutdown` on aiohttp reads nothing any more: what is under way has `timeout` before."""
        self.close()
        if self.is_responding and self.handler_task is not None:
            await asyncio.wait([self.handler_task], timeout=timeout)
        await super().shutdown(ENDING)

    async def start(self) -> None:
        """All requests of the connection. What it still holds then is sent, or dropped in the end: asyncio would wait
        for a client that takes nothing for as long as it likes (I20).
        """
        transport = self.transport
        try:
            await super().start()
        finally:
            if transport is not None and transport.get_write_buffer_size():
                self.loop.call_later(CLIENT_TIMEOUT_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser so that no call of it sees more than the end of one head.

        When it refuses something, it forgets the requests that it read in the same call: they would never be answered.
        """
        if self._is_deaf:
            return
        before = self.requests_parsed
        if not data:
            self._feed(b"")  # aiohttp asks for what the parser had put by
        data, self._unread = self._unread + data, b""
        at = 0
        while at < len(data) and self._takes_more():
            end = min(at + self._left, len(data)) if self._left else self._head_end(data, at)
            self._feed(data[at:end])
            at = end
        self._unread = b"" if self._is_over else data[at:]
        if self.requests_parsed != before:
            self._stop_timer()
        elif self._head_timer is None and not self.is_responding:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.force_close)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Also decides about the rest of the body: it is drained, or the connection closes (I24). A small answer has
        its deadline here; that of an object's bytes is where they are sent.
        """
        body = request.content
        if self._is_last:
            resp.force_close()
        if not body.is_eof() and hdrs.EXPECT in request.headers:
            resp.force_close()  # the body may come or not: RFC 9110 section 10.1.1
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT_S):
                resp, is_lost = await super().finish_response(request, resp, start_time)
                if not is_lost:
                    # aiohttp waits within an answer, not between two: a client that asks on and on and reads nothing
                    # would have all of them in our memory (I19).
                    await self.drain()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return resp, True
        if is_lost:
            return resp, True
        if resp.keep_alive and not await self._is_drained(request):
            resp.force_close()
        if not resp.keep_alive:
            await self._part()
        elif self._head_timer is None and not self.has_queued_request and (self._head_size or self._unread):
            # The next request has begun already.
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.force_close)
        return resp, False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """What aiohttp's parser refused, in our words; its own page would be HTML and quote the client's bytes."""
        if request.writer.output_size:
            raise ConnectionResetError("an answer had begun")
        exchange = Exchange(request, self.loop.time())
        exchange.status = CacheStatus(Forward.BYPASS, detail="refused")
        if isinstance(exc, HttpProcessingError):
            status = framing.status_of(exc, self.max_line_size)
        if status not in _WORDS:
            log.error("a request failed in a way nobody foresaw", exc_info=exc)
        response = error_response(exchange, status, _WORDS.get(status, "internal error"))
        response.force_close()
        return response

    def _head_end(self, data: bytes, at: int) -> int:
        """The first offset behind `at` at which a head may end; that of the end of `data` where there is none."""
        if at == 0:
            begun = (self._last + data[: len(_HEAD_END) - 1]).find(_HEAD_END)
            if begun >= 0:
                return begun + len(_HEAD_END) - len(self._last)
        end = data.find(_HEAD_END, at + (_GAP if at else 0))
        return len(data) if end < 0 else end + len(_HEAD_END)

    @property
    def _is_over(self) -> bool:
        """Nothing more will be parsed."""
        return self._is_deaf or self.is_closing or (self._is_last and not self._left)

    def _takes_more(self) -> bool:
        return self.has_room_for_request and not (self._is_over or self.is_body_paused)

    def _feed(self, piece: bytes) -> None:
        is_body = self._left > 0
        is_too_long = not is_body and self._head_size + len(piece) > MAX_HEAD
        if is_too_long:
            piece = piece[: MAX_HEAD - self._head_size]
        before = self.requests_parsed
        self._left = max(self._left - len(piece), 0)
        super().data_received(piece)
        self._last = (self._last + piece[-len(_HEAD_END) + 1 :])[-len(_HEAD_END) + 1 :]
        if self.requests_parsed != before:
            self._look_at_newest()
        elif is_too_long:
            self._refuse(framing.BadFraming("the head is too long", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        elif self._left > _CHUNKED // 2 and self._body.is_eof():
            self._is_deaf = True
        self._head_size = 0 if is_body or self.requests_parsed != before else self._head_size + len(piece)

    def _look_at_newest(self) -> None:
        newest = self.newest_request
        if newest is None:
            self._is_deaf = True
            if not self._body.is_eof():
                # The parser leaves whoever reads this body waiting for ever.
                self._body.set_exception(framing.BadFraming("the body's framing is malformed"))
            return
        message, body = newest
        try:
            framing.check_version(message.version)
        except framing.BadFraming as error:
            self.drop_newest_request()
            self._refuse(error)
            return
        self._body = body
        self._left = _CHUNKED if message.chunked else int(message.headers.get(hdrs.CONTENT_LENGTH, 0))
        if message.chunked or (message.upgrade and (self.is_upgraded or body is not EMPTY_PAYLOAD)):
            # The parser takes the last trailer of a chunked body for a field of the next request, stops parsing at an
            # upgrade, and drops what the segment holds behind the body of one.
            self.replace_newest_request(message._replace(should_close=True), body)
        if self.is_upgraded:
            self._is_deaf = True

    def _refuse(self, error: framing.BadFraming) -> None:
        self._is_deaf = True
        self.queue_error(error.status, error)

    async def _is_drained(self, request: web.BaseRequest) -> bool:
        """Whether the request's body is over, now or soon and after few bytes."""
        body, left = request.content, MAX_DRAIN
        if body.is_eof():
            return True
        if (request.content_length or 0) - body.total_bytes > left:
            return False
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while not body.is_eof() and left >= 0 and self.transport is not None:
                    left -= len(await body.readany())
        except (TimeoutError, framing.BadFraming, web.RequestPayloadError):
            return False
        return body.is_eof()

    async def _part(self) -> None:
        """RFC 9112 section 9.6: closing at once would reset the connection, and the client might lose our answer."""
        self._is_deaf, self._unread = True, b""
        if self.transport is None or self.transport.is_closing() or not self.transport.can_write_eof():
            return
        try:
            self.transport.write_eof()
        except OSError:
            return  # it has reset the connection, and nobody has told us yet
        self.transport.resume_reading()
        await asyncio.sleep(LINGER)  # ends early: `connection_lost` cancels it

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class ConnectionServer(AiohttpServer):
    def __init__(self, handler: Any, **options: Any) -> None:
        # aiohttp's own lingering reads without a bound; `finish_response` does it here.
        super().__init__(handler, **{**options, "lingering_time": 0.0})

    def __call__(self) -> web.RequestHandler:
        return Connection(self, **self.connection_options)
