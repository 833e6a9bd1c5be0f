"""Accepts connections up to a limit. Beyond it an idle one makes way, or the new one gets a 503.

asyncio's own server accepts every pending connection before it serves one, and stops accepting for a second once
descriptors have run out (docs/invariants.md#descriptors). TLS is set up here as well, because with asyncio's buffers
for it a client that does not read costs a megabyte (docs/invariants.md#memory).
"""

import asyncio
import errno
import fcntl
import json
import logging
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import hdrs, web

from bucketfront.config.listen_host import in_url, is_any, reachable
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.server.http1.aiohttp_private import AiohttpConnection, AiohttpSite, serialize_head, tls_protocol
from bucketfront.server.http1.binding import ListenPlace, bind, listen
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.telemetry.exchange import fields_of_all
from bucketfront.task_set import TaskSet

MAX_ACCEPTS_PER_TURN = 64  # connections in one turn of the loop
TURNS_TO_FILL = 8  # turns of the loop, at least, in which the limit of connections can be reached
MAX_BACKLOG = 1024  # connections that the kernel holds until they are accepted
ACCEPT_RETRY_S = 0.1  # after accepting failed
MAX_REJECTED_OPEN = 16  # rejected connections that may read their 503; further ones are closed at once
LINGER_TIMEOUT_S = 1.0  # for a rejected client to send its request, and again to read the response
HANDSHAKE_TIMEOUT_S = 10  # of TLS
RETRY_AFTER_S = 1
REPORT_INTERVAL_S = 60.0  # between two warnings that connections run short

log = logging.getLogger(__name__)


class Listener:
    """Serves the requests of `runner` at one host and port, which are the settings of `section`.

    Once it is started, `address` is its URL for programs on this machine.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        place: ListenPlace,
        connections: ConnectionLimit,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._runner = runner
        self._place = place
        self._connections = connections
        self._ssl_context = ssl_context
        self.address = ""

    async def start(self) -> None:
        """Bind and listen. Raises CannotListen."""
        await self._runner.setup()
        site = BoundedSite(self._runner, self._place, self._connections, self._ssl_context)
        await site.start()
        scheme = "http" if self._ssl_context is None else "https"
        host, port = site.bound_to
        self.address = f"{scheme}://{in_url(reachable(host), port)}"

    @property
    def description(self) -> str:
        """Return the address as the start prints it."""
        return f"{self.address} and all other addresses" if is_any(self._place.host) else self.address

    @property
    def server(self) -> web.Server | None:
        """Aiohttp's server with the open connections. None before the start."""
        return self._runner.server

    async def stop(self) -> None:
        """Stop accepting, give the running requests the runner's time to end, and close all connections."""
        await self._runner.cleanup()


class BoundedSite(AiohttpSite):
    """aiohttp's site with its own accept loop. `connections` counts a connection from accept to close."""

    def __init__(
        self,
        runner: web.BaseRunner,
        place: ListenPlace,
        connections: ConnectionLimit,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(runner, ssl_context=ssl_context, backlog=MAX_BACKLOG)
        self._place = place
        self._tls = ssl_context
        self._connections = connections
        self._listeners: list[socket.socket] = []
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        self._connecting = TaskSet()
        self._is_failing = False
        self._next_report = 0.0
        self._reported = 0, 0  # connections that made way, and that were refused

    @property
    def name(self) -> str:
        return in_url(self._place.host, self._place.port)

    @property
    def bound_to(self) -> tuple[str, int]:
        """Return the first of the bound addresses and the port, once it is started."""
        host, port = self._listeners[0].getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Bind and listen. Raises CannotListen."""
        loop = asyncio.get_running_loop()
        # The resolver may take seconds to find the addresses of a name.
        self._listeners += await loop.run_in_executor(None, bind, self._place)
        await self.register()
        for listener in self._listeners:
            listener.setblocking(False)
            listen(listener, self._place, MAX_BACKLOG)
            loop.add_reader(listener, self._accept, listener)

    async def stop(self) -> None:
        """Stop accepting. Wait until aiohttp knows every connection that was accepted."""
        for timer in self._timers.values():
            timer.cancel()
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners.clear()
        await self._connecting.wait()
        await super().stop()

    def _accept(self, listener: socket.socket) -> None:
        # A new connection needs a few turns until its request is read, and should not have to make way before.
        at_once = max(1, min(MAX_ACCEPTS_PER_TURN, self._connections.limit // TURNS_TO_FILL))
        for _ in range(at_once):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listener, error)
                return
            self._is_failing = False
            self._admit(accepted, address)

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """Pause the listener after an error such as EMFILE, for which an idle connection makes way.

        The connection stays in the backlog, so the loop would spin.
        """
        if error.errno in (errno.EMFILE, errno.ENFILE):
            self._connections.make_room(asyncio.get_running_loop().time())
        if not self._is_failing:
            log.error("accepting connections failed, going on soon: %s", error.strerror)
        self._is_failing = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        self._timers[listener] = loop.call_later(ACCEPT_RETRY_S, loop.add_reader, listener, self._accept, listener)

    def _admit(self, accepted: socket.socket, address: object) -> None:
        connections, now = self._connections, asyncio.get_running_loop().time()
        guest = _Guest(self.connection_factory, now)
        before = connections.made_way
        place = connections.admit(str(address[0]) if isinstance(address, tuple) else "", guest, now)
        if place is None or connections.made_way != before:
            self._report(now)
        if place is not None:
            guest.socket = _Counted(accepted, place.leave)
            self._connect_later(guest.begin, guest.socket)
        elif connections.leaving < MAX_REJECTED_OPEN:
            connections.rejected()
            self._connect_later(_Refusal, _Counted(accepted, connections.rejected_closed))
        else:
            _refuse_at_once(accepted, is_plain=self._tls is None)

    def _report(self, now: float) -> None:
        """Warn that connections run short, with the client that has most of them, at most once a minute."""
        if now < self._next_report:
            return
        connections = self._connections
        closed, refused = connections.made_way - self._reported[0], connections.refused - self._reported[1]
        self._next_report, self._reported = now + REPORT_INTERVAL_S, (connections.made_way, connections.refused)
        log.warning(
            "connections run short: %d of %d are open, and %s has %d of them; %d idle ones made way for others, and %d"
            " new ones were refused",
            *(connections.open, connections.limit, *connections.most_connections(), closed, refused),
        )

    def _connect_later(self, protocol: Callable[[], asyncio.BaseProtocol], accepted: socket.socket) -> None:
        accepted.setblocking(False)
        self._connecting.start(self._connect(protocol, accepted))

    async def _connect(self, protocol: Callable[[], asyncio.BaseProtocol], accepted: socket.socket) -> None:
        loop, context = asyncio.get_running_loop(), self._tls
        made = protocol if context is None else lambda: tls_protocol(loop, protocol(), context, HANDSHAKE_TIMEOUT_S)
        try:
            await loop.connect_accepted_socket(made, accepted)
        except OSError:
            accepted.close()  # the client left already


class _Guest:
    """A connection from accept to close, also before its TLS handshake is complete."""

    __slots__ = ("_connection", "_factory", "_since", "socket")

    def __init__(self, factory: Callable[[], asyncio.BaseProtocol], now: float) -> None:
        self._factory = factory
        self._since = now
        self._connection: asyncio.BaseProtocol | None = None
        self.socket: socket.socket | None = None

    def begin(self) -> asyncio.BaseProtocol:
        """Return the protocol of the connection."""
        self._connection = self._factory()
        return self._connection

    def idle_since(self) -> float | None:
        """Return the loop's time since when the client sends nothing. Returns None if the connection is busy."""
        connection = self._connection
        if not isinstance(connection, AiohttpConnection):
            return None
        since = self._since if connection.transport is None else connection.idle_since()
        return None if since is None or self._has_unread() else since

    def make_way(self) -> None:
        """Close the idle connection."""
        connection = self._connection
        if isinstance(connection, AiohttpConnection) and connection.transport is not None:
            connection.make_way()
        elif self.socket is not None:
            with suppress(OSError):  # the client left already
                self.socket.shutdown(socket.SHUT_RDWR)  # the handshake sees the end

    def _has_unread(self) -> bool:
        """Return whether the kernel has bytes of the client that were not read yet."""
        if self.socket is None or self.socket.fileno() < 0:
            return False
        unread = struct.unpack("i", fcntl.ioctl(self.socket.fileno(), termios.FIONREAD, b"    "))
        return unread != (0,)


class _Counted(socket.socket):
    """A socket that calls `on_close` once its descriptor is closed, by asyncio or by this module."""

    def __init__(self, accepted: socket.socket, on_close: Callable[[], None]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._on_close: Callable[[], None] | None = on_close

    def close(self) -> None:
        super().close()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()


class _Refusal(asyncio.Protocol):
    """Responds to the first request with 503 and closes. Without a request a client may not expect a response yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._has_responded = False
        self._timer = asyncio.get_running_loop().call_later(LINGER_TIMEOUT_S, self._respond)

    def data_received(self, data: bytes) -> None:
        if not self._has_responded:
            self._respond(has_body=not data.startswith(b"HEAD "))

    def connection_lost(self, exc: BaseException | None) -> None:
        del exc
        self._timer.cancel()

    def _respond(self, *, has_body: bool = True) -> None:
        self._has_responded = True
        self._timer.cancel()
        self._transport.write(refusal(has_body=has_body))
        if self._transport.can_write_eof():
            # RFC 9112 section 9.6: closing at once would reset the connection, and the client might lose the response.
            self._transport.write_eof()
            self._timer = asyncio.get_running_loop().call_later(LINGER_TIMEOUT_S, self._transport.abort)
        else:
            self._transport.close()


def _refuse_at_once(accepted: socket.socket, *, is_plain: bool) -> None:
    """Send the 503 without waiting, so that many rejected clients take no descriptors."""
    with accepted:
        accepted.setblocking(False)
        try:
            if is_plain:
                accepted.send(refusal())
                accepted.recv(1 << 16)  # an unread request would turn the close into a reset
        except OSError:
            return  # the client left, or has sent no byte yet


def refusal(*, has_body: bool = True) -> bytes:
    """Return the 503 to a client beyond the limit: RFC 9110 section 15.6.4."""
    body = json.dumps({"error": "too many connections"}).encode() + b"\n"
    headers = fields_of_all(CacheStatus(Forward.BYPASS, detail="refused"), ())
    headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER_S)
    headers[hdrs.CONTENT_TYPE] = "application/json"
    headers[hdrs.CONTENT_LENGTH] = str(len(body))
    headers[hdrs.CACHE_CONTROL] = "no-store"
    headers[hdrs.DATE] = formatdate(int(time.time()), usegmt=True)
    headers[hdrs.CONNECTION] = "close"
    return serialize_head(HTTPStatus.SERVICE_UNAVAILABLE, headers) + (body if has_body else b"")
