"""What programs that read data cost at the origin: the recorded traces of bench/data_traces, and readers like them."""

import asyncio
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from rows import each_row

# At the end of the path, because other modules of this folder have names that tests have as well.
sys.path.append(str(Path(__file__).parents[2] / "bench"))

from data_replay import replayed
from data_trace import DataTrace, Request, data_traces

KIB, MIB = 1 << 10, 1 << 20
MOST = 1.3  # bytes of the origin for each byte that is read
KILOBYTES = "fsspec-random"  # its reads are smaller than any block

TRACES = {trace.name: trace for trace in data_traces()}


@each_row("name", TRACES)
def test_programs_of_data_cost_little_more_than_they_read(name: str) -> None:
    """The origin sends at most 1.3 times what a program reads, in at most as many requests, with the usual settings.

    The program that reads kilobytes at random places costs a block for each. What no range touches is a tenth at most.
    """
    outcome = asyncio.run(replayed(TRACES[name]))
    assert outcome.sent <= MOST * (outcome.blocks if name == KILOBYTES else outcome.read)
    assert outcome.unread <= outcome.sent // 10
    assert outcome.requests <= outcome.requested


places = st.tuples(
    st.floats(0, 0.9),  # of the object
    st.lists(st.integers(64 * KIB, MIB), min_size=3, max_size=8),  # ranges that are neighbours
)


@settings(max_examples=20, deadline=None)
@given(st.integers(128 * MIB, 512 * MIB), st.lists(places, min_size=1, max_size=10), st.booleans())
def test_a_reader_that_an_index_leads_leaves_little_unread(
    size: int, found: list[tuple[float, list[int]]], is_parallel: bool
) -> None:
    """A footer, and then neighbours at any places, cost 1.2 times their blocks at most, at once or one by one."""
    requests = [Request("GET", 0, f"{size - 64 * KIB}-{size - 1}", 0)]
    for place, lengths in found:
        start, before = int(place * size), len(requests)
        for length in lengths:
            ended = before if is_parallel else len(requests)
            requests.append(Request("GET", 0, f"{start}-{start + length - 1}", ended))
            start += length
    outcome = asyncio.run(replayed(DataTrace("made", "", "", [size], requests)))
    assert outcome.sent <= 1.2 * outcome.blocks
