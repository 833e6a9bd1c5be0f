"""W3C Trace Context, Level 1: the trace that a request belongs to, as `traceparent` and `tracestate` name it."""

import re
from dataclasses import dataclass

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
VERSION_0 = r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
"""The expression of a `traceparent` of version 00 (section 3.2.2)."""
MAX_STATE_CHARS = 512  # section 3.3.1.5: what has to be passed on

# Section 3.2.4: a later version begins like version 00, and may go on behind a hyphen.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e\t]*")
_FLAGS_AT = slice(53, 55)
_NO_TRACE, NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace of a request. `parent_id` is the span of its sender. Ids are lower-case hexadecimal digits."""

    trace_id: str
    parent_id: str
    flags: str = "00"
    state: str | None = None

    def with_span(self, span_id: str) -> str:
        """Return the `traceparent` of requests that this proxy sends in its span `span_id`."""
        return f"00-{self.trace_id}-{span_id}-{self.flags}"


def ids(traceparent: str) -> tuple[str, str] | None:
    """Return the trace and the span that the field names. Returns None if it is invalid (section 3.2.2.5)."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, parent_id, _, more = found.groups()
    if trace_id == _NO_TRACE or parent_id == NO_SPAN or (version == "00" and more is not None):
        return None
    return trace_id, parent_id


def parse(traceparent: str | None, tracestate: str | None = None) -> TraceContext | None:
    """Return the trace that the fields name. Returns None if `traceparent` is absent or invalid.

    An invalid or long `tracestate` is dropped alone.
    """
    named = None if traceparent is None else ids(traceparent)
    if named is None or traceparent is None:
        return None
    flags = traceparent[_FLAGS_AT]
    # Version 00 knows the lowest bit only, and a sender must set the others to zero (section 3.2.2.5.1).
    return TraceContext(*named, f"{int(flags, 16) & 1:02x}", _state(tracestate))


def _state(value: str | None) -> str | None:
    is_sound = value and len(value) <= MAX_STATE_CHARS and _STATE.fullmatch(value) is not None
    return value if is_sound else None
