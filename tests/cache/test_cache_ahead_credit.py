"""The credit of what is fetched behind ranges: readers of file formats lose it, and downloads keep it."""

from hypothesis import given
from hypothesis import strategies as st

from bucketfront.cache.fetch.ahead_credit import PROBE_SHARE, UNUSED_SHARE, AheadCredit
from bucketfront.cache.fetch.read_ahead import NOTHING, ReadAhead, Window
from bucketfront.http.ranges import Span

BLOCK = 1000
ALL = (1 << 4000) - 1
NOWHERE = Span(0, 0)

places = st.tuples(st.integers(0, 2000), st.integers(1, 60)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def bytes_of(first: int, stop: int) -> Span:
    return Span(first * BLOCK, stop * BLOCK)


@given(st.lists(st.tuples(places, st.integers(0, 60))))
def test_what_is_unused_is_a_share_of_what_was_requested(steps: list[tuple[tuple[int, int], int]]) -> None:
    """Whatever the ranges are, at most one block in eight of those requested was fetched ahead and is unused."""
    credit, requested, ahead = AheadCredit(BLOCK), set[int](), set[int]()
    for (first, stop), more in steps:
        credit.note_request(bytes_of(first, stop))
        requested |= set(range(first, stop))
        allowed = credit.left(bytes_of(stop, stop + more), ALL) // BLOCK
        run = range(first, stop + min(more, allowed))
        credit.note_fetch(run)
        ahead = (ahead | set(run)) - requested
        assert len(ahead) <= len(requested) // UNUSED_SHARE


def test_a_reader_that_uses_nothing_gets_a_little() -> None:
    """Ranges whose neighbours are never requested have a thirtieth of their bytes fetched ahead, all together."""
    credit = AheadCredit(BLOCK)
    for number in range(1, 20):
        first = 100 * number
        credit.note_request(bytes_of(first, first + 40))
        allowed = credit.left(bytes_of(first + 40, first + 100), ALL) // BLOCK
        credit.note_fetch(range(first, first + 40 + allowed))
    assert credit.left(NOWHERE, ALL) == 0
    assert (credit._unused.bit_count(), credit._requested_count) == (19 * 40 // PROBE_SHARE, 19 * 40)


def test_a_reader_that_uses_what_came_gets_more() -> None:
    """Ranges in a row, behind those that lie apart, soon have an eighth of their bytes fetched ahead."""
    credit = AheadCredit(BLOCK)
    credit.note_request(bytes_of(3000, 3001))
    at = 0
    while at < 1000:
        credit.note_request(bytes_of(at, at + 4))
        at += 4
        credit.note_fetch(range(at, at + credit.left(bytes_of(at, at + 1000), ALL) // BLOCK))
    assert credit.left(bytes_of(at, at + 1000), ALL) // BLOCK == 1001 // UNUSED_SHARE


def test_what_was_lost_is_not_counted() -> None:
    """Blocks that were to come ahead and did not come leave their credit."""
    credit = AheadCredit(BLOCK)
    credit.note_request(bytes_of(0, 2 * PROBE_SHARE))
    assert credit.left(bytes_of(900, 901), ALL) == 2 * BLOCK
    credit.note_fetch(range(2 * PROBE_SHARE, 2 * PROBE_SHARE + 2))
    assert credit.left(bytes_of(900, 901), ALL) == 0
    assert credit.left(bytes_of(900, 901), (1 << 2 * PROBE_SHARE) - 1) == 2 * BLOCK


@given(st.integers(0, 1 << 30), st.integers(0, 1 << 30), st.integers(0, 1 << 31))
def test_a_window_within_a_limit(size: int, part: int, most: int) -> None:
    """A limited window has whole blocks, is no larger than it was, and reaches as far as the limit lets it."""
    read_ahead = ReadAhead(BLOCK, 8 * BLOCK, 8, 64 * BLOCK)
    window = Window(size // BLOCK * BLOCK, part // BLOCK * BLOCK)
    found = read_ahead.within(window, most)
    assert found == NOTHING or (found.part % BLOCK, found.size % BLOCK) == (0, 0)
    assert found.size <= window.size
    assert found.part <= window.part
    assert found.size + found.part <= most
    if window.part and window.size + window.part <= most:
        assert found == window
