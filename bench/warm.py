"""Hits: their rate, their latency and their cost. All proxies run at once and take turns."""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import content
from content import MIB
from figures import OURS, Figure, Goal, median
from load import RANGE_BYTES, Load, heads, idle_connections, wrk
from processes import BUCKET, Client, Subject, clients, resident

KIB = 1024
GIB = 1024 * MIB
ROUNDS = 3
SECONDS = 2.0
IDLE = 2000  # connections
SLICE = "nginx, slice 1m"
WHOLE = "nginx, whole"


@dataclass(frozen=True, slots=True)
class Size:
    """A size of objects. `goal` is requests a second as a multiple of the best peer's."""

    label: str
    length: int
    count: int
    goal: float

    @property
    def keys(self) -> list[str]:
        return [f"s{self.length}-{number}" for number in range(self.count)]


SIZES = (
    Size("1 KiB", KIB, 16, 1.0),
    Size("16 KiB", 16 * KIB, 16, 1.0),
    Size("100 KiB", 100 * KIB, 16, 1.1),
    Size("1 MiB", MIB, 4, 1.1),
    Size("10 MiB", 10 * MIB, 2, 1.1),
)
BIG = "obj-1024-warm"
COLD = [f"obj-1024-cold-{number}" for number in range(60)]  # other names of the same file


def write_files(root: Path, sizes: Sequence[Size] = SIZES, *, has_big: bool = True) -> None:
    """Write the origin's files with random bytes. The 1 GiB exists once, under several names."""
    folder = root / BUCKET
    folder.mkdir(parents=True)
    dice = random.Random(1)
    for size in sizes:
        for key in size.keys:
            with (folder / key).open("wb") as file:
                for at in range(0, size.length, MIB):
                    file.write(dice.randbytes(min(MIB, size.length - at)))
    if not has_big:
        return
    with (folder / BIG).open("wb") as file:
        for number in range(GIB // MIB):
            file.write(content.block(BIG, number))
    for key in COLD:
        (folder / key).hardlink_to(folder / BIG)
    os.sync()


async def measure(subjects: Sequence[Subject], wanted: Sequence[str]) -> list[Figure]:
    """Measure the scenarios in `wanted`, which may be 1, 2, 6 and 7."""
    whole = [subject for subject in subjects if subject.name != SLICE]
    figures: list[Figure] = []
    if "1" in wanted or "6" in wanted:
        figures += await _sizes(whole)
    if "2" in wanted or "6" in wanted:
        figures += await _ranges(subjects) + await _matches(whole) + await _heads(whole)
    if "6" in wanted:
        figures += await _memory(whole)
    if "7" in wanted:
        figures += await beside_fills(whole, "7. hits of 16 KiB beside two cold fills of 1 GiB")
    return [figure for figure in figures if figure.scenario[0] in wanted]


async def filled(subject: Subject, keys: Sequence[str]) -> None:
    for _ in range(2):
        for key in keys:
            process = await asyncio.create_subprocess_exec(
                "curl", "-sfk", "-o", "/dev/null", subject.url(subject.path(key))
            )
            if await process.wait():
                raise RuntimeError(f"{subject.name} has no {key}")


# --- 1, and its part of 6 --------------------------------------------------------------------------------------


async def _sizes(subjects: Sequence[Subject]) -> list[Figure]:
    figures = []
    for size in SIZES:
        for subject in subjects:
            await filled(subject, size.keys)
        for connections in (32, 256):
            loads: dict[str, list[Load]] = {subject.name: [] for subject in subjects}
            for _ in range(ROUNDS):
                for subject in subjects:
                    paths = [subject.path(key) for key in size.keys]
                    loads[subject.name].append(
                        await wrk(subject, "get", size.length, paths, connections=connections, seconds=SECONDS,
                                  body_length=size.length)
                    )  # fmt: skip
            goal = Goal(size.goal, of_peers=True)
            name = f"1. hits, {connections} connections, varying heads"
            figures += rates(name, size.label, loads, goal)
            if connections == 32 and size.length >= MIB:
                figures += _costs(size.label, loads, size.length)
    return figures


def rates(scenario: str, what: str, loads: dict[str, list[Load]], goal: Goal | None) -> list[Figure]:
    figures = []
    for name, found in loads.items():
        rates = [load.rate for load in found]
        figures.append(
            Figure(scenario, what, "requests/s", name, median(rates), "higher", goal,
                   detail={"rounds": [round(rate) for rate in rates], "p50_ms": median([load.p50 for load in found]),
                           "p99_ms": median([load.p99 for load in found]),
                           "cpu_us_per_request": _cpu_per_request(found),
                           "faults": sorted({load.faults for load in found} - {""})})
        )  # fmt: skip
    return figures


def cpu_per_request(scenario: str, what: str, loads: dict[str, list[Load]], goal: Goal) -> list[Figure]:
    return [Figure(scenario, what, "µs", name, _cpu_per_request(found), goal=goal) for name, found in loads.items()]


def _p99s(scenario: str, what: str, loads: dict[str, list[Load]]) -> list[Figure]:
    return [Figure(scenario, what, "ms", name, median([load.p99 for load in found])) for name, found in loads.items()]


def _cpu_per_request(loads: list[Load]) -> float:
    return median([1e6 * load.cpu / load.requests for load in loads if load.requests])


def _costs(what: str, loads: dict[str, list[Load]], length: int) -> list[Figure]:
    return [
        Figure("6. CPU seconds for each GiB served", what, "s", name, _cpu_per_request(found) / 1e6 * GIB / length,
               "lower", Goal(1.0, of_peers=True))
        for name, found in loads.items()
    ]  # fmt: skip


# --- 2 ---------------------------------------------------------------------------------------------------------


async def _ranges(subjects: Sequence[Subject]) -> list[Figure]:
    for subject in subjects:
        await filled(subject, [BIG])
    loads: dict[str, list[Load]] = {subject.name: [] for subject in subjects}
    for _ in range(ROUNDS):
        for subject in subjects:
            loads[subject.name].append(
                await wrk(
                    subject, "range", GIB, [subject.path(BIG)], connections=32, seconds=SECONDS, body_length=RANGE_BYTES
                )
            )
    goal = Goal(1.0, of_peers=True)
    return [
        *rates("2. ranges, 304s, HEADs; 32 connections", "random 64 KiB of 1 GiB", loads, goal),
        *_costs("random 64 KiB of 1 GiB", loads, RANGE_BYTES),
    ]


async def _matches(subjects: Sequence[Subject]) -> list[Figure]:
    keys = SIZES[1].keys
    loads: dict[str, list[Load]] = {subject.name: [] for subject in subjects}
    objects = {}
    for subject in subjects:
        await filled(subject, keys)
        objects[subject.name] = [f"{subject.path(key)}|{await etag(subject, key)}" for key in keys]
    for _ in range(ROUNDS):
        for subject in subjects:
            loads[subject.name].append(
                await wrk(subject, "match", 0, objects[subject.name], connections=32, seconds=SECONDS, body_length=0)
            )
    return rates("2. ranges, 304s, HEADs; 32 connections", "304", loads, Goal(1.0, of_peers=True))


async def etag(subject: Subject, key: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", subject.port)
    writer.write(f"HEAD {subject.path(key)} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head = (await reader.read()).decode()
    writer.close()
    return next(line.split(": ", 1)[1] for line in head.split("\r\n") if line.lower().startswith("etag:"))


async def _heads(subjects: Sequence[Subject]) -> list[Figure]:
    loads: dict[str, list[Load]] = {subject.name: [] for subject in subjects}
    for _ in range(ROUNDS):
        for subject in subjects:
            paths = [subject.path(key) for key in SIZES[1].keys]
            loads[subject.name].append(await heads(subject, paths, connections=32, seconds=SECONDS))
    return [
        Figure("2. ranges, 304s, HEADs; 32 connections", "HEAD: CPU for each", "us", name, _cpu_per_request(found),
               "lower", Goal(1.0, of_peers=True), detail={"faults": sorted({load.faults for load in found} - {""})})
        for name, found in loads.items()
    ]  # fmt: skip


# --- 6, memory -------------------------------------------------------------------------------------------------


async def _memory(subjects: Sequence[Subject]) -> list[Figure]:
    figures = []
    for subject in subjects:
        before = resident(subject.pid)
        opened = await asyncio.to_thread(idle_connections, subject.port, subject.path(SIZES[0].keys[0]), IDLE)
        await asyncio.sleep(0.5)
        each = (resident(subject.pid) - before) / IDLE / KIB
        for sock in opened:
            sock.close()
        name = "6. resident memory"
        figures += [
            Figure(name, "after all that", "MiB", subject.name, before / MIB),
            Figure(name, f"for each of {IDLE} idle connections", "KiB", subject.name, each),
        ]
    return figures


# --- 7 ---------------------------------------------------------------------------------------------------------

BESIDE_S = 4.0  # seconds
FILLS = 2  # at once


async def beside_fills(subjects: Sequence[Subject], name: str) -> list[Figure]:
    """Measure hits of 16 KiB while two clients read one cold GiB after the other through the same proxy."""
    size = SIZES[1]
    cold = {subject.name: iter(COLD[20:]) for subject in subjects}
    idle: dict[str, list[Load]] = {subject.name: [] for subject in subjects}
    busy: dict[str, list[Load]] = {subject.name: [] for subject in subjects}
    control: list[Load] = []
    filler = next((subject for subject in subjects if subject.name == WHOLE), None)
    for _ in range(ROUNDS):
        for subject in subjects:
            paths = [subject.path(key) for key in size.keys]
            await filled(subject, size.keys)

            async def hits(subject: Subject = subject, paths: list[str] = paths) -> Load:
                return await wrk(
                    subject, "get", size.length, paths, connections=16, seconds=BESIDE_S, body_length=size.length
                )

            idle[subject.name].append(await hits())
            async with _filling(subject, cold[subject.name]):
                busy[subject.name].append(await hits())
            if subject.name == OURS and filler is not None:
                async with _filling(filler, cold[filler.name]):
                    control.append(await hits())
    figures = [*_p99s(name, "p99 alone", idle), *_p99s(name, "p99 beside the fills", busy)]
    if control:
        figures += _p99s(name, "p99 beside another's fills", {OURS: control})
    for subject in subjects:
        times = median([load.p99 for load in busy[subject.name]]) / median([load.p99 for load in idle[subject.name]])
        figures.append(Figure(name, "p99 beside them, over p99 alone", "x", subject.name, times, "lower", Goal(2.0)))
    return figures


@contextlib.asynccontextmanager
async def _filling(subject: Subject, keys: Iterator[str]) -> AsyncGenerator[None, None]:
    async with clients(FILLS) as readers:

        async def fill(client: Client) -> None:
            for key in keys:
                await client.get(subject, key, check=False)

        tasks = [asyncio.create_task(fill(client)) for client in readers]
        await asyncio.sleep(0.05)
        started = time.perf_counter()
        yield
        if any(task.done() and not task.cancelled() for task in tasks):
            print(f"the fills were over before {time.perf_counter() - started:.1f} s", flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
