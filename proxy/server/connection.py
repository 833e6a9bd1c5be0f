"""aiohttp's connection, with a deadline for the head of a request (I20) and answers of our own to what it refuses."""

import asyncio
import logging
from http import HTTPStatus

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy.http.cache_status import CacheStatus, Forward
from proxy.server.exchange import Exchange
from proxy.server.failures import error_response

log = logging.getLogger("bucketfront.server")

HEAD_TIMEOUT = 10.0  # seconds from a request's first byte, or from the connection's start, to the end of its head


class Connection(RequestHandler):
    """aiohttp's keep-alive timer bounds the idle time and the head alike; a slow head deserves less patience."""

    __slots__ = ("_head_timer",)

    _head_timer: asyncio.TimerHandle | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._head_timer = self._loop.call_later(HEAD_TIMEOUT, self.force_close)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._stop_timer()
        elif self._head_timer is None and self._current_request is None and not self._messages:
            self._head_timer = self._loop.call_later(HEAD_TIMEOUT, self.force_close)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """What aiohttp's parser refused, in our words; its own page would be HTML and quote the client's bytes."""
        if request.writer.output_size:
            raise ConnectionResetError("an answer had begun")
        exchange = Exchange(request, self._loop.time())
        exchange.status = CacheStatus(Forward.BYPASS, detail="refused")
        if status != HTTPStatus.BAD_REQUEST:
            log.error("a request failed in a way nobody foresaw", exc_info=exc)
        text = "the request is malformed" if status == HTTPStatus.BAD_REQUEST else "internal error"
        response = error_response(exchange, status, text)
        response.force_close()
        return response

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class ConnectionServer(web.Server):
    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)
