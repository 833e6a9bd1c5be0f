"""All warm jobs of this process, bounded in number. They end with the process."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from ulid import ULID

from bucketfront.cache import Cache
from bucketfront.errors import ProxyError
from bucketfront.http.path_rules import Rules
from bucketfront.task_set import TaskSet
from bucketfront.warm.allowance import Allowance
from bucketfront.warm.filler import Filler
from bucketfront.warm.following import Followed, Kind, follow
from bucketfront.warm.item import Item, ListObjects, listed
from bucketfront.warm.job import Job, JobParts, JobState, Progress
from bucketfront.warm.pace import Pace
from bucketfront.warm.places import Place, Places

MAX_RUNNING = 4  # each may hold 10,000 paths, and what its documents name
MAX_ENDED = 20  # that are remembered


class TooManyJobs(ProxyError):
    """No further job may run at present."""


class NoSuchJob(ProxyError):
    """No job of this process has the id, or it ended long ago."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a job is to fill: items, and all that S3 lists of the places. `rate` is in bytes a second.

    `hosts` are names in absolute URLs of playlists and sitemaps that stand for this proxy.
    """

    items: tuple[Item, ...] = ()
    below: tuple[Place, ...] = ()
    rate: int | None = None
    parallel: int = 4
    follows: bool = True
    hosts: frozenset[str] = frozenset()


class JobRegistry:
    """Starts jobs, and knows them by id. `part` is the size of a request to the origin in bytes."""

    def __init__(
        self,
        cache: Cache,
        lists: ListObjects,
        places: Places,
        rules: Rules,
        *,
        part: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.places = places
        self._cache = cache
        self._lists = lists
        self._rules = rules
        self._part = part
        self._clock = clock
        self._sleep = sleep
        self._jobs: OrderedDict[str, Job] = OrderedDict()  # the oldest first
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._tasks = TaskSet()
        self._parsing = asyncio.Lock()

    def adopt(self, places: Places, rules: Rules) -> None:
        """Begin further jobs with these mounts and rules. Those that run keep theirs."""
        self.places, self._rules = places, rules

    @property
    def jobs(self) -> Iterable[Job]:
        """Return all jobs that are known, the oldest first."""
        return self._jobs.values()

    def find(self, job_id: str) -> Job:
        """Return a job. Raises NoSuchJob."""
        job = self._jobs.get(job_id)
        if job is None:
            raise NoSuchJob(
                "there is no such job; jobs end with the process, and old ones are forgotten. Run the command again:"
                " what is fresh is skipped"
            )
        return job

    def start(self, wish: Wish) -> Job:
        """Begin a job, which goes on without the caller. Raises TooManyJobs."""
        running = [job for job in self.jobs if job.state is JobState.RUNNING]
        if len(running) >= MAX_RUNNING:
            raise TooManyJobs(f"{MAX_RUNNING} warm jobs are running; wait for one, or cancel it")
        ended = [job for job in self.jobs if job.state is not JobState.RUNNING]
        for job in ended[: max(0, len(ended) - MAX_ENDED + 1)]:
            del self._jobs[job.id]
        job = self._new_job(wish)
        self._jobs[job.id] = job
        run = self._runs[job.id] = self._tasks.start(job.run(), name=f"job {job.id}")
        run.add_done_callback(lambda _: self._runs.pop(job.id, None))
        return job

    async def ended(self, job_id: str) -> None:
        """Return once a job has ended, at once for one that is not known."""
        run = self._runs.get(job_id)
        if run is not None:
            await asyncio.wait({run})

    async def cancel(self, job_id: str) -> Job:
        """End a job, and return it once nothing of it goes on. One that has ended stays as it is. Raises NoSuchJob."""
        job = self.find(job_id)
        run = self._runs.get(job_id)
        if run is not None:
            run.cancel()
            await asyncio.wait({run})
            job.note_cancelled()  # a task that is cancelled before its first step runs none of its own code
        return job

    async def close(self) -> None:
        """End all jobs."""
        await self._tasks.close()

    def _new_job(self, wish: Wish) -> Job:
        places = self.places

        def following(kind: Kind, document: bytes, item: Item) -> Followed:
            return follow(kind, document, item, places, wish.hosts)

        filler = Filler(
            self._cache,
            self._rules,
            Pace(wish.rate),
            Allowance(self._cache.capacity),
            self._part,
            clock=self._clock,
            sleep=self._sleep,
        )
        lists = listed(wish.below, places, self._lists)
        parts = JobParts(wish.items, lists, filler, following, wish.follows, wish.parallel, self._clock)
        return Job(str(ULID()).lower(), parts, Progress(), self._parsing)
