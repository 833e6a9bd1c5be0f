"""The checker of fleets knows from when on each node must know a change, and accepts what a node may not know yet."""

import math

import chaos_content as content
from chaos_origin import Change
from fleet_history import MARGIN_S, Announcement, Barrier, announced, known
from history import Record, violations

NODES = ("a", "b", "c")
GRACE = 10.0


def write(start: float, end: float, version: int = 2) -> Record:
    return Record(1, 1, "PUT", "o", start, end, "done", 201, version, received=1000)


def times(found: Announcement, *barriers: Barrier) -> list[float]:
    """Return when each node must know a change."""
    return [at for node in NODES for at, _ in known(node, [found], barriers, NODES, GRACE)]


def test_a_node_knows_its_own_writes() -> None:
    """A write holds on its node once it has its response, and on no other without a proof that it is on the bus."""
    assert times(announced(write(1, 2), "a")) == [2, math.inf, math.inf]


def test_a_purge_that_waited_proves_what_came_before() -> None:
    """Nodes that have acknowledged know the change, and the others once they had to ask S3."""
    barrier = Barrier("a", 3, 4, frozenset("ab"))
    assert times(announced(write(1, 2), "a"), barrier) == [2, 4, 4 + GRACE + MARGIN_S]


def test_a_purge_that_had_begun_before_proves_nothing() -> None:
    assert times(announced(write(1, 3), "a"), Barrier("a", 2, 4, frozenset(NODES))) == [3, math.inf, math.inf]


def test_a_purge_of_another_node_proves_what_is_on_the_bus() -> None:
    """A node may have the purge of another one before the write, whose node was cut off."""
    of_other = Barrier("b", 3, 4, frozenset("bc"))
    assert times(announced(write(1, 2), "a"), of_other) == [2, math.inf, math.inf]
    of_own = Barrier("a", 5, 6, frozenset("a"))
    later = Barrier("b", 7, 8, frozenset("bc"))
    assert times(announced(write(1, 2), "a"), of_other, of_own, later) == [2, 8, 8]


def test_a_write_through_the_front_may_be_of_any_node() -> None:
    barriers = [Barrier(node, 3 + at, 4 + at, frozenset(NODES)) for at, node in enumerate(NODES)]
    assert times(announced(write(1, 2), None), *barriers) == [6 + GRACE + MARGIN_S] * 3
    assert times(announced(write(1, 2), None), *barriers, Barrier("a", 7, 8, frozenset("c"))) == [
        6 + GRACE + MARGIN_S,
        6 + GRACE + MARGIN_S,
        8,
    ]


def test_what_a_node_must_know_is_enforced() -> None:
    """A read of an older version is a violation from that time on, and none before."""
    history = [Change("o", version, 1000, content.etag("o", version, 1000), at) for version, at in ((1, 0), (2, 1.5))]

    def read(start: float) -> Record:
        return Record(2, 2, "GET", "o", start, start + 0.1, "done", 200, 1, received=1000)

    (found,) = known("b", [announced(write(1, 2), "a")], [Barrier("a", 3, 4, frozenset("b"))], NODES, GRACE)
    assert violations([read(3.9)], history, known=[found]) == []
    assert [violation.rule for violation in violations([read(4.1)], history, known=[found])] == ["I5"]
