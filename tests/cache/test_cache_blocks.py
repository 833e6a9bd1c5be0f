"""Block sets against sets of numbers."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bucketfront.cache.storage import blocks
from bucketfront.http.ranges import Span

BLOCK = 8192
counts = st.integers(0, 300)
sets = st.sets(st.integers(0, 300))
sizes = st.integers(1, 40 * BLOCK)


def bits(numbers: set[int]) -> int:
    return sum(1 << number for number in numbers)


@st.composite
def ranges(draw: st.DrawFn) -> range:
    start, stop = sorted((draw(counts), draw(counts)))
    return range(start, stop)


@given(sets, ranges())
def test_first_absent_and_first_present(numbers: set[int], run: range) -> None:
    """The functions find the first number of a run that is not, or is, in the set, else the run's end."""
    assert blocks.first_absent(bits(numbers), run.start, run.stop) == next(
        (number for number in run if number not in numbers), run.stop
    )
    assert blocks.first_present(bits(numbers), run.start, run.stop) == next(
        (number for number in run if number in numbers), run.stop
    )


@given(sets, ranges())
def test_missing_is_the_complement_in_maximal_runs(numbers: set[int], run: range) -> None:
    """The missing runs have exactly the absent numbers, in order, and no two of them touch."""
    found = list(blocks.missing(bits(numbers), run))
    assert [number for part in found for number in part] == [number for number in run if number not in numbers]
    assert all(part for part in found)
    assert all(one.stop < two.start for one, two in itertools.pairwise(found))


@given(ranges())
def test_mask_is_the_run_as_a_set(run: range) -> None:
    """A run of blocks as a set has those members and no others."""
    assert blocks.mask(run) == bits(set(run))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_covering_is_the_least_run_around_the_bytes(one: int, other: int) -> None:
    """Every block that covers a span holds a byte of it, and every byte lies in one of them."""
    span = Span(min(one, other), max(one, other))
    run = blocks.covering(span, BLOCK)
    if span.length == 0:
        assert not run
    else:
        assert run.start * BLOCK <= span.start < (run.start + 1) * BLOCK
        assert (run.stop - 1) * BLOCK < span.stop <= run.stop * BLOCK


def test_covering_of_a_reversed_span_is_empty() -> None:
    """A span that ends before it starts holds no byte."""
    assert not blocks.covering(Span(3 * BLOCK, BLOCK), BLOCK)


@given(sizes)
def test_the_blocks_of_an_object_hold_its_bytes(size: int) -> None:
    """The spans of all blocks, one after the other, are the object. Counts and sets agree on their number."""
    count = blocks.block_count(size, BLOCK)
    spans = [blocks.span_of(range(block, block + 1), size, BLOCK) for block in range(count)]
    assert (spans[0].start, spans[-1].stop) == (0, size)
    assert all(one.stop == two.start for one, two in itertools.pairwise(spans))
    assert all(0 < span.length <= BLOCK for span in spans)
    assert blocks.all_blocks(size, BLOCK).bit_count() == count
    assert blocks.span_of(range(count), size, BLOCK) == Span(0, size)
    assert blocks.span_of(range(count, count + 3), size, BLOCK) == Span(size, size)


@given(sizes, st.data())
def test_whole_below_counts_the_blocks_that_have_ended(size: int, data: st.DataObject) -> None:
    """A block is whole if no byte of it lies beyond the place, also the short one at the object's end (I2)."""
    stop = data.draw(st.integers(0, size))
    spans = [blocks.span_of(range(block, block + 1), size, BLOCK) for block in range(blocks.block_count(size, BLOCK))]
    assert blocks.whole_below(stop, size, BLOCK) == sum(span.stop <= stop for span in spans)


def test_an_empty_object_has_no_blocks() -> None:
    """An object of no bytes is complete from the start and takes no space."""
    assert blocks.block_count(0, BLOCK) == blocks.all_blocks(0, BLOCK) == blocks.allocated(0, 0, BLOCK) == 0
    assert blocks.present_spans(0, 0, BLOCK) == []


@given(sets, sizes)
def test_present_spans_are_the_bytes_of_the_blocks(numbers: set[int], size: int) -> None:
    """The spans hold the bytes of the blocks in the set, no others, and never pass the object's end."""
    count = blocks.block_count(size, BLOCK)
    present = {number for number in numbers if number < count}
    spans = blocks.present_spans(bits(present), size, BLOCK)
    inside = [any(span.start <= block * BLOCK < span.stop for span in spans) for block in range(count)]
    assert {block for block in range(count) if inside[block]} == present
    assert sum(span.length for span in spans) == sum(min(BLOCK, size - block * BLOCK) for block in present)
    assert all(span.start < span.stop <= size for span in spans)


@given(sets, sizes)
def test_allocated_is_the_sum_over_blocks(numbers: set[int], size: int) -> None:
    """Space is counted by block, and the last one in the file system's units. The parts add up to the whole (I17)."""
    count = blocks.block_count(size, BLOCK)
    present = {number for number in numbers if number < count}
    single = [blocks.allocated(1 << block, size, BLOCK) for block in present]
    assert blocks.allocated(bits(present), size, BLOCK) == sum(single)
    for block, took in zip(present, single, strict=True):
        length = min(BLOCK, size - block * BLOCK)
        assert length <= took < length + blocks.ALLOCATION_UNIT
        assert took % blocks.ALLOCATION_UNIT == 0


@given(present=sets.map(bits), limit=st.integers(1, 5))
def test_first_runs_are_those_of_a_plain_search(present: int, limit: int) -> None:
    """The first runs cover the lowest blocks of the set and no other, also beyond a word of a large set."""
    for shift in (0, blocks._WORD_BITS - 3):
        moved = present << shift
        found = blocks.first_runs(moved, limit)
        all_runs = [(run.start, run.stop) for run in blocks.missing(~moved, range(moved.bit_length()))]
        assert list(found) == all_runs[:limit]


@given(present=sets.map(bits), size=st.integers(0, 400), block_size=st.integers(1, 40))
def test_are_all(present: int, size: int, block_size: int) -> None:
    """A set is complete if it has the blocks of the object and no others, also one without a block in the middle."""
    everything = blocks.all_blocks(size, block_size)
    assert blocks.are_all(everything, size, block_size)
    assert blocks.are_all(present, size, block_size) == (present == everything)
    assert not blocks.are_all(everything | 1 << everything.bit_length(), size, block_size)
    for block in blocks.members(everything):
        assert not blocks.are_all(everything & ~(1 << block), size, block_size)


@given(present=sets.map(bits), size=st.integers(0, 400), block_size=st.integers(1, 40))
def test_byte_count_is_that_of_the_spans(present: int, size: int, block_size: int) -> None:
    """The bytes of a set are those of its spans, with a last block that may be shorter."""
    present &= blocks.all_blocks(size, block_size)
    spans = blocks.present_spans(present, size, block_size)
    assert blocks.byte_count(present, size, block_size) == sum(span.length for span in spans)
