"""Prepared responses to plain requests for objects that are in the cache. Each serves all hits until a change.

1. The functions of the ordinary path make a prepared response: routing, pipeline, selection, presentation, plan. So
   both paths send the same. There is no prepared response to a request that needs more than a fresh lease.
2. No function here waits, does I/O, or raises because of a client's request.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from bucketfront.cache import Absence, Lease
from bucketfront.config.mount_settings import MountSettings
from bucketfront.errors import ProxyError
from bucketfront.http import s3_requests
from bucketfront.http.cache_status import CacheStatus
from bucketfront.http.grammar import Headers
from bucketfront.http.path_rules import Rules
from bucketfront.http.plan import Plan, RequestHead, plan
from bucketfront.http.presentation import Presentation, may_have_coding, present
from bucketfront.http.ranges import Span
from bucketfront.http.s3_requests import Dialect
from bucketfront.keys import ObjectKey
from bucketfront.server import representation
from bucketfront.server.cors import Cors
from bucketfront.server.fast_path.recogniser import FIRST, KEYED_FIELDS, LAST, RESPONSE_KEY, PlainRequest
from bucketfront.server.http1.aiohttp_private import serialize_head
from bucketfront.server.pipeline import Pipeline
from bucketfront.server.router import Router
from bucketfront.server.selection import Candidate, candidates
from bucketfront.server.telemetry.access_log import AccessRecord
from bucketfront.server.telemetry.exchange import fields_of_all

K = TypeVar("K")

MAX_PREPARED = 4096  # kinds of requests, at about 4 KiB each; beyond it the oldest goes first


@dataclass(eq=False, slots=True)
class PreparedResponse:
    """`head`, followed by the bytes [start, stop) of the object. It may be sent while `lease` is valid."""

    lease: Lease
    head: bytes
    start: int
    stop: int
    record: AccessRecord
    min_rate: int  # of the client, in bytes per second


@dataclass(eq=False, slots=True)
class ResponseTemplate:
    """What the responses to all requests of one kind have in common.

    `whole` and the two halves of a 206's head, which surround the numbers of its range, are of the time `since`. They
    hold until `until`, when Date, Age or the ttl of Cache-Status changes. Both are in seconds since the epoch.
    """

    lease: Lease
    absences: tuple[Absence, ...]  # of the candidates that come first
    method: str
    path: str
    mount: str
    user: str | None
    whole_plan: Plan
    range_plan: Plan | None  # a 206 of all bytes
    common: Headers
    min_rate: int
    sets_lifetime: bool  # clients get a lifetime that begins with the response, not the object's
    since: float = math.inf
    until: float = 0.0
    whole: PreparedResponse | None = None
    before_range: bytes = b""
    behind_range: bytes = b""
    range_record: AccessRecord | None = None

    def is_valid(self, now: float) -> bool:
        if not self.lease.is_valid:
            return False
        return not self.absences or all(each.holds(now) for each in self.absences)

    def refresh(self, now: float) -> bool:
        """Make the heads of this second. Returns False if the object is no longer fresh."""
        lease = self.lease
        ttl = lease.ttl(now)
        if ttl <= 0:
            return False
        age = 0.0 if self.sets_lifetime else lease.age(now)
        status = CacheStatus(ttl=ttl)
        head = _head(self.whole_plan, status, self.common, age)
        (span,) = self.whole_plan.spans or (Span(0, 0),)
        record = self._record(self.whole_plan, status)
        self.whole = PreparedResponse(lease, head, span.start, span.stop, record, self.min_rate)
        if self.range_plan is not None:
            size = lease.metadata.size
            before, _, behind = _head(self.range_plan, status, self.common, age).partition(_range_fields(size))
            self.before_range, self.behind_range = before + b"Content-Length: ", b"/%d\r\n%b" % (size, behind)
            self.range_record = self._record(self.range_plan, status)
        next_age = math.inf if self.sets_lifetime else now + 1 - age % 1
        next_ttl = min(lease.fresh_until - math.floor(ttl), lease.certain_until)
        self.since, self.until = now, min(math.floor(now) + 1, next_ttl, next_age)
        return True

    def _record(self, response_plan: Plan, status: CacheStatus) -> AccessRecord:
        cache = str(status).removeprefix("bucketfront; ")
        return AccessRecord(
            method=self.method,
            path=self.path,
            status=response_plan.status,
            cache=cache,
            outcome="hit",
            mount=self.mount,
            key=self.lease.key,
            size=self.lease.metadata.size,
            user=self.user,
        )

    def response(self, request: PlainRequest) -> PreparedResponse | None:
        """Return the response to a request of this kind, for its Range. `refresh` was called in this second."""
        first = request[FIRST]
        return self.whole if first is None else self._part_of(first, request[LAST])

    def _part_of(self, first: bytes, last: bytes | None) -> PreparedResponse | None:
        """Return the 206 for a Range with these positions (RFC 9110 section 14.1.2).

        Returns None if the Range is not simply a part of the object.
        """
        size = self.lease.metadata.size
        if first:
            start, stop = int(first), min(int(last) + 1, size) if last else size
        else:
            start, stop = size - min(int(last or 0), size), size
        return self._part(start, stop) if start < stop else None

    def _part(self, start: int, stop: int) -> PreparedResponse | None:
        """Return the 206 for one part of the object."""
        if self.range_record is None:
            return None
        numbers = stop - start, start, stop - 1
        head = b"%b%d\r\nContent-Range: bytes %d-%d%b" % (self.before_range, *numbers, self.behind_range)
        return PreparedResponse(self.lease, head, start, stop, self.range_record, self.min_rate)


class LeaseFinder(Protocol):
    """The part of the cache in which responses are found."""

    def lease(self, key: ObjectKey) -> Lease | None: ...

    def absence(self, key: ObjectKey) -> Absence | None: ...


def _no_further_fields(_: int) -> Headers:
    """Return nothing, because the response has the fields of the object alone."""
    return ()


def template_of(
    lease: Lease,
    target: str,
    head: RequestHead,
    mount: MountSettings,
    presentation: Presentation,
    common: Headers,
    now: float,
    absences: tuple[Absence, ...] = (),
    user: str | None = None,
    name: str | None = None,
    further: Callable[[int], Headers] = _no_further_fields,
) -> ResponseTemplate:
    """Return the template of the responses to a kind of requests for an object.

    `head` has no Range. `name` is what the log has as the mount, by default its path. `further` returns more fields of
    a response with a status.
    """
    presented = present(lease.metadata, presentation)
    range_plan = None
    if head.method == "GET" and head.if_none_match is None and head.if_modified_since is None:
        range_plan = _with(plan(replace(head, range="bytes=0-"), presented, now), further)
    return ResponseTemplate(
        lease=lease,
        method=head.method,
        path=target.partition("?")[0],
        mount=name or mount.path,
        user=user,
        whole_plan=_with(plan(head, presented, now), further),
        range_plan=range_plan,
        absences=absences,
        common=common,
        min_rate=mount.min_rate,
        sets_lifetime=presentation.sets_lifetime,
    )


def _with(response_plan: Plan, further: Callable[[int], Headers]) -> Plan:
    fields = further(response_plan.status)
    return replace(response_plan, headers=(*response_plan.headers, *fields)) if fields else response_plan


class PreparedSource(Protocol):
    """Where connections find the response to a plain request."""

    def find(self, request: PlainRequest, now: float) -> PreparedResponse | None:
        """Return the response, which holds in this turn of the loop only. `now` is the cache's time.

        Returns None if the request needs the ordinary path.
        """


class ResponseTemplates(Generic[K]):
    """The templates of a listener by kinds of requests, and the oldest of them goes first."""

    def __init__(self) -> None:
        self._templates: dict[K, ResponseTemplate] = {}

    def get(
        self, kind: K, now: float, prepare: Callable[[K, float], ResponseTemplate | None]
    ) -> ResponseTemplate | None:
        """Return the template of a kind, which `prepare` makes if there is none that is valid."""
        template = self._templates.get(kind)
        if template is not None and template.since <= now < template.until and template.is_valid(now):
            return template
        self._templates.pop(kind, None)
        if template is None or not template.is_valid(now):
            template = prepare(kind, now)
        if template is None or not template.refresh(now):
            return None
        if len(self._templates) >= MAX_PREPARED:
            del self._templates[next(iter(self._templates))]
        self._templates[kind] = template
        return template


class PreparedResponses:
    """All prepared responses of the listener. It belongs to the event loop of its requests."""

    def __init__(self, cache: LeaseFinder, router: Router, cors: Cors, rules: Rules, pipeline: Pipeline) -> None:
        self._cache = cache
        self._router = router
        self._cors = cors
        self._rules = rules
        self._pipeline = pipeline
        # Without these fields, a request of a client of S3 may be recognised. All mounts then serve one object for a
        # path, whatever the dialect. So each response is prepared as for such a client, and the ordinary path serves
        # what that client would be refused.
        self._sees_dialect = pipeline.reads >= s3_requests.DIALECT_FIELDS
        self._templates = ResponseTemplates[PlainRequest]()

    def find(self, request: PlainRequest, now: float) -> PreparedResponse | None:
        """Return the response, see `PreparedSource.find`."""
        template = self._templates.get(request[RESPONSE_KEY], now, self._prepared)
        return None if template is None else template.response(request)

    def _prepared(self, key: PlainRequest, now: float) -> ResponseTemplate | None:
        method, target, if_none_match, if_modified_since, origin, accept_encoding = (
            None if value is None else value.decode("ascii") for value in key
        )
        assert method is not None
        assert target is not None
        try:
            # Other declared fields are absent here: the recogniser leaves requests with them to the ordinary path.
            fields = dict(zip(KEYED_FIELDS, (if_none_match, if_modified_since, origin, accept_encoding), strict=True))
            dialect = s3_requests.dialect_of({}, target) if self._sees_dialect else Dialect.S3
            resolved = self._router.resolve(method, target, dialect)
            route = self._pipeline.admit(method, resolved, fields.get)
            query = representation.query_of(route)
            coding = None if representation.sets_coding(query) else accept_encoding
            found = self._first_present(candidates(route, query.version, coding, dialect))
        except ProxyError:
            return None  # the ordinary path meets the same error, and responds with it
        if found is None:
            return None
        candidate, lease, absences = found
        if not may_have_coding(lease.metadata, candidate.coding):
            return None  # the ordinary path goes on with the next candidate
        presentation = representation.presentation(self._rules, route, candidate, query)
        head = RequestHead(method, if_none_match=if_none_match, if_modified_since=if_modified_since)
        return template_of(lease, target, head, route.mount, presentation, self._cors.fields(origin), now, absences)

    def _first_present(self, tried: Iterator[Candidate]) -> tuple[Candidate, Lease, tuple[Absence, ...]] | None:
        """Return the first candidate that is not absent, with the absences of those before it.

        Returns None if it is not in the cache.
        """
        absences: list[Absence] = []
        for candidate in tried:
            if (lease := self._cache.lease(candidate.key)) is not None:
                return None if candidate.location is not None else (candidate, lease, tuple(absences))
            if (absence := self._cache.absence(candidate.key)) is None:
                return None
            absences.append(absence)
        return None


def _range_fields(size: int) -> bytes:
    """Return the fields of a 206 that depend on its range, for a range of all bytes."""
    return b"Content-Length: %d\r\nContent-Range: bytes 0-%d/%d\r\n" % (size, size - 1, size)


def _head(response_plan: Plan, status: CacheStatus, common: Headers, age: float) -> bytes:
    headers = representation.with_object_fields(fields_of_all(status, common), response_plan, age)
    return serialize_head(response_plan.status, headers)
