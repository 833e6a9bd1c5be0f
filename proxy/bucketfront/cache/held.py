"""What the cache holds of one object, as its export, its explanations and its refresh see it."""

from dataclasses import dataclass

from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import Span
from bucketfront.keys import ObjectKey

MAX_SPANS = 100  # as many as a Range header may have


@dataclass(frozen=True, slots=True)
class Present:
    """An entry that has all wanted bytes. `is_read` is true if a client has read some bytes of this version."""

    metadata: Metadata
    is_fresh: bool
    is_read: bool


@dataclass(frozen=True, slots=True)
class Held:
    """One entry. `key` is None if it was removed.

    `spans` are the first MAX_SPANS runs of bytes that are present, and `size` is that of the object.

    `accessed_at` is the last access that the index knows, in seconds since the epoch. `uses` are the requests after the
    first one that memory knows, of which it counts few.
    """

    id: int
    key: ObjectKey | None
    size: int
    spans: tuple[Span, ...]
    is_complete: bool
    accessed_at: float
    uses: int

    @property
    def place(self) -> tuple[float, int]:
        """Return the place in the order of last accesses."""
        return self.accessed_at, self.id
