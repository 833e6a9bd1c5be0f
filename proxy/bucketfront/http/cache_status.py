"""The Cache-Status header (RFC 9211), which reports what the cache did with a request (syntax: RFC 8941)."""

import math
from dataclasses import dataclass
from enum import StrEnum

CACHE_NAME = "bucketfront"

_MAX_INTEGER = 999_999_999_999_999  # RFC 8941 section 3.3.1


class Forward(StrEnum):
    """The reason why a request was forwarded to the origin (RFC 9211 section 2.2), as far as it occurs here."""

    BYPASS = "bypass"
    METHOD = "method"
    MISS = "miss"
    REQUEST = "request"
    STALE = "stale"
    PARTIAL = "partial"


class Detail(StrEnum):
    """Why the cache did what it did (RFC 9211 section 2.8), from a closed set. docs/http.md has the same table."""

    # A stale response, or none.
    STALE_WHILE_REVALIDATE = "stale-while-revalidate"
    STALE_IF_ERROR = "stale-if-error"
    OUTAGE = "outage"
    ORIGIN_UNAVAILABLE = "origin-unavailable"
    # A request that the cache does not see.
    REFUSED = "refused"
    OPTIONS = "options"
    # cache.mode: the cache does not serve, so S3 does.
    OBSERVE = "observe"
    SHADOW = "shadow"
    # Why an object that was in the cache is there no longer, as far as that is remembered.
    SPACE = "space"
    IDLE = "idle"
    PURGED = "purged"
    WRITTEN = "written"
    CHANGED = "changed"
    DELETED = "deleted"
    CORRUPT = "corrupt"
    INCOMPLETE = "incomplete"
    LOST = "lost"
    # Why an object is not stored.
    NO_STORE = "no-store"
    PRIVATE = "private"
    RULE = "rule"
    NO_VALIDATOR = "no-validator"
    TOO_LARGE = "too-large"
    NO_ROOM = "no-room"
    DISK_FULL = "disk-full"
    DISK_FAILING = "disk-failing"
    OVERTAKEN = "overtaken"


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """The report on one request. `str` returns the header value.

    Without `fwd` it is a hit, because RFC 9211 makes `hit` and `fwd` exclude each other. `fwd_status` is the origin's
    status. `ttl` is the remaining freshness in seconds, negative for a stale response. `stored` and `collapsed` are as
    in sections 2.5 and 2.6.
    """

    fwd: Forward | None = None
    fwd_status: int | None = None
    ttl: float | None = None
    stored: bool = False
    collapsed: bool = False
    detail: Detail | None = None

    @property
    def hit(self) -> bool:
        """Return whether the request was served without the origin."""
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
            parts.append(f'detail="{self.detail}"')
        return "; ".join(parts)


def _integer(value: float) -> int:
    """Return an integer of at most fifteen digits (RFC 8941 section 3.3.1).

    It is rounded down, so that a stale response never has 0.
    """
    return math.floor(max(-_MAX_INTEGER, min(value, _MAX_INTEGER)))
