"""A bus in memory, for several nodes of one event loop. A test fails it, trims it and takes it back in time."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bucketfront.fleet.bus import MAX_ENTRIES, Batch, BusError, EntryId, Member, Position, StreamEntry


@dataclass
class FakeServer:
    """What all connections share. `clock` is in seconds. While `failure` is set, each call raises it."""

    clock: Callable[[], float]
    entries: list[StreamEntry] = field(default_factory=list)
    end: EntryId = field(default_factory=EntryId)
    added: int = 0
    nodes: dict[str, tuple[Member, float]] = field(default_factory=dict)
    failure: str = ""
    refuses_writes: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, sender: str | None, notice: bytes | None) -> EntryId:
        now = int(self.clock() * 1000)
        later = EntryId(now, 0) if now > self.end.milliseconds else EntryId(self.end.milliseconds, self.end.number + 1)
        self.end = later
        self.added += 1
        self.entries.append(StreamEntry(later, sender, notice))
        self.changed.set()
        return later

    def flush(self) -> None:
        """Forget all, as FLUSHALL does."""
        self.entries.clear()
        self.nodes.clear()
        self.end, self.added = EntryId(), 0


class FakeBus:
    """Implements `Bus`."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def append(self, sender: str, notices: Sequence[bytes]) -> EntryId:
        self._check(writes=True)
        for notice in notices:
            self._server.put(sender, notice)
        return self._server.end

    async def read(self, after: EntryId) -> Batch:
        self._check()
        found = [entry for entry in self._server.entries if entry.at > after][:MAX_ENTRIES]
        return Batch(tuple(found), Position(self._server.end, self._server.added))

    async def wait(self, after: EntryId, seconds: float) -> None:
        self._check()
        if self._server.end <= after:
            self._server.changed.clear()
            try:
                async with asyncio.timeout(min(seconds, 0.01)):
                    await self._server.changed.wait()
            except TimeoutError:
                pass
        self._check()

    async def register(self, member: Member, seconds: float) -> None:
        self._check(writes=True)
        self._server.nodes[member.node] = member, self._server.clock() + seconds

    async def leave(self, node: str) -> None:
        self._check(writes=True)
        self._server.nodes.pop(node, None)

    async def members(self) -> list[Member]:
        self._check()
        now = self._server.clock()
        return sorted(
            (member for member, until in self._server.nodes.values() if until > now), key=lambda one: one.name
        )

    async def close(self) -> None:
        pass

    def _check(self, *, writes: bool = False) -> None:
        if self._server.failure or (writes and self._server.refuses_writes):
            raise BusError(self._server.failure or self._server.refuses_writes)
