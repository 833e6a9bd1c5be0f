"""Answers to plain requests for objects that are here: made ready once, used for each hit until something changes.

Rule 1: an answer is made by the functions that the ordinary path uses - routing, selection, presentation, plan - and so
says the same. Where they say anything but the bytes of a whole, fresh object, or 304, there is no answer here.
Rule 2: nothing here waits, does I/O or raises on a client's account.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate

from aiohttp import hdrs

from bucketfront.cache import Absence, Cache, Lease
from bucketfront.errors import ProxyError
from bucketfront.http.cache_status import CacheStatus
from bucketfront.http.grammar import Headers
from bucketfront.http.path_rules import Rules
from bucketfront.http.plan import Plan, RequestHead, plan
from bucketfront.http.presentation import present
from bucketfront.http.ranges import Span
from bucketfront.server import representation
from bucketfront.server.cors import Cors
from bucketfront.server.fast_path.recogniser import ANSWERED_BY, FIRST, KEYED_FIELDS, LAST, PlainRequest
from bucketfront.server.http1.aiohttp_private import serialize_head
from bucketfront.server.pipeline import Pipeline
from bucketfront.server.router import Router
from bucketfront.server.selection import Candidate, candidates
from bucketfront.server.telemetry.access_log import AccessRecord
from bucketfront.server.telemetry.exchange import fields_of_all

MAX_READY = 4096  # requests for which an answer is kept; the oldest goes first


@dataclass(eq=False, slots=True)
class PreparedResponse:
    """`head`, and behind it the bytes [start, stop) of the object. Usable as long as `lease` is."""

    lease: Lease
    head: bytes
    start: int
    stop: int
    told: AccessRecord


@dataclass(eq=False, slots=True)
class _Ready:
    """What all answers to one kind of request have in common. `whole` and the two halves of a 206's head are as of
    `since`, and good until `until` (seconds since the epoch): then a second of Date, Age or ttl has passed.
    """

    lease: Lease
    absent: tuple[Absence, ...]  # of what would have been answered before it
    method: str
    path: str
    made: Plan
    ranged: Plan | None  # a 206 of all of it
    common: Headers
    has_own_age: bool  # it is not the object's lifetime that clients are told
    since: float = math.inf
    until: float = 0.0
    whole: PreparedResponse | None = None
    before_range: bytes = b""
    behind_range: bytes = b""
    told_of_part: AccessRecord | None = None

    def is_valid(self, now: float) -> bool:
        if not self.lease.is_valid:
            return False
        return not self.absent or all(each.is_valid and now < each.until for each in self.absent)

    def refresh(self, now: float) -> bool:
        """Tell the time as of now; False where the object is no longer fresh."""
        lease = self.lease
        ttl = lease.fresh_until - now
        if ttl <= 0:
            return False
        age = 0.0 if self.has_own_age else lease.age(now)
        status = CacheStatus(ttl=ttl)
        head = _head(self.made, status, self.common, age)
        (span,) = self.made.spans or (Span(0, 0),)
        self.whole = PreparedResponse(lease, head, span.start, span.stop, self._told(self.made, status))
        if self.ranged is not None:
            fields = _range_fields(0, lease.metadata.size, lease.metadata.size)
            self.before_range, _, self.behind_range = _head(self.ranged, status, self.common, age).partition(fields)
            self.told_of_part = self._told(self.ranged, status)
        next_age = math.inf if self.has_own_age else now + 1 - age % 1
        self.since, self.until = now, min(math.floor(now) + 1, lease.fresh_until - math.floor(ttl), next_age)
        return True

    def _told(self, made: Plan, status: CacheStatus) -> AccessRecord:
        cache = str(status).removeprefix("bucketfront; ")
        return AccessRecord(method=self.method, path=self.path, status=made.status, cache=cache, outcome="hit")

    def part(self, start: int, stop: int) -> PreparedResponse | None:
        """The 206 for one part of the object."""
        if self.told_of_part is None:
            return None
        head = self.before_range + _range_fields(start, stop, self.lease.metadata.size) + self.behind_range
        return PreparedResponse(self.lease, head, start, stop, self.told_of_part)


class PreparedResponses:
    def __init__(self, cache: Cache, router: Router, cors: Cors, rules: Rules, pipeline: Pipeline) -> None:
        self._cache = cache
        self._router = router
        self._cors = cors
        self._rules = rules
        self._pipeline = pipeline
        self._ready: dict[PlainRequest, _Ready] = {}

    def answer(self, asked: PlainRequest, now: float) -> PreparedResponse | None:
        """None where the ordinary path has to answer. Good in this turn of the loop only. `now`: as its clock."""
        key = asked[ANSWERED_BY]
        ready = self._ready.get(key)
        if ready is None or not ready.since <= now < ready.until or not ready.is_valid(now):
            ready = self._renewed(key, ready, now)
            if ready is None:
                return None
        first = asked[FIRST]
        return ready.whole if first is None else _part(ready, first, asked[LAST])

    def _renewed(self, key: PlainRequest, known: _Ready | None, now: float) -> _Ready | None:
        self._ready.pop(key, None)
        ready = known if known is not None and known.is_valid(now) else self._made(key, now)
        if ready is None or not ready.refresh(now):
            return None
        if len(self._ready) >= MAX_READY:
            del self._ready[next(iter(self._ready))]
        self._ready[key] = ready
        return ready

    def _made(self, key: PlainRequest, now: float) -> _Ready | None:
        method, target, if_none_match, if_modified_since, origin, accept_encoding = (
            None if value is None else value.decode("ascii") for value in key
        )
        assert method is not None
        assert target is not None
        try:
            route = self._router.resolve(method, target)
            # Other declared fields are absent here: the recogniser leaves requests with them to the ordinary path.
            fields = dict(zip(KEYED_FIELDS, (if_none_match, if_modified_since, origin, accept_encoding), strict=True))
            self._pipeline.check(method, route, fields.get)
            asked = representation.query_of(route)
            coding = None if representation.says_coding(asked) else accept_encoding
            found = self._found(candidates(route, asked.version, coding))
        except ProxyError:
            return None  # the ordinary path finds it as well, and says so
        if found is None:
            return None
        candidate, lease, absent = found
        presentation = representation.presentation(self._rules, route, candidate, asked)
        shown = present(lease.metadata, presentation)
        is_conditional = if_none_match is not None or if_modified_since is not None
        head = RequestHead(method, if_none_match=if_none_match, if_modified_since=if_modified_since)
        ranged = None
        if method == "GET" and not is_conditional:
            ranged = plan(RequestHead(method, range="bytes=0-"), shown, now)
        return _Ready(
            lease=lease,
            method=method,
            path=target.partition("?")[0],
            made=plan(head, shown, now),
            ranged=ranged,
            absent=absent,
            common=self._cors.fields(origin),
            has_own_age=presentation.sets_lifetime,
        )

    def _found(self, tried: Iterator[Candidate]) -> tuple[Candidate, Lease, tuple[Absence, ...]] | None:
        """The first candidate that is not absent, if it is here, and the absences of those before it."""
        absent: list[Absence] = []
        for candidate in tried:
            if (lease := self._cache.lease(candidate.key)) is not None:
                return None if candidate.is_folder else (candidate, lease, tuple(absent))
            if (absence := self._cache.absence(candidate.key)) is None:
                return None
            absent.append(absence)
        return None


def _part(ready: _Ready, first: bytes, last: bytes | None) -> PreparedResponse | None:
    """RFC 9110 section 14.1.2. A Range that is not simply a part of the object is for the ordinary path."""
    size = ready.lease.metadata.size
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    else:
        start, stop = size - min(int(last or 0), size), size
    return ready.part(start, stop) if start < stop else None


def _range_fields(start: int, stop: int, size: int) -> bytes:
    return b"Content-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n" % (stop - start, start, stop - 1, size)


def _head(made: Plan, status: CacheStatus, common: Headers, age: float) -> bytes:
    headers = representation.with_object_fields(fields_of_all(status, common), made, age)
    headers[hdrs.DATE] = formatdate(int(time.time()), usegmt=True)
    return serialize_head(made.status, headers)
