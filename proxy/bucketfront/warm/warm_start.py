"""A warm start: an empty cache is filled with what a peer holds, while load balancers still send no requests."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, ValidationError

from bucketfront.config.warm_start_settings import WarmStartSettings
from bucketfront.errors import AccessUnavailable, BadPath, NoSuchMount, ProxyError
from bucketfront.server.access.http_client import HttpClient
from bucketfront.warm.item import Item, named
from bucketfront.warm.job import JobState
from bucketfront.warm.manifest import Wanted
from bucketfront.warm.places import Places
from bucketfront.warm.registry import JobRegistry, Wish

REQUEST_TIMEOUT_S = 30.0  # for a page, of which the peer writes thousands a second
MAX_PAGE_BYTES = 16 << 20  # a page has a thousand objects, with paths of 1 KiB each
_LIMIT = MAX_PAGE_BYTES + 1

log = logging.getLogger("bucketfront")


class PeerFailed(ProxyError):
    """The peer does not say what it holds."""


class _PeerObject(BaseModel):
    model_config = ConfigDict(frozen=True)

    path: str
    range: str | None


class _Page(BaseModel):
    """A page of `GET /api/v1/export`, as far as it counts here. A newer peer may send more."""

    model_config = ConfigDict(frozen=True)

    objects: tuple[_PeerObject, ...]
    cursor: str | None


class WarmStart:
    """Fills the cache by jobs, one for each page of the peer's list. `filled` and `failed` count objects."""

    def __init__(self, settings: WarmStartSettings, jobs: JobRegistry) -> None:
        self._settings = settings
        self._jobs = jobs
        self.filled = 0
        self.failed = 0
        self.outside = 0  # paths that lead to no mount of this proxy

    async def run(self) -> None:
        """Return once the cache has what the peer holds, or is full, or if that fails or takes too long."""
        peer = self._settings.peer
        try:
            async with asyncio.timeout(self._settings.timeout):
                end = await self._fill()
        except TimeoutError:
            end = "warm_start.timeout is over"
        except ProxyError as error:
            log.warning("the warm start ends early: %s", error)
            end = "it ended early"
        log.info(
            "warm start from %s: %d objects filled, %d failed, %d below no mount; %s",
            *(peer, self.filled, self.failed, self.outside, end),
        )

    async def _fill(self) -> str:
        """Fill page by page. Return why it ended. Raises PeerFailed, TooManyJobs."""
        async for objects in self._pages():
            items = list(self._items(objects, self._jobs.places))
            if not items:
                continue
            job = self._jobs.start(Wish(tuple(items), rate=self._settings.rate, follows=False))
            try:
                await self._jobs.ended(job.id)
            except asyncio.CancelledError:
                await self._jobs.cancel(job.id)
                raise
            finally:
                self.filled += job.progress.filled
                self.failed += job.progress.failed
            if job.state is not JobState.DONE:
                return job.message or job.state.value
        return "all of it"

    def _items(self, objects: tuple[_PeerObject, ...], places: Places) -> Iterator[Item]:
        for one in objects:
            try:
                yield from named([Wanted(one.path, one.range)], places)
            except (BadPath, NoSuchMount):
                self.outside += 1

    async def _pages(self) -> AsyncIterator[tuple[_PeerObject, ...]]:
        """Yield what the peer holds, the most used first. Raises PeerFailed."""
        token = self._settings.token
        fields: dict[str, str] = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
        client = HttpClient(REQUEST_TIMEOUT_S)
        try:
            cursor: str | None = ""
            while cursor is not None:
                page = await self._page(client, fields, cursor)
                yield page.objects
                cursor = page.cursor
        finally:
            await client.close()

    async def _page(self, client: HttpClient, fields: Mapping[str, str], cursor: str) -> _Page:
        """Return the page at a cursor, the first one for an empty one. Raises PeerFailed."""
        url = self._settings.peer.rstrip("/") + "/api/v1/export"
        try:
            status, body = await client.get(f"{url}?{urlencode({'cursor': cursor})}" if cursor else url, fields, _LIMIT)
            if status != HTTPStatus.OK:
                raise PeerFailed(f"{url} answered {status}; see warm_start.peer and warm_start.token")
            if len(body) == _LIMIT:
                raise PeerFailed(f"{url} sends pages of more than {MAX_PAGE_BYTES} bytes")
            return _Page.model_validate_json(body)
        except AccessUnavailable as error:
            raise PeerFailed(str(error)) from error
        except ValidationError as error:
            raise PeerFailed(f"{url} is no admin port of bucketfront") from error
