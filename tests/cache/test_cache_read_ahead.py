"""Read-ahead: what an abandoned read costs, and how soon a steady one gets several parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bucketfront.cache.fetch.read_ahead import ReadAhead
from bucketfront.http.ranges import Span

KIB, MIB = 1 << 10, 1 << 20
USUAL = ReadAhead(256 * KIB, 8 * MIB, 8)

configurations = st.builds(
    lambda block, blocks, parallel: ReadAhead(block, block * blocks, parallel),
    st.sampled_from([64 * KIB, 256 * KIB, MIB, 16 * MIB]),
    st.integers(1, 64),
    st.integers(1, 16),
)


@pytest.mark.parametrize(
    ("read", "size", "part"),
    [
        (0, 256 * KIB, 512 * KIB),
        (1, 256 * KIB, 256 * KIB),
        (2 * MIB, 256 * KIB, 256 * KIB),
        (8 * MIB, MIB, 256 * KIB),
        (32 * MIB, 4 * MIB, 1280 * KIB),
        (256 * MIB, 32 * MIB, 8 * MIB),
        (1 << 40, 64 * MIB, 8 * MIB),
    ],
)
def test_a_careful_reader_with_the_usual_settings(read: int, size: int, part: int) -> None:
    """A reader of an open-ended range begins with little and reaches the same limit as every other."""
    window = USUAL.window(read, is_eager=False)
    assert (window.size, window.part) == (size, part)


@pytest.mark.parametrize(
    ("read", "size"), [(0, 8 * MIB), (4 * MIB, 8 * MIB), (16 * MIB, 32 * MIB), (1 << 40, 64 * MIB)]
)
def test_an_eager_reader_with_the_usual_settings(read: int, size: int) -> None:
    """A reader of a whole object gets whole parts, and twice what it read ahead, up to the parallel parts."""
    window = USUAL.window(read, is_eager=True)
    assert (window.size, window.part) == (size, 8 * MIB)


@given(configurations, st.integers(1, 1 << 44))
def test_what_a_careful_reader_leaves_behind(read_ahead: ReadAhead, read: int) -> None:
    """Its window is at most a sixth of what it read, or two blocks, and never exceeds the limit."""
    window = read_ahead.window(read, is_eager=False)
    assert window.size + window.part <= max(read / 6, 2 * read_ahead.block_size, read / 8 + read_ahead.block_size)
    assert window.part % read_ahead.block_size == 0
    assert read_ahead.block_size <= window.part <= read_ahead.part_size
    assert read_ahead.block_size <= window.size <= read_ahead.part_size * read_ahead.parallel_parts


@given(configurations, st.integers(0, 1 << 44), st.integers(0, 1 << 40), st.booleans())
def test_a_reader_that_reads_on_gets_no_less(read_ahead: ReadAhead, read: int, more: int, is_eager: bool) -> None:
    """The window only grows with what was read, and an eager reader's is never smaller than a careful one's."""
    assert read_ahead.window(read + more, is_eager=is_eager).size >= read_ahead.window(read, is_eager=is_eager).size
    assert read_ahead.window(read, is_eager=True).size >= read_ahead.window(read, is_eager=False).size


def test_several_parts_are_under_way_after_32_mib() -> None:
    """A reader that has read 32 MiB of an open-ended range has three parts ahead of it, and so does not stall."""
    window = USUAL.window(32 * MIB, is_eager=False)
    assert window.size // window.part >= 3


@given(configurations)
def test_the_first_part_is_whole_blocks(read_ahead: ReadAhead) -> None:
    """The first part is at least a block, at most a part, and at most half a MiB unless the block is larger."""
    assert read_ahead.first % read_ahead.block_size == 0
    assert read_ahead.block_size <= read_ahead.first <= max(read_ahead.block_size, min(512 * KIB, read_ahead.part_size))


SIZE = 1 << 31


@pytest.mark.parametrize(
    ("span", "is_short"),
    [
        (Span(5, 5 + 2 * MIB), True),
        (Span(0, 8 * MIB), True),
        (Span(0, 8 * MIB + 1), False),
        (Span(SIZE - 2 * MIB, SIZE), True),  # an index at the end
        (Span(SIZE - 8 * MIB, SIZE), False),  # may be open-ended
        (Span(0, SIZE), False),
    ],
)
def test_short_ranges_are_wanted_whole(span: Span, is_short: bool) -> None:
    """A range of at most a part, with an end of its own, is fetched in one piece."""
    assert USUAL.is_short(span, SIZE) == is_short
