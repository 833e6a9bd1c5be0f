"""What remains of a cache after another process deleted its folder, or after a loss of power."""

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, KEY, content
from rows import each_row

from bucketfront.cache.storage.file_storage import FAILURE_PAUSE_S, FileStorage
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import Changes
from bucketfront.cache.storage.storage import StoredFile
from bucketfront.cache.upkeep import space_reservation
from bucketfront.errors import OriginUnavailable, StoreError
from bucketfront.http.cache_status import Forward
from bucketfront.keys import ObjectKey

OTHER = ObjectKey("bucket", "other")


COLUMNS = [
    "bucket",
    "key",
    "file",
    "etag",
    "size",
    "metadata",
    "stored_at",
    "validated_at",
    "accessed_at",
    "bytes",
    "epoch",
]


@each_row("column", COLUMNS)
@each_row("value", ["text", b"\xff\x00", -1.5])
async def test_a_row_with_a_damaged_column(tmp_path: Path, column: str, value: object) -> None:
    """A value that no run has written costs its entry at most: the start succeeds, and all bytes are right (I15)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(2 * BLOCK))
        other = rig.origin.put(content(BLOCK, seed=1), key=OTHER)
        assert (await rig.get(), await rig.get(key=OTHER)) == (data, other)
    with closing(sqlite3.connect(tmp_path / "index.db")) as database, database:
        totals = database.execute("SELECT value, name FROM state").fetchall()
        database.execute(f"UPDATE entries SET {column} = ? WHERE id = (SELECT min(id) FROM entries)", (value,))
        database.executemany("UPDATE state SET value = ? WHERE name = ?", totals)  # a disk runs no triggers
    async with Rig(tmp_path, origin=rig.origin, max_size=3 * BLOCK) as again:
        for _ in range(2):
            await again.housekeeper.step()
            assert (await again.get(), await again.get(key=OTHER)) == (data, other)
        third = again.origin.put(content(BLOCK, seed=2), key=ObjectKey("bucket", "third"))
        assert await again.get(key=ObjectKey("bucket", "third")) == third
        again.wall.advance(1e6)
        await again.housekeeper.step()


@each_row("lost", ["", "objects", "index.db"])
@each_row("hot_limit", [64, 0])
async def test_a_folder_deleted_under_the_cache(tmp_path: Path, lost: str, hot_limit: int) -> None:
    """The housekeeper begins again if the folder, its objects or its index was deleted. Objects are fetched and kept
    again, readers go on, and no byte stays charged (I16, I17).
    """
    root = tmp_path / "cache"
    async with Rig(root, hot_limit=hot_limit) as rig:
        first = rig.origin.put(content(3 * BLOCK))
        other = rig.origin.put(content(BLOCK, seed=1), key=OTHER)
        await rig.get()
        await rig.get(key=OTHER)
        await rig.housekeeper.step()
        reader = await rig.reader()
        for file in rig.stored_files().values():
            os.utime(file, (1.0, 1.0))  # made before the harness's clock began
        gone = root / lost
        gone.unlink() if lost == "index.db" else shutil.rmtree(gone)
        rig.monotonic.advance(FAILURE_PAUSE_S)
        await rig.housekeeper.step()
        await turns()
        assert len(rig.entries) == 0
        assert await rig.read(reader) == first
        reader.close()
        for key, data in ((KEY, first), (OTHER, other)):
            assert await rig.get(key=key) == data
        calls = rig.origin.gets
        for key, data in ((KEY, first), (OTHER, other)):
            assert await rig.get(key=key) == data
        assert rig.origin.gets == calls
        await rig.audit()
    async with Rig(root, origin=rig.origin) as again:
        assert await again.get() == first
        assert again.origin.gets == calls
        await again.audit()


async def test_a_folder_that_cannot_be_made_again(tmp_path: Path) -> None:
    """While the folder cannot be created, the cache goes on without it. Then it keeps objects again (I16)."""
    root = tmp_path / "cache"
    async with Rig(root) as rig:
        data = rig.origin.put(content(2 * BLOCK))
        await rig.get()
        shutil.rmtree(root)
        root.write_text("in the way")
        for _ in range(2):
            with pytest.raises(StoreError):
                await rig.housekeeper.step()
            assert await rig.get() == data
        root.unlink()
        rig.monotonic.advance(FAILURE_PAUSE_S)
        await rig.housekeeper.step()
        assert await rig.get() == data
        calls = rig.origin.gets
        assert await rig.get() == data
        assert rig.origin.gets == calls
        await rig.audit()


async def test_index_claims_only_what_was_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In durable mode each file with new blocks is synced before the index claims them. By default none is (I2)."""
    done: list[str] = []
    sync, flush = FileStorage.sync, Index.flush

    async def noted_sync(self: FileStorage, file: StoredFile) -> None:
        await sync(self, file)
        done.append(file.name)

    async def noted_flush(self: Index, changes: Changes) -> None:
        done.append("index")
        await flush(self, changes)

    monkeypatch.setattr(FileStorage, "sync", noted_sync)
    monkeypatch.setattr(Index, "flush", noted_flush)
    async with Rig(tmp_path / "power", is_durable=True) as rig:
        rig.origin.put(content(2 * BLOCK))
        rig.origin.put(content(BLOCK), key=OTHER)
        await rig.get()
        await rig.get(key=OTHER)
        await rig.flusher.flush()
        assert sorted(done[:-1]) == sorted(rig.stored_files())
        assert done[-1] == "index"
        done.clear()
        await rig.cache.purge([OTHER])
        assert done == ["index"], "a purge is in the index when it is answered"
        await rig.audit()
    done.clear()
    async with Rig(tmp_path / "process") as rig:
        rig.origin.put(content(2 * BLOCK))
        await rig.get()
        await rig.flusher.flush()
        assert set(done) == {"index"}


async def test_a_file_that_cannot_be_synced_is_discarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync the entry is removed and never synced again. All others are kept (I14)."""
    tried: list[str] = []
    bad = ""

    async def failing(_: FileStorage, file: StoredFile) -> None:
        tried.append(file.name)
        if file.name == bad:
            raise StoreError("the cache folder failed")

    monkeypatch.setattr(FileStorage, "sync", failing)
    async with Rig(tmp_path, is_durable=True) as rig:
        data = rig.origin.put(content(2 * BLOCK))
        other = rig.origin.put(content(BLOCK), key=OTHER)
        await rig.get()
        await rig.get(key=OTHER)
        bad = rig.entry().file_name or ""
        await rig.flusher.flush()
        await turns()
        assert len(tried) == 2
        await rig.flusher.flush()
        assert tried.count(bad) == 1
        assert [row["key"] for row in rig.rows()] == [b"other"]
        assert list(rig.stored_files()) == [rig.entry(OTHER).file_name]
        assert await rig.get() == data
        assert await rig.get(key=OTHER) == other
        await rig.audit()


@each_row("is_durable", [False, True])
@each_row("is_clean", [False, True])
@each_row("has_rebooted", [False, True])
async def test_what_a_run_trusts_of_the_last_one(
    tmp_path: Path, *, is_durable: bool, is_clean: bool, has_rebooted: bool
) -> None:
    """Blocks are verified after each start. A reboot may have lost the last changes to the index, a purge among them.
    Then an entry is revalidated before its first use, and fails with the origin (I5, I14, I15).
    """
    async with Rig(tmp_path, is_durable=is_durable, boot=1) as rig:
        data = rig.origin.put(content(2 * BLOCK))
        await rig.get()
        await rig.flusher.flush()
        if not is_clean:
            rig.abandon()
    loses_changes = has_rebooted and not is_clean and not is_durable
    rig.wall.advance(10)
    async with Rig(
        tmp_path, origin=rig.origin, is_durable=is_durable, boot=2 if has_rebooted else 1, clock=rig.wall
    ) as again:
        assert again.index.was_clean == (is_clean and not has_rebooted)
        assert again.entry().unverified == 3
        again.origin.errors.append(OriginUnavailable("down"))
        if loses_changes:
            with pytest.raises(OriginUnavailable):
                await again.get()
        else:
            again.origin.errors.clear()
        calls = again.origin.gets
        with await again.reader() as reader:
            assert reader.status.fwd is (Forward.STALE if loses_changes else None)
            assert await again.read(reader) == data
        assert again.origin.gets - calls == loses_changes
        assert await again.get() == data
        assert again.origin.gets - calls == loses_changes
        await again.audit()


async def test_no_room_is_taken_before_orphans_are_gone(tmp_path: Path) -> None:
    """After a kill no byte is written until the files without a row are removed: both would not fit (I17)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(2 * BLOCK))
        await rig.get()
        for file in rig.stored_files().values():
            os.utime(file, (1.0, 1.0))
        rig.abandon()
    async with Rig(tmp_path, origin=rig.origin) as again:
        (orphan,) = again.stored_files().values()
        again.space.hold_until(again.housekeeper.swept)
        reading = asyncio.create_task(again.get())
        await turns()
        assert again.store.writes == []
        await again.housekeeper._sweep_all()
        assert not orphan.exists()
        assert await reading == data
        assert again.store.writes
        await again.audit()


async def test_a_sweep_that_takes_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers wait for the sweep for a short time only, and together (I11, I20)."""
    monkeypatch.setattr(space_reservation, "SWEEP_TIMEOUT_S", 0.05)
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(2 * BLOCK))
        rig.space.hold_until(rig.housekeeper.swept)
        assert list(await asyncio.gather(rig.get(), rig.get())) == [data, data]
        assert rig.space._swept is None
        await rig.audit()


async def test_what_a_sweep_cannot_remove_is_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An orphan that the disk refuses to unlink takes space. It counts until a later sweep removes it (I17)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(2 * BLOCK))
        await rig.get()
        for file in rig.stored_files().values():
            os.utime(file, (1.0, 1.0))
        rig.abandon()
    async with Rig(tmp_path) as again:
        (orphan,) = again.stored_files().values()
        used = again.entries.budget.used

        async def refuse(_: str) -> None:
            raise StoreError("the disk refuses")

        with monkeypatch.context() as patched:
            patched.setattr(again.store, "remove", refuse)
            for _ in range(2):
                with pytest.raises(StoreError):
                    await again.housekeeper.sweep()
                assert again.entries.budget.used - used == orphan.stat().st_blocks * 512 > 0
        await again.housekeeper.sweep()
        assert not orphan.exists()
        assert again.entries.budget.used == used


async def test_what_a_kill_left_in_a_file_is_given_back(tmp_path: Path) -> None:
    """Blocks that were written after the last flush take space for which no row is charged. The sweep frees it, also
    without a request for the object (I17).
    """
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(8 * BLOCK))
        await rig.get(0, BLOCK)
        await rig.audit()
        await rig.get()
        (file,) = rig.stored_files().values()
        os.utime(file, (1.0, 1.0))
        rig.abandon()
    async with Rig(tmp_path, origin=rig.origin) as again:
        assert file.stat().st_blocks * 512 > again.budget.used
        await again.housekeeper.sweep()
        assert again.entry().present == 1
        await again.audit()
        assert await again.get() == data
        await again.audit()


async def test_a_sweep_leaves_alone_what_is_not_ours(tmp_path: Path) -> None:
    """Other files in the cache's folders stay there, and do not cause another sweep (I16)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        (file,) = rig.stored_files().values()
        shard = file.name[-2:]
        misplaced = "0" * 24 + ("11" if shard != "11" else "22")
        strays = [file.with_name(name) for name in ("notes.txt", misplaced, "0" * 24 + shard)]
        strays[0].write_text("mine")
        strays[1].write_text("mine")
        strays[2].mkdir()
        for stray in strays:
            os.utime(stray, (1.0, 1.0))
        await rig.housekeeper.sweep()
        assert all(stray.exists() for stray in strays)
        for stray in strays[:2]:
            stray.unlink()
        strays[2].rmdir()
