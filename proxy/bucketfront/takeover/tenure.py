"""All that passes to another process, in the order in which it can: listening sockets, uploads, and the cache."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bucketfront.admin.health import Health, Phase
from bucketfront.cache import CacheAssembly, hand_over, take_back
from bucketfront.errors import StoreError
from bucketfront.fleet.fleet import Fleet
from bucketfront.front_end.front_ends import FrontEnds
from bucketfront.keys import ObjectKey
from bucketfront.s3.upload.journal import UploadJournal
from bucketfront.server.generation import Generations
from bucketfront.server.http1.inherited_sockets import name_of
from bucketfront.server.http1.listener import Listener
from bucketfront.server.telemetry.live_feed import LiveFeed
from bucketfront.tus.manager import UploadManager
from bucketfront.warm.refresher import Refresher
from bucketfront.warm.registry import JobRegistry

SETTLE_S = 0.5  # for fetches that run to end in the cache, while new connections wait
SETTLE_STEP_S = 0.01

Forward = Callable[[Sequence[ObjectKey]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Tenure:
    """The parts of a running proxy that another process takes over. It implements `incumbent.Estate`.

    Front ends retire in a take-over: they have `responses_timeout` seconds for the responses that run. If the take-over
    fails, others start. `listener` is that for clients, which accepts connections itself until they do. `s3` is None
    without an S3 endpoint.
    """

    health: Health
    listener: Listener
    admin: Listener
    s3: Listener | None
    generations: tuple[Generations, ...]
    cache_assembly: CacheAssembly
    uploads: UploadManager
    journal: UploadJournal
    warm_jobs: JobRegistry
    refresher: Refresher | None
    live_feed: LiveFeed
    front_ends: FrontEnds | None
    fleet: Fleet | None
    responses_timeout: float

    @property
    def listeners(self) -> tuple[Listener, ...]:
        return (self.listener, self.admin) if self.s3 is None else (self.listener, self.admin, self.s3)

    @property
    def folder(self) -> int:
        return self.cache_assembly.store.folder.fd

    @property
    def refusal(self) -> str | None:
        phase = self.health.phase
        return None if phase in (Phase.SERVING, Phase.WARMING) else f"the running process is {phase.value}"

    def sockets(self) -> list[tuple[str, list[int]]]:
        found = [pair for listener in self.listeners for pair in listener.sockets]
        return [(name_of(place), [one.fileno() for one in sockets]) for place, sockets in found]

    def pause(self) -> None:
        self.health.phase = Phase.STOPPING
        for generations in self.generations:
            generations.fast_path.adopt(None)  # its prepared heads keep connections open
        for listener in self.listeners:
            listener.begin_to_drain()
            listener.pause()

    def resume(self) -> None:
        self.health.phase = Phase.SERVING
        for generations in self.generations:
            generations.fast_path.adopt(generations.present.plain)
        self.listener.resume(accepts=self.front_ends is None or not self.front_ends.processes)
        for listener in self.listeners[1:]:
            listener.resume()

    async def release(self, forward: Forward) -> None:
        if self.front_ends is not None:
            await self.front_ends.retire(self.responses_timeout)
        await self._settle()
        await self.warm_jobs.close()
        if self.refresher is not None:
            await self.refresher.close()
        await self.uploads.hand_over()
        await self.journal.hand_over()
        if self.fleet is not None:
            await self.fleet.pause()
        await hand_over(self.cache_assembly, forward)

    async def _settle(self) -> None:
        """Wait until no lookup and no part fetch runs, or for SETTLE_S, because what they fetch is stored then."""
        running, fetches = self.cache_assembly.lookups.tasks, self.cache_assembly.fetch_context.stats.fetches
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (running or fetches) and loop.time() < began + SETTLE_S:  # noqa: ASYNC110 - there is no such event
            await asyncio.sleep(SETTLE_STEP_S)

    async def take_back(self) -> None:
        await take_back(self.cache_assembly)
        if self.fleet is not None:
            await self.fleet.start()
        await self.journal.take_back(self.folder)
        await self.uploads.take_back()
        if self.front_ends is not None:
            await self.front_ends.replace_retired()
            if self.front_ends.processes:
                self.listener.pause()

    def give_away(self) -> None:
        for listener in self.listeners:
            listener.give_away()
        self.live_feed.close()  # their clients connect again, and find the new process

    async def invalidate(self, keys: Sequence[ObjectKey]) -> None:
        if not self.cache_assembly.store.ownership.is_held:
            raise StoreError("this process owns the cache no more")
        await self.cache_assembly.cache.invalidate(*keys)
