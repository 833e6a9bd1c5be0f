"""S3-FIFO: those on probation first, then the oldest entry that was not requested since its last turn.

This is the algorithm of "FIFO queues are all you need for cache eviction" (SOSP 2023), with a difference. Its main
queue is bounded, because memory must not depend on the number of entries. Entries without a record are those of
before the restart and those beyond the bound. They are removed first, the least recently used one first.
"""

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.eviction import KnownEntries
from bucketfront.cache.entries.probation import MAX_RECORDS, MAX_STEPS, Probation, Queue, Record

USES_TO_PASS = 2  # as in the paper


class S3Fifo:
    """Offers entries by two queues: a small one for those on probation, and a main one."""

    def __init__(self, known: KnownEntries) -> None:
        self._known = known
        self._probation = Probation(known, USES_TO_PASS)
        self._small = self._probation.queue
        self._main = Queue()

    def add(self, entry: Entry) -> None:
        # What fills an empty cache needs no probation, because the main queue soon removes it if it is not requested.
        is_empty = self._known.budget.available > self._probation.share
        if (self._probation.has_too_much and is_empty) or not self._probation.begin(entry):
            self._admit(Record(entry.id, entry, entry.bytes))

    def load(self, entry: Entry) -> None:
        if not (self._small.load(entry) or self._main.load(entry)):
            self._admit(Record(entry.id, entry, entry.bytes))

    def cool(self, entry: Entry) -> None:
        self._small.cool(entry)
        self._main.cool(entry)

    def resize(self, entry: Entry) -> None:
        self._small.resize(entry)
        self._main.resize(entry)

    def remove(self, entry_id: int) -> None:
        self._small.discard(entry_id)
        self._main.discard(entry_id)

    def refresh(self) -> None:
        pass

    def take(self) -> Entry | None:
        victim = self._probation.take(self._pass)
        if victim is None and self._known.count() <= len(self._small) + len(self._main):
            victim = self._oldest_unused()
        if victim is None and (victim := self._known.recency.take()) is not None:
            self._probation.note_victim(victim)
        return victim

    def rewind(self) -> None:
        self._small.rewind()
        self._main.rewind()

    def _pass(self, record: Record) -> None:
        record.uses = 0
        self._admit(record)

    def _admit(self, record: Record) -> None:
        self._main.push(record)
        if len(self._main) > MAX_RECORDS:
            self._main.pop()

    def _oldest_unused(self) -> Entry | None:
        for _ in range(MAX_STEPS):
            if (record := self._main.pop()) is None:
                break
            if record.uses > 0:
                record.uses -= 1
                self._main.push(record)
            elif (victim := self._main.victim(record, self._known)) is not None:
                return victim
        return None
