"""Every private member of aiohttp, `asyncio` and `selectors` that the proxy depends on, except those for TLS.

aiohttp exposes its connection for subclassing, but no public name reaches its queue of requests, its keep-alive timer
or its transport's flow control. The classes and functions below give each of those a public name, and `tls_transport`
does so for TLS. All other modules use only these. `PRIVATE_MEMBERS` lists each member with the reason for its use. A
test fails if an upgrade removes one, or if another module touches one. docs/decisions/0001-aiohttp-request-handler.md
compares this with an own protocol.
"""

import asyncio
import selectors
import sys
from asyncio.selector_events import _SelectorTransport  # type: ignore[attr-defined]
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import ModuleType
from typing import TYPE_CHECKING, Any

from aiohttp import http_writer, web, web_protocol
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import RawRequestMessage
from aiohttp.http_writer import _serialize_headers
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo
from multidict import CIMultiDict

from bucketfront.http.response_fields import is_text

if sys.platform == "linux":
    from selectors import EpollSelector
else:
    from selectors import DefaultSelector as EpollSelector  # `new_event_loop` does not use it there

if TYPE_CHECKING:
    import select


@dataclass(frozen=True, slots=True)
class PrivateMember:
    owner: type | ModuleType
    name: str
    reason: str


PRIVATE_MEMBERS = (
    PrivateMember(web.RequestHandler, "_request_count", "tells whether a call of the parser completed a head"),
    PrivateMember(web.RequestHandler, "_messages", "the queue of parsed requests; a refusal takes its place there"),
    PrivateMember(web.RequestHandler, "_max_msg_queue_size", "feeding stops before the parser would hold requests"),
    PrivateMember(web.RequestHandler, "_waiter", "is set while the connection waits for a request, and wakes it"),
    PrivateMember(web.RequestHandler, "_task_handler", "a stop waits for the request under way"),
    PrivateMember(web.RequestHandler, "_close", "a connection that closes takes no further request"),
    PrivateMember(web.RequestHandler, "_force_close", "as `_close`, at once"),
    PrivateMember(web.RequestHandler, "_keepalive_timeout", "a hit of the fast path postpones the idle timeout"),
    PrivateMember(web.RequestHandler, "_next_keepalive_close_time", "as `_keepalive_timeout`"),
    PrivateMember(web.RequestHandler, "_process_keepalive", "no idle timeout while the fast path sends a response"),
    PrivateMember(web_protocol, "_ErrInfo", "a message that the parser refused"),
    PrivateMember(web_protocol, "ERROR", "stands for such a message, with a version that its response would repeat"),
    PrivateMember(BaseProtocol, "_upgraded", "the parser stops at an upgrade, which the proxy never grants"),
    PrivateMember(BaseProtocol, "_reading_paused", "no body bytes are parsed while the body's buffer is full"),
    PrivateMember(BaseProtocol, "_buffer_paused", "reading resumes only if the queue of requests has room"),
    PrivateMember(BaseProtocol, "_pause_transport_reading", "holds a client that pipelines behind a large hit"),
    PrivateMember(BaseProtocol, "_resume_transport_reading", "as `_pause_transport_reading`"),
    PrivateMember(BaseProtocol, "_drain_helper", "waits until the client has taken what was written"),
    PrivateMember(web.Server, "_loop", "the factory of connections needs what the server was given"),
    PrivateMember(web.Server, "_kwargs", "as `_loop`"),
    PrivateMember(web.BaseRequest, "_prepare_hook", "no head leaves before front ends know what was invalidated"),
    PrivateMember(web.StreamResponse, "_send_headers_immediately", "one segment holds the head and the first bytes"),
    PrivateMember(web.StreamResponse, "_write_headers", "fields that are not UTF-8 are sent as the origin sent them"),
    PrivateMember(web.StreamResponse, "_payload_writer", "as `_write_headers`"),
    PrivateMember(web.StreamResponse, "_headers", "as `_write_headers`"),
    PrivateMember(http_writer.StreamWriter, "_headers_buf", "as `_write_headers`"),
    PrivateMember(web.BaseSite, "_runner", "has the server that makes the connections"),
    PrivateMember(http_writer, "_serialize_headers", "refuses line ends in fields, in C; both paths write equal heads"),
    PrivateMember(_SelectorTransport, "max_size", "what one read of a socket may return"),
    PrivateMember(EpollSelector, "_selector", "polls for a bounded number of events"),
    PrivateMember(EpollSelector, "_fd_to_key", "an event's key; `get_map` costs a call for each event"),
)


class AiohttpConnection(web.RequestHandler):
    """aiohttp's connection with a public name for each private member that the subclasses need."""

    __slots__ = ("loop",)

    def __init__(self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(manager, loop=loop, **options)
        self.loop = loop

    # --- the queue of requests -----------------------------------------------------------------------------

    @property
    def requests_parsed(self) -> int:
        """Requests of this connection that were queued so far, refused ones included."""
        return self._request_count

    @property
    def has_queued_request(self) -> bool:
        return bool(self._messages)

    @property
    def has_room_for_request(self) -> bool:
        return len(self._messages) < self._max_msg_queue_size

    @property
    def newest_request(self) -> tuple[RawRequestMessage, StreamReader] | None:
        """Return the request queued last, with its body. Returns None if it is an error of the parser."""
        message, body = self._messages[-1]
        return None if isinstance(message, _ErrInfo) else (message, body)

    def replace_newest_request(self, message: RawRequestMessage, body: StreamReader) -> None:
        self._messages[-1] = message, body

    def drop_newest_request(self) -> None:
        del self._messages[-1]

    def keep_queued_requests(self, is_kept: Callable[[RawRequestMessage, StreamReader], bool]) -> None:
        """Drop the queued requests for which `is_kept` is false, and all errors."""
        queued = tuple(self._messages)
        self._messages.clear()
        self._messages.extend(
            (message, body) for message, body in queued if not isinstance(message, _ErrInfo) and is_kept(message, body)
        )

    def queue_error(self, status: int, error: Exception) -> None:
        """Queue an error in place of a request: its turn comes after those of the requests before it."""
        self._request_count += 1
        self._messages.append((_ErrInfo(status=status, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- the request under way -----------------------------------------------------------------------------

    @property
    def awaits_request(self) -> bool:
        """Return whether no request is queued or under way, and another one is welcome."""
        return self._waiter is not None and not self._messages and not self._close

    @property
    def is_responding(self) -> bool:
        """Return whether a request is queued or under way.

        aiohttp dequeues a request one turn before its handler begins.
        """
        return bool(self._messages) or (self._waiter is None and self._request_count > 0)

    @property
    def handler_task(self) -> "asyncio.Task[None] | None":
        return self._task_handler

    async def before_head(self) -> None:
        """Wait until a response may begin."""

    @property
    def is_draining(self) -> bool:
        """Return whether a response whose head leaves now is the last one of the connection, and has to say so."""
        return False

    @property
    def is_closing(self) -> bool:
        return self._close or self._force_close

    def refuse_further_requests(self) -> None:
        """Let the request under way be the last. Unlike `close`, this does not wake the waiting handler."""
        self._close = True

    @property
    def is_upgraded(self) -> bool:
        """Return whether the parser stopped at a request for another protocol."""
        return self._upgraded

    # --- timers and flow control ---------------------------------------------------------------------------

    def eof_received(self) -> bool:  # type: ignore[override] # aiohttp would close the connection in any case
        stays_open = self.end_received()
        # asyncio closes a connection of TLS in any case, and logs a warning if it is asked not to.
        return stays_open and self.transport is not None and self.transport.can_write_eof()

    def end_received(self) -> bool:
        """Return whether the connection stays open although the client has closed its sending side."""
        return False

    def lose_transport(self, exc: BaseException | None) -> None:
        """Do what aiohttp does for a lost connection, except for its requests, which go on without a client."""
        BaseProtocol.connection_lost(self, exc)

    def postpone_keepalive(self, now: float) -> None:
        """Start the idle timeout anew. `now` is the loop's time."""
        self._next_keepalive_close_time = now + self._keepalive_timeout

    @property
    def last_used(self) -> float:
        """Return the loop's time of the end of the last response, or of the connection's start."""
        return self._next_keepalive_close_time - self._keepalive_timeout

    def idle_since(self) -> float | None:
        """Return the loop's time since when the connection awaits a request. Returns None if it is busy."""
        return None

    def make_way(self) -> None:
        """Close an idle connection at once, because another one needs its place."""

    def sends_outside_aiohttp(self) -> bool:
        """Return whether a response is being sent that aiohttp does not see. The connection is then not idle."""
        return False

    def _process_keepalive(self) -> None:
        if self.sends_outside_aiohttp():
            self.postpone_keepalive(self.loop.time())
        super()._process_keepalive()

    @property
    def is_body_paused(self) -> bool:
        """Return whether the buffer of the request's body is full."""
        return self._reading_paused

    async def drain(self) -> None:
        """Wait until the transport's buffer is below its limit. Raises ConnectionResetError if the client left."""
        await self._drain_helper()

    def pause_transport_reading(self) -> None:
        self._pause_transport_reading()

    def resume_transport_reading(self) -> None:
        """Resume reading unless a full body buffer or a full queue of requests still forbids it."""
        if not self._buffer_paused and not self._reading_paused:
            self._resume_transport_reading()


class AiohttpServer(web.Server):
    @property
    def connection_options(self) -> dict[str, Any]:
        """Return the arguments with which aiohttp would make a connection."""
        return {"loop": self._loop, **self._kwargs}


class Request(web.BaseRequest):
    """aiohttp's request, whose connection decides when the head of its response may leave."""

    async def _prepare_hook(self, _: web.StreamResponse) -> None:
        if isinstance(self.protocol, AiohttpConnection):
            await self.protocol.before_head()


class DeferredHeadResponse(web.StreamResponse):
    """A response whose head waits for the first bytes of its body or for its end, and leaves with them.

    Its fields may hold any octets, as surrogate escapes.
    """

    _send_headers_immediately = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if not self.prepared and isinstance(request.protocol, AiohttpConnection) and request.protocol.is_draining:
            self.force_close()
        return await super().prepare(request)

    async def _write_headers(self) -> None:
        await super()._write_headers()
        writer = self._payload_writer
        assert isinstance(writer, http_writer.StreamWriter)
        head = writer._headers_buf  # noqa: SLF001 - it has no public name
        assert head is not None
        writer._headers_buf = _with_octets(head, self._headers)  # noqa: SLF001 - as above


class AiohttpSite(web.BaseSite):
    """aiohttp's site, for a subclass that binds and accepts itself."""

    @property
    def connection_factory(self) -> Callable[[], asyncio.BaseProtocol]:
        server = self._runner.server
        assert server is not None
        return server

    async def register(self) -> None:
        """Register the site with its runner, whose `cleanup` stops it."""
        await web.BaseSite.start(self)


class PolledSelector(EpollSelector):
    """asyncio's selector on Linux, with public names for its epoll object and its keys."""

    _selector: "select.epoll"  # the stubs have neither of the two
    _fd_to_key: dict[int, selectors.SelectorKey]

    def __init__(self) -> None:
        super().__init__()
        self.poll = self._selector.poll
        self.key_by_descriptor = self._fd_to_key


def is_refused(message: RawRequestMessage) -> bool:
    """Return whether the message stands for one that the parser refused."""
    return message is web_protocol.ERROR


def limit_read_size(transport: asyncio.BaseTransport, max_bytes: int) -> None:
    """Bound what one read of the socket returns; asyncio's own bound is 256 KiB."""
    transport.max_size = max_bytes  # type: ignore[attr-defined]


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Return the bytes that the transport still has to send."""
    return transport.get_write_buffer_size()


def serialize_head(status: int, headers: CIMultiDict[str]) -> bytes:
    """Return the bytes of a response's head. Raises ValueError if a field contains a line end."""
    head = _serialize_headers(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", headers)
    return _with_octets(head, headers)


def _with_octets(head: bytes, headers: CIMultiDict[str]) -> bytes:
    """Return aiohttp's `head` of `headers` with the surrogate escapes, which aiohttp leaves out, as octets."""
    if all(map(is_text, headers.values())):
        return head
    status_line = head.partition(b"\r\n")[0]
    lines = (f"{name}: {value}".encode("utf-8", "surrogateescape") for name, value in headers.items())
    return b"\r\n".join((status_line, *lines, b"", b""))
