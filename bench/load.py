"""Load on a warm proxy, from wrk with varying request heads, and its cost in the proxy's processes."""

import asyncio
import os
import re
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from processes import HERE, Subject, cpu_seconds, program

RANGE_BYTES = 64 << 10  # bytes of a range, the same as in vary.lua
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
_BYTES = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


@dataclass(frozen=True, slots=True)
class Load:
    """The result of a load.

    `p50` and `p99` are in milliseconds, `cpu` in seconds of all processes of the proxy, `received` in bytes with heads.
    `faults` are errors of any kind in wrk's terms.
    """

    requests: int
    rate: float
    p50: float
    p99: float
    received: float
    cpu: float
    faults: str = ""


def wrk_program() -> str | None:
    return shutil.which("wrk")


async def wrk(
    subject: Subject, mode: str, size: int, objects: list[str], *, connections: int, seconds: float, body_length: int
) -> Load:
    """Run wrk. `mode` and `objects` are as in vary.lua. `body_length` reveals short responses."""
    executable = wrk_program()
    assert executable is not None
    url = subject.url("/")
    often = ("-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency")
    arguments: tuple[str | Path, ...] = (
        executable,
        *often,
        "-s",
        HERE / "vary.lua",
        url,
        "--",
        mode,
        str(size),
        *objects,
    )
    before = cpu_seconds(subject.pid)
    async with program(*arguments, cwd=Path("/")) as process:
        assert process.stdout is not None
        output = (await process.stdout.read()).decode()
    cpu = cpu_seconds(subject.pid) - before
    total = re.search(r"(\d+) requests in [\d.]+s, ([\d.]+)([KMG]?B) read", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if total is None or rate is None:
        return Load(0, 0.0, 0.0, 0.0, 0.0, cpu, output[-300:])
    requests, received = int(total[1]), float(total[2]) * _BYTES[total[3]]
    faults = [found[0] for found in re.finditer(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", output)]
    # requests that are still running at the end count on one side only
    if requests and received / requests < 0.98 * body_length:
        faults.append(f"{received / requests:.0f} bytes an answer, {body_length} expected")
    return Load(
        requests, float(rate[1]), _quantile(output, 50), _quantile(output, 99), received, cpu, "; ".join(faults)
    )


def _quantile(output: str, percent: int) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b", output)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


async def heads(subject: Subject, paths: list[str], *, connections: int, seconds: float) -> Load:
    """Send HEAD requests from a thread of this process, because wrk cannot read their responses."""
    before = cpu_seconds(subject.pid)
    requests, took, faults = await asyncio.to_thread(_heads, subject.port, paths, connections, seconds)
    cpu = cpu_seconds(subject.pid) - before
    return Load(requests, requests / took, 0.0, 0.0, 0.0, cpu, faults)


def _heads(port: int, paths: list[str], connections: int, seconds: float) -> tuple[int, float, str]:
    message = "HEAD {} HTTP/1.1\r\nHost: cdn.example.com\r\nX-Request-Id: {:016x}\r\nCookie: session={:032x}\r\n\r\n"
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    count, bad, started = 0, 0, time.perf_counter()
    try:
        while (took := time.perf_counter() - started) < seconds:
            for number, sock in enumerate(sockets):
                sock.sendall(message.format(paths[(count + number) % len(paths)], count, number).encode())
            for sock in sockets:
                response = sock.recv(8192)
                bad += not (response.startswith(b"HTTP/1.1 200") and response.endswith(b"\r\n\r\n"))
                count += 1
    finally:
        for sock in sockets:
            sock.close()
    return count, took, f"{bad} bad answers" if bad else ""


def idle_connections(port: int, path: str, count: int) -> list[socket.socket]:
    """Open connections that send one request each, and keep them idle."""
    opened = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        sock.recv(1 << 16)
        opened.append(sock)
    return opened


def can_open(count: int) -> bool:
    """Return whether the limit on descriptors permits so many connections."""
    return os.sysconf("SC_OPEN_MAX") > count + 200
