"""The sketch of hot keys keeps its guarantee for any stream of keys, in bounded memory (I19)."""

import math
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bucketfront.server.telemetry.hot_keys import MAX_DOUBLINGS, PRUNE_FACTOR, HotKeys

HALF_LIFE_S = 60.0
EXACT = 1e-9  # of a sum of floats

batches = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from([f"/{n}" for n in range(40)]), st.integers(0, 1 << 40)), max_size=30),
        st.floats(0, 200) | st.sampled_from([0.0, 1e7]),
    ),
    max_size=30,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(batches, st.integers(1, 8))
def test_guarantee(stream: list[tuple[list[tuple[str, int]], float]], capacity: int) -> None:
    """A counter is at most the true decayed weight, and less by at most `error`, which is a small part of the total."""
    clock = Clock()
    hot = HotKeys(capacity, HALF_LIFE_S, clock)
    true = defaultdict[str, float](float)
    for batch, passed in stream:
        hot.add(batch)
        for key, weight in batch:
            true[key] += float(weight)
        clock.now += passed
        for key in true:
            true[key] *= math.exp2(-passed / HALF_LIFE_S)
        total = math.fsum(true.values())
        slack = EXACT * total + 1e-300
        assert hot.total == pytest.approx(total, rel=EXACT, abs=1e-200)
        assert hot.error <= total / (capacity + 1) + slack
        for key, counts in true.items():
            assert hot.weight(key) <= counts + slack
            assert counts <= hot.weight(key) + hot.error + slack
        assert len(hot) <= PRUNE_FACTOR * capacity
        heavy = {key for key, weight in true.items() if weight > total / (capacity + 1) + slack}
        assert heavy <= {found.key for found in hot.top(len(hot))}


def test_order() -> None:
    """`top` has the heaviest first, and keys of equal weight by name."""
    hot = HotKeys(4, HALF_LIFE_S, Clock())
    hot.add([("/b", 2), ("/a", 2), ("/c", 5), ("/d", 1)])
    assert [(found.key, found.weight) for found in hot.top(3)] == [("/c", 5), ("/a", 2), ("/b", 2)]


def test_decay() -> None:
    """What was hot an hour ago makes way for what is hot now."""
    clock = Clock()
    hot = HotKeys(4, HALF_LIFE_S, clock)
    hot.add([("/old", 1000)])
    clock.now += HALF_LIFE_S
    assert hot.weight("/old") == pytest.approx(500)
    clock.now += 10 * HALF_LIFE_S
    hot.add([("/new", 1)])
    assert [found.key for found in hot.top(1)] == ["/new"]


def test_a_long_rest() -> None:
    """After more half-lives than a float has doublings, weights are 0 and new ones count in full."""
    clock = Clock()
    hot = HotKeys(4, HALF_LIFE_S, clock)
    hot.add([("/old", 1 << 50)])
    clock.now += 100 * MAX_DOUBLINGS * HALF_LIFE_S
    hot.add([("/new", 3)])
    assert [(found.key, found.weight) for found in hot.top(9)] == [("/new", 3)]


def test_window() -> None:
    """A steady stream of one a second has a weight of `window_s`, soon after the start and long after it."""
    clock = Clock()
    hot = HotKeys(4, HALF_LIFE_S, clock)
    for second in range(1, 1000):
        clock.now += 1
        hot.add([("/x", 1)])
        assert hot.weight("/x") / hot.window_s == pytest.approx(1, rel=0.02), second


def test_memory_is_bounded() -> None:
    """However many keys come, few counters remain, and a hot key among them is found."""
    hot = HotKeys(16, HALF_LIFE_S, Clock())
    for number in range(10_000):
        hot.add([(f"/{number}", 1), ("/hot", 1 if number % 8 == 0 else 0)])
    assert len(hot) <= PRUNE_FACTOR * 16
    assert hot.top(1)[0].key == "/hot"
