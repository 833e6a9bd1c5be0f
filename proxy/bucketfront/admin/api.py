"""The admin listener. `openapi` has the table of its paths, and modules such as `purges` have what serves them.

A request passes the checks of `AdminApplication._admit` in their order, and then that of the token, before a byte
of its body is read. Files of the dashboard need no token. Probes pass
none of them but the framing, so that an orchestrator's always succeed. Other requests have MAX_AT_ONCE places, and
streams of events MAX_SUBSCRIPTIONS. So a connection that is not responding can always be found, and makes way for a
new one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry

from bucketfront import __version__
from bucketfront.admin import openapi, webhook
from bucketfront.admin.archives import Archives
from bucketfront.admin.configuration import Configurations, Effective
from bucketfront.admin.connection import AdminConnection
from bucketfront.admin.dashboard import Dashboard
from bucketfront.admin.entries import Entries
from bucketfront.admin.events import Events
from bucketfront.admin.explanations import Explanations
from bucketfront.admin.exports import Exports
from bucketfront.admin.figures import Figures
from bucketfront.admin.fills import Fills
from bucketfront.admin.health import Health
from bucketfront.admin.jobs import Jobs
from bucketfront.admin.live_figures import LiveFigures
from bucketfront.admin.openapi import OPERATIONS
from bucketfront.admin.operation import template_of
from bucketfront.admin.probes import Probes
from bucketfront.admin.purges import Purges
from bucketfront.admin.refusal import Refused, error_response
from bucketfront.admin.reloader import ReloadOutcome
from bucketfront.admin.reloading import Reloading
from bucketfront.admin.summary import Summary
from bucketfront.admin.tokens import WRONG_TOKEN_PAUSE_S, Token, TokenVerdict
from bucketfront.admin.warming import Warming
from bucketfront.admin.webhook import Webhook
from bucketfront.cache import Cache
from bucketfront.config.listener_settings import AdminSettings
from bucketfront.config.settings import Settings
from bucketfront.fleet.fleet import Fleet
from bucketfront.s3_events.assembly import S3Events
from bucketfront.server.foreign_pages import ForeignPage, ForeignPages
from bucketfront.server.host_names import HostNames, UnknownHost
from bucketfront.server.http1 import descriptors, framing
from bucketfront.server.http1.binding import TcpPlace
from bucketfront.server.http1.connection import BODY_BUFFER_BYTES, MAX_FIELDS, ConnectionServer
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.inherited_sockets import InheritedSockets
from bucketfront.server.http1.listener import Listener, ListenSite
from bucketfront.server.http1.server_tls import ServerTls
from bucketfront.server.router import Router
from bucketfront.server.telemetry.last_responses import LastResponses
from bucketfront.warm.registry import JobRegistry
from bucketfront.warm.transfers import Transfers

MAX_AT_ONCE = 16  # requests, probes apart: a scraper, a few people
MAX_CONNECTIONS = 128  # more than the requests at once, so that idle ones can make way
MIN_CONNECTIONS = 2 * MAX_AT_ONCE  # even if the process may open few descriptors
DESCRIPTORS_SHARE = 8  # at most this fraction of the descriptors is for these connections
KEEP_ALIVE_TIMEOUT_S = 15.0  # between two requests; a scraper comes as often
STOP_TIMEOUT_S = 2.0  # for running requests to end at a stop; each can be repeated
RETRY_AFTER_S = 1


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Reload = Callable[[str], Awaitable[ReloadOutcome]]
"""Reads the configuration again. It gets the name of what asked for that."""


@dataclass(frozen=True, slots=True)
class AdminParts:
    """What the API shows and acts on. It outlives reloads."""

    cache: Cache
    registry: CollectorRegistry
    health: Health
    warm_jobs: JobRegistry
    transfers: Transfers
    reload: Reload
    live: LiveFigures
    effective: Effective
    summary: Summary
    last_responses: LastResponses
    events: S3Events | None
    """Takes events of S3, if it is configured."""
    catch_up: Callable[[], Awaitable[None]]
    """Returns once all requests that have ended are counted, whichever process served them."""
    fleet: Fleet | None = None
    """The node of this proxy on a bus. None without one."""


class AdminApplication:
    """The API for operators."""

    def __init__(self, settings: Settings, parts: AdminParts) -> None:
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._parts = parts
        self.adopt(settings)

    def adopt(self, settings: Settings) -> None:
        """Follow these settings from now on. What is made here is made again at each reload, so it holds no state."""
        secret = settings.admin.token
        self._token = Token(None if secret is None else secret.get_secret_value())
        self._hosts = HostNames((*settings.server.names, settings.admin.host))
        self._pages = ForeignPages((), is_tls=settings.admin.tls is not None)
        router, parts = Router(settings.mounts, None), self._parts
        cache = parts.cache
        parts.live.adopt(router)
        receiver = None if parts.events is None else parts.events.webhook
        of_webhook = None if settings.invalidation is None else settings.invalidation.webhook
        self._webhook = Webhook(receiver, of_webhook)
        self._handlers: dict[str, Handler] = {
            **Probes(parts.health, cache.mode).handlers,
            **Figures(parts.registry, cache, parts.summary, parts.catch_up).handlers,
            **Purges(cache, settings.mounts, parts.fleet).handlers,
            **Fills(cache, router).handlers,
            **Entries(cache, settings.mounts).handlers,
            **Explanations(settings, cache, parts.last_responses).handlers,
            **Warming(parts.warm_jobs, frozenset(settings.server.names), cache.mode).handlers,
            **Jobs(parts.warm_jobs).handlers,
            **Exports(cache, router).handlers,
            **Archives(parts.transfers, router, parts.warm_jobs.places, cache.mode).handlers,
            **Configurations(parts.effective).handlers,
            **Reloading(parts.reload).handlers,
            **Events(parts.live).handlers,
            **self._webhook.handlers,
            **Dashboard().handlers,
            "/openapi.json": self._openapi,
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            framing.check(request)
            response: web.StreamResponse = await self._respond(request)
        except framing.BadFraming as error:
            response = error_response(error.status, str(error))
            response.force_close()
        except Refused as refused:
            response = refused.response
        if not request.content.is_eof():
            response.force_close()  # no handler reads the rest of the body
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        is_read = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
        # Compared as it was sent: an escape could evade a rule for the path of a server in front.
        path = request.rel_url.raw_path
        template = webhook.TEMPLATE if self._webhook.is_at(path) else template_of(path, OPERATIONS)
        operation = None if template is None else OPERATIONS[template]
        if is_read and template is not None and operation is not None and operation.is_probe:
            return await self._handlers[template](request)
        self._admit(request, is_read=is_read)
        if not (is_read and operation is not None and operation.is_page):
            await self._check_token(request)
        if operation is not None and operation.is_stream:
            return await self._dispatch(request, template)
        if self._places.locked():
            raise Refused(503, "too many requests at once", {"Retry-After": str(RETRY_AFTER_S)})
        async with self._places:
            return await self._dispatch(request, template)

    def _admit(self, request: web.BaseRequest, *, is_read: bool) -> None:
        """Raise Refused for a request that may not be made here. Reads no byte of its body."""
        fields = request.headers
        try:
            self._hosts.check(fields.get(hdrs.HOST))
            # A link on another page may lead here. Its request has no Origin.
            if not is_read or hdrs.ORIGIN in fields:
                self._pages.check(fields.get)
        except UnknownHost as error:
            raise Refused(421, str(error)) from error
        except ForeignPage as error:
            raise Refused(403, "a page of another origin may not use the admin port") from error

    async def _check_token(self, request: web.BaseRequest) -> None:
        """Raise Refused for a request without the token, which is another one for the webhook."""
        authorization = request.headers.get(hdrs.AUTHORIZATION)
        if self._webhook.is_at(request.rel_url.raw_path):
            token, verdict = self._webhook.token, self._webhook.judge(authorization)
        else:
            token, verdict = self._token, self._token.judge(authorization)
        if verdict is TokenVerdict.WRONG and not await token.slow_down():
            wait = {"Retry-After": f"{WRONG_TOKEN_PAUSE_S:.0f}"}
            raise Refused(429, "too many wrong tokens", wait)
        if verdict is not TokenVerdict.RIGHT:
            raise Refused(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})

    async def _dispatch(self, request: web.BaseRequest, template: str | None) -> web.StreamResponse:
        if template is None:
            raise Refused(404, "there is nothing at this path")
        operation = OPERATIONS[template]
        if request.method not in operation.methods:
            raise Refused(405, f"this path takes {operation.method}", {"Allow": ", ".join(operation.methods)})
        return await self._handlers[template](request)

    async def _openapi(self, _: web.BaseRequest) -> web.Response:
        return web.json_response(openapi.document(__version__))


class _AdminConnections(ConnectionServer):
    """Makes the connections of the listener."""

    def __call__(self) -> web.RequestHandler:
        return AdminConnection(self, self.limit, **self.connection_options)


@dataclass(frozen=True, slots=True)
class AdminServer:
    """The server for operators, which begins to accept with `listener.start`."""

    listener: Listener
    application: AdminApplication


def build_admin(settings: Settings, parts: AdminParts, inherited: InheritedSockets) -> AdminServer:
    """Return the server for operators. Raises UnusableSetting."""
    application = AdminApplication(settings, parts)
    most = max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, descriptors.limit() // DESCRIPTORS_SHARE))
    limit = ConnectionLimit(most, min_idle=0.0)
    connections = _AdminConnections(
        application,
        limit,
        access_log=None,
        read_bufsize=BODY_BUFFER_BYTES,
        auto_decompress=False,  # a small body could become a large one, and hold the loop meanwhile
        keepalive_timeout=KEEP_ALIVE_TIMEOUT_S,
        max_headers=MAX_FIELDS,
    )
    site = admin_site(settings.admin)
    site = replace(site, inherited=inherited.take(site.place))
    return AdminServer(Listener(connections, (site,), limit, STOP_TIMEOUT_S), application)


def admin_site(settings: AdminSettings) -> ListenSite:
    """Return the place of the listener for operators, with its TLS. Raises UnusableSetting."""
    tls = None if settings.tls is None else ServerTls(settings.tls, ("admin", "tls"))
    return ListenSite(admin_place(settings), tls)


def admin_place(settings: AdminSettings) -> TcpPlace:
    """Return where the listener for operators is to be."""
    return TcpPlace(settings.host, settings.port, "admin", has_token=settings.token is not None)
