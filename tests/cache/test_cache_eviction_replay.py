"""The replay of `make eviction`: its LRU and S3-FIFO are those of libCacheSim, an independent simulator of caches."""

import sys
from pathlib import Path

import pytest
from rows import each_row

# At the end of the path, because other modules of this folder have names that tests have as well.
sys.path.append(str(Path(__file__).parents[2] / "bench"))

from eviction import belady, plain_lru, replay, simulated
from traces import Trace, traces

from bucketfront.cache.entries.eviction import PolicyFactory
from bucketfront.cache.entries.lru_with_probation import LruWithProbation
from bucketfront.cache.entries.s3_fifo import S3Fifo

LENGTH = 3000
PERCENT = 30  # of the bytes of all objects: then few objects are larger than the small queue
MAX_DIFFERENCE = 0.01  # of all requests

# The hits of libCacheSim 0.3.5 with its LRU and its S3FIFO, so that the tests need not have it.
RECORDED = {"zipf": (1887, 2014), "zipf and crawls": (1224, 1383), "HLS live": (1642, 1585), "HLS VOD": (371, 274)}


@pytest.fixture(scope="module")
def short() -> dict[str, Trace]:
    return {trace.name: trace for trace in traces(LENGTH)}


def limit_of(trace: Trace) -> int:
    return trace.footprint * PERCENT // 100


@each_row("name", RECORDED)
def test_our_policies_are_those_of_the_simulator(short: dict[str, Trace], name: str) -> None:
    """LRU without probation has the same hits as the simulator's, and S3-FIFO the same up to a hundredth."""
    trace = short[name]
    lru, s3_fifo = RECORDED[name]
    assert replay(trace.requests, limit_of(trace), plain_lru).hits == lru
    ours = replay(trace.requests, limit_of(trace), S3Fifo).hits
    assert abs(ours - s3_fifo) <= MAX_DIFFERENCE * len(trace.requests)


@each_row("name", RECORDED)
def test_the_recorded_hits_are_those_of_the_simulator(short: dict[str, Trace], name: str) -> None:
    """What is recorded of the simulator is what it does, where it is installed."""
    trace = short[name]
    found = [simulated(trace.requests, limit_of(trace), algorithm) for algorithm in ("LRU", "S3FIFO")]
    if None in found:
        pytest.skip("libcachesim is not installed: pip install -e '.[bench]'")
    assert tuple(one.hits for one in found if one is not None) == RECORDED[name]


@each_row("policy", [plain_lru, LruWithProbation, S3Fifo])
def test_no_policy_has_more_hits_than_one_that_knows_the_future(short: dict[str, Trace], policy: PolicyFactory) -> None:
    """Belady's algorithm is a bound for objects of nearly one size, as those of a live stream are."""
    trace = short["HLS live"]
    for percent in (3, 10):
        limit = trace.footprint * percent // 100
        assert replay(trace.requests, limit, policy).hits <= belady(trace.requests, limit).hits


def test_probation_pays_for_popularity_by_zipf(short: dict[str, Trace]) -> None:
    """With and without crawls, both policies have more hits than LRU without probation."""
    for name in ("zipf", "zipf and crawls"):
        trace = short[name]
        limit = trace.footprint // 10
        plain = replay(trace.requests, limit, plain_lru).hits
        for policy in (LruWithProbation, S3Fifo):
            assert replay(trace.requests, limit, policy).hits > plain * 1.1
