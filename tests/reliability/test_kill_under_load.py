"""`kill -9` at random moments under load, again and again, on one cache folder."""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from behaviour import AtRandom, Behaviour
from chaos_client import ChaosClient
from chaos_origin import Change
from evidence import Evidence
from history import Record, bytes_checked, violations
from origin_process import OriginProcess
from proxy_process import FreshStarts, Running, Starter, fork_server
from runs import MAX_SIZE, configuration, seed
from wire import fetch
from workload import OBJECTS, Workload

CLIENTS = 5
CYCLES, SOAK_CYCLES = 300, 10_000
FRESH_CYCLES, SOAK_FRESH_CYCLES = 6, 100
WINDOW = 100  # cycles whose records are looked at together
READY = 2.0  # seconds (I14), from the fork on
SWEPT = 20.0  # seconds within which a start has removed what kills left behind
LATE = 0.01  # share of the starts that may take longer: the machine does other things besides
FRESH_READY = 10.0  # seconds from the start of an interpreter on, which imports all of it, two loaded cores included
LONGEST_LOAD = 0.3  # seconds from ready to the kill
FLUSH = (
    b'{"paths": ["/none"], "soft": true}'  # a purge of nothing: what is known goes to the disk before it is answered
)
KILLED_AT_START = 0.15  # share of the cycles in which the proxy does not even get ready
KILLED_AT_WRITE = 0.3  # share of those in which it is killed as soon as a write was answered
TTL = 3.0  # longer than a start takes: what a kill leaves behind is still fresh
FRESHNESS = {
    "default_ttl": f"{TTL}s",
    "negative_ttl": f"{TTL}s",
    "stale_while_revalidate": 0,
    "stale_if_error": 0,
}
SLACK = 3.0  # seconds: a lookup that is joined may have asked the origin so long ago, on a loaded machine


@pytest.fixture
def origin() -> Iterator[OriginProcess]:
    with OriginProcess() as process:
        yield process


@dataclass
class Killing:
    """The cycles of one run."""

    starter: Starter
    origin: OriginProcess
    config: Path
    evidence: Evidence
    seed: int
    rng: random.Random = field(init=False)
    workload: Workload = field(init=False)
    slowest: float = 0.0  # seconds until a proxy that was let live so long was ready
    late: int = 0  # starts that took longer than they may
    records: list[Record] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    is_killed: bool = False
    most_space: int = 0  # bytes on disk after a kill
    answered: asyncio.Event = field(default_factory=asyncio.Event)  # a write
    last_written: str = OBJECTS.written[0]

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.workload = Workload(self.rng)
        self.workload.fill(self.origin)
        # Healthy, and now and then slow: then a kill meets requests and writes that wait.
        self.origin.set_script(AtRandom(self.seed, 0.2, (Behaviour(pause=0.03),)))

    async def run(self, cycles: int, ready: float) -> None:
        """So many kills, and at the end a proxy that has every byte right."""
        for number in range(1, cycles + 1):
            await self.cycle(ready)
            if number % WINDOW == 0:
                self.check()
        await self.sweep()
        self.check()
        assert self.late <= cycles * LATE, f"seed {self.seed}: {self.late} starts took more than {ready:g} s"
        self.evidence.add("kill -9 cycles", cycles)

    async def cycle(self, ready: float) -> None:
        """A start, a load, a kill. `ready`: seconds that a start may take."""
        await self.starter.begin(self.config)
        if self.slowest and self.rng.random() < KILLED_AT_START:
            await asyncio.sleep(self.rng.uniform(0, self.slowest))
            await self.starter.kill()
            self.evidence.add("kills before the start had ended")
            return
        running = await self.starter.ready()
        self.slowest = max(self.slowest, running.ready_after)
        self.late += running.ready_after > ready
        stats = (await fetch(running.admin_address, "/api/v1/stats")).json()
        self.evidence.add("entries found after kill -9", stats["entries"])
        self.is_killed = False
        load = [asyncio.create_task(self._use(running.address, number)) for number in range(CLIENTS)]
        await self._disturb_for(running, self.rng.uniform(0, LONGEST_LOAD))
        if self.rng.random() < KILLED_AT_WRITE:
            self.answered.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.answered.wait(), LONGEST_LOAD)
                self.evidence.add("kills as soon as a write was answered")
        await self.starter.kill()
        self.most_space = max(self.most_space, _allocated(self.config.parent / "cache"))
        self.is_killed = True
        await asyncio.gather(*load)

    async def sweep(self) -> None:
        """All of every object, once nothing changes any more and what was known is stale: the versions of now."""
        await asyncio.sleep(TTL)
        self.changes += self.origin.call("drain_history")
        current = {change.key: change.version for change in self.changes}
        await self.starter.begin(self.config)
        client = ChaosClient((await self.starter.ready()).address, records=self.records)
        for key in self.workload.objects.keys:
            record = await client.get(key)
            assert record.outcome in ("done", "absent"), f"seed {self.seed}: {record}"
            assert record.version == current[key], f"seed {self.seed}: {record}"
        await client.close()
        await self._swept()
        await self.starter.kill()

    async def _swept(self) -> None:
        """Files that kills left without a row are found and removed, and the bound on space holds again (I17)."""
        folder = self.config.parent / "cache"
        async with asyncio.timeout(SWEPT):
            while _allocated(folder) > MAX_SIZE:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.1)

    def check(self) -> None:
        """Writes are kept for the next time: what is read then must not be older."""
        self.changes += self.origin.call("drain_history")
        found = violations(self.records, self.changes, TTL + SLACK)
        assert not found, f"seed {self.seed}: {len(found)} violations, the first {found[0]}"
        failed = [record for record in self.records if record.outcome == "failed"]
        assert not failed, f"seed {self.seed}: 5xx from a healthy origin, the first {failed[0]}"
        self.evidence.add("requests", len(self.records))
        self.evidence.add("bytes checked", bytes_checked(self.records))
        self.records[:] = [record for record in self.records if not record.is_read][-1000:]

    async def _use(self, address: str, number: int) -> None:
        """Requests one after the other, until the proxy is gone. An answer that is cut is no sign of that."""
        client = ChaosClient(address, number, self.records)
        await client.get(self.last_written)
        while not self.is_killed:
            record = await self.workload.step(client)
            if not record.is_read and record.outcome == "done":
                self.last_written = record.key
                self.answered.set()
        await client.close()

    async def _disturb_for(self, running: Running, seconds: float) -> None:
        """Others change objects, and the index is written, which by itself happens once a second."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.rng.random() < 0.2:
                self.workload.change(self.origin)
                self.evidence.add("versions changed behind the proxy")
            if self.rng.random() < 0.4:
                await fetch(running.admin_address, "/api/v1/purge", method="POST", body=FLUSH)
            await asyncio.sleep(min(left, 0.03))


def _allocated(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


async def test_kill_again_and_again(tmp_path: Path, origin: OriginProcess, is_soak: bool, evidence: Evidence) -> None:
    """After each `kill -9` the next start needs nobody and is ready in 2 s, and no client ever sees a wrong byte, a
    short body, or a version older than it may be (I1-I5, I7, I8, I14).
    """
    async with fork_server() as starter:
        killing = Killing(starter, origin, configuration(tmp_path, origin, freshness=FRESHNESS), evidence, seed())
        await killing.run(SOAK_CYCLES if is_soak else CYCLES, READY)
        evidence.add("slowest start after kill -9, ms", round(killing.slowest * 1000))
        evidence.add("most bytes on disk between kills", killing.most_space)
        assert not [line for line in starter.lines if "Traceback" in line], starter.lines


async def test_kill_the_command(tmp_path: Path, origin: OriginProcess, is_soak: bool, evidence: Evidence) -> None:
    """The same with the command as a user starts it (I14)."""
    starter = FreshStarts()
    killing = Killing(starter, origin, configuration(tmp_path, origin, freshness=FRESHNESS), evidence, seed())
    try:
        await killing.run(SOAK_FRESH_CYCLES if is_soak else FRESH_CYCLES, FRESH_READY)
    finally:
        await starter.kill()
    evidence.add("slowest start of the command after kill -9, ms", round(killing.slowest * 1000))
