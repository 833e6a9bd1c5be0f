"""HTTP dates: RFC 9110 section 5.6.7."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import dates

SAMPLE = 784111777.0  # the RFC's own example, Sun, 06 Nov 1994 08:49:37 GMT
IN_1994 = 785_000_000.0


@each_row(
    ("text", "epoch"),
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", SAMPLE, id="IMF-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", SAMPLE, id="RFC 850"),
        pytest.param("Sun Nov  6 08:49:37 1994", SAMPLE, id="asctime, one-digit day"),
        pytest.param("Sun Nov 06 08:49:37 1994", SAMPLE, id="asctime, two-digit day"),
        pytest.param("Thu, 01 Jan 1970 00:00:00 GMT", 0.0, id="the epoch"),
        pytest.param("Wed, 31 Dec 1969 23:59:59 GMT", -1.0, id="before the epoch"),
        pytest.param("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800.0, id="a leap second"),
        pytest.param("Thu, 29 Feb 2024 00:00:00 GMT", 1709164800.0, id="29 February"),
        pytest.param("Mon, 06 Nov 1994 08:49:37 GMT", SAMPLE, id="the day's name is not held against it"),
    ],
)
def test_parses_the_three_forms(text: str, epoch: float) -> None:
    """Each of the three forms gives its instant."""
    assert dates.parse(text, IN_1994) == epoch


@each_row(
    "text",
    [
        "",
        "0",
        "784111777",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 NOV 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 gmt",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Thu, 30 Feb 2023 00:00:00 GMT",
        "Wed, 29 Feb 2023 00:00:00 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 0\u0666 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06 Nov 94 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
    ],
)
def test_refuses_what_only_resembles_a_date(text: str) -> None:
    """Anything outside the grammar is no date, however readable."""
    assert dates.parse(text, IN_1994) is None


@each_row(
    ("now", "text", "expected"),
    [
        ("2026-11-23T00:00:00", "Sunday, 06-Nov-94 08:49:37 GMT", "1994-11-06T08:49:37"),
        ("2026-11-23T00:00:00", "Sunday, 06-Nov-27 08:49:37 GMT", "2027-11-06T08:49:37"),
        ("2026-11-23T00:00:00", "Sunday, 23-Nov-76 00:00:00 GMT", "2076-11-23T00:00:00"),
        ("2026-11-23T00:00:00", "Sunday, 23-Nov-76 00:00:01 GMT", "1976-11-23T00:00:01"),
        ("2026-11-23T00:00:00", "Sunday, 01-Jan-77 00:00:00 GMT", "1977-01-01T00:00:00"),
        ("2099-12-31T00:00:00", "Friday, 01-Jan-00 00:00:00 GMT", "2100-01-01T00:00:00"),
        ("2024-02-29T12:00:00", "Tuesday, 28-Feb-74 12:00:00 GMT", "2074-02-28T12:00:00"),
    ],
)
def test_two_digit_year_lies_at_most_fifty_years_ahead(now: str, text: str, expected: str) -> None:
    """RFC 9110 section 5.6.7: more than 50 years ahead means the last past year with those digits."""
    clock = datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()
    assert dates.parse(text, clock) == datetime.fromisoformat(expected).replace(tzinfo=UTC).timestamp()


@each_row(
    ("epoch", "text"),
    [
        (SAMPLE, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (SAMPLE + 0.999, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-0.5, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (1709164800, "Thu, 29 Feb 2024 00:00:00 GMT"),
        (-62135596800, "Mon, 01 Jan 0001 00:00:00 GMT"),
    ],
)
def test_formats_as_imf_fixdate(epoch: float, text: str) -> None:
    """A sender writes IMF-fixdate, and a fraction of a second never lets it run ahead."""
    assert dates.format(epoch) == text


@given(st.integers(-62135596800, 253402300799))
def test_what_is_formatted_parses_back(second: int) -> None:
    """Every second of the years 1 to 9999 survives the round trip."""
    assert dates.parse(dates.format(second), IN_1994) == second


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2,8},? [0-9 A-Za-z:-]{0,24}( GMT)?"))
def test_parse_is_total(text: str) -> None:
    """Any text gives an instant or None, never an exception."""
    parsed = dates.parse(text, IN_1994)
    assert parsed is None or isinstance(parsed, float)
