"""Accepting connections up to a bound: those beyond it get a 503, and the process keeps descriptors to go on (I21).

asyncio's server accepts all that there are before it looks at one of them, and rests for a second, each listener of the
process, when descriptors have run out. TLS is set up here as well: with asyncio's buffers for it a client that does not
read costs a megabyte (I19).
"""

import asyncio
import json
import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import hdrs, web

from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.server.http1.aiohttp_private import AiohttpSite, serialize_head, tls_protocol
from bucketfront.server.telemetry.exchange import fields_of_all

AT_ONCE = 64  # connections accepted in one turn of the loop
BACKLOG = 1024  # connections that the kernel holds until they are accepted
PAUSE = 0.1  # seconds until the next try after accepting failed
LEAVING = 16  # refused connections that may take their time to go; what comes then is closed at once
LINGER = 1.0  # seconds for a refused client to send its request, and again to read the answer
HANDSHAKE = 10  # seconds for that of TLS (I20)
RETRY_AFTER = 1  # seconds
UNSENT = 60.0  # seconds that a client's kernel may take nothing of what is sent to it: longer than any other patience

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class ConnectionLimit:
    """Who may come in: `limit` connections at a time; `refused` counts those turned away, `leaving` are still here."""

    limit: int
    open: int = 0
    leaving: int = 0
    refused: int = 0

    def came(self) -> None:
        self.open += 1

    def left(self) -> None:
        self.open -= 1

    def turned_away(self) -> None:
        self.leaving += 1

    def gone(self) -> None:
        self.leaving -= 1


class BoundedSite(AiohttpSite):
    """aiohttp's site, with an accept loop of our own. `gate` counts its connections, from accept to close."""

    def __init__(
        self,
        runner: web.BaseRunner,
        host: str,
        port: int,
        gate: ConnectionLimit,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(runner, host, port, ssl_context=ssl_context, backlog=BACKLOG)
        self._tls = ssl_context
        self._gate = gate
        self._listeners: list[socket.socket] = []
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        self._beginning: set[asyncio.Task[None]] = set()
        self._is_failing = False

    async def start(self) -> None:
        """Raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        for bound in await self.bind():
            listener = bound.dup()
            self._listeners.append(listener)
            listener.setblocking(False)
            listener.listen(BACKLOG)
            loop.add_reader(listener, self._accept, listener)

    async def stop(self) -> None:
        """Accept nothing more. What is accepted is brought to where aiohttp knows of it."""
        for timer in self._timers.values():
            timer.cancel()
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners.clear()
        await asyncio.gather(*self._beginning)
        await super().stop()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(listener, error)
                return
            self._is_failing = False
            self._take(accepted)

    def _rest(self, listener: socket.socket, error: OSError) -> None:
        """No descriptor is left, or no memory: the connection stays in the backlog, and the loop must not spin."""
        if not self._is_failing:
            log.error("accepting connections failed, going on soon: %s", error.strerror)
        self._is_failing = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        self._timers[listener] = loop.call_later(PAUSE, loop.add_reader, listener, self._accept, listener)

    def _take(self, accepted: socket.socket) -> None:
        gate = self._gate
        if gate.open < gate.limit:
            gate.came()
            self._begin(self.connection_factory, _Counted(accepted, gate.left))
            return
        gate.refused += 1
        if gate.leaving < LEAVING:
            gate.turned_away()
            self._begin(_Refusal, _Counted(accepted, gate.gone))
        else:
            _refuse_at_once(accepted, is_plain=self._tls is None)

    def _begin(self, protocol: Callable[[], asyncio.BaseProtocol], accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        accepted.setblocking(False)
        # asyncio waits for ever until what a closed transport holds is taken (I20).
        with suppress(OSError):  # it left already
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNSENT))
        task = loop.create_task(self._connect(protocol, accepted))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _connect(self, protocol: Callable[[], asyncio.BaseProtocol], accepted: socket.socket) -> None:
        loop, context = asyncio.get_running_loop(), self._tls
        made = protocol if context is None else lambda: tls_protocol(loop, protocol(), context, HANDSHAKE)
        try:
            await loop.connect_accepted_socket(made, accepted)
        except OSError:
            accepted.close()  # it left already


class _Counted(socket.socket):
    """A socket that tells when its descriptor is given back, whoever closes it, and whatever became of it before."""

    def __init__(self, accepted: socket.socket, on_close: Callable[[], None]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._on_close: Callable[[], None] | None = on_close

    def close(self) -> None:
        super().close()
        told, self._on_close = self._on_close, None
        if told is not None:
            told()


class _Refusal(asyncio.Protocol):
    """Answers the first request with 503 and parts: a client that has sent nothing yet might not expect an answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._has_answered = False
        self._timer = asyncio.get_running_loop().call_later(LINGER, self._answer)

    def data_received(self, data: bytes) -> None:
        if not self._has_answered:
            self._answer(has_body=not data.startswith(b"HEAD "))

    def connection_lost(self, exc: BaseException | None) -> None:
        del exc
        self._timer.cancel()

    def _answer(self, *, has_body: bool = True) -> None:
        self._has_answered = True
        self._timer.cancel()
        self._transport.write(refusal(has_body=has_body))
        if self._transport.can_write_eof():
            # RFC 9112 section 9.6: closing at once would reset the connection, and the client might lose our answer.
            self._transport.write_eof()
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._transport.abort)
        else:
            self._transport.close()


def _refuse_at_once(accepted: socket.socket, *, is_plain: bool) -> None:
    """Nothing is waited for, so that a crowd that is refused takes no descriptors."""
    with accepted:
        accepted.setblocking(False)
        try:
            if is_plain:
                accepted.send(refusal())
                accepted.recv(1 << 16)  # a request left unread would make a reset of the close
        except OSError:
            return  # it has left, or has sent nothing yet


def refusal(*, has_body: bool = True) -> bytes:
    """The answer to a client for whom there is no room: RFC 9110 section 15.6.4."""
    body = json.dumps({"error": "too many connections"}).encode() + b"\n"
    headers = fields_of_all(CacheStatus(Forward.BYPASS, detail="refused"), ())
    headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER)
    headers[hdrs.CONTENT_TYPE] = "application/json"
    headers[hdrs.CONTENT_LENGTH] = str(len(body))
    headers[hdrs.CACHE_CONTROL] = "no-store"
    headers[hdrs.DATE] = formatdate(int(time.time()), usegmt=True)
    headers[hdrs.CONNECTION] = "close"
    return serialize_head(HTTPStatus.SERVICE_UNAVAILABLE, headers) + (body if has_body else b"")
