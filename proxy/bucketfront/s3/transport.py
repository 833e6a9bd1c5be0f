"""aiobotocore's HTTP session, with those defaults of aiohttp set that matter (docs/invariants.md#fail-closed)."""

from typing import Any

from aiobotocore.httpsession import AIOHTTPSession

READ_BUFFER_BYTES = 512 << 10  # a body arrives in pieces of up to twice this: few writes to the disk for a part


class StrictHTTPSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """A session without retries and redirects of its own."""

    async def _get_session(self, proxy_url: str | None) -> "_StrictSession":
        session = await super()._get_session(proxy_url)
        # aiohttp repeats a request whose connection closed, even a PUT whose body it has read already. Retries belong
        # to the client alone.
        session._retry_connection = False  # noqa: SLF001 - it has no public name
        return _StrictSession(session)


class _StrictSession:
    """The one method of aiohttp's session that aiobotocore calls. It follows no redirect.

    See docs/invariants.md#fixed-egress.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def request(self, method: str, **options: Any) -> Any:
        return self._session.request(method, allow_redirects=False, read_bufsize=READ_BUFFER_BYTES, **options)
