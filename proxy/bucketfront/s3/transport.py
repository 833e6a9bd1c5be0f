"""aiobotocore's HTTP session, with aiohttp's defaults that matter set (I30)."""

from typing import Any

from aiobotocore.httpsession import AIOHTTPSession

READ_BUFFER = 512 << 10  # bytes: a body is taken over in pieces of up to twice this


class StrictHTTPSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    async def _get_session(self, proxy_url: str | None) -> "_Strict":
        session = await super()._get_session(proxy_url)
        # aiohttp repeats a request whose connection closed, a PUT with a body already read among them; there is
        # one layer of retries, and it is the client's.
        session._retry_connection = False  # noqa: SLF001 - it has no public name
        return _Strict(session)


class _Strict:
    """The one method that aiobotocore calls. A redirect is an answer: it is never followed (I29)."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def request(self, method: str, **options: Any) -> Any:
        return self._session.request(method, allow_redirects=False, read_bufsize=READ_BUFFER, **options)
