"""One lookup of an object's metadata at a time, however many ask for it; its waiters each get a pin of their own."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from bucketfront.cache.entries.entry import Entry
from bucketfront.errors import OriginUnavailable, ProxyError
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LookupResult:
    """What a lookup found: an entry, and the origin's status (200, 206 or 304). `is_new`: it was not known before."""

    entry: Entry
    status: int
    is_new: bool = True


@dataclass(eq=False, slots=True)
class Lookup:
    """A running lookup.

    `is_invalidated`: a write or a purge came after it began. Its waiters get the result, and the cache does not keep
    it: no stale fill (docs/invariants.md#no-stale-fill).
    `conflicting_results`: results of invalidated lookups that ended since it began; None stands for a 404. They may
    be newer. `is_alone`: it has one waiter, and its result is not kept.
    """

    waiters: "list[asyncio.Future[LookupResult]]"
    is_invalidated: bool = False
    conflicting_results: list[Metadata | None] = field(default_factory=list)
    is_alone: bool = False
    on_end: Callable[[], None] | None = None

    def may_publish(self, found: Metadata | None) -> bool:
        """Whether others may get what it found."""
        if self.is_invalidated or self.is_alone:
            return False
        return all(
            found is None if doubt is None else found is not None and found.is_version(doubt)
            for doubt in self.conflicting_results
        )


Find = Callable[[Lookup], Coroutine[None, None, LookupResult]]


class Lookups:
    """`pin` and `unpin` are called for each waiter that got an entry, and once more for the lookup itself; and for the
    stale entry that a lookup is about, as long as it runs.
    """

    def __init__(self, pin: Callable[[Entry], None], unpin: Callable[[Entry], None]) -> None:
        self._pin = pin
        self._unpin = unpin
        self._running: dict[ObjectKey, Lookup] = {}
        self._tasks: set[asyncio.Task[LookupResult]] = set()
        self.started = 0  # lookups that went to the origin
        self.joined = 0  # requests that waited on another's lookup

    def is_running(self, key: ObjectKey) -> bool:
        return key in self._running

    async def wait(self, key: ObjectKey, find: Find, stale: Entry | None) -> LookupResult:
        """Join the running lookup of `key` or start one with `find`. The entry comes pinned: unpin it.

        Raises what `find` raised.
        """
        lookup = self._running.get(key)
        if lookup is None:
            lookup = self.start(key, find, stale)
        else:
            self.joined += 1
        return await self.learned(lookup)

    async def wait_alone(self, key: ObjectKey, find: Find, stale: Entry | None) -> LookupResult:
        """As `wait`, with a lookup that nobody else joins, and that is not kept."""
        lookup = Lookup([], is_alone=True)
        self._begin(key, lookup, find, stale)
        return await self.learned(lookup)

    async def learned(self, lookup: Lookup) -> LookupResult:
        """Wait for a running lookup, as `wait`."""
        waiter: asyncio.Future[LookupResult] = asyncio.get_running_loop().create_future()
        lookup.waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            # Cancelled between the lookup's end and our turn: the pin is ours to drop (I12).
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._unpin(waiter.result().entry)
            raise

    def start(
        self, key: ObjectKey, find: Find, stale: Entry | None, on_end: Callable[[], None] | None = None
    ) -> Lookup:
        """Begin a lookup that nobody has to wait for. `on_end` is called whatever becomes of it."""
        lookup = self._running[key] = Lookup([], on_end=on_end)
        self._begin(key, lookup, find, stale)
        return lookup

    def _begin(self, key: ObjectKey, lookup: Lookup, find: Find, stale: Entry | None) -> None:
        self.started += 1
        if stale is not None:
            # Before the lookup gets its turn, the entry might cool and come back as another object.
            self._pin(stale)
        task = asyncio.create_task(find(lookup), name=f"lookup {key}")
        self._tasks.add(task)
        # A callback, because a task that is cancelled before its first step never runs any of its own code.
        task.add_done_callback(lambda task: self._end(key, lookup, stale, task))

    def supersede(self, is_hit: Callable[[ObjectKey], bool]) -> None:
        """Nobody joins these any more, and what they find is not kept."""
        for key in [key for key in self._running if is_hit(key)]:
            self._running.pop(key).is_invalidated = True

    def doubt(self, key: ObjectKey, found: Metadata | None) -> None:
        """See `Lookup.conflicting_results`."""
        if (lookup := self._running.get(key)) is not None:
            lookup.conflicting_results.append(found)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end(self, key: ObjectKey, lookup: Lookup, stale: Entry | None, task: "asyncio.Task[LookupResult]") -> None:
        self._tasks.discard(task)
        if self._running.get(key) is lookup:
            del self._running[key]
        waiters = [waiter for waiter in lookup.waiters if not waiter.done()]
        error = OriginUnavailable("shutting down") if task.cancelled() else task.exception()
        if error is not None:
            for waiter in waiters:
                waiter.set_exception(error)
            if not isinstance(error, ProxyError):
                log.error("a lookup broke down", exc_info=error)
            elif not lookup.waiters:
                log.info("background lookup of %s: %s", key, error)
        else:
            learned = task.result()
            for waiter in waiters:
                self._pin(learned.entry)
                waiter.set_result(learned)
            self._unpin(learned.entry)
        if stale is not None:
            self._unpin(stale)
        if lookup.on_end is not None:
            lookup.on_end()
