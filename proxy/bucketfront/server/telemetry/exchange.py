"""One request with its outcome, as the access log and the metrics see it."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from multidict import CIMultiDict
from ulid import ULID

from bucketfront.errors import NoShare
from bucketfront.fair_share import ResourcePlace
from bucketfront.http import request_ids, trace_context, via
from bucketfront.http.aws_chunked import Signatures
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.http.grammar import Headers
from bucketfront.http.s3_requests import REQUEST_ID, Dialect
from bucketfront.http.trace_context import TRACEPARENT, TRACESTATE, TraceContext
from bucketfront.keys import ObjectKey
from bucketfront.request_trace import RequestTrace
from bucketfront.server.access.rule import Address
from bucketfront.server.client_limits import MIN_RATE_BYTES_PER_S
from bucketfront.server.cut import Cut
from bucketfront.server.telemetry.observed_read import ObservedRead
from bucketfront.server.telemetry.origin_failure import OriginFailure, origin_failure

VIA = "1.1 bucketfront"
NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}  # a browser takes the type that is sent, and no other (Fetch, 2.9)


def fields_of_all(status: CacheStatus, common: Headers) -> CIMultiDict[str]:
    """Return the headers of every response. `common` are those of this request's responses."""
    headers = CIMultiDict({"Server": "bucketfront", "Via": VIA, "Cache-Status": str(status), **NO_SNIFFING})
    headers.extend(common)
    return headers


def new_request_id() -> str:
    """Return the id of a request that brought none. Ids sort by their time."""
    return str(ULID())


def _begin_no_trace() -> None:
    """Return None, because nothing is traced."""


@dataclass(eq=False, slots=True)
class Exchange:
    """One request and the facts of its response so far.

    `started` is in seconds of the loop's clock. `sent` counts body bytes of an object, and `from_origin` those of them
    that the cache did not have. `received` counts the bytes of an upload. `common` are headers that each response to
    this request has, and `of_connection` those of its connection. `marks` are phases and their durations in seconds,
    which the client gets if `shows_timing` is true. `fault` is the reason of a failure or a cut response, and `cut` is
    set if the proxy cut the response. `begun` is the status of a head that has left, or is about to, and `first_byte`
    the seconds until then. `failure` is the failure of the origin, also if the client got a stale or another object
    because of it. `dialect` is the form of the response. `request_id` names the request to its client and to S3, in the
    response and in the access log. `min_rate` is the lowest rate of the client, in bytes per second. `address` is the
    client's, and `user` names its credential. `places` are what it has of limited resources. `mount` is the path of the
    mount that the request goes to, `key` the object that serves it, and `size` its bytes, as far as they are known.
    `observed` is set if S3 serves the read because of `cache.mode`. `begun_trace` is a trace that begins here.
    `passed` names the bucketfronts that the request has passed. `chunk_signatures` verifies those within the body, if
    that of the request was verified.
    """

    request: web.BaseRequest
    started: float
    common: Headers = ()
    of_connection: Headers = ()
    shows_timing: bool = False
    dialect: Dialect = Dialect.HTTP
    min_rate: int = MIN_RATE_BYTES_PER_S
    address: Address | None = None
    user: str | None = None
    mount: str | None = None
    key: ObjectKey | None = None
    size: int = 0
    status: CacheStatus = CacheStatus(Forward.BYPASS)  # noqa: RUF009 - frozen
    sent: int = 0
    from_origin: int = 0
    received: int = 0
    fault: str | None = None
    cut: Cut | None = None
    begun: int | None = None
    first_byte: float | None = None
    failure: OriginFailure | None = None
    request_id: str | None = None
    trace: TraceContext | None = None
    span_id: str | None = None
    begun_trace: str | None = None
    passed: tuple[str, ...] = ()
    observed: ObservedRead | None = None
    chunk_signatures: Signatures | None = None
    marks: dict[str, float] = field(default_factory=dict)
    places: list[ResourcePlace] = field(default_factory=list)

    def failed(self, error: Exception) -> None:
        """Note why the request failed, or why its response is not what it would be."""
        self.fault = type(error).__name__
        if isinstance(error, NoShare):
            self.fault += f" ({error.resource})"
        self.failure = origin_failure(error)

    def identify(self, name: str, begin_trace: Callable[[], str | None] = _begin_no_trace) -> RequestTrace:
        """Name the request: by the id and the trace that it brought, or by a new id. Return what S3 gets of that.

        `name` is the pseudonym of this process. `begin_trace` returns the id of a trace for a request that brought
        none, if it is sampled.
        """
        fields = self.request.headers
        self.request_id = request_ids.accepted(fields.get(request_ids.NAME)) or new_request_id()
        self.passed = via.passed(fields.getall("Via", ()))
        through = via.value_of((*self.passed, name))
        # Of several fields with a trace, no one is right. Several fields of its state are one list (section 3.3.1.1).
        parents, states = (fields.getall(name, []) for name in (TRACEPARENT, TRACESTATE))
        self.trace = trace_context.parse(parents[0] if len(parents) == 1 else None, ",".join(states))
        if self.trace is None:
            self.begun_trace = begin_trace()
            if self.begun_trace is None:
                return RequestTrace(self.request_id, through)
            self.trace = TraceContext(self.begun_trace, trace_context.NO_SPAN, "01")
        self.span_id = secrets.token_hex(8)
        return RequestTrace(self.request_id, through, self.trace.with_span(self.span_id), self.trace.state)

    def begin(self, status: int) -> None:
        """Note that the head of a response is about to leave."""
        self.begun, self.first_byte = status, asyncio.get_running_loop().time() - self.started

    def leave_places(self) -> None:
        """Give back what the request has of limited resources."""
        for place in self.places:
            place.leave()

    def spent(self, phase: str, seconds: float) -> None:
        """Add to the duration of a phase."""
        self.marks[phase] = self.marks.get(phase, 0.0) + seconds

    def headers(self) -> CIMultiDict[str]:
        """Return the headers that every response to this request has."""
        headers = fields_of_all(self.status, (*self.common, *self.of_connection))
        if self.request_id is not None:
            headers[request_ids.NAME] = self.request_id
        if self.shows_timing:
            headers["Server-Timing"] = self._timing()
        return headers

    def s3_fields(self) -> dict[str, str]:
        """Return the further headers of a response that a client of S3 parses: the request's id, under S3's name."""
        if self.request_id is None:
            self.request_id = new_request_id()
        return {REQUEST_ID: self.request_id}

    def _timing(self) -> str:
        """Return the value of Server-Timing: the cache's decision, and milliseconds of each phase so far."""
        decision = "hit" if self.status.fwd is None else str(self.status.fwd)
        phases = (f"{name};dur={1000 * seconds:.1f}" for name, seconds in self.marks.items())
        return ", ".join((f"cache;desc={decision}", *phases))
