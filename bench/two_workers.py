"""Hits of two front ends beside two workers of nginx, plain and over TLS, and beside one process of each.

Where wrk runs on the same two cores, two workers cannot have twice the rate of one: so the CPU of a hit is a figure of
its own.
"""

import contextlib
import shutil
from pathlib import Path

import over_tls
import processes
import warm
from figures import OURS, Figure, Goal, median
from load import Load, wrk
from processes import Certificate, Subject
from warm import Size

SCENARIO = "server.workers: 2, and two workers of nginx"
SIZES = tuple(size for size in warm.SIZES if size.label in ("16 KiB", "1 MiB"))
PLAIN_GOAL = Goal(1.0, of_peers=True)
TLS_GOAL = Goal(0.8, of_peers=True)
CPU_GOAL = Goal(1.0, of_peers=True)
OVER_ONE_GOAL = 1.7


async def measure(folder: Path, *, with_peers: bool) -> list[Figure]:
    """Measure hits without and with TLS, on an origin of files."""
    figures = await _hits(_home(folder, "plain"), "", None, PLAIN_GOAL, with_peers=with_peers)
    if shutil.which("openssl") is not None:
        figures += await _hits(
            _home(folder, "tls"), ", TLS", await over_tls.certificate(folder), TLS_GOAL, with_peers=with_peers
        )
    return figures


def _home(folder: Path, name: str) -> Path:
    home = folder / name
    home.mkdir()
    return home


async def _hits(
    folder: Path, kind: str, certificate: Certificate | None, goal: Goal, *, with_peers: bool
) -> list[Figure]:
    root = folder / "root"
    warm.write_files(root, SIZES, has_big=False)
    async with contextlib.AsyncExitStack() as stack:
        origin = await stack.enter_async_context(processes.static_origin(folder, root))
        one, two = [
            await stack.enter_async_context(
                processes.bucketfront(
                    _home(folder, f"ours-{workers}"), origin, certificate=certificate, workers=workers
                )
            )
            for workers in (1, 2)
        ]
        compared = [two]
        if with_peers:
            home = _home(folder, "nginx")
            compared += (await stack.enter_async_context(processes.nginx(home, origin, certificate, workers=2)))[:1]
        figures = []
        for size in SIZES:
            figures += await _of_size(size, kind, goal, one, compared)
        return figures


async def _of_size(size: Size, kind: str, goal: Goal, one: Subject, compared: list[Subject]) -> list[Figure]:
    """Let all take turns. `one` is bucketfront without front ends."""
    subjects = [one, *compared]
    for subject in subjects:
        await warm.filled(subject, size.keys)
    found: list[list[Load]] = [[] for _ in subjects]
    for _ in range(warm.ROUNDS):
        for subject, loads in zip(subjects, found, strict=True):
            paths = [subject.path(key) for key in size.keys]
            loads.append(
                await wrk(subject, "get", size.length, paths, connections=32, seconds=warm.SECONDS,
                          body_length=size.length)
            )  # fmt: skip
    named = {subject.name: loads for subject, loads in zip(compared, found[1:], strict=True)}
    figures = warm.rates(SCENARIO, size.label + kind, named, goal)
    figures += warm.cpu_per_request(SCENARIO, f"{size.label}{kind}: CPU of a hit", named, CPU_GOAL)
    times = median([load.rate for load in found[1]]) / (median([load.rate for load in found[0]]) or 1.0)
    figures.append(
        Figure(SCENARIO, f"{size.label}{kind}: rate over that of workers: 1", "", OURS, times, "higher",
               Goal(OVER_ONE_GOAL))
    )  # fmt: skip
    return figures
