"""Three nodes of a fleet behind HAProxy, while nodes are killed, paused and cut off from the bus at random."""

import asyncio
import itertools
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from behaviour import AtRandom, Behaviour
from bus_link import BusLink
from chaos_client import ChaosClient
from chaos_origin import Change
from evidence import Evidence
from fleet_fronts import NAMES, Node, program_of, running_front
from fleet_history import Announcement, Barrier, announced, known
from fleet_nodes import Member
from held_port import held_port
from history import Record, bytes_checked, violations
from origin_process import OriginProcess
from redis.asyncio import Redis
from redis.exceptions import RedisError
from redis_server import RedisServer
from runs import configuration, seed
from stopwatch import HANG_S
from wire import fetch
from workload import Workload, WorkloadObjects

ROUNDS, SOAK_ROUNDS = 1, 100  # in each of which every kind of fault occurs once
KEPT = 5000  # announcements and purges of the rounds before that count in the next one
TTL_WHEN_LOST_S = 2.0
CLIENTS = 2  # of each node, and of the front
PURGERS = 2
PAUSE_S = 0.01  # of each client between two requests, so that nodes, origin and clients fit on two cores
POLL_S = 0.02
WATCH_PAUSE_S, WATCH_TIMEOUT_S = 0.3, 1.0
TAGS = 4
MAX_ABSENCE_S = TTL_WHEN_LOST_S + 3.0
WORKERS = {"three": 2}  # front ends have copies of what their owner knows

_OWED = tuple(f"owed/{number}" for number in range(8))
_OBJECTS = WorkloadObjects(
    small=(*(f"small/{number}" for number in range(24)), *_OWED),
    large=tuple(f"large/{number}" for number in range(4)),
    written=tuple(f"written/{number}" for number in range(60)),
    small_size=8 << 10,
    large_size=200 << 10,
)
"""Clients write `written`. `_OWED` change while a node is cut off. The others change at S3, and are purged then."""


def _tag(key: str) -> str:
    return f"tag-{_OBJECTS.keys.index(key) % TAGS}"


@pytest.fixture
def origin() -> Iterator[OriginProcess]:
    with OriginProcess() as process:
        yield process


@dataclass(frozen=True, slots=True)
class Absence:
    """From `since` until `until` a node could not read the bus."""

    node: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Purge:
    """A purge with `wait` that has its response. `live` are the nodes of the register then."""

    node: str
    start: float
    end: float
    done: frozenset[str]
    missing: frozenset[str]
    live: frozenset[str]


@dataclass
class World:
    """The fleet, and what was seen of it. Records are by the node that they were sent to, of the front by `front`."""

    rng: random.Random
    origin: OriginProcess
    server: RedisServer
    members: dict[str, Member]
    links: dict[str, BusLink]
    front: str
    evidence: Evidence
    workload: Workload = field(init=False)
    records: dict[str, list[Record]] = field(default_factory=dict)
    stored: dict[str, Record] = field(default_factory=dict)  # the last change of each key that clients do not write
    announcements: list[Announcement] = field(default_factory=list)
    purges: list[Purge] = field(default_factory=list)
    sent: list[Barrier] = field(default_factory=list)  # nodes that had nothing left for the bus
    absences: list[Absence] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    is_over: bool = False

    def __post_init__(self) -> None:
        self.workload = Workload(self.rng, _OBJECTS)
        self.records = {name: [] for name in (*self.members, "front")}
        for key in _OBJECTS.keys:
            self.store(key)

    # --- the load ----------------------------------------------------------------------------------------------

    def client(self, name: str, number: int = 0) -> ChaosClient:
        port = self.members[name].node.port if name in self.members else 0
        return ChaosClient(f"http://127.0.0.1:{port}" if port else self.front, number, self.records[name])

    async def use(self, name: str, number: int) -> None:
        """Send one request after the other."""
        client = self.client(name, number)
        while not self.is_over:
            await self.workload.step(client)
            await asyncio.sleep(PAUSE_S)
        await client.close()

    def store(self, key: str) -> None:
        """Change an object past the proxies."""
        start = time.monotonic()
        version = self.origin.call("store", key, _OBJECTS.size(key, self.rng), x_amz_meta_cache_tag=_tag(key))
        if not key.startswith(("written/", "owed/")):
            self.stored[key] = Record(-1, 0, "PUT", key, start, time.monotonic(), "done", version=version)

    async def purge_on(self) -> None:
        """Change and purge objects through one node after the other."""
        while not self.is_over:
            await self.purge_some()
            await asyncio.sleep(self.rng.uniform(0, 0.2))

    async def purge_some(self) -> None:
        """Change some objects, and purge them by path, prefix, glob, tag or all."""
        key = self.rng.choice(list(self.stored))
        folder, tag = key.partition("/")[0], _tag(key)
        tagged = [key for key in self.stored if _tag(key) == tag]
        below = [key for key in self.stored if key.startswith(folder)]
        kinds: list[tuple[dict[str, Any], list[str]]] = [
            ({"paths": [f"/{key}"]}, [key]),
            ({"tags": [tag]}, tagged),
            ({"prefix": f"/{folder}/"}, below),
            ({"glob": f"/{folder}/*"}, below),
            ({"all": True}, list(self.stored)),
        ]
        wanted, purged = self.rng.choices(kinds, (12, 4, 2, 2, 1))[0]
        for each in self.rng.sample(purged, min(3, len(purged))):
            self.store(each)
        await self.purge(self.rng.choice(list(self.members)), purged, soft=self.rng.random() < 0.5, **wanted)

    async def purge(self, name: str, keys: Sequence[str] = (), **wanted: object) -> Purge | None:
        """Purge with `wait` through a node. Returns None if the node or the bus is away."""
        changes = [self.stored[key] for key in keys]
        start = time.monotonic()
        body, headers = json.dumps(wanted | {"wait": True}).encode(), {"Content-Type": "application/json"}
        address = f"http://127.0.0.1:{self.members[name].node.admin_port}"
        try:
            response = await fetch(address, "/api/v1/purge", method="POST", headers=headers, body=body)
        except (OSError, asyncio.IncompleteReadError):
            return None
        end = time.monotonic()
        if not response.is_complete:
            return None
        assert response.status in (200, 504), response
        self.announcements += [Announcement(name, start, end, change) for change in changes]
        if response.status == 504:
            self.evidence.add("purges without the bus")
            return None
        facts = response.json()
        live = frozenset(await self.live())
        done, missing = frozenset(facts["acknowledged"]), frozenset(facts["unacknowledged"])
        self.purges.append(Purge(name, start, end, done, missing, live))
        self.evidence.add("purges that waited")
        return self.purges[-1]

    async def watch(self) -> None:
        """Look again and again which nodes have nothing left for the bus."""
        while not self.is_over:
            for name, member in self.members.items():
                start = time.monotonic()
                try:
                    async with asyncio.timeout(WATCH_TIMEOUT_S):
                        found = await fetch(f"http://127.0.0.1:{member.node.admin_port}", "/metrics")
                except (OSError, asyncio.IncompleteReadError):
                    continue
                if b"\nbucketfront_bus_queue 0.0\n" in found.body:
                    self.sent.append(Barrier(name, start, time.monotonic(), frozenset()))
            await asyncio.sleep(WATCH_PAUSE_S)

    async def live(self) -> list[str]:
        """Return the nodes that the register has as live. Returns none if the server is away."""
        client: Redis = Redis.from_url(self.server.url, socket_timeout=1.0)
        try:
            found: Any = await client.hvals("bucketfront:nodes")
            seconds, microseconds = await client.time()
        except (OSError, RedisError):
            return []
        finally:
            await client.aclose()
        nodes = [json.loads(value) for value in found]
        return [node["name"] for node in nodes if node["until"] > seconds * 1000 + microseconds / 1000]

    async def round(self) -> None:
        """Let each kind of fault occur under load, and read all objects at the end."""
        self.is_over = False
        load = [asyncio.create_task(self.use(name, number)) for name in self.records for number in range(CLIENTS)]
        load += [asyncio.create_task(self.purge_on()) for _ in range(PURGERS)]
        load.append(asyncio.create_task(self.watch()))
        try:
            await self.disturb()
        finally:
            self.is_over = True
            await asyncio.gather(*load)
        await self.settle()
        await self.sweep()

    # --- what fails --------------------------------------------------------------------------------------------

    async def disturb(self) -> None:
        """Let one thing after the other fail, each kind once."""
        kinds = (
            self._kill,
            self._pause,
            self._cut,
            self._pause_and_trim,
            self._cut_and_kill,
            self._restart_the_bus,
            self._restart,
        )
        for fails in self.rng.sample(kinds, len(kinds)):
            await fails(self.rng.choice(list(self.members)))
            await asyncio.sleep(self.rng.uniform(0, 0.5))

    async def _kill(self, name: str) -> None:
        await asyncio.to_thread(self.members[name].end, signal.SIGKILL)
        async with self._absent(name):
            await asyncio.sleep(self.rng.uniform(0, 1))
        await asyncio.to_thread(self.members[name].start)
        self.evidence.add("nodes killed")

    async def _restart(self, name: str) -> None:
        assert await asyncio.to_thread(self.members[name].end, signal.SIGTERM) == 0
        await asyncio.to_thread(self.members[name].start)
        self.evidence.add("nodes stopped and started")

    async def _pause(self, name: str) -> None:
        self.members[name].send(signal.SIGSTOP)
        try:
            async with self._absent(name):
                await self.purge(self._other(name), paths=["/none"])
                await asyncio.sleep(self.rng.choice((0, MAX_ABSENCE_S - TTL_WHEN_LOST_S)))
        finally:
            self.members[name].send(signal.SIGCONT)
        self.evidence.add("nodes paused")

    def _other(self, name: str) -> str:
        return self.rng.choice([other for other in self.members if other != name])

    async def _pause_and_trim(self, name: str) -> None:
        """Pause a node for longer than the bus keeps notices."""
        self.members[name].send(signal.SIGSTOP)
        try:
            async with self._absent(name):
                await asyncio.sleep(self.rng.uniform(0.3, MAX_ABSENCE_S))
                await self._trim()
        finally:
            self.members[name].send(signal.SIGCONT)
        self.evidence.add("nodes paused for longer than notices are kept")

    async def _cut(self, name: str) -> None:
        """Cut a node off from the bus while another one takes writes, and read what it has of these at the end."""
        keys = self.rng.sample(_OWED, 4)
        await self._read(name, keys)
        self.links[name].cut(hangs=self.rng.random() < 0.5)
        async with self._absent(name):
            await self._write(self._other(name), keys)
            await asyncio.sleep(MAX_ABSENCE_S)
            await self._read(name, keys)
            if self.rng.random() < 0.5:
                await self._trim()
        self.links[name].heal()
        self.evidence.add("nodes cut off from the bus")

    async def _cut_and_kill(self, name: str) -> None:
        """Kill a node whose writes the others do not know, because it is cut off."""
        keys = self.rng.sample(_OWED, 4)
        for other in self.members:
            await self._read(other, keys)
        self.links[name].cut(hangs=self.rng.random() < 0.5)
        async with self._absent(name):
            await self._write(name, keys)
        await asyncio.to_thread(self.members[name].end, signal.SIGKILL)
        self.links[name].heal()
        await asyncio.to_thread(self.members[name].start)
        self.evidence.add("nodes cut off and killed")

    async def _read(self, name: str, keys: Sequence[str]) -> None:
        client = self.client(name)
        for key in keys:
            await client.get(key)
        await client.close()

    async def _write(self, name: str, keys: Sequence[str]) -> None:
        client = self.client(name)
        for key in keys:
            await client.put(key, next(self.workload.versions), _OBJECTS.size(key, self.rng))
        await client.close()

    async def _restart_the_bus(self, _: str) -> None:
        self.server.kill()
        await asyncio.sleep(self.rng.choice((0.3, MAX_ABSENCE_S)))
        await asyncio.to_thread(self.server.start)
        self.evidence.add("restarts of the bus without its entries")

    async def _trim(self) -> None:
        client: Redis = Redis.from_url(self.server.url)
        await client.xtrim("bucketfront:stream", maxlen=0, approximate=False)
        await client.aclose()

    @asynccontextmanager
    async def _absent(self, name: str) -> AsyncIterator[None]:
        since = time.monotonic()
        yield
        self.absences.append(Absence(name, since, time.monotonic()))

    # --- the end -----------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until each node has sent what it had to, and all of them have applied that."""
        for name in (*self.members, *self.members):
            async with asyncio.timeout(HANG_S):
                while True:
                    purge = await self.purge(name, paths=["/none"])
                    if purge is not None and purge.done == set(self.members):
                        break
                    await asyncio.sleep(POLL_S)

    async def sweep(self) -> None:
        """Read each object from each node, and through the front."""
        for name in self.records:
            client = self.client(name)
            for key in _OBJECTS.keys:
                record = await client.get(key)
                assert record.outcome in ("done", "absent"), record
            await client.close()

    def check(self) -> None:
        """Check what was seen since the last call."""
        self._check_purges()
        self.changes += self.origin.call("drain_history")
        for name, records in self.records.items():
            done = [record for record in records if not record.is_read and record.outcome == "done"]
            self.announcements += [announced(record, name if name in self.members else None) for record in done]
        waited = [Barrier(purge.node, purge.start, purge.end, purge.done) for purge in self.purges]
        barriers = sorted((*waited, *self.sent), key=lambda barrier: barrier.end)
        of_nodes = {
            name: known(name, self.announcements, barriers, self.members, TTL_WHEN_LOST_S) for name in self.members
        }
        # What comes through the front is of any node, so what all of them know counts.
        latest = [max(found, key=lambda pair: pair[0]) for found in zip(*of_nodes.values(), strict=True)]
        for name, records in self.records.items():
            judged = records
            if name not in self.members:
                judged = [replace(record, connection=-number) for number, record in enumerate(records)]
            found = violations(judged, self.changes, known=of_nodes.get(name, latest))
            assert not found, f"{name}: {len(found)} violations, the first {found[0]}"
            failed = [record for record in records if record.outcome == "failed"]
            # The front responds with 5xx to a write for a node that is away, and to a read if the machine is too slow.
            assert not failed or name not in self.members, f"{name}: 5xx, the first {failed[0]}"
            self.evidence.add("requests", len(records))
            self.evidence.add("bytes checked", bytes_checked(records))
            records.clear()
        self.evidence.add("changes announced", len(self.announcements))
        del self.announcements[:-KEPT], self.purges[:-KEPT], self.sent[:-KEPT]
        self.absences.clear()

    def _check_purges(self) -> None:
        """No node that was away has acknowledged a purge, and each that was live by the register was named."""
        for purge, absence in itertools.product(self.purges, self.absences):
            if absence.since <= purge.start and purge.end <= absence.until:
                assert absence.node not in purge.done, (purge, absence)
                assert absence.node not in purge.live or absence.node in purge.missing, (purge, absence)
                self.evidence.add("purges that named a node", absence.node in purge.missing)


@asynccontextmanager
async def fleet(folder: Path, origin: OriginProcess, evidence: Evidence, rng: random.Random) -> AsyncIterator[World]:
    """Run a fleet with its bus and its front."""
    async with AsyncExitStack() as stack:
        server = RedisServer(folder)
        stack.callback(server.kill)
        members, links = {}, {}
        for name in NAMES[:3]:
            links[name] = await stack.enter_async_context(BusLink(server.port))
            ports = [stack.enter_context(held_port()) for _ in range(2)]
            members[name] = Member(Node(name, *ports), folder / name)
            stack.callback(members[name].close)
            members[name].folder.mkdir()
            configuration(
                members[name].folder,
                origin,
                server={"port": ports[0], "workers": WORKERS.get(name, 1), "trusted_proxies": ["127.0.0.1/32"]},
                admin={"port": ports[1]},
                bus={
                    "url": f"redis://127.0.0.1:{links[name].port}/0",
                    "node": name,
                    "ttl_when_lost": f"{TTL_WHEN_LOST_S}s",
                },
                freshness={
                    "default_ttl": "1d",
                    "negative_ttl": "1d",
                    "stale_while_revalidate": 0,
                    "stale_if_error": 0,
                },
            )
        await asyncio.gather(*(asyncio.to_thread(member.start) for member in members.values()))
        port = stack.enter_context(held_port())
        nodes = [member.node for member in members.values()]
        stack.enter_context(running_front("HAProxy", port, nodes, folder / "front"))
        yield World(rng, origin, server, members, links, f"http://127.0.0.1:{port}", evidence)
        printed = "".join(member.printed() for member in members.values())
        assert "Traceback" not in printed, printed


async def test_fleet_at_random(tmp_path: Path, origin: OriginProcess, is_soak: bool, evidence: Evidence) -> None:
    """No node serves a wrong byte, or a version that it must know to be replaced, whatever fails meanwhile.

    A write or purge holds at once on its own node, on those that have acknowledged a later purge, and on all others
    once they have not read the bus for `ttl_when_lost`. A node that is away is named (I1-I6, I7, I8, I36).
    """
    program_of("HAProxy")
    chosen = seed()
    rng = random.Random(chosen)
    # The origin is slow at times, so that changes meet reads that have begun.
    origin.set_script(AtRandom(chosen, 0.2, (Behaviour(pause=0.03),)))
    async with fleet(tmp_path, origin, evidence, rng) as world:
        await world.settle()
        for _ in range(SOAK_ROUNDS if is_soak else ROUNDS):
            await world.round()
            world.check()
