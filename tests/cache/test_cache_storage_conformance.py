"""What every storage does: the one of files on disk, and one in memory that packs its versions into one file."""

import hashlib
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cache_harness import Rig
from fake_origin import BLOCK, KEY
from fakes import FakeClock, object_bytes
from packed_storage import PackedStorage

from bucketfront.cache.storage.file_storage import FileStorage
from bucketfront.cache.storage.storage import Region, Storage
from bucketfront.http.checksums import MD5
from bucketfront.http.ranges import Span
from bucketfront.keys import ObjectKey

SIZE = 2 * BLOCK + 100
DATA = object_bytes(SIZE)
SUMS = [zlib.crc32(DATA[at : at + BLOCK]) for at in range(0, SIZE, BLOCK)]


def in_region(region: Region, span: Span) -> bytes:
    """Read as a sender reads: from the descriptor, at the place that the region names."""
    place = region.locate(span)
    return os.pread(region.fd, place.length, place.start)


@pytest.fixture(params=["files", "packed"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def storage(kind: str, tmp_path: Path) -> AsyncIterator[Storage]:
    async with opened(kind, tmp_path) as storage:
        yield storage


@asynccontextmanager
async def opened(kind: str, root: Path) -> AsyncIterator[Storage]:
    if kind == "files":
        storage = FileStorage(root, FakeClock())
        storage.open()
        yield storage
        storage.close()
    else:
        packed = PackedStorage()
        yield packed
        packed.close()


async def test_what_is_written_is_in_the_region(storage: Storage) -> None:
    """The region of a version has its bytes, and not those of another version (I1)."""
    first, second = await storage.create(SIZE), await storage.create(SIZE)
    assert await storage.write(first, 0, DATA, 0, BLOCK) == SUMS
    await storage.write(second, 0, DATA[::-1], 0, BLOCK)
    for file, data in (first, DATA), (second, DATA[::-1]):
        assert file.region.length == SIZE
        assert in_region(file.region, Span(0, SIZE)) == data
        assert in_region(file.region, Span(BLOCK - 1, BLOCK + 1)) == data[BLOCK - 1 : BLOCK + 1]
        assert await storage.read(file, Span(10, 20)) == data[10:20]
        await storage.read_in(file, Span(0, SIZE))
        await storage.close_file(file)


async def test_checksums_continue_over_writes(storage: Storage) -> None:
    """Two writes that meet within a block give the checksum of the whole block (I2)."""
    file = await storage.create(SIZE)
    cut = BLOCK + 50
    first = await storage.write(file, 0, DATA[:cut], 0, BLOCK)
    second = await storage.write(file, cut, DATA[cut:], first[-1], BLOCK)
    assert [first[0], *second] == SUMS
    assert await storage.checksums(file, Span(BLOCK, 3 * BLOCK), BLOCK) == [SUMS[1], None]
    assert await storage.digest(file, SIZE, MD5) == hashlib.md5(DATA).digest()
    assert await storage.digest(file, SIZE + 1, MD5, is_urgent=False) is None
    await storage.close_file(file)


async def test_a_version_may_grow(storage: Storage) -> None:
    """A version that is written before its size is known can be opened again with the size that it got."""
    file = await storage.create(0)
    await storage.write(file, 0, DATA[:BLOCK], 0, BLOCK)
    await storage.write(file, BLOCK, DATA[BLOCK:], 0, BLOCK)
    assert in_region(file.with_length(SIZE).region, Span(0, SIZE)) == DATA
    await storage.close_file(file)
    again = await storage.open_file(file.name, SIZE, None)
    assert again is not None
    assert again.region.length == SIZE
    assert await storage.read(again, Span(0, SIZE)) == DATA
    await storage.close_file(again)


async def test_bytes_beyond_the_end(storage: Storage) -> None:
    """A read beyond the end of a version is an error, whatever lies behind it in the file (I3)."""
    file, other = await storage.create(10), await storage.create(SIZE)
    await storage.write(file, 0, DATA[:10], 0, BLOCK)
    await storage.write(other, 0, DATA, 0, BLOCK)
    with pytest.raises(EOFError):
        await storage.read(file, Span(0, 11))
    await storage.close_file(file)
    await storage.close_file(other)


async def test_known_bytes(storage: Storage) -> None:
    """A read that names checksums returns no other bytes than those that were written (I15)."""
    file = await storage.create(SIZE)
    await storage.write(file, 0, DATA, 0, BLOCK)
    assert await storage.read_known(file, Span(BLOCK, SIZE), SUMS[1:], BLOCK) == DATA[BLOCK:]
    assert await storage.read_known(file, Span(BLOCK, SIZE), SUMS[:2], BLOCK) is None
    await storage.close_file(file)


async def test_an_audit_finds_corrupt_blocks(storage: Storage) -> None:
    """An audit returns the blocks with other bytes than claimed, and None for a version that is gone (I15)."""
    file = await storage.create(SIZE)
    await storage.write(file, 0, DATA, 0, BLOCK)
    claims = tuple(enumerate(SUMS))
    assert await storage.audit(file.name, SIZE, claims, BLOCK) == 0
    os.pwrite(file.region.fd, b"?", file.region.offset + BLOCK)
    assert await storage.audit(file.name, SIZE, claims, BLOCK) == 1 << 1
    assert await storage.audit(file.name, SIZE - 1, claims, BLOCK) is None
    await storage.remove(file.name)
    assert await storage.audit(file.name, SIZE, claims, BLOCK) is None
    await storage.close_file(file)


async def test_punched_bytes_are_zero(storage: Storage) -> None:
    """Bytes whose space was freed are zero, and their neighbours are as before."""
    file = await storage.create(SIZE)
    await storage.write(file, 0, DATA, 0, BLOCK)
    await storage.punch(file, Span(BLOCK, 2 * BLOCK))
    await storage.punch(file, Span(7, 7))
    await storage.sync(file)
    assert await storage.read(file, Span(0, SIZE)) == DATA[:BLOCK] + bytes(BLOCK) + DATA[2 * BLOCK :]
    await storage.close_file(file)


async def test_reopening_frees_what_is_not_present(storage: Storage) -> None:
    """A version is opened again by its name, and the bytes outside of the given spans are freed (I14)."""
    file = await storage.create(SIZE)
    await storage.write(file, 0, DATA, 0, BLOCK)
    await storage.close_file(file)
    again = await storage.open_file(file.name, SIZE, [Span(BLOCK, 2 * BLOCK)])
    assert again is not None
    assert await storage.read(again, Span(0, SIZE)) == bytes(BLOCK) + DATA[BLOCK : 2 * BLOCK] + bytes(100)
    await storage.close_file(again)
    assert await storage.open_file(file.name, SIZE + 1, None) is None
    assert await storage.open_file("0" * 25 + "X", SIZE, None) is None


async def test_a_removed_version_stays_readable(storage: Storage) -> None:
    """Readers of a removed version finish. It does not open again, and a second removal does no harm (I18)."""
    file = await storage.create(SIZE)
    await storage.write(file, 0, DATA, 0, BLOCK)
    await storage.remove(file.name)
    await storage.remove(file.name)
    assert await storage.open_file(file.name, SIZE, None) is None
    assert in_region(file.region, Span(0, SIZE)) == DATA
    await storage.close_file(file)


async def test_space_and_state(storage: Storage) -> None:
    """A sound storage is usable, has no failures, and knows its free space."""
    disk = await storage.disk_space()
    assert 0 < disk.free <= disk.total
    assert 0 <= disk.free_inodes <= disk.inodes
    assert storage.is_usable
    assert not storage.failures


async def test_a_cache_over_it(kind: str, tmp_path: Path) -> None:
    """A cache over any storage fills, serves from the region, takes uploads, evicts, and ends with nothing open."""
    async with opened(kind, tmp_path / "storage") as storage:
        async with Rig(tmp_path / "rig", storage=storage) as rig:
            data = rig.origin.put(object_bytes(5 * BLOCK + 17))
            assert await rig.get() == data
            assert await rig.get(BLOCK, BLOCK + 9) == data[BLOCK : BLOCK + 9]
            small = KEY._replace(key="small")
            body = rig.origin.put(object_bytes(300, seed=1), key=small)
            assert await rig.get(key=small) == body
            lease = rig.cache.lease(small)
            assert lease is not None
            assert lease.body == body
            assert in_region(lease.region, Span(0, 300)) == body
            await upload(rig, KEY._replace(key="upload"), data)
            assert await rig.cache.purge([KEY, small]) == 2
            assert await rig.get() == data
        if isinstance(storage, PackedStorage):
            assert storage.opened == []


async def upload(rig: Rig, key: ObjectKey, data: bytes) -> None:
    writing = rig.cache.begin_write(key, None)
    await writing.write(data)
    assert b"".join([piece async for piece in writing.read(0, len(data))]) == data
    rig.origin.put(data, key=key)
    await rig.cache.publish(writing, '"1"')
    gets = rig.origin.gets
    assert await rig.get(key=key) == data
    assert rig.origin.gets == gets
    writing.close()
