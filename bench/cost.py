"""The CPU time of each kind of request, with access logs off and one process.

A batch of requests, one on each connection, waits while the proxy is stopped. Then the proxy serves the batch. So it
always finds the same work. Short turns alternate, and the least of each proxy counts, because other work of the machine
only adds.

`bench/cost.py` compares builds: each `--python` with each `--tree`. Both are repeatable.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import over_tls
import processes
import warm
from batches import Batches
from figures import Figure, Goal, median
from load import RANGE_BYTES
from processes import Build, Certificate, Subject

SCENARIO = "cost: CPU for each request, no access logs"
TURNS = 30
CONNECTIONS = 64
TURN_BYTES = 16 << 20  # of bodies in a turn
TURN_REQUESTS = 1280
KEYS = 4  # of a size
BIG = warm.Size("256 MiB", 256 << 20, 1, 1.0)
SIZES = (*warm.SIZES[:4], BIG)


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of request. `mode` is one of vary.lua, or `head`."""

    label: str
    mode: str
    size: warm.Size
    body_length: int
    is_tls: bool = False


ROWS = (
    *(Row(size.label, "get", size, size.length) for size in warm.SIZES[:4]),
    Row("64 KiB of 256 MiB", "range", BIG, RANGE_BYTES),
    Row("304", "match", warm.SIZES[1], 0),
    Row("HEAD", "head", warm.SIZES[1], 0),
    *(Row(f"{size.label}, TLS", "get", size, size.length, is_tls=True) for size in warm.SIZES[1:4]),
)


async def measure(
    folder: Path,
    builds: Sequence[Build] = (Build(),),
    rows: Sequence[Row] = ROWS,
    turns: int = TURNS,
    show: Callable[[Sequence[Figure]], object] = len,
) -> list[Figure]:
    """Run the builds and nginx on an origin of files, without and with TLS, and measure the rows.

    `show` gets the figures of each row as soon as they are there.
    """
    if processes.nginx_program() is None:
        return []
    warm.write_files(folder / "root", SIZES, has_big=False)
    figures = []
    async with processes.static_origin(folder, folder / "root") as origin:
        for certificate in (None, await over_tls.certificate(folder)):
            some = [row for row in rows if row.is_tls == (certificate is not None)]
            home = folder / ("plain" if certificate is None else "tls")
            async with _subjects(home, origin, certificate, builds) as found:
                for row in some:
                    new = await _measured(row, found, turns)
                    show(new)
                    figures += new
    return figures


@contextlib.asynccontextmanager
async def _subjects(
    folder: Path, origin: int, certificate: Certificate | None, builds: Sequence[Build]
) -> AsyncGenerator[list[Subject], None]:
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for number, build in enumerate(builds):
            home = folder / str(number)
            home.mkdir(parents=True)
            ours = processes.bucketfront(home, origin, certificate=certificate, access_log="/dev/null", build=build)
            found.append(await stack.enter_async_context(ours))
        (home := folder / "nginx").mkdir()
        found += (await stack.enter_async_context(processes.nginx(home, origin, certificate, "off")))[:1]
        yield found


async def _measured(row: Row, subjects: Sequence[Subject], turns: int) -> list[Figure]:
    costs: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    connections = min(CONNECTIONS, TURN_BYTES // max(1, row.body_length))
    batches = max(1, min(TURN_REQUESTS, TURN_BYTES // max(1, row.body_length)) // connections)
    keys = row.size.keys[:KEYS]
    with contextlib.ExitStack() as stack:
        loads = []
        for subject in subjects:
            await warm.filled(subject, keys)
            etags = [await warm.etag(subject, key) if row.mode == "match" else "" for key in keys]
            objects = list(zip(keys, etags, strict=True))
            load = Batches(subject, row.mode, row.size.length, objects, connections, row.body_length)
            loads.append(stack.enter_context(contextlib.closing(load)))
        await asyncio.sleep(2)
        for turn in range(turns + 1):
            for subject, load in zip(subjects, loads, strict=True):
                cost = await asyncio.to_thread(load.run, batches)
                if turn:  # the first one warms the caches
                    costs[subject.name].append(1e6 * cost / (batches * connections))
    goal = Goal(1.25 if row.is_tls else 1.0, of_peers=True)
    return [
        Figure(SCENARIO, row.label, "us", name, min(found), "lower", goal,
               detail={"turns": [round(cost, 2) for cost in found]})
        for name, found in costs.items()
    ]  # fmt: skip


def _print(figures: Sequence[Figure]) -> None:
    """Print the figures of a row, with their ratio to nginx's."""
    print(figures[0].what)
    for each in figures:
        middle = median(each.detail["turns"])
        print(
            f"  {each.value:8.2f} us  {each.value / figures[-1].value:5.2f}  (median {middle:.2f})  {each.proxy}",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", action="append", help="an interpreter with bucketfront's packages")
    parser.add_argument("--tree", action="append", type=Path, help="a source tree of bucketfront")
    parser.add_argument("--row", action="append", choices=[row.label for row in ROWS])
    parser.add_argument("--turns", type=int, default=TURNS)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    builds = [
        Build(python, tree.absolute(), f"{python} {tree}")
        for python in given.python or [sys.executable]
        for tree in given.tree or [processes.HERE.parent]
    ]
    rows = [row for row in ROWS if given.row is None or row.label in given.row]
    with tempfile.TemporaryDirectory(prefix="bucketfront-cost-") as folder:
        Path(folder).chmod(0o755)
        asyncio.run(measure(Path(folder), builds, rows, given.turns, _print))
    return 0


if __name__ == "__main__":
    sys.exit(main())
