"""The benchmark: `make bench`, or `bench/run.py [--only N]`.

Starts an origin, bucketfront and (where it is installed) nginx on loopback with their files in a temporary folder,
measures what `scenarios.py` lists, prints each number with its goal, writes `bench/results/latest.json` and
`docs/performance.md`, and ends all it started. Exit status 0: the run worked, whether goals were met or missed.
"""

import argparse
import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import processes
import report
from scenarios import JOIN_ROUNDS, SCENARIOS, Bench, Figure

NEEDED = 12 << 30  # bytes of disk, for all caches of a scenario
NOT_RUN = "not run"


async def measure(chosen: list[str], folder: Path, *, with_nginx: bool) -> list[Figure]:
    figures: list[Figure] = []
    async with processes.origin() as origin:
        for number in chosen:
            for place in ("bucketfront", "nginx") if with_nginx else ("bucketfront",):
                # A process and a cache folder of its own for each: memory and disk are as at a start.
                home = Path(tempfile.mkdtemp(prefix=f"{place}-{number}-", dir=folder))
                async with _subjects(place, home, origin.port) as subjects:
                    for subject in subjects:
                        await origin.reset()
                        figures += await SCENARIOS[number](Bench(origin, subject))
                        print(".", end="", file=sys.stderr, flush=True)
                shutil.rmtree(home)
    print(file=sys.stderr)
    return figures


@contextlib.asynccontextmanager
async def _subjects(place: str, home: Path, origin_port: int) -> AsyncGenerator[list[processes.Subject], None]:
    if place == "nginx":
        async with processes.nginx(home, origin_port) as subjects:
            yield subjects
    else:
        async with processes.bucketfront(home, origin_port) as subject:
            yield [subject]


def nginx_version() -> str:
    executable = processes.nginx_program()
    if executable is None:
        return NOT_RUN
    told = subprocess.run([executable, "-v"], capture_output=True, text=True, check=True)
    return told.stderr.strip().rpartition("/")[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="run this scenario; repeatable")
    parser.add_argument("--no-nginx", action="store_true", help="leave nginx out")
    given = parser.parse_args()
    # SIGTERM unwinds like Ctrl-C, so that every process started here is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    nginx = NOT_RUN if given.no_nginx else nginx_version()
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="bucketfront-bench-") as folder:
        if shutil.disk_usage(folder).free < NEEDED:
            print(f"{folder} has less than {NEEDED >> 30} GiB free; set TMPDIR", file=sys.stderr)
            return 1
        figures = asyncio.run(measure(given.only or list(SCENARIOS), Path(folder), with_nginx=nginx != NOT_RUN))
    facts = {
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "seconds": round(time.time() - started),
        "machine": report.machine(),
        "nginx": nginx,
    }
    print(report.table(figures))
    print(f"nginx: {nginx}; {facts['seconds']} s; {facts['machine']}")
    missed = [f"{figure.what} ({figure.scenario})" for figure in figures if figure.is_met is False]
    print(f"goals missed: {'; '.join(missed) or 'none'}")
    if given.only is None and not given.no_nginx:
        report.write(figures, facts, JOIN_ROUNDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
