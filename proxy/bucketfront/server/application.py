"""The listener for clients: from aiohttp's request to a room, and from an exception to an answer."""

import asyncio
import logging
import ssl

from aiohttp import hdrs, web

from bucketfront.config.listener_settings import ServerSettings
from bucketfront.config.settings import Settings
from bucketfront.errors import ProxyError
from bucketfront.http import query, tus_fields
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.server import error_responses
from bucketfront.server.cors import Cors
from bucketfront.server.error_responses import NotSupported
from bucketfront.server.fast_path.fast_connection import FastConnectionServer, FastPath
from bucketfront.server.handlers.objects import ObjectHandler
from bucketfront.server.handlers.tus_uploads import TusHandler
from bucketfront.server.handlers.uploads import UploadHandler
from bucketfront.server.http1 import framing
from bucketfront.server.http1.connection import BODY_BUFFER_BYTES
from bucketfront.server.http1.listener import ConnectionLimit, Listener
from bucketfront.server.pipeline import Pipeline
from bucketfront.server.router import Route, Router
from bucketfront.server.send.sender import BrokenOff, abort
from bucketfront.server.telemetry.access_log import CLIENT_CLOSED_REQUEST
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.server.telemetry.telemetry import Telemetry

KEEP_ALIVE_TIMEOUT_S = 75.0  # between two requests of a connection; longer than the 60 s of common load balancers
MAX_LINE_BYTES = 16 << 10  # of a request's head: a key of 1024 bytes, each percent-encoded, and a query

log = logging.getLogger(__name__)


class Application:
    """One request at a time per connection, as `web.Server` calls it."""

    def __init__(
        self,
        settings: Settings,
        objects: ObjectHandler,
        uploads: UploadHandler,
        resumable: TusHandler | None,
        telemetry: Telemetry,
        pipeline: Pipeline,
    ) -> None:
        self._router = Router(settings.mounts, settings.uploads)
        self._cors = Cors(settings.cors)
        self._shows_timing = settings.server.timing
        self._objects = objects
        self._uploads = uploads
        self._resumable = resumable
        self._telemetry = telemetry
        self._pipeline = pipeline

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        clock = asyncio.get_running_loop().time
        common = self._cors.fields(request.headers.get(hdrs.ORIGIN))
        exchange = Exchange(request, clock(), common, shows_timing=self._shows_timing)
        status = CLIENT_CLOSED_REQUEST
        try:
            response = await self._answered(exchange)
            status = response.status
        except BrokenOff as error:
            exchange.fault = str(error)
            self._telemetry.cut()
            raise
        finally:
            self._telemetry.finished(exchange, status, clock() - exchange.started)
        return response

    async def _answered(self, exchange: Exchange) -> web.StreamResponse:
        try:
            return await self._dispatched(exchange)
        except ProxyError as error:
            log.info("%s: %s", type(error).__name__, error)
            exchange.fault = type(error).__name__
            exchange.status = error_responses.cache_status(error)
            response = error_responses.answer(error, exchange)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("a request failed in a way nobody foresaw")
            if exchange.request.writer.output_size:
                abort(exchange.request)
                raise BrokenOff("internal error") from None
            exchange.fault = "bug"
            response = error_responses.error_response(exchange, 500, "internal error")
        if exchange.request.method not in ("GET", "HEAD", "DELETE"):
            response.force_close()  # the rest of the body is nobody's
        return response

    async def _dispatched(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        framing.check(request)
        if request.method == "OPTIONS":
            return self._options(exchange)
        if self._resumable is not None and tus_fields.is_tus_request(request.method, request.headers):
            upload = self._router.upload(request.raw_path)
            if upload is not None:
                exchange.common = self._cors.fields(request.headers.get(hdrs.ORIGIN), tus_fields.RESPONSE_HEADERS)
                self._check(request, upload)
                return await self._resumable.answer(exchange, upload)
        route = self._router.resolve(request.method, request.raw_path)
        self._check(request, route)
        if request.method in ("GET", "HEAD"):
            return await self._objects.answer(exchange, route)
        if route.deletes_many:
            return await self._uploads.delete_many(exchange, route)
        if (name := query.subresource(route.query)) is not None:
            raise NotSupported(f"a write with ?{name} means something else to S3, and is not taken here")
        match request.method:
            case "DELETE":
                return await self._uploads.delete(exchange, route)
            case _:
                return await self._uploads.put(exchange, route)

    def _check(self, request: web.BaseRequest, route: Route) -> None:
        """Run the stages. A field that comes more than once has its values joined (RFC 9110 section 5.3)."""

        def field(name: str) -> str | None:
            values = request.headers.getall(name, None)
            return None if values is None else ", ".join(values)

        self._pipeline.check(request.method, route, field)

    def _options(self, exchange: Exchange) -> web.Response:
        """RFC 9110 section 9.3.7, and a browser's question whether a page may send what it is about to send."""
        methods = self._router.methods(exchange.request.raw_path)
        if (route := self._router.locate(exchange.request.raw_path)) is not None:
            self._check(exchange.request, route)
        exchange.status = CacheStatus(Forward.BYPASS, detail="options")
        headers, sent = exchange.headers(), tuple[str, ...]()
        if self._resumable is not None and self._router.upload(exchange.request.raw_path) is not None:
            headers.extend(self._resumable.options())
            sent = tus_fields.REQUEST_HEADERS
        headers.extend(self._cors.preflight(exchange.request.headers, methods, sent))
        headers[hdrs.ALLOW] = ", ".join(methods)
        return web.Response(status=204, headers=headers)


def client_listener(
    application: Application,
    fast_path: FastPath | None,
    settings: ServerSettings,
    connections: ConnectionLimit,
    drain_timeout: float,
) -> Listener:
    """Return the listener for clients. `drain_timeout` is how many seconds running requests have to end at a stop."""
    ssl_context: ssl.SSLContext | None = None
    if settings.tls is not None:
        ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ssl_context.load_cert_chain(settings.tls.certificate, settings.tls.key)
    connection_server = FastConnectionServer(
        application,
        fast_path,
        handler_cancellation=True,  # a client that leaves frees at once what it waited for
        access_log=None,
        read_bufsize=BODY_BUFFER_BYTES,
        auto_decompress=False,  # a body is stored as it was sent
        keepalive_timeout=KEEP_ALIVE_TIMEOUT_S,
        max_line_size=MAX_LINE_BYTES,
    )
    runner = web.ServerRunner(connection_server, handle_signals=False, shutdown_timeout=drain_timeout)
    return Listener(runner, settings.host, settings.port, connections, ssl_context)
