"""What operators see of the cache: frozen values, taken at one moment. Taking them changes nothing.

No request goes to the origin, no use is counted, no file is opened, and no entry comes into memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bucketfront.cache.clock import Clock
from bucketfront.cache.entries.decision import Decision, decide
from bucketfront.cache.entries.entry import ENTRY_BYTES, Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.entries.negative_cache import NegativeCache
from bucketfront.cache.entries.removals import Removal
from bucketfront.cache.fetch.fill import Fill
from bucketfront.cache.fetch.fill_view import MAX_RUNS, FillView
from bucketfront.cache.fetch.single_flight import Lookups
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.records import NEVER_VALIDATED, decode_key, encode_key
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey


@dataclass(frozen=True, slots=True)
class EntryView:
    """An entry. Times are in seconds since the epoch, by the cache's clock; `age` and `ttl` are in seconds.

    `validated_at` is None if the entry counts as stale whatever its lifetime is, as after a soft purge. `stored` counts
    the object's bytes on the disk, in whole units of the file system. `is_hot` is true for an entry in memory.
    """

    key: ObjectKey
    metadata: Metadata
    freshness: Freshness
    stored: int
    stored_at: float
    validated_at: float | None
    accessed_at: float
    age: float
    ttl: float
    is_hot: bool


@dataclass(frozen=True, slots=True)
class BlockView:
    """The blocks of an entry.

    `runs` are the first MAX_RUNS runs of present blocks, each from its first block up to the one behind its last.
    `present` counts the bytes in them. `unverified` blocks are compared with their checksum before they are sent.
    """

    block_size: int
    count: int
    runs: tuple[tuple[int, int], ...]
    present: int
    unverified: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class KeyView:
    """All that the cache knows of a key, and what the next GET of it would find.

    `pins` and `uses` are of an entry in memory. `absent_for` is the time in seconds for which a 404 holds. `is_refused`
    is true while a 403 or a failure of an optional object is remembered. `removal` is the last known reason why the
    key had no entry, or why some of its bytes were not stored.
    """

    key: ObjectKey
    now: float
    decision: Decision
    entry: EntryView | None
    blocks: BlockView | None
    state: str | None
    pins: int
    uses: int | None
    fill: FillView | None
    is_looked_up: bool
    absent_for: float | None
    is_refused: bool
    removal: Removal | None


class Views:
    """Takes views of keys and of pages of entries. `clock` is the cache's clock."""

    def __init__(
        self, entries: EntryTable, negative_cache: NegativeCache, lookups: Lookups, clock: Clock, block_size: int
    ) -> None:
        self._entries = entries
        self._negative_cache = negative_cache
        self._lookups = lookups
        self._clock = clock
        self._block_size = block_size

    def of_key(self, key: ObjectKey) -> KeyView:
        """Return what is known of a key. Raises StoreError if the index fails."""
        now = self._clock()
        entry = self._entries.peek(key)
        absent_for = None if entry is not None else self._negative_cache.ttl(key, now)
        is_hot = entry is not None and self._entries.hot(key) is entry
        fill = entry.fill if entry is not None else None
        return KeyView(
            key=key,
            now=now,
            decision=decide(entry, absent_for, now),
            entry=None if entry is None else self._of_entry(entry, now),
            blocks=None if entry is None else self._blocks_of(entry),
            state=None if entry is None else entry.state.name.lower(),
            pins=0 if entry is None else entry.pins,
            uses=entry.uses if entry is not None and is_hot else None,
            fill=_view_of(fill) if isinstance(fill, Fill) else None,
            is_looked_up=self._lookups.is_running(key),
            absent_for=absent_for,
            is_refused=entry is None and self._negative_cache.refusal(key, now) is not None,
            removal=self._entries.removals.last(key),
        )

    def below(
        self, bucket: str, prefix: str, after: ObjectKey | None, limit: int
    ) -> tuple[Sequence[EntryView], ObjectKey | None]:
        """Return the entries below a prefix in the order of their keys, only those behind `after`, at most `limit`.

        The second value is the key behind which the next page begins, None at the end. Raises StoreError if the index
        fails.
        """
        now = self._clock()
        start = b"" if after is None else encode_key(after)
        found, last = self._entries.page(bucket, prefix, start, limit)
        return [self._of_entry(entry, now) for entry in found], None if last is None else decode_key(bucket, last)

    def _of_entry(self, entry: Entry, now: float) -> EntryView:
        return EntryView(
            key=entry.key,
            metadata=entry.metadata,
            freshness=entry.freshness,
            stored=max(0, min(entry.metadata.size, entry.bytes - ENTRY_BYTES)),
            stored_at=entry.stored_at,
            validated_at=None if entry.validated_at == NEVER_VALIDATED else entry.validated_at,
            accessed_at=entry.accessed_at,
            age=entry.age(now) if entry.validated_at != NEVER_VALIDATED else max(0.0, now - entry.stored_at),
            ttl=entry.ttl(now) if entry.validated_at != NEVER_VALIDATED else 0.0,
            is_hot=self._entries.hot(entry.key) is entry,
        )

    def _blocks_of(self, entry: Entry) -> BlockView:
        size = entry.metadata.size
        return BlockView(
            block_size=self._block_size,
            count=blocks.block_count(size, self._block_size),
            runs=blocks.first_runs(entry.present, MAX_RUNS),
            present=blocks.byte_count(entry.present, size, self._block_size),
            unverified=entry.unverified.bit_count(),
            is_complete=entry.is_complete(self._block_size),
        )


def _view_of(fill: Fill) -> FillView | None:
    """Return the view of a fill, or None if it is at rest."""
    view = fill.view()
    return view if view.part_count or view.reader_count else None
