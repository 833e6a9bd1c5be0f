"""GET and HEAD of an object: hops 3 to 10 of a request (docs/architecture.md)."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiohttp import hdrs, web

from bucketfront.cache import Absent, Cache, Reader
from bucketfront.errors import AccessDenied, NotCached, ObjectChanged, OriginUnavailable, ProxyError
from bucketfront.http import cache_control, media_types
from bucketfront.http.path_rules import Rules
from bucketfront.http.plan import Plan, RequestHead, plan
from bucketfront.http.presentation import Presentation, present
from bucketfront.http.query import Query
from bucketfront.http.ranges import requested
from bucketfront.keys import percent_encode
from bucketfront.server import error_responses, representation
from bucketfront.server.error_responses import error_response
from bucketfront.server.http1.aiohttp_private import DeferredHeadResponse
from bucketfront.server.representation import with_object_fields
from bucketfront.server.router import Route
from bucketfront.server.selection import Candidate, candidates, error_document
from bucketfront.server.send.sender import Sender
from bucketfront.server.telemetry.exchange import Exchange

RESTARTS = 8  # versions that may go by before the head is sent
SLOW = 1.0  # seconds after which a path whose first object could not be had is answered from the cache or not at all
REDIRECT_AGE = 60  # seconds that a browser may remember that a folder's path wants its "/"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A request, read once. `revalidate`: its client wants the origin asked, and may. `only_if_cached`: it does not
    want the origin asked (RFC 9111 section 5.2.1.7).
    """

    head: RequestHead
    query: Query
    revalidate: bool
    only_if_cached: bool


class ObjectHandler:
    """`clock` is wall time in seconds since the epoch, as S3's dates are. `honor_no_cache`: a client may force a
    revalidation.
    """

    def __init__(self, cache: Cache, rules: Rules, clock: Callable[[], float], *, honor_no_cache: bool) -> None:
        self._cache = cache
        self._rules = rules
        self._honor_no_cache = honor_no_cache
        self._clock = clock

    async def answer(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """Raises ProxyErrors before the head, ConnectionErrors after it."""
        try:
            response = await self._selected(exchange, route)
        except ProxyError as error:
            page = await self._error_page(exchange, route, error_responses.status_of(error))
            if page is None:
                raise
            exchange.fault = type(error).__name__
            exchange.status = error_responses.cache_status(error)
            return await self._shown(exchange, page)
        if response is not None:
            return response
        if (page := await self._error_page(exchange, route, 404)) is not None:
            return await self._shown(exchange, page)
        return error_response(exchange, 404, "no such object")

    async def _selected(self, exchange: Exchange, route: Route) -> web.StreamResponse | None:
        """The answer of the first candidate that there is; None if S3 says 404 to each of them."""
        request = exchange.request
        wanted = _Wanted(
            _head_of(request),
            representation.query_of(route),
            revalidate=self._honor_no_cache and _says_no_cache(request),
            only_if_cached="only-if-cached" in request.headers.get(hdrs.CACHE_CONTROL, "").lower(),
        )
        failure: ProxyError | None = None
        is_unknown = False  # whether the path has an object
        is_itself = representation.sets_coding(wanted.query)
        accept_encoding = None if is_itself else _joined(request, hdrs.ACCEPT_ENCODING)
        first_status = None
        for candidate in candidates(route, wanted.query.version, accept_encoding):
            if candidate.is_fallback and is_unknown:
                break
            try:
                response = await self._from(exchange, route, candidate, wanted)
            except (AccessDenied, NotCached, OriginUnavailable) as error:
                # S3 says 403 in place of 404 to whoever may not list the bucket; and what is not cached must not be
                # in the way of what is.
                failure = failure or error
                is_denied = isinstance(error, AccessDenied)
                is_unknown = is_unknown or not (is_denied or self._cache.was_absent(candidate.key))
                if asyncio.get_running_loop().time() - exchange.started > SLOW:
                    # One deadline for all of them: the origin is not waited for again.
                    wanted = replace(wanted, only_if_cached=True)
                continue
            if response is not None:
                return response
            first_status = first_status or exchange.status
        if failure is not None:
            raise failure
        exchange.status = first_status or exchange.status
        return None

    async def _from(
        self, exchange: Exchange, route: Route, candidate: Candidate, wanted: _Wanted
    ) -> web.StreamResponse | None:
        head = wanted.head
        wants_body = head.method == "GET" and not candidate.is_folder
        changed: ObjectChanged | None = None
        for _ in range(RESTARTS):
            began = asyncio.get_running_loop().time()
            found = await self._cache.lookup(
                candidate.key,
                wants_body=wants_body,
                part=requested(head.range) if wants_body else None,
                revalidate=wanted.revalidate,
                only_if_cached=wanted.only_if_cached,
            )
            exchange.spent("lookup", asyncio.get_running_loop().time() - began)
            if isinstance(found, Absent):
                exchange.status = found.status
                return None
            with found as reader:
                if candidate.is_folder:
                    exchange.status = reader.status
                    return _to_folder(exchange, route)
                presentation = representation.presentation(self._rules, route, candidate, wanted.query)
                try:
                    return await self._answer_from(exchange, wanted, reader, presentation)
                except ObjectChanged as error:
                    # Before the head the request begins again, on the version that is there now.
                    changed = error
        raise changed or ObjectChanged(f"{candidate.key} was not to be had")

    async def _answer_from(
        self, exchange: Exchange, wanted: _Wanted, reader: Reader, presentation: Presentation
    ) -> web.StreamResponse:
        now = self._clock()
        made = plan(wanted.head, present(reader.metadata, presentation), now, _boundary(wanted.head))
        if wanted.only_if_cached and not all(reader.holds(span) for span in made.spans):
            raise NotCached("some of the bytes are not in the cache")
        # A lifetime that we give ourselves begins with this answer, however long the object has been here.
        age = 0.0 if presentation.sets_lifetime else reader.age
        if made.pieces is None:
            exchange.status = reader.status
            return _bare(made, exchange, age)
        return await self._sent(exchange, made, reader, age)

    async def _sent(self, exchange: Exchange, made: Plan, reader: Reader, age: float | None) -> web.StreamResponse:
        """`age` in seconds; None for an answer that is not the stored one."""
        assert made.pieces is not None
        sender = Sender(reader, made.pieces, whole=made.status == 200)
        try:
            began = asyncio.get_running_loop().time()
            await sender.begin()
            exchange.spent("wait", asyncio.get_running_loop().time() - began)
            exchange.status = reader.status
            headers = with_object_fields(exchange.headers(), made, age)
            response = DeferredHeadResponse(status=made.status, headers=headers)
            try:
                await response.prepare(exchange.request)
                await sender.send(exchange.request, response)
            finally:
                exchange.sent = sender.sent
            return response
        finally:
            await sender.close()

    # --- a site's own error pages --------------------------------------------------------------------------

    async def _error_page(self, exchange: Exchange, route: Route, status: int) -> tuple[Plan, Reader] | None:
        """The document that the site shows with `status`, its reader open; None where it has none, or cannot."""
        key = error_document(route, status)
        if key is None:
            return None
        try:
            found = await self._cache.lookup(key, wants_body=exchange.request.method == "GET")
        except ProxyError as error:
            log.warning("the error document %s cannot be shown: %s", key, error)
            return None
        if isinstance(found, Absent):
            log.warning("the error document %s does not exist", key)
            return None
        guessed = media_types.of(key.key) if route.mount.guess_types else None
        shown = present(found.metadata, Presentation(guessed_type=guessed, cache_control="no-store"))
        made = plan(RequestHead(exchange.request.method), shown, self._clock())
        # Not this resource's validators, and no part of it: they are the document's.
        kept = tuple(pair for pair in made.headers if pair[0] not in ("ETag", "Last-Modified", "Accept-Ranges"))
        return Plan(status, kept, made.pieces), found

    async def _shown(self, exchange: Exchange, page: tuple[Plan, Reader]) -> web.StreamResponse:
        made, reader = page
        status = exchange.status
        with reader:
            if made.pieces is None:
                return web.StreamResponse(
                    status=made.status, headers=with_object_fields(exchange.headers(), made, None)
                )
            reader.status = status
            return await self._sent(exchange, made, reader, age=None)


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
    """Of a multipart answer: nobody who stored the object could know it."""
    return secrets.token_hex(16) if head.range is not None and "," in head.range else ""


def _says_no_cache(request: web.BaseRequest) -> bool:
    """RFC 9111 sections 5.2.1.4 and 5.4: Pragma counts where there is no Cache-Control."""
    control = _joined(request, hdrs.CACHE_CONTROL)
    if control is None:
        return "no-cache" in request.headers.get(hdrs.PRAGMA, "").lower()
    wish = cache_control.parse(control)
    return wish.no_cache or wish.max_age == 0


def _joined(request: web.BaseRequest, name: str) -> str | None:
    """RFC 9110 section 5.3: several fields of a list are one list."""
    values = request.headers.getall(name, None)
    return None if values is None else ", ".join(values)


def _bare(made: Plan, exchange: Exchange, age: float) -> web.StreamResponse:
    """HEAD, 304, 412, 416: no bytes of the object."""
    if made.status in (412, 416):
        words = "a precondition failed" if made.status == 412 else "no byte of the object lies in the range"
        kept = {name: value for name, value in made.headers if name != "Content-Length"}
        return error_response(exchange, made.status, words, kept)
    return web.StreamResponse(status=made.status, headers=with_object_fields(exchange.headers(), made, age))


def _to_folder(exchange: Exchange, route: Route) -> web.Response:
    headers = exchange.headers()
    headers[hdrs.LOCATION] = percent_encode(route.path.decode()) + "/" + (f"?{route.query}" if route.query else "")
    headers[hdrs.CACHE_CONTROL] = f"max-age={REDIRECT_AGE}"
    return web.Response(status=301, headers=headers)
