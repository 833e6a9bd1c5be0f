"""Four front ends that serve hits from leases: how long a purge waits for them, and what they cost."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import processes
import two_workers
import warm
from figures import OURS, Figure, Goal, median
from load import wrk, wrk_program
from processes import Subject

SCENARIO = "server.workers: 4"
WORKERS = 4
SIZE = warm.SIZES[1]
PURGES = 100
CLIENTS = 32  # connections, so that each front end has some, whichever the kernel chooses
PURGE_GOAL_MS = 5.0
MEMORY_GOAL_MIB = 40.0


async def measure(folder: Path, *, with_peers: bool) -> list[Figure]:
    """Run the proxy with four front ends on an origin of files, and the comparison of two workers."""
    apart = folder / "two"
    apart.mkdir()
    compared = await two_workers.measure(apart, with_peers=with_peers) if wrk_program() else []
    return compared + await _of_four(folder)


async def _of_four(folder: Path) -> list[Figure]:
    root = folder / "root"
    warm.write_files(root, (SIZE,), has_big=False)
    home = folder / "ours"
    home.mkdir()
    async with _proxy(folder, home, root) as subject:
        await warm.filled(subject, SIZE.keys)
        figures = await asyncio.to_thread(_purges, subject)
        figures += await _hits(subject) if wrk_program() else []
        return figures + _memory(subject)


@contextlib.asynccontextmanager
async def _proxy(folder: Path, home: Path, root: Path) -> AsyncGenerator[Subject, None]:
    async with (
        processes.static_origin(folder, root) as origin,
        processes.bucketfront(home, origin, workers=WORKERS) as subject,
    ):
        yield subject


def _purges(subject: Subject) -> list[Figure]:
    """Purge an object on which all front ends have leases, again and again."""
    path = subject.path(SIZE.keys[0])
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    wish = json.dumps({"paths": [path]})
    took = []
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_connected(subject.port)) for _ in range(CLIENTS)]
        admin = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", subject.admin)))
        for _ in range(PURGES):
            for _ in range(2):  # the first one fills the cache again
                for client in clients:
                    client.sendall(request)
                    _read_response(client)
            began = time.perf_counter()
            admin.request("POST", "/api/v1/purge", wish, {"Content-Type": "application/json"})
            response = admin.getresponse()
            response.read()
            took.append(1000 * (time.perf_counter() - began))
            if response.status != 200:
                raise RuntimeError(f"a purge got {response.status}")
    return [Figure(SCENARIO, "a purge of an object with leases", "ms", OURS, median(took), goal=Goal(PURGE_GOAL_MS))]


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port))


def _read_response(client: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1 << 16)
    start, _, body = head.partition(b"\r\n\r\n")
    found = re.search(rb"\r\nContent-Length: (\d+)", start)
    assert found is not None
    left = int(found[1]) - len(body)
    while left:
        left -= len(client.recv(min(left, 1 << 16)))


async def _hits(subject: Subject) -> list[Figure]:
    """Measure what a hit of the front ends costs the owner, who counts and logs it."""
    paths = [subject.path(key) for key in SIZE.keys]
    before = _seconds_of_owner(subject)
    load = await wrk(subject, "get", SIZE.length, paths, connections=CLIENTS, seconds=warm.SECONDS,
                     body_length=SIZE.length)  # fmt: skip
    await asyncio.sleep(0.5)  # the last batches are reported
    owner = _seconds_of_owner(subject) - before
    count = max(1, load.requests)
    return [
        Figure(SCENARIO, f"a hit of {SIZE.label}: CPU of the owner", "µs", OURS, 1e6 * owner / count),
        Figure(SCENARIO, f"a hit of {SIZE.label}: CPU of all processes", "µs", OURS, 1e6 * load.cpu / count),
    ]


def _seconds_of_owner(subject: Subject) -> float:
    """Return the processor time of the owner alone, in seconds (proc_pid_stat(5))."""
    fields = Path(f"/proc/{subject.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(subject: Subject) -> list[Figure]:
    """Measure the memory of a front end, with its part of what processes share."""
    (nursery,) = _children(subject.pid)
    sizes = [_pss_mib(process) for process in _children(nursery)]
    return [Figure(SCENARIO, "memory of a front end", "MiB", OURS, max(sizes), goal=Goal(MEMORY_GOAL_MIB))]


def _children(process: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _pss_mib(process: int) -> float:
    found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
