"""Processes of `bucketfront serve` that can be killed: forked from a process with all imports, or started anew.

A fork takes a tenth of a second in place of one second. The forked process runs the command line's own `serve`.

Protocol of the fork server: it prints an empty line once it is ready. A line on stdin names a configuration file, and
the line on stdout is the child's pid. An empty line on stdin makes it wait for the child's end. It then prints GONE on
stderr and an empty line on stdout. The server ends with its stdin, and its child with it.
"""

import asyncio
import ctypes
import os
import random
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

ROOT = Path(__file__).parents[2]
GONE = b"-- gone --\n"
PR_SET_PDEATHSIG = 1
START_TIMEOUT_S = 120.0  # seconds for a start, with other work on the machine

_ADDRESS = re.compile(rb"^  clients +(http\S+)")
_READY = re.compile(rb"^  admin +(http\S+)")


@dataclass
class Running:
    """A proxy that has printed its addresses. `ready_after` is the seconds from its start until then."""

    pid: int
    address: str
    admin_address: str
    ready_after: float


@dataclass
class _Announced:
    """The lines of standard error, for all starts one after the other."""

    stream: asyncio.StreamReader
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=200))

    async def ready(self) -> tuple[str, str]:
        """Wait for the addresses of the client listener and the admin port, and return both."""
        address = None
        while line := await self.stream.readline():
            self.lines.append(line.decode(errors="replace").rstrip())
            if found := _ADDRESS.match(line):
                address = found[1].decode()
            elif address is not None and (found := _READY.match(line)):
                return address, found[1].decode()
        raise AssertionError("the proxy ended at its start: " + " | ".join(self.lines))

    async def end(self) -> None:
        """Skip to the end of the previous proxy's lines."""
        while (line := await self.stream.readline()) not in (GONE, b""):
            self.lines.append(line.decode(errors="replace").rstrip())


class Starter(Protocol):
    """Starts one proxy at a time, and kills it."""

    async def begin(self, config: Path) -> int:
        """Start a proxy and return its pid."""

    async def ready(self) -> Running: ...

    async def kill(self) -> None:
        """Send SIGKILL and wait until the process has ended."""


class ForkServer:
    def __init__(self, server: asyncio.subprocess.Process) -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stderr is not None
        self._stdin = server.stdin
        self._stdout = server.stdout
        self._announced = _Announced(server.stderr)
        self._pid = 0
        self._began = 0.0

    @property
    def lines(self) -> list[str]:
        """Return the last lines of standard error, of all proxies."""
        return list(self._announced.lines)

    async def warm(self) -> None:
        """Wait until the fork server has imported everything."""
        await self._line()

    async def begin(self, config: Path) -> int:
        self._began = time.monotonic()
        self._stdin.write(f"{config}\n".encode())
        self._pid = int(await self._line())
        return self._pid

    async def ready(self) -> Running:
        async with asyncio.timeout(START_TIMEOUT_S):
            addresses = await self._announced.ready()
        return Running(self._pid, *addresses, ready_after=time.monotonic() - self._began)

    async def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._stdin.write(b"\n")
        await self._line()
        await self._announced.end()

    async def _line(self) -> bytes:
        async with asyncio.timeout(START_TIMEOUT_S):
            return await self._stdout.readline()


class FreshStarts:
    """Starts each proxy as `python -m bucketfront.cli serve`."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._began = 0.0

    async def begin(self, config: Path) -> int:
        self._began = time.monotonic()
        command = [sys.executable, "-m", "bucketfront.cli", "serve", "-c", str(config)]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        return self._process.pid

    async def ready(self) -> Running:
        assert self._process is not None
        assert self._process.stderr is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            addresses = await _Announced(self._process.stderr).ready()
        return Running(self._process.pid, *addresses, ready_after=time.monotonic() - self._began)

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def fork_server() -> AsyncIterator[ForkServer]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        __file__,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "proxy"), str(ROOT / "tests")])},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    server = ForkServer(process)
    try:
        await server.warm()
        yield server
    finally:
        process.kill()
        await process.communicate()


def _fork_for_each_line() -> None:
    asyncio.run(_warm_up())
    assert threading.active_count() == 1, "a fork keeps one thread only"
    os.write(1, b"\n")
    pid = 0
    for line in sys.stdin.buffer:
        if name := line.decode().strip():
            pid = os.fork()
            if not pid:
                _serve(name)
            os.write(1, b"%d\n" % pid)
        else:
            os.waitpid(pid, 0)
            os.write(2, b"\n" + GONE)
            os.write(1, b"\n")


async def _warm_up() -> None:
    """Import all that a proxy imports, and let botocore parse the megabyte of JSON that each client needs."""
    from pydantic import SecretStr  # noqa: PLC0415 - the parent of this process needs none of it
    from shared_loader import share_loader  # noqa: PLC0415

    import bucketfront.app  # noqa: F401, PLC0415
    from bucketfront.config.origin_settings import OriginSettings, StaticCredentials  # noqa: PLC0415
    from bucketfront.s3.client import S3Origin  # noqa: PLC0415

    share_loader()
    keys = StaticCredentials(access_key_id=SecretStr("any"), secret_access_key=SecretStr("any"))
    async with S3Origin(OriginSettings(endpoint_url="http://127.0.0.1:9", credentials=keys)):
        pass


def _serve(config: str) -> NoReturn:
    from bucketfront.cli import main  # noqa: PLC0415

    # Linux, prctl(2): this process ends with the fork server.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    random.seed()
    main(["serve", "-c", config])
    os._exit(0)


if __name__ == "__main__":
    _fork_for_each_line()
