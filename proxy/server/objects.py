"""GET and HEAD of an object: hops 3 to 10 of a request (DESIGN, section 2)."""

from collections.abc import Callable, Mapping

from aiohttp import hdrs, web

from proxy.cache.cache import Absent, Cache, Reader
from proxy.errors import ObjectChanged
from proxy.http import cache_control
from proxy.http.plan import Plan, RequestHead, plan
from proxy.http.ranges import requested
from proxy.keys import ObjectKey
from proxy.server.exchange import Exchange
from proxy.server.failures import error_response
from proxy.server.sending import Sender

RESTARTS = 3  # versions that may go by before the head is sent


class Objects:
    """`clock` is wall time in seconds since the epoch. `honor_no_cache`: a client may force a revalidation."""

    def __init__(self, cache: Cache, clock: Callable[[], float], *, honor_no_cache: bool) -> None:
        self._cache = cache
        self._honor_no_cache = honor_no_cache
        self._clock = clock

    async def answer(self, exchange: Exchange, key: ObjectKey) -> web.StreamResponse:
        """Raises ProxyErrors before the head, ConnectionErrors after it."""
        head = _head_of(exchange.request)
        revalidate = self._honor_no_cache and _says_no_cache(exchange.request)
        for _ in range(RESTARTS):
            found = await self._cache.lookup(
                key,
                wants_body=head.method == "GET",
                part=requested(head.range) if head.method == "GET" else None,
                revalidate=revalidate,
            )
            if isinstance(found, Absent):
                exchange.status = found.status
                return error_response(404, "no such object", exchange.headers())
            with found as reader:
                try:
                    return await self._answer_from(exchange, head, reader)
                except ObjectChanged:
                    # Before the head the request begins again, on the version that is there now.
                    continue
        raise ObjectChanged(f"{key} changed {RESTARTS} times during one request")

    async def _answer_from(self, exchange: Exchange, head: RequestHead, reader: Reader) -> web.StreamResponse:
        now = self._clock()
        made = plan(head, reader.metadata, now)
        if made.span is None:
            exchange.status = reader.status
            return _bare(made, exchange, reader.age(now))
        sender = Sender(reader, made.span)
        try:
            await sender.begin()
            exchange.status = reader.status
            response = web.StreamResponse(status=made.status, headers=_headers(made, exchange, reader.age(now)))
            try:
                await sender.send(exchange.request, response)
            finally:
                exchange.sent = sender.sent
            return response
        finally:
            await sender.close()


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


def _headers(made: Plan, exchange: Exchange, age: float) -> Mapping[str, str]:
    headers = exchange.headers()
    headers.extend(made.headers)
    headers["Age"] = str(int(age))
    return headers


def _bare(made: Plan, exchange: Exchange, age: float) -> web.StreamResponse:
    """HEAD, 304, 412, 416: no bytes of the object."""
    if made.status in (412, 416):
        words = "a precondition failed" if made.status == 412 else "no byte of the object lies in the range"
        kept = {name: value for name, value in made.headers if name != "Content-Length"}
        return error_response(made.status, words, {**exchange.headers(), **kept})
    return web.StreamResponse(status=made.status, headers=_headers(made, exchange, age))
