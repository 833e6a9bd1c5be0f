"""The benchmark: `make bench`, or `bench/run.py [--only N]`.

The program starts origins, bucketfront and, if installed, nginx and Varnish on loopback with their files in a temporary
folder. It measures the scenarios of `warm.py`, `over_tls.py`, `front_ends.py`, `cold.py`, `cost.py`, `seeks.py`,
`tls_origin.py`, `s3_endpoint.py`, `scale.py` and `uploads.py`, and prints each number with its goal. It writes
`bench/results/latest.json`, `docs/performance.md` and its picture, and ends all it started. Exit status 0: the run
worked, whether goals were met or missed. `front_ends.py` includes `two_workers.py`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import cold
import cost
import front_ends
import over_tls
import processes
import report
import s3_endpoint
import seeks
import tls_origin
import uploads
import warm
from figures import OURS, Figure, Goal, judged
from load import wrk_program

NEEDED_BYTES = 40 << 30  # bytes of disk for all caches of a scenario
SCENARIOS = (
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "cost",
    "s3",
    "scale",
    "tls",
    "tls-origin",
    "uploads",
    "workers",
)
PROGRAMS = {
    "curl": lambda: shutil.which("curl"),
    "nginx-light": processes.nginx_program,
    "varnish": processes.varnish_program,
    "wrk": wrk_program,
}
SCALE = Path(__file__).with_name("scale.py")


def install() -> None:
    """Install what is missing from the system's packages, if that is possible."""
    missing = [name for name, find in PROGRAMS.items() if find() is None]
    if not missing:
        return
    if os.geteuid() or shutil.which("apt-get") is None:
        print(f"not installed, and only root with apt-get can: {', '.join(missing)}", file=sys.stderr)
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", *missing]):
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
            print(f"could not install {', '.join(missing)}", file=sys.stderr)
            return


@contextlib.asynccontextmanager
async def subjects(folder: Path, origin: int, *, with_peers: bool) -> AsyncGenerator[list[processes.Subject], None]:
    """Run all available proxies on this origin, with empty caches."""
    async with contextlib.AsyncExitStack() as stack:
        homes = {name: folder / name for name in ("ours", "nginx", "varnish")}
        for home in homes.values():
            home.mkdir()
        found = [await stack.enter_async_context(processes.bucketfront(homes["ours"], origin))]
        if with_peers and processes.nginx_program():
            found += await stack.enter_async_context(processes.nginx(homes["nginx"], origin))
        if with_peers and processes.varnish_program():
            found.append(await stack.enter_async_context(processes.varnish(homes["varnish"], origin)))
        yield found


async def measure(chosen: list[str], folder: Path, *, with_peers: bool) -> list[Figure]:
    figures: list[Figure] = []
    on_files = [number for number in chosen if number in "124567"]
    if on_files and processes.nginx_program():
        place = _place(folder, "files")
        warm.write_files(place / "root")
        async with (
            processes.static_origin(place, place / "root") as origin,
            subjects(place, origin, with_peers=with_peers) as found,
        ):
            # Cold scenarios come first, because they fill caches and page cache equally for all.
            figures += await cold.unlimited(found) if "4" in chosen else []
            figures += await cold.far(found) if "5" in chosen else []
            figures += await warm.measure(found, chosen) if wrk_program() else []
        shutil.rmtree(place)
    if counted := [number for number in chosen if number in "3489"]:
        async with processes.origin() as counting:
            place = _place(folder, "counted")
            async with subjects(place, counting.port, with_peers=with_peers) as found:
                figures += await cold.herd(counting, found) if "3" in counted else []
                figures += await cold.limited(counting, found) if "4" in counted else []
                for subject in found:
                    bench = seeks.Bench(counting, subject)
                    figures += await seeks.join(bench) if "8" in counted else []
                    figures += await seeks.trace(bench) if "9" in counted else []
            shutil.rmtree(place)
    if "cost" in chosen:
        figures += await cost.measure(_place(folder, "cost"))
    if "tls" in chosen and wrk_program():
        figures += await over_tls.measure(_place(folder, "tls"), with_peers=with_peers)
    if "tls-origin" in chosen:
        figures += await tls_origin.measure(_place(folder, "tls-origin"), with_peers=with_peers)
    if "workers" in chosen and processes.nginx_program() is not None:
        figures += await front_ends.measure(_place(folder, "workers"), with_peers=with_peers)
    if "scale" in chosen and SCALE.exists():
        figures += await asyncio.to_thread(_scale)
    figures += await _on_seaweed(chosen, folder)
    return sorted(judged(figures), key=lambda figure: figure.scenario)


async def _on_seaweed(chosen: list[str], folder: Path) -> list[Figure]:
    figures: list[Figure] = []
    if "s3" in chosen:
        figures += await s3_endpoint.measure(_place(folder, "s3"))
    if "uploads" in chosen:
        uploads.install()
        figures += await uploads.measure(_place(folder, "uploads"))
    return figures


def _place(folder: Path, name: str) -> Path:
    place = folder / name
    place.mkdir()
    return place


def _scale() -> list[Figure]:
    done = subprocess.run([sys.executable, SCALE, "--json"], stdout=subprocess.PIPE, check=True, text=True)
    return [
        Figure(each["scenario"], each["what"], each["unit"], OURS, each["value"], "lower",
               None if each["goal"] is None else Goal(each["goal"]), detail=each["detail"])
        for each in json.loads(done.stdout)
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="run this scenario; repeatable")
    parser.add_argument("--no-peers", action="store_true", help="leave nginx and Varnish out")
    given = parser.parse_args()
    # SIGTERM unwinds like Ctrl-C, so that every process started here is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    install()
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="bucketfront-bench-") as folder:
        Path(folder).chmod(0o755)  # Varnish's child runs as another user
        if shutil.disk_usage(folder).free < NEEDED_BYTES:
            print(f"{folder} has less than {NEEDED_BYTES >> 30} GiB free; set TMPDIR", file=sys.stderr)
            return 1
        chosen = given.only or list(SCENARIOS)
        figures = asyncio.run(measure(chosen, Path(folder), with_peers=not given.no_peers))
    facts = {
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "seconds": round(time.time() - started),
        "machine": report.machine(),
        "nginx": report.version(processes.nginx_program(), "-v"),
        "varnish": report.version(processes.varnish_program(), "-V"),
        "awscli": report.version(uploads.aws_program(), "--version"),
    }
    print(report.table(figures))
    print(f"{facts['seconds']} s; {facts['machine']}")
    missed = [f"{figure.what} ({figure.scenario})" for figure in figures if figure.is_met is False]
    print(f"goals missed: {'; '.join(missed) or 'none'}")
    if given.only is None and not given.no_peers:
        report.write(figures, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
