"""A node of the fleet: it announces what becomes invalid here, and applies what becomes invalid elsewhere.

Theory of operation
-------------------
Three tasks run beside the requests. The first follows the stream (`Follower`), and the second adds this node's notices
to it (`Outbox`). The third keeps the node in the register of live ones. Each repeats what fails after a pause.

No request waits for the bus, with two exceptions that are bounded. A purge or write waits up to PUBLISH_TIMEOUT_S until
its notice is in the stream, unless the bus fails anyway. A purge that asks for it waits for all live nodes.

A notice that cannot be added is a debt, which the node's file keeps, so that it survives a kill. As long as the process
lives it has the notices themselves. After a restart it pays with `EVERYTHING_STALE`.

A node counts as live for `ttl_when_lost` after each registration. Beyond that it serves nothing as fresh that S3 has
not confirmed, because its `FreshnessBound` has ended by then. So its acknowledgement is not needed.

A server that lost its memory has an empty register. Then the nodes that were in it before are waited for as well, until
they register again or cease to count as live.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace

from bucketfront.cache import Cache, Invalidation
from bucketfront.errors import StoreError
from bucketfront.fleet.bus import Bus, BusError, EntryId, Member
from bucketfront.fleet.follower import Follower, FollowerFigures
from bucketfront.fleet.node_file import NodeFile, NodeState
from bucketfront.fleet.notice import Signal
from bucketfront.fleet.outbox import Outbox
from bucketfront.task_set import TaskSet

PUBLISH_TIMEOUT_S = 1.0  # for a notice to be in the stream before the response to a purge or write
ACKNOWLEDGE_TIMEOUT_S = 5.0  # for all live nodes to have applied a purge
START_TIMEOUT_S = 2.0  # to read the bus on before the first request is served
STOP_TIMEOUT_S = 2.0  # to add the last notices
RETRY_PAUSE_S = 0.5
MAX_WAIT_S = 1.0  # for an entry; the bound of freshness moves on after it
SAVE_INTERVAL_S = 1.0  # between two writes of the position; entries behind it are applied again after a kill
POLL_S = 0.02  # between two looks at the register, while a purge waits for nodes
SENT_AT_ONCE = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The names of live nodes that have applied all before, and of those that have not."""

    done: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """What operators see. `lag` is in seconds, since the last time at which all changes were known."""

    is_connected: bool
    lag: float
    queued: int
    sent: int
    overflows: int
    follower: FollowerFigures


class Fleet:
    """Implements `Announcer`. `clock` is the cache's, and `ttl_when_lost` is in seconds."""

    def __init__(
        self, bus: Bus, cache: Cache, file: NodeFile, name: str, ttl_when_lost: float, clock: Callable[[], float]
    ) -> None:
        self._bus = bus
        self._cache = cache
        self._file = file
        self._name = name
        self._ttl_when_lost = ttl_when_lost
        self._clock = clock
        self._sender = secrets.token_hex(8)  # of this process: a copy of the node's folder has another one
        self._state: NodeState
        self._outbox = Outbox()
        self._follower = Follower(bus, cache, self._sender, clock)
        self._looks = asyncio.Lock()  # one at the register, whatever the number of purges that wait
        self._tasks = TaskSet()
        self._known: dict[str, tuple[Member, float]] = {}  # nodes of the register, and when they were last in it
        self._has_caught_up = asyncio.Event()
        self._runs = False
        self._last_sent = EntryId()
        self._saved_at = -SAVE_INTERVAL_S
        self._began_at = clock()
        self.reading_failure = ""  # empty while it works
        self.sending_failure = ""
        self.registering_failure = ""

    # --- the announcer of the cache --------------------------------------------------------------------------

    def announce(self, invalidation: Invalidation) -> None:
        self._outbox.add(invalidation)

    async def published(self) -> None:
        if not self.sending_failure:
            try:
                async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                    await self._outbox.emptied(self._outbox.added)
                    return
            except TimeoutError:
                pass
        await self._note_debt(is_indebted=True)

    # --- what callers use --------------------------------------------------------------------------------------

    async def acknowledged(self) -> Acknowledgement:
        """Wait until all live nodes have applied what was announced before, or ACKNOWLEDGE_TIMEOUT_S.

        A node that ceases to be live meanwhile is not waited for any more, and is missing. Raises BusError if the bus
        cannot be used.
        """
        number = self._outbox.add(Signal.ACKNOWLEDGE)
        own = self._state.node
        seen = {own: Member(own, self._name, EntryId())}  # its position is not known before it has registered
        barrier: EntryId | None = None
        has_looked = False
        try:
            async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT_S):
                await self._outbox.emptied(number)
                barrier = self._last_sent
                while True:
                    async with self._looks:
                        live = await self._bus.members()
                    has_looked = True
                    awaited = {own: seen[own]} | self._lost({member.node for member in live})
                    awaited |= {member.node: member for member in live}
                    seen |= awaited
                    if all(member.at >= barrier for member in awaited.values()):
                        break
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            if barrier is None or not has_looked:
                raise BusError(self.sending_failure or "the server does not respond") from None
        members = sorted(seen.values(), key=lambda member: member.name)
        return Acknowledgement(
            tuple(member.name for member in members if member.at >= barrier),
            tuple(member.name for member in members if member.at < barrier),
        )

    def _lost(self, live: Collection[str]) -> dict[str, Member]:
        """Return the nodes that the register had before the server lost it, and that are not `live` again."""
        now, gap_at = self._clock(), self._follower.gap_at
        return {
            node: replace(member, at=EntryId())
            for node, (member, at) in self._known.items()
            if node not in live and at <= gap_at and now - at < self._ttl_when_lost
        }

    @property
    def failure(self) -> str:
        """Return why the bus is not read or takes nothing. Returns nothing while all of it works."""
        return self.reading_failure or self.registering_failure or self.sending_failure

    @property
    def figures(self) -> FleetFigures:
        seen_at = max(self._cache.bound.in_step_at, self._began_at)
        return FleetFigures(
            is_connected=not self.failure,
            lag=max(0.0, self._clock() - seen_at),
            queued=len(self._outbox),
            sent=self._outbox.sent,
            overflows=self._outbox.overflows,
            follower=self._follower.figures,
        )

    # --- the life of the node ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Follow the bus from now on. Waits a short time for what has happened since the last run."""
        self._runs = True
        self._state = self._file.read()
        self._follower.position = self._state.position
        if self._state.is_indebted:
            self._outbox.add(Signal.EVERYTHING_STALE)
        self._cache.announce_to(self)
        self._tasks.start(self._forever(self._follow, "reading_failure"), name="bus: follow")
        self._tasks.start(self._forever(self._send, "sending_failure"), name="bus: send")
        self._tasks.start(self._forever(self._register, "registering_failure"), name="bus: register")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._has_caught_up.wait()
        except TimeoutError:
            log.warning("the bus is not read yet, so objects are served as fresh for bus.ttl_when_lost only")

    async def pause(self) -> None:
        """Stop following and sending, because another process has the node's folder next. `start` goes on.

        Notices that are left are a debt.
        """
        self._runs = False
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                if not self.sending_failure:
                    await self._outbox.emptied(self._outbox.added)
        except TimeoutError:
            pass
        await self._tasks.close()
        self._cache.announce_to(None)
        await self._save(is_indebted=bool(len(self._outbox)))
        self._has_caught_up.clear()

    async def stop(self) -> None:
        """End for good. After `pause` the node is the other process, which stays in the register."""
        if self._runs:
            await self.pause()
            try:
                await self._bus.leave(self._state.node)
            except BusError as error:
                log.info("this proxy stays in the register of the bus for a while: %s", error)
        await self._bus.close()

    # --- the tasks ---------------------------------------------------------------------------------------------

    async def _forever(self, step: Callable[[], Awaitable[None]], failure: str) -> None:
        """Repeat a step. Notes in the attribute `failure` why it fails."""
        while True:
            try:
                await step()
            except BusError as error:
                setattr(self, failure, str(error))
                await asyncio.sleep(RETRY_PAUSE_S)
            except Exception:  # a task that ends would leave the node deaf
                log.exception("the bus: an unexpected error")
                setattr(self, failure, "an unexpected error, which the log has")
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _follow(self) -> None:
        is_last = await self._follower.step(self._register_once)
        self.reading_failure = ""
        position = self._follower.position
        if self._follower.is_certain and position != self._state.position:
            self._state = replace(self._state, position=position)
            if self._clock() - self._saved_at >= SAVE_INTERVAL_S:
                await self._save()
        if is_last and position is not None:
            self._has_caught_up.set()
            await self._bus.wait(position.at, min(MAX_WAIT_S, self._ttl_when_lost / 4))

    async def _send(self) -> None:
        await self._outbox.filled()
        notices = self._outbox.first(SENT_AT_ONCE)
        try:
            self._last_sent = await self._bus.append(self._sender, notices)
        except BusError as error:
            self.sending_failure = str(error)
            await self._note_debt(is_indebted=True)
            raise
        self._outbox.note_sent(notices)
        self.sending_failure = ""
        if not len(self._outbox):
            await self._note_debt(is_indebted=False)

    async def _register(self) -> None:
        await self._register_once()
        self.registering_failure = ""
        async with self._looks:
            live = await self._bus.members()
        now = self._clock()
        known = {node: found for node, found in self._known.items() if now - found[1] < self._ttl_when_lost}
        self._known = known | {member.node: (member, now) for member in live}
        await asyncio.sleep(min(MAX_WAIT_S, self._ttl_when_lost / 4))

    async def _register_once(self) -> None:
        """Register the node with its position, if it has one."""
        position = self._follower.position
        if position is not None and self._follower.is_certain:
            await self._bus.register(Member(self._state.node, self._name, position.at), self._ttl_when_lost)

    # --- the node's file ---------------------------------------------------------------------------------------

    async def _note_debt(self, *, is_indebted: bool) -> None:
        if is_indebted != self._state.is_indebted:
            await self._save(is_indebted=is_indebted)
        else:
            await self._file.written()

    async def _save(self, *, is_indebted: bool | None = None) -> None:
        if is_indebted is not None:
            self._state = replace(self._state, is_indebted=is_indebted)
        self._saved_at = self._clock()
        try:
            await self._file.write(self._state)
        except StoreError as error:
            log.warning("%s", error)
