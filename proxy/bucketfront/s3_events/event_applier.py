"""Apply events to the cache: the objects that they name are revalidated at their next use.

An object is marked stale and keeps its bytes. So an event that comes late or twice costs one request without a body,
and a request after it never gets the old bytes: a stale object without a lifetime serves no request
(docs/invariants.md#bounded-staleness). Events take the cache's door, as purges do.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

from bucketfront.cache import (
    NULL_VERSION,
    Cache,
    Cause,
    DeletedVersion,
    Invalidation,
    KeyRange,
    PurgeMode,
    PurgeSelection,
    SparedVersion,
    WrittenVersion,
)
from bucketfront.config.mount_settings import MountSettings
from bucketfront.keys import ObjectKey
from bucketfront.s3_events.continuity import Loss
from bucketfront.s3_events.event import EventKind, EventMessage, S3Event
from bucketfront.s3_events.event_order import EventOrder
from bucketfront.s3_events.figures import EventFigures, EventOutcome

MAX_AT_ONCE = 250  # events in one turn of the event loop and one purge (docs/invariants.md#cost-of-a-request)

log = logging.getLogger(__name__)


class EventApplier:
    """Applies events, from whatever source. `clock` is wall time, in seconds since the epoch.

    `refresh` gets the keys of objects that were in the cache and have a new version.
    """

    def __init__(
        self,
        cache: Cache,
        mounts: Sequence[MountSettings],
        clock: Callable[[], float],
        refresh: Callable[[Sequence[ObjectKey]], None] = lambda _: None,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._refresh = refresh
        self._order = EventOrder()
        self._places = places_of(mounts)
        self.figures = EventFigures()

    def adopt(self, mounts: Sequence[MountSettings]) -> None:
        """Follow other mounts from now on. What a new one shows is marked stale: its events were ignored before."""
        before, self._places = self._places, places_of(mounts)
        added = [place for place in self._places if not any(_covers(other, place) for other in before)]
        if added:
            ranges = (KeyRange(bucket, prefix) for bucket, prefix in added)
            self._cache.purge_later(PurgeSelection.of((), ranges), PurgeMode.EXPIRE)

    @property
    def places(self) -> Sequence[tuple[str, str]]:
        """Return the buckets and prefixes whose events count."""
        return self._places

    async def apply(self, message: EventMessage) -> None:
        """Apply all events of a message. When it returns, no request gets what they have changed.

        Raises StoreError if the disk fails. The message must come again then.
        """
        events = message.events
        for at in range(0, len(events), MAX_AT_ONCE):
            await self._apply(events[at : at + MAX_AT_ONCE])
            await asyncio.sleep(0)

    async def expire_all(self, loss: Loss) -> None:
        """Mark all objects stale, here and in other caches that may have lost events. Raises StoreError."""
        self.figures.losses += 1
        everything = PurgeSelection.of((), everything=True)
        if loss.is_of_this_cache:
            await self._cache.apply(Invalidation(everything, Cause.PURGED, is_soft=True))
        else:
            await self._cache.purge_selected(everything, PurgeMode.EXPIRE)
        if self._cache.statistics().entries:
            log.warning("%s: all objects are revalidated at their next use", loss.why)

    async def _apply(self, events: Sequence[S3Event]) -> None:
        wanted: list[S3Event] = []
        for event in events:
            outcome = self._refusal(event)
            if outcome is None:
                wanted.append(event)
            else:
                self.figures.count(event.kind, outcome)
        wanted = self._newest_of(wanted)
        if not wanted:
            return
        purged = await self._cache.purge_selected(_selection(wanted), PurgeMode.EXPIRE)
        now, expired = self._clock(), {(key.bucket, key.key) for key in purged.sample}
        for event in wanted:
            self._order.note(event)
            is_expired = purged.count > 0 if event.is_folder else (event.bucket, event.key) in expired
            self.figures.count(event.kind, EventOutcome.EXPIRED if is_expired else EventOutcome.UNCHANGED)
            if event.at is not None:
                self.figures.delays.add(max(0.0, now - event.at))
                self.figures.newest_at = max(event.at, self.figures.newest_at or event.at)
        written = {(event.bucket, event.key) for event in wanted if event.kind is EventKind.WRITTEN}
        self._refresh([key for key in purged.sample if key.version is None and (key.bucket, key.key) in written])

    def _newest_of(self, events: Sequence[S3Event]) -> list[S3Event]:
        """Return the events without those that a later one among them makes needless."""
        order = EventOrder()
        for event in events:
            order.note(event)
        found = [event for event in events if not order.is_before_newest(event)]
        for event in events:
            if order.is_before_newest(event):
                self.figures.count(event.kind, EventOutcome.OUTDATED)
        return found

    def _refusal(self, event: S3Event) -> EventOutcome | None:
        """Return why nothing follows from an event. Returns None if something may."""
        if event.kind is EventKind.OTHER:
            return EventOutcome.IGNORED
        if not any(_shows(place, event) for place in self._places):
            return EventOutcome.FOREIGN
        return EventOutcome.OUTDATED if self._order.is_outdated(event) else None


def places_of(mounts: Sequence[MountSettings]) -> list[tuple[str, str]]:
    """Return the buckets and prefixes that mounts show, each once."""
    return list(dict.fromkeys((mount.bucket, mount.prefix) for mount in mounts))


def _covers(place: tuple[str, str], other: tuple[str, str]) -> bool:
    return place[0] == other[0] and other[1].startswith(place[1])


def _shows(place: tuple[str, str], event: S3Event) -> bool:
    bucket, prefix = place
    if event.bucket != bucket:
        return False
    return event.key.startswith(prefix) or (event.is_folder and prefix.startswith(event.key))


def _selection(events: Sequence[S3Event]) -> PurgeSelection:
    """Return what a purge has to expire. Its entries stay that all events of their key are about, or about others."""
    keys: set[ObjectKey] = set()
    ranges: list[KeyRange] = []
    tests: dict[ObjectKey, list[SparedVersion | None]] = defaultdict(list)
    for event in events:
        if event.is_folder:
            ranges.append(KeyRange(event.bucket, event.key))
            continue
        key = ObjectKey(event.bucket, event.key)
        keys.add(key)
        tests[key].append(_spared(event))
        # Versions do not change, except for the one of a bucket without versioning.
        if event.kind is not EventKind.WRITTEN or event.version in (None, NULL_VERSION):
            keys.add(key._replace(version=event.version or NULL_VERSION))
    spared = {key: tuple(one for one in found if one is not None) for key, found in tests.items() if None not in found}
    return PurgeSelection.of(keys, ranges, spared=spared)


def _spared(event: S3Event) -> SparedVersion | None:
    """Return which version of its key an event leaves as it is. Returns None if it leaves none."""
    match event.kind:
        case EventKind.WRITTEN:
            return WrittenVersion(event.etag, event.size, event.version, event.at)
        case EventKind.VERSION_DELETED if event.version is not None:
            return DeletedVersion(event.version)
        case _:
            return None
