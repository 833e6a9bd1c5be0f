"""Three processes of bucketfront on a real server: one of them with front ends. They share an S3 in memory."""

import asyncio
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from urllib.parse import urlsplit

import pytest
from bucketfront_process import Running, bucketfront
from redis_server import RedisServer
from stopwatch import HANG_S

from bucketfront.s3.embedded.launcher import EmbeddedS3

pytestmark = pytest.mark.long

TTL_WHEN_LOST_S = 2.0
CONFIG = """
server: {{port: 0, workers: {workers}}}
admin: {{port: 0}}
origin: {{endpoint_url: "{s3}", credentials: {{access_key_id: any, secret_access_key: any}}}}
mounts: [{{path: /, bucket: fleet, methods: [GET, HEAD, PUT, DELETE]}}]
cache: {{dir: "{folder}", max_size: 50MiB}}
freshness: {{default_ttl: 1d, negative_ttl: 1d, stale_while_revalidate: 0s}}
bus: {{url: "{bus}", node: {name}, ttl_when_lost: {lost:g}s}}
"""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    cache: str


def send(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANG_S)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Content-Type": "application/octet-stream", **named})
        response = connection.getresponse()
        return Response(response.status, response.read(), response.headers.get("Cache-Status", ""))
    finally:
        connection.close()


class Fleet:
    """The nodes a, b and c, of which c has front ends."""

    def __init__(self, nodes: dict[str, Running], server: RedisServer) -> None:
        self.nodes = nodes
        self.server = server

    def get(self, name: str, path: str) -> Response:
        return send(self.nodes[name].url, "GET", path)

    def put(self, name: str, path: str, body: bytes) -> None:
        assert send(self.nodes[name].url, "PUT", path, body).status in {200, 201, 204}

    def purge(self, name: str, **wanted: object) -> dict[str, object]:
        response = send(
            self.nodes[name].admin_url, "POST", "/api/v1/purge", json.dumps(wanted).encode(),
            Content_Type="application/json",
        )  # fmt: skip
        assert response.status == 200, response
        return dict(json.loads(response.body))

    def readiness(self, name: str) -> str:
        return send(self.nodes[name].admin_url, "GET", "/readyz").body.decode()

    def cache(self, path: str) -> None:
        """Have the object in all caches, and as leases in the front ends."""
        for name in self.nodes:
            eventually(lambda name=name: "hit" in self.get(name, path).cache)  # type: ignore[misc]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def memory_s3() -> Iterator[str]:
    """Run an S3 in memory, and yield its URL. Its event loop has a thread, because the tests block."""
    found: Future[str] = Future()
    stop = Event()

    async def run() -> None:
        try:
            async with EmbeddedS3(["fleet"]) as s3:
                found.set_result(s3.endpoint_url)
                while not stop.is_set():  # noqa: ASYNC110 - of another thread
                    await asyncio.sleep(0.05)
        except Exception as error:
            if not found.done():
                found.set_exception(error)
            raise

    thread = Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield found.result(HANG_S)
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with ExitStack() as stack:
        server = RedisServer(folder)
        stack.callback(server.kill)
        s3 = stack.enter_context(memory_s3())
        nodes = {}
        for name in "abc":
            place = folder / name
            place.mkdir()
            config = CONFIG.format(
                workers=2 if name == "c" else 1, s3=s3, folder=place / "cache", bus=server.url, name=name,
                lost=TTL_WHEN_LOST_S,
            )  # fmt: skip
            nodes[name] = stack.enter_context(bucketfront(config, place))
        yield Fleet(nodes, server)


def test_a_purge_that_waits_holds_on_all_nodes(fleet: Fleet) -> None:
    """Once a purge with `wait` has its response, no process of the fleet serves what was there before (I6, I36)."""
    fleet.put("a", "/purged", b"old")
    fleet.cache("/purged")
    found = fleet.purge("a", prefix="/purged", wait=True)
    assert found["acknowledged"] == ["a", "b", "c"]
    assert found["unacknowledged"] == []
    for name in fleet.nodes:
        assert "hit" not in fleet.get(name, "/purged").cache


def test_a_write_is_served_by_all_nodes(fleet: Fleet) -> None:
    """What is written through one node is served by the others, front ends included (I5, I36)."""
    fleet.put("a", "/written", b"old")
    fleet.cache("/written")
    fleet.put("b", "/written", b"new")
    for name in fleet.nodes:
        eventually(lambda name=name: fleet.get(name, "/written").body == b"new")  # type: ignore[misc]


def test_a_node_that_is_stopped_is_named(fleet: Fleet) -> None:
    """A purge with `wait` names a live node that does nothing, and that node reads on once it goes on."""
    fleet.put("a", "/stopped", b"old")
    fleet.cache("/stopped")
    os.kill(fleet.nodes["b"].pid, signal.SIGSTOP)
    try:
        found = fleet.purge("a", paths=["/stopped"], wait=True)
    finally:
        os.kill(fleet.nodes["b"].pid, signal.SIGCONT)
    assert found["unacknowledged"] == ["b"]
    eventually(lambda: fleet.purge("a", paths=["/stopped"], wait=True)["unacknowledged"] == [])


def test_a_bus_that_hangs_ends_freshness(fleet: Fleet) -> None:
    """While the bus hangs, owner and front ends ask S3 after `ttl_when_lost`, and all of it heals (I7, I36)."""
    fleet.put("a", "/lost", b"old")
    fleet.cache("/lost")
    fleet.server.pause()
    try:
        for name in fleet.nodes:
            eventually(lambda name=name: "fwd=stale" in fleet.get(name, "/lost").cache)  # type: ignore[misc]
            eventually(lambda name=name: "bus-unreachable" in fleet.readiness(name))  # type: ignore[misc]
        fleet.put("a", "/lost", b"new")
    finally:
        fleet.server.resume()
    for name in fleet.nodes:
        eventually(lambda name=name: fleet.readiness(name) == "ready\n")  # type: ignore[misc]
        eventually(lambda name=name: fleet.get(name, "/lost").body == b"new")  # type: ignore[misc]


def test_a_server_that_begins_anew_makes_all_stale(fleet: Fleet) -> None:
    """After a restart of the server without its entries, each node asks S3 before it serves what it has (I7)."""
    fleet.put("a", "/anew", b"old")
    fleet.cache("/anew")
    fleet.server.kill()
    fleet.server.start()
    for name in fleet.nodes:
        eventually(lambda name=name: "fwd=stale" in fleet.get(name, "/anew").cache)  # type: ignore[misc]
        eventually(lambda name=name: fleet.readiness(name) == "ready\n")  # type: ignore[misc]
        eventually(lambda name=name: "hit" in fleet.get(name, "/anew").cache)  # type: ignore[misc]


def test_metrics_show_the_bus(fleet: Fleet) -> None:
    """The metrics of each node show that it is connected and has read what the others announced."""
    fleet.purge("a", all=True, wait=True)
    for name in fleet.nodes:
        text = send(fleet.nodes[name].admin_url, "GET", "/metrics").body.decode()
        assert "bucketfront_bus_connected 1.0" in text
        assert 'bucketfront_bus_received_total{outcome="unreadable"} 0.0' in text


def test_stats_show_the_bus(fleet: Fleet) -> None:
    """The figures of a node show that the bus works, what it has sent, and that others have received it."""
    fleet.purge("a", all=True, wait=True)
    found = {
        name: json.loads(send(node.admin_url, "GET", "/api/v1/stats").body)["summary"]["bus"]
        for name, node in fleet.nodes.items()
    }
    assert all(bus["failure"] is None and bus["lag"] < HANG_S for bus in found.values())
    assert found["a"]["sent"] > 0
    assert found["b"]["received"] > 0
