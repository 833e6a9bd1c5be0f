"""Which entry is removed next: a Protocol, and the policy that removes the least recently used entry.

A policy is synchronous and changes no entry, as `EntryTable` alone does that.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import Protocol

from bucketfront.cache.entries.budget import Budget
from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import Outline
from bucketfront.keys import ObjectKey

PAGE_ROWS = 64  # read from the index at a time, because reads run in the event loop
MAX_OUTDATED_RECORDS = 256  # beyond one record per entry in memory; then all records are made anew


class EvictionPolicy(Protocol):
    """Decides which entry is removed next if the cache needs space.

    It offers every entry with a file in the end, except those that are pinned. How long an entry was not used is no
    matter of a policy: `EntryTable.evict_idle` goes by the last access, whatever the policy is. A policy gets no notice
    of accesses. It reads `accessed_at` and `uses` of entries when it needs a victim.
    """

    def add(self, entry: Entry) -> None:
        """Note a new entry: it is published and has a file."""

    def load(self, entry: Entry) -> None:
        """Note that an entry came into memory from the index."""

    def cool(self, entry: Entry) -> None:
        """Note that an entry is about to leave memory. The index has it."""

    def resize(self, entry: Entry) -> None:
        """Note that `bytes` of an entry in memory changed."""

    def remove(self, entry_id: int) -> None:
        """Note that an entry was removed, whether the policy named it or not."""

    def refresh(self) -> None:
        """Read the index again, because it has changed or entries have left memory."""

    def take(self) -> Entry | None:
        """Return the entry to remove next. The caller removes it before it takes another one.

        An entry from the index has no metadata and no blocks. Returns None if every entry left is pinned. Raises
        StoreError.
        """

    def rewind(self) -> None:
        """Consider those entries again that were pinned when their turn came."""


@dataclass(frozen=True, slots=True)
class KnownEntries:
    """The view that a policy has of the entries. `count` returns how many have a file.

    `is_cold` returns whether a row of the index stands for an entry that is not in memory and may be removed now.
    """

    index: Index
    hot: Mapping[ObjectKey, Entry]  # those in memory
    is_cold: Callable[[Outline], bool]
    recency: "LeastRecentlyUsed"
    budget: Budget
    count: Callable[[], int]


PolicyFactory = Callable[[KnownEntries], EvictionPolicy]


class LeastRecentlyUsed:
    """Offers all entries by their last access, oldest first: those in memory, and rows of the index, page by page.

    Its cost depends neither on how many entries exist nor on how many removed ones the index still has. It gets no
    notice of accesses: a record may be older than the last access of its entry, and is corrected when its turn comes.
    """

    def __init__(self, index: Index, hot: Mapping[ObjectKey, Entry], is_cold: Callable[[Outline], bool]) -> None:
        self._index = index
        self._hot = hot
        self._is_cold = is_cold
        self._records: list[tuple[float, int, ObjectKey]] = []  # a heap
        self._pinned: list[tuple[float, int, ObjectKey]] = []
        self._rows: deque[Outline] = deque()
        self._last: Outline | None = None  # the last row read
        self._has_more = True

    def add(self, entry: Entry) -> None:
        heappush(self._records, (entry.accessed_at, entry.id, entry.key))
        if len(self._records) > 2 * len(self._hot) + MAX_OUTDATED_RECORDS:
            self._records = [(entry.accessed_at, entry.id, entry.key) for entry in self._hot.values()]
            heapify(self._records)

    def load(self, entry: Entry) -> None:
        self.add(entry)

    def cool(self, entry: Entry) -> None:
        pass  # `refresh` follows

    def resize(self, entry: Entry) -> None:
        pass

    def remove(self, entry_id: int) -> None:
        pass  # a record without an entry is dropped when its turn comes

    def refresh(self) -> None:
        self._rows.clear()
        self._last = None
        self._has_more = True

    def take(self, before: float = float("inf")) -> Entry | None:
        """Return the least recently used entry that is not pinned. The caller removes it before it takes another one.

        Returns None if its last access was not before `before`, in seconds since the epoch. Raises StoreError.
        """
        hot, row = self._oldest_hot(), self._oldest_row()
        if hot is not None and (row is None or hot.accessed_at <= row.accessed_at):
            if hot.accessed_at >= before:
                return None
            heappop(self._records)
            return hot
        if row is None or row.accessed_at >= before:
            return None
        self._rows.popleft()
        return Entry.from_outline(row, self._index.epoch)

    def rewind(self) -> None:
        for record in self._pinned:
            heappush(self._records, record)
        self._pinned.clear()

    def _oldest_hot(self) -> Entry | None:
        while self._records:
            record = self._records[0]
            at, number, key = record
            entry = self._hot.get(key)
            if entry is None or entry.id != number:
                heappop(self._records)
            elif entry.accessed_at != at:
                heapreplace(self._records, (entry.accessed_at, number, key))
            elif entry.pins or entry.file_name is None:
                self._pinned.append(heappop(self._records))
            else:
                return entry
        return None

    def _oldest_row(self) -> Outline | None:
        while True:
            while self._rows:
                if self._is_cold(self._rows[0]):
                    return self._rows[0]
                self._rows.popleft()
            if not self._has_more:
                return None
            self._rows.extend(self._index.oldest(PAGE_ROWS, self._last))
            self._has_more = len(self._rows) == PAGE_ROWS
            if self._rows:
                self._last = self._rows[-1]
