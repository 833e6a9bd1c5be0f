"""Conditional requests (RFC 9110 section 13).

As in Go's net/http, each precondition is a function that says True, False, or None where it does not apply,
and one function puts them in the order of section 13.2.2.
"""

from enum import Enum, auto

from bucketfront.http import dates, etags
from bucketfront.http.metadata import Metadata

STRONG_AFTER_S = 60.0
"""Seconds after which a Last-Modified is a strong validator."""


class Verdict(Enum):
    """What the preconditions make of a request."""

    PROCEED = auto()
    NOT_MODIFIED = auto()  # 304
    FAILED = auto()  # 412


def evaluate(
    metadata: Metadata,
    now: float,
    *,
    method: str,
    if_match: str | None = None,
    if_none_match: str | None = None,
    if_modified_since: str | None = None,
    if_unmodified_since: str | None = None,
) -> Verdict:
    """RFC 9110 section 13.2.2, steps 1 to 4, for a representation that exists. Step 5 is `if_range_holds`.

    Field values are as received, None where the field is absent. `now` is in seconds since the epoch.
    """
    reading = method in {"GET", "HEAD"}
    held = _if_match(if_match, metadata)
    if held is None:
        held = _if_unmodified_since(if_unmodified_since, metadata, now)
    if held is False:
        return Verdict.FAILED
    held = _if_none_match(if_none_match, metadata)
    if held is False:
        return Verdict.NOT_MODIFIED if reading else Verdict.FAILED
    # Section 13.1.3: an If-None-Match disables If-Modified-Since, and so does a malformed one: its sender
    # knows that dates are too coarse.
    if if_none_match is None and reading and _if_modified_since(if_modified_since, metadata, now) is False:
        return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def if_range_holds(header: str, metadata: Metadata, now: float) -> bool:
    """RFC 9110 section 13.1.5: may the Range be honoured? If not, the whole representation is sent.

    An entity tag must match by strong comparison. A date must be the Last-Modified's own instant (an earlier
    or later one proves nothing), and that must be a strong validator (section 8.8.2.2): old enough that no
    second change can hide in the same second. S3 gives whole seconds and its Date is not kept, so the measure
    is STRONG_AFTER_S between Last-Modified and `now` (seconds since the epoch); anything younger is sent whole.
    """
    wanted = etags.parse(header)
    if wanted is not None:
        current = etags.parse(metadata.etag)
        return current is not None and etags.strong_match(wanted, current)
    date = dates.parse(header, now)
    modified = _last_modified(metadata, now)
    return date is not None and date == modified and now - modified >= STRONG_AFTER_S


def _if_match(header: str | None, metadata: Metadata) -> bool | None:
    """Section 13.1.1. A malformed list matches nothing: no write goes ahead on a tag nobody could read."""
    if header is None:
        return None
    wanted = etags.parse_list(header)
    if wanted is etags.ANY:
        return True
    current = etags.parse(metadata.etag)
    return wanted is not None and current is not None and any(etags.strong_match(one, current) for one in wanted)


def _if_unmodified_since(header: str | None, metadata: Metadata, now: float) -> bool | None:
    """Section 13.1.4. Ignored if it is no date, or where no modification date is known."""
    date = None if header is None else dates.parse(header, now)
    modified = _last_modified(metadata, now)
    if date is None or modified is None:
        return None
    return modified <= date


def _if_none_match(header: str | None, metadata: Metadata) -> bool | None:
    """Section 13.1.2. A malformed list is ignored: at worst the client gets what it already has."""
    wanted = None if header is None else etags.parse_list(header)
    if wanted is None:
        return None
    if wanted is etags.ANY:
        return False
    current = etags.parse(metadata.etag)
    return current is None or not any(etags.weak_match(one, current) for one in wanted)


def _if_modified_since(header: str | None, metadata: Metadata, now: float) -> bool | None:
    """Section 13.1.3. Ignored if it is no date, or where no modification date is known."""
    date = None if header is None else dates.parse(header, now)
    modified = _last_modified(metadata, now)
    if date is None or modified is None:
        return None
    return modified > date


def _last_modified(metadata: Metadata, now: float) -> float | None:
    return None if metadata.last_modified is None else dates.parse(metadata.last_modified, now)
