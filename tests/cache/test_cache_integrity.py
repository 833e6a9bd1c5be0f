"""The comparison of fetched bytes with S3's checksum: bytes that do not fit are never kept."""

import asyncio
import base64
import hashlib
from collections import deque
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from cache_harness import PART, Rig, turns
from fake_origin import BLOCK, KEY, FakeOrigin, content
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.cache.fetch import part_transfer
from bucketfront.cache.fetch.integrity import MAX_OPAQUE, MAX_REMEMBERED, Integrity
from bucketfront.cache.storage import digests
from bucketfront.errors import ContentMismatch
from bucketfront.http.checksums import Digest
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import Demand, FromTo, Span
from bucketfront.keys import ObjectKey

OTHER = ObjectKey("bucket", "other")


def md5_etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def lying(*lies: bytes | None) -> FakeOrigin:
    return FakeOrigin(lies=deque(lies))


@each_row(
    ("algorithm", "value"),
    [
        ("crc32", "cbf43926"),
        ("crc32c", "e3069283"),
        ("crc64nvme", "ae8b14860a799888"),
        ("md5", "25f9e794323b453885f5181f1b624d0b"),
        ("sha1", "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
        ("sha256", "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
    ],
)
def test_the_algorithms_are_s3s(algorithm: str, value: str) -> None:
    """Each algorithm gives its catalogue's value for `123456789`, in the order of bytes that S3 encodes."""
    assert digests.of_bytes(b"123456789", algorithm).hex() == value


@given(
    size=st.sampled_from(
        [0, 1, digests.READ_BYTES - 1, digests.READ_BYTES, digests.READ_BYTES + 1, 2 * digests.READ_BYTES + 3]
    ),
    algorithm=st.sampled_from(["crc32", "crc32c", "crc64nvme", "md5", "sha1", "sha256"]),
)
def test_a_file_gives_what_its_bytes_give(size: int, algorithm: str) -> None:
    """A file that is read in pieces has the checksum of its bytes. A file that is too short has none."""
    data = content(size)
    with TemporaryFile() as file:
        file.write(data + b"more")
        file.flush()
        assert digests.of_file(file.fileno(), size, algorithm) == digests.of_bytes(data, algorithm)
        assert digests.of_file(file.fileno(), size + 5, algorithm) is None


def test_the_declared_checksum() -> None:
    """S3's checksum of the whole object comes before the ETag. An ETag that is no MD5 is no checksum."""
    md5 = "0" * 32
    assert digests.expected(Metadata(f'"{md5}"', 1)) == Digest("md5", bytes(16))
    assert digests.expected(Metadata(f'"{md5}"', 1, checksum=("crc32", "AAAAAQ=="))) == Digest(
        "crc32", bytes((0, 0, 0, 1))
    )
    for etag in ('"1"', f'"{md5}-2"', f'W/"{md5}"'):
        assert digests.expected(Metadata(etag, 1)) is None
    assert digests.expected(Metadata(f'"{md5}"', 1, has_opaque_etag=True)) is None


def test_when_an_etag_is_believed_to_be_no_md5() -> None:
    """If the same bytes come twice in a bucket where no ETag ever fitted, its ETags are ignored from then on."""
    metadata, elsewhere = Metadata(f'"{"0" * 32}"', 1), ObjectKey("elsewhere", "x")
    integrity = Integrity()
    told = integrity.expected(KEY, metadata)
    assert told is not None
    assert not integrity.fits(KEY, metadata, told, b"a" * 16)
    assert not integrity.fits(KEY, metadata, told, b"b" * 16)
    assert not integrity.fits(KEY, metadata, told, None)
    assert not integrity.fits(OTHER, metadata, told, b"b" * 16), "another object"
    assert integrity.fits(KEY, metadata, told, b"b" * 16)
    assert integrity.expected(KEY, metadata) is None
    assert integrity.expected(elsewhere, metadata) == told
    assert integrity.corrupt_objects == 4


def test_when_one_etag_is_believed_to_be_no_md5() -> None:
    """In a bucket with MD5s the same bytes twice are evidence for that version alone. It is remembered (I1)."""
    metadata = Metadata(f'"{"0" * 32}"', 1, "a")
    integrity = Integrity()
    told = Digest("md5", bytes(16))
    assert integrity.fits(OTHER, metadata, told, bytes(16))
    assert not integrity.fits(KEY, metadata, told, b"a" * 16)
    for number in range(1, 6):  # bytes that go wrong on the way differ
        assert not integrity.fits(KEY, metadata, told, bytes((number,)) * 16)
    assert integrity.fits(KEY, metadata, told, b"\5" * 16)
    assert integrity.expected(KEY, metadata) is None
    for key, other in (
        (OTHER, metadata),
        (KEY, Metadata(metadata.etag, 1, "b")),
        (KEY, Metadata(metadata.etag, 2, "a")),
    ):
        assert integrity.expected(key, other) == told
    for number in range(2 * MAX_OPAQUE):
        key = ObjectKey("bucket", str(number))
        integrity.fits(key, metadata, told, b"a" * 16)
        integrity.fits(key, metadata, told, b"a" * 16)
    assert len(integrity._opaque) == MAX_OPAQUE
    assert not integrity._misfits


def test_when_it_is_not() -> None:
    """If S3 declares a checksum, bytes that do not fit are never served (I1)."""
    metadata = Metadata(f'"{"0" * 32}"', 1)
    told = Digest("md5", bytes(16))
    checksum, integrity = Digest("crc32", bytes(4)), Integrity()
    for _ in range(5):
        assert not integrity.fits(KEY, metadata, checksum, b"aaaa")
    for number in range(2 * MAX_REMEMBERED):
        integrity.fits(ObjectKey("bucket", str(number)), metadata, told, b"a" * 16)
    assert len(integrity._misfits) == MAX_REMEMBERED


@each_row("size", [1, 16 << 10, BLOCK + 1, PART - 1, PART, 3 * PART + 5])
async def test_wrong_bytes_are_not_served(tmp_path: Path, size: int) -> None:
    """Bytes that do not fit the ETag end as ContentMismatch before the last of them is readable, and are removed.

    The next request gets the right ones (I1, I15).
    """
    data = content(size)
    async with Rig(tmp_path, origin=lying(flipped(data, size // 4))) as rig:
        rig.origin.put(data, md5_etag(data))
        with await rig.reader() as reader:
            with pytest.raises(ContentMismatch):
                await rig.read(reader, demand=Demand.WHOLE)
            assert reader.metadata.size == size
        await turns()
        assert rig.stored_files() == {}
        assert await rig.get() == data
        assert rig.cache.statistics().corrupt_objects == 1
        calls = rig.origin.gets
        assert await rig.get() == data
        assert rig.origin.gets == calls
        await rig.audit()


async def test_the_part_that_completes_an_object_compares_it(tmp_path: Path) -> None:
    """Ranges come in any order and at once, and the one that brings the last block finds the wrong one."""
    data = content(PART)
    order = [3, 1, 0, 2]
    async with Rig(tmp_path, origin=lying(flipped(data, 3 * BLOCK + 9))) as rig:
        rig.origin.put(data, md5_etag(data))
        for block in order[:2]:
            await rig.get(block * BLOCK, (block + 1) * BLOCK)
        with await rig.reader(part=FromTo(0, BLOCK)) as one, await rig.reader(part=FromTo(2 * BLOCK, 3 * BLOCK)) as two:
            results = await asyncio.gather(
                rig.read(one, 0, BLOCK), rig.read(two, 2 * BLOCK, 3 * BLOCK), return_exceptions=True
            )
        assert sum(isinstance(result, ContentMismatch) for result in results) == 1
        assert await rig.get() == data
        await rig.audit()


@pytest.fixture
def _nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every object as a large one."""
    monkeypatch.setattr(part_transfer, "MAX_HELD_BYTES", 0)


@pytest.mark.usefixtures("_nothing_held")
@pytest.mark.parametrize("is_hit_out", [False, True])
async def test_a_wrong_large_object_is_removed_soon(tmp_path: Path, is_hit_out: bool) -> None:
    """A larger object is compared once it is whole. If it does not fit, it is removed and fetched again (I15)."""
    data = content(3 * PART + 5)
    async with Rig(tmp_path, origin=lying(flipped(data, 9))) as rig:
        rig.origin.put(data, md5_etag(data))
        with await rig.reader() as reader:
            assert await rig.read(reader, demand=Demand.WHOLE) == flipped(data, 9)
            if is_hit_out:
                rig.cache.lease(KEY)
            await turns()
            reader.expect(Span(0, len(data)))
            with pytest.raises(ContentMismatch):
                await reader.readable(0)
        assert rig.cache.lease(KEY) is None
        assert await rig.get() == data
        await turns()
        assert rig.cache.statistics().corrupt_objects == 1
        assert rig.cache.statistics().compared_objects == 2
        calls = rig.origin.gets
        assert await rig.get() == data
        assert rig.origin.gets == calls
        await rig.audit()


@pytest.mark.usefixtures("_nothing_held")
@pytest.mark.parametrize("fits", [False, True])
async def test_an_object_put_in_parts(tmp_path: Path, fits: bool) -> None:
    """One HEAD gets S3's checksum of an object that was uploaded in parts, and the bytes have to fit it."""
    data = content(3 * PART)
    origin = lying()
    digest = digests.of_bytes(data if fits else b"other", "crc64nvme")
    origin.checksum = "crc64nvme", base64.b64encode(digest).decode()
    async with Rig(tmp_path, origin=origin) as rig:
        rig.origin.put(data, f'"{"0" * 32}-3"')
        assert await rig.get() == data
        await turns()
        assert rig.origin.heads == 1
        assert rig.cache.statistics().corrupt_objects == (0 if fits else 1)
        assert len(rig.entries) == (1 if fits else 0)
        await rig.audit()


@pytest.mark.usefixtures("_nothing_held")
async def test_a_mismatch_while_a_lost_block_is_fetched(tmp_path: Path) -> None:
    """A reader that waits for a lost block gets the mismatch of its object, and the block's part fetch ends."""
    data = content(3 * PART)
    async with Rig(tmp_path, origin=lying(flipped(data, 9))) as rig:
        rig.origin.put(data, md5_etag(data))
        hold = asyncio.Event()
        digest = rig.store.digest

        async def held(*args: object, **options: object) -> bytes | None:
            await hold.wait()
            return await digest(*args, **options)  # type: ignore[arg-type]

        rig.store.digest = held  # type: ignore[method-assign]
        with await rig.reader() as reader:
            await rig.read(reader, demand=Demand.WHOLE)
            rig.entries.lose(rig.entry(), 5)
            rig.origin.gate(5 * BLOCK)
            waiting = asyncio.create_task(rig.read(reader, 5 * BLOCK, 6 * BLOCK))
            await turns()
            hold.set()
            with pytest.raises(ContentMismatch):
                await waiting
        await rig.audit()


async def test_unverified_blocks_are_not_compared(tmp_path: Path) -> None:
    """After an unclean stop damaged blocks are fetched again one by one, and the origin is not blamed (I15)."""
    data = content(PART)
    async with Rig(tmp_path, origin=lying()) as rig:
        rig.origin.put(data, md5_etag(data))
        await rig.get()
        await rig.flusher.flush()
        rig.abandon()
    (path,) = rig.stored_files().values()
    path.write_bytes(flipped(flipped(data, BLOCK + 1), 3 * BLOCK + 1))
    async with Rig(tmp_path, origin=rig.origin) as again:
        assert await again.get() == data
        assert again.entries.corrupt_blocks == 2
        assert again.cache.statistics().corrupt_objects == 0
        await again.audit()
