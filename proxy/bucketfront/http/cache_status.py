"""The Cache-Status field (RFC 9211): what the cache did with a request, as a structured field (RFC 8941)."""

import math
from dataclasses import dataclass
from enum import StrEnum

CACHE_NAME = "bucketfront"

_MAX_INTEGER = 999_999_999_999_999  # RFC 8941 section 3.3.1


class Forward(StrEnum):
    """RFC 9211 section 2.2: why a request went on to the origin."""

    BYPASS = "bypass"
    METHOD = "method"
    URI_MISS = "uri-miss"
    VARY_MISS = "vary-miss"
    MISS = "miss"
    REQUEST = "request"
    STALE = "stale"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """One cache's say on one request; `str` gives the field value.

    `fwd` None is a hit: RFC 9211 makes `hit` and `fwd` exclude each other. `fwd_status` is the origin's
    status, `ttl` the remaining freshness in seconds (negative for a stale answer), `stored` and `collapsed`
    as in sections 2.5 and 2.6, `detail` free text.
    """

    fwd: Forward | None = None
    fwd_status: int | None = None
    ttl: float | None = None
    stored: bool = False
    collapsed: bool = False
    detail: str | None = None

    @property
    def hit(self) -> bool:
        """Answered without going to the origin."""
        return self.fwd is None

    def __str__(self) -> str:
        parts = [CACHE_NAME, "hit" if self.fwd is None else f"fwd={self.fwd}"]
        if self.fwd_status is not None:
            parts.append(f"fwd-status={self.fwd_status}")
        if self.ttl is not None:
            parts.append(f"ttl={_integer(self.ttl)}")
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        if self.detail is not None:
            parts.append(f"detail={_string(self.detail)}")
        return "; ".join(parts)


def _integer(value: float) -> int:
    """RFC 8941 section 3.3.1: fifteen digits at most. Rounded down, so that what is stale never reads 0."""
    return math.floor(max(-_MAX_INTEGER, min(value, _MAX_INTEGER)))


def _string(text: str) -> str:
    """RFC 8941 section 3.3.3: printable ASCII, quote and backslash escaped; all else becomes "?"."""
    printable = "".join(char if " " <= char <= "~" else "?" for char in text)
    escaped = printable.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
