"""The default policy: the least recently used entry is removed first, but those on probation before all others."""

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.eviction import KnownEntries
from bucketfront.cache.entries.probation import Probation

USES_TO_PASS = 1  # LRU has no other place for an object that is requested again


class LruWithProbation:
    """Offers those on probation while they take more than their share, else the least recently used entry of all."""

    def __init__(self, known: KnownEntries) -> None:
        self._recency = known.recency
        self._probation = Probation(known, USES_TO_PASS)

    def add(self, entry: Entry) -> None:
        self._probation.begin(entry)

    def load(self, entry: Entry) -> None:
        self._probation.queue.load(entry)

    def cool(self, entry: Entry) -> None:
        self._probation.queue.cool(entry)

    def resize(self, entry: Entry) -> None:
        self._probation.queue.resize(entry)

    def remove(self, entry_id: int) -> None:
        self._probation.queue.discard(entry_id)

    def refresh(self) -> None:
        pass  # the order of last accesses has its own call

    def take(self) -> Entry | None:
        victim = self._probation.take(lambda _: None)
        if victim is None and (victim := self._recency.take()) is not None:
            self._probation.note_victim(victim)
        return victim

    def rewind(self) -> None:
        self._probation.queue.rewind()
