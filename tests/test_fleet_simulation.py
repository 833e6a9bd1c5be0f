"""The simulation of fleets (bench/fleet.py). tests/e2e/test_fleet_fronts.py compares its hashing with the programs."""

import sys
from itertools import islice
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import fleet
from eviction import replay
from rings import Maglev, Nginx, RingHash, sdbm
from traces import traces

from bucketfront.cache.entries.lru_with_probation import LruWithProbation

LENGTH = 1000


def hashed(data: bytes, seed: int) -> int:
    return sdbm(bytes([seed]) + data) * 2654435761 % 2**64


def test_one_node_is_one_cache() -> None:
    """A fleet of one node hits as often as a single cache of its size, and one of three fetches what it misses."""
    (zipf,) = (trace for trace in traces(LENGTH) if trace.name == "zipf")
    total = zipf.footprint // 3
    alone = replay(zipf.requests, total, LruWithProbation)
    one = fleet.replayed(zipf, 1, fleet.haproxy(1), total)
    assert (one.requests, one.hits) == (alone.requests, alone.hits)
    three = fleet.replayed(zipf, 3, fleet.haproxy(3), total)
    assert sum(three.fetched.values()) == three.misses
    assert sum(three.served.values()) == three.requests == len(zipf.requests)


def test_a_ring_has_all_nodes() -> None:
    """Each key has an order of all nodes, which begins with the same one after the loss of another."""
    names = [f"node-{number}" for number in range(5)]
    rings = [
        (fleet.haproxy(5), fleet.haproxy(4)),
        (Nginx([f"{name}:80" for name in names]), Nginx([f"{name}:80" for name in names[:4]])),
        (RingHash(names, hashed), None),
        (Maglev(names, hashed, 251), None),
    ]
    for whole, without in rings:
        for number in range(200):
            key = fleet.key_of(number)
            order = list(whole.order(key))
            assert sorted(order) == list(range(5))
            if without is not None and order[0] != 4:
                assert next(without.order(key)) == order[0]


def test_the_bound_holds() -> None:
    """No node has more running requests than the bound allows, and the last node usable is found."""
    assert [fleet.slots_of(node, 4, 3) for node in range(3)] == [1, 1, 2]
    assert fleet.slots_of(0, 1, 8) == 1
    choices = fleet.Choices(fleet.haproxy(3))
    order = list(islice(fleet.haproxy(3).order(b"/a"), 3))
    assert choices.first(b"/a") == order[0]
    assert choices.first(b"/a", lambda node: node == order[2]) == order[2]
    assert choices.first(b"/a", lambda _: False) == order[0]
