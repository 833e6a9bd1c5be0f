"""Which small objects are kept in memory: the most recently used ones, up to a number of bytes (`cache.memory`)."""

from collections import OrderedDict

from bucketfront.cache.entries.lease import Lease
from bucketfront.cache.storage import page_cache

SMALL = page_cache.PEEK  # bytes: an object up to this size is sent with one write, from memory
OVERHEAD = 2048  # bytes counted for each object besides its own: the entry, its heads


class HotBodies:
    """Hits with a body, least recently used first. What is taken back by the cache counts until it is pushed out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._kept: OrderedDict[Lease, None] = OrderedDict()

    def has_room_for(self, count: int) -> bool:
        """An object of `count` bytes may be kept, if others go for it."""
        return count + OVERHEAD <= self._limit

    def keep(self, hit: Lease) -> list[Lease]:
        """Returns those pushed out for it: their bodies are to go."""
        self._kept[hit] = None
        self._used += _cost(hit)
        pushed_out = []
        while self._used > self._limit:
            oldest, _ = self._kept.popitem(last=False)
            self._used -= _cost(oldest)
            pushed_out.append(oldest)
        return pushed_out

    def touch(self, hit: Lease) -> None:
        if hit in self._kept:
            self._kept.move_to_end(hit)

    @property
    def used(self) -> int:
        """Bytes counted."""
        return self._used


def _cost(hit: Lease) -> int:
    return OVERHEAD + hit.metadata.size
