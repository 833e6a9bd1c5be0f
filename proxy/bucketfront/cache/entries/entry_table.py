"""Which entries there are and how much they take. All state of the cache but the bytes themselves changes here.

Rule 1: every change is synchronous, so between two `await`s the whole is consistent; the event loop is the lock.
Rule 2: nothing here does I/O on files or reads the clock; what has to be unlinked or written is handed back.
Rule 3: an entry's bytes are given back to the budget once, when its file is unlinked and its last reader has left.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from bucketfront.cache.entries.budget import Budget
from bucketfront.cache.entries.entry import ENTRY_BYTES, Entry, EntryState
from bucketfront.cache.entries.eviction import EvictionPolicy, LeastRecentlyUsed, PolicyFactory
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import Changes, Outline, encode_key
from bucketfront.cache.storage.storage import StoredFile
from bucketfront.errors import StoreError
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import Span
from bucketfront.keys import ObjectKey

PAGE = 64  # entries handled at a time: between two pages the event loop gets its turn (I18)
MAX_TOMBSTONES = 256
NEVER = -float(1 << 40)  # validated: of an entry that a soft purge made stale, whatever its own Expires says
_STALE = Freshness(0.0, must_revalidate=True)

log = logging.getLogger(__name__)

Policy = Callable[[ObjectKey, Metadata, float], Freshness]


class EntryTable:
    """Hot entries in memory, the others in the index. `hot_limit` bounds the former, and so open descriptors. What was
    validated before `trusted_since` (seconds since the epoch) is stale: nobody knows how long ago that was.
    """

    def __init__(
        self,
        index: Index,
        budget: Budget,
        policy: Policy,
        *,
        block_size: int,
        hot_limit: int,
        trusted_since: float = NEVER,
        eviction: PolicyFactory | None = None,
    ) -> None:
        self._index = index
        self._budget = budget
        self._policy = policy
        self._block_size = block_size
        self._hot_limit = hot_limit
        self._trusted_since = trusted_since
        self._hot: OrderedDict[ObjectKey, Entry] = OrderedDict()  # least recently used first
        self._dirty: dict[int, Entry] = {}
        self._being_flushed: set[int] = set()
        self._touched: dict[int, float] = {}
        self._distrusted: set[ObjectKey] = set()
        self._tombstones: set[int] = set()  # removed, but the index has the row still
        self._count = 0
        self._cold_bytes = 0  # charged to entries that are in the index only
        self._recency = LeastRecentlyUsed(index, self._hot, self._is_cold)
        self._eviction: EvictionPolicy = eviction(index, self._hot, self._is_cold) if eviction else self._recency
        self._orders = {self._recency, self._eviction}
        self.evicted = 0  # entries removed for space or idleness
        self.corrupt_blocks = 0  # blocks whose checksum did not fit

    def open(self) -> None:
        """Take over what the index holds."""
        used, self._count = self._index.totals()
        self._budget.take(used)
        self._cold_bytes = used
        self._trusted_since = max(self._trusted_since, self._index.trusted_from)

    def forget(self) -> list[Entry]:
        """The index and the files were deleted: no entry is left. Those that were in memory are for the caller to
        dispose of, as others that are removed.
        """
        hot = list(self._hot.values())
        for entry in hot:
            self.remove(entry)
        self._budget.give_back(self._cold_bytes)
        self._count = self._cold_bytes = 0
        self._tombstones.clear()
        self._distrusted.clear()
        self._touched.clear()
        self._refresh_orders()
        return hot

    def __len__(self) -> int:
        return self._count

    @property
    def budget(self) -> Budget:
        return self._budget

    def __repr__(self) -> str:
        pinned = sum(1 for entry in self._hot.values() if entry.pins)
        return f"<Entries {self._count}, {self._budget.used}/{self._budget.limit} bytes, {pinned} pinned>"

    # --- finding -------------------------------------------------------------------------------------------

    def get(self, key: ObjectKey) -> Entry | None:
        """The entry that may answer for `key`, fresh or stale. An index that fails is a miss (I16)."""
        try:
            return self.find(key)
        except StoreError as error:
            log.warning("lookup of %s: %s", key, error)
            return None

    def find(self, key: ObjectKey) -> Entry | None:
        """As `get`. Raises StoreError where the index fails."""
        entry = self._hot.get(key)
        if entry is not None:
            return entry
        row = self._index.load(key)
        if row is None or row.id in self._tombstones:
            self._distrusted.discard(key)
            return None
        is_known = row.validated_at != NEVER and row.validated_at >= self._trusted_since
        freshness = self._policy(key, row.metadata, row.validated_at) if is_known else _STALE
        entry = self._hot[key] = Entry.from_row(row, freshness, self._index.epoch)
        self._cold_bytes -= entry.bytes
        self._add_to_orders(entry)
        if key in self._distrusted:
            self._distrusted.discard(key)
            self.expire(entry)
        return entry

    def distrust(self, key: ObjectKey) -> None:
        """Whatever the index has of it is asked for again before it answers: it was to go, and could not be found."""
        self._distrusted.add(key)

    def hot(self, key: ObjectKey) -> Entry | None:
        """`get` without the index: what is in memory."""
        return self._hot.get(key)

    def create(self, key: ObjectKey, metadata: Metadata, now: float) -> Entry:
        """A new entry, not yet reachable."""
        freshness = self._policy(key, metadata, now)
        return Entry(self._index.new_id(), key, metadata, freshness, now, self._index.epoch)

    def publish(self, entry: Entry) -> Entry | None:
        """Make it the one that answers for its key. Returns the one it replaces, removed: its file is to go."""
        old = self.get(entry.key)
        if old is not None:
            self.remove(old)
        self._hot[entry.key] = entry
        self._distrusted.discard(entry.key)
        self._add_to_orders(entry)
        entry.become(EntryState.PUBLISHED)
        self._mark_dirty(entry)
        return old

    def attach(self, entry: Entry, file: StoredFile) -> None:
        """The entry has a file now, made or opened. Its own overhead was taken from the budget before."""
        assert entry.file is None
        entry.file = file
        if entry.file_name is not None and (excess := self._excess(entry)):
            entry.bytes -= excess
            self._budget.give_back(excess)
        if not entry.unverified:
            entry.epoch = self._index.epoch
        if entry.file_name is None:
            entry.file_name = file.name
            entry.bytes = ENTRY_BYTES
            self._count += not entry.is_removed
        self._mark_dirty(entry)

    def fill_from(self, entry: Entry, file: StoredFile, sums: dict[int, int], charged: int) -> None:
        """A file that holds all of a new entry's bytes becomes its file. `sums` are its blocks' checksums; `charged`
        what was taken from the budget for it, the entry's own overhead among that.
        """
        self.attach(entry, file.with_length(entry.metadata.size))
        entry.present = entry.charged = blocks.all_blocks(entry.metadata.size, self._block_size)
        entry.new_sums = sums
        entry.bytes = charged
        assert not self._excess(entry), "charged for more than there is, or less"
        assert len(sums) == entry.present.bit_count()

    def wants_trimming(self, entry: Entry) -> bool:
        """Its file may hold bytes beside its present blocks: it was being written at an unclean stop, or a flight left
        a block begun. They are punched out when it is opened.
        """
        return entry.epoch < self._index.epoch or self._excess(entry) > 0

    def present_spans(self, entry: Entry) -> list[Span]:
        return blocks.present_spans(entry.present, entry.metadata.size, self._block_size)

    def _excess(self, entry: Entry) -> int:
        """Bytes charged for begun blocks that nobody knows of any more."""
        return entry.bytes - ENTRY_BYTES - blocks.allocated(entry.charged, entry.metadata.size, self._block_size)

    # --- using ---------------------------------------------------------------------------------------------

    def pin(self, entry: Entry) -> None:
        entry.pins += 1

    def unpin(self, entry: Entry) -> bool:
        """True when it was removed meanwhile and this was its last user: the caller closes and `settle`s it."""
        entry.pins -= 1
        assert entry.pins >= 0
        return entry.is_removed and entry.state is not EntryState.REMOVED and not entry.pins

    def touch(self, entry: Entry, now: float) -> None:
        """Each access resets the idle timer."""
        entry.accessed_at = now
        if self._hot.get(entry.key) is entry:
            self._hot.move_to_end(entry.key)
        if entry.file_name is not None and not entry.is_removed:
            self._touched[entry.id] = now

    def validated(self, entry: Entry, metadata: Metadata, now: float) -> None:
        """The origin confirmed the version; `metadata` is what it says of it now (RFC 9111 section 4.3.4)."""
        assert metadata.is_version(entry.metadata)
        entry.revoke()
        entry.metadata = metadata
        entry.validated_at = now
        entry.freshness = self._policy(entry.key, entry.metadata, now)
        self._mark_dirty(entry)

    def expire(self, entry: Entry) -> None:
        """A soft purge: the next use revalidates."""
        entry.revoke()
        entry.validated_at = NEVER
        entry.freshness = _STALE
        self._mark_dirty(entry)

    def commit(self, entry: Entry, block: int, checksum: int) -> None:
        """A whole block is in the file (I2). It was charged when it was begun."""
        entry.present |= 1 << block
        entry.new_sums[block] = checksum
        entry.lost.discard(block)
        self._mark_dirty(entry)

    def charge(self, entry: Entry, block: int) -> int:
        """Count a block's space, finished or not. Returns the bytes that pass from reservation to entry."""
        if entry.charged >> block & 1:
            return 0
        entry.charged |= 1 << block
        count = blocks.allocated(1 << block, entry.metadata.size, self._block_size)
        entry.bytes += count
        self._mark_dirty(entry)
        return count

    def lose(self, entry: Entry, block: int) -> None:
        """A block that is not what it was (I15); its space was punched out of the file."""
        self.corrupt_blocks += 1
        entry.revoke()
        entry.present &= ~(1 << block)
        entry.unverified &= ~(1 << block)
        entry.charged &= ~(1 << block)
        entry.new_sums.pop(block, None)
        entry.lost.add(block)
        count = blocks.allocated(1 << block, entry.metadata.size, self._block_size)
        entry.bytes -= count
        self._budget.give_back(count)
        self._mark_dirty(entry)

    def doubt(self, entry: Entry, suspects: int) -> None:
        """These blocks, of those that are present, are to be verified before a byte of them is sent."""
        entry.revoke()
        entry.unverified |= suspects & entry.present

    def verified(self, entry: Entry, block: int) -> None:
        entry.unverified &= ~(1 << block)
        if not entry.unverified:
            entry.epoch = self._index.epoch
            self._mark_dirty(entry)

    def checksum(self, entry: Entry, block: int) -> int:
        known = entry.new_sums.get(block)
        return self._index.checksum(entry.id, block) if known is None else known

    # --- removing ------------------------------------------------------------------------------------------

    def remove(self, entry: Entry) -> None:
        """Unreachable from now on. The caller unlinks its file, then calls `unlinked` or `settle`."""
        if entry.is_removed:
            return
        was_published = entry.state is EntryState.PUBLISHED
        entry.become(EntryState.REMOVED)
        entry.revoke()
        if self._hot.get(entry.key) is entry:
            del self._hot[entry.key]
        elif was_published:
            self._cold_bytes -= entry.bytes
        self._dirty.pop(entry.id, None)
        self._touched.pop(entry.id, None)
        if entry.file_name is not None:
            self._tombstones.add(entry.id)
            self._count -= 1

    def settle(self, entry: Entry) -> None:
        """Its file is unlinked and closed: the space is free again."""
        self._budget.give_back(entry.bytes)
        entry.bytes = 0
        entry.file = None

    def victims(self, count: int) -> list[Entry]:
        """Remove the least recently used entries that nobody uses, until `count` bytes will come free or PAGE are
        removed: ask again for more.
        """
        found: list[Entry] = []
        while count > 0 and len(found) < PAGE and (entry := self._eviction.take()) is not None:
            found.append(entry)
            count -= entry.bytes
            self.remove(entry)
        return self._evicted(found)

    def idle(self, before: float) -> list[Entry]:
        """Remove entries that nobody uses and nobody asked for since `before` (seconds since the epoch), the oldest
        first, PAGE at most: ask again for more.
        """
        found: list[Entry] = []
        while len(found) < PAGE and (entry := self._recency.take(before)) is not None:
            found.append(entry)
            self.remove(entry)
        return self._evicted(found)

    def _evicted(self, found: list[Entry]) -> list[Entry]:
        for order in self._orders:
            order.rewind()
        self.evicted += len(found)
        return found

    def _add_to_orders(self, entry: Entry) -> None:
        for order in self._orders:
            order.add(entry)

    def _refresh_orders(self) -> None:
        for order in self._orders:
            order.refresh()

    def _is_cold(self, row: Outline) -> bool:
        hot = self._hot.get(row.key)
        # A touch that the index does not have yet: the row says less than is known.
        return row.id not in self._tombstones and row.id not in self._touched and (hot is None or hot.id != row.id)

    def versions_of(self, keys: Sequence[ObjectKey]) -> Iterator[list[Entry]]:
        """The entries of some objects' pinned versions, as `with_prefix`."""
        names = {key[:2] for key in keys}
        yield from self._pages([hot for hot in self._hot if hot.version is not None and hot[:2] in names])
        for key in keys:
            yield from self._below(key.bucket, f"{key.key}\0")

    def with_prefix(self, bucket: str, prefix: str) -> Iterator[list[Entry]]:
        """Every entry below a prefix, hot or not, in batches: the caller may wait between two of them."""
        yield from self._pages([key for key in self._hot if key.bucket == bucket and key.key.startswith(prefix)])
        yield from self._below(bucket, prefix)

    def _pages(self, keys: list[ObjectKey]) -> Iterator[list[Entry]]:
        """Of those that are in memory when their page comes; the others, the index knows."""
        for at in range(0, len(keys), PAGE):
            yield [entry for key in keys[at : at + PAGE] if (entry := self._hot.get(key)) is not None]

    def _below(self, bucket: str, prefix: str) -> Iterator[list[Entry]]:
        after = b""
        while rows := self._index.with_prefix(bucket, prefix, after, PAGE):
            after = encode_key(rows[-1].key)
            # Somebody may have asked for it since the first page: then memory has the entry that is reachable.
            yield [
                self._hot.get(row.key) or Entry.from_row(row, Freshness(0.0), self._index.epoch)
                for row in rows
                if row.id not in self._tombstones
            ]

    @property
    def wants_flush(self) -> bool:
        """So many removed rows are in the index still that writing them at once would make its log a large one."""
        return len(self._tombstones) > MAX_TOMBSTONES

    def hot_files(self) -> set[str]:
        return {entry.file_name for entry in self._hot.values() if entry.file_name is not None}

    @property
    def is_crowded(self) -> bool:
        """So many entries came into memory at once that the upkeep's next round is too late to close files (I21)."""
        return len(self._hot) > self._hot_limit * 5 // 4

    def cooled(self) -> list[Entry]:
        """Entries dropped from memory because there are too many; the caller closes their files."""
        excess = len(self._hot) - self._hot_limit
        if excess <= 0:
            return []
        known = self._dirty.keys() | self._being_flushed
        idle = (entry for entry in self._hot.values() if not entry.pins and entry.id not in known)
        dropped = [entry for entry, _ in zip(idle, range(excess), strict=False)]
        for entry in dropped:
            entry.revoke()
            del self._hot[entry.key]
            self._cold_bytes += entry.bytes
        self._refresh_orders()
        return dropped

    def close(self) -> list[Entry]:
        """Forget all that is in memory; the caller closes the files."""
        hot = list(self._hot.values())
        for entry in hot:
            entry.revoke()
        self._hot.clear()
        return hot

    # --- persisting ----------------------------------------------------------------------------------------

    def changes(self) -> Changes:
        """What the index does not know yet; given back with `not_flushed` where it could not be written."""
        self._tombstones |= self._index.corrupt
        self._index.corrupt.clear()
        entries = [entry for entry in self._dirty.values() if entry.state is EntryState.PUBLISHED]
        changes = Changes(
            rows=tuple(entry.row() for entry in entries),
            sums=tuple((entry.id, block, crc) for entry in entries for block, crc in entry.new_sums.items()),
            lost=tuple((entry.id, block) for entry in entries for block in entry.lost),
            touched=tuple((at, entry_id) for entry_id, at in self._touched.items()),
            removed=tuple(self._tombstones),
        )
        self._touched.clear()
        for entry in entries:
            del self._dirty[entry.id]
            self._being_flushed.add(entry.id)
        return changes

    def flushed(self, changes: Changes) -> None:
        self._being_flushed.clear()
        self._tombstones.difference_update(changes.removed)
        self._refresh_orders()
        by_id = self._written(changes)
        for entry_id, block, crc in changes.sums:
            entry = by_id.get(entry_id)
            if entry is not None and entry.new_sums.get(block) == crc:
                del entry.new_sums[block]
        for entry_id, block in changes.lost:
            entry = by_id.get(entry_id)
            if entry is not None:
                entry.lost.discard(block)

    def not_flushed(self, changes: Changes) -> None:
        self._being_flushed.clear()
        for entry_id, entry in self._written(changes).items():
            self._dirty.setdefault(entry_id, entry)
        for at, entry_id in changes.touched:
            self._touched.setdefault(entry_id, at)

    def _written(self, changes: Changes) -> dict[int, Entry]:
        """Those of the entries written that are there still, by id."""
        there = (self._hot.get(row.key) for row in changes.rows)
        ids = {row.id for row in changes.rows}
        return {entry.id: entry for entry in there if entry is not None and entry.id in ids}

    def _mark_dirty(self, entry: Entry) -> None:
        if not entry.is_removed and entry.file_name is not None:
            self._dirty[entry.id] = entry
