"""Evaluate the preconditions of a conditional request (RFC 9110 section 13).

As in Go's net/http, each precondition is a function. It returns whether the condition holds, or None if it does not
apply. `evaluate` calls them in the order of section 13.2.2.
"""

from enum import Enum, auto

from bucketfront.http import dates, etags
from bucketfront.http.metadata import Metadata

STRONG_AFTER_S = 60.0
"""The age from which a Last-Modified counts as a strong validator, in seconds.

It is the minute of RFC 7232 section 2.2.2. The one second of RFC 9110 section 8.8.2.2 needs the origin's Date.
"""


class Verdict(Enum):
    """The effect of the preconditions on a request."""

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
    """Return the verdict for a representation that exists (RFC 9110 section 13.2.2, steps 1 to 4).

    Step 5 is `if_range_holds`. Field values are as received, None for an absent field. `now` is in seconds since the
    epoch.
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
    # Section 13.1.3: an If-None-Match disables If-Modified-Since. A malformed one does so as well, because its sender
    # knows that dates are too coarse.
    if if_none_match is None and reading and _if_modified_since(if_modified_since, metadata, now) is False:
        return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def if_range_holds(header: str, metadata: Metadata, now: float) -> bool:
    """Return whether the Range may be honoured (RFC 9110 section 13.1.5). If not, the client gets the whole.

    An entity tag must match by strong comparison. A date must equal the Last-Modified, because an earlier or later one
    proves nothing. The Last-Modified must be a strong validator (section 8.8.2.2), which means that no second change
    can be in the same second. S3 sends whole seconds and its Date is not stored. So the Last-Modified counts as strong
    STRONG_AFTER_S before `now` (seconds since the epoch).
    """
    wanted = etags.parse(header)
    if wanted is not None:
        current = etags.parse(metadata.etag)
        return current is not None and etags.strong_match(wanted, current)
    date = dates.parse(header, now)
    modified = _last_modified(metadata, now)
    return date is not None and date == modified and now - modified >= STRONG_AFTER_S


def _if_match(header: str | None, metadata: Metadata) -> bool | None:
    """Evaluate If-Match (section 13.1.1). A malformed list matches nothing, so that no write follows from it."""
    if header is None:
        return None
    wanted = etags.parse_list(header)
    if wanted is etags.ANY:
        return True
    current = etags.parse(metadata.etag)
    return wanted is not None and current is not None and any(etags.strong_match(one, current) for one in wanted)


def _if_unmodified_since(header: str | None, metadata: Metadata, now: float) -> bool | None:
    """Evaluate If-Unmodified-Since (section 13.1.4). Returns None if it, or the Last-Modified, is no date."""
    date = None if header is None else dates.parse(header, now)
    modified = _last_modified(metadata, now)
    if date is None or modified is None:
        return None
    return modified <= date


def _if_none_match(header: str | None, metadata: Metadata) -> bool | None:
    """Evaluate If-None-Match (section 13.1.2). A malformed list is ignored: the client may get what it has."""
    wanted = None if header is None else etags.parse_list(header)
    if wanted is None:
        return None
    if wanted is etags.ANY:
        return False
    current = etags.parse(metadata.etag)
    return current is None or not any(etags.weak_match(one, current) for one in wanted)


def _if_modified_since(header: str | None, metadata: Metadata, now: float) -> bool | None:
    """Evaluate If-Modified-Since (section 13.1.3). Returns None if it, or the Last-Modified, is no date."""
    date = None if header is None else dates.parse(header, now)
    modified = _last_modified(metadata, now)
    if date is None or modified is None:
        return None
    return modified > date


def _last_modified(metadata: Metadata, now: float) -> float | None:
    return None if metadata.last_modified is None else dates.parse(metadata.last_modified, now)
