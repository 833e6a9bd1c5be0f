"""The signals that operators and their tools send to `bucketfront serve`: SIGUSR1, SIGHUP and SIGUSR2."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60.0
HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
CONFIG = """\
server: SERVER
admin: {port: 0}
origin: {endpoint_url: embedded}
mounts: [{path: /, bucket: demo}]
cache: {dir: DIR, max_size: 64MiB, min_free: 0}
access_log: {path: LOG}
"""


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


@dataclass
class Proxy:
    """A `bucketfront serve` of its own process. `errors` has what it wrote to standard error so far."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    errors: bytearray = field(default_factory=bytearray)

    @property
    def log(self) -> Path:
        return self.folder / "access.log"

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def get(self, path: str) -> int:
        return self._status_of(rb"clients", path)

    def admin(self, path: str) -> int:
        return self._status_of(rb"admin", path)

    def _status_of(self, listener: bytes, path: str) -> int:
        found = re.search(listener + rb" +http://(\S+)", self.errors)
        assert found is not None
        connection = http.client.HTTPConnection(found[1].decode(), timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def is_announced(self) -> bool:
        return b"browser" in self.errors

    def runs_its_own_code(self) -> bool:
        """Return whether the interpreter has reached the command, which blocks the signals first."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        blocked = re.search(r"^SigBlk:\s+(\w+)$", status, re.MULTILINE)
        return blocked is not None and all(int(blocked[1], 16) >> (number - 1) & 1 for number in HARMLESS)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.process.wait(TIMEOUT_S)

    def collect(self, stream: IO[bytes]) -> None:
        while chunk := os.read(stream.fileno(), 65536):
            self.errors += chunk


@contextmanager
def running(folder: Path, log: str = "access.log", server: str = "{port: 0, workers: 1}") -> Iterator[Proxy]:
    config = folder / "proxy.yaml"
    path = log if log == "-" else str(folder / log)
    config.write_text(CONFIG.replace("SERVER", server).replace("DIR", str(folder / "cache")).replace("LOG", path))
    command = [sys.executable, "-m", "bucketfront.cli", "serve", "-c", str(config)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUCKETFRONT_")}
    with (
        (folder / "stdout").open("wb") as out,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process,
    ):
        proxy = Proxy(process, folder)
        assert process.stderr is not None
        reader = threading.Thread(target=proxy.collect, args=(process.stderr,))
        reader.start()
        try:
            yield proxy
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(TIMEOUT_S)
            reader.join(TIMEOUT_S)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with running(tmp_path) as started:
        wait_until(started.is_announced)
        yield started


def paths(*logs: Path) -> list[str]:
    return [json.loads(line)["path"] for log in logs for line in log.read_text().splitlines()]


def test_a_rotation_loses_no_line(proxy: Proxy) -> None:
    """While requests run, logs that are renamed before SIGUSR1 have each line exactly once, and new ones follow."""
    stop = threading.Event()
    asked: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            path = f"/none-{len(asked)}"
            assert proxy.get(path) == 404
            asked.append(path)

    client = threading.Thread(target=ask)
    client.start()
    rotated = [proxy.folder / f"access.log.{number}" for number in range(5)]
    for old in rotated:
        wait_until(lambda: proxy.log.exists() and proxy.log.stat().st_size > 0)
        proxy.log.rename(old)
        time.sleep(0.15)  # so that the renamed file still gets lines
        proxy.send(signal.SIGUSR1)
    wait_until(lambda: proxy.log.exists() and proxy.log.stat().st_size > 0)
    stop.set()
    client.join()
    assert proxy.stop() == 0
    assert paths(*rotated, proxy.log) == asked
    assert b"lost" not in proxy.errors


def test_a_log_that_cannot_be_opened_goes_on(proxy: Proxy) -> None:
    """If the path cannot be opened at SIGUSR1, a warning has the reason and the lines go on in the former file."""
    assert proxy.get("/one") == 404
    old = proxy.folder / "old.log"
    proxy.log.rename(old)
    proxy.log.mkdir()
    proxy.send(signal.SIGUSR1)
    wait_until(lambda: b"Is a directory" in proxy.errors)
    assert proxy.get("/two") == 404
    wait_until(lambda: len(paths(old)) == 2)
    proxy.log.rmdir()
    proxy.send(signal.SIGUSR1)
    wait_until(proxy.log.exists)
    assert proxy.get("/three") == 404
    assert proxy.stop() == 0
    assert (paths(old), paths(proxy.log)) == (["/one", "/two"], ["/three"])


def test_standard_output_goes_on(tmp_path: Path) -> None:
    """A log on standard output cannot be reopened: SIGUSR1 leaves a warning, and the lines go on."""
    with running(tmp_path, "-") as proxy:
        wait_until(proxy.is_announced)
        assert proxy.get("/one") == 404
        proxy.send(signal.SIGUSR1)
        wait_until(lambda: b"standard output" in proxy.errors)
        assert proxy.get("/two") == 404
        assert proxy.stop() == 0
        assert paths(tmp_path / "stdout") == ["/one", "/two"]


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGHUP, b"SIGHUP"), (signal.SIGUSR2, b"SIGUSR2")], ids=["SIGHUP", "SIGUSR2"]
)
def test_other_signals_change_nothing(proxy: Proxy, number: signal.Signals, reason: bytes) -> None:
    """SIGHUP and SIGUSR2 leave one line each on standard error, and change nothing."""
    before = len(proxy.errors)
    proxy.send(number)
    wait_until(lambda: reason in proxy.errors[before:])
    assert proxy.get("/sample.mp4") == 200
    assert proxy.stop() == 0
    assert proxy.errors[before:].count(b"\n") == 1
    assert paths(proxy.log) == ["/sample.mp4"]


def test_signals_during_start_and_stop(tmp_path: Path) -> None:
    """No number of these signals ends the process during its start or its stop, which keeps its exit status 0."""
    with running(tmp_path) as proxy:
        wait_until(proxy.runs_its_own_code)

        def flood() -> None:
            for number in HARMLESS:
                os.killpg(proxy.process.pid, number)  # the embedded S3 belongs to the group as well

        def flood_until_announced() -> bool:
            flood()
            return proxy.is_announced()

        wait_until(flood_until_announced)
        assert proxy.get("/sample.mp4") == 200
        proxy.send(signal.SIGTERM)
        while proxy.process.poll() is None:
            flood()
        assert proxy.process.returncode == 0, bytes(proxy.errors)
        assert b"Traceback" not in proxy.errors


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    """The first Ctrl-C begins a stop, and the second one ends the process with exit status 1 and a clear line."""
    with running(tmp_path, server="{port: 0, workers: 1, stop_delay: 1h}") as proxy:
        wait_until(proxy.is_announced)
        proxy.send(signal.SIGINT)
        wait_until(lambda: proxy.admin("/readyz") == 503)
        assert proxy.get("/sample.mp4") == 200
        proxy.send(signal.SIGINT)
        assert proxy.process.wait(TIMEOUT_S) == 1
    assert b"ended at once" in proxy.errors


def test_sighup_applies_a_changed_file(proxy: Proxy) -> None:
    """SIGHUP applies the changed file. A file that is of no use leaves its problem on standard error."""
    config = proxy.folder / "proxy.yaml"
    before = config.read_text()
    config.write_text(before.replace("path: /,", "path: /new/,"))
    proxy.send(signal.SIGHUP)
    wait_until(lambda: b"SIGHUP: reloaded, with other values of mounts[0].path" in proxy.errors)
    assert (proxy.get("/new/sample.mp4"), proxy.get("/sample.mp4")) == (200, 404)
    config.write_text(before + "servre: {}\n")
    proxy.send(signal.SIGHUP)
    wait_until(lambda: b"SIGHUP: not reloaded (invalid)" in proxy.errors)
    assert b"Did you mean server?" in proxy.errors
    assert proxy.get("/new/sample.mp4") == 200
    assert proxy.stop() == 0
