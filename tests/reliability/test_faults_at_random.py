"""Many clients, and an origin that fails, deceives, stalls and changes at random: no wrong byte is ever served."""

import asyncio
import bisect
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from behaviour import FAULTS, SWAPS, AtRandom, honest
from chaos_client import ChaosClient
from chaos_origin import Change, Misdeed
from evidence import Evidence
from history import Record, bytes_checked, violations
from origin_process import OriginProcess
from proxy_process import fork_server
from runs import configuration, seed
from workload import Workload

from bucketfront.cache import CacheMode

CLIENTS = 8
SECONDS, SOAK_SECONDS = 20, 900
SECONDS_OF_OTHER_MODES = 6
PHASE_S = 1.0  # seconds for which a script holds
MAX_FAULTY_KEYS = 4  # most keys, of two dozen, whose origin misbehaves at the same time
TTL = 0.5
STALE_WINDOW_S = 1.0  # seconds past the TTL for which stale entries cover for a failing origin
SLACK_S = 3.0  # seconds by which the response to a fault may come late on a loaded machine
RECOVERY_TIMEOUT_S = 30.0  # seconds: the breaker's pause after a bad phase, on a slow machine


@pytest.fixture
def origin() -> Iterator[OriginProcess]:
    with OriginProcess() as process:
        yield process


@pytest.mark.parametrize("mode", CacheMode)
async def test_faults_at_random(
    mode: CacheMode, tmp_path: Path, origin: OriginProcess, is_soak: bool, evidence: Evidence
) -> None:
    """In each mode no body is mixed, wrong or short, no version is too old or goes backwards, and no write is lost. A
    5xx comes only if the origin misbehaved (I1-I5, I7-I9, I13, I26).
    """
    seconds = SECONDS if mode is CacheMode.SERVE else SECONDS_OF_OTHER_MODES
    await _run(mode, tmp_path, origin, evidence, SOAK_SECONDS if is_soak else seconds, workers=1)


async def test_faults_with_front_ends(tmp_path: Path, origin: OriginProcess, is_soak: bool, evidence: Evidence) -> None:
    """The same holds for two front ends and their owner together (I1-I5, I7-I9, I13, I36)."""
    await _run(CacheMode.SERVE, tmp_path, origin, evidence, SOAK_SECONDS if is_soak else SECONDS, workers=2)


async def _run(
    mode: CacheMode, tmp_path: Path, origin: OriginProcess, evidence: Evidence, seconds: float, *, workers: int
) -> None:
    """Load a proxy with so many workers for some seconds, and check what its clients have seen."""
    chosen = seed()
    rng = random.Random(chosen)
    workload = Workload(rng)
    workload.fill(origin)
    config = configuration(
        tmp_path,
        origin,
        server={"workers": workers},
        origin={"connect_timeout": "500ms", "read_timeout": "1s"},
        cache={"mode": str(mode)},
        freshness={
            "default_ttl": f"{TTL}s",
            "negative_ttl": f"{TTL}s",
            "stale_while_revalidate": f"{STALE_WINDOW_S}s",
            "stale_if_error": f"{STALE_WINDOW_S}s",
        },
    )
    records: list[Record] = []
    async with fork_server() as starter:
        await starter.begin(config)
        address = (await starter.ready()).address
        until = time.monotonic() + seconds
        load = [
            asyncio.create_task(_use(workload, ChaosClient(address, number, records), until))
            for number in range(CLIENTS)
        ]
        while time.monotonic() < until:
            sick = frozenset(rng.sample(workload.objects.keys, rng.randint(0, MAX_FAULTY_KEYS)))
            origin.set_script(AtRandom(rng.getrandbits(32), rng.uniform(0.2, 1), (*FAULTS, *SWAPS), sick))
            await asyncio.sleep(PHASE_S)
        origin.set_script(honest)
        await asyncio.gather(*load)
        await _recovered(workload, ChaosClient(address, CLIENTS, records))
        await starter.kill()
        assert not [line for line in starter.lines if "Traceback" in line], starter.lines
    changes: list[Change] = origin.call("drain_history")
    misdeeds: list[Misdeed] = origin.call("drain_misdeeds")
    excused = _Excuses(misdeeds)
    judged = [record for record in records if not (excused.absence(record) or excused.deletion(record))]
    found = violations(judged, changes, TTL + 2 * STALE_WINDOW_S + SLACK_S)
    assert not found, f"seed {chosen}: {len(found)} violations, the first {found[0]}"
    failed = [record for record in records if record.status >= 500]
    unexcused = [record for record in failed if not excused.failure(record)]
    assert not unexcused, f"seed {chosen}: {len(unexcused)} 5xx while the origin was well, the first {unexcused[0]}"
    evidence.add("requests under origin faults", len(records))
    evidence.add("bytes checked under origin faults", bytes_checked(records))
    evidence.add("requests that the origin failed or lied to", len(misdeeds))
    evidence.add("5xx answers, all of them the origin's", len(failed))
    evidence.add("body bytes of the origin under faults", origin.get("counts")["body bytes"])


async def _use(workload: Workload, client: ChaosClient, until: float) -> None:
    while time.monotonic() < until:
        await workload.step(client)
    await client.close()


async def _recovered(workload: Workload, client: ChaosClient) -> None:
    """Check that once the origin is healthy, every object is soon complete again without help."""
    for key in workload.objects.keys:
        async with asyncio.timeout(RECOVERY_TIMEOUT_S):
            while (await client.get(key)).outcome not in ("done", "absent"):  # noqa: ASYNC110 - each turn is a request
                await asyncio.sleep(0.1)
    await client.close()


class _Excuses:
    """The deviations that the origin's own faults explain."""

    def __init__(self, misdeeds: Iterable[Misdeed]) -> None:
        self._all = _Times()
        self._of_key: defaultdict[str | None, _Times] = defaultdict(_Times)
        self._absences: defaultdict[str | None, _Times] = defaultdict(_Times)
        self._refused_deletes: defaultdict[str | None, _Times] = defaultdict(_Times)
        for misdeed in sorted(misdeeds, key=lambda misdeed: misdeed.began):
            self._all.add(misdeed)
            self._of_key[misdeed.key].add(misdeed)
            if misdeed.behaviour.status == 404:
                (self._refused_deletes if misdeed.method == "DELETE" else self._absences)[misdeed.key].add(misdeed)

    def deletion(self, record: Record) -> bool:
        """Return whether the origin refused a DELETE because there is nothing to delete, which the proxy believes."""
        return record.operation == "DELETE" and self._refused_deletes[record.key].are_around(record, 0)

    def absence(self, record: Record) -> bool:
        """Return whether the origin sent a 404 for an object that existed."""
        return record.outcome == "absent" and self._absences[record.key].are_around(record, TTL + SLACK_S)

    def failure(self, record: Record) -> bool:
        """Return whether the origin misbehaved with that key, or, for a 503, with enough keys to open the breaker, or
        whether it did not run.
        """
        concerned = self._all if record.status == 503 else self._of_key[record.key]
        return concerned.are_around(record, SLACK_S) or self._of_key[None].are_around(record, SLACK_S)


class _Times:
    """The start times of faults, in order, each with the time by which all faults so far had ended."""

    def __init__(self) -> None:
        self._began: list[float] = []
        self._ended: list[float] = []

    def add(self, misdeed: Misdeed) -> None:
        self._began.append(misdeed.began)
        self._ended.append(max(misdeed.ended, self._ended[-1] if self._ended else misdeed.ended))

    def are_around(self, record: Record, lasting: float) -> bool:
        """Return whether one of them, whose effect lasts so many seconds, may concern a request of that time."""
        begun = bisect.bisect_right(self._began, record.end)
        return begun > 0 and self._ended[begun - 1] + lasting >= record.start
