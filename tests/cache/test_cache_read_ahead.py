"""Read-ahead: what an abandoned read costs, and how soon a steady one gets several parts."""

from hypothesis import example, given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.cache.fetch.read_ahead import ReadAhead, Window
from bucketfront.cache.fetch.walk import MAX_STRETCHES, Walk, Walks
from bucketfront.http.ranges import Demand, Span

KIB, MIB = 1 << 10, 1 << 20
USUAL = ReadAhead(32 * KIB, 8 * MIB, 8, 64 * MIB)

configurations = st.builds(
    lambda block, blocks, parallel, most: ReadAhead(block, block * blocks, parallel, most),
    st.sampled_from([64 * KIB, 256 * KIB, MIB, 16 * MIB]),
    st.integers(1, 64),
    st.integers(1, 16),
    st.integers(0, 1 << 32),
)


@each_row(
    ("read", "is_starved", "size", "part"),
    [
        (0, True, 256 * KIB, 512 * KIB),
        (1, True, 256 * KIB, 256 * KIB),
        (MIB, False, 256 * KIB, 256 * KIB),
        (4 * MIB, True, 256 * KIB, MIB),
        (24 * MIB, False, MIB, 2 * MIB),
        (40 * MIB, True, 2 * MIB, 8 * MIB),
        (240 * MIB, False, 22 * MIB, 8 * MIB),
        (240 * MIB, True, 52 * MIB, 8 * MIB),
        (1 << 40, False, 56 * MIB, 8 * MIB),
    ],
)
def test_a_careful_reader_with_the_usual_settings(read: int, is_starved: bool, size: int, part: int) -> None:
    """A reader of an open-ended range begins with little and reaches the same limit as every other."""
    window = USUAL.window(read, is_eager=False, is_starved=is_starved)
    assert (window.size, window.part) == (size, part)


@each_row(("read", "size"), [(0, 8 * MIB), (64 * MIB, 8 * MIB), (128 * MIB, 24 * MIB), (1 << 40, 56 * MIB)])
def test_an_eager_reader_with_the_usual_settings(read: int, size: int) -> None:
    """A reader of a whole object gets whole parts, and a quarter of what it read ahead of it, or two parts."""
    window = USUAL.window(read, is_eager=True)
    assert (window.size, window.part) == (size, 8 * MIB)


@example(ReadAhead(64 * KIB, 2 * MIB, 4, 0), 15 * 256 * KIB, False)  # a part that is just more than small
@given(configurations, st.integers(1, 1 << 44), st.booleans())
def test_what_a_careful_reader_leaves_behind(read_ahead: ReadAhead, read: int, is_starved: bool) -> None:
    """Its window is an eighth of what it read, a quarter if it waits for more, and small parts. It has a limit."""
    window = read_ahead.window(read, is_eager=False, is_starved=is_starved)
    small = max(read_ahead.block_size, 256 * KIB)
    assert window.size + window.part <= max(read / 4 + small if is_starved else read / 8, 2 * small)
    assert window.part % read_ahead.block_size == 0
    assert read_ahead.block_size <= window.part <= read_ahead.part_size
    assert read_ahead.block_size <= window.size <= read_ahead.limit


@given(configurations, st.integers(0, 1 << 44))
def test_what_an_eager_reader_leaves_behind(read_ahead: ReadAhead, read: int) -> None:
    """What is fetched ahead of a download is a quarter of what it read, within the limit, or two parts."""
    window = read_ahead.window(read, is_eager=True)
    assert window.part == read_ahead.part_size
    assert window.size + window.part <= max(2 * read_ahead.part_size, min(read // 4, read_ahead.most))


@given(configurations, st.integers(0, 1 << 44), st.booleans())
def test_what_a_walk_leaves_behind(read_ahead: ReadAhead, length: int, is_parallel: bool) -> None:
    """What is fetched behind a range is a share of its walk, or a few blocks, and within the limit."""
    window = read_ahead.walk_window(Walk(length, length), is_parallel=is_parallel)
    share = length // 2 if is_parallel else max(length // 10, min(length // 2, 256 * KIB))
    small = 0 if is_parallel or not share else 2 * read_ahead.block_size
    assert window.size + window.part <= max(min(share, read_ahead.limit), small)


@each_row(
    ("present", "missing", "is_worth_it"),
    [(55, 45, False), (88, 12, False), (89, 11, True), (100, 0, True), (1000, 101, False), (1000, 100, True)],
)
def test_the_rest_of_an_object_is_fetched_if_it_is_little(present: int, missing: int, is_worth_it: bool) -> None:
    """Without a reader, an eighth of what is present is fetched at most, and no more than read-ahead may."""
    assert ReadAhead(1, 1, 1, 100).is_worth_the_rest(present, missing) == is_worth_it


@given(configurations, st.integers(0, 1 << 44), st.integers(0, 1 << 40), st.booleans())
def test_a_reader_that_reads_on_gets_no_less(read_ahead: ReadAhead, read: int, more: int, is_eager: bool) -> None:
    """The window only grows with what was read, and an eager reader's is never smaller than a careful one's."""
    assert read_ahead.window(read + more, is_eager=is_eager).size >= read_ahead.window(read, is_eager=is_eager).size
    assert read_ahead.window(read, is_eager=True).size >= read_ahead.window(read, is_eager=False).size


def test_a_reader_that_reads_on_soon_gets_whole_parts() -> None:
    """An open-ended range that is read to its end costs at most 1.3 requests a part of 500 MB."""
    at = requests = 0
    while at < 500_000_000:
        at += USUAL.window(at, is_eager=False).part
        requests += 1
    assert requests <= 1.3 * 500_000_000 / USUAL.part_size


def test_several_parts_are_under_way_after_120_mib() -> None:
    """A reader that has read 120 MiB of an open-ended range has several whole parts ahead of it."""
    window = USUAL.window(120 * MIB, is_eager=False)
    assert window.size // window.part >= 2


@given(configurations)
def test_the_first_part_is_whole_blocks(read_ahead: ReadAhead) -> None:
    """The first part is at least a block, at most a part, and at most half a MiB unless the block is larger."""
    assert read_ahead.first % read_ahead.block_size == 0
    assert read_ahead.block_size <= read_ahead.first <= max(read_ahead.block_size, min(512 * KIB, read_ahead.part_size))


SIZE = 1 << 31
NO_WALK = Walk(0, SIZE)


@each_row(
    ("demand", "span", "keeps_ends", "is_eager"),
    [
        (Demand.WHOLE, Span(0, SIZE), False, True),
        (Demand.BOUNDED, Span(5, 5 + 2 * MIB), True, True),
        (Demand.BOUNDED, Span(5, 5 + 200 * MIB), False, True),
        (Demand.BOUNDED, Span(0, SIZE - 1), False, True),
        (Demand.BOUNDED, Span(0, SIZE), True, True),
        (Demand.BOUNDED, Span(0, SIZE), False, False),
        (Demand.BOUNDED, Span(SIZE - 2 * MIB, SIZE), False, True),
        (Demand.BOUNDED, Span(SIZE - 8 * MIB, SIZE), True, True),
        (Demand.BOUNDED, Span(SIZE - 9 * MIB, SIZE), True, False),  # a seek, or a download that begins in the middle
        (Demand.OPEN, Span(SIZE - 2 * MIB, SIZE), True, True),  # an index at the end
        (Demand.OPEN, Span(SIZE - 8 * MIB, SIZE), True, False),
        (Demand.OPEN, Span(0, SIZE), True, False),
    ],
)
def test_a_range_with_an_end_is_a_promise(demand: Demand, span: Span, keeps_ends: bool, is_eager: bool) -> None:
    """A client reads all of a range that it gave an end.

    If that is the object's end, it may be a player's seek. An open-ended range is read whole only if it is short.
    """
    assert USUAL.is_eager(demand, span, SIZE, NO_WALK, keeps_ends=keeps_ends) == is_eager


def test_the_last_range_of_a_row_is_a_promise() -> None:
    """A long range up to the object's end is read whole if the ranges before it were requested too."""
    span = Span(SIZE - 100 * MIB, SIZE)
    assert USUAL.is_eager(Demand.BOUNDED, span, SIZE, Walk(50 * MIB, SIZE), keeps_ends=True)
    assert not USUAL.is_eager(Demand.BOUNDED, span, SIZE, Walk(49 * MIB, SIZE), keeps_ends=True)


@each_row(
    ("length", "is_parallel", "size", "part"),
    [
        (0, False, 0, 0),
        (63 * KIB, False, 0, 0),
        (64 * KIB, False, 32 * KIB, 32 * KIB),
        (512 * KIB, False, 128 * KIB, 128 * KIB),
        (40 * MIB, False, 2 * MIB, 2 * MIB),
        (1 << 40, False, 56 * MIB, 8 * MIB),
        (0, True, 0, 0),
        (5 * MIB, True, 0, 2560 * KIB),
        (20 * MIB, True, 2 * MIB, 8 * MIB),
        (1 << 40, True, 56 * MIB, 8 * MIB),
    ],
)
def test_a_walk_is_fetched_ahead_of_its_ranges(length: int, is_parallel: bool, size: int, part: int) -> None:
    """The bytes behind a range grow with the walk. If its ranges are read side by side, they are whole parts."""
    assert USUAL.walk_window(Walk(length, length), is_parallel=is_parallel) == Window(size, part)


def test_ranges_that_continue_each_other_are_a_walk() -> None:
    """The length of a walk is that of the requested bytes before the range, whatever the order of the requests."""
    walks = Walks(gap=100)

    def join(start: int, stop: int) -> tuple[int, int]:
        walks.add(Span(start, stop))
        walk = walks.of(Span(start, stop))
        return walk.length, walk.stop

    assert join(0, 500) == (0, 500)
    assert join(800, 1000) == (0, 1000), "behind a gap"
    assert join(500, 800) == (500, 1000)
    assert join(1099, 1200) == (1000, 1200), "of which the bytes in between are no part"
    assert join(1300, 1400) == (0, 1400), "behind a gap"
    for _ in range(3):
        assert join(500, 800) == (500, 1200), "no longer by repetition"


@each_row(
    ("ranges", "are_of_download"),
    [
        ([], False),
        ([(0, 100)], True),
        ([(1, 100)], False),  # begins in the middle
        ([(0, 100), (100, 900)], True),
        ([(0, 100), (900, 1000)], False),  # a header, and a place that it names
        ([(900, 1000), (0, 100), (100, 200)], False),  # a footer, and column chunks
        ([(300, 500), (0, 300), (600, 1000)], True),  # side by side, and one is still to come
        ([(0, 10), (20, 30), (40, 50)], False),  # neighbours with gaps
    ],
)
def test_a_download_leaves_hardly_a_gap(ranges: list[tuple[int, int]], are_of_download: bool) -> None:
    """Ranges are those of a download if they cover nearly all bytes from the object's start on, in any order."""
    walks = Walks(gap=50)
    for start, stop in ranges:
        walks.add(Span(start, stop))
    assert walks.are_of_download == are_of_download


@each_row(
    ("other", "is_parallel"),
    [(Span(0, 500), True), (Span(900, 1000), True), (Span(0, 400), False), (Span(500, 900), False)],
)
def test_neighbours_that_are_read_at_once_are_parallel(other: Span, is_parallel: bool) -> None:
    """A range is read side by side with its neighbour on either side, but not with any other range."""
    assert Walks(gap=100).are_neighbours(Span(500, 900), other) == is_parallel


def test_of_many_ranges_the_latest_are_remembered() -> None:
    """Memory does not grow with the number of ranges (I19)."""
    walks = Walks(gap=1)
    for number in range(2 * MAX_STRETCHES):
        walks.add(Span(10 * number, 10 * number + 5))
        assert walks.of(Span(10 * number, 10 * number + 5)).length == 0
    assert len(walks._stretches) == MAX_STRETCHES
    last = Span(10 * (2 * MAX_STRETCHES - 1) + 5, 1 << 30)
    walks.add(last)
    assert walks.of(last).length == 5
    assert walks.of(Span(0, 5)) == Walk(0, 5)
