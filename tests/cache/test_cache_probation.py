"""Both policies with probation: against plain models, and what a crawl may push out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from cache_harness import Rig
from fake_origin import BLOCK, content
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import examples
from test_cache_entries import World, world

from bucketfront.cache.entries import probation
from bucketfront.cache.entries.entry import ENTRY_BYTES, MAX_USES, Entry
from bucketfront.cache.entries.eviction import PolicyFactory
from bucketfront.cache.entries.lru_with_probation import LruWithProbation
from bucketfront.cache.entries.probation import Ghosts
from bucketfront.cache.entries.removals import RemovalReason
from bucketfront.cache.entries.s3_fifo import S3Fifo
from bucketfront.errors import StoreError
from bucketfront.keys import ObjectKey

UNIT = ENTRY_BYTES + BLOCK  # what an entry with one block takes
LIMIT = 20 * UNIT  # so two of them may be on probation
Name = Literal["lru", "s3-fifo"]


@pytest.fixture(params=[LruWithProbation, S3Fifo])
def policy(request: pytest.FixtureRequest) -> PolicyFactory:
    factory: PolicyFactory = request.param
    return factory


def key_of(number: int) -> ObjectKey:
    return ObjectKey("b", f"{number:03}")


class Store:
    """A world that makes room as the cache does, and counts its time in requests."""

    def __init__(self, made: World) -> None:
        self.world = made
        self.now = 1000.0
        self.evicted: list[int] = []

    def request(self, number: int, count: int = 1) -> bool:
        """Request an object of `count` blocks. Returns whether the cache had it."""
        self.now += 1
        entry = self.world.entries.get(key_of(number))
        if entry is not None:
            self.world.entries.use(entry, self.now)
            return True
        self.make_room(ENTRY_BYTES + count * BLOCK)
        entry, _ = self.world.add(key_of(number), self.now)
        for block in range(count):
            self.world.commit(entry, block)
        return False

    def make_room(self, count: int) -> None:
        while (missing := count - self.world.budget.available) > 0:
            victims = self.world.entries.evict(missing)
            assert victims, "every entry is pinned"
            for victim in victims:
                self.evicted.append(int(victim.key.key))
                self.world.entries.free_space(victim)

    def holds(self, number: int) -> bool:
        return self.world.entries.get(key_of(number)) is not None

    def entry(self, number: int) -> Entry:
        entry = self.world.entries.get(key_of(number))
        assert entry is not None
        return entry

    def cool(self) -> None:
        """Let most entries leave memory."""
        self.world.flush()
        self.world.entries.cool()


@pytest.fixture
def store(tmp_path: Path, policy: PolicyFactory) -> Iterator[Store]:
    with world(tmp_path, policy=policy, limit=LIMIT) as made:
        yield Store(made)


def test_a_crawl_does_not_flush_what_is_popular(store: Store) -> None:
    """Objects that were requested again stay, whatever number of others is requested once (I34)."""
    popular = range(16)
    for _ in range(4):
        for number in popular:
            store.request(number)
    for number in range(100, 300):
        assert not store.request(number)
        if number % 10 == 0:
            store.cool()
    assert all(store.holds(number) for number in popular)
    assert set(store.evicted) <= set(range(100, 300))


def test_a_crawl_in_a_full_cache_pushes_out_itself(store: Store) -> None:
    """A crawl takes its share of the space and no more, also if the cache is full of popular objects (I34)."""
    for _ in range(4):
        for number in range(20):
            store.request(number)
    for number in range(100, 300):
        store.request(number)
    assert sum(store.holds(number) for number in range(20)) >= 17


def test_what_comes_back_soon_skips_probation(store: Store) -> None:
    """An object that was removed from probation and is requested again stays while a crawl goes on."""
    for number in range(100, 140):
        store.request(number)
    returned = store.evicted[-3]
    assert not store.request(returned)
    for number in range(200, 230):
        store.request(number)
    assert store.holds(returned)
    assert not store.holds(201)


def test_probation_counts_bytes_that_come_later(store: Store) -> None:
    """An object that grows while it is on probation counts with all its bytes, and is the next victim."""
    for _ in range(4):
        for number in range(16):
            store.request(number)
    store.request(100)
    for block in range(1, 4):
        store.world.commit(store.entry(100), block)
    store.request(101)
    assert store.evicted == [100]


def test_an_object_that_is_read_is_not_removed(store: Store) -> None:
    """A pinned object on probation stays, and goes once it is unpinned (I18)."""
    for _ in range(4):
        for number in range(15):
            store.request(number)
    for number in range(100, 105):
        store.request(number)
    pinned = store.entry(104)
    store.world.entries.pin(pinned)
    for number in range(200, 220):
        store.request(number)
        assert not pinned.is_removed
    store.world.entries.unpin(pinned)
    for number in range(220, 225):
        store.request(number)
    assert pinned.is_removed


def test_a_new_version_is_as_popular_as_the_old_one(store: Store) -> None:
    """A popular object that changes at the origin keeps its place: its new version is not on probation."""
    for _ in range(4):
        for number in range(15):
            store.request(number)
    store.make_room(UNIT)
    entry, old = store.world.add(key_of(3), store.now)
    assert old is not None
    store.world.entries.free_space(old)
    store.world.commit(entry, 0)
    for number in range(100, 200):
        store.request(number)
    assert store.holds(3)


def test_a_restart_ends_every_probation(tmp_path: Path, policy: PolicyFactory) -> None:
    """After a restart, what was cached before goes by its last use, and is still within the limit (I17)."""
    with world(tmp_path, policy=policy, limit=LIMIT) as made:
        store = Store(made)
        for number in range(20):
            store.request(number)
        store.request(0)
        made.flush()
        made.reopen()
        for number in range(100, 103):
            store.request(number)
        assert store.evicted == [1, 2, 3]
        for number in range(200, 300):
            store.request(number)
        assert made.budget.used <= LIMIT
        assert store.holds(0)


def test_a_purge_leaves_no_record(store: Store) -> None:
    """What was purged or removed as idle takes no share of the probation any more."""
    for number in range(10):
        store.request(number)
    store.cool()
    for number in range(10):
        entry = store.entry(number)
        store.world.entries.remove(entry, RemovalReason.PURGED)
        store.world.entries.free_space(entry)
    for number in range(100, 118):
        store.request(number)
        store.request(number)
        store.request(number)
    store.request(200)
    store.request(201)
    assert store.evicted == []


def test_an_index_that_fails_costs_no_victim(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the index fails while a victim is looked for, the next call finds the same one."""
    for number in range(20):
        store.request(number)
    store.cool()

    def fail(_: int) -> None:
        raise StoreError("the index is unreadable")

    with monkeypatch.context() as patch:
        patch.setattr(store.world.index, "outline", fail)
        with pytest.raises(StoreError):
            store.world.entries.evict(1)
    assert [victim.key for victim in store.world.entries.evict(1)] == [key_of(0)]


def test_memory_is_bounded(tmp_path: Path, policy: PolicyFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of records does not grow with that of entries, and all entries are evicted in the end (I17, I19)."""
    for name in ("probation.MAX_RECORDS", "s3_fifo.MAX_RECORDS", "probation.MAX_GHOSTS"):
        monkeypatch.setattr(f"bucketfront.cache.entries.{name}", 8)
    made: list[probation.Queue] = []
    create = probation.Queue.__init__

    def remember(self: probation.Queue) -> None:
        create(self)
        made.append(self)

    monkeypatch.setattr(probation.Queue, "__init__", remember)
    with world(tmp_path, policy=policy, limit=10 * LIMIT) as opened:
        store = Store(opened)
        for _ in range(4):
            for number in range(150):
                store.request(number)
                assert all(len(queue) <= 8 for queue in made)
            store.cool()
        for number in range(200, 400):
            store.request(number)
        assert opened.budget.used <= 10 * LIMIT
        while victims := opened.entries.evict(1 << 60):
            for victim in victims:
                opened.entries.free_space(victim)
        assert len(opened.entries) == 0
        assert all(len(queue) == queue.bytes == 0 for queue in made)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 40)), max_size=50))
def test_names_are_bounded_by_bytes(victims: list[tuple[int, int]]) -> None:
    """The latest victims are remembered, as far as they fit, and each once."""
    ghosts, expected = Ghosts(100), list[tuple[int, int]]()
    for number, count in victims:
        ghosts.add(key_of(number), count)
        expected = [one for one in expected if one[0] != number] + [(number, count)]
        while sum(size for _, size in expected) > 100:
            expected.pop(0)
    assert len(ghosts) == len(expected)
    names = {number for number, _ in expected}
    for number in range(13):
        assert ghosts.remove(key_of(number)) == (number in names)
    assert len(ghosts) == 0


# --- against plain models ------------------------------------------------------------------------------------


class Model:
    """What both policies do, with lists: of `(number, bytes)` on probation, and of the others."""

    def __init__(self, uses_to_pass: int) -> None:
        self.uses_to_pass = uses_to_pass
        self.bytes: dict[int, int] = {}
        self.used_at: dict[int, int] = {}
        self.uses: dict[int, int] = {}
        self.small: list[int] = []
        self.main: list[int] = []
        self.ghosts: list[tuple[int, int]] = []
        self.pins: set[int] = set()

    @property
    def has_too_much(self) -> bool:
        return sum(self.bytes[number] for number in self.small) > LIMIT // 10

    def add(self, number: int, count: int, now: int) -> None:
        skips = self.may_skip
        self.bytes[number], self.used_at[number], self.uses[number] = count, now, 0
        known = [ghost for ghost in self.ghosts if ghost[0] == number]
        self.ghosts = [ghost for ghost in self.ghosts if ghost[0] != number]
        (self.main if known or skips else self.small).append(number)

    @property
    def may_skip(self) -> bool:
        return False

    def remove(self, number: int) -> None:
        for facts in (self.bytes, self.used_at, self.uses):
            del facts[number]
        self.small = [other for other in self.small if other != number]
        self.main = [other for other in self.main if other != number]

    def take(self) -> int | None:
        for number in list(self.small):
            if not self.has_too_much:
                break
            if self.uses[number] >= self.uses_to_pass:
                self.small.remove(number)
                self.main.append(number)
                self.passed(number)
            elif number not in self.pins:
                return self.note(number)
        return self.take_other()

    def passed(self, number: int) -> None:
        pass

    def take_other(self) -> int | None:
        free = [number for number in self.bytes if number not in self.pins]
        if not free:
            return None
        number = min(free, key=lambda number: self.used_at[number])
        return self.note(number) if number in self.small else number

    def note(self, number: int) -> int:
        self.ghosts.append((number, self.bytes[number]))
        while sum(count for _, count in self.ghosts) > LIMIT * 9 // 10:
            self.ghosts.pop(0)
        return number


class FifoModel(Model):
    @property
    def may_skip(self) -> bool:
        # The blocks of the new entry are not charged yet.
        return self.has_too_much and LIMIT - sum(self.bytes.values()) - ENTRY_BYTES > LIMIT // 10

    def passed(self, number: int) -> None:
        self.uses[number] = 0

    def take_other(self) -> int | None:
        while free := [number for number in self.main if number not in self.pins or self.uses[number]]:
            number = free[0]
            if not self.uses[number]:
                return number
            self.uses[number] -= 1
            self.main.remove(number)
            self.main.append(number)
        return super().take_other()


actions = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.integers(0, 40), st.integers(1, 4)),
        st.tuples(st.sampled_from(["pin", "unpin", "remove"]), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("cool"), st.just(0), st.just(0)),
    ),
    max_size=150,
)


@pytest.mark.parametrize(
    ("factory", "make"), [(LruWithProbation, lambda: Model(1)), (S3Fifo, lambda: FifoModel(2))], ids=["lru", "s3-fifo"]
)
@given(script=actions)
@settings(max_examples=examples(8, 25))
def test_victims_are_those_of_a_plain_model(
    factory: PolicyFactory, make: Callable[[], Model], script: list[tuple[str, int, int]]
) -> None:
    """Requests, pins, removals and entries that leave memory: the victims are those of the model, in its order."""
    model = make()
    with TemporaryDirectory() as folder, world(Path(folder), policy=factory, limit=LIMIT) as made:
        store, pinned = Store(made), dict[int, Entry]()
        for what, number, count in script:
            known = number in model.bytes
            if what == "request":
                _request(store, model, number, count)
            elif what == "cool":
                store.cool()
            elif what == "pin" and known and number not in pinned and len(pinned) < 3:
                pinned[number] = store.entry(number)
                made.entries.pin(pinned[number])
                model.pins.add(number)
            elif what == "unpin" and number in pinned:
                made.entries.unpin(pinned.pop(number))
                model.pins.discard(number)
            elif what == "remove" and known and number not in pinned:
                entry = store.entry(number)
                made.entries.remove(entry, RemovalReason.PURGED)
                made.entries.free_space(entry)
                model.remove(number)
            assert made.budget.used == sum(model.bytes.values())


def _request(store: Store, model: Model, number: int, count: int) -> None:
    needed, expected = ENTRY_BYTES + count * BLOCK, list[int]()
    is_known = number in model.bytes
    while not is_known and LIMIT - sum(model.bytes.values()) < needed:
        victim = model.take()
        assert victim is not None
        expected.append(victim)
        model.remove(victim)
    store.evicted.clear()
    assert store.request(number, count) == is_known
    assert store.evicted == expected
    if is_known:
        model.uses[number] = min(MAX_USES, model.uses[number] + 1)
        model.used_at[number] = int(store.now)
    else:
        model.add(number, needed, int(store.now))


# --- through the cache ---------------------------------------------------------------------------------------


@pytest.fixture(params=["lru", "s3-fifo"])
def name(request: pytest.FixtureRequest) -> Name:
    found: Name = request.param
    return found


async def ask(rig: Rig, number: int) -> bool:
    """Request an object as a client does, first by a lease. Returns whether that took no GET of the origin."""
    before = rig.origin.gets
    rig.wall.now += 0.01
    lease = rig.cache.lease(key_of(number))
    if lease is not None:
        rig.cache.record_use(lease, rig.wall())
    else:
        await rig.get(key=key_of(number))
    return rig.origin.gets == before


async def warm(rig: Rig) -> None:
    """Request the ten objects of the hot set repeatedly."""
    for _ in range(4):
        for number in range(10):
            await ask(rig, number)


async def check_hot_set(rig: Rig) -> None:
    """Check that all of the hot set are hits."""
    assert [number for number in range(10) if not await ask(rig, number)] == []
    await rig.audit()


def put(rig: Rig, numbers: range, count: int) -> None:
    for number in numbers:
        rig.origin.put(content(count, seed=number), key=key_of(number), Cache_Control="max-age=99999")


async def test_the_hot_set_outlives_a_crawl(tmp_path: Path, name: Name) -> None:
    """A hot set stays while ten times as many other objects are requested once each (I34)."""
    async with Rig(tmp_path, max_size=24 * UNIT, eviction=name) as rig:
        put(rig, range(120), BLOCK)
        await warm(rig)
        for number in range(10, 110):
            assert not await ask(rig, number)
        assert rig.entries.evicted > 50
        await check_hot_set(rig)


async def test_the_hot_set_outlives_reads_of_single_bytes(tmp_path: Path, name: Name) -> None:
    """One client's ranges of a byte, each of another object and each twice the size, do not flush the hot set (I34)."""
    async with Rig(tmp_path, max_size=24 * UNIT, eviction=name) as rig:
        put(rig, range(10), BLOCK)
        put(rig, range(10, 110), 4 * BLOCK)
        await warm(rig)
        for number in range(10, 110):
            for at in (0, 2 * BLOCK):
                assert len(await rig.get(at, at + 1, key=key_of(number))) == 1
        await check_hot_set(rig)


async def test_uploads_that_are_read_once(tmp_path: Path, name: Name) -> None:
    """Many objects that are uploaded and then read once each do not flush the hot set (I34)."""
    async with Rig(tmp_path, max_size=24 * UNIT, eviction=name) as rig:
        put(rig, range(10), BLOCK)
        await warm(rig)
        for number in range(10, 110):
            upload = rig.cache.begin_write(key_of(number), BLOCK)
            await upload.write(content(BLOCK, seed=number))
            put(rig, range(number, number + 1), BLOCK)
            await rig.cache.publish(upload, '"1"')
            upload.close()
            assert await ask(rig, number)
        await check_hot_set(rig)


async def test_a_range_that_was_not_cached_is_no_second_request(tmp_path: Path, name: Name) -> None:
    """Ranges of an object that need other bytes each time do not make it popular; those that find all bytes do."""
    async with Rig(tmp_path, eviction=name) as rig:
        put(rig, range(1), 8 * BLOCK)
        for at in range(0, 8 * BLOCK, 2 * BLOCK):
            await rig.get(at, at + 1, key=key_of(0))
        entry = rig.entry(key_of(0))
        assert entry.uses == 0
        await rig.get(0, 1, key=key_of(0))
        assert entry.uses == 1


async def test_a_confirmed_version_is_requested_again(tmp_path: Path) -> None:
    """An object whose version the origin confirms each time, as a playlist's, is popular as well."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK), key=key_of(0), Cache_Control="max-age=1")
        for expected in range(3):
            await rig.get(key=key_of(0))
            assert rig.entry(key_of(0)).uses == expected
            rig.wall.now += 5


async def test_each_request_of_a_lease_counts_once(tmp_path: Path) -> None:
    """Requests at the same moment count one by one until the object is popular; a long response counts no second."""
    async with Rig(tmp_path) as rig:
        put(rig, range(1), BLOCK)
        await rig.get(key=key_of(0))
        entry = rig.entry(key_of(0))
        for expected in range(1, MAX_USES + 2):
            lease = rig.cache.lease(key_of(0))
            assert lease is not None
            rig.cache.record_use(lease, rig.wall())
            with rig.cache.reader_of(lease) as reader:
                await rig.read(reader)
            assert entry.uses == min(expected, MAX_USES)


async def test_the_idle_timer_holds_for_each_policy(tmp_path: Path, name: Name) -> None:
    """An idle object is removed, popular or not, and one that is in use stays (I18)."""
    async with Rig(tmp_path, idle_timeout=100.0, eviction=name) as rig:
        put(rig, range(3), BLOCK)
        for number in (0, 0, 0, 0, 1, 2):
            await ask(rig, number)
        rig.wall.now += 90
        await ask(rig, 2)
        rig.wall.now += 20
        await rig.housekeeper.step()
        assert [number for number in range(3) if rig.entries.get(key_of(number)) is not None] == [2]
        await rig.audit()
