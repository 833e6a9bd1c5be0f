"""The tests' side of `disk_child.py`: start a proxy in a millisecond, send it requests and orders, kill it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import disk_child
from disk_child import BUCKET, CONTROL, MAX_MESSAGE_BYTES

BLOCK = 64 << 10
PART = 2 * BLOCK
PARALLEL = 2  # parts of one fill
CALL_TIMEOUT_S = 60.0  # seconds after which a call counts as hanging
ROOT = Path(__file__).parents[2]


class Gone(Exception):
    """The proxy's process has ended."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response. `status` is 0 if the connection ended before a head. `is_cut`: the body ended before its declared
    length.
    """

    status: int
    cache_status: str
    body: bytes
    is_cut: bool

    @property
    def is_hit(self) -> bool:
        return self.cache_status.startswith("bucketfront; hit")


CUT = Response(0, "", b"", is_cut=True)


class Proxy:
    """One proxy process. It uses the folders `home/origin` and `home/cache`, or `folder` in place of the latter."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.threads: dict[str, int] = {}
        self.ready = 0.0  # seconds that the start took
        self.refused = ""  # why the start was given up
        self._address = self._admin = ""

    # --- orders --------------------------------------------------------------------------------------------

    def wait_ready(self) -> None:
        """Wait until the proxy is ready.

        Raises Gone if the process ended or gave up the start; `refused` then has the reason.
        """
        message = self._receive()
        if "refused" in message:
            self.refused = message["refused"]
            raise Gone(self.refused)
        self.ready, self._address, self._admin = message["ready"], message["address"], message["admin"]

    def wait_halted(self, where: str) -> None:
        message = self._receive()
        if "refused" in message:
            self.refused = message["refused"]
            raise Gone(self.refused)
        assert message["at"] == where

    def go_on(self) -> None:
        self._send({})

    def do(self, word: str) -> dict[str, Any]:
        """Send an order: `flush`, `step`, `rest` or `age`, which makes all entries idle. Raises Gone."""
        self._send({"do": word})
        message = self._receive()
        assert message["done"] == word
        return message

    def stop(self) -> None:
        """Stop cleanly, as far as the disk permits it."""
        self._send({"do": "stop"})
        self._wait_gone()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let the process do nothing within the block, except to finish a system call that it is in."""
        os.kill(self.threads["main"], signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.threads["main"], signal.SIGCONT)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.threads["main"], signal.SIGKILL)
        self._wait_gone()

    def _wait_gone(self) -> None:
        with contextlib.suppress(Gone):
            while self._receive():
                pass
        # The channel may close a moment before the lock of the folder is released.
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while Path(f"/proc/{self.threads['main']}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def close(self) -> None:
        if self.threads:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.threads["main"], signal.SIGKILL)
        self._channel.close()

    def _send(self, what: dict[str, Any]) -> None:
        try:
            self._channel.sendall(json.dumps(what).encode())
        except BrokenPipeError as error:
            raise Gone("the process ended") from error

    def _receive(self) -> dict[str, Any]:
        message = b""
        with contextlib.suppress(ConnectionResetError):  # the proxy did not read all of the message
            message = self._channel.recv(MAX_MESSAGE_BYTES)
        if not message:
            raise Gone("the process ended")
        received = dict(json.loads(message))
        self.threads = {"main": received["main"], "disk": received["disk"]}
        return received

    # --- requests ------------------------------------------------------------------------------------------

    def get(self, key: str, first: int | None = None, last: int | None = None) -> Response:
        fields = {} if first is None else {"Range": f"bytes={first}-{'' if last is None else last}"}
        return send_request(self._address, "GET", f"/{key}", headers=fields)

    def put(self, key: str, body: bytes) -> Response:
        return send_request(self._address, "PUT", f"/{key}", body=body)

    def purge(self, prefix: str) -> Response:
        body = json.dumps({"prefix": prefix}).encode()
        return send_request(
            self._admin, "POST", "/api/v1/purge", headers={"Content-Type": "application/json"}, body=body
        )

    def is_up(self) -> bool:
        return send_request(self._admin, "GET", "/readyz").status == 200

    def figures(self) -> dict[str, Any]:
        return dict(json.loads(send_request(self._admin, "GET", "/api/v1/stats").body))


class Forks:
    """Starts proxies, and kills all of them at the end of its block. `log` receives their standard error."""

    def __init__(self, log: Path) -> None:
        self._proxies: list[Proxy] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        paths = os.pathsep.join([str(ROOT / "proxy"), str(ROOT / "tests"), str(Path(__file__).parent)])
        with theirs, log.open("ab") as errors:
            wanted = theirs.fileno()
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    f"import os; os.dup2({wanted}, {CONTROL}); import disk_child; disk_child.main()",
                ],
                env={**os.environ, "PYTHONPATH": paths},
                pass_fds=[wanted],
                stderr=errors,
            )

    def start(self, home: Path, *, folder: Path | None = None, wait: bool = True, **changes: Any) -> Proxy:
        """Start a proxy over `home`. `changes` are settings of the cache, or keys of `disk_child.Child`.

        With `wait` the proxy is ready. Raises Gone with the reason if the start was given up.
        """
        (home / "origin").mkdir(parents=True, exist_ok=True)
        spec: dict[str, Any] = {"halts": False, "retry_after": 0.05, "upkeep": 1.0, "short_write": 0}
        cache: dict[str, Any] = {
            "dir": str(folder or home / "cache"), "block_size": BLOCK, "max_size": "64MiB", "min_free": 0,
            "after_disconnect": "finish",
        }  # fmt: skip
        for name, value in changes.items():
            (spec if name in spec else cache)[name] = value
        spec["origin"] = str(home / "origin")
        spec["settings"] = {
            "server": {"port": 0, "workers": 1},
            "admin": {"port": 0},
            "origin": {"endpoint_url": "http://127.0.0.1:9", "part_size": PART, "parallel_parts": PARALLEL},
            "mounts": [{"path": "/", "bucket": BUCKET, "methods": ["GET", "PUT", "DELETE"]}],
            "freshness": {"default_ttl": "1d"},
            "cache": cache,
            "access_log": {"path": str(home / "access.log")},
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(CALL_TIMEOUT_S)
        with theirs:
            socket.send_fds(self._control, [json.dumps(spec).encode()], [theirs.fileno()])
        proxy = Proxy(ours)
        self._proxies.append(proxy)
        if wait:
            proxy.wait_ready()
        return proxy

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for proxy in self._proxies:
            proxy.close()
        self._control.close()
        self._process.wait(CALL_TIMEOUT_S)


def send_request(
    address: str, method: str, target: str, *, headers: dict[str, str] | None = None, body: bytes | None = None
) -> Response:
    """Send one request on a connection of its own."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=CALL_TIMEOUT_S)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        response = connection.getresponse()
    except (ConnectionError, http.client.HTTPException):
        connection.close()
        return CUT
    pieces = []
    try:
        while piece := response.read1(1 << 20):
            pieces.append(piece)
    except (ConnectionError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    found = b"".join(pieces)
    is_cut = len(found) != int(response.headers.get("Content-Length", len(found)))
    return Response(response.status, response.headers.get("Cache-Status", ""), found, is_cut)


def expected(home: Path, key: str) -> bytes:
    """Return the body that the origin has."""
    kept = home / "origin" / key
    return kept.read_bytes() if kept.exists() else disk_child.body_of(key)


def space(folder: Path) -> int:
    """Return the bytes that all files of a folder take on the disk (I17). `st_blocks` counts 512 bytes each."""
    return sum(found.st_blocks * 512 for found in _files(folder))


def _files(folder: Path) -> Iterator[os.stat_result]:
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # the cache evicted it meanwhile
                yield os.lstat(os.path.join(path, name))  # noqa: PTH118 - ten times a second, of many files
