"""One job: it fills items in the background, until all are done or it may not go on.

Theory of operation
-------------------
A job belongs to the proxy and not to the client that began it. It takes pages of a list as it needs them, and fills
up to `parallel` items at once. What a followed document names comes before the rest. So the memory of a job does not
depend on how many objects it fills. `Job.state` changes only in `_become`, by this table:

    RUNNING      DONE, FULL, CANCELLED, FAILED
    DONE         -
    FULL         -
    CANCELLED    -
    FAILED       -

All that it does at the origin counts for one client, WARM_CLIENT. Fair shares keep it from delaying clients
(docs/invariants.md#fair-share).
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from typing import Final

from bucketfront.errors import OriginError, OriginUnavailable, ProxyError, StoreError
from bucketfront.fair_share import acting_for
from bucketfront.keys import ObjectKey
from bucketfront.task_set import TaskSet
from bucketfront.warm.filler import Filler, Result, Verdict
from bucketfront.warm.following import MAX_DEPTH, MAX_LINKS, Followed, Kind, NotFollowed, kind_of
from bucketfront.warm.item import Item
from bucketfront.warm.pace import Meter

WARM_CLIENT: Final = "warm jobs"  # no address and no credential: those of a rule have a colon
MAX_FAILURES = 20  # that a job remembers with their reasons
MAX_WAITING = 2 * MAX_LINKS  # items of documents; a document that names more is not followed further
MAX_DOCUMENTS = 10_000  # that one job follows
MAX_REASON_CHARS = 300
MAX_FAILED_IN_A_ROW = 20  # because of the origin or the disk; a job does not run through its list in an outage

log = logging.getLogger(__name__)


class JobState(Enum):
    RUNNING = "running"
    DONE = "done"  # each item was tried
    FULL = "full"  # the cache holds no more
    CANCELLED = "cancelled"
    FAILED = "failed"  # the list could not be read on, the origin or the disk fails, or a bug


TRANSITIONS = {
    JobState.RUNNING: (JobState.DONE, JobState.FULL, JobState.CANCELLED, JobState.FAILED),
    JobState.DONE: (),
    JobState.FULL: (),
    JobState.CANCELLED: (),
    JobState.FAILED: (),
}


@dataclass(frozen=True, slots=True)
class FailedItem:
    path: str
    reason: str


@dataclass(slots=True)
class Progress:
    """What a job has done so far. Bytes are those that were wanted of objects."""

    objects_known: int = 0
    bytes_known: int = 0  # of the objects whose size is known
    filled: int = 0
    fresh: int = 0
    not_stored: int = 0
    failed: int = 0
    outside: int = 0  # references that lead out of the mounts
    documents: int = 0  # playlists and sitemaps that were followed
    bytes_filled: int = 0
    bytes_fresh: int = 0

    @property
    def objects_done(self) -> int:
        return self.filled + self.fresh + self.not_stored + self.failed


@dataclass(frozen=True, slots=True)
class JobParts:
    """What a job uses. `follow` runs in a thread. `fill` is that of a Filler, and `clock` is in seconds."""

    items: Sequence[Item]
    lists: AsyncGenerator[list[Item], None]  # further items, page by page
    filler: Filler
    follow: Callable[[Kind, bytes, Item], Followed]
    follows: bool
    parallel: int
    clock: Callable[[], float]


class Job:
    """A job that runs once `run` is called. `progress` and `state` may be read at any time."""

    def __init__(self, job_id: str, parts: JobParts, progress: Progress, parsing: asyncio.Lock) -> None:
        """`parsing` lets one document at a time be parsed, because its tree takes memory."""
        self.id = job_id
        self.state = JobState.RUNNING
        self.message = ""
        self.is_list_complete = False
        self._failed_in_a_row = 0
        self._is_full = False  # no further item begins
        self.progress = progress
        self.failures: list[FailedItem] = []
        self.outside_example: str | None = None
        self._parts = parts
        self._parsing = parsing
        self._waiting: deque[Item] = deque()  # the next one last
        self._followed: set[int] = set()  # hashes of the keys of documents, so that a circle ends
        self._tasks = TaskSet()
        self._running: set[asyncio.Task[None]] = set()
        self._busy: set[ObjectKey] = set()  # the keys of those that run
        self.began_at = parts.clock()
        self.ended_at: float | None = None
        self._meter = Meter(self.began_at)
        self._add(parts.items)

    # --- what it has done ------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Return for how long it runs, or ran."""
        return (self._parts.clock() if self.ended_at is None else self.ended_at) - self.began_at

    @property
    def rate(self) -> float:
        """Return the bytes a second of late, or of the whole job once it has ended."""
        if self.ended_at is not None:
            return self.progress.bytes_filled / self.seconds if self.seconds > 0 else 0.0
        return self._meter.rate(self.progress.bytes_filled, self._parts.clock())

    @property
    def seconds_left(self) -> float | None:
        """Return an estimate, None while the list goes on or nothing is done yet."""
        progress, seconds = self.progress, self.seconds
        left = progress.objects_known - progress.objects_done
        if self.state is not JobState.RUNNING or not self.is_list_complete or not progress.objects_done:
            return None
        return left * seconds / progress.objects_done

    def note_bytes(self, count: int) -> None:
        """Count bytes that came."""
        self.progress.bytes_filled += count
        self._meter.note(self.progress.bytes_filled, self._parts.clock())

    # --- running ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Fill all items. A cancelled run leaves the state CANCELLED, and nothing of the job goes on."""
        try:
            with acting_for(WARM_CLIENT):
                async with aclosing(self._parts.lists):
                    await self._fill_all()
        except asyncio.CancelledError:
            self.note_cancelled()
            raise
        except OriginError as error:
            self._become(JobState.FAILED, f"the list of objects ended early: {error}")
        except Exception:
            log.exception("a warm job broke down")
            self._become(JobState.FAILED, "the job broke down; the log has the reason")
        finally:
            await self._tasks.close()

    def note_cancelled(self) -> None:
        """Note that nothing of the job goes on, if it has not ended before."""
        self._become(JobState.CANCELLED)

    async def _fill_all(self) -> None:
        while self.state is JobState.RUNNING:
            if self._running and (self._is_full or len(self._running) >= self._parts.parallel):
                await self._until_one_ends()
                continue
            if self._is_full:
                self._become(
                    JobState.FULL,
                    "the cache is full: a job replaces a tenth at most; see cache.max_size, cache.min_free",
                )
                return
            item = await self._next()
            if item is not None and item.key in self._busy:
                self._waiting.appendleft(item)  # named twice: the second one finds what the first one has brought
                await self._until_one_ends()
            elif item is not None:
                self._busy.add(item.key)
                self._running.add(self._tasks.start(self._fill(item), name=f"warm {item.key}"))
            elif self._running:
                await self._until_one_ends()  # it may be a document that names further items
            else:
                self._become(JobState.DONE)

    async def _until_one_ends(self) -> None:
        done, self._running = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a bug in `_fill` ends the job

    async def _next(self) -> Item | None:
        while not self._waiting and not self.is_list_complete:
            page = await anext(self._parts.lists, None)
            if page is None:
                self.is_list_complete = True
            else:
                self._add(page)
        return self._waiting.pop() if self._waiting else None

    def _add(self, items: Sequence[Item]) -> None:
        """Put items before those that wait."""
        self.progress.objects_known += len(items)
        self.progress.bytes_known += sum(item.size or 0 for item in items)
        self._waiting.extend(reversed(items))

    async def _fill(self, item: Item) -> None:
        try:
            await self._try(item)
        finally:
            self._busy.discard(item.key)

    async def _try(self, item: Item) -> None:
        try:
            result = await self._parts.filler.fill(item, self)
        except NotFollowed as error:
            self._note_failure(item.path, f"it is in the cache, and is not followed further: {error}")
            return
        except ProxyError as error:
            self._note_failure(item.path, str(error))
            self._failed_in_a_row += isinstance(error, OriginUnavailable | StoreError)
            if self._failed_in_a_row >= MAX_FAILED_IN_A_ROW:
                self._become(JobState.FAILED, f"{MAX_FAILED_IN_A_ROW} objects failed in a row, the last one: {error}")
            return
        if result.verdict is Verdict.NO_ROOM:
            self._is_full = True
            return
        self._failed_in_a_row = 0
        self._note(item, result)

    def _note(self, item: Item, result: Result) -> None:
        progress = self.progress
        if item.size is None:
            progress.bytes_known += result.count
        match result.verdict:
            case Verdict.FILLED:
                progress.filled += 1
            case Verdict.FRESH:
                progress.fresh += 1
                progress.bytes_fresh += result.count
            case _:
                progress.not_stored += 1

    def _note_failure(self, path: str, reason: str) -> None:
        self.progress.failed += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(FailedItem(path[:MAX_REASON_CHARS], reason[:MAX_REASON_CHARS]))

    # --- documents -------------------------------------------------------------------------------------------

    def follows(self, item: Item, content_type: str) -> bool:
        """Return whether an object is a document that this job is to follow, and has not followed yet."""
        is_wanted = self._parts.follows and item.depth < MAX_DEPTH and kind_of(item, content_type) is not None
        return is_wanted and hash(item.key) not in self._followed and len(self._followed) < MAX_DOCUMENTS

    async def follow(self, item: Item, content_type: str, read: Callable[[], Awaitable[bytes]]) -> None:
        """Put what a document names before the items that wait. `read` returns its bytes. Raises NotFollowed."""
        kind = kind_of(item, content_type)
        assert kind is not None
        self._followed.add(hash(item.key))
        try:
            async with self._parsing:
                found = await asyncio.to_thread(self._parts.follow, kind, await read(), item)
        except NotFollowed:
            if kind is Kind.SITEMAP:  # any other XML file is as good as a sitemap without locations
                return
            raise
        self.progress.documents += 1
        self.progress.outside += found.outside
        self.outside_example = self.outside_example or found.example
        room = MAX_WAITING - len(self._waiting)
        self._add(found.items[:room])
        if found.is_cut or len(found.items) > room:
            raise NotFollowed(
                f"the {kind.value} names more objects than a job follows at once; the first ones are filled"
            )

    def _become(self, state: JobState, message: str = "") -> None:
        if state not in TRANSITIONS[self.state]:
            return  # the first end counts
        self.state, self.message = state, message
        self.ended_at = self._parts.clock()
