"""A process that accepts connections and answers hits from leases of the owner.

It has the owner's listener, TLS, fast path and rules, with a `LeaseTable` where the owner has its cache. It has no
cache, no index, no S3, and no handlers. Without the owner it ends at once, so that it never serves what the owner has
invalidated (docs/invariants.md#all-processes-are-one).
"""

import asyncio
import logging
import os
import pickle  # nosec B403
import socket
import time
from collections.abc import Callable
from functools import partial
from itertools import count

from aiohttp import web

from bucketfront import process_log
from bucketfront.cache import CacheClock, boottime
from bucketfront.config.freshness_policy import FreshnessPolicy
from bucketfront.config.settings import Settings
from bucketfront.errors import UnusableSetting
from bucketfront.front_end.channel import Channel
from bucketfront.front_end.counts import Counts
from bucketfront.front_end.front_connection import FrontConnection
from bucketfront.front_end.lease_table import LeaseTable
from bucketfront.front_end.message import Kind, Message
from bucketfront.front_end.relay import Relay
from bucketfront.front_end.report import Report
from bucketfront.front_end.visitor import Visitor
from bucketfront.server.access.clients import Clients
from bucketfront.server.client_listener import DRAIN_TIMEOUT_S, client_sites, connection_options
from bucketfront.server.fast_path.fast_connection import FastConnectionServer
from bucketfront.server.fast_path.fast_path import FastPath
from bucketfront.server.fast_path.plain_rules import plain_rules
from bucketfront.server.http1 import descriptors
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.connection_tally import ConnectionTally
from bucketfront.server.http1.event_loop import new_event_loop
from bucketfront.server.http1.listener import Listener, ListenSite
from bucketfront.server.http1.passed_sockets import PassedPlace, PassedSockets
from bucketfront.server.http1.proxy_headers import ProxyHeaders
from bucketfront.server.pipeline import build_pipeline
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.task_set import TaskSet

log = logging.getLogger(__name__)


def run(end: socket.socket) -> None:
    """Serve until the owner has drained this front end, or is gone. `end` is the channel to the owner."""
    descriptors.raise_limit()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(end))


async def _serve(end: socket.socket) -> None:
    await FrontEnd(end).serve()


class FrontEnd:
    """The process, from CONFIGURE to DRAINED."""

    def __init__(self, end: socket.socket) -> None:
        self._channel = Channel(end, self._on_message, _end_at_once)
        self._drained = asyncio.get_running_loop().create_future()
        self._tasks = TaskSet()
        limit = descriptors.limit()
        self._leases = LeaseTable(self._channel.send, descriptors.shares(limit, 0).hot)
        self._report = Report(self._channel.send, self._leases)
        self._wall: Callable[[], float] = time.time
        self._elapsed: Callable[[], float] = boottime
        self._cache_clock = CacheClock(self._wall, self._elapsed)
        self._path = FastPath(self._leases, self._report, self._clock, time.time)
        self._connections = ConnectionLimit(descriptors.shares(limit, 0).connections)
        self._relays: dict[int, Relay] = {}
        self._numbers = count()
        self._listener: Listener
        self._server: FrontConnectionServer
        self._counts: Counts
        self._headers: ProxyHeaders
        self._draining: asyncio.Task[None] | None = None
        self._lock = -1  # the lock of the cache folder, which no other owner gets before this process has ended

    async def serve(self) -> None:
        await self._drained
        self._report.flush()
        self._channel.send(Message(Kind.DRAINED))

    # --- the door to the owner -----------------------------------------------------------------------------

    def hand_over(self, visitor: Visitor, first: bytes, descriptor: int) -> None:
        self._channel.send(Message(Kind.HAND_OVER, visitor.facts(), first), (descriptor,))

    def relay(self, client: FrontConnection, visitor: Visitor, first: bytes) -> Relay:
        number = next(self._numbers)
        relay = self._relays[number] = Relay(client, first)
        ours, theirs = socket.socketpair()
        facts = {**visitor.facts(), "relay": number}
        self._channel.send(Message(Kind.HAND_OVER, facts), (theirs.fileno(),))
        theirs.close()
        ours.setblocking(False)
        task = self._tasks.start(relay.begin(ours))
        task.add_done_callback(lambda _: None)
        relay.on_end = lambda: self._relays.pop(number, None)
        return relay

    # --- messages ------------------------------------------------------------------------------------------

    def _on_message(self, message: Message, passed: tuple[int, ...]) -> None:
        match message.kind:
            case Kind.GRANT | Kind.DENY | Kind.REVOKE | Kind.IN_STEP:
                self._leases.take(message, passed)
            case Kind.GIVE_BACK:
                self._take_back(message, passed)
            case Kind.FLUSH:
                self._follow(message.facts["now"])
                self._report.flush()
                self._channel.send(Message(Kind.FLUSHED, {**message.facts, "counts": self._counts.since_last()}))
            case Kind.CONFIGURE:
                self._tasks.start(self._begin(message, passed))
            case Kind.ADOPT:
                settings: Settings = pickle.loads(message.data)  # noqa: S301 - of the owner, which runs this  # nosec B301
                self._report.flush()  # it has the uses of the leases
                self._leases.close()  # the owner decides anew how long each object is fresh
                self._adopt(settings)
                self._renew_tls(settings)
            case Kind.BEGIN_TO_DRAIN:
                self._path.adopt(None)
            case Kind.DRAIN:
                self._path.adopt(None)
                self._begin_to_drain(message.facts["timeout"])
            case _:
                _end_at_once()

    async def _begin(self, message: Message, passed: tuple[int, ...]) -> None:
        """Accept connections by the settings of the owner."""
        settings: Settings = pickle.loads(message.data)  # noqa: S301 - of the owner, which runs this  # nosec B301
        process_log.apply(settings.log)
        if not message.facts["clock_runs"]:
            self._wall = self._elapsed = _zero
        self._cache_clock = CacheClock(self._wall, self._elapsed, newest=message.facts["now"])
        self._lock, tally, *sockets = passed
        self._connections.tally = ConnectionTally(tally, message.facts["slot"])
        self._connections.limit = message.facts["connections"]
        self._connections.share_of_one = settings.server.share_of_one
        headers = self._headers = ProxyHeaders(settings.server.front_networks)
        sites = _sites(settings, headers, message.facts["sites"], sockets)
        server = self._server = FrontConnectionServer(self._connections, self._path, self._leases, self)
        self._listener = Listener(server, sites, self._connections, DRAIN_TIMEOUT_S)
        self._counts = Counts(self._connections, self._path, headers, self._listener.tls)
        self._adopt(settings)
        await self._listener.start()
        process = os.pidfd_open(os.getpid())
        self._channel.send(Message(Kind.READY, {"process": os.getpid()}), (process,))
        os.close(process)

    def _adopt(self, settings: Settings) -> None:
        self._connections.has_share = Clients(settings.server.front_networks).has_share
        self._headers.believe(settings.server.front_networks)
        rules = FreshnessPolicy(settings.freshness).rules
        self._path.adopt(plain_rules(settings, build_pipeline(settings), rules, self._leases))

    def _renew_tls(self, settings: Settings) -> None:
        """Read the certificates again, which the owner has found to be of use. Later handshakes get them."""
        try:
            renewed = [site.tls for site in client_sites(settings.server, PassedSockets(), self._headers)]
        except UnusableSetting as error:  # they have changed once more, which the owner will find as well
            log.info("the certificates stay as they are: %s", error)
            return
        for present in self._listener.tls:
            for one in renewed:
                if one is not None and one.at == present.at:
                    present.adopt(one)

    def _take_back(self, message: Message, passed: tuple[int, ...]) -> None:
        relay = message.facts.get("relay")
        if relay is not None:
            if relay in self._relays:
                self._relays[relay].give_back(message.facts["received"])
            return
        make = partial(self._server.given_back, message.facts["in_vain"])
        self._listener.adopt(socket.socket(fileno=passed[0]), message.facts["client"], make)

    def _begin_to_drain(self, timeout: float) -> None:
        """End the connections within `timeout` seconds from now, also if they had more time before."""
        if self._draining is not None:
            self._draining.cancel()
        self._draining = self._tasks.start(self._drain(timeout))

    async def _drain(self, timeout: float) -> None:  # noqa: ASYNC109 - of the connections
        await self._listener.stop(timeout)
        if not self._drained.done():
            self._drained.set_result(None)

    def _clock(self) -> float:
        return self._cache_clock()

    def _follow(self, now: float) -> None:
        """Let the clock be at least that of the owner, which is `now`. By itself it follows the wall clock."""
        if now > self._cache_clock():
            self._cache_clock = CacheClock(self._wall, self._elapsed, newest=now)


class FrontConnectionServer(FastConnectionServer):
    """Makes the connections of a front end."""

    def __init__(self, limit: ConnectionLimit, path: FastPath, leases: LeaseTable, owner: FrontEnd) -> None:
        super().__init__(_no_handler, limit, _ignore, path, **connection_options())
        self._leases = leases
        self._owner = owner

    def __call__(self) -> web.RequestHandler:
        return self._made()

    def given_back(self, in_vain: int) -> web.RequestHandler:
        """Return a connection that the owner gives back, after `in_vain` times for nothing."""
        connection = self._made()
        connection.in_vain = in_vain + 1
        return connection

    def _made(self) -> FrontConnection:
        return FrontConnection(self, self.limit, self.path, self._leases, self._owner, **self.connection_options)


async def _no_handler(_: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("a front end has no handlers, and hands each ordinary request over")


def _ignore(_: Exchange, __: int) -> None:
    """Do nothing, because no parser of a front end sees a request."""


def _sites(settings: Settings, headers: ProxyHeaders, counts: list[int], sockets: list[int]) -> list[ListenSite]:
    """Return the sites of the owner's listener at the sockets that it has bound, `counts` of them for each site."""
    found = []
    for number, site in enumerate(client_sites(settings.server, PassedSockets(), headers)):
        name = f"site {number}"
        passed = PassedSockets({name: tuple(sockets[: counts[number]])})
        del sockets[: counts[number]]
        place = PassedPlace(name, passed, number)
        found.append(ListenSite(place, site.tls, site.has_tls_on_unix, site.headers, is_shared=True))
    return found


def _zero() -> float:
    """Stand for the clocks of an owner whose clock stands still between two messages, as in tests."""
    return 0.0


def _end_at_once() -> None:
    """End the process, because the owner is gone."""
    os._exit(0)
