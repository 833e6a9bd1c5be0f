"""asyncio's transport of TLS with small buffers, and every private member of `asyncio` that this takes.

asyncio's TLS is a protocol between two transports: the socket's, and the one that the connection gets.
`PRIVATE_MEMBERS` lists each member with the reason for its use, as `aiohttp_private` does for all others.
"""

import asyncio
import ssl
import sys
from asyncio import sslproto
from asyncio.sslproto import _SSLProtocolTransport
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bucketfront.http.grammar import Headers
from bucketfront.server.http1.aiohttp_private import PrivateMember

TLS_BUFFER_BYTES = 16 << 10  # one record of TLS: RFC 8446 section 5.1
RESPONSE_FIELDS = "response_fields"  # extra info of a transport of TLS: the fields of each response on it

PRIVATE_MEMBERS = (
    PrivateMember(sslproto, "SSLProtocol", "undocumented; asyncio's buffers of TLS are too large for each connection"),
    PrivateMember(sslproto.SSLProtocol, "max_size", "the read buffer's size"),
    PrivateMember(sslproto.SSLProtocol, "_do_handshake", "a name that is no text would leave a traceback"),
    PrivateMember(sslproto.SSLProtocol, "_on_handshake_complete", "asyncio does not send the alert of a failure"),
    PrivateMember(sslproto.SSLProtocol, "_fatal_error", "a certificate with names that are no text leaves a traceback"),
    PrivateMember(sslproto.SSLProtocol, "_process_outgoing", "as `_on_handshake_complete`"),
    PrivateMember(sslproto.SSLProtocol, "_ssl_writing_paused", "a write that fails in `resume_writing` is a traceback"),
    PrivateMember(sslproto.SSLProtocol, "_loop", "as `_ssl_writing_paused`: a turn of its own for what waits"),
    PrivateMember(sslproto.SSLProtocol, "_get_app_transport", "makes the transport that the connection gets"),
    PrivateMember(sslproto.SSLProtocol, "_app_transport", "as `_get_app_transport`"),
    PrivateMember(sslproto.SSLProtocol, "_app_transport_created", "as `_get_app_transport`"),
    PrivateMember(sslproto, "SSLProtocolState", "undocumented; as `_state`"),
    PrivateMember(sslproto.SSLProtocol, "_state", "asyncio drops writes in all states but WRAPPED"),
    PrivateMember(
        sslproto.SSLProtocol, "_transport", "is the transport below TLS, which notices first that a client left"
    ),
    PrivateMember(sslproto.SSLProtocol, "_incoming", "bytes of the socket are deciphered within the selector"),
    PrivateMember(sslproto.SSLProtocol, "_sslobj", "as `_incoming`"),
    PrivateMember(sslproto.SSLProtocol, "_app_protocol", "as `_incoming`"),
    PrivateMember(sslproto.SSLProtocol, "_app_reading_paused", "as `_incoming`"),
    PrivateMember(sslproto.SSLProtocol, "_do_read", "as `_incoming`, for all but the usual case"),
    PrivateMember(sslproto.SSLProtocol, "_write_backlog", "bytes that TLS did not take must outlive their buffer"),
    PrivateMember(sslproto, "_SSLProtocolTransport", "forgets its protocol when it is closed twice"),
    PrivateMember(_SSLProtocolTransport, "_ssl_protocol", "as `_SSLProtocolTransport`"),
    PrivateMember(_SSLProtocolTransport, "_closed", "as `_SSLProtocolTransport`"),
)


class TlsTransport(_SSLProtocolTransport):
    """asyncio's transport of TLS, which can be closed and aborted more than once, and knows when the client left.

    asyncio's own fails with an AttributeError if it is used after a second `close`. It takes further writes until the
    loop reports the lost connection, and logs each of them.
    """

    _ssl_protocol: "SmallBufferTls"  # the stubs have no attributes
    _closed: bool

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == RESPONSE_FIELDS:
            return self._ssl_protocol.response_fields
        return super().get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._closed or self._ssl_protocol.is_client_gone

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the kernel has not taken yet. asyncio would leave out what is enciphered already."""
        return super().get_write_buffer_size() + self._ssl_protocol.unsent_records

    def write_view(self, data: memoryview) -> None:
        """Write bytes whose buffer the caller uses again."""
        self.write(data)
        self._ssl_protocol.keep_backlog()

    def decipher(self, data: bytes) -> bytes:
        """Take what the socket had, and return the plain bytes if that is all there is to do.

        In any other case the protocol gets them as asyncio delivers them, and this returns no bytes.
        """
        return self._ssl_protocol.decipher(data)

    def close(self) -> None:
        if self._closed:
            return
        if self._ssl_protocol.is_end_held:
            self.abort()  # asyncio's `close` has no effect then, and the connection would stay open
        else:
            super().close()


class SmallBufferTls(sslproto.SSLProtocol):
    """asyncio keeps 256 KiB for what it reads of each connection, and lets 576 KiB wait to be sent."""

    max_size = TLS_BUFFER_BYTES
    _loop: asyncio.AbstractEventLoop  # the stubs do not have these
    _incoming: ssl.MemoryBIO
    _sslobj: ssl.SSLObject
    _app_protocol: asyncio.Protocol
    _app_reading_paused: bool
    _do_read: Callable[[], None]
    _write_backlog: deque[Any]
    _state: sslproto.SSLProtocolState
    _ssl_writing_paused: bool
    _transport: asyncio.Transport | None
    _app_transport_created: bool

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        handshake: "asyncio.Future[None]",
        response_fields: Headers,
        **options: Any,
    ) -> None:
        self.response_fields = response_fields
        super().__init__(loop, protocol, context, handshake, **options)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(TLS_BUFFER_BYTES)
        super().connection_made(transport)

    def resume_writing(self) -> None:
        """Write what waits, in the next turn of the loop.

        asyncio's transport calls this amid a write of its own. If a write from here failed, the transport would end
        twice.
        """
        self._ssl_writing_paused = False
        self._loop.call_soon(self.write_what_waits)

    def write_what_waits(self) -> None:
        """Write what has been enciphered, unless the connection has ended."""
        if self._transport is not None:
            self._process_outgoing()  # type: ignore[attr-defined] # the stubs do not have it

    @property
    def unsent_records(self) -> int:
        """Return the bytes of TLS that the transport below holds."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def keep_backlog(self) -> None:
        """Copy what TLS did not take, because its buffer is used again."""
        for number, data in enumerate(self._write_backlog):
            self._write_backlog[number] = bytes(data)

    def decipher(self, data: bytes) -> bytes:
        """Take bytes of the socket, as `TlsTransport.decipher`."""
        self._incoming.write(data)
        if self._app_reading_paused or self._state is not sslproto.SSLProtocolState.WRAPPED:
            self._do_read()
            return b""
        try:
            plain = self._sslobj.read(self.max_size)
        except ssl.SSLWantReadError:
            plain = b""  # a part of a record
        except ssl.SSLError as error:
            self._fatal_error(error)
            return b""
        if not plain:
            self._do_read()
        elif self._incoming.pending or self._sslobj.pending():
            self._app_protocol.data_received(plain)
            self._do_read()
            return b""
        return plain

    @property
    def is_client_gone(self) -> bool:
        """Return whether further writes are lost: TLS has ended, or the transport below has failed or is closed."""
        is_open = self._state is sslproto.SSLProtocolState.WRAPPED
        return not is_open or self._transport is None or self._transport.is_closing()

    @property
    def is_end_held(self) -> bool:
        """Return whether the client ended while reading was paused. asyncio waits until the rest was read."""
        return self._state is sslproto.SSLProtocolState.FLUSHING

    def _do_handshake(self) -> None:
        with _unreadable_names_unreported():
            super()._do_handshake()  # type: ignore[misc] # the stubs do not have it

    def _on_handshake_complete(self, error: BaseException | None) -> None:
        if isinstance(error, ssl.SSLError):
            self._process_outgoing()  # type: ignore[attr-defined] # the stubs do not have it
        super()._on_handshake_complete(error)

    def _fatal_error(self, error: BaseException, message: str = "Fatal error on transport") -> None:
        is_unreadable = self._state is sslproto.SSLProtocolState.UNWRAPPED and isinstance(error, ValueError)
        super()._fatal_error(ConnectionAbortedError(str(error)) if is_unreadable else error, message)

    def _get_app_transport(self) -> _SSLProtocolTransport:
        if not self._app_transport_created:
            self._app_transport, self._app_transport_created = TlsTransport(self._loop, self), True
        return self._app_transport


@contextmanager
def _unreadable_names_unreported() -> Iterator[None]:
    """Keep CPython from printing a traceback if a client requests a server name that is not ASCII.

    It does so before it would call the context's `sni_callback`. The handshake fails all the same.
    """
    report = sys.unraisablehook

    def filtered(found: "sys.UnraisableHookArgs") -> None:
        if not isinstance(found.exc_value, UnicodeDecodeError):
            report(found)

    sys.unraisablehook = filtered
    try:
        yield
    finally:
        sys.unraisablehook = report


def tls_protocol(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    handshake_timeout_s: int,
    on_failure: Callable[[BaseException], None] = lambda _: None,
    response_fields: Headers = (),
) -> asyncio.BaseProtocol:
    """Return `protocol` behind the server side of TLS, wired as asyncio does it.

    `on_failure` gets the exception of a handshake that failed. `response_fields` belong to each response, and are the
    transport's extra info RESPONSE_FIELDS.
    """

    def end(handshake: "asyncio.Future[None]") -> None:
        error = None if handshake.cancelled() else handshake.exception()
        if error is not None:
            on_failure(error)

    # asyncio sets this future after the handshake. The proxy needs only the protocol's `connection_made`.
    handshake = loop.create_future()
    handshake.add_done_callback(end)
    return SmallBufferTls(
        loop, protocol, context, handshake, response_fields, server_side=True,
        ssl_handshake_timeout=handshake_timeout_s,
    )  # fmt: skip
