"""The request that a task works for, by the names that its requests to S3 carry.

Tasks inherit it from the task that starts them. A lookup or a part fetch that several requests share has that of the
request that caused it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """The id of a request, and the fields of W3C Trace Context for the requests that it causes, if it has a trace.

    `via` is the value of Via for them, see `bucketfront.http.via`.
    """

    request_id: str
    via: str
    traceparent: str | None = None
    tracestate: str | None = None


_TRACE: ContextVar[RequestTrace | None] = ContextVar("trace", default=None)


def current_trace() -> RequestTrace | None:
    """Return the request for which the running task works. Returns None if it works for no single request."""
    return _TRACE.get()


@contextmanager
def tracing(trace: RequestTrace | None) -> Iterator[None]:
    """Let the running task work for a request in the block. Tasks that the block starts inherit it."""
    token = _TRACE.set(trace)
    try:
        yield
    finally:
        _TRACE.reset(token)
