"""The miss-ratio curve: exact where it has all objects, and near to the truth where it has a sample."""

import sys
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bucketfront.keys import ObjectKey
from bucketfront.server.telemetry.access_log import AccessRecord
from bucketfront.server.telemetry.logged_fields import NOTHING
from bucketfront.server.telemetry.miss_ratio_curve import (
    FEW_OBJECTS,
    HALF_LIFE_REQUESTS,
    MAX_OBSERVED_PER_S,
    MissRatioCurve,
    _bounds,
    _step,
)
from bucketfront.server.telemetry.reuse_distances import ReuseDistances
from bucketfront.server.telemetry.sizing import SizingCurve

sys.path.append(str(Path(__file__).parent.parent.parent / "bench"))

from traces import Request, Trace, traces

FOREVER = 1 << 60  # bytes
SIZES = (3, 10, 30, 60)  # percent of the bytes of all objects


def hashed(name: int) -> int:
    """Return a uniform hash that is the same in each run."""
    return int.from_bytes(blake2b(str(name).encode(), digest_size=8).digest(), "big")


def add(curve: MissRatioCurve, name: int, size: int, times: int, count: int, second: int) -> None:
    """Let the curve have `times` requests for an object, as the telemetry does."""
    curve.count(times, count)
    if curve.wants(hashed(name)):
        curve.observe(hashed(name), size, times, count, second)


def lru(requests: Iterable[tuple[int, int]], limit: int) -> tuple[int, int]:
    """Return the hits of a cache that removes the least recently used object, and their bytes."""
    cached = OrderedDict[int, int]()
    used = hits = hit_bytes = 0
    for name, size in requests:
        if name in cached:
            used -= cached.pop(name)
            hits += 1
            hit_bytes += size
        cached[name] = size
        used += size
        while used > limit:
            used -= cached.popitem(last=False)[1]
    return hits, hit_bytes


named = st.integers(0, 12)


@given(st.lists(named, max_size=300), st.lists(st.integers(1, 50), min_size=13, max_size=13), st.integers(0, 400))
def test_distances_are_those_of_lru(names: list[int], sizes: list[int], limit: int) -> None:
    """A request is a hit of LRU if and only if its distance and its object fit into the cache."""
    stack = ReuseDistances()
    hits = 0
    for name in names:
        distance = stack.request(name, sizes[name])
        hits += distance is not None and distance + sizes[name] <= limit
    assert hits == lru([(name, sizes[name]) for name in names], limit)[0]
    assert stack.total == sum(sizes[name] for name in set(names))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40), st.booleans()), max_size=900))
def test_a_stack_of_changes(changes: list[tuple[int, int, bool]]) -> None:
    """Objects that change their size or leave count as they are, also when the gaps are closed."""
    stack, plain = ReuseDistances(), dict[int, int]()
    for name, size, leaves in changes:
        if leaves and name in plain:
            stack.remove(name)
            del plain[name]
        else:
            names = list(plain)
            expected = sum(plain[other] for other in names[names.index(name) + 1 :]) if name in plain else None
            assert stack.request(name, size) == expected
            plain.pop(name, None)
            plain[name] = size
        assert (len(stack), stack.total) == (len(plain), sum(plain.values()))
    for name in plain:
        assert stack.remove_lowest() == name
    assert stack.total == 0


@given(st.integers(0, 1 << 62))
def test_steps_of_distances(distance: int) -> None:
    """Each distance lies in its step, which is narrow, and the next step begins at its end."""
    low, high = _bounds(_step(distance))
    assert low <= distance < high
    assert high - low <= max(1, low / 8)
    assert _step(high) == _step(distance) + 1


@given(
    st.lists(named, min_size=1, max_size=200), st.lists(st.integers(0, 5), min_size=13, max_size=13), st.integers(0, 12)
)
def test_the_curve_of_all_objects_is_exact(names: list[int], powers: list[int], power: int) -> None:
    """With all objects in the sample, the hit ratios by requests and by bytes are those of LRU.

    Distances and sizes of the cache are ends of steps here: a curve knows a distance by its step only.
    """
    sizes = [8 << each for each in powers]
    limit = (8 << power) - 1
    requests = [(name, sizes[name]) for name in names]
    curve = MissRatioCurve(FOREVER)
    for name, size in requests:
        add(curve, name, size, 1, size, 0)
    hits, hit_bytes = lru(requests, limit)
    found = curve.estimate(limit)
    assert found is not None
    coarse = sum(1 for name in names)
    exact = hits / coarse
    # Sums of powers of two are no powers of two, so a step holds distances on both sides of the size.
    around = [lru(requests, near)[0] / coarse for near in (max(0, limit * 7 // 8 - 8), limit * 9 // 8 + 8)]
    assert min(around) - 1e-9 <= found.requests <= max(around) + 1e-9 or found.requests == pytest.approx(exact)
    total = sum(size for _, size in requests)
    around = [lru(requests, near)[1] / total for near in (max(0, limit * 7 // 8 - 8), limit * 9 // 8 + 8)]
    assert min(around) - 1e-9 <= found.bytes <= max(around) + 1e-9 or found.bytes == pytest.approx(hit_bytes / total)


def errors(trace: Trace, max_objects: int) -> tuple[float, float]:
    """Return the mean absolute errors of the hit ratios by requests and by bytes, over SIZES."""
    curve = MissRatioCurve(FOREVER, max_objects)
    for second, request in enumerate(trace.requests):
        add(curve, request.object, request.size, 1, request.size, second)
    assert curve.objects <= max_objects
    by_requests = by_bytes = 0.0
    total = sum(size for _, size in trace.requests)
    for percent in SIZES:
        limit = trace.footprint * percent // 100
        hits, hit_bytes = lru(trace.requests, limit)
        found = curve.estimate(limit)
        assert found is not None
        by_requests += abs(found.requests - hits / len(trace.requests)) / len(SIZES)
        by_bytes += abs(found.bytes - hit_bytes / total) / len(SIZES)
    return by_requests, by_bytes


def test_errors_of_a_sample() -> None:
    """On traces of each kind, a sample of some hundred objects has the errors that docs/sizing.md names."""
    for trace in traces(30_000):
        by_requests, by_bytes = errors(trace, 512)
        assert by_requests <= 0.05, trace.name
        assert by_bytes <= 0.08, trace.name


def test_memory_is_bounded() -> None:
    """Neither many objects nor objects that never return make the sample grow (I19)."""
    curve = MissRatioCurve(FOREVER, 100)
    for name in range(20_000):
        add(curve, name, 1 << 20, 1, 1, name)
        assert curve.objects <= 100
        assert len(curve._largest) <= 2 * curve.objects + FEW_OBJECTS + 1
    assert curve.rate < 0.02
    small = MissRatioCurve(10 << 20, 100)
    for name in range(20_000):
        add(small, name, 1 << 20, 1, 1, name)
        assert small.objects <= 11
        assert len(small._largest) <= 2 * small.objects + FEW_OBJECTS + 1
    assert small.rate == 1  # objects below the largest cache take no place in the sample
    assert len(small._by_distance) <= 8 * 64


def test_time_is_bounded() -> None:
    """A server with many requests a second observes few of them."""
    curve = MissRatioCurve(FOREVER)
    for number in range(80 * MAX_OBSERVED_PER_S):
        add(curve, number % 5000, 1, 1, 1, 7)
    assert curve.rate <= 1 / 4
    assert curve.objects > FEW_OBJECTS / 2
    found = curve.estimate(10_000)
    assert found is not None
    assert 0.8 < found.requests <= 1


def test_time_is_bounded_with_few_objects() -> None:
    """A server with many requests a second for few objects observes few of them, and others in the next second."""
    sizing = SizingCurve(1 << 30)
    observed = list[int]()
    observe = sizing._curve.observe
    sizing._curve.observe = lambda *of: observed.append(of[4]) or observe(*of)  # type: ignore[method-assign, func-returns-value]
    records = [AccessRecord("GET", "/", 200, "hit", "hit", "/", ObjectKey("b", str(name)), 9) for name in range(5)]
    for at in (7.0, 8.0):
        for _ in range(MAX_OBSERVED_PER_S):
            sizing.add([(record, 9, "-", at, 0.0, NOTHING) for record in records])
    for second in (7, 8):
        assert MAX_OBSERVED_PER_S < observed.count(second) <= MAX_OBSERVED_PER_S + len(records)
    found = sizing.sizing()
    assert found is not None
    assert found.estimates[0][1].requests > 0.99


def test_requests_in_a_row() -> None:
    """Several requests for an object in one batch count as they would one by one."""
    one_by_one, together = MissRatioCurve(FOREVER), MissRatioCurve(FOREVER)
    for _ in range(2):
        for name in range(5):
            for _ in range(3):
                add(one_by_one, name, 64, 1, 10, 0)
            add(together, name, 64, 3, 30, 0)
    for size in (0, 63, 64, 200, 320, 1000):
        assert one_by_one.estimate(size) == together.estimate(size)


def test_old_requests_count_less() -> None:
    """After a change of the traffic the curve follows it."""
    curve = MissRatioCurve(FOREVER)
    for _ in range(4):
        add(curve, 1, 100, HALF_LIFE_REQUESTS // 4, 0, 0)
    for name in range(2, 2000):
        add(curve, name, 100, HALF_LIFE_REQUESTS // 1000, 0, name)
    assert curve.requests <= HALF_LIFE_REQUESTS + 4


def test_no_requests() -> None:
    """Without a request there is no estimate, and without bytes the ratio of bytes is zero."""
    curve = MissRatioCurve(FOREVER)
    assert curve.estimate(1 << 30) is None
    add(curve, 1, 1, 2, 0, 0)
    found = curve.estimate(1 << 30)
    assert found is not None
    assert (found.requests, found.bytes) == (0.5, 0.0)


def test_a_request_of_the_sample() -> None:
    """`Request` of the traces is a pair of name and size, as `lru` takes it."""
    assert lru([Request(1, 5), Request(1, 5)], 5) == (1, 5)


def test_requests_of_a_batch() -> None:
    """Requests of one batch for an object are observed together, also with others between them."""
    sizing = SizingCurve(1 << 30)
    observed = list[tuple[int, int]]()
    observe = sizing._curve.observe
    sizing._curve.observe = lambda *of: observed.append(of[2:4]) or observe(*of)  # type: ignore[method-assign, func-returns-value]
    records = [AccessRecord("GET", "/", 200, "hit", "hit", "/", ObjectKey("b", str(name)), 9) for name in range(3)]
    uncounted = AccessRecord("HEAD", "/", 200, "hit", "hit", "/", ObjectKey("b", "0"), 9)
    sizing.add([(record, sent, "-", 7.0, 0.0, NOTHING) for sent in (4, 5) for record in (*records, uncounted)])
    assert observed == [(2, 9)] * 3
    found = sizing.sizing()
    assert found is not None
    assert (found.requests, found.objects) == (6, 3)
