"""Permission to respond with one version of an object without a lookup.

A lease is plain data, a region of a file, and a validity that the cache revokes. It refers to its entry by number,
so that its holder needs nothing else of the cache.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from bucketfront.cache.entries.freshness_bound import UNBOUNDED, FreshnessBound
from bucketfront.cache.storage.storage import Region
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey


@dataclass(eq=False, slots=True)
class Lease:
    """A version that is complete and verified, until `fresh_until` (seconds since the epoch) or until `bound` ends it.

    `region` has its bytes.

    The holder may use it in any turn of the event loop in which `is_valid` is still True, up to the next `await`. The
    cache revokes it as soon as anything about the entry changes (docs/invariants.md#no-stale-fill). `body` holds the
    whole object if the object is small.
    """

    key: ObjectKey
    entry_id: int
    metadata: Metadata
    region: Region
    validated_at: float  # seconds since the epoch
    fresh_until: float
    body: bytes | None
    bound: FreshnessBound = UNBOUNDED
    used_at: float = -math.inf  # by the cache's clock: the last use that was noted of a popular entry
    is_valid: bool = True
    resident_until: float = 0.0
    """Until then, by the event loop's clock, the file counts as being in memory, because it was a moment ago."""

    on_revoke: Callable[[], None] | None = None
    """Called once when the lease ends, in the same turn of the event loop."""

    def revoke(self) -> None:
        """End the lease. The cache alone does this."""
        self.is_valid = False
        self.body = None
        on_revoke, self.on_revoke = self.on_revoke, None
        if on_revoke is not None:
            on_revoke()

    def ttl(self, now: float) -> float:
        """Return the seconds of freshness left; negative if the version is stale."""
        return self.bound.ttl(self.validated_at, self.fresh_until, now)

    @property
    def certain_until(self) -> float:
        """Return the time until which the version is fresh in any case."""
        return min(self.fresh_until, self.bound.until(self.validated_at))

    def age(self, now: float) -> float:
        """Return the age in seconds, as of RFC 9111 section 4.2.3."""
        return max(0.0, now - self.validated_at) + self.metadata.age
