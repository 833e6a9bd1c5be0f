"""A warm start: an empty cache is filled with what a peer holds, while load balancers still send no requests."""

import asyncio
import logging
from collections.abc import Iterator

from bucketfront.config.warm_start_settings import WarmStartSettings
from bucketfront.errors import BadPath, NoSuchMount, ProxyError
from bucketfront.warm.item import Item, named
from bucketfront.warm.job import JobState
from bucketfront.warm.manifest import Wanted
from bucketfront.warm.peer import Peer, PeerFailed, PeerObject, PeerPage
from bucketfront.warm.places import Places
from bucketfront.warm.registry import JobRegistry, Wish

log = logging.getLogger("bucketfront")


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
        async with Peer(self._settings) as peer:
            cursor: str | None = ""
            while cursor is not None:
                page = await peer.page_behind(cursor)
                if (end := await self._fill_page(page)) is not None:
                    return end
                cursor = page.cursor
        return "all of it"

    async def _fill_page(self, page: PeerPage) -> str | None:
        """Return why no further page is to be filled. Returns None if one is. Raises PeerFailed, TooManyJobs."""
        items = tuple(self._items(page.objects, self._jobs.places))
        if page.objects and not items:
            raise PeerFailed("no path of a page leads to a mount: warm_start.peer must have the same mounts")
        if not items:
            return None
        job = self._jobs.start(Wish(items, rate=self._settings.rate, follows=False))
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
        if job.progress.failed == len(items):  # further pages would cost as many requests, and bring as little
            reason = job.failures[0].reason
            raise PeerFailed(
                f"no object of a page could be filled: {reason}; warm_start.peer must have the same mounts"
            )
        return None

    def _items(self, objects: tuple[PeerObject, ...], places: Places) -> Iterator[Item]:
        for one in objects:
            try:
                yield from named([Wanted(one.path, one.range)], places)
            except (BadPath, NoSuchMount):
                self.outside += 1
