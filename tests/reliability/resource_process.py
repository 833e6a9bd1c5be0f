"""A `bucketfront serve` process with limits, in front of the benchmark's origin, and clients that are plain sockets."""

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent.parent
START_TIMEOUT_S = 60.0  # seconds to start, with other work on the machine
CALL_TIMEOUT_S = 60.0  # seconds after which a call counts as hanging
COMMAND = (sys.executable, "-m", "bucketfront.cli", "serve", "-c")
LIMITED = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])));"
    " os.execv(sys.argv[3], sys.argv[3:])"
)
_ADDRESSES = re.compile(r"^  clients +.*?(https?://\S+)\n(?s:.*?)^  admin +.*?(https?://\S+)\n", re.MULTILINE)
CONFIG = """\
server: {port: 0, workers: 1%(server)s}
admin: {port: 0}
origin:
  endpoint_url: %(origin)s
  addressing_style: path
  credentials: {access_key_id: any, secret_access_key: any}
  max_connections: 16
mounts:
  - {path: /, bucket: bench%(methods)s}
cache: {dir: %(folder)s/cache, max_size: %(max_size)s, min_free: 0}
access_log: {path: %(folder)s/access.log}
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A running server. `log` is the file with its standard error."""

    process: "subprocess.Popen[str]"
    clients: str
    admin: str
    log: Path

    @property
    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    @property
    def resident(self) -> int:
        """Return the bytes of memory that belong to the process. Mapped file pages are excluded: the kernel can reclaim
        them.
        """
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) << 10

    def metric(self, name: str) -> float:
        found = re.search(rf"^bucketfront_{name} (\S+)$", self.get_admin("/metrics"), re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    def get_admin(self, target: str, timeout: float = CALL_TIMEOUT_S) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.admin + target, timeout=timeout) as response:
            return str(response.read().decode())


@contextlib.contextmanager
def origin_process() -> Iterator[str]:
    """Run the benchmark's origin and yield its URL. Its objects are `obj-<MiB>` and `obj-<KiB>k`, with any
    `-suffix`.
    """
    command = [sys.executable, str(ROOT / "bench" / "origin.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(child.stdout.readline())}"
        finally:
            child.kill()


@contextlib.contextmanager
def serve(
    folder: Path,
    origin: str,
    *,
    descriptors: int | None = None,
    max_size: str = "4GiB",
    server: str = "",
    methods: str = "",
) -> Iterator[Served]:
    """Run a server that is ready inside the block.

    The exit also removes its folder, because pytest would keep gigabytes until later.
    """
    folder.mkdir(exist_ok=True)
    config, log = folder / "proxy.yaml", folder / "stderr"
    config.touch(0o600)  # it has secrets
    config.write_text(
        CONFIG % {"origin": origin, "folder": folder, "max_size": max_size, "server": server, "methods": methods}
    )

    command = [*COMMAND, str(config)]
    if descriptors is not None:
        # Half of the limit at first, because a server may raise it itself.
        command = [sys.executable, "-c", LIMITED, str(descriptors // 2), str(descriptors), *command]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=stderr, text=True)
    try:
        wait_until(lambda: _ADDRESSES.search(log.read_text()) or process.poll() is not None, START_TIMEOUT_S)
        found = _ADDRESSES.search(log.read_text())
        assert found is not None, log.read_text()
        yield Served(process, found[1], found[2], log)
    finally:
        process.terminate()
        try:
            process.wait(CALL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder)


class Client:
    """One connection. `buffer` is the size of the kernel's receive buffer; a stalled client has a small one."""

    def __init__(self, url: str, *, buffer: int | None = None, tls: ssl.SSLContext | None = None) -> None:
        where = urlsplit(url)
        raw = socket.socket()
        if buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        raw.settimeout(CALL_TIMEOUT_S)
        raw.connect((where.hostname, where.port))
        self.socket: Any = raw if tls is None else tls.wrap_socket(raw)
        self._unread = b""

    def send_get(self, target: str) -> None:
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._unread:
            data = self.socket.recv(65536)
            assert data, f"the connection ended in a head: {self._unread!r}"
            self._unread += data
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def response(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = self.head()
        body = bytearray(self._unread)
        length = int(headers["content-length"])
        while len(body) < length:
            data = self.socket.recv(1 << 20)
            assert data, "the connection ended in a body"
            body += data
        self._unread = bytes(body[length:])
        return status, headers, bytes(body[:length])

    def drop(self, length: int) -> None:
        """Read this many bytes of a body and drop them."""
        length -= len(self._unread)
        self._unread = b""
        while length > 0:
            data = self.socket.recv(min(1 << 20, length))
            assert data, "the connection ended in a body"
            length -= len(data)

    @property
    def is_over(self) -> bool:
        """Return whether the other side has closed; wait for it. A proxy resets a client that reads late."""
        try:
            return not self._unread and not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()


class PeakMemory(threading.Thread):
    """Samples the memory of a process and keeps the maximum."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self._served = served
        self._is_over = threading.Event()
        self.bytes = 0

    def run(self) -> None:
        while not self._is_over.wait(0.05):
            self.bytes = max(self.bytes, self._served.resident)

    def end(self) -> None:
        self._is_over.set()
        self.join(CALL_TIMEOUT_S)


def wait_until(holds: Callable[[], object], within: float = CALL_TIMEOUT_S) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
