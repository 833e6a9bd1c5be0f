"""Purges of many entries: what is discarded is gone for lookups at once, and its bytes stay charged until they are."""

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, FakeOrigin, content
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.cache.entries import entry_table
from bucketfront.cache.entries.entry import ENTRY_BYTES
from bucketfront.cache.entries.id_set import IdSet
from bucketfront.cache.entries.removals import RemovalReason
from bucketfront.cache.storage.folder import Folder
from bucketfront.cache.storage.verification import verify
from bucketfront.cache.upkeep import discard_queue, idle_removal, purge
from bucketfront.cache.upkeep.purge import PurgeMode
from bucketfront.cache.upkeep.purge_selection import KeyRange, PathGlob, PurgeSelection
from bucketfront.errors import StoreError
from bucketfront.keys import ObjectKey

CHARGED = BLOCK + ENTRY_BYTES  # bytes of each entry
COUNT = 9  # after whose last page the index lacks some
ALL = PurgeSelection.of(everything=True)
SELECTIONS = {
    "all": ALL,
    "prefix": PurgeSelection.of(ranges=[KeyRange("bucket", "k/")]),
    "glob": PurgeSelection.of(ranges=[KeyRange("bucket", "", PathGlob("**/0??"))]),
    "tag": PurgeSelection.of(tags=["t"]),
    "all of these": PurgeSelection.of(
        ranges=[KeyRange("bucket", "k/"), KeyRange("bucket", "", PathGlob("k/*"))], tags=["t"]
    ),
}


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a purge wait for no files, and do all in steps of a few."""
    monkeypatch.setattr(purge, "MAX_AWAITED", 0)
    monkeypatch.setattr(purge, "PAGE_ROWS", 3)
    monkeypatch.setattr(purge, "PAGE_IDS", 3)
    monkeypatch.setattr(entry_table, "MAX_UNWRITTEN", 4)
    monkeypatch.setattr(discard_queue, "BATCH_FILES", 3)


def key(number: int) -> ObjectKey:
    return ObjectKey("bucket", f"k/{number:03}")


async def filled(rig: Rig, count: int = COUNT) -> None:
    """Store objects with a tag, of which memory has none in the end."""
    for number in range(count):
        rig.origin.put(content(BLOCK, seed=number), '"1"', key(number), x_amz_meta_cache_tag="t")
        await rig.get(key=key(number))
    await turns()
    await rig.flusher.flush()
    await rig.assembly.open_files.cool()
    assert list(rig.entries.hot_entries()) == []


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 3000))))
def test_ids(steps: list[tuple[bool, int]]) -> None:
    """An IdSet is a set."""
    found, expected = IdSet(), set[int]()
    for is_new, number in steps:
        if is_new:
            assert set(found.update([number, number + 5])) == {number, number + 5} - expected
            expected |= {number, number + 5}
        else:
            found.discard(number)
            expected.discard(number)
        assert len(found) == len(expected)
    assert {number for number in range(3006) if number in found} == expected


@each_row("is_killed", [False, True])
@each_row("selected", SELECTIONS)
async def test_a_purge_is_complete_before_its_files_are_gone(tmp_path: Path, selected: str, is_killed: bool) -> None:
    """What a large purge removed is not served, also after a kill, and is charged as long as its files (I17, I27)."""
    async with Rig(tmp_path, hot_limit=0) as rig:
        await filled(rig)
        before = rig.budget.used
        purged = await rig.cache.purge_selected(SELECTIONS[selected], PurgeMode.REMOVE)
        assert (purged.count, len(rig.entries)) == (COUNT, 0)
        assert rig.budget.used == before == COUNT * CHARGED
        assert len(rig.stored_files()) == COUNT
        assert (await rig.cache.purge_selected(SELECTIONS[selected], PurgeMode.REMOVE)).count == 0
        assert [rig.entries.get(key(number)) for number in range(COUNT)] == [None] * COUNT
        assert rig.cache.entries("bucket", "", None, 100)[0] == []
        assert [held.key for held in rig.cache.newest(100)] == [None] * COUNT
        if is_killed:
            await turns()
            rig.abandon()
        else:
            await rig.close()
    assert verify(tmp_path, BLOCK, repair=False).findings == ()
    async with Rig(tmp_path, origin=rig.origin, hot_limit=0) as again:
        assert (len(again.entries), again.budget.used) == (0, COUNT * CHARGED)
        assert again.entries.get(key(0)) is None
        await again.assembly.discards.empty()
        assert again.stored_files() == {}
        assert again.budget.used == 0
        assert {figures.reason: figures.count for figures in again.cache.removals()}[RemovalReason.PURGED] == COUNT
        await again.audit()


@each_row("is_flushed", [False, True])
@each_row("is_killed", [False, True])
async def test_an_object_that_comes_back_before_its_old_file_is_gone(
    tmp_path: Path, is_flushed: bool, is_killed: bool
) -> None:
    """A new entry replaces the row of a purged one, whose bytes are given back once (I17)."""
    async with Rig(tmp_path, hot_limit=0) as rig:
        await filled(rig)
        await rig.cache.purge_selected(ALL, PurgeMode.REMOVE)
        new = rig.origin.put(content(BLOCK, seed=99), '"2"', key(3), x_amz_meta_cache_tag="t")
        assert await rig.get(key=key(3)) == new
        await turns()
        if is_flushed:
            await rig.flusher.flush()
        if is_killed:
            rig.abandon()
            kept = int(is_flushed)
        else:
            await rig.close()
            kept = 1
    async with Rig(tmp_path, origin=rig.origin, hot_limit=0) as again:
        assert (len(again.entries), again.budget.used) == (kept, (COUNT + kept) * CHARGED)
        await again.assembly.discards.empty()
        await again.housekeeper.sweep()
        assert (len(again.entries), again.budget.used) == (kept, kept * CHARGED)
        assert await again.get(key=key(3)) == new
        await again.audit()


async def test_space_comes_from_purged_entries_first(tmp_path: Path) -> None:
    """A miss in a full cache evicts no entry while files of purged ones are left (I17)."""
    async with Rig(tmp_path, hot_limit=0, max_size=(COUNT + 1) * CHARGED) as rig:
        await filled(rig)
        kept = rig.origin.put(content(BLOCK, seed=50), '"1"', ObjectKey("bucket", "kept"))
        assert await rig.get(key=ObjectKey("bucket", "kept")) == kept
        await rig.cache.purge_selected(SELECTIONS["prefix"], PurgeMode.REMOVE)
        for number in range(COUNT):
            await rig.get(key=ObjectKey("bucket", f"k/{number:03}"))
        assert rig.entries.evicted == 0
        assert rig.budget.available >= 0
        await rig.assembly.discards.empty()
        assert len(rig.entries) == COUNT + 1
        await rig.audit()


async def test_files_that_cannot_be_unlinked_stay_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space of purged files is given back when the disk takes the unlink, and no earlier (I16, I17)."""
    async with Rig(tmp_path, hot_limit=0) as rig:
        await filled(rig)
        await rig.cache.purge_selected(ALL, PurgeMode.REMOVE)

        def refuse(*_: object) -> None:
            raise PermissionError(13, "no")

        with monkeypatch.context() as broken:
            broken.setattr(Folder, "unlink", refuse)
            with pytest.raises(StoreError):
                await rig.assembly.discards.empty()
        assert rig.budget.used == COUNT * CHARGED
        await rig.assembly.discards.empty()
        await rig.audit()
        assert rig.budget.used == 0


async def test_an_index_that_refuses_a_purge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the index cannot take a purge, it fails. Nothing of it is served, and the next flush has it (I16)."""
    async with Rig(tmp_path, hot_limit=0) as rig:
        await filled(rig)

        def fail(*_: Any, **__: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(rig.index, "_write", fail)
            with pytest.raises(StoreError):
                await rig.cache.purge_selected(ALL, PurgeMode.REMOVE)
            assert rig.entries.get(key(0)) is None
        await rig.flusher.flush()
        await turns()
        rig.abandon()
    async with Rig(tmp_path, origin=rig.origin) as again:
        assert len(again.entries) == 0
        await again.assembly.discards.empty()
        await again.audit()


async def test_a_folder_that_is_deleted_after_a_purge(tmp_path: Path) -> None:
    """The bytes of purged entries are given back once if all of the cache is lost meanwhile (I17)."""
    async with Rig(tmp_path / "cache", hot_limit=0) as rig:
        await filled(rig)
        await rig.cache.purge_selected(ALL, PurgeMode.REMOVE)
        freeing = asyncio.create_task(rig.assembly.discards.free())
        await turns(2)
        shutil.rmtree(tmp_path / "cache")
        await rig.housekeeper.step()
        await asyncio.gather(freeing, return_exceptions=True)
        assert (rig.budget.used, len(rig.assembly.discards)) == (0, 0)
        await rig.get(key=key(1))
        await rig.audit()


async def test_the_queue_runs_until_it_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task of the queue removes the files of each purge (I27)."""
    monkeypatch.setattr(discard_queue, "PAUSE_S", 0)
    async with Rig(tmp_path, hot_limit=0) as rig:
        running = asyncio.create_task(rig.assembly.discards.run())
        for _ in range(2):
            await filled(rig)
            await rig.cache.purge_selected(ALL, PurgeMode.REMOVE)
            while len(rig.assembly.discards):
                await turns(1)
            assert rig.stored_files() == {}
        running.cancel()
        await asyncio.wait([running])
        await rig.audit()


async def test_pages_of_rows_that_were_purged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing goes past many rows of purged entries in several steps, and finds the entry behind them (I22)."""
    monkeypatch.setattr(entry_table, "MAX_SCANNED", 4)
    async with Rig(tmp_path, hot_limit=0, origin=FakeOrigin()) as rig:
        await filled(rig)
        rig.origin.put(content(BLOCK), '"1"', ObjectKey("bucket", "k/999"))
        await rig.get(key=ObjectKey("bucket", "k/999"))
        await turns()
        await rig.flusher.flush()
        await rig.cache.purge_selected(SELECTIONS["glob"], PurgeMode.REMOVE)
        steps, found = 0, list[str]()
        last: ObjectKey | None = None
        while steps == 0 or last is not None:
            page, last = rig.cache.entries("bucket", "", last, 4)
            found += [view.key.key for view in page]
            steps += 1
        assert found == ["k/999"]
        assert steps == 3


async def test_idle_entries_go_while_the_queue_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle entries are removed although older ones are purged and still there, in bounded turns (I18).

    An entry in use stays, and so does one that was used since.
    """
    monkeypatch.setattr(idle_removal, "PAGE_ROWS", 2)
    monkeypatch.setattr(idle_removal, "PAGES_PER_STEP", 2)
    others = [ObjectKey("bucket", f"others/{number}") for number in range(5)]
    async with Rig(tmp_path, hot_limit=0, idle_timeout=100.0) as rig:
        await filled(rig)
        rig.wall.now += 1.0
        for other in others:
            rig.origin.put(content(BLOCK), '"1"', other)
            await rig.get(key=other)
        await turns()
        await rig.flusher.flush()
        await rig.assembly.open_files.cool()
        assert (await rig.cache.purge_selected(SELECTIONS["prefix"], PurgeMode.REMOVE)).count == COUNT
        rig.wall.now += 60.0
        await rig.get(key=others[0])
        reader = await rig.reader(others[1])
        rig.wall.now += 60.0
        read: list[int] = []
        oldest = rig.index.oldest

        def counted(*given: Any) -> Any:
            rows = oldest(*given)
            read.append(len(rows))
            return rows

        monkeypatch.setattr(rig.index, "oldest", counted)
        for _ in range(COUNT):
            read.clear()
            await rig.housekeeper.step()
            assert len(read) <= 2
            assert max(read, default=0) <= 2
        assert [rig.entries.get(other) is not None for other in others] == [True, True, False, False, False]
        assert len(rig.assembly.discards) == COUNT
        reader.close()
        await rig.assembly.discards.empty()
        rig.wall.now += 120.0
        await rig.housekeeper.step()
        assert [rig.entries.get(other) is not None for other in others] == [False] * 5
        await rig.audit()
