"""When bytes and files are taken from the budget, and what gives way if the disk has none left."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, KEY, content

from bucketfront.cache import housekeeper
from bucketfront.cache.entries.entry import ENTRY_BYTES
from bucketfront.cache.storage.file_storage import FAILURE_PAUSE_S
from bucketfront.cache.storage.folder import Folder
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.storage import DiskSpace
from bucketfront.cache.upkeep.space_reservation import MAX_REFUSALS
from bucketfront.keys import ObjectKey

OTHER = ObjectKey("bucket", "other")


async def test_room_is_made_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget never exceeds its limit: entries are evicted first, and the bytes are taken then (I17)."""
    async with Rig(tmp_path, max_size=3 * (BLOCK + ENTRY_BYTES)) as rig:
        take, rooms = rig.budget.take, list[int]()

        def watched(count: int) -> None:
            take(count)
            rooms.append(rig.budget.available)

        monkeypatch.setattr(rig.budget, "take", watched)
        for number in range(6):
            key = KEY._replace(key=f"{number}")
            data = rig.origin.put(content(BLOCK, seed=number), key=key)
            assert await rig.get(key=key) == data
        assert len(rooms) == 12
        assert min(rooms) == 0
        await rig.audit()


SMALL = 100  # bytes of an object


class SmallDisk:
    """A file system with room for so many files, of which `hogs` belong to other programs.

    Without `tells` it has a quota, which statvfs does not show. Each of the calls that it refuses is counted.
    """

    def __init__(self, rig: Rig, files: int, *, tells: bool, code: int = errno.ENOSPC) -> None:
        self.files = files
        self.hogs = 0
        self.refused = 0
        self._tells = tells
        self._code = code
        self._root = rig.root

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = Folder.open_file

        def open_file(folder: Folder, name: str, flags: int) -> int:
            if flags & os.O_CREAT and not self.free:
                self.refused += 1
                raise OSError(self._code, os.strerror(self._code))
            return real(folder, name, flags)

        def space(_: Folder) -> DiskSpace:
            return DiskSpace(1 << 40, 1 << 41, *((self.free, self.files) if self._tells else (0, 0)))

        monkeypatch.setattr(Folder, "open_file", open_file)
        monkeypatch.setattr(Folder, "space", space)

    @property
    def free(self) -> int:
        return max(0, self.files - self.hogs - sum(1 for _ in self._root.glob("objects/*/*")))


def numbered(rig: Rig, number: int) -> tuple[ObjectKey, bytes]:
    key = KEY._replace(key=f"{number}")
    return key, rig.origin.put(content(SMALL, seed=number), key=key)


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_files_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells: bool, code: int) -> None:
    """If there are no more inodes, or a quota of files is used up, the oldest entries give way to new ones (I16).

    Nothing counts as a failure of the disk, and the newest objects are all cached.
    """
    async with Rig(tmp_path) as rig:
        disk = SmallDisk(rig, 8, tells=tells, code=code)
        disk.install(monkeypatch)
        await rig.housekeeper.measure()
        for number in range(30):
            key, data = numbered(rig, number)
            assert await rig.get(key=key) == data
        await turns()
        rig.origin.gets = 0
        for number in range(22, 30):
            assert await rig.get(key=KEY._replace(key=f"{number}")) == content(SMALL, seed=number)
        assert rig.origin.gets == 0
        assert rig.entries.evicted == 22
        assert rig.store.failures == 0
        # The reported number needs no refusal; a quota refuses one call for each new object.
        assert disk.refused == (0 if tells else 22)
        await rig.audit()


@pytest.mark.parametrize(("min_free", "floor", "left"), [(1 << 39, 25, 45), (0, 0, 100)])
async def test_a_share_of_the_inodes_stays_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, min_free: int, floor: int, left: int
) -> None:
    """`min_free` is a share of the disk, and the same share of the inodes stays free: entries give way (I17)."""
    async with Rig(tmp_path, min_free=lambda _: min_free) as rig:
        disk = SmallDisk(rig, 100, tells=True)
        disk.install(monkeypatch)
        await rig.housekeeper.measure()
        for number in range(120):
            key, data = numbered(rig, number)
            assert await rig.get(key=key) == data
            assert disk.free >= floor
        assert len(rig.entries) == 100 - floor
        await turns()
        disk.hogs = 30
        await rig.housekeeper.step()
        assert len(rig.entries) == left
        assert rig.store.failures == 0
        await rig.audit()


async def test_a_file_system_without_inodes_has_no_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that reports 0 inodes, as btrfs does, stores as many files as bytes allow."""
    async with Rig(tmp_path, min_free=lambda total: total // 2) as rig:
        monkeypatch.setattr(Folder, "space", lambda _: DiskSpace(1 << 41, 1 << 41))
        await rig.housekeeper.measure()
        for number in range(20):
            key, data = numbered(rig, number)
            assert await rig.get(key=key) == data
        await turns()
        await rig.housekeeper.step()
        assert len(rig.entries) == 20


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_quota_of_bytes_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """If a write is refused although the disk reports free space, entries give way, and the object is stored (I16)."""
    quota = 5 * BLOCK
    async with Rig(tmp_path, has_threads=True) as rig:
        real = os.pwrite

        def pwrite(fd: int, data: bytes, offset: int) -> int:
            used = sum(path.stat().st_blocks * 512 for path in tmp_path.glob("objects/*/*"))
            if used + len(data) > quota:
                raise OSError(code, os.strerror(code))
            return real(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)
        for number in range(12):
            key = KEY._replace(key=f"{number}")
            data = rig.origin.put(content(2 * BLOCK, seed=number), key=key)
            assert await rig.get(key=key) == data
            while rig.assembly.fetch_context.tasks:
                await turns()
        monkeypatch.undo()
        rig.origin.gets = 0
        assert await rig.get(key=KEY._replace(key="11")) == content(2 * BLOCK, seed=11)
        assert rig.origin.gets == 0
        assert rig.entries.evicted >= 9
        assert rig.store.failures == 0


async def test_a_disk_that_others_fill_costs_few_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If evictions do not help, a request evicts MAX_REFUSALS entries at most, and goes on uncached (I16).

    Then the disk counts as failed for a while, and the next request evicts nothing.
    """
    async with Rig(tmp_path) as rig:
        for number in range(20):
            key, data = numbered(rig, number)
            assert await rig.get(key=key) == data
        await turns()
        disk = SmallDisk(rig, 0, tells=False)
        disk.install(monkeypatch)
        for number in range(20, 23):
            key, data = numbered(rig, number)
            assert await rig.get(key=key) == data
        assert rig.entries.evicted == disk.refused == MAX_REFUSALS
        assert rig.store.failures == 1
        assert not rig.store.is_usable


async def test_no_space_for_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the index cannot be written because the disk is full, the upkeep evicts entries and writes it then (I16)."""
    async with Rig(tmp_path) as rig:
        for number in range(5):
            key, data = numbered(rig, number)
            assert await rig.get(key=key) == data
        await turns()
        is_full, write = True, Index._write

        def write_unless_full(index: Index, *args: object, **options: object) -> None:
            if is_full and rig.entries.evicted < 2:
                raise sqlite3.OperationalError("disk I/O error")
            write(index, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Index, "_write", write_unless_full)
        monkeypatch.setattr(Folder, "lacks_space", lambda _: is_full)
        monkeypatch.setattr(housekeeper, "FLUSH_BYTES", 2 * ENTRY_BYTES + 2)
        await rig.housekeeper.step()
        assert rig.entries.evicted == 2
        assert len(rig.rows()) == 3
        is_full = False
        monkeypatch.setattr(Index, "_write", write)
        rig.monotonic.now += FAILURE_PAUSE_S
        key, data = numbered(rig, 9)
        assert await rig.get(key=key) == data
        await rig.audit()


async def test_a_disk_that_fails_costs_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the index cannot be written for another reason than space, nothing is evicted (I16)."""

    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with Rig(tmp_path) as rig:
        key, data = numbered(rig, 1)
        assert await rig.get(key=key) == data
        await turns()
        with monkeypatch.context() as broken:
            broken.setattr(Index, "_write", fail)
            await rig.housekeeper.step()
        assert rig.entries.evicted == 0
        assert rig.store.failures == 1


async def test_an_upload_gets_the_file_of_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload's body is spooled although no inode is free, because an entry gives way (I16)."""
    async with Rig(tmp_path) as rig:
        disk = SmallDisk(rig, 1, tells=False)
        disk.install(monkeypatch)
        key, data = numbered(rig, 1)
        assert await rig.get(key=key) == data
        await turns()
        upload = rig.cache.begin_write(OTHER, 4)
        await upload.write(b"data")
        assert [piece async for piece in upload.read(0, 4)] == [b"data"]
        upload.close()
        await rig.audit()
