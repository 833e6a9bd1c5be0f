"""All entries by their last access, oldest first: those in memory, and those in the index, read a page at a time.

What it costs to name the next victim depends neither on how many entries there are nor on how many were removed and
are in the index still. Changes no entry; synchronous, as `EntryTable` is.
"""

from collections import deque
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush, heapreplace

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.storage.index import Index, Outline
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

PAGE = 64  # rows of the index read at a time
SLACK = 256  # records that may be out of date before they are all made anew

_UNREAD = Metadata("", 0)  # of an entry that is only named to be removed


class LeastRecentlyUsed:
    """`hot` are the entries in memory; `is_cold` tells whether a row of the index stands for one that is not.

    Accesses are not told: a record may be older than its entry's last access, and is put right when its turn comes.
    """

    def __init__(self, index: Index, hot: Mapping[ObjectKey, Entry], is_cold: Callable[[Outline], bool]) -> None:
        self._index = index
        self._hot = hot
        self._is_cold = is_cold
        self._records: list[tuple[float, int, ObjectKey]] = []  # a heap
        self._busy: list[tuple[float, int, ObjectKey]] = []
        self._rows: deque[Outline] = deque()
        self._last: Outline | None = None  # the last row read
        self._has_more = True

    def add(self, entry: Entry) -> None:
        """The entry came into memory."""
        heappush(self._records, (entry.accessed_at, entry.id, entry.key))
        if len(self._records) > 2 * len(self._hot) + SLACK:
            self._records = [(entry.accessed_at, entry.id, entry.key) for entry in self._hot.values()]
            heapify(self._records)

    def refresh(self) -> None:
        """The index has changed, or entries have left memory: rows are read anew from the oldest on."""
        self._rows.clear()
        self._last = None
        self._has_more = True

    def take(self, before: float = float("inf")) -> Entry | None:
        """The entry nobody uses that was used longest ago, if that was before `before` (seconds since the epoch).

        It is not named again: remove it. What comes from the index has no metadata and no blocks. Raises StoreError.
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
        return self._entry(row)

    def rewind(self) -> None:
        """Entries that were in use when their turn came are considered again."""
        for record in self._busy:
            heappush(self._records, record)
        self._busy.clear()

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
                self._busy.append(heappop(self._records))
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
            self._rows.extend(self._index.oldest(PAGE, self._last))
            self._has_more = len(self._rows) == PAGE
            if self._rows:
                self._last = self._rows[-1]

    def _entry(self, row: Outline) -> Entry:
        entry = Entry(row.id, row.key, _UNREAD, Freshness(0.0), row.accessed_at, self._index.epoch)
        entry.file_name = row.file
        entry.bytes = row.bytes
        entry.published = True
        return entry
