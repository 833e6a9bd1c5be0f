"""The admin listener: health, readiness, metrics, statistics, purge. `openapi` has the table of its paths.

A request passes the checks of `AdminApplication._admit` in their order before a byte of its body is read. Probes pass
none of them but the framing, so that an orchestrator's always succeed. Other requests have MAX_AT_ONCE places. So a
connection that is not responding can always be found, and makes way for a new one.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import ValidationError

from bucketfront import __version__
from bucketfront.admin import openapi
from bucketfront.admin.health import Health, Phase
from bucketfront.admin.openapi import OPERATIONS, Operation, PurgeRequest
from bucketfront.admin.tokens import WRONG_TOKEN_PAUSE_S, Token, TokenVerdict
from bucketfront.cache import Cache
from bucketfront.config.listener_settings import AdminSettings
from bucketfront.config.settings import Settings
from bucketfront.errors import BadPath, NoSuchMount, StoreError
from bucketfront.http import media_types
from bucketfront.keys import ObjectKey
from bucketfront.server.foreign_pages import ForeignPage, ForeignPages
from bucketfront.server.host_names import HostNames, UnknownHost
from bucketfront.server.http1 import descriptors, framing
from bucketfront.server.http1.binding import TcpPlace
from bucketfront.server.http1.connection import BODY_BUFFER_BYTES, MAX_FIELDS, Connection, ConnectionServer
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.listener import Listener, ListenSite
from bucketfront.server.http1.server_tls import ServerTls
from bucketfront.server.receive.request_body import invite
from bucketfront.server.router import Router

MAX_BODY_BYTES = 4 << 20  # of a purge request: 10,000 paths of common length
MAX_PATHS_PER_TURN = 256  # parsed in one turn of the loop (docs/invariants.md#cost-of-a-request)
BODY_TIMEOUT_S = 10.0  # for such a request to arrive
PURGE_TIMEOUT_S = 300.0  # a million entries take a tenth of it
MAX_AT_ONCE = 16  # requests, probes apart: a scraper, a few people
MAX_CONNECTIONS = 128  # more than the requests at once, so that idle ones can make way
MIN_CONNECTIONS = 2 * MAX_AT_ONCE  # even if the process may open few descriptors
DESCRIPTORS_SHARE = 8  # at most this fraction of the descriptors is for these connections
KEEP_ALIVE_TIMEOUT_S = 15.0  # between two requests; a scraper comes as often
STOP_TIMEOUT_S = 2.0  # for running requests to end at a stop; each can be repeated
RETRY_AFTER_S = 1


Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]


class _Refused(Exception):
    """A request that gets `response` in place of its own."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


class AdminApplication:
    """The API for operators."""

    def __init__(
        self, settings: Settings, cache: Cache, registry: CollectorRegistry, health: Health, token: Token
    ) -> None:
        self._cache = cache
        self._registry = registry
        self._router = Router(settings.mounts, None)
        self._health = health
        self._token = token
        self._hosts = HostNames((*settings.server.names, settings.admin.host))
        self._pages = ForeignPages((), is_tls=settings.admin.tls is not None)
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._handlers: dict[str, Handler] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/openapi.json": self._openapi,
            "/api/v1/stats": self._stats,
            "/api/v1/purge": self._purge,
        }

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        try:
            framing.check(request)
            response = await self._respond(request)
        except framing.BadFraming as error:
            response = _error(error.status, str(error))
            response.force_close()
        except _Refused as refused:
            response = refused.response
        if not request.content.is_eof():
            response.force_close()  # no handler reads the rest of the body
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        is_read = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
        # Compared as it was sent: an escape could evade a rule for the path of a server in front.
        operation = OPERATIONS.get(request.rel_url.raw_path)
        if is_read and operation is not None and operation.is_probe:
            return await self._handlers[request.rel_url.raw_path](request)
        await self._admit(request, is_read=is_read)
        if self._places.locked():
            return _error(503, "too many requests at once", {"Retry-After": str(RETRY_AFTER_S)})
        async with self._places:
            return await self._dispatch(request, operation)

    async def _admit(self, request: web.BaseRequest, *, is_read: bool) -> None:
        """Raise _Refused for a request that may not be made here. Reads no byte of its body."""
        fields = request.headers
        try:
            self._hosts.check(fields.get(hdrs.HOST))
            # A link on another page may lead here. Its request has no Origin.
            if not is_read or hdrs.ORIGIN in fields:
                self._pages.check(fields.get)
        except UnknownHost as error:
            raise _Refused(_error(421, str(error))) from error
        except ForeignPage as error:
            raise _Refused(_error(403, "a page of another origin may not use the admin port")) from error
        verdict = self._token.judge(fields.get(hdrs.AUTHORIZATION))
        if verdict is TokenVerdict.WRONG and not await self._token.slow_down():
            wait = {"Retry-After": f"{WRONG_TOKEN_PAUSE_S:.0f}"}
            raise _Refused(_error(429, "too many wrong tokens", wait))
        if verdict is not TokenVerdict.RIGHT:
            raise _Refused(_error(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"}))

    async def _dispatch(self, request: web.BaseRequest, operation: Operation | None) -> web.Response:
        if operation is None:
            return _error(404, "there is nothing at this path")
        if request.method not in operation.methods:
            return _error(405, f"this path takes {operation.method}", {"Allow": ", ".join(operation.methods)})
        return await self._handlers[request.rel_url.raw_path](request)

    async def _healthz(self, _: web.BaseRequest) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        """Respond with 200 while requests are served, also if the proxy is degraded, and with 503 before and after.

        The first line of the text stays the same for probes that compare it. The response needs no token, so it has
        neither keys nor the names of buckets.
        """
        health = self._health
        is_ready = health.phase is Phase.SERVING
        troubles = [
            (trouble.kind.reason.value, trouble.kind.name, health.lasted(trouble)) for trouble in health.troubles
        ]
        status = 200 if is_ready else 503
        if "application/json" in request.headers.get("Accept", ""):
            state = health.phase.value if not is_ready else "degraded" if troubles else "ready"
            reasons = [{"reason": reason, "name": name, "seconds": round(lasted)} for reason, name, lasted in troubles]
            return web.json_response({"status": state, "ready": is_ready, "reasons": reasons}, status=status)
        lines = ["ready"] if is_ready else ["not ready", health.phase.value]
        lines += [f"degraded: {reason} ({name}), for {lasted:.0f} s" for reason, name, lasted in troubles]
        return web.Response(status=status, text="\n".join((*lines, "")))

    async def _metrics(self, _: web.BaseRequest) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _openapi(self, _: web.BaseRequest) -> web.Response:
        return web.json_response(openapi.document(__version__))

    async def _stats(self, _: web.BaseRequest) -> web.Response:
        figures = asdict(self._cache.statistics())
        figures["endings"] = dict(figures["endings"])
        return web.json_response({"version": __version__, **figures})

    async def _purge(self, request: web.BaseRequest) -> web.Response:
        try:
            keys, prefixes, soft = await self._wanted(request)
        except TimeoutError:
            return _error(408, f"the request did not come in within {BODY_TIMEOUT_S:g} s", {"Connection": "close"})
        except ValidationError as error:
            places = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
            return _error(400, places)
        except (BadPath, NoSuchMount) as error:
            return _error(400, str(error))
        try:
            async with asyncio.timeout(PURGE_TIMEOUT_S):
                purged = await self._cache.purge(keys, prefixes, soft=soft, versions=True)
        except TimeoutError:
            return _error(504, f"the purge goes on; it was not complete within {PURGE_TIMEOUT_S:g} s")
        except StoreError as error:
            return _error(500, f"memory has forgotten them, but the disk refused: {error}")
        return web.json_response({"purged": purged})

    async def _wanted(self, request: web.BaseRequest) -> tuple[list[ObjectKey], list[ObjectKey], bool]:
        """Return the keys and prefixes of the body, and whether to mark them stale only.

        Raises _Refused, TimeoutError, ValidationError, BadPath, NoSuchMount.
        """
        wanted = PurgeRequest.model_validate_json(await _json_body(request))
        keys = [key async for key in self._keys(wanted.paths)]
        prefixes = [] if wanted.prefix is None else self._prefixes(wanted.prefix)
        if not keys and not prefixes:
            raise BadPath("name paths or a prefix to purge")
        return keys, prefixes, wanted.soft

    async def _keys(self, paths: Sequence[str]) -> AsyncIterator[ObjectKey]:
        for number, path in enumerate(paths, 1):
            yield self._router.locate(path).unadmitted_key()
            if not number % MAX_PATHS_PER_TURN:
                await asyncio.sleep(0)

    def _prefixes(self, path: str) -> list[ObjectKey]:
        route = self._router.locate(path)
        octets = route.mount.prefix.encode() + route.octets
        try:
            return [ObjectKey(route.mount.bucket, octets.decode())]
        except UnicodeDecodeError as error:
            raise BadPath("the prefix is not UTF-8") from error


async def _json_body(request: web.BaseRequest) -> bytes:
    """Return the body. Raises _Refused unless it is JSON of a bounded size, and TimeoutError if it is slow."""
    fields = request.headers
    # A page can send other types without a preflight (Fetch standard, section 2.2.2).
    if media_types.essence(fields.get(hdrs.CONTENT_TYPE, "")) != "application/json":
        raise _Refused(_error(415, "the body must be JSON, with Content-Type: application/json"))
    if hdrs.CONTENT_ENCODING in fields:
        raise _Refused(_error(415, "the body must not have a Content-Encoding"))
    too_large = _error(413, f"the body has more than {MAX_BODY_BYTES} bytes")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _Refused(too_large)
    invite(request)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _Refused(too_large)
    except web.RequestPayloadError as error:
        raise _Refused(_error(400, "the body broke off")) from error
    return bytes(body)


class _AdminConnection(Connection):
    """A connection that makes way also while a head arrives, because a slow client must not keep probes out."""

    __slots__ = ()

    def idle_since(self) -> float | None:
        return None if self.is_responding else self.last_used


class _AdminConnections(ConnectionServer):
    """Makes the connections of the listener."""

    def __call__(self) -> web.RequestHandler:
        return _AdminConnection(self, self.limit, **self.connection_options)


def build_admin(settings: Settings, cache: Cache, registry: CollectorRegistry, health: Health) -> Listener:
    """Return the listener for operators, which begins to accept with `start`. Raises UnusableSetting."""
    secret = settings.admin.token
    token = Token(None if secret is None else secret.get_secret_value())
    most = max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, descriptors.limit() // DESCRIPTORS_SHARE))
    limit = ConnectionLimit(most, min_idle=0.0)
    connections = _AdminConnections(
        AdminApplication(settings, cache, registry, health, token),
        limit,
        access_log=None,
        read_bufsize=BODY_BUFFER_BYTES,
        auto_decompress=False,  # a small body could become a large one, and hold the loop meanwhile
        keepalive_timeout=KEEP_ALIVE_TIMEOUT_S,
        max_headers=MAX_FIELDS,
    )
    runner = web.ServerRunner(connections, handle_signals=False, shutdown_timeout=STOP_TIMEOUT_S)
    tls = None if settings.admin.tls is None else ServerTls(settings.admin.tls, ("admin", "tls"))
    return Listener(runner, (ListenSite(admin_place(settings.admin), tls),), limit)


def admin_place(settings: AdminSettings) -> TcpPlace:
    """Return where the listener for operators is to be."""
    return TcpPlace(settings.host, settings.port, "admin", has_token=settings.token is not None)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps({"error": message}).encode() + b"\n",
        headers={**(headers or {}), "Content-Type": "application/json"},
    )
