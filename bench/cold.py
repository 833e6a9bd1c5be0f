"""Cold objects: a herd, one large object, a seek. All proxies run at once and take turns."""

import asyncio
from collections.abc import Sequence

from content import MIB
from figures import OURS, Figure, Goal, median
from processes import Origin, Subject, clients
from seeks import Bench
from warm import COLD, SLICE, WHOLE

ROUNDS = 3
FAR_ROUNDS = 15
READERS = 100
HERD = 64 * MIB
HERD_RATE = 20e6  # bytes a second of a connection
HERD_DELAY_S = 0.02  # seconds to the first byte
LIMITED = 512 * MIB
LIMITED_RATE = 50e6  # bytes a second of a connection
GIB = 1024 * MIB
FAR = 900 * MIB
PART = 64 << 10


async def herd(origin: Origin, subjects: Sequence[Subject]) -> list[Figure]:
    """Measure 100 clients that request one cold object at once."""
    await origin.set(rate=HERD_RATE, delay=HERD_DELAY_S)
    figures = []
    try:
        for subject in subjects:
            figures += await _herd(Bench(origin, subject))
    finally:
        await origin.set()
    return figures


async def _herd(bench: Bench) -> list[Figure]:
    found: dict[str, list[float]] = {"first_byte": [], "seconds": []}
    sent, faults = [], []
    for number in range(ROUNDS if bench.is_ours else 1):
        key = bench.key(f"obj-{HERD // MIB}-herd-{number}")
        async with clients(2) as pair:
            results = await asyncio.gather(*(each.get(bench.subject, key, connections=READERS // 2) for each in pair))
        outcomes = [outcome for result in results for outcome in result]
        faults += [outcome["error"] for outcome in outcomes if outcome["error"] is not None]
        for what, values in found.items():
            values += [outcome[what] for outcome in outcomes if outcome["error"] is None]
        sent.append((await bench.origin.settled(key))["sent"] / HERD)
    name = "3. 100 clients, one cold object of 64 MiB, origin at 20 MB/s a connection and 20 ms"
    proxy = bench.subject.name
    return [
        Figure(name, "first byte, p50", "ms", proxy, 1000 * _quantile(found["first_byte"], 0.5)),
        Figure(name, "first byte, p99", "ms", proxy, 1000 * _quantile(found["first_byte"], 0.99), "lower",
               Goal(0.1, of_peers=True, peers=(WHOLE,))),
        Figure(name, "completion, p50", "s", proxy, _quantile(found["seconds"], 0.5)),
        Figure(name, "completion, p99", "s", proxy, _quantile(found["seconds"], 0.99)),
        Figure(name, "origin bytes, of the object", "x", proxy, max(sent), "lower", Goal(1.01)),
        Figure(name, "wrong or broken answers", "", proxy, len(faults), "lower", Goal(0.0),
               detail={"faults": sorted(set(faults))[:5]}),
    ]  # fmt: skip


def _quantile(values: list[float], at: float) -> float:
    return sorted(values)[min(len(values) - 1, int(at * len(values)))] if values else float("inf")


async def limited(origin: Origin, subjects: Sequence[Subject]) -> list[Figure]:
    """Measure one client and one cold object, with an origin that limits each connection."""
    await origin.set(rate=LIMITED_RATE)
    rates: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    try:
        for number in range(ROUNDS):
            for subject in subjects:
                bench = Bench(origin, subject)
                if not bench.is_ours and number:
                    continue  # ten seconds each, and always the same result
                key = bench.key(f"obj-{LIMITED // MIB}-limited-{number}")
                rates[subject.name].append(await _rate(subject, key, check=True))
    finally:
        await origin.set()
    return _speeds("a cold 512 MiB, origin at 50 MB/s a connection", rates, Goal(4.0, of_peers=True))


async def unlimited(subjects: Sequence[Subject], what: str = "a cold 1 GiB, origin unlimited") -> list[Figure]:
    """Measure one client and one cold object, with an origin at full speed. `what` names the row."""
    rates: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for number in range(ROUNDS):
        for subject in subjects:
            rates[subject.name].append(await _rate(subject, COLD[number], check=False))
    return _speeds(what, rates, Goal(0.9, of_peers=True))


async def _rate(subject: Subject, key: str, *, check: bool) -> float:
    """Return bytes a second, 0 if anything was wrong."""
    async with clients(1) as (client,):
        (outcome,) = await client.get(subject, key, check=check)
    return 0.0 if outcome["error"] is not None else outcome["received"] / outcome["seconds"]


def _speeds(what: str, rates: dict[str, list[float]], goal: Goal) -> list[Figure]:
    return [
        Figure("4. one client, one cold object", what, "MB/s", name, median(found) / 1e6, "higher", goal,
               detail={"rounds": [round(rate / 1e6, 1) for rate in found]})
        for name, found in rates.items()
    ]  # fmt: skip


async def far(subjects: Sequence[Subject]) -> list[Figure]:
    """Measure 64 KiB at 900 MiB of a cold GiB."""
    times: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    async with clients(1) as (client,):
        for number in range(FAR_ROUNDS):
            for subject in subjects:
                if number >= ROUNDS and subject.name not in (OURS, SLICE):
                    continue  # it fetches the whole object, a second each time
                key = COLD[ROUNDS + number]
                (outcome,) = await client.get(subject, key, start=FAR, stop=FAR + PART, check=False)
                times[subject.name].append(float("inf") if outcome["error"] else outcome["seconds"])
    return [
        Figure("5. 64 KiB at 900 MiB of a cold 1 GiB", "all of it", "ms", name, 1000 * median(found), "lower",
               Goal(1.0, of_peers=True, peers=(SLICE,)), detail={"rounds_ms": [round(1000 * t, 2) for t in found]})
        for name, found in times.items()
    ]  # fmt: skip
