"""The refresh of changed objects: they are fetched before the next client requests them.

Theory of operation
-------------------
An event of S3 marks an object stale. `note` queues it here if the cache has all of the version before, and a client has
read some of that. So nothing is fetched that no client wanted, and an object that is not read any more is fetched once,
however often it changes. PARALLEL tasks take the queue in its order and end with it. They share one pace.

All of it is help, and no promise rests on it. What the queue has no room for, or what fails here, the next request of
the object fetches, because it is stale. All fetches count for the client of the warm jobs
(docs/invariants.md#fair-share).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum

from bucketfront.cache import Cache
from bucketfront.errors import ProxyError
from bucketfront.fair_share import acting_for
from bucketfront.http.path_rules import Rules
from bucketfront.keys import ObjectKey
from bucketfront.task_set import TaskSet
from bucketfront.warm.allowance import Allowance
from bucketfront.warm.filler import Filler, Verdict
from bucketfront.warm.item import Item
from bucketfront.warm.job import WARM_CLIENT
from bucketfront.warm.pace import Pace

MAX_QUEUED = 10_000  # objects; at 300 bytes each, and what waits longer is requested before its turn
PARALLEL = 4  # as many as a warm job fills at once, because a small object is mostly latency

log = logging.getLogger(__name__)


class RefreshOutcome(Enum):
    """What became of an object that an event has marked stale. The values are labels of metrics, so they are stable."""

    FETCHED = "fetched"
    FRESH = "fresh"  # a request of a client came first, or S3 has no other version
    UNREAD = "unread"  # the cache had a part of it at most, or no client has read that version
    NO_ROOM = "no-room"  # the cache is full, or too many objects wait
    NOT_STORED = "not-stored"  # a rule, its own fields or the disk keep it out of the cache
    FAILED = "failed"  # S3 or the disk failed, or the object is gone


_OUTCOMES = {
    Verdict.FILLED: RefreshOutcome.FETCHED,
    Verdict.FRESH: RefreshOutcome.FRESH,
    Verdict.NO_ROOM: RefreshOutcome.NO_ROOM,
    Verdict.NOT_STORED: RefreshOutcome.NOT_STORED,
}


class Refresher:
    """Fetches what `note` names. `rate` is in bytes a second, and `part` is the size of a request to the origin.

    `rules` returns the rules in force.
    """

    def __init__(
        self,
        cache: Cache,
        rules: Callable[[], Rules],
        rate: int,
        part: int,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cache = cache
        self._rules = rules
        self._pace = Pace(rate)
        self._part = part
        self._clock = clock
        self._sleep = sleep
        self._queue: OrderedDict[ObjectKey, None] = OrderedDict()
        self._tasks = TaskSet()
        self.outcomes = dict.fromkeys(RefreshOutcome, 0)

    def __len__(self) -> int:
        """Return how many objects wait."""
        return len(self._queue)

    def note(self, keys: Iterable[ObjectKey]) -> None:
        """Queue the objects that are worth a refresh. Their entries have just become stale."""
        for key in keys:
            if key in self._queue:
                continue
            held = self._cache.present(key, Item(key, key.key).spans)
            if held is None or not held.is_read:
                self.outcomes[RefreshOutcome.UNREAD] += 1
            elif len(self._queue) >= MAX_QUEUED:
                self.outcomes[RefreshOutcome.NO_ROOM] += 1
            else:
                self._queue[key] = None
        for _ in range(min(PARALLEL, len(self._queue)) - len(self._tasks)):
            self._tasks.start(self._run(), name="refresh of changed objects")

    async def wait(self) -> None:
        """Wait until nothing is queued, and nothing runs."""
        await self._tasks.wait()

    async def close(self) -> None:
        """End what runs, and forget what waits. `note` begins anew."""
        self._queue.clear()
        await self._tasks.close()

    async def _run(self) -> None:
        with acting_for(WARM_CLIENT):
            while self._queue:
                key, _ = self._queue.popitem(last=False)
                self.outcomes[await self._refresh(key)] += 1

    async def _refresh(self, key: ObjectKey) -> RefreshOutcome:
        if self._cache.present(key, lambda _: ()) is None:
            return RefreshOutcome.UNREAD  # it was evicted or purged while it waited
        # An account for each object, because a new version takes the place of the one before.
        allowance = Allowance(self._cache.capacity)
        filler = Filler(self._cache, self._rules(), self._pace, allowance, self._part, self._clock, self._sleep)
        try:
            return _OUTCOMES[(await filler.fill(Item(key, key.key), _NoJob())).verdict]
        except ProxyError as error:
            log.info("%s could not be refreshed, and the next request of it fetches it: %s", key, error)
        except Exception:
            log.exception("the refresh of an object broke down")
        return RefreshOutcome.FAILED


class _NoJob:
    """Implements `Owner` for objects that belong to no job. Documents are not followed."""

    def follows(self, item: Item, content_type: str) -> bool:  # noqa: ARG002 - of the Protocol
        return False

    async def follow(self, item: Item, content_type: str, read: Callable[[], Awaitable[bytes]]) -> None:
        raise NotImplementedError(f"{item}, {content_type} and {read} are followed by no job")

    def note_bytes(self, count: int) -> None:
        pass
