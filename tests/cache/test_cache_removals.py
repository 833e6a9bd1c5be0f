"""Why entries leave the cache and why objects are not stored: counted by reason, and remembered by key."""

import asyncio
from collections import Counter, deque
from pathlib import Path

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, KEY, FakeOrigin, content
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from test_cache_integrity import flipped, md5_etag

from bucketfront.cache.entries.entry import ENTRY_BYTES
from bucketfront.cache.entries.removals import (
    AGE_BOUNDS_S,
    MAX_REMEMBERED,
    Reason,
    RemovalReason,
    Removals,
    StorageRefusal,
)
from bucketfront.errors import DiskFull, ObjectNotFound, StoreError
from bucketfront.http import freshness
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

OTHER = KEY._replace(key="other")


def reasons(rig: Rig) -> dict[str, int]:
    """Return the removals and refusals so far, by reason."""
    counted = [*((figures.reason, figures.count) for figures in rig.cache.removals()), *rig.cache.storage_refusals()]
    return {reason.value: count for reason, count in counted if count}


def last(rig: Rig, key: ObjectKey = KEY) -> Reason | None:
    found = rig.entries.removals.last(key)
    return None if found is None else found.reason


async def test_evicted_for_space(tmp_path: Path) -> None:
    """The victims of a full cache count as evicted for space, with their age and idle time."""
    async with Rig(tmp_path, max_size=BLOCK + ENTRY_BYTES) as rig:
        rig.origin.put(content(BLOCK))
        rig.origin.put(content(BLOCK), key=OTHER)
        await rig.get()
        rig.wall.advance(30)
        await rig.get()
        rig.wall.advance(5)
        await rig.get(key=OTHER)
        assert reasons(rig) == {"space": 1}
        assert rig.cache.statistics().evicted == 1
        found = rig.entries.removals.last(KEY)
        assert found is not None
        assert (found.reason, found.at, found.age, found.idle) == (RemovalReason.SPACE, rig.wall(), 35, 5)
        assert last(rig, OTHER) is None


@pytest.mark.parametrize("hot_limit", [0, 64])
async def test_idle(tmp_path: Path, hot_limit: int) -> None:
    """An entry that nobody uses counts as idle, whether it is in memory or only in the index."""
    async with Rig(tmp_path, hot_limit=hot_limit, idle_timeout=100.0) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        rig.wall.advance(50)
        await rig.get()
        await rig.housekeeper.step()
        assert (rig.entries.hot(KEY) is None) == (hot_limit == 0)
        rig.wall.advance(101)
        await rig.housekeeper.step()
        assert reasons(rig) == {"idle": 1}
        found = rig.entries.removals.last(KEY)
        assert found is not None
        assert (found.age, found.idle) == (151, 101)


async def test_purged_and_written(tmp_path: Path) -> None:
    """A purge and a write through the proxy are told apart, and a soft purge removes nothing."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        await rig.cache.purge([KEY], soft=True)
        assert reasons(rig) == {}
        await rig.cache.purge([KEY])
        assert (reasons(rig), last(rig)) == ({"purged": 1}, RemovalReason.PURGED)
        await rig.get()
        await rig.cache.invalidate(KEY)
        assert (reasons(rig), last(rig)) == ({"purged": 1, "written": 1}, RemovalReason.WRITTEN)


async def test_changed_and_deleted_at_the_origin(tmp_path: Path) -> None:
    """A revalidation that finds another version, and one that finds none, are told apart."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        rig.wall.advance(61)
        rig.origin.put(content(BLOCK, seed=1), '"2"')
        await rig.get()
        assert (reasons(rig), last(rig)) == ({"changed": 1}, RemovalReason.CHANGED)
        rig.wall.advance(61)
        await rig.origin.delete(KEY)
        assert await rig.is_absent()
        assert (reasons(rig), last(rig)) == ({"changed": 1, "deleted": 1}, RemovalReason.DELETED)


async def test_changed_during_a_fill(tmp_path: Path) -> None:
    """A part fetch that meets another version removes the entry as changed."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(9 * BLOCK))
        await rig.get(0, 1)
        data = rig.origin.put(content(9 * BLOCK, seed=1), '"2"')
        with await rig.reader() as reader, pytest.raises(Exception, match='"2"'):
            await rig.read(reader)
        assert reasons(rig) == {"changed": 1}
        assert await rig.get() == data


async def test_corrupt(tmp_path: Path) -> None:
    """Bytes that do not fit S3's checksum remove the entry as corrupt, and not as changed."""
    data = content(2 * BLOCK)
    origin = FakeOrigin(lies=deque([flipped(data, 5), None]))
    async with Rig(tmp_path, origin=origin) as rig:
        rig.origin.put(data, md5_etag(data))
        with await rig.reader() as reader, pytest.raises(Exception, match="not what S3 says"):
            await rig.read(reader)
        await turns()
        assert (reasons(rig), last(rig)) == ({"corrupt": 1}, RemovalReason.CORRUPT)


async def test_lost(tmp_path: Path) -> None:
    """An entry whose file is gone counts as lost."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        await rig.close()
    async with Rig(tmp_path, origin=rig.origin) as rig:
        (file,) = rig.stored_files().values()
        file.unlink()
        await rig.get()
        assert (reasons(rig), last(rig)) == ({"lost": 1}, RemovalReason.LOST)


@pytest.mark.parametrize("control", ["no-store", "private"])
async def test_an_object_that_forbids_storing(tmp_path: Path, control: str) -> None:
    """An object with no-store or private is refused for that, and does not count as a removal."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK), Cache_Control=control)
        await rig.get()
        await turns()
        assert (reasons(rig), last(rig)) == ({control: 1}, StorageRefusal(control))


async def test_a_rule_that_forbids_storing(tmp_path: Path) -> None:
    """A rule with `cache: false` is another reason than the object's own headers."""

    def policy(_: ObjectKey, metadata: Metadata, now: float) -> Freshness:
        return freshness.policy(metadata, freshness.Defaults(60.0, 0.0, 0.0, 0.0), now, cache=False)

    async with Rig(tmp_path, policy=policy) as rig:
        rig.origin.put(content(BLOCK), Cache_Control="no-store")
        await rig.get()
        assert last(rig) is StorageRefusal.RULE


async def test_an_object_without_a_validator(tmp_path: Path) -> None:
    """An object whose versions cannot be told apart is not stored."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK), '""')
        await rig.get()
        assert last(rig) is StorageRefusal.NO_VALIDATOR


async def test_an_object_larger_than_the_cache(tmp_path: Path) -> None:
    """An object that can never fit is too large, and one that does not fit beside what is read finds no room."""
    async with Rig(tmp_path, max_size=4 * BLOCK) as rig:
        rig.origin.put(content(5 * BLOCK))
        await rig.get()
        assert last(rig) is StorageRefusal.TOO_LARGE
        rig.origin.put(content(3 * BLOCK), key=OTHER)
        with await rig.reader(OTHER) as reader:
            await rig.read(reader)
            third = KEY._replace(key="third")
            rig.origin.put(content(3 * BLOCK), key=third)
            await rig.get(key=third)
            assert last(rig, third) is StorageRefusal.NO_ROOM
        assert set(reasons(rig)) >= {"too-large", "no-room"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [(DiskFull("full"), StorageRefusal.DISK_FULL), (StoreError("failed"), StorageRefusal.DISK_FAILING)],
)
async def test_a_disk_that_takes_no_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: StoreError, reason: StorageRefusal
) -> None:
    """A full disk and a failing one are told apart."""

    async def refuse(*_: object) -> None:
        raise error

    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(BLOCK))
        monkeypatch.setattr(rig.store, "write", refuse)
        assert await rig.get() == data
        await turns()
        assert last(rig) is reason


async def test_overtaken_by_a_purge(tmp_path: Path) -> None:
    """The result of a lookup during which the key was purged is not stored, and that is the reason (I6)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        rig.origin.door = asyncio.Event()
        looking = asyncio.create_task(rig.reader())
        await turns()
        await rig.cache.purge([KEY])
        rig.origin.door.set()
        (await looking).close()
        assert (reasons(rig), last(rig)) == ({"overtaken": 1}, StorageRefusal.OVERTAKEN)


async def test_an_absent_object_is_no_removal(tmp_path: Path) -> None:
    """A 404 for a key that was never cached leaves no reason behind."""
    async with Rig(tmp_path) as rig:
        assert await rig.is_absent()
        assert (reasons(rig), last(rig)) == ({}, None)
        with pytest.raises(ObjectNotFound):
            rig.origin.find(KEY)


KEYS = st.integers(0, 12).map(lambda number: ObjectKey("bucket", str(number)))
SECONDS = st.integers(0, 10**7)
STEPS = st.lists(st.tuples(KEYS, st.sampled_from([*RemovalReason, *StorageRefusal]), SECONDS, SECONDS))


@given(steps=STEPS, limit=st.integers(1, 8))
def test_figures_and_memory_agree_with_a_plain_list(
    steps: list[tuple[ObjectKey, Reason, int, int]], limit: int
) -> None:
    """The counts and histograms are those of a list of all removals, and the memory has the latest keys of it (I19)."""
    clock = FakeClock(2e7)
    removals = Removals(clock, limit)
    for key, reason, age, idle in steps:
        clock.advance(1)
        if isinstance(reason, RemovalReason):
            removals.removed(key, reason, clock() - age, clock() - idle)
        else:
            removals.refused(key, reason)
    counts = Counter(reason for _, reason, _, _ in steps)
    for figures in removals.figures:
        assert figures.count == counts[figures.reason] == sum(figures.ages) == sum(figures.idles)
        ages = [age for _, reason, age, _ in steps if reason is figures.reason]
        assert figures.age_sum == sum(ages)
        for number, bound in enumerate(AGE_BOUNDS_S, 1):
            assert sum(figures.ages[:number]) == sum(age <= bound for age in ages)
    assert dict(removals.refusals) == {reason: counts[reason] for reason in StorageRefusal}
    latest = {key: reason for key, reason, _, _ in steps}
    kept = list(dict.fromkeys(key for key, *_ in reversed(steps)))[:limit]
    assert len(removals) == len(kept)
    for key, reason in latest.items():
        found = removals.last(key)
        assert (found is not None) == (key in kept)
        assert found is None or found.reason is reason


def test_a_clock_that_lags_gives_no_negative_age() -> None:
    """A time of an earlier run that is ahead of the clock counts as an age of 0."""
    removals = Removals(FakeClock(10.0))
    removals.removed(KEY, RemovalReason.IDLE, stored_at=50.0, accessed_at=60.0)
    found = removals.last(KEY)
    assert found is not None
    assert (found.age, found.idle) == (0, 0)


def test_the_memory_is_bounded() -> None:
    """Removals of more keys than MAX_REMEMBERED push out the oldest ones (I19)."""
    removals = Removals(FakeClock())
    for number in range(MAX_REMEMBERED + 10):
        removals.refused(ObjectKey("bucket", str(number)), StorageRefusal.NO_STORE)
    assert len(removals) == MAX_REMEMBERED
    assert removals.last(ObjectKey("bucket", "9")) is None
    assert removals.last(ObjectKey("bucket", "10")) is not None
