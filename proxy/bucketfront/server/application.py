"""The application of the mounts: routes each request, lets the stages admit it, and dispatches it to its handler."""

from aiohttp import hdrs, web

from bucketfront.config.mount_settings import MountSettings
from bucketfront.config.settings import Settings
from bucketfront.http import s3_requests, tus_fields
from bucketfront.http.cache_status import CacheStatus, Detail, Forward
from bucketfront.http.s3_requests import Dialect
from bucketfront.keys import split_target
from bucketfront.server import cors
from bucketfront.server.access.rule import NOBODY, AccessRequest, Caller
from bucketfront.server.client_application import ClientApplication, RequestParts, field_of
from bucketfront.server.error_responses import NotSupported
from bucketfront.server.handlers.objects import ObjectHandler, redirect
from bucketfront.server.handlers.tus_uploads import TusHandler
from bucketfront.server.handlers.uploads import UploadHandler
from bucketfront.server.http1 import framing
from bucketfront.server.http1.connection import Connection
from bucketfront.server.pipeline import Pipeline
from bucketfront.server.router import MissingSlash, MisspelledMount, Route, Router
from bucketfront.server.telemetry.exchange import Exchange


class Application(ClientApplication):
    """Serves mounts and the upload route."""

    def __init__(
        self,
        settings: Settings,
        objects: ObjectHandler,
        uploads: UploadHandler,
        tus: TusHandler | None,
        pipeline: Pipeline,
        parts: RequestParts,
    ) -> None:
        super().__init__(settings, parts)
        self._router = Router(settings.mounts, settings.uploads)
        self._region = settings.origin.region
        self._objects = objects
        self._uploads = uploads
        self._tus = tus
        self._pipeline = pipeline

    def _dialect(self, request: web.BaseRequest) -> Dialect:
        return s3_requests.dialect_of(request.headers, request.raw_path)

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
                route = self._pipeline.admit(method, upload, field_of(request), caller)
                return await self._tus.respond(exchange, route)
        try:
            route = self._router.resolve(request.method, request.raw_path, exchange.dialect)
        except (MissingSlash, MisspelledMount) as error:
            exchange.mount = error.mount.path
            caller = await self._caller(exchange, request.method, error.mount)
            self._pipeline.check(request.method, error.mount, error.key, field_of(request), caller)
            return redirect(exchange, 308, error.target, is_private=error.mount.is_private)
        exchange.min_rate, exchange.mount = route.mount.min_rate, route.mount.path
        if not route.mount.is_public:
            exchange.common = self._cors.fields(request.headers.get(hdrs.ORIGIN), is_guarded=True)
        method = "DELETE" if route.deletes_many else request.method
        caller = await self._caller(exchange, method, route.mount)
        route = self._pipeline.admit(method, route, field_of(request), caller)
        return await self._handle(exchange, route)

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
        facts = AccessRequest(method, path, query, field_of(request), exchange.address, self._clock(), certificate)
        caller = await self._pipeline.identify(facts, mount, is_upload=is_upload)
        self._enter(exchange, caller.credential)
        return caller

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
        self._pipeline.check(request.method, mount, key, field_of(request), caller, is_preflight=is_preflight)
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
    if any(name in request.headers for name in s3_requests.CUSTOMER_KEY_FIELDS):
        raise NotSupported("objects that are encrypted with a key of the client (SSE-C) are not supported")
