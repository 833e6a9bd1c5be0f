"""A million entries: the time until bucketfront is ready, its memory, and how long upkeep holds its event loop.

`python bench/scale.py [--entries N] [--json]` makes a cache folder as a long run leaves it, and starts `bucketfront
serve` on it. It then runs the cache's own classes on it in a loop of this process, and opens 10,000 idle connections.
The origin is a closed port, because these scenarios never use it. The program ends all it started and removes its
folder.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import scale_folder
import scale_loop
from load import idle_connections
from processes import HERE, START_TIMEOUT_S, free_port, program, resident
from scale_folder import Groups

from bucketfront.config.settings import Settings

MIB = 1 << 20
IDLE = 10_000  # connections
SCENARIO = "scale: {:,} entries"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of bucketfront. `goal` is its highest permitted value."""

    scenario: str
    what: str
    unit: str
    value: float
    goal: float | None = None
    is_met: bool | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def measurement(
    groups: Groups, what: str, unit: str, value: float, goal: float | None = None, **detail: Any
) -> Measurement:
    scenario = SCENARIO.format(groups.entries)
    return Measurement(scenario, what, unit, round(value, 3), goal, None if goal is None else value <= goal, detail)


def config_of(folder: Path, origin: int) -> str:
    return f"""\
server: {{host: 127.0.0.1, port: 0, workers: 1}}
admin: {{host: 127.0.0.1, port: 0}}
origin:
  endpoint_url: http://127.0.0.1:{origin}
  addressing_style: path
  credentials: {{access_key_id: x, secret_access_key: y}}
mounts: [{{path: /, bucket: {scale_folder.BUCKET}}}]
cache: {{dir: {folder}/cache, max_size: 100TiB, min_free: 0, idle_timeout: 1000d}}
access_log: {{path: {folder}/access.log}}
"""


@contextlib.asynccontextmanager
async def serving(folder: Path, origin: int) -> AsyncGenerator[tuple[int, int, float], None]:
    """Yield port, process id, and seconds from the process's start until it was ready. Raises RuntimeError."""
    config, log = folder / "proxy.yaml", folder / "stderr.log"
    config.write_text(config_of(folder, origin))
    began = time.perf_counter()
    async with program(
        sys.executable, "-m", "bucketfront.cli", "serve", "-c", config, cwd=HERE.parent, log=log
    ) as process:
        async with asyncio.timeout(START_TIMEOUT_S):
            # The server prints its addresses once it responds to requests.
            while (found := re.search(r"clients\s+http://[^:]+:(\d+)", log.read_text())) is None:
                if process.returncode is not None:
                    raise RuntimeError(f"bucketfront did not start: {log.read_text()}")
                await asyncio.sleep(0.005)
        yield int(found[1]), process.pid, time.perf_counter() - began


async def outside(folder: Path, origin: int, groups: Groups) -> list[Measurement]:
    """Measure a running `bucketfront serve` from outside."""
    scale_folder.forget(folder / "cache")
    async with serving(folder, origin) as (port, pid, ready):
        await asyncio.sleep(2.0)
        fresh = resident(pid)
        paths = [f"/{scale_folder.key_of(groups, rank)}" for rank in groups.hits[:2000]]
        for path in paths:
            idle_connections(port, path, 1)[0].close()
        used = resident(pid)
        figures = [
            measurement(groups, "ready after", "s", ready, 1.0),
            measurement(groups, "resident memory, started", "MiB", fresh / MIB, 200.0),
            measurement(groups, "resident memory, 2000 of them asked for", "MiB", used / MIB, 200.0),
        ]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        count = min(IDLE, soft - 2000)
        before = resident(pid)
        opened = await asyncio.to_thread(idle_connections, port, paths[0], count)
        await asyncio.sleep(0.5)
        grown = resident(pid)
        for sock in opened:
            sock.close()
        figures.append(
            measurement(groups, f"resident memory with {count} idle connections", "MiB", grown / MIB, 400.0,
                 each_kib=round((grown - before) / count / 1024, 2), limits=(soft, hard))
        )  # fmt: skip
    return figures


async def inside(folder: Path, origin: int, groups: Groups, now: float) -> list[Measurement]:
    """Measure how long the cache's classes hold an event loop."""
    settings = Settings.model_validate(
        {
            "origin": {"endpoint_url": f"http://127.0.0.1:{origin}"},
            "mounts": [{"path": "/", "bucket": scale_folder.BUCKET}],
            "cache": {"dir": str(folder / "cache")},
        }
    )
    cache = folder / "cache"
    figures = []
    gc.collect()
    gc.freeze()  # as `serve` does
    async with scale_loop.opened(cache, settings, groups, now) as bench:
        scale_folder.remember(cache)
        for what, count, forgotten in (("", 5000, False), (", each read from the disk", scale_loop.COLD, True)):
            times = scale_loop.lookups(bench, count, forgotten=forgotten)
            figures += [
                measurement(groups, f"lookup of a cold entry{what}, p50", "us", 1e6 * times.p50, 200.0),
                measurement(
                    groups, f"lookup of a cold entry{what}, p99", "us", 1e6 * times.p99, most_us=1e6 * times.most
                ),
            ]
    works = {
        "idle entries removed": scale_loop.idle,
        "evicted for small misses": scale_loop.reserve_small,
        "evicted for parts of 8 MiB": scale_loop.reserve_parts,
        "evicted for a smaller limit": scale_loop.over,
        "sweep for orphans": scale_loop.sweep,
        "purge by prefix": scale_loop.purge,
        "dry run of a purge by glob": scale_loop.count_by_glob,
        "purge by tag after an upgrade": scale_loop.purge_tag,
        "purge by tag": scale_loop.purge_other_tag,
        "soft purge of all": scale_loop.expire_all,
        "purge of all": scale_loop.purge_all,
    }
    for number, (what, work) in enumerate(works.items()):
        idle_timeout = 1e12
        if number == 0:
            idle_timeout = scale_loop.idle_timeout_for(groups, groups.batch, now)
        async with scale_loop.opened(cache, settings, groups, now, idle_timeout) as bench:
            bench.warm_up()

            async def run(bench: scale_loop.Bench = bench, work: Any = work) -> int:
                return int(await work(bench))

            held = await scale_loop.held_by(run)
            figures.append(
                measurement(
                    groups, f"{what}: longest hold of the loop", "ms", 1e3 * held.longest, 50.0, told=held.summary
                )
            )
    return figures


async def measure(entries: int) -> list[Measurement]:
    groups = Groups(entries, min(10_000, entries // 20))
    origin = free_port()
    folder = Path(tempfile.mkdtemp(prefix="bucketfront-scale-"))
    try:
        now = await asyncio.to_thread(
            scale_folder.make, folder / "cache", f"http://127.0.0.1:{origin}", groups, scale_loop.ORPHANS
        )
        return [*await outside(folder, origin, groups), *await inside(folder, origin, groups, now)]
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    found = asyncio.run(measure(given.entries))
    if given.json:
        print(json.dumps([asdict(each) for each in found]))
        return 0
    for each in found:
        goal = "" if each.goal is None else f"  at most {each.goal:g}: {'met' if each.is_met else 'MISSED'}"
        print(f"{each.what:60} {each.value:10.2f} {each.unit:4}{goal}  {each.detail or ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
