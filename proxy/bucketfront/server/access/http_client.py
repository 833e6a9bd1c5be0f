"""The HTTP client for other services than S3: an identity provider for its keys, an app for its decision, a peer."""

import os
from collections.abc import Mapping

import aiohttp

from bucketfront.errors import AccessUnavailable

MAX_CONNECTIONS = 64


def shown(url: str) -> str:
    """Return a URL for messages: its query may be a secret (docs/invariants.md#secrets-stay-in)."""
    return url.partition("?")[0]


def _reason(error: Exception) -> str:
    """Return why there is no response. A message of aiohttp may quote what an app repeats of a client's credentials."""
    match error:
        case TimeoutError():
            return "it took too long"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "its certificate does not verify, or it does not speak TLS"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno or 0  # that of a name that the DNS does not have is negative
            return os.strerror(number) if number > 0 else "no connection"
        case aiohttp.ClientResponseError():
            return "the response is not HTTP"
        case _:
            return type(error).__name__


class HttpClient:
    """Sends GETs, each of which takes `timeout_s` at most. It follows no redirect, and keeps no cookie."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, fields: Mapping[str, str], max_bytes: int) -> tuple[int, bytes]:
        """Return the status and at most `max_bytes` of the body. Raises AccessUnavailable."""
        if self._session is None:  # it belongs to the running loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        try:
            async with self._session.get(url, headers=fields, allow_redirects=False) as response:
                body = b""
                while len(body) < max_bytes and (chunk := await response.content.readany()):
                    body += chunk
                return response.status, body[:max_bytes]
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise AccessUnavailable(f"{shown(url)} did not respond: {_reason(error)}") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
