"""Leases: when the cache grants and revokes them, and which bodies stay in memory."""

from pathlib import Path

import pytest
from cache_harness import Rig, steady
from fake_origin import BLOCK, KEY, content
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.entries.hot_bodies import MAX_BODY_BYTES, OVERHEAD_BYTES, HotBodies
from bucketfront.cache.entries.lease import Lease
from bucketfront.cache.entries.removals import RemovalReason
from bucketfront.cache.storage.storage import Region
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

SIZE = 2 * BLOCK + 77
KEPT = 10_000  # bytes: small enough to be kept in memory


async def filled(rig: Rig, size: int = SIZE) -> Lease:
    data = rig.origin.put(content(size))
    assert await rig.get() == data
    await rig.audit()
    hit = rig.cache.lease(KEY)
    assert hit is not None
    assert hit.is_valid
    assert (hit.body or data) == data
    return hit


async def test_granted_for_whole_fresh_objects_only(tmp_path: Path) -> None:
    """No lease is granted on an object that is unknown, incomplete, stale or known by its metadata only."""
    async with Rig(tmp_path, policy=steady(ttl=60, revalidate=30)) as rig:
        assert rig.cache.lease(KEY) is None
        rig.origin.put(content(SIZE))
        (await rig.reader(wants_body=False)).close()
        assert rig.cache.lease(KEY) is None
        await rig.get(0, BLOCK)
        assert rig.cache.lease(KEY) is None
        await rig.get()
        assert rig.cache.lease(KEY) is not None
        rig.wall.advance(60)
        assert rig.cache.lease(KEY) is None


async def test_not_granted_for_unverified_blocks(tmp_path: Path) -> None:
    """After an unclean stop each block is verified before its object gets a lease (I15)."""
    async with Rig(tmp_path) as rig:
        await filled(rig)
        await rig.flusher.flush()
        rig.abandon()
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(SIZE))
        (await rig.reader()).close()
        assert rig.entry().unverified
        assert rig.cache.lease(KEY) is None
        await rig.get()
        assert rig.cache.lease(KEY) is not None


async def test_not_given_to_what_is_cold(tmp_path: Path) -> None:
    """An entry that only the index has gets no lease, because that would read the disk."""
    async with Rig(tmp_path, hot_limit=1) as rig:
        hit = await filled(rig)
        await rig.flusher.flush()
        other = KEY._replace(key="other")
        rig.origin.put(content(10), key=other)
        await rig.get(key=other)
        await rig.housekeeper.step()
        assert not hit.is_valid
        assert hit.body is None
        assert rig.cache.lease(KEY) is None


def _remove(entries: EntryTable, entry: Entry) -> None:
    entries.remove(entry, RemovalReason.PURGED)


def _expire(entries: EntryTable, entry: Entry) -> None:
    entries.expire(entry)


def _validate(entries: EntryTable, entry: Entry) -> None:
    entries.confirm(entry, entry.metadata, entry.validated_at + 1)


def _lose(entries: EntryTable, entry: Entry) -> None:
    entries.lose(entry, 0)


@each_row("change", [_remove, _expire, _validate, _lose])
async def test_revoked(tmp_path: Path, change: object) -> None:
    """Every change of an entry revokes its lease at once, and drops its body from memory (I5, I6, I15)."""
    async with Rig(tmp_path) as rig:
        hit = await filled(rig, KEPT)
        assert hit.body is not None
        change(rig.entries, rig.entry())  # type: ignore[operator] # one of the four above
        assert not hit.is_valid
        assert hit.body is None
        again = rig.cache.lease(KEY)
        assert again is not hit
        assert (again is not None) == (change is _validate)
        rig.abandon()


@pytest.mark.parametrize("soft", [False, True])
async def test_revoked_by_a_purge(tmp_path: Path, soft: bool) -> None:
    """A purge, hard or soft, revokes the lease before it returns."""
    async with Rig(tmp_path) as rig:
        hit = await filled(rig)
        assert await rig.cache.purge([KEY], soft=soft) == 1
        assert not hit.is_valid
        assert rig.cache.lease(KEY) is None


async def test_revoked_at_the_end(tmp_path: Path) -> None:
    """A stop revokes the lease, because its file is closed."""
    async with Rig(tmp_path) as rig:
        hit = await filled(rig)
        await rig.close()
        assert not hit.is_valid


async def test_use_counts_and_touches(tmp_path: Path) -> None:
    """Each use counts as a hit. The idle timer is reset once a second, and when the clock is set back."""
    async with Rig(tmp_path) as rig:
        hit = await filled(rig)
        before = rig.cache.statistics().hits
        at = rig.entry().accessed_at
        for advance, touched in ((0.4, 0.0), (0.4, 0.0), (0.4, 1.2), (-50.0, -48.8)):
            rig.wall.advance(advance)
            rig.cache.record_use(hit, rig.wall())
            assert rig.entry().accessed_at == pytest.approx(at + touched)
        assert rig.cache.statistics().hits == before + 4


async def test_pushed_out_of_memory(tmp_path: Path) -> None:
    """An object that others push out of memory gets a lease with its body again at its next request."""
    async with Rig(tmp_path, memory=3 * (KEPT + OVERHEAD_BYTES)) as rig:
        hits = []
        for number in range(4):
            key = KEY._replace(key=f"{number}")
            rig.origin.put(content(KEPT), key=key)
            await rig.get(key=key)
            hits.append(rig.cache.lease(key))
        assert [hit is not None and hit.is_valid for hit in hits] == [False, True, True, True]
        again = rig.cache.lease(KEY._replace(key="0"))
        assert again is not None
        assert again.body == content(KEPT)


def lent(size: int) -> Lease:
    return Lease(ObjectKey("b", "k"), 1, Metadata('"1"', size), Region(-1, 0, size), 0.0, 1.0, bytes(size))


@given(st.integers(0, 20_000), st.lists(st.tuples(st.integers(0, 5000), st.booleans()), max_size=40))
def test_memory(limit: int, uses: list[tuple[int, bool]]) -> None:
    """The bound holds after every step, and the least recently used body is pushed out."""
    memory = HotBodies(limit)
    model: list[Lease] = []  # least recently used first
    for size, touches in uses:
        if touches and model:
            model.append(model.pop(size % len(model)))
            memory.touch(model[-1])
        elif memory.has_room_for(size):
            hit = lent(size)
            gone = memory.keep(hit)
            model.append(hit)
            assert gone == model[: len(gone)]
            model = model[len(gone) :]
        assert memory.used == sum(each.metadata.size + OVERHEAD_BYTES for each in model) <= limit


def test_small() -> None:
    """A body that is kept whole fits into a connection's share of memory (I19)."""
    assert MAX_BODY_BYTES <= 128 << 10
