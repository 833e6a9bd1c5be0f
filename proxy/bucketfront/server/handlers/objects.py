"""GET and HEAD of an object: hops 3 to 10 of a request (docs/architecture.md)."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

from aiohttp import hdrs, web

from bucketfront.cache import Absent, Cache, Reader, Refusal, Shown
from bucketfront.errors import (
    AccessDenied,
    ContentMismatch,
    NotCached,
    ObjectChanged,
    OriginCircuitOpen,
    OriginError,
    OriginUnavailable,
    ProxyError,
    RequestRefused,
)
from bucketfront.http import cache_control, media_types
from bucketfront.http.cache_status import Forward
from bucketfront.http.path_rules import Rules
from bucketfront.http.plan import Plan, RequestHead, plan
from bucketfront.http.presentation import Presentation, may_have_coding, present
from bucketfront.http.query import Query
from bucketfront.http.ranges import Span, requested
from bucketfront.http.s3_requests import Dialect
from bucketfront.keys import ObjectKey
from bucketfront.server import error_responses, representation
from bucketfront.server.error_responses import error_response
from bucketfront.server.http1.aiohttp_private import DeferredHeadResponse
from bucketfront.server.representation import s3_fields, with_object_fields
from bucketfront.server.router import Route
from bucketfront.server.selection import Candidate, candidates, error_document
from bucketfront.server.send.sender import Sender
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.server.telemetry.observed_read import ObservedRead

MAX_RESTARTS = 8  # versions that may replace each other before the head is sent; then the client gets a 502
MAX_MISMATCHES = 3  # fetches of one request whose bytes are not those of the origin's own checksum
CANDIDATES_TIMEOUT_S = 1.0  # for the candidates that fail; after it further ones come from the cache alone
REDIRECT_MAX_AGE_S = 60  # for browsers; short, because a site may get an object in place of a folder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A request, parsed once. `revalidate` is true if the client may force a revalidation and does.

    `only_if_cached` is true if no request may go to the origin (RFC 9111 section 5.2.1.7). `shown` is as in
    `ObjectHandler.respond`.
    """

    head: RequestHead
    query: Query
    revalidate: bool
    only_if_cached: bool
    shown: Shown | None


class OtherVersion(ProxyError):
    """The version that the origin has shown to a client is not the one that a lookup has found."""


class ObjectHandler:
    """Handles GET and HEAD. `honor_no_cache` is true if a client may force a revalidation.

    `clock` is wall time in seconds since the epoch, like S3's dates. With `is_s3` responses have S3's further fields.
    """

    def __init__(
        self, cache: Cache, rules: Rules, clock: Callable[[], float], *, honor_no_cache: bool, is_s3: bool = False
    ) -> None:
        self._cache = cache
        self._rules = rules
        self._honor_no_cache = honor_no_cache
        self._is_s3 = is_s3
        self._clock = clock
        self._missing_pages: set[str] = set()  # error documents of which a warning was logged

    async def respond(self, exchange: Exchange, route: Route, shown: Shown | None = None) -> web.StreamResponse:
        """Respond to a request. Raises ProxyErrors before the head, ConnectionErrors after it.

        `shown` is the version that the client may have, if it has asked the origin itself. Raises OtherVersion if it is
        not found.
        """
        try:
            response = await self._send_first_present(exchange, route, shown)
        except ProxyError as error:
            page = await self._error_page(exchange, route, error_responses.status_of(error))
            if page is None:
                raise
            exchange.failed(error)
            exchange.status = error_responses.cache_status(error, exchange.request.method)
            return await self._send_error_page(exchange, page)
        if response is not None:
            return response
        if (page := await self._error_page(exchange, route, 404)) is not None:
            return await self._send_error_page(exchange, page)
        return error_response(exchange, 404, "no such object")

    async def _send_first_present(
        self, exchange: Exchange, route: Route, shown: Shown | None
    ) -> web.StreamResponse | None:
        """Respond with the first candidate that exists. Returns None if S3 has a 404 for each of them."""
        request = exchange.request
        wanted = _Wanted(
            _head_of(request),
            representation.query_of(route),
            revalidate=self._honor_no_cache and _wants_revalidation(request),
            only_if_cached="only-if-cached" in request.headers.get(hdrs.CACHE_CONTROL, "").lower(),
            shown=shown,
        )
        failure: ProxyError | None = None
        is_unknown = False  # whether the path may have an object
        sets_coding = representation.sets_coding(wanted.query)
        accept_encoding = None if sets_coding else _joined(request, hdrs.ACCEPT_ENCODING)
        first_status = None
        passed_over: list[Candidate] = []
        # Those that were passed over come last, because no response is made of a remembered refusal.
        tried = candidates(route, wanted.query.version, accept_encoding, exchange.dialect)
        for candidate in chain(tried, passed_over):
            if candidate.is_fallback and is_unknown:
                continue
            refusal = None if candidate in passed_over else self._refusal(candidate, wanted)
            if refusal is not None:
                passed_over.append(candidate)
                is_unknown = is_unknown or not (refusal.is_denied or self._cache.was_absent(candidate.key))
                continue
            try:
                response = await self._send_candidate(exchange, route, candidate, wanted)
            except (AccessDenied, NotCached, OriginUnavailable, RequestRefused) as error:
                # S3 sends 403 in place of 404 if the credentials may not list the bucket. An uncached candidate must
                # not keep a cached one from being served.
                failure = _more_telling(failure, error)
                if isinstance(error, OriginUnavailable):
                    exchange.failed(error)  # also if another candidate is sent
                is_denied = self._note_refusal(candidate, error)
                is_unknown = is_unknown or not (is_denied or self._cache.was_absent(candidate.key))
                if asyncio.get_running_loop().time() - exchange.started > CANDIDATES_TIMEOUT_S:
                    # All candidates share one deadline, so none waits for the origin again.
                    wanted = replace(wanted, only_if_cached=True)
                continue
            if response is not None:
                return response
            first_status = first_status or exchange.status
        if failure is not None:
            raise failure
        exchange.status = first_status or exchange.status
        return None

    def _refusal(self, candidate: Candidate, wanted: _Wanted) -> Refusal | None:
        """Return the reason to try other candidates first, if there is one."""
        return self._cache.refusal(candidate.key) if candidate.is_optional and not wanted.revalidate else None

    def _note_refusal(self, candidate: Candidate, error: ProxyError) -> bool:
        """Remember that an optional candidate failed, unless no request was sent. Returns whether it was a 403."""
        is_denied = isinstance(error, AccessDenied)
        if candidate.is_optional and not isinstance(error, NotCached | OriginCircuitOpen):
            self._cache.refuse(candidate.key, is_denied=is_denied)
        return is_denied

    async def _send_candidate(
        self, exchange: Exchange, route: Route, candidate: Candidate, wanted: _Wanted
    ) -> web.StreamResponse | None:
        head = wanted.head
        wants_body = head.method == "GET" and candidate.location is None
        changed: ObjectChanged | None = None
        mismatches = 0
        exchange.key = exchange.key or candidate.key  # of several that fail, the log has the first
        for _ in range(MAX_RESTARTS):
            began = asyncio.get_running_loop().time()
            found = await self._cache.lookup_for_client(
                candidate.key,
                wants_body=wants_body,
                part=requested(head.range) if wants_body else None,
                revalidate=wanted.revalidate,
                only_if_cached=wanted.only_if_cached,
                shown=wanted.shown,
            )
            exchange.spent("lookup", asyncio.get_running_loop().time() - began)
            _check_shown(found, wanted.shown)
            if isinstance(found, Absent):
                exchange.status = found.status
                exchange.observed = None if found.observed is None else ObservedRead(found.observed, None)
                return None
            exchange.key = candidate.key
            if found.failure is not None:
                exchange.failed(found.failure)
            with found as reader:
                if not may_have_coding(reader.metadata, candidate.coding):
                    exchange.status = reader.status
                    return None
                if candidate.location is not None:
                    exchange.status = reader.status
                    target = candidate.location + (f"?{route.query}" if route.query else "")
                    return redirect(exchange, 301, target, is_private=route.is_private(candidate.key))
                presentation = representation.presentation(self._rules, route, candidate, wanted.query)
                try:
                    return await self._send_version(exchange, wanted, reader, presentation)
                except ObjectChanged as error:
                    # No byte of the head has left, so the request begins again with the current version.
                    changed = error
                    mismatches += isinstance(error, ContentMismatch)
                except OriginError as error:
                    error.forward = reader.status.fwd or error.forward
                    raise
            if mismatches == MAX_MISMATCHES:
                break
        raise changed or ObjectChanged(f"{candidate.key} was not to be had")

    async def _send_version(
        self, exchange: Exchange, wanted: _Wanted, reader: Reader, presentation: Presentation
    ) -> web.StreamResponse:
        now = self._clock()
        exchange.size = reader.metadata.size
        boundary = _boundary(wanted.head)
        response_plan = plan(wanted.head, present(reader.metadata, presentation), now, boundary)
        if self._is_s3:
            wants_checksum = exchange.request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
            fields = s3_fields(response_plan.status, reader.metadata, wants_checksum=wants_checksum)
            further = (*exchange.s3_fields().items(), *fields)
            response_plan = replace(response_plan, headers=(*response_plan.headers, *further))
        if reader.observed is not None:
            exchange.observed = ObservedRead(reader.observed, _extent(response_plan))
        if wanted.only_if_cached:
            reader.require(response_plan.spans)
        # A lifetime from the rules begins with this response, whatever the age of the object in the cache is.
        age = 0.0 if presentation.sets_lifetime else reader.age
        if response_plan.pieces is None:
            exchange.status = reader.status
            return _without_body(response_plan, exchange, age)
        return await self._send(exchange, response_plan, reader, age)

    async def _send(
        self, exchange: Exchange, response_plan: Plan, reader: Reader, age: float | None
    ) -> web.StreamResponse:
        """Send head and body. `age` is in seconds, and None for a response that is not the stored one."""
        assert response_plan.pieces is not None
        sender = Sender(reader, response_plan.pieces, response_plan.demand, exchange.min_rate)
        try:
            began = asyncio.get_running_loop().time()
            await sender.begin()
            exchange.spent("wait", asyncio.get_running_loop().time() - began)
            exchange.status = reader.status
            headers = with_object_fields(exchange.headers(), response_plan, age)
            response = DeferredHeadResponse(status=response_plan.status, headers=headers)
            try:
                await response.prepare(exchange.request)
                exchange.begin(response.status)
                await sender.send(exchange.request, response)
            finally:
                exchange.sent, exchange.from_origin = sender.sent, sender.from_origin
                # A block may turn out to be corrupt after the head.
                exchange.status = reader.status
            return response
        finally:
            await sender.close()

    # --- a site's own error pages --------------------------------------------------------------------------

    async def _error_page(self, exchange: Exchange, route: Route, status: int) -> tuple[Plan, Reader] | None:
        """Return the site's document for `status`, with an open reader. Returns None if it cannot be sent."""
        if exchange.dialect is Dialect.S3:
            return None  # such a client reads S3's document
        key: ObjectKey | None = None
        try:
            key = error_document(route, status)
            if key is None:
                return None
            found = await self._cache.lookup_for_client(key, wants_body=exchange.request.method == "GET")
        except ProxyError as error:
            self._warn_of_page(str(key or f"for {status}"), f"cannot be shown: {error}")
            return None
        if isinstance(found, Absent):
            self._warn_of_page(str(key), "does not exist")
            return None
        self._missing_pages.discard(str(key))
        guessed = media_types.of(key.key) if route.mount.guess_types else None
        presentation = Presentation(
            guessed_type=guessed, cache_control="no-store", inline_types=route.inline_types(key)
        )
        document = present(found.metadata, presentation)
        document_plan = plan(RequestHead(exchange.request.method), document, self._clock())
        # These headers describe the document, not the resource that the client requested.
        of_document = ("ETag", "Last-Modified", "Accept-Ranges")
        kept = tuple(pair for pair in document_plan.headers if pair[0] not in of_document)
        return Plan(status, kept, document_plan.pieces), found

    def _warn_of_page(self, name: str, reason: str) -> None:
        """Warn of an error document once until it is there again. The configuration bounds their number."""
        if name not in self._missing_pages:
            self._missing_pages.add(name)
            log.warning("the error document %s %s", name, reason)

    async def _send_error_page(self, exchange: Exchange, page: tuple[Plan, Reader]) -> web.StreamResponse:
        response_plan, reader = page
        status = exchange.status
        with reader:
            if response_plan.pieces is None:
                headers = with_object_fields(exchange.headers(), response_plan, None)
                return DeferredHeadResponse(status=response_plan.status, headers=headers)
            reader.status = status
            return await self._send(exchange, response_plan, reader, age=None)


def _more_telling(first: ProxyError | None, second: ProxyError) -> ProxyError:
    """Return the failure to report of two candidates: the first, unless the cache has only the second one's object."""
    if first is None:
        return second
    is_of_nothing = isinstance(first, OriginUnavailable) and first.forward == Forward.MISS
    is_of_held = isinstance(second, OriginUnavailable) and second.forward != Forward.MISS
    return second if is_of_nothing and is_of_held else first


def _check_shown(found: Reader | Absent, shown: Shown | None) -> None:
    """Raise OtherVersion if that is not the version that the origin has shown to the client. Closes the Reader then."""
    if shown is None:
        return
    if isinstance(found, Absent):
        raise OtherVersion("the object is absent")
    if not shown.is_of(found.metadata):
        found.close()
        raise OtherVersion("the object has another version")


def _extent(response_plan: Plan) -> Span | None:
    """Return the bytes of the object from the first that is sent to the last. Returns None if none are."""
    spans = response_plan.spans
    return Span(min(span.start for span in spans), max(span.stop for span in spans)) if spans else None


def _head_of(request: web.BaseRequest) -> RequestHead:
    field = request.headers.get
    return RequestHead(
        request.method,
        range=field(hdrs.RANGE),
        if_range=field(hdrs.IF_RANGE),
        if_match=_joined(request, hdrs.IF_MATCH),
        if_none_match=_joined(request, hdrs.IF_NONE_MATCH),
        if_modified_since=field(hdrs.IF_MODIFIED_SINCE),
        if_unmodified_since=field(hdrs.IF_UNMODIFIED_SINCE),
    )


def _boundary(head: RequestHead) -> str:
    """Return the boundary of a multipart response. It is random, so that no object can contain it on purpose."""
    return secrets.token_hex(16) if head.range is not None and "," in head.range else ""


def _wants_revalidation(request: web.BaseRequest) -> bool:
    """Return whether the client wants a revalidation (RFC 9111 sections 5.2.1.4 and 5.4).

    Pragma counts only if there is no Cache-Control.
    """
    control = _joined(request, hdrs.CACHE_CONTROL)
    if control is None:
        return "no-cache" in request.headers.get(hdrs.PRAGMA, "").lower()
    wish = cache_control.parse(control)
    return wish.no_cache or wish.max_age == 0


def _joined(request: web.BaseRequest, name: str) -> str | None:
    """Return the values of all fields of that name as one list (RFC 9110 section 5.3)."""
    values = request.headers.getall(name, None)
    return None if values is None else ", ".join(values)


def _without_body(response_plan: Plan, exchange: Exchange, age: float) -> web.StreamResponse:
    """Return the response to a HEAD, or a 304, 412 or 416."""
    status = response_plan.status
    if status in (412, 416):
        message = "a precondition failed" if status == 412 else "no byte of the object lies in the range"
        kept = {name: value for name, value in response_plan.headers if name != "Content-Length"}
        return error_response(exchange, status, message, kept)
    return DeferredHeadResponse(status=status, headers=with_object_fields(exchange.headers(), response_plan, age))


def redirect(exchange: Exchange, status: int, target: str, *, is_private: bool) -> web.Response:
    """Return a redirect to `target`, which a browser may keep for REDIRECT_MAX_AGE_S.

    `is_private` is true if shared caches may not keep it.
    """
    headers = exchange.headers()
    headers[hdrs.LOCATION] = target
    headers[hdrs.CACHE_CONTROL] = f"{'private, ' if is_private else ''}max-age={REDIRECT_MAX_AGE_S}"
    return web.Response(status=status, headers=headers)
