"""Bucketfronts behind a front of deploy/fleet, an origin that counts, and clients that check every byte."""

import contextlib
import http.client
import itertools
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import chaos_content as content
from bucketfront_process import ROOT
from fleet_fronts import NAMES, Node, running_front
from held_port import held_port
from origin_process import OriginProcess

DEADLINE_S = 120.0
POLL_S = 0.05
SIZE = 3000  # bytes of an object
CLIENTS = 2

# The command, without hedges, which on a busy machine add requests to those that tests count.
_SERVE = """
import sys
from bucketfront.cache.fetch import body_stream
from bucketfront.cli import main
body_stream.HEDGE_AFTER_S = 600.0
main(sys.argv[1:])
"""

_CONFIG = """\
server: {{port: {port}, workers: 1, trusted_proxies: [127.0.0.1/32], stop_delay: 6s}}
admin: {{port: {admin_port}}}
origin:
  endpoint_url: {endpoint}
  addressing_style: path
  credentials: {{access_key_id: any, secret_access_key: any}}
mounts: [{{path: /, bucket: {bucket}, methods: [GET, HEAD, PUT, DELETE]}}]
freshness: {{default_ttl: 1h}}
access_log: {{path: {folder}/access.log}}
cache: {{dir: {folder}/cache, min_free: 0}}
"""


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(POLL_S)


@dataclass
class Member:
    """One bucketfront of the fleet. `processes` are those that ran in its place, the present one last."""

    node: Node
    folder: Path
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self, *options: str) -> None:
        """Start a process, and wait until it serves."""
        log = self.folder / f"stderr-{len(self.processes)}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                (sys.executable, "-c", _SERVE, "serve", "-c", str(self.folder / "proxy.yaml"), *options),
                cwd=ROOT,
                env={n: v for n, v in os.environ.items() if not n.startswith(("BUCKETFRONT_", "AWS_"))},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.processes.append(process)

        def serves() -> bool:
            assert process.poll() is None, log.read_text()
            return "  admin" in log.read_text()

        until(serves, "it serves")

    def send(self, number: int) -> None:
        self.processes[-1].send_signal(number)

    def end(self, number: int) -> int:
        """Send a signal, and return the exit status."""
        self.send(number)
        return self.processes[-1].wait(DEADLINE_S)

    def printed(self) -> str:
        return "".join(file.read_text(errors="replace") for file in self.folder.glob("stderr-*"))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


class Client:
    """Sends reads to a front, one after another, and checks every byte against the origin's versions."""

    def __init__(self, port: int, versions: dict[str, int]) -> None:
        self._port = port
        self._versions = versions
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        self.hits = self.reads = 0
        self.failures: list[str] = []
        self.wrong: list[str] = []

    def read(self, key: str) -> None:
        try:
            self._connection.request("GET", f"/{key}")
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self.failures.append(f"{key}: {error!r}")
            return
        self.reads += 1
        if response.status != 200:
            self.failures.append(f"{key}: {response.status} {body[:200]!r}")
        elif len(body) != SIZE or not content.check(key, body, 0).is_all(self._versions[key]):
            self.wrong.append(key)
        self.hits += "; hit" in response.headers.get("Cache-Status", "")

    def close(self) -> None:
        self._connection.close()

    def write(self, key: str, version: int) -> None:
        """Store a new object, and read it."""
        body = content.read(key, version, 0, SIZE)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            try:
                connection.request("PUT", f"/{key}", body, {"x-amz-meta-version": str(version)})
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"PUT {key}: {error!r}")
                return
        if status != 201:
            self.failures.append(f"PUT {key}: {status}")
            return
        self._versions[key] = version
        self.read(key)


class Nodes:
    """Three bucketfronts and their origin. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self.members: list[Member] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        printed = "".join(member.printed() for member in self.members)
        self._stack.close()
        assert "Traceback" not in printed, printed

    def _start(self, stack: contextlib.ExitStack) -> None:
        self.origin = stack.enter_context(OriginProcess())
        for name in NAMES[:3]:
            node = Node(name, stack.enter_context(held_port()), stack.enter_context(held_port()))
            folder = self._folder / name
            folder.mkdir()
            (folder / "proxy.yaml").write_text(
                _CONFIG.format(
                    port=node.port,
                    admin_port=node.admin_port,
                    endpoint=self.origin.endpoint_url,
                    bucket=self.origin.bucket,
                    folder=folder,
                )
            )
            member = Member(node, folder)
            stack.callback(member.close)
            self.members.append(member)
        with futures.ThreadPoolExecutor() as pool:
            list(pool.map(Member.start, self.members))


class Fleet:
    """A front of these nodes, and new objects below `prefix`. A context manager."""

    def __init__(self, front: str, nodes: Nodes, folder: Path, prefix: str, objects: int) -> None:
        self._front = front
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self.members, self.origin = nodes.members, nodes.origin
        self.prefix = prefix
        self.keys = [f"{prefix}/{number % 7}/object-{number}" for number in range(objects)]
        self.versions = {key: self.origin.call("store", key, SIZE) for key in self.keys}
        self.port = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.port = stack.enter_context(held_port())
            nodes = [member.node for member in self.members]
            stack.enter_context(running_front(self._front, self.port, nodes, self._folder / "front"))
            until(self._passes, "the front passes requests on")
            self.fetched()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _passes(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("OPTIONS", "/")
            return connection.getresponse().getheader("Via") is not None
        return False

    def fetched(self) -> Counter[str]:
        """Return how often the origin sent each object since the last call."""
        requests = self.origin.call("drain_requests")
        return Counter(request.key for request in requests if request.method == "GET" and request.key)

    def read_all(self, keys: Sequence[str] | None = None) -> list[Client]:
        """Let the clients read all keys, each key by one of them. Return the clients."""
        keys = self.keys if keys is None else keys
        clients = [Client(self.port, self.versions) for _ in range(CLIENTS)]

        def run(client: Client, mine: Sequence[str]) -> None:
            for key in mine:
                client.read(key)

        threads = [
            threading.Thread(target=run, args=(client, keys[number::CLIENTS])) for number, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
        return clients

    @contextlib.contextmanager
    def load(self, *, writes: bool) -> Iterator[list[Client]]:
        """Let the clients read all keys again and again until the end of the block, and one of them write new ones."""
        over = threading.Event()
        clients = [Client(self.port, self.versions) for _ in range(CLIENTS)]

        def run(number: int, client: Client) -> None:
            keys = itertools.cycle(self.keys[number::CLIENTS])
            while not over.is_set():
                client.read(next(keys))

        def write(client: Client) -> None:
            number = 0
            while not over.is_set():
                number += 1
                client.write(f"{self.prefix}/new/{number}", 1_000_000 + number)
                over.wait(POLL_S)

        threads = [threading.Thread(target=run, args=each) for each in enumerate(clients)]
        if writes:
            clients.append(Client(self.port, self.versions))
            threads.append(threading.Thread(target=write, args=(clients[-1],)))
        for thread in threads:
            thread.start()
        try:
            yield clients
        finally:
            over.set()
            for thread in threads:
                thread.join()
            for client in clients:
                client.close()


def read_on(clients: Sequence[Client], count: int) -> None:
    """Wait until each client has read so many more objects."""
    before = [client.reads for client in clients]
    until(lambda: all(c.reads >= was + count for c, was in zip(clients, before, strict=True)), "the load goes on")


def failures(clients: Sequence[Client]) -> list[str]:
    """Return the failed requests of all clients. Asserts that no byte was wrong (I1)."""
    wrong = [key for client in clients for key in client.wrong]
    assert not wrong, wrong[:10]
    return [failure for client in clients for failure in client.failures]
