"""Nodes of a fleet in one event loop: caches over one origin, and a bus in memory. Time passes by the test alone."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from fake_bus import FakeBus, FakeServer
from fake_origin import KEY, FakeOrigin
from fakes import FakeClock
from stopwatch import HANG_S

sys.path.insert(0, str(Path(__file__).parents[1] / "cache"))
from cache_harness import Rig, steady

from bucketfront.fleet.fleet import Fleet
from bucketfront.fleet.node_file import NodeFile
from bucketfront.keys import ObjectKey

GRACE = 10.0
DAY = 86_400.0


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds that the tasks of the nodes bring about."""
    async with asyncio.timeout(HANG_S):
        while not holds():  # noqa: ASYNC110 - there is no such event
            await asyncio.sleep(0.002)


class Node:
    """A cache with its part in the fleet."""

    def __init__(self, rig: Rig, fleet: Fleet) -> None:
        self.rig = rig
        self.cache = rig.cache
        self.fleet = fleet
        self.is_running = True

    async def get(self, key: ObjectKey = KEY) -> bytes:
        return await self.rig.get(key=key)

    @property
    def is_fresh(self) -> bool:
        entry = self.rig.entries.get(KEY)
        return entry is not None and entry.ttl(self.rig.wall()) > 0

    @property
    def is_in_step(self) -> bool:
        """Return whether the node has read to the end of the bus at this time of the test."""
        return self.cache.bound.in_step_at == self.rig.wall()

    async def kill(self) -> None:
        """End as `kill -9` does: nothing is sent, noted or deregistered any more."""
        self.is_running = False
        await self.fleet._tasks.close()
        self.cache.announce_to(None)
        await self.rig.assembly.purges.running.wait()
        await self.rig.flusher.flush()
        self.rig.abandon()


class World:
    """An origin, a bus and a clock, and the nodes that share them. All nodes end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock(1_700_000_000.0)
        self.origin = FakeOrigin()
        self.server = FakeServer(self.clock)
        self.nodes: list[Node] = []

    async def node(self, name: str) -> Node:
        """Start a node, in the folder of that name."""
        rig = Rig(
            self.folder / name, origin=self.origin, clock=self.clock, policy=steady(ttl=DAY), negative_ttl=DAY,
            has_threads=True,
        )  # fmt: skip
        await rig.__aenter__()
        rig.cache.bound.grace = GRACE
        file = NodeFile(lambda: rig.store.folder.fd)
        fleet = Fleet(FakeBus(self.server), rig.cache, file, name, GRACE, self.clock)
        await fleet.start()
        node = Node(rig, fleet)
        self.nodes.append(node)
        return node

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and all nodes read the bus at its end."""
        self.clock.advance(seconds)
        await self.settle()

    async def settle(self) -> None:
        """Wait until all nodes have sent and read all that is there."""
        running = [node for node in self.nodes if node.is_running]
        await eventually(lambda: not any(len(node.fleet._outbox) for node in running))
        self.clock.advance(0.001)
        await eventually(lambda: all(node.is_in_step for node in running))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = [node for node in self.nodes if node.is_running]
        for node in running:
            await node.fleet.stop()
        for node in running:
            if error is None:
                await node.rig.close()
            else:
                node.rig.abandon()
