"""The HTTP client of rules that need other services: an identity provider for its keys, an app for its decision."""

from collections.abc import Mapping

import aiohttp

from bucketfront.errors import AccessUnavailable

MAX_CONNECTIONS = 64


def shown(url: str) -> str:
    """Return a URL for messages: its query may be a secret (docs/invariants.md#secrets-stay-in)."""
    return url.partition("?")[0]


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
            raise AccessUnavailable(f"{shown(url)} did not respond: {error or type(error).__name__}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
