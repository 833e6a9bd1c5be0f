"""The small bodies in memory: those of the most recently used objects, up to `cache.memory` bytes."""

from collections import OrderedDict

from bucketfront.cache.entries.lease import Lease
from bucketfront.cache.storage import page_cache

MAX_BODY_BYTES = page_cache.MAX_PEEK_BYTES  # an object up to this size is sent with one write, from memory
OVERHEAD_BYTES = 2048  # counted for each object besides its body: the entry and its prepared heads


class HotBodies:
    """Leases with a body, least recently used first, up to `limit` bytes.

    A revoked lease counts until it is pushed out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._kept: OrderedDict[Lease, None] = OrderedDict()

    def has_room_for(self, count: int) -> bool:
        """Return whether an object of `count` bytes fits if others are pushed out."""
        return count + OVERHEAD_BYTES <= self._limit

    def keep(self, lease: Lease) -> list[Lease]:
        """Keep the body of `lease`. Returns the leases that were pushed out, which the caller revokes."""
        self._kept[lease] = None
        self._used += _cost(lease)
        return self._push_out()

    def resize(self, limit: int) -> list[Lease]:
        """Keep up to `limit` bytes from now on. Returns the leases that were pushed out, which the caller revokes."""
        self._limit = limit
        return self._push_out()

    def _push_out(self) -> list[Lease]:
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
        """Return the bytes counted."""
        return self._used


def _cost(lease: Lease) -> int:
    return OVERHEAD_BYTES + lease.metadata.size
