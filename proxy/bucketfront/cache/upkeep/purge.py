"""Purges by key and by prefix: they remove entries or mark them stale (docs/invariants.md#no-stale-fill)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import chain

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.entry_table import PAGE_ENTRIES, EntryTable
from bucketfront.cache.entries.negative_cache import NegativeCache
from bucketfront.cache.entries.removals import RemovalReason
from bucketfront.cache.fetch.single_flight import Lookups
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.errors import StoreError
from bucketfront.keys import ObjectKey
from bucketfront.task_set import TaskSet


class Purge:
    """Runs purges in the event loop. `flush` writes changes to the index.

    If `is_durable` is true, a purge outlives a loss of power.
    """

    def __init__(
        self,
        *,
        entries: EntryTable,
        disposal: Disposal,
        lookups: Lookups,
        negative_cache: NegativeCache,
        flush: Callable[[], Awaitable[None]],
        is_durable: bool,
    ) -> None:
        self._entries = entries
        self._disposal = disposal
        self._lookups = lookups
        self._negative_cache = negative_cache
        self._flush = flush
        self._is_durable = is_durable
        self.running = TaskSet()

    async def purge(
        self,
        keys: Iterable[ObjectKey],
        prefixes: Iterable[ObjectKey],
        *,
        soft: bool,
        versions: bool,
        reason: RemovalReason = RemovalReason.PURGED,
    ) -> int:
        """See `Cache.purge`. `reason` is why its entries are removed."""
        # A purge that has begun ends, even if its caller is cancelled.
        return await self.running.run(self._purge(set(keys), tuple(prefixes), reason, soft=soft, versions=versions))

    async def _purge(
        self,
        wanted: set[ObjectKey],
        heads: tuple[ObjectKey, ...],
        reason: RemovalReason,
        *,
        soft: bool,
        versions: bool,
    ) -> int:
        def is_hit(key: ObjectKey) -> bool:
            return (
                key in wanted
                or (versions and key._replace(version=None) in wanted)
                or any(key.bucket == p.bucket and key.key.startswith(p.key) for p in heads)
            )

        self._lookups.invalidate(is_hit)
        self._negative_cache.forget_all(is_hit)
        failures: list[StoreError] = []

        async def forget(found: list[Entry]) -> int:
            try:
                return await (self._expire(found) if soft else self._remove(found, reason))
            except StoreError as error:  # these are removed from memory, and the others are to be as well
                failures.append(error)
                return len(found)

        purged, keys = 0, list(wanted)
        for page in (keys[at : at + PAGE_ENTRIES] for at in range(0, len(keys), PAGE_ENTRIES)):
            purged += await forget(list(self._found(page, failures)))
            if versions:
                for batch in self._entries.versions_of(page):
                    purged += await forget(batch)
            await asyncio.sleep(0)
        for batch in chain.from_iterable(self._entries.with_prefix(head.bucket, head.key) for head in heads):
            purged += await forget(batch)
        if failures:
            raise failures[0]
        return purged

    def _found(self, keys: list[ObjectKey], failures: list[StoreError]) -> Iterator[Entry]:
        for key in keys:
            try:
                entry = self._entries.find(key)
            except StoreError as error:
                self._entries.expire_on_load(key)
                failures.append(error)
            else:
                if entry is not None:
                    yield entry

    async def _expire(self, found: list[Entry]) -> int:
        for entry in found:
            if (hot := self._entries.get(entry.key)) is not None:
                self._entries.expire(hot)
        await self._flush()
        return len(found)

    async def _remove(self, found: list[Entry], reason: RemovalReason) -> int:
        hit = [entry for entry in found if not entry.is_removed]
        for entry in hit:
            self._entries.remove(entry, reason)
        await self._disposal.unlink(hit)
        if self._is_durable:
            await self._flush()  # a file that reappears after a loss of power has no row then
        return len(hit)
