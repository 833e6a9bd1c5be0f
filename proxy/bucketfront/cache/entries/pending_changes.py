"""The changes that the index does not have yet: changed entries, last accesses and removed rows.

A flush takes them with `begin`, writes them while entries go on changing, and reports its end with `commit` or
`roll_back`. Changes that come meanwhile belong to the next flush.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import chain

from bucketfront.cache.entries.entry import Entry, EntryState
from bucketfront.cache.entries.id_set import IdSet
from bucketfront.cache.storage.records import Changes

MAX_TOMBSTONES = 256  # removed rows in the index before a flush is due: more at once would make its WAL large


class PendingChanges:
    """Collects the changes between two flushes, in the event loop. Only `EntryTable` uses it."""

    def __init__(self) -> None:
        self._changed: dict[int, Entry] = {}
        self._in_flush: dict[int, Entry] = {}
        self.touched: dict[int, float] = {}  # last accesses by entry, in seconds since the epoch
        self.tombstones: set[int] = set()  # removed entries whose rows the index still has
        self.expired: set[int] = set()  # entries that a purge made stale, whose rows do not show it yet
        self.discarded = IdSet()  # removed entries whose rows and files the index has until their turn comes
        self._unwritten: list[int] = []  # those of them that the index does not know as discarded yet

    @property
    def wants_flush(self) -> bool:
        """Return whether a flush is due because the index still has MAX_TOMBSTONES removed rows."""
        return len(self.tombstones) > MAX_TOMBSTONES

    @property
    def unwritten(self) -> int:
        """Return the number of discarded entries that the index does not know as such yet."""
        return len(self._unwritten)

    def is_removed(self, entry_id: int) -> bool:
        """Return whether an entry is removed, although the index has its row."""
        return entry_id in self.tombstones or entry_id in self.discarded

    def is_current(self, entry_id: int) -> bool:
        """Return whether the row of an entry may be used: it is not removed, and its last access is flushed."""
        return not self.is_removed(entry_id) and entry_id not in self.touched

    def has(self, entry: Entry) -> bool:
        """Return whether the entry has changes that must stay in memory."""
        return entry.id in self._changed or entry.id in self._in_flush

    def unflushed(self) -> Iterator[Entry]:
        """Yield the entries that changed since the last flush, or that a flush is writing."""
        return chain(self._changed.values(), self._in_flush.values())

    def change(self, entry: Entry) -> None:
        """Have the entry written by the next flush, unless it is removed or has no file."""
        if not entry.is_removed and entry.file_name is not None:
            self._changed[entry.id] = entry

    def remove(self, entry: Entry) -> None:
        """Have the row of a removed entry deleted by the next flush."""
        self._changed.pop(entry.id, None)
        self.touched.pop(entry.id, None)
        self.expired.discard(entry.id)
        if entry.file_name is not None:
            self.tombstones.add(entry.id)

    def discard(self, ids: AbstractSet[int]) -> int:
        """Remove entries that are not in memory, and have the index know them as discarded with the next flush.

        Returns how many of them were not removed before.
        """
        new = self.discarded.update(ids - self.tombstones)
        self._unwritten += new
        self.expired.difference_update(new)
        for entry_id in self.touched.keys() & ids:
            del self.touched[entry_id]
        return len(new)

    def clear(self) -> None:
        """Forget removed rows and accesses, because the index was deleted."""
        self.tombstones.clear()
        self.discarded.clear()
        self._unwritten.clear()
        self.expired.clear()
        self.touched.clear()

    def begin(self) -> Changes:
        """Return the changes to write."""
        entries = [entry for entry in self._changed.values() if entry.state is EntryState.PUBLISHED]
        changes = Changes(
            rows=tuple(entry.row() for entry in entries),
            sums=tuple((entry.id, block, crc) for entry in entries for block, crc in entry.new_sums.items()),
            lost=tuple((entry.id, block) for entry in entries for block in entry.lost),
            touched=tuple((at, entry_id) for entry_id, at in self.touched.items()),
            removed=tuple(self.tombstones),
            expired=tuple(self.expired),
            discarded=tuple(self._unwritten),
        )
        self._unwritten.clear()
        self.touched.clear()
        for entry in entries:
            del self._changed[entry.id]
            self._in_flush[entry.id] = entry
        return changes

    def commit(self, changes: Changes) -> None:
        """Note that the index has the changes."""
        self.tombstones.difference_update(changes.removed)
        self.expired.difference_update(changes.expired)
        written = self._end_flush()
        for entry_id, block, crc in changes.sums:
            entry = written.get(entry_id)
            if entry is not None and entry.new_sums.get(block) == crc:
                del entry.new_sums[block]
        for entry_id, block in changes.lost:
            entry = written.get(entry_id)
            if entry is not None:
                entry.lost.discard(block)

    def roll_back(self, changes: Changes) -> None:
        """Take the changes back, because they could not be written."""
        for entry_id, entry in self._end_flush().items():
            self._changed.setdefault(entry_id, entry)
        for at, entry_id in changes.touched:
            self.touched.setdefault(entry_id, at)
        self._unwritten += changes.discarded

    def _end_flush(self) -> dict[int, Entry]:
        """Return the entries of the flush that were not removed meanwhile, by id."""
        written = {entry_id: entry for entry_id, entry in self._in_flush.items() if not entry.is_removed}
        self._in_flush.clear()
        return written
