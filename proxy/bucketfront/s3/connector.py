"""aiohttp's pool of connections, which gives out no connection on which bytes came while it was idle.

A response on an idle connection belongs to no request: a faulty origin or load balancer sends it, or it is the rest of
a body that was longer than declared. aiohttp would take it for the response to the next request. See
docs/invariants.md#cancellation.

Bytes that arrive after the next request was sent cannot be told from its response. HTTP/1.1 has no number for that.
"""

import select
from functools import partial
from typing import Any

from aiobotocore.httpsession import _ProxySSLTCPConnector
from aiohttp import ClientPayloadError
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

# An idle connection becomes readable by bytes, and by its end.
_READABLE = select.POLLIN | select.POLLRDHUP


_HEAD_END = b"\r\n\r\n"
_BODILESS = (b"HTTP/1.1 204", b"HTTP/1.1 304")


class _Protocol(ResponseHandler):
    """A connection that takes the head of a response that has no body, although one follows, which some servers send.

    These are the responses to HEAD, and those with 204 or 304 (RFC 9110 section 6.4.1). aiohttp would take the body for
    the next response, and drop the head together with it.

    A malformed chunk ends the body at once. In aiohttp the reader would wait for more until its deadline.
    """

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        super().set_exception(exc, *cause)
        payload = self._payload
        if isinstance(exc, HttpProcessingError) and payload is not None and not payload.is_eof():
            payload.set_exception(ClientPayloadError("the framing of the body is malformed"))

    def data_received(self, data: bytes) -> None:
        while self._expects_no_body(data) and 0 <= (end := data.find(_HEAD_END)) < len(data) - len(_HEAD_END):
            head, data = data[: end + len(_HEAD_END)], data[end + len(_HEAD_END) :]
            super().data_received(head)
            if not self._buffer or self._buffer[-1][0][0].code >= 200:  # the final response, or none
                self.force_close()
                return
        super().data_received(data)

    def _expects_no_body(self, data: bytes) -> bool:
        if self._skip_payload:
            return True
        return data.startswith(_BODILESS) and (self._payload is None or self._payload.is_eof())


class Connector(_ProxySSLTCPConnector):  # type: ignore[misc] # aiobotocore has no types
    """The connections of one pool."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(_Protocol, loop=self._loop)

    async def _get(self, key: Any, traces: list[Any]) -> Connection | None:
        """Return an idle connection, or None. aiohttp calls it for each request."""
        while True:
            # The traces note that a connection was reused, so they do not get those that are dropped here.
            connection: Connection | None = await super()._get(key, [])
            if connection is None:
                return None
            assert connection.protocol is not None
            if _was_silent(connection.protocol):
                for trace in traces:
                    await trace.send_connection_reuseconn()
                return connection
            connection.close()


def _was_silent(protocol: ResponseHandler) -> bool:
    """Return whether no byte has come since the end of the last response. The protocol gets a new parser after this."""
    if protocol.should_close:  # a response or a part of one that aiohttp has parsed
        return False
    parser = protocol._parser  # noqa: SLF001 - it has no public name; `BodyReceiver` leaves none
    try:
        if parser is not None and parser.feed_eof() is not None:  # a head that has begun
            return False
    except HttpProcessingError:
        return False
    return not _is_readable(protocol)


def _is_readable(protocol: ResponseHandler) -> bool:
    """Return whether the kernel has bytes that the event loop has not read yet, or the connection's end."""
    sock = None if protocol.transport is None else protocol.transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), _READABLE)
    return bool(poll.poll(0))
