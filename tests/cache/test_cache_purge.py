"""What a purge, and a row that went bad, must not leave behind."""

import asyncio
import errno
import os
import sqlite3
from pathlib import Path

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, KEY, content

from bucketfront.cache.storage.folder import Folder
from bucketfront.errors import StoreError
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


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("soft", [False, True])
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
