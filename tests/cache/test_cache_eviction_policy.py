"""What every eviction policy does: the least recently used first, and one that takes the largest first."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_origin import BLOCK
from test_cache_entries import World, world

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.eviction import EvictionPolicy, KnownEntries, LeastRecentlyUsed, PolicyFactory
from bucketfront.cache.entries.lru_with_probation import LruWithProbation
from bucketfront.cache.entries.removals import RemovalReason
from bucketfront.cache.entries.s3_fifo import S3Fifo
from bucketfront.errors import StoreError
from bucketfront.keys import ObjectKey

ALL = 1 << 60  # bytes: more than all entries have


class LargestFirst:
    """Offers the entry that takes most bytes. It keeps no order, and looks at every entry each time."""

    def __init__(self, known: KnownEntries) -> None:
        self._index = known.index
        self._hot = known.hot
        self._is_cold = known.is_cold

    def add(self, entry: Entry) -> None:
        pass

    def load(self, entry: Entry) -> None:
        pass

    def cool(self, entry: Entry) -> None:
        pass

    def resize(self, entry: Entry) -> None:
        pass

    def remove(self, entry_id: int) -> None:
        pass

    def refresh(self) -> None:
        pass

    def rewind(self) -> None:
        pass

    def take(self) -> Entry | None:
        return max(self._offers(), key=lambda entry: entry.bytes, default=None)

    def _offers(self) -> Iterator[Entry]:
        for entry in self._hot.values():
            if not entry.pins and entry.file_name is not None:
                yield entry
        for row in self._index.oldest(1 << 20):
            if self._is_cold(row):
                yield Entry.from_outline(row, self._index.epoch)


def plain_lru(known: KnownEntries) -> EvictionPolicy:
    return known.recency


@pytest.fixture(params=[plain_lru, LruWithProbation, S3Fifo, LargestFirst])
def policy(request: pytest.FixtureRequest) -> PolicyFactory:
    factory: PolicyFactory = request.param
    return factory


def filled(made: World, count: int) -> list[ObjectKey]:
    """Add entries, the most of which are in the index only; their sizes grow and shrink with their age."""
    keys = [ObjectKey("b", f"{number:03}") for number in range(count)]
    for number, key in enumerate(keys):
        entry, _ = made.add(key, float(number))
        for block in range(number % 4):
            made.commit(entry, block)
    made.flush()
    made.entries.cool()
    return keys


def evicted(made: World) -> list[ObjectKey]:
    """Evict until the policy offers nothing more. Returns the keys in the order of the offers."""
    keys: list[ObjectKey] = []
    while victims := made.entries.evict(ALL):
        keys += [victim.key for victim in victims]
    return keys


def test_every_entry_is_offered_once(tmp_path: Path, policy: PolicyFactory) -> None:
    """All entries are evicted in the end, in memory or not, and none twice (I17)."""
    with world(tmp_path, policy=policy) as made:
        keys = filled(made, 200)
        assert sorted(evicted(made)) == keys
        assert len(made.entries) == 0
        assert made.entries.evicted == 200


def test_no_more_than_needed(tmp_path: Path, policy: PolicyFactory) -> None:
    """An eviction stops once the victims have the bytes that are needed."""
    with world(tmp_path, policy=policy) as made:
        filled(made, 20)
        assert len(made.entries.evict(1)) == 1
        assert sum(victim.bytes for victim in made.entries.evict(3 * BLOCK)) >= 3 * BLOCK
        assert len(made.entries) > 10


def test_pinned_entries_stay(tmp_path: Path, policy: PolicyFactory) -> None:
    """A pinned entry is not evicted. Once it is unpinned, it is (I18)."""
    with world(tmp_path, policy=policy) as made:
        keys = filled(made, 10)
        pinned = [entry for key in keys[::3] if (entry := made.entries.get(key)) is not None]
        for entry in pinned:
            made.entries.pin(entry)
        assert sorted(evicted(made)) == sorted(set(keys) - {entry.key for entry in pinned})
        for entry in pinned:
            made.entries.unpin(entry)
        assert sorted(evicted(made)) == [entry.key for entry in pinned]


def test_removed_entries_are_not_offered(tmp_path: Path, policy: PolicyFactory) -> None:
    """An entry that was removed or replaced is not offered, also before the index is written."""
    with world(tmp_path, policy=policy) as made:
        keys = filled(made, 10)
        for key in keys[:4]:
            entry = made.entries.get(key)
            assert entry is not None
            made.entries.remove(entry, RemovalReason.PURGED)
        replacement, old = made.add(keys[4], 100.0)
        assert old is not None
        victims = made.entries.evict(ALL)
        assert sorted(victim.key for victim in victims) == keys[4:]
        assert replacement.id in {victim.id for victim in victims}
        assert old.id not in {victim.id for victim in victims}


def test_touched_entries_are_offered_once(tmp_path: Path, policy: PolicyFactory) -> None:
    """An access may change an entry's place: it is still evicted, and once."""
    with world(tmp_path, policy=policy) as made:
        keys = filled(made, 30)
        for number, key in enumerate(keys[::2]):
            entry = made.entries.get(key)
            assert entry is not None
            made.entries.touch(entry, 1000.0 + number)
        made.flush()
        made.entries.cool()
        assert sorted(evicted(made)) == keys


def test_an_entry_without_a_file_is_not_offered(tmp_path: Path, policy: PolicyFactory) -> None:
    """An entry that takes no space on the disk frees none, so it is not offered."""
    with world(tmp_path, policy=policy) as made:
        entry, _ = made.add(ObjectKey("b", "x"), 1.0)
        entry.file = entry.file_name = None
        assert made.entries.evict(1) == []


def test_idleness_goes_by_the_last_access(tmp_path: Path, policy: PolicyFactory) -> None:
    """Idle entries are those that were not used for a while, whatever the policy offers first."""
    with world(tmp_path, policy=policy) as made:
        keys = filled(made, 12)
        assert [entry.key for entry in made.entries.evict_idle(5.0)] == keys[:5]
        assert made.entries.evict_idle(5.0) == []
        assert sorted(evicted(made)) == keys[5:]


def test_the_policy_decides(tmp_path: Path) -> None:
    """Each policy keeps its own order."""
    with world(tmp_path / "lru") as made:
        keys = filled(made, 8)
        assert evicted(made) == keys
    with world(tmp_path / "largest", policy=LargestFirst) as made:
        keys = filled(made, 8)
        assert sorted(evicted(made)[:2]) == [keys[3], keys[7]]  # of three blocks each


def test_a_failing_index_costs_no_victim(tmp_path: Path) -> None:
    """Victims that were removed before the index failed are returned, because their files must be unlinked (I17)."""

    class Failing(LeastRecentlyUsed):
        rows_left = 3

        def __init__(self, known: KnownEntries) -> None:
            super().__init__(known.index, known.hot, known.is_cold)

        def take(self, before: float = float("inf")) -> Entry | None:
            if not self.rows_left:
                raise StoreError("the index is unreadable")
            self.rows_left -= 1
            return super().take(before)

    with world(tmp_path, policy=Failing) as made:
        keys = filled(made, 10)
        assert [entry.key for entry in made.entries.evict(ALL)] == keys[:3]
        with pytest.raises(StoreError):
            made.entries.evict(ALL)
        assert len(made.entries) == made.entries.evicted + 4 == 7
