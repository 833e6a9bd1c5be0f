"""Readers that join a fill or seek in it, as players do. One proxy after the other."""

import asyncio
import random
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from content import MIB
from figures import FAILED, OURS, Figure, Goal
from processes import Client, Origin, Subject, clients

JOIN_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Bench:
    """The tools of these scenarios."""

    origin: Origin
    subject: Subject

    @property
    def is_ours(self) -> bool:
        return self.subject.name == OURS

    def key(self, name: str) -> str:
        return f"{name}-{re.sub('[^a-z0-9]+', '-', self.subject.name.lower())}"

    def figure(
        self, scenario: str, what: str, unit: str, value: float, at: float | None = None, **detail: object
    ) -> Figure:
        """Return a figure. `at` is its highest permitted value."""
        goal = None if at is None else Goal(at)
        return Figure(scenario, what, unit, self.subject.name, round(value, 4), "lower", goal, detail=detail)


# --- 8 ---------------------------------------------------------------------------------------------------------

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
    """The progress of a fill at the origin. `running` has (start, stop, sent) of each transfer."""

    running: list[tuple[int, int, int]]
    dice: random.Random

    @property
    def present(self) -> int:
        # Two MiB back, because the last bytes that the origin sent are still on their way.
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
    """Let a second client join at half of a fill, at offsets of every kind."""
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
            # A fill takes 13 s there, so all join at once, one round each.
            async with clients(2 * len(JOIN_AT)) as crowd_of:
                pairs = zip(JOIN_AT, crowd_of[::2], crowd_of[1::2], strict=True)
                rounds += await asyncio.gather(
                    *(_join(bench, where, "0", one, two, through=False) for where, one, two in pairs)
                )
    finally:
        await bench.origin.set()
    name = "8. a client joins at 50 % of a fill, origin at 20 MB/s a connection"
    times = [seconds * 1000 for _, seconds, _ in rounds]
    by_place = {
        where: [round(seconds * 1000, 1) for place, seconds, _ in rounds if place == where] for where in JOIN_AT
    }
    faults = [fault for _, _, found in rounds for fault in found]
    return [
        bench.figure(name, "first byte, worst", "ms", max(times), 100.0,
                     rounds=len(rounds), by_place=by_place, faults=faults),
        bench.figure(name, "first byte, median", "ms", statistics.median(times)),
        bench.figure(name, "wrong or broken answers", "", len(faults), 0.0),
    ]  # fmt: skip


async def _join(
    bench: Bench, where: str, number: str, first: Client, second: Client, *, through: bool
) -> tuple[str, float, list[str]]:
    """Return seconds to the second client's first byte, and the error. `through`: the first client reads to the end."""
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


# --- 9 ---------------------------------------------------------------------------------------------------------

TRACE_SIZE = 2048 * MIB
TRACE_SEEKS = 20
TRACE_READ = 2 * MIB  # bytes read at each place
TRACE_BUFFER = 256 << 10  # bytes of the client's receive buffer
TRACE_RATE = 50e6  # bytes a second of a connection to the origin, for open-ended ranges


def _trace() -> list[int]:
    """Return a player's requests: the head, the tail with the index, then each place that its user selects.

    The order and the open ends are those of `ffmpeg -ss` on an MP4 with its index at the end: `bytes=0-`, the tail, the
    place. Each request has a connection of its own that is closed early.
    """
    dice = random.Random("seek trace")
    tail = TRACE_SIZE - TRACE_READ + 777
    return [0, tail, *(dice.randrange(TRACE_READ, tail - TRACE_READ) for _ in range(TRACE_SEEKS))]


async def trace(bench: Bench) -> list[Figure]:
    """Measure head, tail and 20 seeks in a cold object of 2 GiB, as players request them."""
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
    scenario = "9. head, tail and 20 seeks of 2 MiB in a cold 2 GiB object"
    return [
        bench.figure(scenario, f"origin bytes of client bytes, {what}", "x", ratio,
                     1.3, received=received, sent=count["sent"],
                     asked=count["asked"], requests=len(count["requests"]), faults=faults[:5],
                     first_byte_median=statistics.median(firsts) if firsts else None),
    ]  # fmt: skip
