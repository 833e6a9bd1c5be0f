"""The front ends of an owner: it starts them, replaces one that died, and ends them with itself."""

import asyncio
import logging
import os
import pickle  # nosec B403
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from itertools import count

from bucketfront.config.settings import Settings
from bucketfront.errors import UnusableSetting
from bucketfront.front_end.channel import Channel, channel_pair
from bucketfront.front_end.counts import Counts
from bucketfront.front_end.facts import Facts, KnownRecords
from bucketfront.front_end.handed_connection import HandedConnection, Make
from bucketfront.front_end.lease_grants import ACKNOWLEDGE_TIMEOUT_S, Holder, LeaseGrants
from bucketfront.front_end.message import Kind, Message
from bucketfront.front_end.nursery import Nursery
from bucketfront.front_end.visitor import Visitor
from bucketfront.server.client_listener import DRAIN_TIMEOUT_S as RESPONSES_TIMEOUT_S
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.connection_tally import SLOTS
from bucketfront.server.http1.listener import Listener
from bucketfront.server.telemetry.telemetry import Telemetry
from bucketfront.task_set import TaskSet

START_TIMEOUT_S = 60.0  # for front ends to accept connections, on a machine with much other work
FLUSH_TIMEOUT_S = 1.0  # for a front end to send what has ended, before figures are shown without it
RESTART_DELAY_S = 0.1  # after a front end died; doubled for each that dies before it accepts connections
MAX_RESTART_DELAY_S = 10.0
DRAIN_TIMEOUT_S = RESPONSES_TIMEOUT_S + 5.0  # for a front end to end its connections, and itself

log = logging.getLogger(__name__)


class FrontEndState(Enum):
    STARTING = auto()
    SERVING = auto()
    DRAINING = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class OwnerParts:
    """What front ends need of the owner. `clock` is the cache's; if it does not run, a test sets it.

    `lock` is the descriptor of the cache folder's lock. `make` makes a connection that was handed over.
    """

    grants: LeaseGrants
    telemetry: Telemetry
    listener: Listener
    connections: ConnectionLimit
    lock: Callable[[], int]
    clock: Callable[[], float]
    clock_runs: bool
    make: Make
    counts: Counts


class _FrontEnd:
    """One process, from its fork to its end. `on_end` is called once, when it has ended."""

    def __init__(self, nursery: Nursery, parts: OwnerParts, slot: int, on_end: Callable[["_FrontEnd"], None]) -> None:
        """Have the nursery fork the process. Raises OSError if the nursery is gone."""
        ours, theirs = channel_pair()
        with theirs:
            nursery.fork(theirs)
        loop = asyncio.get_running_loop()
        self.state = FrontEndState.STARTING
        self.is_ready: asyncio.Future[None] = loop.create_future()
        self.has_ended: asyncio.Future[None] = loop.create_future()
        self.slot = slot  # of the tally of connections
        self._parts = parts
        self._on_end = on_end
        self.process = 0
        self._pidfd = -1
        self._records = KnownRecords()
        self._flushes: dict[int, asyncio.Future[None]] = {}
        self._numbers = count()
        self._channel = Channel(ours, self._on_message, self._end)
        self._holder = Holder(self._channel.send, self.kill)
        parts.grants.join(self._holder)

    def configure(self, settings: Settings, sockets: Sequence[Sequence[int]]) -> None:
        """Let it begin to accept connections at the `sockets` of each site."""
        connections = self._parts.connections
        assert connections.tally is not None
        facts = {
            "now": self._parts.clock(),
            "clock_runs": self._parts.clock_runs,
            "sites": [len(of_site) for of_site in sockets],
            "connections": connections.limit,
            "slot": self.slot,
        }
        passed = (self._parts.lock(), connections.tally.descriptor, *(one for of_site in sockets for one in of_site))
        self._channel.send(Message(Kind.CONFIGURE, facts, pickle.dumps(settings)), passed)

    def adopt(self, settings: Settings) -> None:
        """Let the requests that it begins to serve from now on follow other settings."""
        self._channel.send(Message(Kind.ADOPT, {}, pickle.dumps(settings)))

    async def flush(self, timeout: float = FLUSH_TIMEOUT_S) -> bool:  # noqa: ASYNC109 - of a message
        """Wait until what it has served is counted, and its clock is right.

        Returns False if it has not acknowledged that within `timeout` seconds.
        """
        if self.state not in (FrontEndState.SERVING, FrontEndState.DRAINING):
            return True
        number = next(self._numbers)
        flushed = self._flushes[number] = asyncio.get_running_loop().create_future()
        self._channel.send(Message(Kind.FLUSH, {"flush": number, "now": self._parts.clock()}))
        await asyncio.wait((flushed,), timeout=timeout)
        self._flushes.pop(number, None)
        return flushed.done()

    def begin_to_drain(self) -> None:
        if self.state is FrontEndState.SERVING:
            self.state = FrontEndState.DRAINING
            self._channel.send(Message(Kind.BEGIN_TO_DRAIN))

    def drain(self, timeout: float) -> None:
        """Let it serve no further hits, and end its connections within `timeout` seconds."""
        if self.state is not FrontEndState.ENDED:
            self.state = FrontEndState.DRAINING
            self._channel.send(Message(Kind.DRAIN, {"timeout": timeout}))

    async def acknowledge(self) -> None:
        """Return once it has done what it was sent before, or has been ended for not acknowledging that."""
        if not await self.flush(ACKNOWLEDGE_TIMEOUT_S):
            self.kill()
            await self.has_ended

    async def retire(self, timeout: float) -> None:  # noqa: ASYNC109 - of its connections
        """Drain it. Return once it begins no further response, or has been ended for not acknowledging that."""
        self.drain(timeout)
        await self.acknowledge()

    def kill(self) -> None:
        """End the process at once. The end of its channel follows."""
        log.warning("a front end does not respond, and is ended")
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        else:
            self._channel.close()  # it has not begun to serve, and ends by itself
            self._end()

    def _on_message(self, message: Message, passed: tuple[int, ...]) -> None:
        facts, grants = dict(message.facts), self._parts.grants
        match message.kind:
            case Kind.WANT:
                grants.want(self._holder, facts)
            case Kind.GONE:
                grants.gone(self._holder, facts)
            case Kind.CLOSED:
                grants.closed(self._holder, facts)
            case Kind.SERVED:
                self._count(facts, message.data)
            case Kind.HAND_OVER:
                self._take(Visitor.of(facts), bytes(message.data), passed[0])
            case Kind.FLUSHED:
                self._parts.counts.add(facts["counts"])
                if (flushed := self._flushes.get(facts["flush"])) is not None and not flushed.done():
                    flushed.set_result(None)
            case Kind.READY:
                self.process = facts["process"]
                (self._pidfd,) = passed
                self.state = FrontEndState.SERVING
                self.is_ready.set_result(None)
            case _:
                log.debug("a front end sent %s", message.kind.name)  # DRAINED: its end follows

    def _count(self, facts: Facts, lines: bytes | memoryview) -> None:
        for record, sent, client, at, seconds, fields in self._records.requests_of(facts, lines):
            self._parts.telemetry.add(record, sent, client, at, seconds, fields)
        self._parts.grants.record_uses(self._holder, facts["uses"])

    def _take(self, visitor: Visitor, first: bytes, descriptor: int) -> None:
        """Serve a connection that the process hands over."""
        handed = socket.socket(fileno=descriptor)
        make = partial(self._parts.make, visitor, first, self._give_back)
        self._parts.listener.adopt(handed, visitor.client, make, is_relayed=visitor.relay is not None)

    def _give_back(self, connection: HandedConnection) -> None:
        """Give a connection back that is at rest."""
        visitor, transport = connection.visitor, connection.transport
        if self.state is not FrontEndState.SERVING or transport is None:
            return
        facts: Facts = {"client": visitor.client, "relay": visitor.relay, "in_vain": visitor.in_vain}
        if visitor.relay is not None:
            self._channel.send(Message(Kind.GIVE_BACK, {**facts, "received": connection.received}))
            return
        self._channel.send(Message(Kind.GIVE_BACK, facts), (transport.get_extra_info("socket").fileno(),))
        transport.abort()  # the copy of the front end keeps the connection open

    def _end(self) -> None:
        """Note that the process has ended, because the kernel has closed its end of the channel."""
        if self.state is FrontEndState.ENDED:
            return
        self.state = FrontEndState.ENDED
        self._parts.grants.leave(self._holder)
        if self._pidfd >= 0:
            os.close(self._pidfd)
        for waiting in (self.is_ready, self.has_ended, *self._flushes.values()):
            if not waiting.done():
                waiting.set_result(None)
        self._on_end(self)


class FrontEnds:
    """All front ends of an owner, `workers` of them."""

    def __init__(self, nursery: Nursery, workers: int, settings: Settings, parts: OwnerParts) -> None:
        self._nursery = nursery
        self.workers = workers
        self._settings = settings
        self._parts = parts
        self._running: list[_FrontEnd] = []
        self._restarts = TaskSet()
        self._delay = RESTART_DELAY_S
        self._is_stopping = False

    async def start(self) -> None:
        """Return once all front ends accept connections. Raises UnusableSetting if one does not."""
        for _ in range(self.workers):
            self._fork()
        starts = [one.is_ready for one in self._running]
        await asyncio.wait(starts, timeout=START_TIMEOUT_S)
        if not all(one.state is FrontEndState.SERVING for one in self._running):
            raise UnusableSetting("a front end does not begin to serve: server.workers = 1 does without", ("server",))

    def adopt(self, settings: Settings) -> None:
        self._settings = settings
        for one in self._running:
            one.adopt(settings)

    async def followed(self) -> None:
        """Wait until no front end begins a response by settings before the present ones."""
        await asyncio.gather(*(one.acknowledge() for one in list(self._running)))

    async def flush(self) -> None:
        """Wait until the owner has counted all requests that have ended."""
        await asyncio.gather(*(one.flush() for one in self._running))

    @property
    def processes(self) -> list[int]:
        """Return the process ids of those that accept connections."""
        return [one.process for one in self._running if one.state is FrontEndState.SERVING]

    def begin_to_drain(self) -> None:
        """Let the owner serve each request that arrives from now on."""
        for one in self._running:
            one.begin_to_drain()

    async def retire(self, timeout: float) -> None:  # noqa: ASYNC109 - of the connections
        """Let all front ends end once their responses have, within `timeout` seconds. No others take their places.

        Returns once none of them begins a further response.
        """
        self._is_stopping = True
        await self._restarts.close()
        await asyncio.gather(*(one.retire(timeout) for one in self._running))

    async def replace_retired(self) -> None:
        """Start others in place of front ends that have retired. Returns once they accept connections, or soon."""
        self._is_stopping = False
        before = len(self._running)
        for _ in range(self.workers):
            self._fork()
        await asyncio.wait([one.is_ready for one in self._running[before:]], timeout=START_TIMEOUT_S)

    async def ended(self) -> None:
        """Wait until all front ends that have retired have ended."""
        if self._running:
            await asyncio.wait([one.has_ended for one in self._running])

    async def stop(self) -> None:
        """Drain all front ends, and end them."""
        self._is_stopping = True
        await self._restarts.close()
        running = list(self._running)
        for one in running:
            one.drain(RESPONSES_TIMEOUT_S)
        if running:
            await asyncio.wait([one.has_ended for one in running], timeout=DRAIN_TIMEOUT_S)
        for one in running:
            if one.state is not FrontEndState.ENDED:
                one.kill()

    def _fork(self) -> None:
        slot = min(set(range(1, SLOTS)) - {one.slot for one in self._running})
        front_end = _FrontEnd(self._nursery, self._parts, slot, self._on_end)
        self._running.append(front_end)
        front_end.configure(self._settings, self._parts.listener.descriptors())

    def _on_end(self, front_end: _FrontEnd) -> None:
        self._running.remove(front_end)
        if (tally := self._parts.connections.tally) is not None:
            tally.clear(front_end.slot)
        if not self._is_stopping:
            self._restarts.start(self._replace(was_ready=front_end.is_ready.done()))

    async def _replace(self, *, was_ready: bool) -> None:
        """Start another front end, later each time that one ends before it accepts connections."""
        self._delay = RESTART_DELAY_S if was_ready else min(MAX_RESTART_DELAY_S, self._delay * 2)
        log.warning("a front end has ended, and another one starts in %g s", self._delay)
        await asyncio.sleep(self._delay)
        self._fork()
