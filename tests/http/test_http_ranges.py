"""Byte ranges: RFC 9110 section 14."""

import re

import pytest
import range_model
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import ranges
from bucketfront.http.ranges import IGNORED, MAX_OFFSET, UNSATISFIABLE, FromTo, Ranges, Span, Suffix

HUGE = "9" * 400
SIZES = st.integers(0, MAX_OFFSET)


@each_row(
    ("header", "size", "expected"),
    [
        # RFC 9110 section 14.1.2, its own examples
        ("bytes=0-499", 10000, (Span(0, 500),)),
        ("bytes=500-999", 10000, (Span(500, 1000),)),
        ("bytes=-500", 10000, (Span(9500, 10000),)),
        ("bytes=9500-", 10000, (Span(9500, 10000),)),
        ("bytes=0-0,-1", 10000, (Span(0, 1), Span(9999, 10000))),
        ("bytes=500-600,601-999", 10000, (Span(500, 601), Span(601, 1000))),
        # 14.1.2: a last-pos past the end is the end; a longer suffix is all of it
        ("bytes=0-", 11, (Span(0, 11),)),
        ("bytes=5-100", 11, (Span(5, 11),)),
        ("bytes=10-10", 11, (Span(10, 11),)),
        ("bytes=-1000", 11, (Span(0, 11),)),
        ("bytes=-11", 11, (Span(0, 11),)),
        (f"bytes=0-{HUGE}", 11, (Span(0, 11),)),
        (f"bytes=-{HUGE}", 11, (Span(0, 11),)),
        ("bytes=" + "0" * 50 + "3-4", 11, (Span(3, 5),)),
        # 14.1.2 and 15.5.17: nothing overlaps
        ("bytes=11-", 11, UNSATISFIABLE),
        ("bytes=11-20", 11, UNSATISFIABLE),
        ("bytes=-0", 11, UNSATISFIABLE),
        ("bytes=-000", 11, UNSATISFIABLE),
        (f"bytes={HUGE}-", 11, UNSATISFIABLE),
        (f"bytes={HUGE}-", MAX_OFFSET, UNSATISFIABLE),
        ("bytes=0-", 0, UNSATISFIABLE),
        ("bytes=0-0", 0, UNSATISFIABLE),
        ("bytes=-5", 0, UNSATISFIABLE),
        ("bytes=11-,-0", 11, UNSATISFIABLE),
        # 14.2: the satisfiable ones of a set are sent
        ("bytes=0-4,11-", 11, (Span(0, 5),)),
        ("bytes=-0,5-", 11, (Span(5, 11),)),
        # 14.1.1: last-pos below first-pos makes the set invalid, by exact arithmetic
        ("bytes=5-3", 11, IGNORED),
        ("bytes=0-4,5-3", 11, IGNORED),
        (f"bytes={HUGE}-{HUGE[:-1]}8", 11, IGNORED),
        (f"bytes={HUGE[:-1]}8-{HUGE}", 11, UNSATISFIABLE),
        # 14.1: units are case-insensitive, other units are not ours
        ("BYTES=0-4", 11, (Span(0, 5),)),
        ("items=0-4", 11, IGNORED),
        ("bytes", 11, IGNORED),
        ("0-4", 11, IGNORED),
        ("", 11, IGNORED),
        # 5.6.1.2: whitespace around commas and empty elements
        ("bytes=0-1 ,\t3-4", 11, (Span(0, 2), Span(3, 5))),
        ("bytes=,0-4,,", 11, (Span(0, 5),)),
        ("bytes= ,0-4", 11, (Span(0, 5),)),
        (" bytes=0-4\t", 11, (Span(0, 5),)),
        ("bytes=", 11, IGNORED),
        ("bytes=,", 11, IGNORED),
        # whitespace anywhere else, and all that is no number
        ("bytes= 0-4", 11, IGNORED),
        ("bytes =0-4", 11, IGNORED),
        ("bytes=0 -4", 11, IGNORED),
        ("bytes=0- 4", 11, IGNORED),
        ("bytes=0-4;", 11, IGNORED),
        ("bytes=0-abc", 11, IGNORED),
        ("bytes=0x1-4", 11, IGNORED),
        ("bytes=+1-4", 11, IGNORED),
        ("bytes=--4", 11, IGNORED),
        ("bytes=1-2-3", 11, IGNORED),
        ("bytes=-", 11, IGNORED),
        ("bytes=4", 11, IGNORED),
        ("bytes=0-4,", 11, (Span(0, 5),)),
        ("bytes=0-4,x", 11, IGNORED),
        ("bytes=\u0661-\u0662", 11, IGNORED),
        ("bytes=\u00b2-4", 11, IGNORED),
        ("bytes==0-4", 11, IGNORED),
    ],
)
def test_table(header: str, size: int, expected: Ranges) -> None:
    """A Range header has the meaning of RFC 9110 section 14."""
    assert ranges.parse(header, size) == expected


def test_a_hundred_ranges_are_honoured_and_one_more_is_not() -> None:
    """I22: a set of more than 100 ranges is ignored; empty elements are not counted."""
    assert ranges.parse("bytes=" + ",".join(["0-0"] * 100), 1) == (Span(0, 1),) * 100
    assert ranges.parse("bytes=" + ",,".join(["0-0"] * 100), 1) == (Span(0, 1),) * 100
    assert ranges.parse("bytes=" + ",".join(["0-0"] * 101), 1) is IGNORED


def test_a_thousand_characters_are_honoured_and_one_more_is_not() -> None:
    """I22: a header of more than 1000 characters is ignored."""
    assert ranges.parse("bytes=0-".ljust(1000, ","), 1) == (Span(0, 1),)
    assert ranges.parse("bytes=0-".ljust(1001, ","), 1) is IGNORED


@each_row(
    ("header", "expected"),
    [
        ("bytes=0-", FromTo(0)),
        ("bytes=5-9", FromTo(5, 10)),
        ("bytes=-7", Suffix(7)),
        ("bytes=-0", Suffix(0)),
        ("bytes=,5-9,", FromTo(5, 10)),
        (f"bytes={HUGE}-", FromTo(MAX_OFFSET)),
        (f"bytes=1-{HUGE}", FromTo(1, MAX_OFFSET + 1)),
        (f"bytes=-{HUGE}", Suffix(MAX_OFFSET)),
        # Of a set, what its first range is: the first request to the origin is then not for byte 0 on
        ("bytes=5-9,20-29", FromTo(5, 10)),
        ("bytes=0-0,-1", FromTo(0, 1)),
        ("bytes=-1,0-0", Suffix(1)),
        ("bytes=,-0,0-0", Suffix(0)),
        ("bytes=" + "7-," * 100, FromTo(7)),
        ("bytes=" + "7-," * 101, None),
        ("bytes=0-1,5-3", None),
        ("bytes=5-3", None),
        ("items=0-1", None),
        ("", None),
        (None, None),
    ],
)
def test_requested_describes_the_first_range(header: str | None, expected: FromTo | Suffix | None) -> None:
    """Before the size is known, exactly a valid set has a description: its first range."""
    assert ranges.requested(header) == expected


SPEC = st.from_regex(re.compile(r"([0-9]{0,2}-[0-9]{0,2}|[ \t]|-?[0-9]|)", re.ASCII), fullmatch=True)
HEADER = st.builds(
    "{}{}".format,
    st.sampled_from(["bytes=", "bytes=", "Bytes=", "bytes", "octets="]),
    st.lists(SPEC, max_size=4).flatmap(
        lambda specs: st.sampled_from([",", " ,", ",\t"]).map(lambda comma: comma.join(specs))
    ),
)


@given(HEADER, st.integers(0, 20))
def test_agrees_with_a_model_of_the_rfc(header: str, size: int) -> None:
    """On short contents, the bytes chosen are those that the RFC's prose picks one by one."""
    found = ranges.parse(header, size)
    expected = range_model.requested(header, size)
    if expected is None:
        assert found is IGNORED
    elif not any(expected):
        assert found is UNSATISFIABLE
    else:
        assert isinstance(found, tuple)
        assert [set(range(span.start, span.stop)) for span in found] == [one for one in expected if one]


@given(st.text() | st.text("bytes=0123456789-, \t").map("bytes={}".format), SIZES)
def test_is_total_and_stays_within_the_size(header: str, size: int) -> None:
    """I22: any text and any size up to 2^63-1 give a verdict, and every span is a non-empty part of it."""
    found = ranges.parse(header, size)
    if isinstance(found, tuple):
        assert found
        assert all(0 <= span.start < span.stop <= size for span in found)
        assert all(span.length == span.stop - span.start > 0 for span in found)


@given(SIZES, SIZES, SIZES)
def test_arithmetic_is_exact_up_to_the_largest_offset(first: int, last: int, size: int) -> None:
    """I22: `a-b`, `a-` and `-n` on 0..2^63-1 lose nothing to rounding or overflow."""
    first, last = min(first, last), max(first, last)
    begins = first < size
    assert ranges.parse(f"bytes={first}-{last}", size) == (
        (Span(first, min(last + 1, size)),) if begins else UNSATISFIABLE
    )
    assert ranges.parse(f"bytes={first}-", size) == ((Span(first, size),) if begins else UNSATISFIABLE)
    assert ranges.parse(f"bytes=-{last}", size) == (
        (Span(max(size - last, 0), size),) if last and size else UNSATISFIABLE
    )


@given(HEADER, st.integers(0, 20))
def test_what_was_requested_resolves_to_what_is_parsed(header: str, size: int) -> None:
    """The range that is found before the size is known agrees with the spans that are found after."""
    requested = ranges.requested(header)
    found = ranges.parse(header, size)
    assert (requested is None) == (found is IGNORED)
    if requested is None:
        return
    span = requested.within(size)
    if "," not in header:
        assert found == (UNSATISFIABLE if span is None else (span,))
    elif span is not None:
        assert isinstance(found, tuple)
        assert found[0] == span


@each_row(
    ("spans", "expected"),
    [
        # RFC 9110 section 15.3.7.2; 80 is the overhead of a part that it names
        pytest.param([], [], id="nothing"),
        pytest.param([(3, 5)], [(3, 5)], id="one"),
        pytest.param([(0, 9), (5, 20)], [(0, 20)], id="overlapping"),
        pytest.param([(5, 20), (0, 9)], [(0, 20)], id="overlapping, backwards"),
        pytest.param([(0, 50), (10, 20)], [(0, 50)], id="one within the other"),
        pytest.param([(10, 20), (0, 50)], [(0, 50)], id="one around the other"),
        pytest.param([(0, 9), (0, 9), (0, 9)], [(0, 9)], id="the same"),
        pytest.param([(0, 9), (9, 20)], [(0, 20)], id="touching"),
        pytest.param([(0, 1), (80, 81)], [(0, 81)], id="a gap of 79"),
        pytest.param([(0, 1), (81, 82)], [(0, 1), (81, 82)], id="a gap of 80"),
        pytest.param([(81, 82), (0, 1)], [(81, 82), (0, 1)], id="in the requested order"),
        pytest.param([(900, 910), (0, 9), (905, 920)], [(900, 920), (0, 9)], id="in the first one's place"),
        pytest.param([(905, 920), (0, 9), (900, 910)], [(900, 920), (0, 9)], id="also if that begins later"),
        pytest.param([(0, 9), (150, 160), (60, 90)], [(0, 160)], id="two by a third between them"),
        pytest.param([(0, 500), (10, 20), (550, 560)], [(0, 560)], id="the gap is from the end of all before"),
        pytest.param([(0, 1), (MAX_OFFSET - 1, MAX_OFFSET)], [(0, 1), (MAX_OFFSET - 1, MAX_OFFSET)], id="far apart"),
    ],
)
def test_spans_worth_one_part_are_one(spans: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    """Spans that overlap, touch or nearly touch are coalesced, at the place of the first one."""
    assert ranges.coalesce(tuple(Span(*span) for span in spans)) == tuple(Span(*span) for span in expected)


SPANS = st.lists(st.builds(lambda start, length: (start, start + length), st.integers(0, 600), st.integers(1, 150)))


@given(SPANS)
def test_coalescing_agrees_with_a_model_of_the_rfc(spans: list[tuple[int, int]]) -> None:
    """What is sent of a set of ranges is each byte of it once, gaps of less than 80 bytes filled, in order."""
    found = ranges.coalesce(tuple(Span(*span) for span in spans))
    expected = range_model.parts([set(range(*span)) for span in spans])
    assert [list(range(span.start, span.stop)) for span in found] == expected
