"""Three bucketfronts behind HAProxy, nginx and Envoy: what S3 sends, the loss of a node, and a rolling upgrade."""

import json
import signal
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path

import pytest
from case import Case
from fleet_fronts import FRONTS, program_of
from fleet_nodes import CLIENTS, Fleet, Member, Nodes, failures, read_on, until
from rows import IS_WHOLE, examples

OBJECTS = examples(150, 10_000)
CONNECTIONS = CLIENTS + 2  # that a front has open to a node
SHARE = 1.2 / 3  # of the keys, at most, is the part of a node


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(tmp_path_factory.mktemp("nodes")) as started:
        yield started


@pytest.mark.parametrize("front", FRONTS)
def test_loss(front: str, nodes: Nodes, case: Case, tmp_path: Path) -> None:
    """The fleet fetches each object once, and that of a killed node once more: no herd. It returns with its cache.

    Its loss costs no request but those in flight (I1, I3).
    """
    case.of(program_of(front), f"{OBJECTS:,} objects on three nodes; one is killed, and returns")
    with Fleet(front, nodes, tmp_path, f"loss-{front}", OBJECTS) as fleet:
        cold = fleet.read_all()
        assert failures(cold) == []
        assert fleet.fetched() == dict.fromkeys(fleet.keys, 1)
        warm = fleet.read_all()
        assert failures(warm) == []
        assert sum(client.hits for client in warm) == len(fleet.keys)
        assert fleet.fetched() == {}
        lost = fleet.members[1]
        with fleet.load(writes=False) as clients:
            read_on(clients, 10)
            lost.end(signal.SIGKILL)
            read_on(clients, len(fleet.keys))
        assert len(failures(clients)) <= CLIENTS
        moved = fleet.fetched()
        assert 0 < len(moved) <= SHARE * len(fleet.keys)
        assert sum(moved.values()) <= 1.1 * len(moved), moved.most_common(5)
        lost.start()
        until(lambda: returned(fleet, set(moved)), "its keys are hits on the node that came back")


def returned(fleet: Fleet, keys: set[str]) -> bool:
    """Read these keys, and return whether S3 sent none of them, and most were hits on the second node."""
    log = fleet.members[1].folder / "access.log"
    seen = log.stat().st_size
    clients = fleet.read_all(sorted(keys))
    assert failures(clients) == []
    hits = log.read_bytes()[seen:].count(b'"cache": "hit')
    return not fleet.fetched() and hits >= len(keys) // 2


@pytest.mark.parametrize("front", FRONTS)
def test_pause(front: str, nodes: Nodes, case: Case, tmp_path: Path) -> None:
    """A node that hangs costs no request at all, only time, and each of its objects one more request to S3 (I1, I3)."""
    case.of(program_of(front), "a node that hangs")
    with Fleet(front, nodes, tmp_path, f"pause-{front}", 100) as fleet:
        assert failures(fleet.read_all()) == []
        fleet.fetched()
        fleet.members[1].send(signal.SIGSTOP)
        try:
            paused = fleet.read_all()
        finally:
            fleet.members[1].send(signal.SIGCONT)
        assert failures(paused) == []
        moved = fleet.fetched()
        assert 0 < len(moved) <= SHARE * len(fleet.keys) + 10
        assert sum(moved.values()) <= 1.1 * len(moved)


@pytest.mark.parametrize("front", ["HAProxy"])
def test_take_over(front: str, nodes: Nodes, case: Case, tmp_path: Path) -> None:
    """A rolling upgrade by take-over under load: no wrong byte, no failed request, and the caches stay warm (I1, I6).

    A request that comes to the old process on an open connection is served from S3, once for each connection.
    """
    case.of(program_of(front), "a rolling upgrade by take-over, under load")
    with Fleet(front, nodes, tmp_path, f"take_over-{front}", 100) as fleet:
        assert failures(fleet.read_all()) == []
        fleet.fetched()
        with fleet.load(writes=True) as clients:
            for member in fleet.members:
                member.start("--take-over")
                assert member.processes[-2].wait(60) == 0
                read_on(clients, 20)
        assert failures(clients) == []
        late = sum(client.reads - client.hits for client in clients)
        assert late <= CONNECTIONS * len(fleet.members)
        fleet.fetched()
        warm = fleet.read_all()
        assert failures(warm) == []
        assert sum(client.hits for client in warm) == len(fleet.keys)
        assert fleet.fetched() == {}


@pytest.mark.parametrize("front", FRONTS if IS_WHOLE else ("HAProxy",))
def test_restarts(front: str, nodes: Nodes, case: Case, tmp_path: Path) -> None:
    """A rolling restart of nodes that keep their volumes, under load: no wrong byte and no failed request (I1).

    The objects of a node come from S3 once more while it is away, and from its volume after that: no cold start.
    """
    case.of(program_of(front), "a rolling restart of nodes with volumes, under load")
    if front == "nginx":
        case.cannot("It checks no health, so uploads to a node that is away get 502 until two of them have failed.")
    with Fleet(front, nodes, tmp_path, f"restarts-{front}", 100) as fleet:
        began = [size(member) for member in fleet.members]
        assert failures(fleet.read_all()) == []
        owned = [{path for path, _ in sent(*each)} for each in zip(fleet.members, began, strict=True)]
        fleet.fetched()
        with fleet.load(writes=front != "nginx") as clients:
            for member, own in zip(fleet.members, owned, strict=True):
                assert member.end(signal.SIGTERM) == 0
                ended = size(member)
                member.start()
                until(partial(serves_all, member, ended, own), "it has its keys again")
                states = [state for path, state in sent(member, ended) if path in own]
                assert [state for state in states if "hit" not in state] == []
        assert failures(clients) == []
        moved = fleet.fetched()
        assert max(moved[key] for key in fleet.keys) <= 2
        until(lambda: not failures(fleet.read_all()) and not fleet.fetched(), "all are hits")


def size(member: Member) -> int:
    """Return the bytes of a node's access log."""
    return (member.folder / "access.log").stat().st_size


def sent(member: Member, at: int) -> list[tuple[str, str]]:
    """Return the path of each object that a node has sent, with the state of the cache.

    The node's access log is read from the byte `at` on.
    """
    with (member.folder / "access.log").open("rb") as log:
        log.seek(at)
        whole, _, _ = log.read().rpartition(b"\n")
    lines = [json.loads(line) for line in whole.splitlines()]
    return [(line["path"], line["cache"]) for line in lines if line["method"] == "GET"]


def serves_all(member: Member, at: int, own: AbstractSet[str]) -> bool:
    """Return whether a node has sent all of its objects, by its access log from a byte on."""
    return own <= {path for path, _ in sent(member, at)}
