"""`GET /api/v1/events`: what happens, as server-sent events. `GET /api/v1/top`: the present figures, once.

The dashboard, `bucketfront top` and `bucketfront tail` read these.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bucketfront.admin.connection import AdminConnection
from bucketfront.admin.live_figures import LiveFigures, Top
from bucketfront.admin.operation import FAILURE, Body, Media, Operation
from bucketfront.admin.query import read_query
from bucketfront.admin.refusal import Refused
from bucketfront.config.quantities import parse_duration
from bucketfront.http.glob import Glob
from bucketfront.server.client_progress import ClientWatch
from bucketfront.server.telemetry.live_feed import EventKind, Subscription, event
from bucketfront.server.telemetry.request_filter import DECISIONS, RequestFilter

KEEP_ALIVE_S = 10.0  # without an event; a server in front closes what is silent for a minute or so
MIN_INTERVAL_S = 0.05  # between two writes; each costs as much as dozens of events, and people see no difference
RECONNECT_MS = 1000  # after which a page connects again
RETRY_AFTER_S = 5
MAX_GLOB_LENGTH = 1024

_SELECTABLE = (EventKind.REQUEST, EventKind.FIGURES)
_STATUS = re.compile(r"[1-5](\d\d|xx)")
_FIELDS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
    "X-Content-Type-Options": "nosniff",
}


def _kinds(text: str) -> str:
    if unknown := set(text.split(",")) - set(_SELECTABLE):
        raise ValueError(f"there is no kind {min(unknown)!r}; the kinds are {', '.join(_SELECTABLE)}")
    return text


def _statuses(text: str) -> str:
    for status in text.split(","):
        if not _STATUS.fullmatch(status):
            raise ValueError(f"{status!r} is no status: write 404 or 5xx, several with commas between them")
    return text


def _decisions(text: str) -> str:
    if unknown := set(text.split(",")) - DECISIONS:
        raise ValueError(f"there is no decision {min(unknown)!r}; the decisions are {', '.join(sorted(DECISIONS))}")
    return text


def _duration(text: str) -> str:
    parse_duration(text)
    return text


class EventsQuery(BaseModel):
    """Which events are wanted. All but `kinds` are conditions for events of the kind `request`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: Annotated[str, AfterValidator(_kinds), Field(description="request, figures, or both")] = "request,figures"
    path: Annotated[str | None, Field(min_length=1, max_length=MAX_GLOB_LENGTH, description="a glob, as of rules")] = (
        None
    )
    status: Annotated[str, AfterValidator(_statuses), Field(description="such as 404 or 5xx,404")] | None = None
    cache: Annotated[str, AfterValidator(_decisions), Field(description="such as hit or miss,stale")] | None = None
    slow: Annotated[str, AfterValidator(_duration), Field(description="the least duration, as 500ms")] | None = None

    @property
    def wanted_kinds(self) -> frozenset[EventKind]:
        return frozenset(map(EventKind, self.kinds.split(",")))

    @property
    def wanted_requests(self) -> RequestFilter:
        statuses = self.status.split(",") if self.status else []
        return RequestFilter(
            path=None if self.path is None else Glob(self.path),
            statuses=frozenset(int(status) for status in statuses if not status.endswith("xx")),
            classes=frozenset(int(status[0]) for status in statuses if status.endswith("xx")),
            decisions=frozenset(self.cache.split(",")) if self.cache else frozenset(),
            slow_s=parse_duration(self.slow) if self.slow else 0.0,
        )


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/events": Operation(
        hdrs.METH_GET,
        "What happens, as server-sent events",
        {200: (Body(Media.EVENTS),), 503: FAILURE},
        query=EventsQuery,
        is_stream=True,
    ),
    "/api/v1/top": Operation(hdrs.METH_GET, "What the proxy does now", {200: (Body(Media.JSON, Top),)}),
}


class Events:
    """Streams events, and responds with one frame of the figures."""

    def __init__(self, figures: LiveFigures) -> None:
        self._feed = figures.feed
        self._figures = figures
        self.handlers = {"/api/v1/events": self._events, "/api/v1/top": self._top}

    async def _top(self, _: web.BaseRequest) -> web.Response:
        return web.json_response(text=self._figures.frame_json())

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        query = read_query(request, EventsQuery)
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=_FIELDS)
        subscription = self._feed.subscribe(query.wanted_kinds, query.wanted_requests)
        if subscription is None:
            raise Refused(503, "too many streams of events at once", {"Retry-After": str(RETRY_AFTER_S)})
        connection = request.protocol
        assert isinstance(connection, AdminConnection)
        connection.on_lost = subscription.wake
        try:
            if EventKind.FIGURES in subscription.kinds:
                subscription.put(event(EventKind.FIGURES, self._figures.frame_json()))
            return await self._stream(request, connection, subscription)
        finally:
            self._feed.unsubscribe(subscription)

    async def _stream(
        self, request: web.BaseRequest, connection: AdminConnection, subscription: Subscription
    ) -> web.StreamResponse:
        """Send events until the client leaves, takes too little of them, or the proxy stops."""
        response = web.StreamResponse(headers=_FIELDS)
        response.force_close()
        watch = ClientWatch()
        text = f"retry: {RECONNECT_MS}\n\n"
        try:
            await response.prepare(request)
            while True:
                async with watch.wait(request.transport):
                    await response.write(text.encode("ascii"))
                if subscription.is_over:
                    break
                await asyncio.sleep(MIN_INTERVAL_S)
                await subscription.wait(KEEP_ALIVE_S)
                if request.transport is None or connection.has_ended:
                    break
                text = subscription.take() or ":\n\n"  # a comment keeps the connection alive
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response
