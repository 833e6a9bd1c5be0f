"""Accepts connections up to a limit. Beyond it an idle one makes way, or the new one gets a 503.

asyncio's own server accepts every pending connection before it serves one, and stops accepting for a second once
descriptors have run out (docs/invariants.md#descriptors). TLS is set up here as well, because with asyncio's buffers
for it a client that does not read costs a megabyte (docs/invariants.md#memory).
"""

import asyncio
import errno
import fcntl
import logging
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from bucketfront.config.listen_host import UNIX_PEER, plain_address
from bucketfront.server.http1.aiohttp_private import AiohttpConnection, AiohttpSite
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.handshake_failure import handshake_failure
from bucketfront.server.http1.listen_sockets import ListenPlace, ListenSockets
from bucketfront.server.http1.proxy_headers import UNKNOWN_CLIENT, ProxyHeaders
from bucketfront.server.http1.refused_connection import RefusedConnection, refuse_at_once
from bucketfront.server.http1.server_tls import ServerTls
from bucketfront.server.http1.tls_transport import tls_protocol
from bucketfront.task_set import TaskSet

MAX_ACCEPTS_PER_TURN = 64  # connections in one turn of the loop
TURNS_TO_FILL = 8  # turns of the loop, at least, in which the limit of connections can be reached
MAX_BACKLOG = 1024  # connections that the kernel holds until they are accepted
ACCEPT_RETRY_S = 0.1  # after accepting failed
LEAVE_TO_OTHERS_S = 0.02  # for another process to accept what this one has no place for
MAX_REJECTED_OPEN = 16  # rejected connections that may read their 503; further ones are closed at once
HANDSHAKE_TIMEOUT_S = 10  # of TLS
REPORT_INTERVAL_S = 60.0  # between two warnings that connections run short

DRAIN_IDLE_S = 0.5  # at a stop, without a request, after which a connection is closed: longer than requests travel
DRAIN_STEP_S = 0.01  # between two looks at the connections
DRAIN_STEP_OF_ONE_S = 1e-5  # added for each connection, because a look takes time for each
PROGRESS_INTERVAL_S = 1.0

_ProtocolFactory = Callable[[], asyncio.BaseProtocol]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ListenSite:
    """One place of a listener, and what its connections begin with: a PROXY header, TLS, or HTTP.

    `has_tls_on_unix` is true if TLS holds for Unix sockets too. `inherited` are sockets that another process has bound
    for the place. A socket that is shared with other processes gives each of them one connection at a time.
    """

    place: ListenPlace
    tls: ServerTls | None = None
    has_tls_on_unix: bool = True
    headers: ProxyHeaders | None = None
    inherited: tuple[socket.socket, ...] = ()
    is_shared: bool = False

    def has_tls(self, bound: socket.socket) -> bool:
        """Return whether connections of a socket begin with TLS."""
        return self.tls_of(bound) is not None

    def tls_of(self, bound: socket.socket) -> ServerTls | None:
        """Return the TLS for connections of a socket. Returns None if they are plain."""
        return None if bound.family == socket.AF_UNIX and not self.has_tls_on_unix else self.tls


class Listener:
    """Serves the requests of `server` at all sites.

    Once it is started, `address` is its first URL for programs on this machine. A stop gives requests `drain_timeout`
    seconds to end.
    """

    def __init__(
        self, server: web.Server, sites: Sequence[ListenSite], connections: ConnectionLimit, drain_timeout: float
    ) -> None:
        # `_drain` waits for the running requests. aiohttp would close idle connections first, and lose their next ones.
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.0)
        self._sites = tuple(sites)
        self._connections = connections
        self._drain_timeout = drain_timeout
        self.on_progress: Callable[[int], None] = _ignore
        self._bound: list[BoundedSite] = []
        self.address = ""
        self.descriptions: tuple[str, ...] = ()

    async def start(self, *, accepts: bool = True) -> None:
        """Bind all sockets, then accept, unless another process does. Raises CannotListen."""
        await self._runner.setup()
        self._bound += (BoundedSite(self._runner, site, self._connections) for site in self._sites)
        for site in self._bound:
            await site.bind()
        for site in self._bound:
            await site.start(accepts=accepts)
        self.address = self._bound[0].address
        self.descriptions = tuple(site.description for site in self._bound)

    @property
    def tls(self) -> tuple[ServerTls, ...]:
        """Return the TLS of all sites. Several sites may share one."""
        return tuple(dict.fromkeys(site.tls for site in self._sites if site.tls is not None))

    @property
    def server(self) -> web.Server | None:
        """Aiohttp's server with the open connections. None before the start."""
        return self._runner.server

    @property
    def sockets(self) -> list[tuple[ListenPlace, list[socket.socket]]]:
        """Return the sockets that listen, by the place of their settings."""
        return [found for site in self._bound if (found := site.sockets)[1]]

    def pause(self) -> None:
        """Accept no connections. They wait in the kernel until `resume`, or until another process accepts them."""
        for site in self._bound:
            site.pause()

    def resume(self, *, accepts: bool = True) -> None:
        """Accept connections again, unless another process does, and let them stay open."""
        self._connections.is_draining = False
        if accepts:
            for site in self._bound:
                site.resume()

    def give_away(self) -> None:
        """Close the sockets, which another process has as well. Connections stay open."""
        for site in self._bound:
            site.give_away()

    def descriptors(self) -> list[list[int]]:
        """Return the listening sockets of each site, for a process that accepts in place of this one."""
        return [site.descriptors() for site in self._bound]

    def adopt(
        self, handed: socket.socket, client: str, make: Callable[[], asyncio.BaseProtocol], *, is_relayed: bool = False
    ) -> None:
        """Serve a connection that another process has admitted. `client` is the address of its client.

        TLS has ended in the other process. `make` makes the protocol. A relayed connection stays open there as well.
        """
        self._bound[0].adopt(handed, client, make, is_relayed=is_relayed)

    def begin_to_drain(self) -> None:
        """Let each response that begins from now on be the last of its connection, which its head says."""
        self._connections.is_draining = True

    async def stop(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - of the connections
        """Stop accepting, give the running requests their time to end, and close all connections.

        `timeout` takes the place of `drain_timeout`. Calls `on_progress` with the number of busy connections, about
        once a second.
        """
        self.begin_to_drain()
        for site in self._bound:
            site.close_sockets()
        await self.drain(self._drain_timeout if timeout is None else timeout, PROGRESS_INTERVAL_S)
        await self._runner.cleanup()

    async def drain(self, timeout: float, interval: float) -> None:  # noqa: ASYNC109 - the connections stay open
        """Wait until each connection has had its last response, or has been idle for DRAIN_IDLE_S.

        Calls `on_progress` every `interval` seconds.

        A client that sends requests without a pause learns from a response that it was the last. If an idle connection
        were closed at once, a request that is on its way would be lost.
        """
        loop, connections = asyncio.get_running_loop(), self._connections
        began = reported_at = loop.time()
        while connections.open and (now := loop.time()) < began + timeout:
            busy = connections.close_idle(now - DRAIN_IDLE_S)
            if busy and now >= reported_at + interval:
                reported_at = now
                self.on_progress(busy)
            await asyncio.sleep(DRAIN_STEP_S + connections.open * DRAIN_STEP_OF_ONE_S)


def _ignore(_: int) -> None:
    """Do nothing with the progress of a stop."""


class BoundedSite(AiohttpSite):
    """aiohttp's site with its own accept loop. `connections` counts a connection from accept to close."""

    def __init__(self, runner: web.BaseRunner, site: ListenSite, connections: ConnectionLimit) -> None:
        super().__init__(runner, ssl_context=None if site.tls is None else site.tls.context, backlog=MAX_BACKLOG)
        self._site = site
        self._connections = connections
        self._sockets: ListenSockets | None = None
        self._accepting: list[socket.socket] = []
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        self._awaiting_headers = TaskSet()
        self._connecting = TaskSet()
        self._is_failing = False
        self._next_report = 0.0
        self._reported = 0, 0  # connections that made way, and that were refused
        self.address = self.description = ""

    @property
    def name(self) -> str:
        return str(self._site.place)

    async def bind(self) -> None:
        """Bind the sockets. Raises CannotListen."""
        # The resolver may take seconds to find the addresses of a name.
        self._sockets = await asyncio.get_running_loop().run_in_executor(
            None, ListenSockets, self._site.place, self._site.inherited
        )

    async def start(self, *, accepts: bool = True) -> None:
        """Accept connections, unless another process does. Call `bind` before. Raises CannotListen."""
        assert self._sockets is not None
        await self.register()
        self._sockets.listen(MAX_BACKLOG)
        self.address = self._sockets.address(self._site.has_tls)
        self.description = self._sockets.description(self._site.has_tls)
        if accepts:
            self.resume()

    @property
    def sockets(self) -> tuple[ListenPlace, list[socket.socket]]:
        """Return the place and its sockets."""
        return self._site.place, [] if self._sockets is None else self._sockets.sockets

    def resume(self) -> None:
        """Accept connections."""
        assert self._sockets is not None
        for listener in self._sockets.sockets:
            self._accepting.append(listener)
            self._watch(listener)

    def descriptors(self) -> list[int]:
        return [] if self._sockets is None else [one.fileno() for one in self._sockets.sockets]

    def adopt(self, handed: socket.socket, client: str, make: _ProtocolFactory, *, is_relayed: bool) -> None:
        """Serve a connection that was admitted elsewhere."""
        accepted = _AcceptedSocket(handed, (client, 0))
        accepted.client = client
        occupant, now = _AcceptedConnection(make, accepted), asyncio.get_running_loop().time()
        named = client if accepted.has_client_address else ""
        accepted.hold(self._connections.adopt(named, occupant, now, is_relayed=is_relayed).leave)
        accepted.setblocking(False)
        self._connecting.start(self._connect(occupant.make_protocol, accepted, None))

    def pause(self) -> None:
        """Accept no connections until `resume`."""
        for timer in self._timers.values():
            timer.cancel()
        for listener in self._accepting:
            asyncio.get_running_loop().remove_reader(listener)
        self._accepting.clear()

    def give_away(self) -> None:
        """Close the sockets, and leave the file of a Unix socket to the process that has them as well."""
        if self._sockets is not None:
            self._sockets.disown()
        self.close_sockets()

    def close_sockets(self) -> None:
        """Stop accepting."""
        self.pause()
        if self._sockets is not None:
            self._sockets.close()

    async def stop(self) -> None:
        """Stop accepting. Wait until aiohttp knows every connection that was accepted."""
        self.close_sockets()
        await self._awaiting_headers.close()
        await self._connecting.wait()
        await super().stop()

    def _accept(self, listener: socket.socket, *, may_refuse: bool = False) -> None:
        # A new connection needs a few turns until its request is read, and should not have to make way before.
        at_once = max(1, min(MAX_ACCEPTS_PER_TURN, self._connections.limit // TURNS_TO_FILL))
        if self._site.is_shared:
            at_once = 1
            if not may_refuse and not self._connections.may_admit(asyncio.get_running_loop().time()):
                self._leave_to_others(listener)
                return
        for _ in range(at_once):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listener, error)
                return
            self._is_failing = False
            self._begin(_AcceptedSocket(accepted, address))

    def _leave_to_others(self, listener: socket.socket) -> None:
        """Accept no connection for a moment, so that a process accepts it in which an idle one can make way."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        self._timers[listener] = loop.call_later(LEAVE_TO_OTHERS_S, self._accept_or_refuse, listener)

    def _accept_or_refuse(self, listener: socket.socket) -> None:
        """Accept a connection that is still there."""
        self._watch(listener)
        self._accept(listener, may_refuse=True)

    def _watch(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

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
        self._timers[listener] = loop.call_later(ACCEPT_RETRY_S, self._watch, listener)

    def _begin(self, accepted: "_AcceptedSocket") -> None:
        """Give a new connection its place, and read its header if one is due."""
        occupant = _AcceptedConnection(self.connection_factory, accepted)
        factory = self._admit(accepted, occupant)
        if factory is None:
            return
        accepted.setblocking(False)
        headers, peer = self._site.headers, accepted.client
        if headers is None or not headers.are_due(peer):
            self._connecting.start(self._connect(factory, accepted, self._site.tls_of(accepted)))
            return
        occupant.awaits_header = True
        task = self._awaiting_headers.start(headers.client(accepted, peer))
        task.add_done_callback(lambda named: self._continue(named, factory, accepted, occupant))

    def _continue(
        self,
        named: "asyncio.Task[str | None]",
        factory: _ProtocolFactory,
        accepted: "_AcceptedSocket",
        occupant: "_AcceptedConnection",
    ) -> None:
        """Connect the client whose address the header has given, with the place of that client."""
        occupant.awaits_header = False
        client = None if named.cancelled() else named.result()
        if client is None:
            accepted.close()
            return
        if client != accepted.client and factory is not RefusedConnection:
            accepted.release()
            accepted.client = client
            admitted = self._admit(accepted, occupant)
            if admitted is None:
                return
            factory = admitted
        self._connecting.start(self._connect(factory, accepted, self._site.tls_of(accepted)))

    def _admit(
        self, accepted: "_AcceptedSocket", occupant: "_AcceptedConnection", *, is_plain: bool = False
    ) -> _ProtocolFactory | None:
        """Give the connection a place, and return what makes its protocol. Returns None if it was closed."""
        connections, now = self._connections, asyncio.get_running_loop().time()
        before = connections.made_way
        place = connections.admit(accepted.client if accepted.has_client_address else "", occupant, now)
        if place is None or connections.made_way != before:
            self._report(now)
        if place is not None:
            accepted.hold(place.leave)
            return occupant.make_protocol
        if connections.leaving < MAX_REJECTED_OPEN:
            connections.rejected()
            accepted.hold(connections.rejected_closed)
            return RefusedConnection
        refuse_at_once(accepted, is_plain=is_plain or self._site.tls_of(accepted) is None)
        return None

    def _report(self, now: float) -> None:
        """Warn that connections run short, with the client that has most of them, at most once a minute."""
        if now < self._next_report:
            return
        connections = self._connections
        closed, refused = connections.made_way - self._reported[0], connections.refused - self._reported[1]
        self._next_report, self._reported = now + REPORT_INTERVAL_S, (connections.made_way, connections.refused)
        name, most = connections.most_connections()
        log.warning(
            "connections run short: %d of %d are open, and %s has %d of them; %d idle ones made way for others, and %d"
            " new ones were refused",
            *(connections.open, connections.limit, name or UNIX_PEER, most, closed, refused),
        )

    async def _connect(self, factory: _ProtocolFactory, accepted: "_AcceptedSocket", tls: ServerTls | None) -> None:
        protocol_factory = factory if tls is None else _behind_tls(tls, factory, accepted.client)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol_factory, accepted)
        except OSError:
            accepted.close()  # the client left already


def _behind_tls(tls: ServerTls, factory: _ProtocolFactory, client: str) -> _ProtocolFactory:
    """Return what makes the protocol behind TLS. It counts a handshake that fails, and logs it at the level of `-v`."""

    def on_failure(error: BaseException) -> None:
        failure = handshake_failure(error)
        tls.failures[failure] += 1
        log.info("a TLS handshake of %s failed: %s (%s)", client, failure.value, getattr(error, "reason", error))

    def make_protocol() -> asyncio.BaseProtocol:
        loop = asyncio.get_running_loop()
        return tls_protocol(loop, factory(), tls.context, HANDSHAKE_TIMEOUT_S, on_failure, tls.response_fields)

    return make_protocol


class _AcceptedConnection:
    """A connection from accept to close, also before its PROXY header and its TLS handshake are complete."""

    __slots__ = ("_connection", "_factory", "_since", "_socket", "awaits_header")

    def __init__(self, factory: _ProtocolFactory, accepted: socket.socket) -> None:
        self._factory = factory
        self._since = asyncio.get_running_loop().time()
        self._connection: asyncio.BaseProtocol | None = None
        self._socket = accepted
        self.awaits_header = False

    def make_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol of the connection."""
        self._connection = self._factory()
        return self._connection

    def idle_since(self) -> float | None:
        """Return the loop's time since when the client sends nothing. Returns None if the connection is busy."""
        connection = self._connection
        if self.awaits_header:
            return None if self._has_unread() else self._since
        if not isinstance(connection, AiohttpConnection):
            return None
        since = self._since if connection.transport is None else connection.idle_since()
        return None if since is None or self._has_unread() else since

    def make_way(self) -> None:
        """Close the idle connection."""
        connection = self._connection
        if isinstance(connection, AiohttpConnection) and connection.transport is not None:
            connection.make_way()
        else:
            with suppress(OSError):  # the client left already
                self._socket.shutdown(socket.SHUT_RDWR)  # the handshake sees the end

    def _has_unread(self) -> bool:
        """Return whether the kernel has bytes of the client that were not read yet."""
        if self._socket.fileno() < 0:
            return False
        unread = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, b"    "))
        return unread != (0,)


class _AcceptedSocket(socket.socket):
    """A connection that knows its client's address, and gives its place up once its descriptor is closed.

    All layers above find the client by `getpeername`, so that a PROXY header counts in each of them.
    """

    def __init__(self, accepted: socket.socket, address: object) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self.has_client_address = isinstance(address, tuple)
        self._client = plain_address(str(address[0])) if isinstance(address, tuple) else UNIX_PEER
        self._release: Callable[[], None] | None = None

    @property
    def client(self) -> str:
        """Return the client's address. It is UNIX_PEER for a Unix socket, unless a header has named the client."""
        return self._client

    @client.setter
    def client(self, client: str) -> None:
        self._client = client
        self.has_client_address = client not in (UNKNOWN_CLIENT, UNIX_PEER)

    def getpeername(self) -> tuple[str, int]:
        return self._client, 0

    def hold(self, release: Callable[[], None]) -> None:
        """Call `release` once asyncio or this module closes the descriptor, or at `release`."""
        self._release = release

    def release(self) -> None:
        """Give the place up."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def close(self) -> None:
        super().close()
        self.release()
