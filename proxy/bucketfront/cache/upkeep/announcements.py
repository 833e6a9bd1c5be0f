"""What the cache announces: each invalidation that began here, for other caches of the same objects.

An invalidation that another cache has announced is applied with `Cache.apply`, and is not announced again. So none
goes round in circles.
"""

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from bucketfront.cache.upkeep.purge_selection import PurgeSelection
from bucketfront.keys import ObjectKey


class Cause(Enum):
    """Why objects are invalid. The values are stable, for other caches."""

    PURGED = "purged"  # an operator or an event has it so
    WRITTEN = "written"  # a write through this proxy, or a delete
    CHANGED = "changed"  # S3 has another version than the cache had, or none


@dataclass(frozen=True, slots=True)
class Invalidation:
    """Objects of which an older version must not be served as fresh.

    With `is_soft` their entries are kept, and are stale. `etag` is that of the version which S3 has now, if the
    announcing cache knows it.
    """

    selection: PurgeSelection
    cause: Cause
    is_soft: bool = False
    etag: str | None = None


class Announcer(Protocol):
    """What brings invalidations to other caches."""

    def announce(self, invalidation: Invalidation) -> None:
        """Take an invalidation. Never waits and never fails."""

    async def published(self) -> None:
        """Wait until other caches can learn of all that was announced before, or for a bounded time. Never fails."""


class Announcements:
    """The invalidations of one cache on their way to its announcer. Without one, they end here."""

    def __init__(self) -> None:
        self.announcer: Announcer | None = None

    def note(self, selection: PurgeSelection, cause: Cause, *, is_soft: bool = False) -> None:
        """Announce that a purge or a write has made objects invalid."""
        if self.announcer is not None:
            self.announcer.announce(Invalidation(selection, cause, is_soft))

    def note_version(self, key: ObjectKey, etag: str | None) -> None:
        """Announce that S3 has another version than this cache had. `etag` is None if it has none, or is unknown."""
        if self.announcer is not None:
            selection = PurgeSelection.of([key])
            self.announcer.announce(Invalidation(selection, Cause.CHANGED, is_soft=True, etag=etag))

    async def published(self) -> None:
        """Wait as `Announcer.published` does, also if the caller is cancelled."""
        if self.announcer is not None:
            await asyncio.shield(self.announcer.published())
