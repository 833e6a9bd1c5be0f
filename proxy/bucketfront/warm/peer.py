"""What a peer holds, page by page, as its admin port exports it."""

from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bucketfront.config.warm_start_settings import WarmStartSettings
from bucketfront.errors import AccessUnavailable, ProxyError
from bucketfront.server.access.http_client import HttpClient

REQUEST_TIMEOUT_S = 30.0  # for a page, of which the peer writes thousands a second
MAX_PAGE_BYTES = 16 << 20  # a page has a thousand objects, with paths of 1 KiB each
MAX_PAGE_OBJECTS = 2000  # their paths are parsed in one turn of the event loop (docs/invariants.md#cost-of-a-request)
_LIMIT = MAX_PAGE_BYTES + 1


class PeerFailed(ProxyError):
    """The peer does not export what it holds. The message has the cure."""


class PeerObject(BaseModel):
    """An object, or a range of it, that the peer holds. `path` is as clients send it."""

    model_config = ConfigDict(frozen=True)

    path: str
    range: str | None


class PeerPage(BaseModel):
    """A page of `GET /api/v1/export`, as far as it counts here. A newer peer may send more."""

    model_config = ConfigDict(frozen=True)

    objects: tuple[PeerObject, ...] = Field(max_length=MAX_PAGE_OBJECTS)
    cursor: str | None


class Peer:
    """The peer of the settings. An async context manager, in whose block pages can be requested."""

    def __init__(self, settings: WarmStartSettings) -> None:
        self._url = settings.peer.rstrip("/") + "/api/v1/export"
        token = settings.token
        self._fields = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
        self._client = HttpClient(REQUEST_TIMEOUT_S)

    async def page_behind(self, cursor: str) -> PeerPage:
        """Return the page behind a cursor, the first one for an empty one. Raises PeerFailed."""
        url = self._url
        try:
            target = f"{url}?{urlencode({'cursor': cursor})}" if cursor else url
            status, body = await self._client.get(target, self._fields, _LIMIT)
            if status != HTTPStatus.OK:
                raise PeerFailed(f"{url} responded with {status}; see warm_start.peer and warm_start.token")
            if len(body) == _LIMIT:
                raise PeerFailed(f"{url} sends pages of more than {MAX_PAGE_BYTES} bytes")
            page = PeerPage.model_validate_json(body)
        except AccessUnavailable as error:
            raise PeerFailed(f"{error}; see warm_start.peer") from error
        except ValidationError as error:
            raise PeerFailed(f"{url} is no admin port of bucketfront; see warm_start.peer") from error
        if page.cursor == cursor:
            raise PeerFailed(f"{url} sends one page again and again")
        return page

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()
