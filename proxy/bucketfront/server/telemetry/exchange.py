"""One request with its outcome, as the access log and the metrics see it."""

import secrets
from dataclasses import dataclass, field

from aiohttp import web
from multidict import CIMultiDict

from bucketfront.errors import NoShare
from bucketfront.fair_share import ResourcePlace
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.http.grammar import Headers
from bucketfront.http.s3_requests import REQUEST_ID, Dialect
from bucketfront.server.access.rule import Address
from bucketfront.server.client_limits import MIN_RATE_BYTES_PER_S
from bucketfront.server.cut import Cut
from bucketfront.server.telemetry.origin_failure import OriginFailure, origin_failure

VIA = "1.1 bucketfront"
NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}  # a browser takes the type that is sent, and no other (Fetch, 2.9)


def fields_of_all(status: CacheStatus, common: Headers) -> CIMultiDict[str]:
    """Return the headers of every response. `common` are those of this request's responses."""
    headers = CIMultiDict({"Server": "bucketfront", "Via": VIA, "Cache-Status": str(status), **NO_SNIFFING})
    headers.extend(common)
    return headers


@dataclass(eq=False, slots=True)
class Exchange:
    """One request and the facts of its response so far.

    `started` is in seconds of the loop's clock. `sent` counts body bytes of an object, `received` those of an upload.
    `common` are headers that each response to this request has, and `of_connection` those of its connection. `marks`
    are phases and their durations in seconds, which the client gets if `shows_timing` is true. `fault` is the reason of
    a failure or a cut response, and `cut` is set if the proxy cut the response. `begun` is the status of a head that
    has left, or is about to. `failure` is the failure of the origin, also if the client got a stale or another object
    because of it. `dialect` is the form of the response. `request_id` names the request to a client of S3, in the
    response and in the access log. `min_rate` is the lowest rate of the client, in bytes per second. `address` is the
    client's, and `user` names its credential. `places` are what it has of limited resources.
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
    status: CacheStatus = CacheStatus(Forward.BYPASS)  # noqa: RUF009 - frozen
    sent: int = 0
    received: int = 0
    fault: str | None = None
    cut: Cut | None = None
    begun: int | None = None
    failure: OriginFailure | None = None
    request_id: str | None = None
    marks: dict[str, float] = field(default_factory=dict)
    places: list[ResourcePlace] = field(default_factory=list)

    def failed(self, error: Exception) -> None:
        """Note why the request failed, or why its response is not what it would be."""
        self.fault = type(error).__name__
        if isinstance(error, NoShare):
            self.fault += f" ({error.resource})"
        self.failure = origin_failure(error)

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
        if self.shows_timing:
            headers["Server-Timing"] = self._timing()
        return headers

    def s3_fields(self) -> dict[str, str]:
        """Return the further headers of a response that a client of S3 parses: the request's id, made once."""
        if self.request_id is None:
            self.request_id = secrets.token_hex(8).upper()
        return {REQUEST_ID: self.request_id}

    def _timing(self) -> str:
        """Return the value of Server-Timing: the cache's decision, and milliseconds of each phase so far."""
        decision = "hit" if self.status.fwd is None else str(self.status.fwd)
        phases = (f"{name};dur={1000 * seconds:.1f}" for name, seconds in self.marks.items())
        return ", ".join((f"cache;desc={decision}", *phases))
