"""Which small objects are kept in memory: the most recently used ones, up to a number of bytes (`cache.memory`)."""

from collections import OrderedDict

from bucketfront.cache.entries.lease import Lease
from bucketfront.cache.storage import page_cache

SMALL = page_cache.PEEK  # bytes: an object up to this size is sent with one write, from memory
OVERHEAD = 2048  # bytes counted for each object besides its own: the entry, its heads


class HotBodies:
    """Leases with a body, least recently used first. A revoked lease counts until it is pushed out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._kept: OrderedDict[Lease, None] = OrderedDict()

    def has_room_for(self, count: int) -> bool:
        """An object of `count` bytes may be kept, if others go for it."""
        return count + OVERHEAD <= self._limit

    def keep(self, lease: Lease) -> list[Lease]:
        """Keep the body of `lease`. Returns the leases pushed out for it, which the caller revokes."""
        self._kept[lease] = None
        self._used += _cost(lease)
        pushed_out = []
        while self._used > self._limit:
            oldest, _ = self._kept.popitem(last=False)
            self._used -= _cost(oldest)
            pushed_out.append(oldest)
        return pushed_out

    def touch(self, lease: Lease) -> None:
        if lease in self._kept:
            self._kept.move_to_end(lease)

    @property
    def used(self) -> int:
        """Bytes counted."""
        return self._used


def _cost(lease: Lease) -> int:
    return OVERHEAD + lease.metadata.size
