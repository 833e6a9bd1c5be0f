"""Convert HTTP dates (RFC 9110 section 5.6.7) to and from seconds since the epoch.

The grammar is strict: a date has one of three fixed forms, case-sensitive, in GMT. Any other text yields None, because
the sections that use dates define what to do with an invalid one. Like Go's `http.ParseTime`, `parse` does not compare
the day's name with the date.
"""

import math
import re
from calendar import timegm
from datetime import UTC, date, datetime
from email.utils import formatdate
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_DAY = f"(?:{'|'.join(_DAYS)})"
_LONG_DAY = f"(?:{'|'.join(_LONG_DAYS)})"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
# The grammar allows second 60, a leap second.
_CLOCK = r"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"

_IMF_FIXDATE = re.compile(rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT")
_RFC_850 = re.compile(rf"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT")
_ASCTIME = re.compile(rf"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_CLOCK} (?P<year>[0-9]{{4}})")


@lru_cache(maxsize=64)
def _imf_fixdate(second: int) -> str:
    return formatdate(second, usegmt=True)


def format(epoch: float) -> str:  # noqa: A001 - callers read `dates.format(now)`
    """Return the IMF-fixdate of `epoch` (seconds), its fraction cut off. Cached by the second.

    Raises ValueError or OverflowError outside the years 1 to 9999.
    """
    return _imf_fixdate(math.floor(epoch))


def parse(text: str, now: float) -> float | None:
    """Return seconds since the epoch, or None if `text` is not an HTTP date.

    `now` (seconds since the epoch) matters only for the two-digit years of RFC 850 dates.
    """
    match = _IMF_FIXDATE.fullmatch(text) or _ASCTIME.fullmatch(text)
    if match is not None:
        return _epoch(int(match["year"]), match)
    match = _RFC_850.fullmatch(text)
    if match is not None:
        return _epoch_of_short_year(match, now)
    return None


def _epoch(year: int, match: re.Match[str]) -> float | None:
    month = _MONTHS.index(match["month"]) + 1
    day = int(match["day"])
    try:
        date(year, month, day)
    except ValueError:
        return None
    return float(timegm((year, month, day, int(match["hour"]), int(match["minute"]), int(match["second"]))))


def _epoch_of_short_year(match: re.Match[str], now: float) -> float | None:
    """Return the time of a date with a two-digit year (RFC 9110 section 5.6.7).

    A year that seems more than 50 years ahead is the most recent past year with the same two digits.
    """
    today = datetime.fromtimestamp(now, UTC)
    limit = timegm((today.year + 50, today.month, today.day, today.hour, today.minute, today.second))
    # The latest year with these two digits that can lie within the limit, or one century earlier if it does not.
    year = today.year + 50 - (today.year + 50 - int(match["year"])) % 100
    epoch = _epoch(year, match)
    if epoch is not None and epoch > limit:
        return _epoch(year - 100, match)
    return epoch
