"""Leave to answer for an object from what is at hand, without asking the cache anew each time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bucketfront.http.metadata import Metadata

if TYPE_CHECKING:
    from bucketfront.cache.entries.entry import Entry


@dataclass(eq=False, slots=True)
class Lease:
    """A version that is whole, verified, and in an open file `fd`, until `fresh_until` (seconds since the epoch).

    It may be used in any turn of the loop in which `is_valid` is still True, up to the next `await`: the cache takes it
    back as soon as anything about the entry changes (I5, I6). `body` is the whole object where it is small.
    """

    entry: "Entry"  # the cache's own, nothing to look at from outside
    metadata: Metadata
    fd: int
    validated_at: float  # seconds since the epoch
    fresh_until: float
    body: bytes | None
    is_valid: bool = True
    resident_until: float = 0.0
    """By the event loop's clock; until then its file may be taken to be in memory, as it was a moment ago."""

    def age(self, now: float) -> float:
        """RFC 9111 section 4.2.3, in seconds."""
        return max(0.0, now - self.validated_at) + self.metadata.age
