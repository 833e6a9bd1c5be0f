"""Single flight of lookups: one request about an object's metadata at a time, shared by all that wait for it.

`cache.fetch.fill` does the same for bytes.

Theory of operation
-------------------
A lookup is a task that sends a request to the origin and returns an entry. It belongs to no waiter, and each waiter
gets a pin of its own. `Lookup.state` changes only in `_advance`, by this table:

                  INVALIDATE    END
    SHARED        INVALIDATED   ENDED
    PRIVATE       PRIVATE       ENDED
    INVALIDATED   INVALIDATED   ENDED
    ENDED         ENDED         ENDED

At most one lookup of a key is SHARED, and others join that one. INVALIDATE is a write or a purge that comes after the
lookup began. Its waiters still get the result, and the cache does not keep it: no stale fill
(docs/invariants.md#no-stale-fill). The lookup that is SHARED when an INVALIDATED one ends gets its
result as a conflicting one.
If the two differ, the second one is not published either, because it may be the older one.

A purge by tag cannot name the lookups that it invalidates, because only the response has the tags. `check_tags`
invalidates such a lookup once the response is there. A request that joined it after the purge looks again.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.purged_tags import PurgedTags
from bucketfront.errors import OriginUnavailable, ProxyError
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey
from bucketfront.task_set import TaskSet

log = logging.getLogger(__name__)


class LookupState(Enum):
    SHARED = auto()  # others may join, and the result may be published
    PRIVATE = auto()  # it has one waiter, and its result is not published
    INVALIDATED = auto()  # no request joins it, and its result is not published
    ENDED = auto()


class _Event(Enum):
    INVALIDATE = auto()
    END = auto()


TRANSITIONS = {
    LookupState.SHARED: {_Event.INVALIDATE: LookupState.INVALIDATED, _Event.END: LookupState.ENDED},
    LookupState.PRIVATE: {_Event.INVALIDATE: LookupState.PRIVATE, _Event.END: LookupState.ENDED},
    LookupState.INVALIDATED: {_Event.INVALIDATE: LookupState.INVALIDATED, _Event.END: LookupState.ENDED},
    LookupState.ENDED: dict.fromkeys(_Event, LookupState.ENDED),
}


@dataclass(frozen=True, slots=True)
class LookupResult:
    """An entry, and the status of the origin's response (200, 206 or 304). `is_new`: the entry was just created."""

    entry: Entry
    status: int
    is_new: bool = True


@dataclass(eq=False, slots=True)
class Lookup:
    """A running lookup.

    `conflicting_results` are those of invalidated lookups that ended since it began, None for a 404. `on_end` is
    called at its end in any case. `written_etag` is that of the write which it follows, if there is one. `began_at` is
    the number of the last purge by tag before it began. If a later one had a tag of the response, `is_outdated` is
    true.
    """

    state: LookupState = LookupState.SHARED
    waiters: "list[asyncio.Future[LookupResult]]" = field(default_factory=list)
    conflicting_results: list[Metadata | None] = field(default_factory=list)
    on_end: Callable[[], None] | None = None
    written_etag: str | None = None
    began_at: int = 0
    is_outdated: bool = False

    @property
    def is_invalidated(self) -> bool:
        return self.state is LookupState.INVALIDATED

    def may_publish(self, found: Metadata | None) -> bool:
        """Return whether later requests may get this result. None stands for a 404."""
        if self.state is not LookupState.SHARED:
            return False
        return all(
            found is None if other is None else found is not None and found.is_version(other)
            for other in self.conflicting_results
        )


Run = Callable[[Lookup], Coroutine[None, None, LookupResult]]


class Lookups:
    """The running lookups. `pin` and `unpin` hold entries: once for each waiter, and once for the lookup itself.

    The stale entry that a lookup revalidates is pinned as long as the lookup runs.
    """

    def __init__(self, pin: Callable[[Entry], None], unpin: Callable[[Entry], None]) -> None:
        self._pin = pin
        self._unpin = unpin
        self._shared: dict[ObjectKey, Lookup] = {}
        self._running: dict[Lookup, None] = {}  # all of them, in the order of their start
        self._purged_tags = PurgedTags()
        self.tasks = TaskSet()
        self.started = 0  # lookups that were started to the origin
        self.joined = 0  # requests that waited for the lookup of another one

    def is_running(self, key: ObjectKey) -> bool:
        """Return whether a request for `key` would join a lookup."""
        return key in self._shared

    async def join_or_start(self, key: ObjectKey, run: Run, stale: Entry | None) -> LookupResult | None:
        """Join the shared lookup of `key`, or start one with `run`. The caller must unpin the entry of the result.

        Returns None if the response has a tag that was purged after the lookup began and before this call, so that the
        caller must look again. Raises what `run` raises.
        """
        lookup = self._shared.get(key)
        if lookup is None:
            lookup = self.start(key, run, stale)
        else:
            self.joined += 1
        joined_at = self._purged_tags.number
        result = await self.result(lookup)
        if lookup.is_outdated and joined_at > lookup.began_at:
            self._unpin(result.entry)
            return None
        return result

    async def run_private(self, key: ObjectKey, run: Run, stale: Entry | None) -> LookupResult:
        """Run a private lookup with `run`, otherwise as `join_or_start`."""
        lookup = Lookup(LookupState.PRIVATE)
        self._begin(key, lookup, run, stale)
        return await self.result(lookup)

    async def result(self, lookup: Lookup) -> LookupResult:
        """Wait for a running lookup, and return its result as `join_or_start` does."""
        waiter: asyncio.Future[LookupResult] = asyncio.get_running_loop().create_future()
        lookup.waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            # The waiter may be cancelled after the lookup ended: then this method must end its pin.
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._unpin(waiter.result().entry)
            raise

    def start(
        self,
        key: ObjectKey,
        run: Run,
        stale: Entry | None,
        on_end: Callable[[], None] | None = None,
        written_etag: str | None = None,
    ) -> Lookup:
        """Start a shared lookup of `key`, which has none. It needs no waiter."""
        assert key not in self._shared
        lookup = self._shared[key] = Lookup(on_end=on_end, written_etag=written_etag)
        self._begin(key, lookup, run, stale)
        return lookup

    def written_etag(self, key: ObjectKey) -> str | None:
        """Return the ETag of the write that the shared lookup of a key follows. Returns None without one."""
        lookup = self._shared.get(key)
        return None if lookup is None else lookup.written_etag

    def running(self) -> list[ObjectKey]:
        """Return the keys of the shared lookups."""
        return list(self._shared)

    def invalidate(self, keys: Iterable[ObjectKey]) -> None:
        """Invalidate the shared lookups of these keys."""
        for key in keys:
            if (lookup := self._shared.pop(key, None)) is not None:
                _advance(lookup, _Event.INVALIDATE)

    def invalidate_all(self) -> None:
        """Invalidate all shared lookups, because none may be published."""
        self.invalidate(self.running())

    def purge_tags(self, tags: Iterable[str]) -> None:
        """Let no running lookup publish an object that has one of these tags."""
        self._purged_tags.add(tags)
        self._forget_tags()

    def check_tags(self, key: ObjectKey, lookup: Lookup, tags: Callable[[], Collection[str]]) -> None:
        """Invalidate a lookup if a tag of its response was purged since it began. `tags` returns those."""
        if lookup.state is not LookupState.SHARED or not self._purged_tags.number > lookup.began_at:
            return
        if self._purged_tags.has_purged(tags(), lookup.began_at):
            lookup.is_outdated = True
            self.invalidate([key])

    def add_conflict(self, key: ObjectKey, found: Metadata | None) -> None:
        """Note the result of an invalidated lookup of `key` with the shared one, if there is one."""
        if (lookup := self._shared.get(key)) is not None:
            lookup.conflicting_results.append(found)

    async def close(self) -> None:
        """Cancel all lookups and wait for their end."""
        await self.tasks.close()

    def _begin(self, key: ObjectKey, lookup: Lookup, run: Run, stale: Entry | None) -> None:
        self.started += 1
        self._running[lookup] = None
        lookup.began_at = self._purged_tags.number
        if stale is not None:
            # Before the lookup gets its turn, the entry might leave memory and return as another object.
            self._pin(stale)
        task = self.tasks.start(run(lookup), name=f"lookup {key}")
        # A callback, because a task that is cancelled before its first step never runs any of its own code.
        task.add_done_callback(lambda task: self._end(key, lookup, stale, task))

    def _end(self, key: ObjectKey, lookup: Lookup, stale: Entry | None, task: "asyncio.Task[LookupResult]") -> None:
        if lookup.state is LookupState.SHARED:
            del self._shared[key]
        _advance(lookup, _Event.END)
        del self._running[lookup]
        if self._purged_tags:
            self._forget_tags()
        waiters = [waiter for waiter in lookup.waiters if not waiter.done()]
        error = OriginUnavailable("shutting down") if task.cancelled() else task.exception()
        if error is not None:
            for waiter in waiters:
                waiter.set_exception(error)
            if not isinstance(error, ProxyError):
                log.error("a lookup raised an unexpected error", exc_info=error)
            elif not lookup.waiters:
                log.info("background lookup of %s: %s", key, error)
        else:
            result = task.result()
            for waiter in waiters:
                self._pin(result.entry)
                waiter.set_result(result)
            self._unpin(result.entry)
        if stale is not None:
            self._unpin(stale)
        if lookup.on_end is not None:
            lookup.on_end()

    def _forget_tags(self) -> None:
        oldest = next(iter(self._running), None)
        self._purged_tags.forget(self._purged_tags.number if oldest is None else oldest.began_at)


def _advance(lookup: Lookup, event: _Event) -> None:
    lookup.state = TRANSITIONS[lookup.state][event]
