"""The admin listener: health, readiness, metrics, statistics, purge."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from bucketfront import __version__
from bucketfront.admin.health import Health, Phase
from bucketfront.cache import Cache
from bucketfront.config.listener_settings import AdminSettings
from bucketfront.config.settings import Settings
from bucketfront.errors import BadPath, NoSuchMount, StoreError
from bucketfront.keys import ObjectKey
from bucketfront.server.http1.binding import ListenPlace
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.listener import Listener
from bucketfront.server.router import Router

MAX_BODY_BYTES = 4 << 20  # of a purge request: 10,000 paths of common length
MAX_PATHS = 10_000  # of one purge request; a prefix purges more
MAX_PATHS_PER_TURN = 256  # parsed in one turn of the loop (docs/invariants.md#cost-of-a-request)
BODY_TIMEOUT_S = 10.0  # for such a request to arrive
PURGE_TIMEOUT_S = 300.0  # a million entries take a tenth of it
MAX_CONNECTIONS = 32  # probes, a scraper, a few people
KEEP_ALIVE_TIMEOUT_S = 15.0  # between two requests; a scraper comes as often
STOP_TIMEOUT_S = 2.0  # for running requests to end at a stop; each can be repeated
LINGER_TIMEOUT_S = 1.0  # for the rest of a body that no handler read

_Path = Annotated[str, StringConstraints(min_length=1, max_length=8192)]
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # an orchestrator's probe carries no token


class PurgeRequest(BaseModel):
    """The body of a purge. `paths` and `prefix` are percent-encoded request paths, as clients send them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: Annotated[tuple[_Path, ...], Field(max_length=MAX_PATHS)] = ()
    prefix: _Path | None = None
    soft: bool = False


class AdminApplication:
    """The API for operators."""

    def __init__(self, settings: Settings, cache: Cache, registry: CollectorRegistry, health: Health) -> None:
        self._cache = cache
        self._registry = registry
        self._router = Router(settings.mounts, None)
        token = settings.admin.token
        self._token = None if token is None else token.get_secret_value()
        self._health = health

    def build(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._authorise])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/api/v1/stats", self._stats)
        app.router.add_post("/api/v1/purge", self._purge)
        return app

    @property
    def _authorise(self) -> Any:
        @web.middleware
        async def authorise(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if self._token is not None and request.path not in _OPEN_PATHS:
                given = request.headers.get("Authorization", "")
                if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
                    return _error(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
            return await handler(request)

        return authorise

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
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

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _stats(self, _: web.Request) -> web.Response:
        figures = asdict(self._cache.statistics())
        figures["endings"] = dict(figures["endings"])
        return web.json_response({"version": __version__, **figures})

    async def _purge(self, request: web.Request) -> web.Response:
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

    async def _wanted(self, request: web.Request) -> tuple[list[ObjectKey], list[ObjectKey], bool]:
        """Return the keys and prefixes of the body, and whether to mark them stale only.

        Raises TimeoutError, ValidationError, BadPath, NoSuchMount.
        """
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.read()
        wanted = PurgeRequest.model_validate_json(body)
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


def build_admin(settings: Settings, cache: Cache, registry: CollectorRegistry, health: Health) -> Listener:
    """Return the listener for operators, which begins to accept with `start`."""
    runner = web.AppRunner(
        AdminApplication(settings, cache, registry, health).build(),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=STOP_TIMEOUT_S,
        keepalive_timeout=KEEP_ALIVE_TIMEOUT_S,
        lingering_time=LINGER_TIMEOUT_S,
    )
    return Listener(runner, admin_place(settings.admin), ConnectionLimit(MAX_CONNECTIONS))


def admin_place(settings: AdminSettings) -> ListenPlace:
    """Return where the listener for operators is to be."""
    return ListenPlace(settings.host, settings.port, "admin", has_token=settings.token is not None)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps({"error": message}).encode() + b"\n",
        headers={**(headers or {}), "Content-Type": "application/json"},
    )
