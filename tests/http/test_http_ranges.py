"""Byte ranges: RFC 9110 section 14."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http import ranges
from proxy.http.ranges import IGNORED, MAX_OFFSET, UNSATISFIABLE, FromTo, Ranges, Span, Suffix

HUGE = "9" * 400
SIZES = st.integers(0, MAX_OFFSET)


@pytest.mark.parametrize(
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
    """A Range header means what RFC 9110 section 14 says."""
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


@pytest.mark.parametrize(
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
        ("bytes=0-1,3-4", None),
        ("bytes=5-3", None),
        ("items=0-1", None),
        ("", None),
        (None, None),
    ],
)
def test_requested_describes_a_single_range(header: str | None, expected: FromTo | Suffix | None) -> None:
    """Before the size is known, exactly a valid set of one range has a description."""
    assert ranges.requested(header) == expected


SPEC = st.from_regex(re.compile(r"([0-9]{0,2}-[0-9]{0,2}|[ \t]|-?[0-9]|)", re.ASCII), fullmatch=True)
HEADER = st.builds(
    "{}{}".format,
    st.sampled_from(["bytes=", "bytes=", "Bytes=", "bytes", "octets="]),
    st.lists(SPEC, max_size=4).flatmap(
        lambda specs: st.sampled_from([",", " ,", ",\t"]).map(lambda comma: comma.join(specs))
    ),
)


def model(header: str, content: bytes) -> list[bytes] | str:
    """RFC 9110 section 14.1 in other words: lists of byte positions instead of arithmetic."""
    header = header.strip(" \t")
    if not re.fullmatch(
        r"(?i:bytes)=([0-9]+-[0-9]*|-[0-9]+)?([ \t]*,[ \t]*([0-9]+-[0-9]*|-[0-9]+)?)*", header, re.ASCII
    ):
        return "ignored"
    specs = re.findall(r"[0-9]+-[0-9]*|-[0-9]+", header)
    positions = list(range(len(content)))
    parts = []
    for spec in specs:
        first, last = spec.split("-")
        if first and last and int(first) > int(last):
            return "ignored"
        if not first:
            chosen = [at for at in positions if len(content) - at <= int(last)]
        else:
            chosen = [at for at in positions if int(first) <= at and (not last or at <= int(last))]
        if chosen:
            parts.append(bytes(content[at] for at in chosen))
    if not specs:
        return "ignored"
    return parts or "unsatisfiable"


@given(HEADER, st.integers(0, 20))
def test_agrees_with_a_model_of_the_rfc(header: str, size: int) -> None:
    """On short contents, the bytes chosen are those that the RFC's prose picks one by one."""
    content = bytes(range(size))
    found = ranges.parse(header, size)
    if found is IGNORED:
        assert model(header, content) == "ignored"
    elif found is UNSATISFIABLE:
        assert model(header, content) == "unsatisfiable"
    else:
        assert model(header, content) == [content[span.start : span.stop] for span in found]


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
    """A description taken before the size was known agrees with the answer given after."""
    asked = ranges.requested(header)
    if asked is None:
        return
    span = asked.within(size)
    assert ranges.parse(header, size) == (UNSATISFIABLE if span is None else (span,))
