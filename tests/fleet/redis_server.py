"""A real server of Redis or Valkey on a free port of loopback, or none if it is not installed."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

PROGRAMS = ("valkey-server", "redis-server")


class RedisServer:
    """A server with its data in `folder`. `url` is that of database 0."""

    def __init__(
        self, folder: Path, options: Sequence[str] = (), *, port: int | None = None, scheme: str = "redis"
    ) -> None:
        program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
        if program is None:
            pytest.skip("not run: neither valkey-server nor redis-server is installed")
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
