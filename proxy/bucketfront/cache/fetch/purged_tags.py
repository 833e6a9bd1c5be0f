"""The tags that were purged while lookups run (docs/invariants.md#no-stale-fill).

The tags of an object are known only once a lookup has its response. So each purge by tag gets a number, each lookup
keeps the number of the purge before it began, and at its end the two are compared. The memory is bounded: if tags had
to be forgotten, a lookup that began before counts as outdated if its object has any tag.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable

MAX_PURGED_TAGS = 10_000  # that running lookups may have missed; a few MiB of the longest


class PurgedTags:
    """Remembers purged tags until the lookups that ran then have ended."""

    def __init__(self, limit: int = MAX_PURGED_TAGS) -> None:
        self._limit = limit
        self._numbers: OrderedDict[str, int] = OrderedDict()  # by tag, that of its last purge, lowest first
        self._forgotten = 0  # the number up to which tags are missing
        self.number = 0  # of the last purge

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, tags: Iterable[str]) -> None:
        """Note a purge of these tags."""
        self.number += 1
        for tag in tags:
            self._numbers[tag] = self.number
            self._numbers.move_to_end(tag)
        while len(self._numbers) > self._limit:
            _, self._forgotten = self._numbers.popitem(last=False)

    def has_purged(self, tags: Collection[str], since: int) -> bool:
        """Return whether a purge after the one with the number `since` had, or may have had, one of these tags."""
        if since >= self.number or not tags:
            return False
        return self._forgotten > since or any(self._numbers.get(tag, 0) > since for tag in tags)

    def forget(self, upto: int) -> None:
        """Forget the purges up to this number, because no running lookup began before them."""
        while self._numbers and next(iter(self._numbers.values())) <= upto:
            self._numbers.popitem(last=False)
