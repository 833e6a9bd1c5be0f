"""The fields of a request that responses do not depend on, and that the access log has.

All hits of one prepared response share an access record, so these fields accompany each request besides its record.
Both request paths hand them along as they were sent. This module makes them fit for a line, in batches.
"""

from collections.abc import Iterator
from typing import Literal

from bucketfront.http import request_ids, trace_context

LoggedFields = tuple[bytes | str | None, ...]
"""The values of NAMES, in that order. They are bytes on the fast path, and None for absent fields."""

NAMES = ("user-agent", "x-request-id", "traceparent", "referer", "range")
NOTHING: LoggedFields = (None,) * len(NAMES)
MAX_CHARS = 256  # of one field in a line, because a client may send some KiB

FieldName = Literal["user_agent", "referer"]
"""The fields that the settings choose, by their names in the log."""

_CHOSEN: dict[str, str] = {"user_agent": "user-agent", "referer": "referer"}
_ALWAYS = frozenset({request_ids.NAME.lower(), trace_context.TRACEPARENT, "range"})


def names_of(chosen: tuple[FieldName, ...]) -> frozenset[str]:
    """Return the names of the request fields that the log has if the settings choose these."""
    return _ALWAYS | {_CHOSEN[name] for name in chosen}


def facts(fields: LoggedFields) -> Iterator[tuple[str, str]]:
    """Yield what a line has of the fields, by the names of the access log."""
    user_agent, request_name, traceparent, referer, ranges = map(_text, fields)
    if ranges is not None:
        yield "range", ranges[:MAX_CHARS]
    if request_name is not None:
        yield "request_id", request_name
    if (trace := trace_context.parse(traceparent)) is not None:
        yield "trace_id", trace.trace_id
        yield "parent_span_id", trace.parent_id
    if user_agent:
        yield "user_agent", user_agent[:MAX_CHARS]
    if referer:
        yield "referer", _without_secrets(referer)[:MAX_CHARS]


def _text(value: bytes | str | None) -> str | None:
    if value is None:
        return None
    return (value if isinstance(value, str) else value.decode("ascii")).strip()


def _without_secrets(url: str) -> str:
    """Return a URL without user, query and fragment, which may hold a secret."""
    address = url.partition("?")[0].partition("#")[0]
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
