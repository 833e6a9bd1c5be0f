"""HAProxy, nginx and Envoy by their files of deploy/fleet, in front of several nodes (docs/fleet.md)."""

import contextlib
import http.client
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import fleet_fronts
import pytest
from bucketfront_process import ROOT
from case import Case
from fleet_fronts import FILES, FRONTS, NODES, Echoes, Node, command_of, program_of, running_front
from held_port import held_port
from programs import run
from rows import examples

sys.path.append(str(ROOT / "bench"))
import rings

KEYS = examples(3_000, 10_000)
DEADLINE_S = 60.0
POLL_S = 0.05
BATCH = 100  # requests of one connection
STEPS = 4  # at least, in which a node that came back has its keys again
TRIES = 3  # because a busy machine may not see each step


class Client:
    """Sends requests to a front on one connection, and opens another one if that ends."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)

    def send(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> http.client.HTTPResponse:
        """Return the response, whose body is read. Sends the request once."""
        self._connection.request(method, path, body, dict(headers or {}))
        response = self._connection.getresponse()
        self.body = response.read()
        return response

    def node(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> str:
        """Return the name of the node that responds."""
        return self.send(path, method, headers).getheader("Node", "")

    def nodes(self, paths: Sequence[str]) -> list[str]:
        """Return the name of the node that responds for each path. The requests of a batch are sent at once."""
        found: list[str] = []
        for batch in (paths[at : at + BATCH] for at in range(0, len(paths), BATCH)):
            requests = (f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in batch)
            address = "127.0.0.1", self._connection.port
            with socket.create_connection(address, DEADLINE_S) as connection, connection.makefile("rb") as responses:
                connection.sendall("".join(requests).encode())
                found += [http.client.parse_headers(_after_status(responses))["Node"] for _ in batch]
        return found

    def close(self) -> None:
        self._connection.close()


def _after_status(responses: BinaryIO) -> BinaryIO:
    assert responses.readline().startswith(b"HTTP/1.1 200 ")
    return responses


@contextlib.contextmanager
def clients_of(front: str, nodes: Sequence[Node], folder: Path) -> Iterator[Client]:
    """Run a front of these nodes, and yield a client of it once it passes requests on."""
    with held_port() as port, running_front(front, port, nodes, folder) as process:

        def passes() -> bool:
            assert process.poll() is None, (folder / "output").read_text(errors="replace")[-2000:]
            return _passes(port)

        until(passes, "the front passes requests on")
        with contextlib.closing(Client(port)) as client:
            yield client


def _passes(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(Client(port)) as client:
        return client.send("/").status < 500
    return False


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(POLL_S)


@pytest.fixture(scope="module")
def echoes() -> Iterator[Echoes]:
    with Echoes() as started:
        yield started


@pytest.fixture(autouse=True)
def _all_are_ready(request: pytest.FixtureRequest) -> None:
    if "echoes" in request.fixturenames:
        shared: Echoes = request.getfixturevalue("echoes")
        shared.readiness.update(dict.fromkeys(shared.readiness, (200, b"ready\n")))
        shared.heads.clear()


@pytest.mark.parametrize("front", FRONTS)
def test_files(front: str, case: Case, tmp_path: Path) -> None:
    """The program takes its file as it is, but for the folder of HAProxy's map and the port of nginx and Envoy."""
    case.of(program_of(front), "checks its file of deploy/fleet")
    nodes = [Node(name, 8080, 8081) for name in ("one", "two", "three")]
    command = command_of(front, 8000, nodes, tmp_path, validates=True)
    match front:
        case "HAProxy":
            text = (FILES / "haproxy.cfg").read_text().replace("/etc/haproxy", str(tmp_path))
            (tmp_path / "front").write_text(text)
        case "nginx":
            (tmp_path / "site.conf").write_text((FILES / "nginx.conf").read_text())
        case _:
            (tmp_path / "front.yaml").write_text((FILES / "envoy.yaml").read_text())
    run(*command, folder=tmp_path)


@pytest.mark.parametrize("front", FRONTS)
def test_one_node_for_a_path(front: str, echoes: Echoes, case: Case, tmp_path: Path) -> None:
    """Reads and writes of a path, in each of its spellings, with any query and Host, go to one node, unchanged (I6)."""
    case.of(program_of(front), "spellings, queries, hosts and methods of a path")
    with clients_of(front, echoes.nodes[:NODES], tmp_path / "front") as client:
        for number in range(40):
            name = f"/a folder/é+{number}%/film.mp4"
            spellings = [quote(name), quote(name, safe="/+"), "".join(f"%{byte:02X}" for byte in name.encode())]
            spellings[2] = spellings[2].replace("%2F", "/")
            echoes.heads.clear()
            found = {client.node(path) for path in spellings}
            found |= {client.node(f"{spellings[0]}?versionId={number}")}
            found |= {client.node(spellings[0], headers={"Host": f"host{number}.example.com"})}
            found |= {client.node(spellings[0], method) for method in ("HEAD", "PUT", "DELETE", "POST")}
            assert len(found) == 1, (name, found)
            sent = [head.split(b" ")[1].decode() for head in echoes.heads]
            assert sent[:4] == [*spellings, f"{spellings[0]}?versionId={number}"]
        assert (
            len({client.node(f"/upload/{number}", "PATCH") for number in range(40)} | {client.node("/upload", "POST")})
            == 1
        )


@pytest.mark.parametrize("front", FRONTS)
def test_keys_that_move(front: str, echoes: Echoes, case: Case, tmp_path: Path) -> None:
    """A node that joins N others, and one that leaves as many, moves at most 1.2 / (N + 1) of the keys.

    With HAProxy and nginx, these are only the keys of that node. The simulation chooses the same nodes.
    """
    case.of(program_of(front), f"{KEYS:,} keys before and after a fourth node")
    paths = [f"/{number % 97}/object-{number}.bin" for number in range(KEYS)]
    chosen = []
    for count in (NODES, NODES + 1):
        with clients_of(front, echoes.nodes[:count], tmp_path / str(count)) as client:
            chosen.append(client.nodes(paths))
    before, after = chosen
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"four"} or front == "Envoy"
    assert 0 < len(moved) <= 1.2 / (NODES + 1) * KEYS
    assert max(Counter(before).values()) <= 1.2 / NODES * KEYS
    ring = ring_of(front, echoes.nodes[:NODES])
    if ring is None:
        pytest.skip("not run: the package xxhash is not installed")
    expected = [echoes.nodes[next(ring.order(path.encode()))].name for path in paths]
    assert before == expected


def ring_of(front: str, nodes: Sequence[Node]) -> rings.Ring | None:
    """Return the ring of the simulation for these nodes, None if a package is missing."""
    match front:
        case "nginx":
            return rings.Nginx([node.address for node in nodes])
        case "HAProxy":
            return rings.HAProxy(range(1, len(nodes) + 1))
        case _:
            hashed = rings.xxhash64()
            return None if hashed is None else rings.Maglev([node.name for node in nodes], hashed)


@pytest.mark.parametrize("front", FRONTS)
def test_hot_objects(front: str, echoes: Echoes, case: Case, tmp_path: Path) -> None:
    """Reads of a path that a rule names go to several nodes, its writes to one of these, other paths to one."""
    case.of(program_of(front), "reads of hot objects on several nodes")
    with clients_of(front, echoes.nodes[:NODES], tmp_path / "front") as client:
        readers = [Counter(client.node(f"/live/{number}.ts") for _ in range(60)) for number in range(20)]
        writers = [{client.node(f"/live/{number}.ts", "PUT") for _ in range(5)} for number in range(20)]
        others = [{client.node(f"/vod/{number}.ts") for _ in range(10)} for number in range(20)]
    # The keys of an object may have a node in common.
    assert max(len(found) for found in readers) == NODES
    assert sum(len(found) for found in readers) > 30
    for found, writer in zip(readers, writers, strict=True):
        assert len(writer) == 1
        assert writer <= set(found)
        assert min(found.values()) > 5
    assert all(len(found) == 1 for found in others)


@pytest.mark.parametrize("front", ["HAProxy", "Envoy"])
def test_readiness(front: str, echoes: Echoes, case: Case, tmp_path: Path) -> None:
    """A degraded node keeps its keys. One that starts or stops loses them, and gets the same ones back."""
    case.of(program_of(front), "a node that is degraded, one that stops, and its return")
    paths = [f"/object-{number}" for number in range(100)]

    with clients_of(front, echoes.nodes[:NODES], tmp_path / "front") as client:

        def chosen() -> list[str]:
            return client.nodes(paths)

        before = chosen()
        echoes.readiness["two"] = (200, b"ready\ndegraded: origin-unreachable (refused), for 9 s\n")
        seen = echoes.probes["two"]
        until(lambda: echoes.probes["two"] >= seen + 5, "it is probed again and again")
        assert chosen() == before
        echoes.readiness["two"] = (503, b"not ready\nstopping\n")
        until(lambda: "two" not in chosen(), "its keys go to other nodes")
        without = chosen()
        assert [new for old, new in zip(before, without, strict=True) if old != "two"] == [
            n for n in before if n != "two"
        ]
        assert {new for old, new in zip(before, without, strict=True) if old == "two"} == {"one", "three"}
        assert client.node(next(path for path, old in zip(paths, before, strict=True) if old == "two"), "PUT") != "two"
        echoes.readiness["two"] = (200, b"ready\n")
        until(lambda: chosen() == before, "it has its keys again")


def test_slow_start(echoes: Echoes, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HAProxy, a node that came back has its keys again step by step, so that its misses do not come at once."""
    case.of(program_of("HAProxy"), "the keys of a node that came back, step by step")
    monkeypatch.setattr(fleet_fronts, "SLOW_START_S", 8)  # eight steps, because HAProxy takes one a second
    paths = [f"/object-{number}" for number in range(300)]
    with clients_of("HAProxy", echoes.nodes[:NODES], tmp_path / "front") as client:
        own = client.nodes(paths).count("two")
        assert any(_steps(client, echoes, paths, own) >= STEPS for _ in range(TRIES))


def _steps(client: Client, echoes: Echoes, paths: Sequence[str], own: int) -> int:
    """Take the node two away and back. Return in how many steps it got its keys, of which it has `own`."""
    echoes.readiness["two"] = (503, b"not ready\n")
    until(lambda: client.nodes(paths).count("two") == 0, "its keys go to other nodes")
    echoes.readiness["two"] = (200, b"ready\n")
    seen: list[int] = []

    def has_all() -> bool:
        seen.append(client.nodes(paths).count("two"))
        return seen[-1] == own

    until(has_all, "it has its keys again")
    assert seen == sorted(seen)
    return len(set(seen)) - 1
