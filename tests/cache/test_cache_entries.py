"""The entries in memory and in the index, against a model."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cache_harness import steady
from fake_origin import BLOCK, KEY
from fakes import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import examples

from bucketfront.cache.entries.budget import Budget
from bucketfront.cache.entries.entry import ENTRY_BYTES, Entry, EntryState
from bucketfront.cache.entries.entry_table import PAGE_ENTRIES, EntryTable
from bucketfront.cache.entries.eviction import PolicyFactory
from bucketfront.cache.entries.removals import RemovalReason, Removals
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import Outline
from bucketfront.cache.storage.storage import Region, StoredFile
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

SIZE = 4 * BLOCK + 5


class World:
    """Entries over an index in a folder. It does in one step what the cache around them would do."""

    def __init__(
        self, folder: Path, hot_limit: int = 3, policy: PolicyFactory | None = None, limit: int = 1 << 40
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.limit = limit
        self.policy = policy
        self.hot_limit = hot_limit
        self.names = 0
        self.open()

    def open(self) -> None:
        self.index = Index(self.folder / "index.db", "one", block_size=BLOCK)
        self.index.open()
        self.budget = Budget(self.limit)
        self.entries = EntryTable(
            self.index,
            self.budget,
            steady(),
            block_size=BLOCK,
            hot_limit=self.hot_limit,
            removals=Removals(FakeClock(0.0)),
            eviction=self.policy,
        )
        self.entries.open()

    def add(self, key: ObjectKey, now: float) -> tuple[Entry, Entry | None]:
        entry = self.entries.create(key, Metadata(f'"{now}"', SIZE), now)
        old = self.entries.publish(entry)
        self.budget.take(ENTRY_BYTES)
        self.names += 1
        self.entries.attach(entry, StoredFile(f"{self.names:026d}", Region(-1, 0, 0)))
        return entry, old

    def commit(self, entry: Entry, block: int) -> None:
        took = blocks.allocated(1 << block, SIZE, BLOCK)
        self.budget.take(took)
        assert self.entries.charge(entry, range(block, block + 1)) == took
        self.entries.commit(entry, block, [block + 1])

    def flush(self) -> None:
        changes = self.entries.changes()
        asyncio.run(self.index.flush(changes))
        self.entries.flushed(changes)

    def reopen(self) -> None:
        """Start again as after a kill, which loses what was not flushed."""
        self.index.abandon()
        self.open()


@contextmanager
def world(
    folder: Path, hot_limit: int = 3, policy: PolicyFactory | None = None, limit: int = 1 << 40
) -> Iterator[World]:
    made = World(folder, hot_limit, policy, limit)
    try:
        yield made
    finally:
        made.index.abandon()


@dataclass
class Known:
    """What the model knows of a published entry."""

    etag: str
    present: set[int] = field(default_factory=set)
    accessed_at: float = 0.0

    @property
    def bytes(self) -> int:
        return ENTRY_BYTES + sum(blocks.allocated(1 << block, SIZE, BLOCK) for block in self.present)


actions = st.lists(
    st.tuples(
        st.sampled_from(
            ["add", "commit", "commit", "lose", "touch", "pin", "unpin", "remove", "settle", "victims", "idle",
             "flush", "failed flush", "cool", "kill"]
        ),
        st.integers(0, 5),
        st.integers(0, 4),
    ),
    max_size=60,
)  # fmt: skip


class Model:
    """Applies an action to the world and to plain dicts, and compares them."""

    def __init__(self, made: World) -> None:
        self.world = made
        self.live: dict[ObjectKey, Known] = {}
        self.pinned: list[Entry] = []
        self.unsettled: list[Entry] = []
        self.now = 1000.0

    def do(self, what: str, which: int, block: int) -> None:
        self.now += 1.0
        getattr(self, what.replace(" ", "_"))(ObjectKey("b", str(which)), block)
        self.check()

    def _gone(self, entry: Entry) -> None:
        entry.become(EntryState.UNLINKED)
        self.live.pop(entry.key, None)
        self.unsettled.append(entry)

    def add(self, key: ObjectKey, _: int) -> None:
        entry, old = self.world.add(key, self.now)
        if old is not None:
            self._gone(old)
        self.live[key] = Known(entry.metadata.etag, accessed_at=self.now)

    def commit(self, key: ObjectKey, block: int) -> None:
        entry = self.world.entries.get(key)
        if entry is not None and not entry.present >> block & 1:
            self.world.commit(entry, block)
            self.live[key].present.add(block)

    def lose(self, key: ObjectKey, block: int) -> None:
        entry = self.world.entries.get(key)
        if entry is not None and entry.present >> block & 1:
            self.world.entries.lose(entry, block)
            self.live[key].present.discard(block)

    def touch(self, key: ObjectKey, _: int) -> None:
        entry = self.world.entries.get(key)
        if entry is not None:
            self.world.entries.touch(entry, self.now)
            self.live[key].accessed_at = self.now

    def pin(self, key: ObjectKey, _: int) -> None:
        entry = self.world.entries.get(key)
        if entry is not None:
            self.world.entries.pin(entry)
            self.pinned.append(entry)

    def unpin(self, *_: object) -> None:
        if self.pinned:
            entry = self.pinned.pop(0)
            last = self.world.entries.unpin(entry)
            assert last == (entry.is_removed and entry not in self.pinned)

    def remove(self, key: ObjectKey, _: int) -> None:
        entry = self.world.entries.get(key)
        if entry is not None:
            self.world.entries.remove(entry, RemovalReason.PURGED)
            self._gone(entry)

    def settle(self, *_: object) -> None:
        for entry in [entry for entry in self.unsettled if not entry.pins]:
            self.world.entries.free_space(entry)
            self.unsettled.remove(entry)

    def victims(self, _: ObjectKey, block: int) -> None:
        busy = {entry.key for entry in self.pinned if not entry.is_removed}
        order = sorted((k for k in self.live if k not in busy), key=lambda key: self.live[key].accessed_at)
        wanted = block * BLOCK + 1
        expected = []
        for key in order:
            if wanted <= 0:
                break
            expected.append(key)
            wanted -= self.live[key].bytes
        found = self.world.entries.evict(block * BLOCK + 1)
        assert [entry.key for entry in found] == expected
        for entry in found:
            assert not entry.pins
            self._gone(entry)

    def idle(self, _: ObjectKey, block: int) -> None:
        before = self.now - 10 * block
        busy = {entry.key for entry in self.pinned if not entry.is_removed}
        expected = {k for k, known in self.live.items() if known.accessed_at < before and k not in busy}
        found = self.world.entries.evict_idle(before)
        assert {entry.key for entry in found} == expected
        assert len(found) == len(expected)
        for entry in found:
            self._gone(entry)

    def flush(self, *_: object) -> None:
        self.world.flush()

    def failed_flush(self, *_: object) -> None:
        changes = self.world.entries.changes()
        self.world.entries.not_flushed(changes)

    def cool(self, *_: object) -> None:
        # The housekeeper does it right after a flush, too.
        self.world.flush()
        for entry in self.world.entries.cool():
            assert not entry.pins

    def kill(self, *_: object) -> None:
        if self.pinned or self.unsettled:
            return
        self.world.flush()
        self.world.reopen()

    def check(self) -> None:
        entries, budget = self.world.entries, self.world.budget
        assert budget.used == sum(known.bytes for known in self.live.values()) + sum(
            entry.bytes for entry in self.unsettled
        )
        assert budget.used >= 0
        assert len(entries) == len(self.live)

    def compare(self) -> None:
        """Check that lookups find what the model has: no removed entry comes back, and no block is lost."""
        for number in range(6):
            key = ObjectKey("b", str(number))
            entry = self.world.entries.get(key)
            known = self.live.get(key)
            assert (entry is None) == (known is None)
            if entry is not None and known is not None:
                assert entry.metadata.etag == known.etag
                assert entry.present == sum(1 << block for block in known.present)
                assert entry.bytes == known.bytes
                assert entry.accessed_at == known.accessed_at
                assert [self.world.entries.checksum(entry, block) for block in known.present] == [
                    block + 1 for block in known.present
                ]


@settings(max_examples=examples(40, 150), deadline=None)
@given(actions)
def test_entries_do_what_a_dict_would(work: list[tuple[str, int, int]]) -> None:
    """After any actions in any order the budget is the sum of the entries. Victims are the least recently used ones and
    never pinned. No removed entry comes back, and no flushed one is lost (I6, I17, I18).
    """
    with TemporaryDirectory() as folder, world(Path(folder)) as made:
        model = Model(made)
        for action in work:
            model.do(*action)
        model.compare()
        while model.pinned:
            model.unpin()
        model.settle()
        model.check()
        made.flush()
        made.reopen()
        model.check()
        model.compare()


def test_a_long_download_is_a_recent_use(tmp_path: Path) -> None:
    """The least recently used entry is evicted first, also if an older one was unpinned just now."""
    with world(tmp_path) as made:
        long, short = KEY, KEY._replace(key="short")
        made.add(long, 1.0)
        made.add(short, 2.0)
        entry = made.entries.get(long)
        assert entry is not None
        made.entries.get(short)
        made.entries.touch(entry, 100.0)  # its reader closes
        assert [victim.key for victim in made.entries.evict(1)] == [short]


def test_a_begun_block_stays_charged(tmp_path: Path) -> None:
    """The beginning of an unfinished block is charged once: in memory, in the index, and when the block is finished."""
    with world(tmp_path, hot_limit=0) as made:
        entry, _ = made.add(KEY, 1.0)
        made.flush()
        made.budget.take(BLOCK)
        assert made.entries.charge(entry, range(1, 2)) == BLOCK
        assert made.entries.charge(entry, range(1, 2)) == 0
        made.flush()
        assert made.entries.cool() in ([], [entry])
        assert made.budget.used == made.index.totals()[0] == ENTRY_BYTES + BLOCK
        again = made.entries.get(KEY)
        assert again is not None
        assert again.bytes == ENTRY_BYTES + BLOCK


def test_blocks_are_charged_and_committed_by_the_run(tmp_path: Path) -> None:
    """A run of blocks costs what its new blocks take, and each of its checksums reaches the index."""
    with world(tmp_path) as made:
        entry, _ = made.add(KEY, 1.0)
        made.commit(entry, 1)
        entry.lost = {0, 3}
        last = blocks.block_count(SIZE, BLOCK)
        made.budget.take(blocks.allocated(blocks.all_blocks(SIZE, BLOCK) & ~2, SIZE, BLOCK))
        assert made.entries.charge(entry, range(last)) == blocks.allocated(
            blocks.all_blocks(SIZE, BLOCK) & ~2, SIZE, BLOCK
        )
        made.entries.commit(entry, 2, list(range(100, 98 + last)))
        assert entry.present == blocks.all_blocks(SIZE, BLOCK) & ~1
        assert entry.new_sums == {1: 2, **{block: 98 + block for block in range(2, last)}}
        assert entry.lost == {0}
        assert entry.bytes == ENTRY_BYTES + blocks.allocated(blocks.all_blocks(SIZE, BLOCK), SIZE, BLOCK)


@pytest.mark.parametrize(
    "header", [("Expires", "Thu, 01 Jan 2037 00:00:00 GMT"), ("Cache-Control", "max-age=9999999999")]
)
def test_a_soft_purge_outlasts_a_reload(tmp_path: Path, header: tuple[str, str]) -> None:
    """A stale entry is still stale when it is read from the index again, whatever its headers are (I27)."""
    with world(tmp_path, hot_limit=0) as made:
        now = 1_700_000_000.0
        entry = made.entries.create(KEY, Metadata('"1"', SIZE, None, (header,)), now)
        made.entries.publish(entry)
        made.budget.take(ENTRY_BYTES)
        made.entries.attach(entry, StoredFile("0" * 26, Region(-1, 0, 0)))
        assert entry.ttl(now) > 0
        made.entries.expire(entry)
        assert entry.ttl(now) <= 0
        made.flush()
        assert made.entries.cool() == [entry]
        again = made.entries.get(KEY)
        assert again is not None
        assert again is not entry
        assert again.ttl(now) <= 0


def test_changes_during_a_flush_are_not_lost(tmp_path: Path) -> None:
    """Changes that are made while a flush runs go into the next flush."""
    with world(tmp_path) as made:
        entry, _ = made.add(KEY, 1.0)
        made.commit(entry, 0)
        changes = made.entries.changes()
        made.commit(entry, 1)
        made.entries.touch(entry, 50.0)
        asyncio.run(made.index.flush(changes))
        made.entries.flushed(changes)
        assert made.entries.changes()
        made.entries.not_flushed(changes)
        made.flush()
        made.reopen()
        again = made.entries.get(KEY)
        assert again is not None
        assert (again.present, again.accessed_at) == (0b11, 50.0)


def test_an_entry_removed_during_a_flush_stays_removed(tmp_path: Path) -> None:
    """A flush that began before a removal does not bring the entry back (I6)."""
    with world(tmp_path) as made:
        entry, _ = made.add(KEY, 1.0)
        changes = made.entries.changes()
        made.entries.remove(entry, RemovalReason.PURGED)
        asyncio.run(made.index.flush(changes))
        made.entries.flushed(changes)
        assert made.entries.get(KEY) is None
        made.flush()
        made.reopen()
        assert made.entries.get(KEY) is None
        assert len(made.entries) == 0


def test_a_turn_is_bounded(tmp_path: Path) -> None:
    """One turn of the event loop evicts one page of entries at most, oldest first, and reads few rows (I18)."""
    with world(tmp_path, hot_limit=10) as made:
        for number in range(5 * PAGE_ENTRIES):
            made.add(ObjectKey("b", str(number)), 1000.0 + number)
        made.flush()
        made.entries.cool()
        reads: list[int] = []
        oldest = made.index.oldest

        def counted(limit: int, after: Outline | None = None) -> list[Outline]:
            reads.append(limit)
            return oldest(limit, after)

        made.index.oldest = counted  # type: ignore[method-assign]
        for turn in range(5):
            reads.clear()
            found = made.entries.evict(1 << 60) if turn % 2 else made.entries.evict_idle(1e9)
            assert [int(entry.key.key) for entry in found] == list(
                range(turn * PAGE_ENTRIES, (turn + 1) * PAGE_ENTRIES)
            )
            assert sum(reads) <= 3 * PAGE_ENTRIES
        assert made.entries.evict(1) == made.entries.evict_idle(1e9) == []
