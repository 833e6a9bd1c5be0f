"""`kill -9` at random moments under load, again and again, on one cache folder."""

import asyncio
import os
import random
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest
from behaviour import AtRandom, Behaviour
from chaos_client import ChaosClient
from chaos_origin import Change
from evidence import Evidence
from history import Record, bytes_checked, violations
from origin_process import OriginProcess
from process_tree import descendants, has_ended
from proxy_process import FreshStarts, Running, Starter, fork_server
from runs import MAX_SIZE_BYTES, configuration, seed
from stopwatch import on_this_machine
from wire import fetch
from workload import OBJECTS, Workload

CLIENTS = 5
CYCLES, SOAK_CYCLES = 300, 10_000
FRESH_CYCLES, SOAK_FRESH_CYCLES = 6, 100
FRONT_END_CYCLES, SOAK_FRONT_END_CYCLES = 12, 2000
WORKERS = 2
HARMS_PER_S = 8.0  # to processes of front ends, while these serve
WINDOW_CYCLES = 100  # cycles whose records are checked together
START_TIMEOUT_S = 2.0  # seconds from the fork (I14)
SWEEP_TIMEOUT_S = 60.0  # seconds within which a start removes the remains of kills
FRESH_START_TIMEOUT_S = 10.0  # seconds from the start of an interpreter that imports everything, on two loaded cores
GONE_TIMEOUT_S = 10.0  # for the kernel to end the front ends of an owner that was killed
STEP_S = 0.03  # between two disturbances
MAX_LOAD_S = 0.3  # seconds from ready to the kill
FLUSH = b'{"paths": ["/none"], "soft": true}'  # a purge that matches no entry: it flushes the index before its response
KILLED_AT_START_SHARE = 0.15  # share of the cycles that kill the proxy before it is ready
KILLED_AT_WRITE_SHARE = 0.3  # share of the other cycles that kill it right after the response to a write
TTL_S = 3.0  # longer than a start takes, so that entries are still fresh after a kill
FRESHNESS = {
    "default_ttl": f"{TTL_S}s",
    "negative_ttl": f"{TTL_S}s",
    "stale_while_revalidate": 0,
    "stale_if_error": 0,
}
SLACK_S = 10.0  # seconds: on a loaded machine a joined lookup may have begun so long ago


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
    slowest: float = 0.0  # seconds of the slowest start that was not killed
    taken: list[float] = field(default_factory=list)  # seconds of the starts that were not killed
    records: list[Record] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    is_killed: bool = False
    has_front_ends: bool = False
    orphans: list[int] = field(default_factory=list)  # front ends whose owner was killed
    most_space: int = 0  # bytes on disk after a kill
    write_succeeded: asyncio.Event = field(default_factory=asyncio.Event)  # set by each successful write
    last_written: str = OBJECTS.written[0]

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.workload = Workload(self.rng)
        self.workload.fill(self.origin)
        # The origin is healthy but slow at times, so that a kill meets waiting requests and writes.
        self.origin.set_script(AtRandom(self.seed, 0.2, (Behaviour(pause=0.03),)))

    async def run(self, cycles: int, ready: float) -> None:
        """Run so many kills, then check that a proxy serves every byte right."""
        for number in range(1, cycles + 1):
            await self.cycle(ready)
            if number % WINDOW_CYCLES == 0:
                self.check()
            if number % 10 == 0:
                await _ended(self.orphans)
        await self.sweep()
        self.check()
        assert median(self.taken) < on_this_machine(ready), f"seed {self.seed}: most starts took more than {ready:g} s"
        self.evidence.add("kill -9 cycles", cycles)

    async def cycle(self, ready: float) -> None:
        """Start, load and kill a proxy. `ready` is the time limit of a start in seconds.

        No start may use more time of a processor, and most of them are ready in time by the clock as well.
        """
        await self.starter.begin(self.config)
        if self.slowest and self.rng.random() < KILLED_AT_START_SHARE:
            await asyncio.sleep(self.rng.uniform(0, self.slowest))
            await self.starter.kill()
            self.evidence.add("kills before the start had ended")
            return
        running = await self.starter.ready()
        self.slowest = max(self.slowest, running.ready_after)
        self.taken.append(running.ready_after)
        used = _processor_seconds(running.pid)
        assert used < on_this_machine(ready), f"seed {self.seed}: a start used {used:g} s of a processor"
        stats = (await fetch(running.admin_address, "/api/v1/stats")).json()
        self.evidence.add("entries found after kill -9", stats["entries"])
        self.is_killed = False
        load = [asyncio.create_task(self._use(running.address, number)) for number in range(CLIENTS)]
        processes = descendants(running.pid) if self.has_front_ends else []
        await self._disturb_for(running, self.rng.uniform(0, MAX_LOAD_S))
        if self.rng.random() < KILLED_AT_WRITE_SHARE:
            self.write_succeeded.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.write_succeeded.wait(), MAX_LOAD_S)
                self.evidence.add("kills as soon as a write was answered")
        processes += descendants(running.pid) if self.has_front_ends else []
        await self.starter.kill()
        self.most_space = max(self.most_space, _allocated(self.config.parent / "cache"))
        self.is_killed = True
        await asyncio.gather(*load)
        self.orphans += processes

    async def sweep(self) -> None:
        """Get every object once nothing changes and all entries are stale: only current versions are right."""
        await asyncio.sleep(TTL_S)
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
        """Wait until the files without a row are removed and the bound on space holds again (I17)."""
        folder = self.config.parent / "cache"
        async with asyncio.timeout(SWEEP_TIMEOUT_S):
            while _allocated(folder) > MAX_SIZE_BYTES:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.1)

    def check(self) -> None:
        """Check the records. Writes are kept for the next check, because later reads must not be older."""
        self.changes += self.origin.call("drain_history")
        found = violations(self.records, self.changes, TTL_S + SLACK_S)
        assert not found, f"seed {self.seed}: {len(found)} violations, the first {found[0]}"
        failed = [record for record in self.records if record.outcome == "failed"]
        assert not failed, f"seed {self.seed}: 5xx from a healthy origin, the first {failed[0]}"
        self.evidence.add("requests", len(self.records))
        self.evidence.add("bytes checked", bytes_checked(self.records))
        self.records[:] = [record for record in self.records if not record.is_read][-1000:]

    async def _use(self, address: str, number: int) -> None:
        """Send one request after the other until the proxy is killed. A cut response is no sign of a kill."""
        client = ChaosClient(address, number, self.records)
        await client.get(self.last_written)
        while not self.is_killed:
            record = await self.workload.step(client)
            if not record.is_read and record.outcome == "done":
                self.last_written = record.key
                self.write_succeeded.set()
        await client.close()

    async def _disturb_for(self, running: Running, seconds: float) -> None:
        """Change objects at the origin and flush the index more often than its once a second."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.rng.random() < 0.2:
                self.workload.change(self.origin)
                self.evidence.add("versions changed behind the proxy")
            if self.has_front_ends and self.rng.random() < HARMS_PER_S * STEP_S:
                self._harm_front_end(running.pid)
            if self.rng.random() < 0.4:
                headers = {"Content-Type": "application/json"}
                flushed = await fetch(
                    running.admin_address, "/api/v1/purge", method="POST", headers=headers, body=FLUSH
                )
                assert flushed.status == 200, flushed.body
            await asyncio.sleep(min(left, STEP_S))

    def _harm_front_end(self, owner: int) -> None:
        """Kill or stop a front end, or kill the process that forks them. The owner ends one that stays stopped."""
        nursery, *front_ends = descendants(owner) or [0]
        match self.rng.choice(("kill", "stop", "nursery")):
            case "kill" if front_ends:
                os.kill(self.rng.choice(front_ends), signal.SIGKILL)
                self.evidence.add("front ends killed")
            case "stop" if front_ends:
                os.kill(self.rng.choice(front_ends), signal.SIGSTOP)
                self.evidence.add("front ends stopped")
            case "nursery" if nursery:
                os.kill(nursery, signal.SIGKILL)
                self.evidence.add("all front ends killed at once")


async def _ended(processes: list[int]) -> None:
    """Wait until the kernel has ended all processes, as it has to after the end of their owner."""
    async with asyncio.timeout(GONE_TIMEOUT_S):
        while not all(map(has_ended, processes)):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)


def _processor_seconds(pid: int) -> float:
    """Return the processor time of a process, in user and kernel mode (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _allocated(folder: Path) -> int:
    """Return the bytes on the disk. A running proxy may remove files meanwhile."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            at = path.lstat()
            found += at.st_blocks * 512 if stat.S_ISREG(at.st_mode) else 0
    return found


async def test_kill_again_and_again(tmp_path: Path, origin: OriginProcess, is_soak: bool, evidence: Evidence) -> None:
    """After each `kill -9` the next start works without help and is ready in 2 s. No client ever gets a wrong byte, a
    short body, or a version older than permitted (I1-I5, I7, I8, I14).
    """
    async with fork_server() as starter:
        killing = Killing(starter, origin, configuration(tmp_path, origin, freshness=FRESHNESS), evidence, seed())
        await killing.run(SOAK_CYCLES if is_soak else CYCLES, START_TIMEOUT_S)
        evidence.add("slowest start after kill -9, ms", round(killing.slowest * 1000))
        evidence.add("most bytes on disk between kills", killing.most_space)
        assert not [line for line in starter.lines if "Traceback" in line], starter.lines


async def test_kill_the_command(tmp_path: Path, origin: OriginProcess, is_soak: bool, evidence: Evidence) -> None:
    """The same holds for the command as a user starts it (I14)."""
    starter = FreshStarts()
    killing = Killing(starter, origin, configuration(tmp_path, origin, freshness=FRESHNESS), evidence, seed())
    try:
        await killing.run(SOAK_FRESH_CYCLES if is_soak else FRESH_CYCLES, FRESH_START_TIMEOUT_S)
    finally:
        await starter.kill()
    evidence.add("slowest start of the command after kill -9, ms", round(killing.slowest * 1000))


async def test_kill_with_front_ends(tmp_path: Path, origin: OriginProcess, is_soak: bool, evidence: Evidence) -> None:
    """The same holds with front ends, some of which are killed or stopped meanwhile. All of them end with their owner,
    and the next start needs no wait (I1, I5, I6, I14, I27, I36).
    """
    config = configuration(tmp_path, origin, freshness=FRESHNESS, server={"workers": WORKERS})
    async with fork_server() as starter:
        killing = Killing(starter, origin, config, evidence, seed(), has_front_ends=True)
        await killing.run(SOAK_FRONT_END_CYCLES if is_soak else FRONT_END_CYCLES, FRESH_START_TIMEOUT_S)
        assert not [line for line in starter.lines if "Traceback" in line], starter.lines
