"""The entries and the space that they take. All state of the cache except the bytes changes here.

1. Every change is synchronous, so that the state is consistent between two `await`s. The event loop is the lock.
2. The table does no I/O on files and reads no clock; only `Removals` does that. Callers unlink and close the files of
   the entries that it returns.
3. The budget gets the bytes of an entry back once: when its file is unlinked and its last reader has left.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from bucketfront.cache.entries.budget import Budget
from bucketfront.cache.entries.entry import ENTRY_BYTES, MAX_USES, Entry, EntryState
from bucketfront.cache.entries.eviction import EvictionPolicy, KnownEntries, LeastRecentlyUsed, PolicyFactory
from bucketfront.cache.entries.freshness_bound import FreshnessBound
from bucketfront.cache.entries.pending_changes import PendingChanges
from bucketfront.cache.entries.removals import Reason, RemovalReason, Removals, StorageRefusal
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import (
    NEVER_VALIDATED,
    Changes,
    DiscardedRow,
    Outline,
    Row,
    encode_key,
)
from bucketfront.cache.storage.storage import StoredFile
from bucketfront.errors import StoreError
from bucketfront.http.freshness import Basis, Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import Span
from bucketfront.keys import ObjectKey

PAGE_ENTRIES = 64  # in one turn of the event loop (docs/invariants.md#eviction-is-safe-and-bounded)
DISCARDED_AT_ONCE = 10_000  # ids of discarded entries, in one read at the start
MAX_UNWRITTEN = 50_000  # discarded entries that the index does not know yet, before a flush is due
MAX_SCANNED = 1000  # rows in one call, whether they are entries or were removed
_CHANGES = (RemovalReason.CHANGED, RemovalReason.DELETED)
_STALE = Freshness(0.0, must_revalidate=True, basis=Basis.UNKNOWN)

log = logging.getLogger(__name__)

FreshnessOf = Callable[[ObjectKey, Metadata, float], Freshness]


class EntryTable:
    """Hot entries in memory, and the others in the index. Use it in the event loop.

    `policy` decides how long an entry is fresh. `hot_limit` bounds the entries in memory and so the open descriptors.
    Entries that were validated before `trusted_since` (seconds since the epoch) are stale, because the clock went back
    and their age is unknown. `eviction` makes the policy that names victims; without one it is plain LRU. `removals`
    gets the reason of each removal. `on_unread` gets the bytes that no client has read of an entry, at its end. `bound`
    may end the freshness of all entries. `on_change` gets the key of a version that S3 has replaced or deleted, and the
    ETag of the next one if that is known.
    """

    def __init__(
        self,
        index: Index,
        budget: Budget,
        policy: FreshnessOf,
        *,
        block_size: int,
        hot_limit: int,
        removals: Removals,
        trusted_since: float = NEVER_VALIDATED,
        eviction: PolicyFactory | None = None,
        on_unread: Callable[[ObjectKey, Reason, int], None] = lambda *_: None,
        bound: FreshnessBound | None = None,
        on_change: Callable[[ObjectKey, str | None], None] = lambda *_: None,
    ) -> None:
        self.bound = bound or FreshnessBound()
        self._on_change = on_change
        self._index = index
        self._on_unread = on_unread
        self._budget = budget
        self._policy = policy
        self._policy_number = 1
        self._block_size = block_size
        self.hot_limit = hot_limit
        self.removals = removals
        self._trusted_since = trusted_since
        self._hot: OrderedDict[ObjectKey, Entry] = OrderedDict()  # least recently used first
        self._expired_on_load: set[ObjectKey] = set()  # stale once they are found in the index
        self._pending = PendingChanges()
        self._count = 0
        self._cold_bytes = 0  # charged to entries that only the index has
        self._recency = LeastRecentlyUsed(index, self._hot, self._is_cold)
        self._eviction: EvictionPolicy = self._recency
        self._orders: tuple[EvictionPolicy, ...] = (self._recency,)
        if eviction is not None:
            known = KnownEntries(index, self._hot, self._is_cold, self._recency, budget, self.__len__)
            self._eviction = eviction(known)
            self._orders = tuple(dict.fromkeys((self._recency, self._eviction)))
        self.corrupt_blocks = 0  # found since the start

    def open(self) -> None:
        """Count the entries of the index."""
        self._pending.clear()
        used, self._count = self._index.totals()
        self._budget.take(used)
        self._cold_bytes = used
        for ids in self._index.discarded_ids(DISCARDED_AT_ONCE):
            self._pending.discarded.update(ids)
        self._count -= self._index.count_discarded()
        self._trusted_since = max(self._trusted_since, self._index.trusted_from)

    def remove_all(self) -> list[Entry]:
        """Remove all entries, because index and files were deleted.

        Returns those that were in memory; the caller unlinks their files as after `remove`.
        """
        hot = list(self.hot_entries())
        for entry in hot:
            self.remove(entry, RemovalReason.LOST)
        self._drop_index()
        return hot

    def release(self) -> list[Entry]:
        """Let go of all entries, because another process owns the folder. Call `open` once it does not any more.

        Returns those that were in memory. The caller closes the files of the unpinned ones.
        """
        hot = list(self.hot_entries())
        for entry in hot:
            entry.become(EntryState.RELEASED)
            entry.revoke()
            for order in self._orders:
                order.remove(entry.id)
            self._pending.remove(entry)
        self._hot.clear()
        self._drop_index()
        return hot

    def _drop_index(self) -> None:
        """Forget the entries that only the index has, and what it does not know yet."""
        self._budget.give_back(self._cold_bytes)
        self._count = self._cold_bytes = 0
        self._expired_on_load.clear()
        self._pending.clear()
        self._refresh_orders()

    def __len__(self) -> int:
        return self._count

    @property
    def budget(self) -> Budget:
        return self._budget

    def __repr__(self) -> str:
        pinned = sum(1 for entry in self.hot_entries() if entry.pins)
        return f"<Entries {self._count}, {self._budget.used}/{self._budget.limit} bytes, {pinned} pinned>"

    # --- finding -------------------------------------------------------------------------------------------

    def get(self, key: ObjectKey) -> Entry | None:
        """Return the published entry of `key`, fresh or stale. A failure of the index is a miss."""
        try:
            return self.find(key)
        except StoreError as error:
            log.warning("lookup of %s: %s", key, error)
            return None

    def find(self, key: ObjectKey) -> Entry | None:
        """Return the published entry of `key`, fresh or stale. Raises StoreError if the index fails."""
        entry = self.hot(key)
        if entry is not None:
            return entry
        entry = self._read(key)
        if entry is None:
            self._expired_on_load.discard(key)
            return None
        self._hot[key] = entry
        self._cold_bytes -= entry.bytes
        for order in self._orders:
            order.load(entry)
        if key in self._expired_on_load or entry.id in self._pending.expired:
            self._expired_on_load.discard(key)
            self.expire(entry)
        return entry

    def peek(self, key: ObjectKey) -> Entry | None:
        """Return the published entry of `key` as `find` does, but bring none into memory. Raises StoreError.

        An entry that is not in memory is a copy for reading.
        """
        entry = self.hot(key)
        if entry is not None or (entry := self._read(key)) is None:
            return entry
        if key in self._expired_on_load or entry.id in self._pending.expired:
            entry.validated_at, entry.freshness = NEVER_VALIDATED, _STALE
        return entry

    def _read(self, key: ObjectKey) -> Entry | None:
        """Return the entry of `key` that the index has."""
        row = self._index.load(key)
        return None if row is None or self._pending.is_removed(row.id) else self._from_row(row)

    def newest(self, limit: int, before: tuple[float, int] | None) -> list[tuple[float, int, Entry | None]]:
        """Return entries by their last access in the index, the newest first, and only those behind `before`.

        Each comes with that access and its id. It is None if it was removed. `before` is the time of an access and an
        id. The entries are only to be looked at. Raises StoreError.
        """
        found: list[tuple[float, int, Entry | None]] = []
        for row in self._index.newest(limit, before):
            hot = self._hot.get(row.key)
            entry = hot if hot is not None and hot.id == row.id else self._from_row(row)
            found.append((row.accessed_at, row.id, None if self._pending.is_removed(row.id) else entry))
        return found

    def _from_row(self, row: Row) -> Entry:
        entry = Entry.from_row(row, _STALE, self._index.epoch, self.bound)
        self._decide(entry)
        return entry

    def page(self, bucket: str, prefix: str, after: bytes, limit: int) -> tuple[list[Entry], bytes | None]:
        """Return entries below a prefix in the order of their encoded keys, only those behind `after`.

        They are at most `limit`. The second value is where the next page begins, None at the end. Fewer than `limit`
        come before the end if many rows are of removed entries. Entries that are not in memory are copies for reading,
        as with `peek`, and without their blocks. Raises StoreError.
        """
        found: dict[bytes, Entry] = {}
        last, scanned = after, 0
        while len(found) < limit and scanned < MAX_SCANNED:
            rows = self._index.with_prefix(bucket, prefix, last, limit - len(found))
            if not rows:
                break
            scanned += len(rows)
            last = encode_key(rows[-1].key)
            for row in rows:
                if not self._pending.is_removed(row.id):
                    found[encode_key(row.key)] = self.hot(row.key) or self._from_row(row)
        is_full = len(found) >= limit or scanned >= MAX_SCANNED
        for entry in self._pending.unflushed():  # the index may not have them yet
            name = encode_key(entry.key)
            is_within = entry.key.bucket == bucket and entry.key.key.startswith(prefix)
            if is_within and name > after and not (is_full and name > last) and self.hot(entry.key) is entry:
                found[name] = entry
        names = sorted(found)[:limit]
        if len(names) == limit:
            last = names[-1]
        return [found[name] for name in names], last if is_full or len(names) == limit else None

    def expire_on_load(self, key: ObjectKey) -> None:
        """Make an entry stale once the index is readable again, because a purge of `key` could not find it."""
        self._expired_on_load.add(key)

    def hot_entries(self) -> Iterable[Entry]:
        """Return the entries in memory, least recently used first."""
        return self._hot.values()

    def hot(self, key: ObjectKey) -> Entry | None:
        """Return the entry of `key` if it is in memory."""
        entry = self._hot.get(key)
        if entry is not None and entry.policy_number != self._policy_number:
            entry.revoke()
            self._decide(entry)
        return entry

    def change_policy(self, policy: FreshnessOf) -> None:
        """Let `policy` decide how long entries are fresh, also those that are in memory: each at its next use."""
        self._policy = policy
        self._policy_number += 1

    def _decide(self, entry: Entry) -> None:
        """Let the policy decide on an entry, whose lease is revoked if it has one."""
        is_known = entry.validated_at != NEVER_VALIDATED and entry.validated_at >= self._trusted_since
        entry.freshness = self._policy(entry.key, entry.metadata, entry.validated_at) if is_known else _STALE
        entry.policy_number = self._policy_number

    def create(self, key: ObjectKey, metadata: Metadata, now: float) -> Entry:
        """Return a new entry, which no lookup finds yet."""
        freshness = self._policy(key, metadata, now)
        entry = Entry(self._index.new_id(), key, metadata, freshness, now, self._index.epoch, self.bound)
        entry.policy_number = self._policy_number
        return entry

    def create_unstored(self, key: ObjectKey, metadata: Metadata, now: float) -> Entry:
        """Return an entry that no lookup ever finds, for a response that passes through without a refusal."""
        entry = self.create(key, metadata, now)
        entry.become(EntryState.REMOVED)
        return entry

    def publish(self, entry: Entry) -> Entry | None:
        """Let lookups find the entry. Returns the removed entry that it replaces; the caller unlinks its file."""
        old = self.get(entry.key)
        if old is not None:
            self.remove(old, RemovalReason.CHANGED, successor=entry)
            entry.uses = old.uses  # a new version of an object is as popular as the old one
        self._hot[entry.key] = entry
        self._expired_on_load.discard(entry.key)
        entry.become(EntryState.PUBLISHED)
        if entry.file_name is not None:
            self._add_to_orders(entry)
        self._pending.change(entry)
        return old

    def attach(self, entry: Entry, file: StoredFile) -> None:
        """Give the entry the file that was created or opened for it. ENTRY_BYTES were taken from the budget before."""
        assert entry.file is None
        entry.file = file
        if entry.file_name is not None and (excess := self._excess(entry)):
            entry.bytes -= excess
            self._budget.give_back(excess)
            self._note_size(entry)
        if not entry.unverified:
            entry.epoch = self._index.epoch
        if entry.file_name is None:
            entry.file_name = file.name
            entry.bytes = ENTRY_BYTES
            self._count += not entry.is_removed
            if entry.state is EntryState.PUBLISHED:
                self._add_to_orders(entry)
        self._pending.change(entry)

    def attach_complete(self, entry: Entry, file: StoredFile, sums: dict[int, int], charged: int) -> None:
        """Give a new entry a file that has all of its bytes.

        `sums` are the CRC-32s of its blocks. `charged` bytes were taken from the budget for it, ENTRY_BYTES included.
        """
        self.attach(entry, file.with_length(entry.metadata.size))
        entry.present = entry.charged = blocks.all_blocks(entry.metadata.size, self._block_size)
        entry.new_sums = sums
        entry.bytes = charged
        self._note_size(entry)
        entry.uses = -1  # no client has requested it yet, and the first who does finds all its bytes
        assert not self._excess(entry), "charged for more than there is, or less"
        assert len(sums) == entry.present.bit_count()

    def wants_trimming(self, entry: Entry) -> bool:
        """Return whether the file may have bytes outside the present blocks, which are freed when it is opened.

        An unclean stop during a write, the end of a part fetch within a block, and other processes leave such bytes.
        """
        return entry.epoch < self._index.epoch or self._excess(entry) > 0

    def present_spans(self, entry: Entry) -> list[Span]:
        return blocks.present_spans(entry.present, entry.metadata.size, self._block_size)

    def _excess(self, entry: Entry) -> int:
        """Return the bytes charged for blocks that were begun in an earlier life of the entry."""
        return entry.bytes - ENTRY_BYTES - blocks.allocated(entry.charged, entry.metadata.size, self._block_size)

    # --- using ---------------------------------------------------------------------------------------------

    def pin(self, entry: Entry) -> None:
        entry.pins += 1

    def unpin(self, entry: Entry) -> bool:
        """End a pin. Returns True if it was the last one of a removed entry, which the caller closes then."""
        entry.pins -= 1
        assert entry.pins >= 0
        if entry.spare is not None and not entry.pins:
            entry.spare.close()
            entry.spare = None
        return entry.is_removed and entry.state is not EntryState.REMOVED and not entry.pins

    def use(self, entry: Entry, now: float) -> None:
        """Note a request whose bytes were all present. A policy takes the object for one that is requested again."""
        if entry.uses < MAX_USES:
            entry.uses += 1
        self.touch(entry, now)

    def note_uses(self, entry: Entry, uses: int) -> None:
        """Note requests that another cache has counted, for the policy."""
        entry.uses = max(entry.uses, min(uses, MAX_USES))

    def touch(self, entry: Entry, now: float) -> None:
        """Note an access, which resets the idle timer."""
        entry.accessed_at = now
        if self._hot.get(entry.key) is entry:
            self._hot.move_to_end(entry.key)
        if entry.file_name is not None and not entry.is_removed:
            self._pending.touched[entry.id] = now

    def confirm(self, entry: Entry, metadata: Metadata, now: float) -> None:
        """Note that the origin confirmed the version, with its `metadata` of now (RFC 9111 section 4.3.4)."""
        assert metadata.is_version(entry.metadata)
        entry.revoke()
        entry.metadata = metadata
        entry.validated_at = now
        entry.freshness = self._policy(entry.key, entry.metadata, now)
        entry.policy_number = self._policy_number
        self._pending.change(entry)

    def expire(self, entry: Entry) -> None:
        """Make the entry stale, so that the next use revalidates it."""
        entry.revoke()
        entry.validated_at = NEVER_VALIDATED
        entry.freshness = _STALE
        self._pending.change(entry)

    def expire_row(self, entry_id: int) -> None:
        """Make an entry stale that is not in memory."""
        self._pending.expired.add(entry_id)

    def distrust(self, before: float) -> None:
        """Make all entries stale that were validated before a time, also those that are not in memory."""
        self._trusted_since = max(self._trusted_since, before)
        for entry in self.hot_entries():
            entry.revoke()
            self._decide(entry)

    def commit(self, entry: Entry, first: int, checksums: Sequence[int]) -> None:
        """Note that whole blocks are in the file, from `first` on (docs/invariants.md#no-holes).

        They were charged when they were begun. `checksums` has one for each.
        """
        run = range(first, first + len(checksums))
        entry.present |= blocks.mask(run)
        entry.new_sums.update(zip(run, checksums, strict=True))
        entry.lost.difference_update(run)
        self._pending.change(entry)

    def charge(self, entry: Entry, run: range) -> int:
        """Charge blocks that are about to be written. Returns the bytes that pass from the reservation to the entry."""
        begun = blocks.mask(run) & ~entry.charged
        if not begun:
            return 0
        entry.charged |= begun
        count = blocks.allocated(begun, entry.metadata.size, self._block_size)
        entry.bytes += count
        self._note_size(entry)
        self._pending.change(entry)
        return count

    def lose(self, entry: Entry, block: int) -> None:
        """Note that a block was corrupt and its space was freed (docs/invariants.md#self-healing)."""
        self.corrupt_blocks += 1
        entry.revoke()
        entry.present &= ~(1 << block)
        entry.unverified &= ~(1 << block)
        entry.charged &= ~(1 << block)
        entry.new_sums.pop(block, None)
        entry.lost.add(block)
        count = blocks.allocated(1 << block, entry.metadata.size, self._block_size)
        entry.bytes -= count
        self._note_size(entry)
        self._budget.give_back(count)
        self._pending.change(entry)

    def mark_unverified(self, entry: Entry, suspects: int) -> None:
        """Have these blocks verified before a byte of them is sent, as far as they are present."""
        entry.revoke()
        entry.unverified |= suspects & entry.present

    def verified(self, entry: Entry, block: int) -> None:
        """Note that the block has its recorded checksum."""
        entry.unverified &= ~(1 << block)
        if not entry.unverified:
            entry.epoch = self._index.epoch
            self._pending.change(entry)

    def checksum(self, entry: Entry, block: int) -> int:
        """Return the recorded CRC-32 of a present block. Raises StoreError."""
        known = entry.new_sums.get(block)
        return self._index.checksum(entry.id, block) if known is None else known

    # --- removing ------------------------------------------------------------------------------------------

    def remove(self, entry: Entry, reason: Reason, successor: Entry | None = None) -> None:
        """Let no lookup find the entry any more. The caller unlinks its file, and calls `free_space` at its end.

        `successor` is what takes its place.
        """
        if entry.is_removed:
            return
        was_published = entry.state is EntryState.PUBLISHED
        if isinstance(reason, StorageRefusal):
            self.removals.refused(entry.key, reason)
        elif was_published:
            self.removals.removed(entry.key, reason, entry.stored_at, entry.accessed_at)
            if reason in _CHANGES and not (successor and successor.metadata.is_version(entry.metadata)):
                self._on_change(entry.key, None if successor is None else successor.metadata.etag)
        entry.removed_because = reason
        entry.become(EntryState.REMOVED)
        entry.revoke()
        if self._hot.get(entry.key) is entry:
            del self._hot[entry.key]
        elif was_published:
            self._cold_bytes -= entry.bytes
        for order in self._orders:
            order.remove(entry.id)
        self._pending.remove(entry)
        self._count -= entry.file_name is not None

    def discard(self, ids: set[int]) -> tuple[int, list[Entry]]:
        """Let no lookup find these entries any more, which a purge removes. `free_discarded` follows for each.

        Returns how many those are, and those in memory, which stay: the caller removes them with `remove`.
        """
        hot = [entry for entry in self._hot.values() if entry.id in ids]
        count = self._pending.discard(ids.difference(entry.id for entry in hot))
        self._count -= count
        return count, hot

    @property
    def discarded(self) -> int:
        """Return the number of discarded entries whose files are still there."""
        return len(self._pending.discarded)

    def is_gone(self, entry_id: int) -> bool:
        """Return whether an entry is removed, or to be removed because its row went bad, although it has a row."""
        return self._pending.is_removed(entry_id) or entry_id in self._index.corrupt

    @property
    def wants_writing(self) -> bool:
        """Return whether so many entries are discarded that a flush is due."""
        return self._pending.unwritten >= MAX_UNWRITTEN

    def free_discarded(self, ids: Iterable[int], rows: Iterable[DiscardedRow]) -> None:
        """Give the bytes of discarded entries back, because their files are unlinked and the index has forgotten them.

        `rows` are those of the `ids` that decode. If all entries were lost meanwhile, their bytes were given back.
        """
        known = [row for row in rows if row.id in self._pending.discarded]
        for entry_id in ids:
            self._pending.discarded.discard(entry_id)
        for row in known:
            self._budget.give_back(row.bytes)
            self._cold_bytes -= row.bytes
            self.removals.removed(row.key, RemovalReason.PURGED, row.stored_at, row.accessed_at)
            for order in self._orders:
                order.remove(row.id)

    def free_space(self, entry: Entry) -> None:
        """Give the bytes of an entry back, because its file is unlinked and closed."""
        self._budget.give_back(entry.bytes)
        entry.bytes = 0
        entry.file = None
        if (unread := entry.unread & entry.present) and entry.removed_because is not None:
            entry.unread = 0
            count = blocks.byte_count(unread, entry.metadata.size, self._block_size)
            self._on_unread(entry.key, entry.removed_because, count)

    def evict(self, count: int, files: int = 0) -> list[Entry]:
        """Remove unpinned entries in the order of the eviction policy until `count` bytes and `files` become free.

        Returns them, at most PAGE_ENTRIES; call again for more. The caller unlinks their files. Raises StoreError.
        """
        return self._evict(self._eviction.take, count, files, RemovalReason.SPACE)

    def evict_idle(self, before: float) -> list[Entry]:
        """Remove unpinned entries without an access since `before` (seconds since the epoch), the oldest first.

        Returns them, at most PAGE_ENTRIES; call again for more. The caller unlinks their files. Raises StoreError.
        """
        return self._evict(lambda: self._recency.take(before), math.inf, 0, RemovalReason.IDLE)

    def evict_idle_rows(self, rows: Iterable[Outline], before: float) -> list[Entry]:
        """Remove the unpinned entries of these rows that had no access since `before` (seconds since the epoch).

        Returns them, and the caller unlinks their files.
        """
        found: list[Entry] = []
        for row in rows:
            entry = self.of_row(row)
            is_used = row.id in self._pending.touched or entry is None or entry.pins or entry.accessed_at >= before
            if entry is not None and not is_used:
                self.remove(entry, RemovalReason.IDLE)
                found.append(entry)
        return found

    def _evict(self, take: Callable[[], Entry | None], count: float, files: int, reason: RemovalReason) -> list[Entry]:
        found: list[Entry] = []
        try:
            while (count > 0 or files > 0) and len(found) < PAGE_ENTRIES and (entry := take()) is not None:
                self.remove(entry, reason)
                found.append(entry)
                count -= entry.bytes
                files -= 1
        except StoreError:
            if not found:  # else the caller has files to unlink, and the next call raises
                raise
        finally:
            for order in self._orders:
                order.rewind()
        return found

    @property
    def evicted(self) -> int:
        """Return the number of entries that were removed for space or idleness."""
        return self.removals.count(RemovalReason.SPACE) + self.removals.count(RemovalReason.IDLE)

    def _add_to_orders(self, entry: Entry) -> None:
        for order in self._orders:
            order.add(entry)

    def _note_size(self, entry: Entry) -> None:
        if entry.state is EntryState.PUBLISHED:
            self._eviction.resize(entry)

    def _refresh_orders(self) -> None:
        for order in self._orders:
            order.refresh()

    def _is_cold(self, row: Outline) -> bool:
        hot = self._hot.get(row.key)
        return self._pending.is_current(row.id) and (hot is None or hot.id != row.id)

    def of_row(self, row: Outline) -> Entry | None:
        """Return the entry of a row: the one in memory, else one that is only good to be removed.

        Returns None if it was removed, and the index does not know it yet.
        """
        if self.is_gone(row.id):
            return None
        hot = self._hot.get(row.key)
        return hot if hot is not None and hot.id == row.id else Entry.from_outline(row, self._index.epoch)

    @property
    def wants_flush(self) -> bool:
        """Return whether a flush is due (see `PendingChanges`)."""
        return self._pending.wants_flush

    def hot_files(self) -> set[str]:
        """Return the names of the files of all entries in memory."""
        return {entry.file_name for entry in self.hot_entries() if entry.file_name is not None}

    @property
    def is_crowded(self) -> bool:
        """Return whether too many files may be open to wait for the housekeeper (docs/invariants.md#descriptors)."""
        return len(self._hot) > self.hot_limit * 5 // 4

    def cool(self) -> list[Entry]:
        """Drop entries from memory if there are too many. Returns them, and the caller closes their files."""
        excess = len(self._hot) - self.hot_limit
        if excess <= 0:
            return []
        idle = (entry for entry in self.hot_entries() if not entry.pins and not self._pending.has(entry))
        dropped = [entry for entry, _ in zip(idle, range(excess), strict=False)]
        for entry in dropped:
            entry.revoke()
            for order in self._orders:
                order.cool(entry)
            del self._hot[entry.key]
            self._cold_bytes += entry.bytes
        self._refresh_orders()
        return dropped

    def cool_first(self, entry: Entry) -> None:
        """Let an entry leave memory before all others, because it came there for no request."""
        if self._hot.get(entry.key) is entry:
            self._hot.move_to_end(entry.key, last=False)

    def close(self) -> list[Entry]:
        """Drop all entries from memory. Returns them, and the caller closes their files."""
        hot = list(self.hot_entries())
        for entry in hot:
            entry.revoke()
        self._hot.clear()
        return hot

    # --- persisting ----------------------------------------------------------------------------------------

    def changes(self) -> Changes:
        """Return the changes to flush. The caller reports their end with `flushed` or `not_flushed`."""
        self._pending.tombstones |= {entry for entry in self._index.corrupt if entry not in self._pending.discarded}
        self._index.corrupt.clear()
        return self._pending.begin()

    def flushed(self, changes: Changes) -> None:
        """Note that the index has the changes."""
        self._pending.commit(changes)
        self._refresh_orders()

    def not_flushed(self, changes: Changes) -> None:
        """Take the changes back, because they could not be written."""
        self._pending.roll_back(changes)
