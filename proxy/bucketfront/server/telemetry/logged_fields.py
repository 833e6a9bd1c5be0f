"""The fields of a request that responses do not depend on, and that the access log has.

All hits of one prepared response share an access record, so these fields accompany each request besides its record.
Both request paths hand them along as they were sent. This module makes them fit for a line, in batches.
"""

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


def facts(fields: LoggedFields) -> list[tuple[str, str]]:
    """Return what a line has of the fields, by the names of the access log."""
    user_agent, name, traceparent, referer, ranges = fields
    of_one = [] if name is None else [("request_id", text_of(name))]
    return facts_of_range(ranges) + facts_of_many(user_agent, referer) + of_one + facts_of_trace(traceparent)


def facts_of_range(ranges: bytes | str | None) -> list[tuple[str, str]]:
    """Return the fact of the field that differs in most requests that have it."""
    text = text_of(ranges) if ranges else ""
    return [("range", text[:MAX_CHARS])] if text else []


def facts_of_many(user_agent: bytes | str | None, referer: bytes | str | None) -> list[tuple[str, str]]:
    """Return the facts of the fields that are alike in many requests."""
    found = []
    if user_agent and (text := text_of(user_agent)):
        found.append(("user_agent", text[:MAX_CHARS]))
    if referer and (text := text_of(referer)):
        found.append(("referer", _without_secrets(text)[:MAX_CHARS]))
    return found


def facts_of_trace(traceparent: bytes | str | None) -> list[tuple[str, str]]:
    """Return the facts of the client's trace."""
    ids = None if traceparent is None else trace_context.ids(text_of(traceparent))
    return [] if ids is None else [("trace_id", ids[0]), ("parent_span_id", ids[1])]


def text_of(value: bytes | str) -> str:
    return (value if isinstance(value, str) else value.decode("ascii")).strip()


def _without_secrets(url: str) -> str:
    """Return a URL without user, query and fragment, which may hold a secret."""
    address = url.partition("?")[0].partition("#")[0]
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
