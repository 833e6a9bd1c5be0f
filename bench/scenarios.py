"""What is measured, each on a cold cache's object of its own, the same way for every proxy.

Goals are the project's own; the other proxies' figures stand beside them for comparison.
"""

import asyncio
import random
import re
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import content
from content import MIB
from processes import Client, Origin, Subject, clients, program, watched

READERS = 100
JOIN_ROUNDS = 3
SPEED_ROUNDS = 3
BLOCK = 256 << 10  # bytes; `cache.block_size` by default
FAILED = float("inf")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number of one proxy. `is_met`: None where the number has no goal."""

    scenario: str
    what: str
    unit: str
    goal: str | None
    proxy: str
    value: float
    is_met: bool | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every scenario works with. `is_ours`: goals hold for bucketfront only."""

    origin: Origin
    subject: Subject

    @property
    def is_ours(self) -> bool:
        return self.subject.name == "bucketfront"

    def key(self, name: str) -> str:
        return f"{name}-{re.sub('[^a-z]+', '-', self.subject.name)}"

    def figure(
        self,
        scenario: str,
        what: str,
        unit: str,
        value: float,
        goal: tuple[str, Callable[[float], bool]] | None = None,
        **detail: Any,
    ) -> Figure:
        text, holds = goal if goal is not None else (None, None)
        is_met = holds(value) if holds is not None and self.is_ours else None
        return Figure(scenario, what, unit, text, self.subject.name, round(value, 4), is_met, detail)


# --- 1 ---------------------------------------------------------------------------------------------------------


async def crowd(bench: Bench) -> list[Figure]:
    """100 clients ask at once for one cold object of 256 MiB."""
    key, size = bench.key("obj-256-crowd"), 256 * MIB
    async with clients(2) as processes, watched(bench.subject) as memory:
        started = time.perf_counter()
        half = READERS // 2
        results = await asyncio.gather(*(each.get(bench.subject, key, connections=half) for each in processes))
        seconds = time.perf_counter() - started
    count = await bench.origin.settled(key)
    outcomes = [outcome for result in results for outcome in result]
    faults = [outcome["error"] for outcome in outcomes if outcome["error"] is not None]
    asked = Counter(at for _, start, stop in count["requests"] for at in range(start // BLOCK, -(-stop // BLOCK)))
    again = sum(times - 1 for times in asked.values())
    firsts = [outcome["first_byte"] for outcome in outcomes if outcome["first_byte"] is not None]
    name = "1. 100 clients, one cold 256 MiB object"
    right = len(outcomes) - len(faults)
    return [
        bench.figure(name, "origin bytes, of the object", "x", count["sent"] / size,
                     ("at most 1.01", lambda value: value <= 1.01), asked=count["asked"] / size),
        bench.figure(name, "blocks asked again", "", again, ("0", lambda value: value == 0),
                     requests=len(count["requests"])),
        bench.figure(name, "clients with every byte right", "", right,
                     (f"{READERS}", lambda value: value == READERS), faults=sorted(set(faults))[:5]),
        bench.figure(name, "resident memory grows by", "MiB", memory.growth / MIB,
                     ("less than 96", lambda value: value < 96), base=memory.base / MIB),
        bench.figure(name, "anonymous memory grows by", "MiB", memory.anonymous_growth / MIB),
        bench.figure(name, "all clients served in", "s", seconds,
                     first_byte_max=max(firsts, default=None), rate=READERS * size / seconds / 1e9),
    ]  # fmt: skip


# --- 2 ---------------------------------------------------------------------------------------------------------

JOIN_SIZE = 256 * MIB
JOIN_RATE = 20e6  # bytes a second of a connection
JOIN_AT: dict[str, Callable[["Progress"], int]] = {
    "0": lambda _: 0,
    "present": lambda progress: progress.present,
    "just ahead of the parts": lambda progress: progress.ahead,
    "inside a part": lambda progress: progress.inside,
    "10 %": lambda _: JOIN_SIZE // 10,
    "50 %": lambda _: JOIN_SIZE // 2,
    "75 %": lambda _: JOIN_SIZE * 3 // 4,
    "99 %": lambda _: JOIN_SIZE * 99 // 100,
}


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a fill, as the origin sees it: `running` are (start, stop, sent)."""

    running: list[tuple[int, int, int]]
    dice: random.Random

    @property
    def present(self) -> int:
        # Two MiB back: what the origin sent last is on its way.
        lowest = min((start + sent for start, _, sent in self.running), default=JOIN_SIZE)
        return self.dice.randrange(max(1, lowest - 2 * MIB))

    @property
    def ahead(self) -> int:
        return min(max((stop for _, stop, _ in self.running), default=0) + 1, JOIN_SIZE - MIB)

    @property
    def inside(self) -> int:
        start, stop, sent = max(self.running, key=lambda part: part[1] - part[0] - part[2], default=(0, JOIN_SIZE, 0))
        return (start + sent + stop) // 2


async def join(bench: Bench) -> list[Figure]:
    """A second client joins at half of a fill, at offsets of every kind."""
    await bench.origin.set(rate=JOIN_RATE)
    try:
        rounds: list[tuple[str, float, list[str]]] = []
        if bench.is_ours:
            async with clients(2) as pair:
                rounds += [
                    await _join(bench, where, f"{number}", pair[0], pair[1], through=True)
                    for number in range(JOIN_ROUNDS)
                    for where in JOIN_AT
                ]
        else:
            # A fill takes 13 s there: all at once, one round each.
            async with clients(2 * len(JOIN_AT)) as crowd_of:
                pairs = zip(JOIN_AT, crowd_of[::2], crowd_of[1::2], strict=True)
                rounds += await asyncio.gather(
                    *(_join(bench, where, "0", one, two, through=False) for where, one, two in pairs)
                )
    finally:
        await bench.origin.set()
    name = "2. a client joins at 50 % of a fill, origin at 20 MB/s a connection"
    times = [seconds * 1000 for _, seconds, _ in rounds]
    by_place = {
        where: [round(seconds * 1000, 1) for place, seconds, _ in rounds if place == where] for where in JOIN_AT
    }
    faults = [fault for _, _, found in rounds for fault in found]
    return [
        bench.figure(name, "first byte, worst", "ms", max(times), ("less than 100", lambda value: value < 100),
                     rounds=len(rounds), by_place=by_place, faults=faults),
        bench.figure(name, "first byte, median", "ms", statistics.median(times)),
        bench.figure(name, "wrong or broken answers", "", len(faults), ("0", lambda value: value == 0)),
    ]  # fmt: skip


async def _join(
    bench: Bench, where: str, number: str, first: Client, second: Client, *, through: bool
) -> tuple[str, float, list[str]]:
    """Seconds to the second client's first byte, and what went wrong. `through`: the first one reads to the end."""
    place = re.sub(r"[^a-z0-9]+", "-", where).strip("-")
    key = bench.key(f"obj-{JOIN_SIZE // MIB}-join-{place}-{number}")
    limit = None if through else JOIN_SIZE * 6 // 10
    one = asyncio.create_task(first.get(bench.subject, key, limit=limit))
    while (count := await bench.origin.count(key))["sent"] < JOIN_SIZE // 2:
        if one.done():
            return where, FAILED, [f"the fill ended early: {one.result()[0]['error']}"]
        await asyncio.sleep(0.01)
    offset = JOIN_AT[where](Progress(count["running"], random.Random(key)))
    (two,) = await second.get(bench.subject, key, start=offset, limit=min(MIB, JOIN_SIZE - offset))
    outcomes = [*(await one), two]
    faults = [f"{where}: {outcome['error']}" for outcome in outcomes if outcome["error"] is not None]
    return where, FAILED if two["first_byte"] is None else two["first_byte"], faults


# --- 3 ---------------------------------------------------------------------------------------------------------


async def seek(bench: Bench) -> list[Figure]:
    """64 KiB at 900 MiB of a cold object of 1 GiB."""
    key, start = bench.key("obj-1024-seek"), 900 * MIB
    async with clients(1) as (client,):
        (outcome,) = await client.get(bench.subject, key, start=start, stop=start + (64 << 10))
        count = await bench.origin.settled(key)
    name = "3. 64 KiB at 900 MiB of a cold 1 GiB object"
    first = FAILED if outcome["first_byte"] is None else outcome["first_byte"] * 1000
    return [
        bench.figure(name, "fetched from the origin", "MiB", count["sent"] / MIB,
                     ("at most 2", lambda value: value <= 2), asked=count["asked"] / MIB, fault=outcome["error"]),
        bench.figure(name, "first byte", "ms", first),
    ]  # fmt: skip


# --- 4 ---------------------------------------------------------------------------------------------------------

SPEED_RATE = 50e6  # bytes a second of a connection


async def speed(bench: Bench) -> list[Figure]:
    """A cold object of 512 MiB through an origin of 50 MB/s a connection."""
    await bench.origin.set(rate=SPEED_RATE)
    rates: list[float] = []
    requests: list[int] = []
    faults: list[str] = []
    try:
        async with clients(1) as (client,):
            for number in range(SPEED_ROUNDS if bench.is_ours else 1):
                key = bench.key(f"obj-512-speed-{number}")
                (outcome,) = await client.get(bench.subject, key)
                requests.append(len((await bench.origin.count(key))["requests"]))
                rates.append(outcome["received"] / outcome["seconds"] / 1e6)
                faults += [outcome["error"]] if outcome["error"] is not None else []
    finally:
        await bench.origin.set()
    name = "4. a cold 512 MiB object, origin at 50 MB/s a connection"
    goal = ("at least 200", lambda value: value >= 200)
    middle, worst = (0.0, 0.0) if faults else (statistics.median(rates), min(rates))
    return [
        bench.figure(name, "comes through at, median", "MB/s", middle, goal,
                     rounds=[round(rate, 1) for rate in rates], requests=requests, faults=faults),
        bench.figure(name, "comes through at, worst", "MB/s", worst, goal),
    ]  # fmt: skip


# --- 5 ---------------------------------------------------------------------------------------------------------

WARM_SECONDS = 5


async def warm(bench: Bench) -> list[Figure]:
    """Hits, as wrk counts them. No goal."""
    wrk = shutil.which("wrk")
    if wrk is None or bench.subject.prefix == "/slice/":
        return []
    figures = []
    for label, key in (("16 KiB", "obj-16k-warm"), ("1 MiB", "obj-1-warm")):
        url = f"http://127.0.0.1:{bench.subject.port}{bench.subject.path(key)}"
        async with clients(1) as (client,):
            assert content.size_of(key)
            await client.get(bench.subject, key)
        arguments = (wrk, "-t1", "-c32", f"-d{WARM_SECONDS}s", "--latency", url)
        async with program(*arguments, cwd=Path("/")) as process:
            assert process.stdout is not None
            told = (await process.stdout.read()).decode()
        found = re.search(r"Requests/sec:\s+([\d.]+)", told)
        slowest = re.search(r"99%\s+([\d.]+\w+)", told)
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", told)
        figures.append(
            bench.figure(
                "5. warm hits, wrk, 32 connections", f"{label}", "requests/s", float(found[1]) if found else 0.0,
                p99=slowest[1] if slowest else None, errors=bad[0] if bad else None,
            )
        )  # fmt: skip
    return figures


# --- 6 ---------------------------------------------------------------------------------------------------------

TRACE_SIZE = 2048 * MIB
TRACE_SEEKS = 20
TRACE_READ = 2 * MIB  # at each place
TRACE_BUFFER = 256 << 10  # bytes that the client's kernel may hold
TRACE_RATE = 50e6  # bytes a second of a connection to the origin, for open-ended ranges


def _trace() -> list[int]:
    """Where a player reads: the head, the tail where the index is, then wherever its user clicks.

    The order and the open ends are those of `ffmpeg -ss` on an MP4 with its index at the end: `bytes=0-`, the tail,
    the place, each on a connection of its own that is closed early.
    """
    dice = random.Random("seek trace")
    tail = TRACE_SIZE - TRACE_READ + 777
    return [0, tail, *(dice.randrange(TRACE_READ, tail - TRACE_READ) for _ in range(TRACE_SEEKS))]


async def trace(bench: Bench) -> list[Figure]:
    """Head, tail and 20 seeks in a cold object of 2 GiB, as players make them."""
    figures = await _traced(bench, "closed", "closed ranges", is_open=False)
    await bench.origin.set(rate=TRACE_RATE)
    try:
        figures += await _traced(bench, "open", "open-ended, dropped after 2 MiB", is_open=True)
    finally:
        await bench.origin.set()
    return figures


async def _traced(bench: Bench, name: str, what: str, *, is_open: bool) -> list[Figure]:
    key = bench.key(f"obj-{TRACE_SIZE // MIB}-seeks-{name}")
    outcomes = []
    async with clients(1) as (client,):
        for start in _trace():
            stop = min(start + TRACE_READ, TRACE_SIZE)
            end, limit = (None, stop - start) if is_open else (stop, None)
            outcomes += await client.get(bench.subject, key, start=start, stop=end, limit=limit, buffer=TRACE_BUFFER)
        count = await bench.origin.settled(key)
    received = sum(outcome["received"] for outcome in outcomes)
    faults = [outcome["error"] for outcome in outcomes if outcome["error"] is not None]
    firsts = [outcome["first_byte"] for outcome in outcomes if outcome["first_byte"] is not None]
    ratio = FAILED if faults else count["sent"] / received
    scenario = "6. head, tail and 20 seeks of 2 MiB in a cold 2 GiB object"
    return [
        bench.figure(scenario, f"origin bytes of client bytes, {what}", "x", ratio,
                     ("at most 1.3", lambda value: value <= 1.3), received=received, sent=count["sent"],
                     asked=count["asked"], requests=len(count["requests"]), faults=faults[:5],
                     first_byte_median=statistics.median(firsts) if firsts else None),
    ]  # fmt: skip


SCENARIOS = {"1": crowd, "2": join, "3": seek, "4": speed, "5": warm, "6": trace}
