"""The response to a client beyond the limit of connections: a 503, and the end of the connection."""

import asyncio
import json
import socket
import time
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import hdrs

from bucketfront.http.cache_status import CacheStatus, Detail, Forward
from bucketfront.server.http1.aiohttp_private import serialize_head
from bucketfront.server.telemetry.exchange import fields_of_all

LINGER_TIMEOUT_S = 1.0  # for a rejected client to send its request, and again to read the response
RETRY_AFTER_S = 1


class RefusedConnection(asyncio.Protocol):
    """Responds to the first request with 503 and closes. Without a request a client may not expect a response yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._has_responded = False
        self._timer = asyncio.get_running_loop().call_later(LINGER_TIMEOUT_S, self._respond)

    def data_received(self, data: bytes) -> None:
        if not self._has_responded:
            self._respond(has_body=not data.startswith(b"HEAD "))

    def connection_lost(self, exc: BaseException | None) -> None:
        del exc
        self._timer.cancel()

    def _respond(self, *, has_body: bool = True) -> None:
        self._has_responded = True
        self._timer.cancel()
        self._transport.write(_response(has_body=has_body))
        if self._transport.can_write_eof():
            # RFC 9112 section 9.6: closing at once would reset the connection, and the client might lose the response.
            self._transport.write_eof()
            self._timer = asyncio.get_running_loop().call_later(LINGER_TIMEOUT_S, self._transport.abort)
        else:
            self._transport.close()


def refuse_at_once(accepted: socket.socket, *, is_plain: bool) -> None:
    """Send the 503 without waiting, so that many rejected clients take no descriptors."""
    with accepted:
        accepted.setblocking(False)
        try:
            if is_plain:
                accepted.send(_response())
                accepted.recv(1 << 16)  # an unread request would turn the close into a reset
        except OSError:
            return  # the client left, or has sent no byte yet


def _response(*, has_body: bool = True) -> bytes:
    """Return the 503 to a client beyond the limit: RFC 9110 section 15.6.4."""
    body = json.dumps({"error": "too many connections"}).encode() + b"\n"
    headers = fields_of_all(CacheStatus(Forward.BYPASS, detail=Detail.REFUSED), ())
    headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER_S)
    headers[hdrs.CONTENT_TYPE] = "application/json"
    headers[hdrs.CONTENT_LENGTH] = str(len(body))
    headers[hdrs.CACHE_CONTROL] = "no-store"
    headers[hdrs.DATE] = formatdate(int(time.time()), usegmt=True)
    headers[hdrs.CONNECTION] = "close"
    return serialize_head(HTTPStatus.SERVICE_UNAVAILABLE, headers) + (body if has_body else b"")
