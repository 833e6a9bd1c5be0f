"""Exceptions -> answers, in one table. The client learns the kind of failure, the log its facts (I28)."""

import json
from collections.abc import Mapping

from aiohttp import web

from proxy.errors import (
    AccessDenied,
    BadPath,
    NoSuchMount,
    ObjectChanged,
    ObjectNotFound,
    OriginTimeout,
    OriginUnavailable,
    ProxyError,
    StoreError,
    WriteRefused,
)
from proxy.http.cache_status import CacheStatus, Forward
from proxy.server.framing import BadFraming
from proxy.server.routing import MethodNotAllowed


class TooLarge(ProxyError):
    """The body is larger than `uploads.max_size`."""


class UnsupportedFraming(ProxyError):
    """An S3 client's own body framing (`aws-chunked`), which is never stored."""


class SlowClient(ProxyError):
    """A client that sends or takes less than the minimum rate."""


# The first class that fits counts. `None` as message: the exception's own, which holds nothing but the client's input.
_TABLE: tuple[tuple[type[ProxyError], int, str | None], ...] = (
    (BadFraming, 400, None),
    (BadPath, 400, None),
    (NoSuchMount, 404, None),
    (MethodNotAllowed, 405, None),
    (TooLarge, 413, None),
    (UnsupportedFraming, 501, None),
    (SlowClient, 408, None),
    (ObjectNotFound, 404, "no such object"),
    (AccessDenied, 403, "the origin denied access"),
    (OriginTimeout, 504, "the origin did not answer in time"),
    (OriginUnavailable, 502, "the origin is unavailable"),
    (ObjectChanged, 502, "the object keeps changing at the origin"),
    (WriteRefused, 400, "the origin refused the write"),
    (StoreError, 500, "the cache's disk failed"),
    (ProxyError, 502, "the origin failed"),
)
_RETRY_AFTER = "1"  # seconds; the flights' own retries have been tried by then

# After these the connection may hold the rest of a body, or has been misread already.
_CLOSING = (BadFraming, TooLarge, UnsupportedFraming, SlowClient)


def answer(error: ProxyError, extra: Mapping[str, str]) -> web.Response:
    """The answer to a request that failed with `error` before a byte of its answer was sent."""
    status, message = next((status, text) for kind, status, text in _TABLE if isinstance(error, kind))
    headers = dict(extra)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if status in (502, 504):
        headers["Retry-After"] = _RETRY_AFTER
    response = error_response(status, message or str(error), headers)
    if isinstance(error, _CLOSING):
        response.force_close()
    return response


def cache_status(error: ProxyError) -> CacheStatus:
    match error:
        case AccessDenied():
            return CacheStatus(Forward.MISS, fwd_status=403)
        case OriginTimeout() | OriginUnavailable() | ObjectChanged():
            return CacheStatus(Forward.MISS, detail="origin-unavailable")
        case _:
            return CacheStatus(Forward.BYPASS, detail="refused")


def error_response(status: int, message: str, headers: Mapping[str, str]) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps({"error": message}).encode() + b"\n",
        headers={**headers, "Content-Type": "application/json", "Cache-Control": "no-store"},
    )
