"""aiobotocore's HTTP session, with those defaults of aiohttp set that matter (docs/invariants.md#fail-closed).

Theory of operation
-------------------
An origin, or a load balancer before it, closes connections that were idle for a while. A request that is on its way at
that moment gets a reset or an end of the connection in place of a response. That does not show the origin's health, so
it must cost neither a retry nor the circuit breaker's trust.

- A read takes any connection of the pool. If that connection was idle before and ended without a byte of a response,
  the read is sent once more, on a new connection: others of the pool are probably as old.
- A connection whose end has arrived, or any byte since its last response, is not used again (`connector`).
- A write is not sent again here, because its outcome is unknown and its body may be consumed. It only takes connections
  that were in use a moment ago, from a pool of their own, or a new one.

`Pool` names the three kinds of connections.
"""

import asyncio
import ssl
from contextvars import ContextVar
from enum import Enum, auto
from functools import partial
from types import SimpleNamespace
from typing import Any, Self

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession

from bucketfront.s3.connector import Connector
from bucketfront.s3.sdk_response import SdkResponse
from bucketfront.s3.trust import client_context

READ_BUFFER_BYTES = 512 << 10  # a body arrives in pieces of up to twice this: few writes to the disk for a part
# S3 allows 2 KiB of user metadata, which are at most 1024 fields. Some compatible servers allow more in one field.
MAX_FIELDS = 1152
MAX_FIELD_BYTES = 64 << 10
# Less than any server's idle timeout, and more than the time between two parts of an upload.
WRITE_IDLE_TIMEOUT_S = 0.5
_REPEATABLE = frozenset({"GET", "HEAD"})
_REQUEST_TIMEOUT = 408  # some load balancers send it as the last word on an idle connection (RFC 9110 section 15.5.9)


accept_encoding: ContextVar[str] = ContextVar("accept_encoding", default="identity")
"""The Accept-Encoding of the task's requests. aiobotocore has its own, and sets it after the request is signed. So it
is no part of the signature, and an HTTP proxy may change it."""


class Pool(Enum):
    """Which connections a request may use."""

    KEPT = auto()  # idle for at most origin.keep_alive_timeout
    RECENT = auto()  # idle for at most WRITE_IDLE_TIMEOUT_S
    NEW = auto()  # opened for the request, and closed after it


class StrictHTTPSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """A session without retries and redirects of its own. It repeats reads whose connection was stale."""

    def __init__(self, *, connector_args: dict[str, Any], **options: Any) -> None:
        super().__init__(connector_args=connector_args, **options)
        idle = connector_args["keepalive_timeout"]
        self._pools = {
            Pool.KEPT: _PoolSession(idle, **options),
            Pool.RECENT: _PoolSession(min(idle, WRITE_IDLE_TIMEOUT_S), **options),
            Pool.NEW: _PoolSession(0, **options),
        }

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for pool in self._pools.values():
            await pool.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        for pool in self._pools.values():
            await pool.__aexit__(*raised)
        await super().__aexit__(*raised)

    async def send(self, request: Any) -> Any:
        # The first request of a pool makes its connector, and all requests of a client go to one endpoint.
        for pool in self._pools.values():
            pool.is_tls = request.url.startswith("https:")
        return await super().send(request)

    async def _get_session(self, proxy_url: str | None) -> "_StrictSession":
        return _StrictSession({name: partial(pool.session, proxy_url) for name, pool in self._pools.items()})


class _PoolSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """The aiohttp sessions of one pool. They keep connections for `idle_timeout` seconds, or not at all if it is 0."""

    def __init__(self, idle_timeout: float, **options: Any) -> None:
        kept: dict[str, Any] = {"keepalive_timeout": idle_timeout} if idle_timeout else {"force_close": True}
        super().__init__(connector_args=kept, **options)
        self._trace = aiohttp.TraceConfig()
        self._trace.on_connection_reuseconn.append(_note_reuse)
        self._trace.freeze()
        self.is_tls = True

    def _build_verify_context(self) -> ssl.SSLContext:
        # aiobotocore trusts the list of the SDK or a bundle in its place, and not the system. It calls this for plain
        # HTTP as well, where the files need not be read: this context trusts no authority.
        if not self.is_tls:
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return client_context(self._verify if isinstance(self._verify, str) else None)

    async def _create_connector(self, proxy_url: str | None) -> Connector:
        # The contexts read files.
        context, proxy_context = await asyncio.to_thread(self._build_ssl_contexts, proxy_url)
        return Connector(
            limit=self._max_pool_connections, ssl=context, proxy_ssl_context=proxy_context, **self._connector_args
        )

    async def session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        """Return the session for requests through the HTTP proxy at `proxy_url`, or without one."""
        session: aiohttp.ClientSession = await self._get_session(proxy_url)
        if self._trace not in session.trace_configs:
            session.trace_configs.append(self._trace)
            # aiohttp repeats a request whose connection closed, even a PUT whose body it has read already.
            session._retry_connection = False  # noqa: SLF001 - it has no public name
            session._response_class = SdkResponse  # noqa: SLF001 - aiobotocore's constructor does not pass it on
        return session


class _Attempt:
    """One sending of a request. aiohttp hands it to `_note_reuse`."""

    was_reused = False


async def _note_reuse(
    _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.was_reused = True


class _StrictSession:
    """The one method of aiohttp's session that aiobotocore calls. It follows no redirect.

    See docs/invariants.md#fixed-egress.
    """

    def __init__(self, pools: dict[Pool, Any]) -> None:
        self._pools = pools

    async def request(self, method: str, **options: Any) -> aiohttp.ClientResponse:
        if method not in _REPEATABLE or options.get("data"):
            return await self._send(Pool.RECENT, _Attempt(), method, options)
        attempt = _Attempt()
        try:
            response = await self._send(Pool.KEPT, attempt, method, options)
        except aiohttp.ClientConnectionError as error:
            if not attempt.was_reused or not _is_stale(error):
                raise
        else:
            if not attempt.was_reused or response.status != _REQUEST_TIMEOUT:
                return response
            response.close()
        return await self._send(Pool.NEW, _Attempt(), method, options)

    async def _send(
        self, pool: Pool, attempt: _Attempt, method: str, options: dict[str, Any]
    ) -> aiohttp.ClientResponse:
        session = await self._pools[pool]()
        options["headers"]["Accept-Encoding"] = accept_encoding.get()
        response: aiohttp.ClientResponse = await session.request(
            method,
            allow_redirects=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            trace_request_ctx=attempt,
            **options,
        )
        return response


def _is_stale(error: aiohttp.ClientConnectionError) -> bool:
    """Return whether an idle connection ended before a response began.

    A timeout is the origin's: the connection works. ServerDisconnectedError has the head that came in part.
    """
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)
    return not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError)
