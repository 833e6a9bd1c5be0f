"""The application for clients: dispatches each request to its handler, and turns exceptions into responses."""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

from aiohttp import hdrs, web

from bucketfront.config.mount_settings import MountSettings
from bucketfront.config.settings import Settings
from bucketfront.errors import ProxyError
from bucketfront.fair_share import FairShares, Resource, act_for, acting_for
from bucketfront.http import s3_requests, tus_fields, via
from bucketfront.http.cache_status import CacheStatus, Detail, Forward
from bucketfront.keys import split_target
from bucketfront.request_trace import tracing
from bucketfront.server import cors, error_responses
from bucketfront.server.access.clients import Clients
from bucketfront.server.access.rule import NOBODY, AccessRequest, Caller
from bucketfront.server.client_address import ClientAddresses
from bucketfront.server.cors import Cors
from bucketfront.server.cut import BrokenOff, Cut
from bucketfront.server.error_responses import LoopDetected, NotSupported
from bucketfront.server.handlers.objects import ObjectHandler, redirect
from bucketfront.server.handlers.tus_uploads import TusHandler
from bucketfront.server.handlers.uploads import UploadHandler
from bucketfront.server.http1 import framing
from bucketfront.server.http1.connection import Connection
from bucketfront.server.pipeline import Pipeline, ReadField
from bucketfront.server.router import MissingSlash, MisspelledMount, Route, Router
from bucketfront.server.send.sender import abort
from bucketfront.server.telemetry.access_log import CLIENT_CLOSED_REQUEST
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.server.telemetry.telemetry import Telemetry

# S3 API, GetObject: a request with a key has all three.
_CUSTOMER_KEY_FIELDS = tuple(
    f"x-amz-server-side-encryption-customer-{name}" for name in ("algorithm", "key", "key-md5")
)

_SENDING = frozenset({"PUT", "POST", "PATCH"})  # methods of requests that have a body

log = logging.getLogger(__name__)


class Application:
    """Handles the requests of all connections, one at a time for each connection, as `web.Server` calls it."""

    def __init__(
        self,
        settings: Settings,
        objects: ObjectHandler,
        uploads: UploadHandler,
        tus: TusHandler | None,
        telemetry: Telemetry,
        pipeline: Pipeline,
        clock: Callable[[], float],
        shares: FairShares,
        name: str,
        begin_trace: Callable[[], str | None],
    ) -> None:
        """`clock` is wall time in seconds since the epoch. `name` and `begin_trace` are as in `Exchange.identify`."""
        self._name = name
        self._begin_trace = begin_trace
        self._router = Router(settings.mounts, settings.uploads)
        self._cors = Cors(settings.cors)
        self._addresses = ClientAddresses(settings.server.trusted_proxies)
        self._shows_timing = settings.server.timing
        self._region = settings.origin.region
        self._objects = objects
        self._uploads = uploads
        self._tus = tus
        self._telemetry = telemetry
        self._pipeline = pipeline
        self._clock = clock
        self._shares = shares
        self._clients = Clients(settings.server.front_networks, has_shares=settings.server.client_share is not None)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        clock = asyncio.get_running_loop().time
        common = self._cors.fields(request.headers.get(hdrs.ORIGIN))
        dialect = s3_requests.dialect_of(request.headers, request.raw_path)
        connection = request.protocol
        of_connection = connection.response_fields if isinstance(connection, Connection) else ()
        exchange = Exchange(request, clock(), common, of_connection, self._shows_timing, dialect)
        exchange.address = self._addresses.of(request.remote, _field_of(request))
        status = CLIENT_CLOSED_REQUEST
        try:
            # `_enter` names the client.
            with acting_for(None), tracing(exchange.identify(self._name, self._begin_trace)):
                response = await self._respond(exchange)
            status = response.status
        except BrokenOff as error:
            exchange.failed(error)
            exchange.fault, exchange.cut = str(error), error.cut
            raise
        except (ConnectionError, asyncio.CancelledError):
            if isinstance(connection, Connection) and connection.is_stopped:
                exchange.fault, exchange.cut = "the proxy stops", Cut.STOP
            raise
        finally:
            exchange.leave_places()
            if exchange.cut is not None:
                status = exchange.begun or HTTPStatus.SERVICE_UNAVAILABLE
            self._telemetry.finished(exchange, status, clock() - exchange.started)
        return response

    async def _respond(self, exchange: Exchange) -> web.StreamResponse:
        """Dispatch the request, and turn its exceptions into responses."""
        try:
            return await self._dispatch(exchange)
        except ProxyError as error:
            log.info("%s: %s", type(error).__name__, error)
            exchange.failed(error)
            exchange.status = error_responses.cache_status(error, exchange.request.method)
            response = error_responses.response_to(error, exchange)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("a request failed with an unexpected error")
            if exchange.request.writer.output_size:
                abort(exchange.request)
                raise BrokenOff("internal error", Cut.BUG) from None
            exchange.fault = "bug"
            response = error_responses.error_response(exchange, 500, "internal error")
        if exchange.request.method not in ("GET", "HEAD", "DELETE"):
            response.force_close()  # no handler reads the rest of the body
        return response

    async def _dispatch(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        framing.check(request)
        self._refuse_loops(exchange)
        if request.method == "OPTIONS":
            return await self._options(exchange)
        if request.method in ("GET", "HEAD"):
            _refuse_customer_keys(request)
        if self._tus is not None and tus_fields.is_tus_request(request.method, request.headers):
            method = tus_fields.method_of(request.method, request.headers)
            upload = self._router.tus(method, request.raw_path)
            if upload is not None:
                exchange.min_rate, exchange.mount = upload.mount.min_rate, upload.mount.path
                exchange.common = self._cors.fields(request.headers.get(hdrs.ORIGIN), tus_fields.RESPONSE_HEADERS)
                caller = await self._caller(exchange, method, upload.mount, is_upload=True)
                route = self._pipeline.admit(method, upload, _field_of(request), caller)
                return await self._tus.respond(exchange, route)
        try:
            route = self._router.resolve(request.method, request.raw_path, exchange.dialect)
        except (MissingSlash, MisspelledMount) as error:
            exchange.mount = error.mount.path
            caller = await self._caller(exchange, request.method, error.mount)
            self._pipeline.check(request.method, error.mount, error.key, _field_of(request), caller)
            return redirect(exchange, 308, error.target, is_private=error.mount.is_private)
        exchange.min_rate, exchange.mount = route.mount.min_rate, route.mount.path
        if not route.mount.is_public:
            exchange.common = self._cors.fields(request.headers.get(hdrs.ORIGIN), is_guarded=True)
        method = "DELETE" if route.deletes_many else request.method
        caller = await self._caller(exchange, method, route.mount)
        route = self._pipeline.admit(method, route, _field_of(request), caller)
        return await self._handle(exchange, route)

    def _refuse_loops(self, exchange: Exchange) -> None:
        """Raise LoopDetected for a request that this process has sent, or that has passed too many others."""
        if self._name in exchange.passed:
            raise LoopDetected("this proxy has sent the request itself: an origin.endpoint_url leads back to it")
        if len(exchange.passed) >= via.MAX_HOPS:
            raise LoopDetected(f"the request has passed {len(exchange.passed)} proxies already")

    async def _handle(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """Let the handler of an admitted request respond."""
        request = exchange.request
        if route.names_bucket:
            return self._bucket(exchange)
        if request.method in ("GET", "HEAD"):
            return await self._objects.respond(exchange, route)
        if route.deletes_many:
            return await self._uploads.delete_many(exchange, route)
        handle = self._uploads.delete if request.method == "DELETE" else self._uploads.put
        return await handle(exchange, route)

    async def _caller(
        self, exchange: Exchange, method: str, mount: MountSettings | None, *, is_upload: bool = False
    ) -> Caller:
        """Return the client. Raises AccessUnavailable, BadPath, ShareUsedUp, WholeUsedUp."""
        if mount is None:
            return NOBODY
        request = exchange.request
        path, query = split_target(request.raw_path)
        # No signature for a GET is one for a request of an upload.
        method = "PATCH" if is_upload and method == "HEAD" else method
        connection = request.protocol
        certificate = connection.client_certificate if isinstance(connection, Connection) else None
        facts = AccessRequest(method, path, query, _field_of(request), exchange.address, self._clock(), certificate)
        caller = await self._pipeline.identify(facts, mount, is_upload=is_upload)
        exchange.user = caller.credential
        self._enter(exchange, caller)
        return caller

    def _enter(self, exchange: Exchange, caller: Caller) -> None:
        """Give the request its places, and let the task work for its client. Raises ShareUsedUp, WholeUsedUp."""
        request = exchange.request
        is_hidden = exchange.address is None and self._addresses.hides(request.remote, _field_of(request))
        client = self._clients.name(exchange.address, caller, is_hidden=is_hidden)
        exchange.places.append(self._shares.take(Resource.REQUESTS, client))
        if request.method in _SENDING:
            exchange.places.append(self._shares.take(Resource.UPLOADS, client))
        act_for(client)

    def _bucket(self, exchange: Exchange) -> web.Response:
        """Respond to HeadBucket of S3: a mount is a bucket that exists for its clients."""
        exchange.status = CacheStatus(Forward.BYPASS)
        fields = {**exchange.s3_fields(), "x-amz-bucket-region": self._region}
        return web.Response(headers={**exchange.headers(), **fields}, content_type="application/xml")

    async def _options(self, exchange: Exchange) -> web.Response:
        """Respond to OPTIONS (RFC 9110 section 9.3.7), which is a CORS preflight if it has the fields of one."""
        request = exchange.request
        methods = self._router.methods(request.raw_path)
        route = None if request.raw_path == "*" else self._router.locate(request.raw_path)
        mount, key = (None, None) if route is None else (route.mount, route.named_key)
        exchange.mount = None if mount is None else mount.path
        is_preflight = cors.is_preflight(request.headers)
        caller = NOBODY if is_preflight else await self._caller(exchange, request.method, mount)
        self._pipeline.check(request.method, mount, key, _field_of(request), caller, is_preflight=is_preflight)
        exchange.status = CacheStatus(Forward.BYPASS, detail=Detail.OPTIONS)
        headers, further_fields = exchange.headers(), tuple[str, ...]()
        if self._tus is not None and self._router.tus(request.method, request.raw_path) is not None:
            headers.extend(self._tus.options())
            further_fields = tus_fields.REQUEST_HEADERS
        headers.extend(self._cors.preflight(request.headers, methods, further_fields))
        headers[hdrs.ALLOW] = ", ".join(methods)
        return web.Response(status=204, headers=headers)


def _refuse_customer_keys(request: web.BaseRequest) -> None:
    """Raise NotSupported for a read with a key of SSE-C. A write with one is refused with the other fields of its head.

    The cache has one version of an object for all clients, and must not have one that takes a key.
    """
    if any(name in request.headers for name in _CUSTOMER_KEY_FIELDS):
        raise NotSupported("objects that are encrypted with a key of the client (SSE-C) are not supported")


def _field_of(request: web.BaseRequest) -> ReadField:
    """Return the function that reads the request's fields for the stages."""

    def field(name: str) -> str | None:
        # RFC 9110 section 5.3: the values of a field that occurs more than once are one list.
        values = request.headers.getall(name, None)
        return None if values is None else ", ".join(values)

    return field
