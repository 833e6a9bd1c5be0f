"""What a purge, and a row that went bad, must not leave behind."""

import asyncio
import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, KEY, content
from rows import each_row

from bucketfront.cache.entries.entry_table import PAGE_ENTRIES
from bucketfront.cache.storage.folder import Folder
from bucketfront.cache.upkeep import purge
from bucketfront.cache.upkeep.purge import PurgeMode
from bucketfront.cache.upkeep.purge_selection import KeyRange, PathGlob, PurgeSelection
from bucketfront.errors import StoreError
from bucketfront.http.glob import Glob
from bucketfront.keys import ObjectKey

PREFIX = ObjectKey("bucket", "p/")


def key(number: int) -> ObjectKey:
    return ObjectKey("bucket", f"p/{number:03}")


async def filled(rig: Rig, count: int) -> None:
    for number in range(count):
        rig.origin.put(content(BLOCK, seed=number), '"1"', key(number))
        await rig.get(key=key(number))
    await turns()
    await rig.flusher.flush()


@each_row("after", range(12), few=4)
@each_row("soft", [False, True])
async def test_what_is_read_while_a_prefix_is_purged(tmp_path: Path, after: int, soft: bool) -> None:
    """An entry that comes into memory at any turn of a purge of its prefix is purged as well (I27)."""
    async with Rig(tmp_path, hot_limit=2) as rig:
        await filled(rig, 10)
        await rig.assembly.open_files.cool()
        assert rig.entries.hot(key(0)) is None
        new = rig.origin.put(content(BLOCK, seed=77), '"2"', key(0))
        purging = asyncio.create_task(rig.cache.purge(prefixes=[PREFIX], soft=soft))
        await turns(after)
        await rig.get(key=key(0))
        await purging
        await turns()
        assert await rig.get(key=key(0)) == new


async def test_a_failure_ends_no_purge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If files cannot be unlinked, memory still loses all entries, also those of later pages (I16, I27)."""
    async with Rig(tmp_path, hot_limit=500) as rig:
        await filled(rig, 200)

        def refuse(*_: object) -> None:
            raise OSError(errno.EROFS, "read-only")

        with monkeypatch.context() as broken:
            broken.setattr(Folder, "unlink", refuse)
            with pytest.raises(StoreError):
                await rig.cache.purge(prefixes=[PREFIX])
        assert not [number for number in range(200) if rig.entries.hot(key(number)) is not None]


async def test_an_index_that_fails_when_a_key_is_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that an invalidation could not find is revalidated before it serves (I5)."""
    async with Rig(tmp_path, hot_limit=1) as rig:
        await filled(rig, 3)
        await rig.assembly.open_files.cool()
        assert rig.entries.hot(key(0)) is None

        def fail(*_: object) -> None:
            raise StoreError("the cache index failed: disk I/O error")

        with monkeypatch.context() as broken:
            broken.setattr(rig.index, "_read", fail)
            del rig.origin.objects[key(0)]
            with pytest.raises(StoreError):
                await rig.cache.invalidate(key(0))
        assert await rig.is_absent(key(0))


@pytest.mark.parametrize("column", ["metadata", "key"])
async def test_a_row_that_went_bad(tmp_path: Path, column: str) -> None:
    """A row that does not decode is a miss, blocks no other entry, and is removed by the next flush (I15, I16)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(BLOCK))
        await rig.get()
        await filled(rig, 2)
        await rig.close()
    with sqlite3.connect(tmp_path / "index.db") as db:
        db.execute(f"UPDATE entries SET {column} = x'FF7A' WHERE key = ?", (KEY.key.encode(),))
    async with Rig(tmp_path, origin=rig.origin) as again:
        assert await again.get() == data
        assert await again.cache.purge([KEY]) == 1
        assert await again.cache.purge(prefixes=[ObjectKey("bucket", "")]) == 2
        await again.scrubber().round()
        await again.flusher.flush()
        assert again.index.oldest(10) == []
        assert not again.index.corrupt
        again.complaints.clear()


async def test_a_sector_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable sector costs its own block, and the scrubber finds other damage in the same round (I15)."""
    async with Rig(tmp_path) as rig:
        await filled(rig, 2)
        pread, bad = os.pread, rig.stored_files()[rig.entry(key(0)).file_name or ""]
        later = rig.stored_files()[rig.entry(key(1)).file_name or ""]
        later.write_bytes(b"\0" + later.read_bytes()[1:])

        def fails(fd: int, length: int, offset: int) -> bytes:
            if Path(f"/proc/self/fd/{fd}").readlink() == bad:
                raise OSError(errno.EIO, "bad sector")
            return pread(fd, length, offset)

        with monkeypatch.context() as broken:
            broken.setattr(os, "pread", fails)
            await rig.scrubber().round()
        assert rig.entries.corrupt_blocks == 2


def selection(*patterns: str, **given: Any) -> PurgeSelection:
    """Return the selection of these globs of keys, together with what `given` has."""
    ranges = [KeyRange("bucket", Glob(pattern).head, PathGlob(pattern)) for pattern in patterns]
    return PurgeSelection.of(given.pop("keys", ()), [*ranges, *given.pop("ranges", ())], **given)


OVERLAPPING = {
    "keys and a prefix": selection(keys=[key(1), key(2)], ranges=[KeyRange("bucket", "p/")], versions=True),
    "prefixes": selection(ranges=[KeyRange("bucket", "p/"), KeyRange("bucket", "p/00"), KeyRange("bucket", "")]),
    "globs": selection("p/*", "p/0*", "**/00?"),
    "all": selection(everything=True),
}


@each_row("mode", PurgeMode)
@each_row("hot_limit", [0, 3, 500])
@each_row("wanted", OVERLAPPING.values(), ids=OVERLAPPING)
async def test_each_object_counts_once(tmp_path: Path, mode: PurgeMode, hot_limit: int, wanted: PurgeSelection) -> None:
    """A purge counts each object once, in memory or not, also if several parts of its selection have it (I27)."""
    async with Rig(tmp_path, hot_limit=hot_limit) as rig:
        await filled(rig, 9)
        rig.origin.put(content(BLOCK), '"1"', ObjectKey("other", "p/000"))
        await rig.get(key=ObjectKey("other", "p/000"))
        await turns()
        await rig.flusher.flush()
        await rig.assembly.open_files.cool()
        expected = 10 if wanted.everything else 9
        purged = await rig.cache.purge_selected(wanted, mode)
        assert purged.count == expected
        if mode is not PurgeMode.REMOVE:
            assert len(set(purged.sample)) == expected


@pytest.mark.parametrize("hot_limit", [0, 500])
async def test_a_count_changes_nothing(tmp_path: Path, hot_limit: int) -> None:
    """A purge that only counts changes neither an entry nor a running lookup, nor a remembered 404."""
    async with Rig(tmp_path, hot_limit=hot_limit) as rig:
        await filled(rig, 3)
        await rig.assembly.open_files.cool()
        assert await rig.is_absent(key(9))
        before = rig.origin.gets + rig.origin.heads
        assert (await rig.cache.purge_selected(selection(everything=True), PurgeMode.COUNT)).count == 3
        for number in range(3):
            await rig.get(key=key(number))
        assert await rig.is_absent(key(9))
        assert rig.origin.gets + rig.origin.heads == before


@each_row("wanted", [selection("p/0*"), selection(everything=True)], ids=["glob", "all"])
@each_row("soft", [False, True])
async def test_what_runs_during_a_purge_by_glob(tmp_path: Path, wanted: PurgeSelection, soft: bool) -> None:
    """A purge by glob or of all catches lookups that run, and remembered 404s (I5, I6)."""
    mode = PurgeMode.EXPIRE if soft else PurgeMode.REMOVE
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK), '"1"', key(0))
        assert await rig.is_absent(key(1))
        rig.origin.late = asyncio.Event()
        old = asyncio.create_task(rig.get(key=key(0)))
        await turns()
        await rig.cache.purge_selected(wanted, mode)
        new = rig.origin.put(content(BLOCK, seed=5), '"2"', key(0))
        rig.origin.put(new, '"2"', key(1))
        rig.origin.late.set()
        rig.origin.late = None
        assert await old == content(BLOCK)
        assert await rig.get(key=key(0)) == new
        assert await rig.get(key=key(1)) == new


@pytest.mark.parametrize("confirmed", [False, True])
async def test_a_soft_purge_of_what_is_on_disk(tmp_path: Path, confirmed: bool) -> None:
    """A soft purge of entries that are not in memory loads none, survives a kill, and ends with a revalidation (I27).

    An entry that was revalidated before the index has the purge stays fresh.
    """
    async with Rig(tmp_path, hot_limit=0) as rig:
        await filled(rig, 3)
        await rig.assembly.open_files.cool()
        assert list(rig.entries.hot_entries()) == []
        purging = asyncio.create_task(rig.cache.purge_selected(selection("p/*"), PurgeMode.EXPIRE))
        if confirmed:
            await turns(3)
            await rig.get(key=key(0))
        assert (await purging).count == 3
        assert confirmed or list(rig.entries.hot_entries()) == []
        await rig.flusher.flush()
        await turns()
        rig.abandon()
    async with Rig(tmp_path, origin=rig.origin) as again:
        for number in range(3):
            await again.get(key=key(number))
        assert again.origin.conditional == 3


async def test_rows_that_went_bad_end_no_purge(tmp_path: Path) -> None:
    """A page of rows of which none decodes does not end a purge by prefix (I15, I27)."""
    async with Rig(tmp_path) as rig:
        await filled(rig, PAGE_ENTRIES + 2)
        await rig.close()
    with sqlite3.connect(tmp_path / "index.db") as db:
        first = key(PAGE_ENTRIES).key.encode()
        db.execute("UPDATE entries SET key = CAST(key || x'FF' AS BLOB) WHERE key < ?", (first,))
    async with Rig(tmp_path, origin=rig.origin) as again:
        assert await again.cache.purge(prefixes=[PREFIX], soft=True) == 2


@pytest.mark.parametrize("is_hot", [False, True])
@pytest.mark.parametrize("max_expired", [1, 4096])
async def test_a_soft_purge_that_the_index_refuses(
    tmp_path: Path, max_expired: int, monkeypatch: pytest.MonkeyPatch, *, is_hot: bool
) -> None:
    """If the index cannot take a soft purge, it fails. Its entries are stale at once, and the next flush has it (I27).

    One of no entries has nothing to write, and does not fail.
    """
    monkeypatch.setattr(purge, "MAX_EXPIRED", max_expired)
    async with Rig(tmp_path, hot_limit=0) as rig:
        await filled(rig, 2)
        if not is_hot:
            await rig.assembly.open_files.cool()

        def fail(*_: object, **__: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(rig.index, "_write", fail)
            with pytest.raises(StoreError):
                await rig.cache.purge(prefixes=[PREFIX], soft=True)
            assert await rig.cache.purge(prefixes=[ObjectKey("bucket", "absent/")], soft=True) == 0
        await rig.get(key=key(0))
        assert rig.origin.conditional == 1
        await rig.flusher.flush()
        await turns()
        rig.abandon()
    async with Rig(tmp_path, origin=rig.origin) as again:
        await again.get(key=key(1))
        assert again.origin.conditional == 2
