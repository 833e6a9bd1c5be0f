"""The files of the cache folder, on a real disk and with real threads."""

import asyncio
import errno
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cache_harness import turns
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row
from stopwatch import HANG_S

from bucketfront.cache.storage import file_storage as store_module
from bucketfront.cache.storage.file_storage import FAILURE_PAUSE_S, FileStorage
from bucketfront.cache.storage.folder import FEW_INODES, Folder
from bucketfront.cache.storage.folder_inspection import inspect
from bucketfront.cache.storage.storage import DiskSpace, StoredFile
from bucketfront.errors import CacheInUse, DiskFull, StoreError
from bucketfront.http.ranges import Span

BLOCK = 65536


@asynccontextmanager
async def opened(root: Path, clock: FakeClock | None = None) -> AsyncIterator[FileStorage]:
    store = FileStorage(root, clock or FakeClock())
    store.open()
    try:
        yield store
    finally:
        store.close()


def open_files(root: Path) -> list[str]:
    """Return the objects below `root` that this process has open."""
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return [path for path in links if path.startswith(f"{root}/objects/")]


def on_disk(file: StoredFile) -> int:
    return os.fstat(file.region.fd).st_blocks * 512


@given(size=st.integers(1, 5 * BLOCK), cuts=st.lists(st.integers(0, 5 * BLOCK), max_size=6), seed=st.integers(0, 99))
def test_checksums_are_those_of_zlib(size: int, cuts: list[int], seed: int) -> None:
    """Whatever pieces a file is written in, its checksums are what earlier versions have computed with zlib (I15)."""
    data = random.Random(seed).randbytes(size)
    places = sorted({0, *(cut for cut in cuts if cut < size), size})
    sums: list[int] = []
    with tempfile.TemporaryFile() as file:
        for start, stop in itertools.pairwise(places):
            begun = sums.pop() if start % BLOCK else 0
            sums += store_module._write(file.fileno(), start, memoryview(data)[start:stop], begun, BLOCK)
        assert os.pread(file.fileno(), size, 0) == data
    assert sums == [zlib.crc32(data[at : at + BLOCK]) for at in range(0, size, BLOCK)]


async def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Bytes go to their offsets. Each block has a checksum, which continues over writes and equals that of the file's
    bytes (I2).
    """
    data = random.Random(1).randbytes(2 * BLOCK)
    async with opened(tmp_path) as store:
        file = await store.create(3 * BLOCK)
        assert os.fstat(file.region.fd).st_size == 3 * BLOCK
        assert on_disk(file) == 0
        (half,) = await store.write(file, BLOCK, data[:1000], 0, BLOCK)
        sums = await store.write(file, BLOCK + 1000, data[1000:], half, BLOCK)
        assert sums == [zlib.crc32(data[:BLOCK]), zlib.crc32(data[BLOCK:])]
        assert os.pread(file.region.fd, 2 * BLOCK, BLOCK) == data
        assert await store.checksums(file, Span(BLOCK, 3 * BLOCK), 2 * BLOCK) == [zlib.crc32(data)]
        assert await store.checksums(file, Span(BLOCK, 3 * BLOCK + 1), 2 * BLOCK) == [zlib.crc32(data), None]
        await store.close_file(file)


async def test_names_are_random_and_sharded(tmp_path: Path) -> None:
    """A file lies in a folder named by the end of its name, and no two names are alike."""
    async with opened(tmp_path) as store:
        files = [await store.create(1) for _ in range(20)]
        assert len({file.name for file in files}) == 20
        for file in files:
            assert (tmp_path / "objects" / file.name[-2:] / file.name).is_file()
            await store.close_file(file)
        shards = await store.shards()
        names = [file.name for shard in shards for file in await store.files(shard)]
        assert sorted(names) == sorted(file.name for file in files)
        assert await store.files("ZZ") == []


async def test_punching_frees_the_disk(tmp_path: Path) -> None:
    """Punched bytes are zero, their neighbours stay, and the file system has the space again (I17)."""
    async with opened(tmp_path) as store:
        file = await store.create(4 * BLOCK)
        await store.write(file, 0, b"x" * 4 * BLOCK, 0, BLOCK)
        assert on_disk(file) == 4 * BLOCK
        await store.punch(file, Span(BLOCK, 3 * BLOCK))
        assert on_disk(file) == 2 * BLOCK
        assert os.pread(file.region.fd, 4 * BLOCK, 0) == b"x" * BLOCK + bytes(2 * BLOCK) + b"x" * BLOCK
        await store.punch(file, Span(BLOCK, BLOCK))
        assert os.fstat(file.region.fd).st_size == 4 * BLOCK
        await store.close_file(file)


async def test_a_file_is_opened_again(tmp_path: Path) -> None:
    """A file of the size in the index opens with its bytes. One of another size, or one that is gone, does not open."""
    async with opened(tmp_path) as store:
        file = await store.create(3 * BLOCK)
        await store.write(file, 0, b"y" * 3 * BLOCK, 0, BLOCK)
        await store.close_file(file)
        again = await store.open_file(file.name, 3 * BLOCK, None)
        assert again is not None
        assert os.pread(again.region.fd, 3 * BLOCK, 0) == b"y" * 3 * BLOCK
        await store.close_file(again)
        assert await store.open_file(file.name, 3 * BLOCK + 1, None) is None
        os.truncate(tmp_path / "objects" / file.name[-2:] / file.name, 5)
        assert await store.open_file(file.name, 3 * BLOCK, None) is None
        await store.remove(file.name)
        assert await store.open_file(file.name, 5, None) is None
        await store.remove(file.name)
        assert store.is_usable
        assert store.failures == 0


async def test_opening_after_a_kill_frees_what_is_not_known(tmp_path: Path) -> None:
    """After an unclean stop the bytes outside the known spans are freed, and the known ones stay (I17)."""
    async with opened(tmp_path) as store:
        file = await store.create(5 * BLOCK + 7)
        await store.write(file, 0, b"z" * (5 * BLOCK + 7), 0, BLOCK)
        await store.close_file(file)
        known = [Span(BLOCK, 2 * BLOCK), Span(5 * BLOCK, 5 * BLOCK + 7)]
        again = await store.open_file(file.name, 5 * BLOCK + 7, known)
        assert again is not None
        held = bytes(BLOCK) + b"z" * BLOCK + bytes(3 * BLOCK) + b"z" * 7
        assert os.pread(again.region.fd, 5 * BLOCK + 7, 0) == held
        assert on_disk(again) == BLOCK + 4096
        await store.close_file(again)


async def test_removing_leaves_open_readers_alone(tmp_path: Path) -> None:
    """An unlinked file stays readable from its descriptor until that is closed (I18)."""
    async with opened(tmp_path) as store:
        file = await store.create(10)
        await store.write(file, 0, b"0123456789", 0, BLOCK)
        await store.remove(file.name)
        assert os.pread(file.region.fd, 10, 0) == b"0123456789"
        await store.close_file(file)


@each_row(
    "name", ["", "..", "../../../etc/passwd", "x" * 26, "0" * 25, "0" * 27, "0" * 24 + "/0", "0" * 24 + "..", "\0" * 26]
)
async def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """File names come from a database on disk. A name that the cache cannot have made is that of no file."""
    outside = tmp_path / "cache" / "objects" / "0"
    async with opened(tmp_path / "cache") as store:
        outside.write_bytes(b"1")
        assert await store.open_file(name, 1, None) is None
        await store.remove(name)
        assert store.is_usable
    assert outside.read_bytes() == b"1"


async def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """A link in the place of an object's file is refused, and its target is not served."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345")
    async with opened(tmp_path / "cache") as store:
        file = await store.create(5)
        await store.close_file(file)
        path = tmp_path / "cache" / "objects" / file.name[-2:] / file.name
        path.unlink()
        path.symlink_to(secret)
        assert await store.open_file(file.name, 5, None) is None


def test_one_process_has_the_folder(tmp_path: Path) -> None:
    """A second process is refused while the first one lives, and let in afterwards."""
    code = (
        "import sys, time; from pathlib import Path; from bucketfront.cache.storage.file_storage import FileStorage;"
        "from bucketfront.errors import CacheInUse;"
        f"store = FileStorage(Path({str(tmp_path)!r}), time.monotonic)\n"
        "try: store.open()\n"
        "except CacheInUse: sys.exit(3)\n"
        "store.close()"
    )
    first = FileStorage(tmp_path, FakeClock())
    first.open()
    with pytest.raises(CacheInUse, match="in use"):
        FileStorage(tmp_path, FakeClock()).open()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "proxy")}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 3
    first.close()
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """A cache folder below a file is a StoreError that names the folder and the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cache\.dir"):
        FileStorage(tmp_path / "file" / "cache", FakeClock()).open()


@each_row("mode", [0o777, 0o1777, 0o770, 0o702])
@each_row("part", ["", "objects"])
def test_a_folder_that_others_may_write_to(tmp_path: Path, mode: int, part: str) -> None:
    """A folder into which another user may have put files is refused with the remedy, and stays as it is (I1)."""
    place = tmp_path / "cache" / part
    place.mkdir(parents=True)
    place.chmod(mode)
    before = sorted((tmp_path / "cache").rglob("*"))
    with pytest.raises(StoreError, match=r"other users may write .*chmod -R go-w"):
        FileStorage(tmp_path / "cache", FakeClock()).open()
    assert sorted((tmp_path / "cache").rglob("*")) == before
    with pytest.raises(StoreError, match="other users may write"):
        inspect(tmp_path / "cache")
    place.chmod(0o700)
    store = FileStorage(tmp_path / "cache", FakeClock())
    store.open()
    store.close()


def test_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another user prepared is refused with the remedy, because its files would be served (I1)."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StoreError, match=rf"belongs to uid {os.getuid()}.*cache\.dir"):
        FileStorage(tmp_path, FakeClock()).open()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="belongs to uid"):
        inspect(tmp_path)


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    """Whatever the umask of the process, no other user may enter a new cache folder."""
    mask = os.umask(0)
    try:
        store = FileStorage(tmp_path / "cache", FakeClock())
        store.open()
        store.close()
    finally:
        os.umask(mask)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    made = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "cache").iterdir()}
    assert made == {"objects": 0o700, "lock": 0o600}


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES])
async def test_a_failed_disk_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A write that fails is a StoreError. No file is created for FAILURE_PAUSE_S, and all works again then (I16)."""

    def pwrite(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    clock = FakeClock()
    async with opened(tmp_path, clock) as store:
        file = await store.create(BLOCK)
        with monkeypatch.context() as broken:
            broken.setattr(os, "pwrite", pwrite)
            with pytest.raises(StoreError, match=os.strerror(number)):
                await store.write(file, 0, b"data", 0, BLOCK)
        assert not store.is_usable
        assert store.failures == 1
        with pytest.raises(StoreError):
            await store.create(1)
        clock.now += FAILURE_PAUSE_S - 0.01
        assert not store.is_usable
        clock.now += 0.01
        assert store.is_usable
        await store.write(file, 0, b"data", 0, BLOCK)
        await store.close_file(file)
        await store.close_file(await store.create(1))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["pwrite", "open", "ftruncate"])
async def test_a_full_disk_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    """A full disk or quota raises DiskFull, leaves no file behind, and the disk may be used again at once (I16)."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    async with opened(tmp_path) as store:
        file = await store.create(BLOCK)
        with monkeypatch.context() as broken:
            broken.setattr(os, call, refuse)
            with pytest.raises(DiskFull, match=os.strerror(number)):
                await (store.write(file, 0, b"data", 0, BLOCK) if call == "pwrite" else store.create(BLOCK))
        assert store.is_usable
        assert not store.failures
        found = [file.name for shard in await store.shards() for file in await store.files(shard)]
        assert found == [file.name]
        await store.close_file(file)
        await store.close_file(await store.create(1))


@pytest.mark.parametrize(("inodes", "folders"), [(0, 30), (FEW_INODES, 30), (FEW_INODES - 1, 1)])
async def test_folders_leave_the_inodes_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inodes: int, folders: int
) -> None:
    """On a file system with few inodes all files lie in one folder. After it refused one, no further folder is made."""
    monkeypatch.setattr(Folder, "space", lambda _: DiskSpace(1, 2, inodes, inodes))
    async with opened(tmp_path) as store:
        files = [await store.create(1) for _ in range(40)]
        assert len({file.name for file in files}) == 40
        made = set(await store.shards())
        assert min(len(made), 30) == folders
        store.folder.spare_inodes()
        files += [await store.create(1) for _ in range(10)]
        assert set(await store.shards()) == made
        for file in files:
            reopened = await store.open_file(file.name, 1, None)
            assert reopened is not None
            await store.close_file(reopened)
            await store.close_file(file)


async def test_a_write_is_repeated_until_all_of_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pwrite` may take less than it is given. If it takes nothing, that is an error and no endless loop (I2)."""
    real = os.pwrite
    async with opened(tmp_path) as store:
        file = await store.create(BLOCK)
        with monkeypatch.context() as slow:
            slow.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
            assert await store.write(file, 3, bytes(range(100)), 0, BLOCK) == [zlib.crc32(bytes(range(100)))]
        assert os.pread(file.region.fd, 100, 3) == bytes(range(100))
        with monkeypatch.context() as stuck:
            stuck.setattr(os, "pwrite", lambda *_: 0)
            with pytest.raises(StoreError):
                await store.write(file, 0, b"x", 0, BLOCK)
        await store.close_file(file)


async def test_a_failed_create_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the size cannot be set, the file is removed and its descriptor is closed."""

    def ftruncate(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    async with opened(tmp_path) as store:
        with monkeypatch.context() as full:
            full.setattr(os, "ftruncate", ftruncate)
            with pytest.raises(StoreError):
                await store.create(BLOCK)
        assert list((tmp_path / "objects").glob("*/*")) == []
        assert open_files(tmp_path) == []


async def test_a_folder_that_vanished_is_made_again(tmp_path: Path) -> None:
    """Another process may remove a shard, the objects' folder or all of it. The storage notices the loss, creates it
    again, and holds the lock (I16).
    """
    async with opened(tmp_path / "cache") as store:
        first = await store.create(1)
        shutil.rmtree(tmp_path / "cache" / "objects" / first.name[-2:])
        assert not await store.has_lost("none", None)
        await store.close_file(await store.create(1))
        for lost in ("cache/objects", "cache"):
            shutil.rmtree(tmp_path / lost)
            assert await store.has_lost("none", None)
            await store.renew()
            assert not await store.has_lost("none", None)
            file = await store.create(1)
            assert (tmp_path / "cache" / "objects" / file.name[-2:] / file.name).is_file()
            await store.close_file(file)
            with pytest.raises(CacheInUse):
                FileStorage(tmp_path / "cache", FakeClock()).open()
        await store.close_file(first)


async def test_a_folder_put_in_the_place_of_ours_is_not_touched(tmp_path: Path) -> None:
    """A folder that is moved away stays in use under its new name. If it is deleted, its name is not followed (I16)."""
    root, other = tmp_path / "cache", tmp_path / "other"
    (other / "objects").mkdir(parents=True)
    async with opened(root) as store:
        file = await store.create(1)
        root.rename(tmp_path / "moved")
        root.symlink_to(other)
        assert not await store.has_lost("none", None)
        again = await store.create(1)
        assert (tmp_path / "moved" / "objects" / again.name[-2:] / again.name).is_file()
        await store.remove(file.name)
        shutil.rmtree(tmp_path / "moved")
        with pytest.raises(StoreError, match="leads elsewhere"):
            await store.renew()
        with pytest.raises(StoreError):
            await store.create(1)
        assert list(other.rglob("*")) == [other / "objects"]
        for each in (file, again):
            await store.close_file(each)


async def test_a_shard_that_is_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """Through a link in the place of a shard, files are neither created nor removed nor listed (I16)."""
    other = tmp_path / "other"
    other.mkdir()
    async with opened(tmp_path / "cache") as store:
        file = await store.create(1)
        shard = tmp_path / "cache" / "objects" / file.name[-2:]
        shutil.rmtree(shard)
        shard.symlink_to(other)
        (other / file.name).write_bytes(b"x")
        assert await store.open_file(file.name, 1, None) is None
        await store.remove(file.name)
        assert await store.files(file.name[-2:]) == []
        assert (other / file.name).exists()
        await store.close_file(file)


async def test_a_cancelled_create_leaves_no_descriptor(tmp_path: Path) -> None:
    """If the caller of `create` is cancelled, the new file is closed once it exists (I12)."""
    async with opened(tmp_path) as store:
        work = asyncio.create_task(store.create(1))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await store.disk_space()
    # The descriptor is closed by callbacks that follow from what the thread posted to the loop before it ended.
    await turns()
    assert open_files(tmp_path) == []


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_descriptor_outlives_the_writes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    """After a write that was cancelled or takes too long, the descriptor is closed only when its thread has ended. Its
    number would be another file's otherwise (I1, I20).
    """
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        begun.set()
        may_end.wait(10)
        ended.set()
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    async with opened(tmp_path) as store:
        file = await store.create(10)
        monkeypatch.setattr(store_module, "DISK_TIMEOUT_S", HANG_S if is_cancelled else 0.05)
        work = asyncio.create_task(store.write(file, 0, b"data", 0, BLOCK))
        await asyncio.to_thread(begun.wait, 10)
        if is_cancelled:
            work.cancel()
        with pytest.raises(asyncio.CancelledError if is_cancelled else StoreError):
            await work
        closing = asyncio.create_task(store.close_file(file))
        await turns(5)
        assert not closing.done()
        if not is_cancelled:
            with pytest.raises(StoreError, match="did not answer"):
                await closing
        os.fstat(file.region.fd)
        may_end.set()
        await asyncio.gather(closing, return_exceptions=True)
        await asyncio.to_thread(ended.wait, 10)
        await turns()
    assert open_files(tmp_path) == []


async def test_a_stop_after_a_write_that_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop closes a descriptor whose last write ends only during the stop (I12)."""
    begun, may_end, real = threading.Event(), threading.Event(), os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        begun.set()
        may_end.wait(HANG_S)
        return real(fd, data, offset)

    async with opened(tmp_path) as store:
        file = await store.create(10)
        monkeypatch.setattr(os, "pwrite", pwrite)
        monkeypatch.setattr(store_module, "DISK_TIMEOUT_S", 0.05)
        with pytest.raises(StoreError, match="did not answer"):
            await store.write(file, 0, b"data", 0, BLOCK)
        with pytest.raises(StoreError, match="did not answer"):
            await store.close_file(file)
        assert begun.wait(HANG_S)
        may_end.set()
    await turns()
    assert open_files(tmp_path) == []


@pytest.mark.parametrize("call", ["_remove", "space"])
async def test_no_call_waits_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Calls without a reader have a timeout as well, because a reservation may wait for a removal (I20). While a call
    hangs, writes fail at once, so that bytes pass through (I16).
    """
    monkeypatch.setattr(store_module, "DISK_TIMEOUT_S", 0.05)
    hang = threading.Event()
    async with opened(tmp_path) as store:
        file = await store.create(1)

        def slow(*_: Any) -> Any:
            hang.wait(10)

        monkeypatch.setattr(FileStorage if call == "_remove" else Folder, call, slow)
        with pytest.raises(StoreError, match="did not answer"):
            await (store.remove(file.name) if call == "_remove" else store.disk_space())
        assert not store.is_usable
        monkeypatch.setattr(store_module, "DISK_TIMEOUT_S", 30)
        with pytest.raises(StoreError, match="does not answer"):
            await store.write(file, 0, b"x", 0, BLOCK)
        assert os.fstat(file.region.fd).st_blocks == 0
        hang.set()
        await asyncio.wait(store._hanging)
        await store.write(file, 0, b"x", 0, BLOCK)
        await store.close_file(file)


async def test_space_is_counted_as_the_disk_has_it(tmp_path: Path) -> None:
    """The free and the total bytes and inodes are those of the file system."""
    async with opened(tmp_path) as store:
        found, disk = await store.disk_space(), os.statvfs(tmp_path)
        assert 0 < found.free < found.total
        assert found.inodes == disk.f_files
        assert found.free_inodes == pytest.approx(disk.f_favail, rel=0.1)


async def test_one_thread_writes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes to one file run one after the other, in their order. Another file does not wait for them."""
    real, running, order = os.pwrite, set[int](), list[int]()
    at_once = threading.Barrier(2)

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        assert fd not in running, "two at once"
        running.add(fd)
        if not offset:
            at_once.wait(10)  # the first of each file, together
        written = real(fd, data, offset)
        order.append(fd * BLOCK * 10 + offset)
        running.remove(fd)
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)
    async with opened(tmp_path) as store:
        files = [await store.create(8 * BLOCK) for _ in range(2)]
        piece = bytes(BLOCK)
        await asyncio.gather(*(store.write(file, n * BLOCK, piece, 0, BLOCK) for n in range(8) for file in files))
        for file in files:
            own = [each for each in order if each // (BLOCK * 10) == file.region.fd]
            assert own == sorted(own)
            assert len(own) == 8
            await store.close_file(file)


async def test_a_disk_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that hangs is a StoreError after DISK_TIMEOUT_S. The disk is not usable until it has ended, and a file
    that it opened is closed then (I16, I20).
    """
    monkeypatch.setattr(store_module, "DISK_TIMEOUT_S", 0.05)
    clock, hang = FakeClock(), threading.Event()
    async with opened(tmp_path, clock) as store:
        file = await store.create(1)
        open_file = FileStorage._open_file

        def slow(*args: Any) -> Any:
            hang.wait(10)
            return open_file(*args)

        monkeypatch.setattr(FileStorage, "_open_file", slow)
        with pytest.raises(StoreError, match="did not answer"):
            await store.open_file(file.name, 1, None)
        clock.advance(10 * FAILURE_PAUSE_S)
        assert not store.is_usable
        with pytest.raises(StoreError):
            await store.create(1)
        hang.set()
        await asyncio.wait(store._hanging)
        await turns(5)
        assert store.is_usable
        assert open_files(tmp_path) == [str(tmp_path / "objects" / file.name[-2:] / file.name)]
        await store.close_file(file)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_file_that_nobody_waits_for_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    """A file that is created too late is closed and removed, because no row will ever name it (I12, I17)."""
    monkeypatch.setattr(store_module, "DISK_TIMEOUT_S", 10 if is_cancelled else 0.05)
    begun, hang = threading.Event(), threading.Event()
    async with opened(tmp_path) as store:
        ftruncate = os.ftruncate

        def slow(fd: int, size: int) -> None:
            begun.set()
            hang.wait(10)
            ftruncate(fd, size)

        monkeypatch.setattr(os, "ftruncate", slow)
        making = asyncio.create_task(store.create(1))
        await asyncio.to_thread(begun.wait, 10)
        if is_cancelled:
            making.cancel()
        await asyncio.wait([making])
        assert isinstance(making.exception(), StoreError) if not is_cancelled else making.cancelled()
        hang.set()
    assert open_files(tmp_path) == []
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []


async def test_a_probe_that_cannot_be_removed_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe of the disk has lost its name before it is written, so that no uncounted file takes space (I17)."""
    probe = tmp_path / "objects" / ".probe"
    probe.parent.mkdir(parents=True)
    probe.write_bytes(bytes(4096))  # as a kill may have left it

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        async with opened(tmp_path):
            assert probe.stat().st_blocks == 0
    async with opened(tmp_path):
        assert not probe.exists()


async def test_a_file_that_goes_while_its_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eviction during the sweep is no failure of the disk (I16)."""
    async with opened(tmp_path) as store:
        file = await store.create(1)
        scandir = os.scandir

        @contextmanager
        def late(fd: int) -> Iterator[list[os.DirEntry[str]]]:
            with scandir(fd) as found:
                items = list(found)
            (tmp_path / "objects" / file.name[-2:] / file.name).unlink()
            yield items

        monkeypatch.setattr(os, "scandir", late)
        assert await store.files(file.name[-2:]) == []
        assert (store.failures, store.is_usable) == (0, True)
        await store.close_file(file)
