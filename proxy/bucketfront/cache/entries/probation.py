"""Entries on probation: a small share of the space for what was requested once (docs/invariants.md#space-bound).

Theory of operation
-------------------
A new entry is on probation, in a queue by age. If those on probation take more than SHARE of the cache, the oldest of
them is the next victim, unless it was requested again: then its probation is over. So objects that are requested once,
as by a crawl, push out each other, and not what is popular. The names of recent victims are remembered for a while. An
object that comes back while its name is known was removed too early, and skips its probation.

All of this is in memory and bounded by number. A restart ends every probation, and forgets the names.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.eviction import KnownEntries
from bucketfront.errors import StoreError
from bucketfront.keys import ObjectKey

SHARE = 10  # percent of the cache, as in the literature; docs/eviction.md compares shares
GHOST_SHARE = 90  # percent of the cache: bytes of the victims whose names are remembered
MAX_RECORDS = 1 << 15  # of one queue, which takes 8 MiB then: memory must not depend on the number of entries
MAX_GHOSTS = 1 << 15
MAX_STEPS = 256  # records looked at for one victim, about a millisecond


@dataclass(eq=False, slots=True)
class Record:
    """An entry in a queue.

    `entry` is None while only the index has it. Then `last_uses` are those with which it left memory.
    """

    id: int
    entry: Entry | None
    bytes: int
    last_uses: int = 0

    @property
    def uses(self) -> int:
        return self.last_uses if self.entry is None else self.entry.uses

    @uses.setter
    def uses(self, uses: int) -> None:
        if self.entry is None:
            self.last_uses = uses
        else:
            self.entry.uses = uses


class Queue:
    """Records by age, oldest first. Those that are held aside keep their place, and their bytes count."""

    def __init__(self) -> None:
        self._records: OrderedDict[int, Record] = OrderedDict()
        self._held: OrderedDict[int, Record] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._records) + len(self._held)

    def find(self, entry_id: int) -> Record | None:
        return self._records.get(entry_id) or self._held.get(entry_id)

    def push(self, record: Record) -> None:
        self._records[record.id] = record
        self.bytes += record.bytes

    def pop(self) -> Record | None:
        """Take the oldest record out of the queue. Returns None if all are held aside."""
        if not self._records:
            return None
        _, record = self._records.popitem(last=False)
        self.bytes -= record.bytes
        return record

    def victim(self, record: Record, known: KnownEntries) -> Entry | None:
        """Return the entry of a record that `pop` returned, if it may be removed now.

        Otherwise the record is held aside until `rewind`, or dropped if the index does not have its entry any more.
        Raises StoreError.
        """
        if (entry := record.entry) is not None:
            if not entry.pins and entry.file_name is not None:
                return entry
        else:
            try:
                row = known.index.outline(record.id)
            except StoreError:
                self._hold(record)
                raise
            if row is None:
                return None
            if known.is_cold(row):
                return Entry.from_outline(row, known.index.epoch)
        self._hold(record)
        return None

    def _hold(self, record: Record) -> None:
        self._held[record.id] = record
        self.bytes += record.bytes

    def rewind(self) -> None:
        """Put the records that are held aside back to the front."""
        while self._held:
            entry_id, record = self._held.popitem()
            self._records[entry_id] = record
            self._records.move_to_end(entry_id, last=False)

    def discard(self, entry_id: int) -> bool:
        """Drop the record of an entry. Returns whether there was one."""
        record = self._records.pop(entry_id, None) or self._held.pop(entry_id, None)
        if record is None:
            return False
        self.bytes -= record.bytes
        return True

    # --- what happens to entries -----------------------------------------------------------------------------

    def load(self, entry: Entry) -> bool:
        """Note that an entry came into memory. Returns whether it is in this queue."""
        record = self.find(entry.id)
        if record is None:
            return False
        entry.uses = record.last_uses
        record.entry = entry
        return True

    def cool(self, entry: Entry) -> None:
        if (record := self.find(entry.id)) is not None:
            record.entry, record.last_uses = None, entry.uses

    def resize(self, entry: Entry) -> None:
        if (record := self.find(entry.id)) is not None:
            self.bytes += entry.bytes - record.bytes
            record.bytes = entry.bytes


class Ghosts:
    """The names of recent victims, up to `limit` bytes of what they took, and MAX_GHOSTS."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._known: OrderedDict[int, int] = OrderedDict()  # bytes by the hash of the key, which is shorter

    def __len__(self) -> int:
        return len(self._known)

    def add(self, key: ObjectKey, count: int) -> None:
        name = hash(key)
        self._bytes += count - self._known.pop(name, 0)
        self._known[name] = count
        while self._bytes > self._limit or len(self._known) > MAX_GHOSTS:
            self._bytes -= self._known.popitem(last=False)[1]

    def remove(self, key: ObjectKey) -> bool:
        """Forget a name. Returns whether it was known."""
        count = self._known.pop(hash(key), None)
        if count is None:
            return False
        self._bytes -= count
        return True


class Probation:
    """The queue of those on probation, and the names of its victims.

    `uses_to_pass` requests that found all their bytes end a probation.
    """

    def __init__(self, known: KnownEntries, uses_to_pass: int) -> None:
        self._known = known
        self.share = known.budget.limit * SHARE // 100
        self._uses_to_pass = uses_to_pass
        self.queue = Queue()
        self.ghosts = Ghosts(known.budget.limit * GHOST_SHARE // 100)

    def begin(self, entry: Entry) -> bool:
        """Put a new entry on probation. Returns False if it skips that, because it was removed a short while ago."""
        if self.ghosts.remove(entry.key):
            return False
        self.queue.push(Record(entry.id, entry, entry.bytes))
        if len(self.queue) > MAX_RECORDS:
            self.queue.pop()
        return True

    def take(self, passed: Callable[[Record], None]) -> Entry | None:
        """Return the oldest entry that is on probation, if these take too much. Calls `passed` with those that passed.

        Returns None if they take no more than their share, or are pinned. Raises StoreError.
        """
        for _ in range(MAX_STEPS):
            if not self.has_too_much or (record := self.queue.pop()) is None:
                break
            if record.uses >= self._uses_to_pass:
                passed(record)
            elif (victim := self.queue.victim(record, self._known)) is not None:
                self.ghosts.add(victim.key, victim.bytes)
                return victim
        return None

    def note_victim(self, victim: Entry) -> None:
        """Remember the name of a victim that another order named, if it was on probation."""
        if self.queue.discard(victim.id):
            self.ghosts.add(victim.key, victim.bytes)

    @property
    def has_too_much(self) -> bool:
        """Return whether those on probation take more than their share."""
        return self.queue.bytes > self.share or len(self.queue) >= MAX_RECORDS
