"""The parts of a body, and the journal of multipart uploads."""

import asyncio
import errno
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from behaviour import Behaviour, InTurn, honest
from chaos_origin import ChaosOrigin
from fakes import object_bytes
from rows import each_row
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import NoSuchUpload, OriginBusy, OriginUnavailable, StoreError, StoreFull, WriteRefused
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload import multipart
from bucketfront.s3.upload.journal import UploadJournal
from bucketfront.s3.upload.multipart import MAX_PART_BYTES, MAX_PARTS, Multipart
from bucketfront.s3.upload.parts import (
    MAX_BUFFER_BYTES as BUFFER,
)
from bucketfront.s3.upload.parts import (
    MAX_GATHER_BYTES,
    PART_SIZE,
    BufferLimiter,
    UploadBody,
    part_size,
)

TiB = 1 << 40
KEY = ObjectKey("bucket", "o")
SMALLEST = 5 << 20  # bytes, S3: of all parts but the last


@each_row("length", [1, PART_SIZE, PART_SIZE * MAX_PARTS, PART_SIZE * MAX_PARTS + 1, 5 * TiB, None])
def test_parts_hold_the_largest_object(length: int | None) -> None:
    """S3 API, "Multipart upload limits": 10,000 parts of 5 MiB to 5 GiB have 5 TiB. With a length they are equal."""
    sizes = [part_size(number, length) for number in range(1, MAX_PARTS + 1)]
    assert all(SMALLEST <= size <= MAX_PART_BYTES for size in sizes)
    assert sum(sizes) >= (5 * TiB if length is None else length)
    assert sizes == sorted(sizes)
    assert sizes[0] == PART_SIZE or length == 5 * TiB or length == PART_SIZE * MAX_PARTS + 1
    if length is not None:
        assert len(set(sizes)) == 1


class Lines:
    """A spool with room for `room` bytes, which then raises `error`."""

    def __init__(self, room: int, error: StoreError) -> None:
        self.data = bytearray()
        self._room = room
        self._error = error

    async def write(self, data: bytes) -> None:
        if len(self.data) + len(data) > self._room:
            raise self._error
        self.data += data

    async def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        for at in range(start, stop, 1000):
            yield bytes(self.data[at : min(at + 1000, stop)])

    async def acknowledge(self, start: int, stop: int) -> None:
        """Accept it. This spool gives no room back."""


async def cut(content: bytes, length: int | None, spool: Lines | None, size: int, seed: int) -> list[bytes]:
    chance = random.Random(seed)

    async def chunks() -> AsyncIterator[bytes]:
        at = 0
        while at < len(content):
            step = chance.choice([1, 10, 1000, 5000])
            yield content[at : at + step]
            at += step

    body = UploadBody(chunks(), length, spool, BufferLimiter(1, 1.0))
    found = []
    while True:
        part = await body.part(size)
        found.append(b"".join([piece async for piece in part.chunks()]))
        assert len(found[-1]) == part.size
        if part.is_spooled:
            assert b"".join([piece async for piece in part.chunks()]) == found[-1]
        if part.is_last:
            body.close()
            return found


@each_row("error", [StoreError("broken"), StoreFull("full")])
@each_row("room", [-1, 0, 5000, 12_000, 1 << 20])
@each_row("length", [0, 1, 9_999, 10_000, 10_001, 34_567])
@each_row("is_known", [True, False])
async def test_a_body_is_cut(
    error: StoreError, room: int, length: int, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every route the parts together are the body. All but the last have the requested size."""
    monkeypatch.setattr("bucketfront.s3.upload.parts.MAX_GATHER_BYTES", 1024)
    content = object_bytes(length)
    spool = None if room < 0 else Lines(room, error)
    found = await cut(content, length if is_known else None, spool, 10_000, seed=length)
    assert b"".join(found) == content
    assert [len(part) for part in found[:-1]] == [10_000] * (len(found) - 1)
    assert len(found) == max(1, -(-length // 10_000))


@each_row("room", [-1, 5000, 1 << 20])
async def test_a_body_that_ends_early(room: int) -> None:
    """A body shorter than its length is refused (I8)."""
    spool = None if room < 0 else Lines(room, StoreError("broken"))
    with pytest.raises(WriteRefused):
        await cut(object_bytes(15_000), 15_001, spool, 10_000, seed=1)


async def test_memory_is_bounded() -> None:
    """As many bodies of unknown length are in memory at once as there are permits; small ones need none (I19)."""
    limiter = BufferLimiter(2, 0.05)

    async def chunks(size: int) -> AsyncIterator[bytes]:
        yield bytes(size)

    held = [UploadBody(chunks(BUFFER), None, None, limiter) for _ in range(2)]
    for body in held:
        await body.part(PART_SIZE)
    with pytest.raises(OriginBusy):
        await UploadBody(chunks(BUFFER), None, None, limiter).part(PART_SIZE)
    assert (await UploadBody(chunks(1000), None, None, limiter).part(PART_SIZE)).size == 1000
    assert (await UploadBody(chunks(BUFFER), BUFFER, None, limiter).part(PART_SIZE)).size == BUFFER
    held[0].close()
    assert (await UploadBody(chunks(BUFFER), None, None, limiter).part(PART_SIZE)).size == BUFFER
    assert MAX_GATHER_BYTES < BUFFER


# --- at S3 -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def chaos(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ChaosOrigin]:
    monkeypatch.setattr(multipart, "RETRY_PAUSE_S", 0.0)
    async with ChaosOrigin() as origin:
        yield origin


@pytest.fixture
async def s3(chaos: ChaosOrigin) -> AsyncIterator[S3Origin]:
    settings = {
        "endpoint_url": chaos.endpoint_url,
        "credentials": {"access_key_id": "any", "secret_access_key": "any"},
        "addressing_style": "path",
    }
    async with S3Origin(OriginSettings.model_validate(settings)) as origin:
        yield origin


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_the_steps(chaos: ChaosOrigin, s3: S3Origin) -> None:
    """Parts go in any order, also to an upload of another process. A completed upload is unknown afterwards."""
    begun = await Multipart.begin(s3, KEY, {"ContentType": "text/x"})
    second = await begun.part(2, lambda: one(b"two"), 3)
    upload = Multipart.resumed(s3, KEY, begun.id)
    first = await upload.part(1, lambda: one(b"one"), 3)
    assert (await upload.complete([second, first])).etag.startswith('"')
    assert chaos.stored("o") == b"onetwo"
    with pytest.raises(NoSuchUpload):
        await upload.part(3, lambda: one(b"x"), 1)
    await upload.abort()  # fine all the same


async def test_retries_use_the_budget(chaos: ChaosOrigin, s3: S3Origin) -> None:
    """A part has three attempts, as long as the retry budget lasts, and the completion one without it (I9, I20)."""
    upload = await Multipart.begin(s3, KEY, {})
    chaos.script = InTurn(*[Behaviour(status=503)] * 100, methods=("PUT", "POST"))
    with pytest.raises(OriginUnavailable):
        await upload.part(1, lambda: one(b"x"), 1)
    assert chaos.counts["PUT"] == 3
    s3.retries = RetryBudget(0)
    with pytest.raises(OriginUnavailable):
        await upload.part(1, lambda: one(b"x"), 1)
    assert chaos.counts["PUT"] == 4
    with pytest.raises(OriginUnavailable):
        await upload.complete([])
    assert chaos.counts["POST"] == 2


def noted(path: Path) -> list[str]:
    return [row[0] for row in json.loads(path.read_bytes())]


async def test_the_journal_outlives_the_process(tmp_path: Path, chaos: ChaosOrigin, s3: S3Origin) -> None:
    """The next run aborts the uploads of this one at the same S3. Uploads that ended are forgotten (I8, I14)."""
    path = tmp_path / "uploads.json"
    journal, elsewhere = UploadJournal(path, "here"), UploadJournal(path, "elsewhere")
    left = await Multipart.begin(s3, KEY, {}, journal=journal)
    over = await Multipart.begin(s3, KEY, {}, journal=journal)
    await over.abort()
    assert [*chaos.uploads.running] == [left.id]
    elsewhere.open()
    assert elsewhere.abandoned == []
    await elsewhere.add(KEY, "another")
    again = UploadJournal(path, "here")
    again.open()
    assert again.abandoned == [(KEY, left.id)]
    aborting = asyncio.create_task(again.abort_abandoned(s3))
    async with asyncio.timeout(HANG_S):
        while noted(path) != ["another"]:  # noqa: ASYNC110 - it has no event for it
            await asyncio.sleep(0.005)
    aborting.cancel()
    await asyncio.gather(aborting, return_exceptions=True)
    assert chaos.uploads.running == {}
    assert again.abandoned == []


async def test_the_journal_stays_in_its_folder(tmp_path: Path) -> None:
    """A folder that took the place of the cache folder is not written to (I16)."""
    root, other = tmp_path / "cache", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    folder = os.open(root, os.O_DIRECTORY)
    try:
        journal = UploadJournal(root / "uploads.json", "here", folder)
        root.rename(tmp_path / "moved")
        root.symlink_to(other)
        await journal.add(KEY, "one")
        again = UploadJournal(root / "uploads.json", "here", folder)
        again.open()
        assert again.abandoned == [(KEY, "one")]
    finally:
        os.close(folder)
    assert list(other.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[["a"]]', b"\xff\xfe", b"null"])
async def test_a_damaged_journal(tmp_path: Path, content: bytes, chaos: ChaosOrigin, s3: S3Origin) -> None:
    """A journal that cannot be read starts empty (I14, I16)."""
    path = tmp_path / "uploads.json"
    path.write_bytes(content)
    journal = UploadJournal(path, "here")
    journal.open()
    assert journal.abandoned == []
    upload = await Multipart.begin(s3, KEY, {}, journal=journal)
    assert upload.id in path.read_text()


async def test_a_journal_that_cannot_be_written(tmp_path: Path, chaos: ChaosOrigin, s3: S3Origin) -> None:
    """A disk that fails is no reason to refuse an upload (I16)."""
    journal = UploadJournal(tmp_path / "gone" / "uploads.json", "here")
    journal.open()
    upload = await Multipart.begin(s3, KEY, {}, journal=journal)
    await upload.complete([await upload.part(1, lambda: one(b"x"), 1)])
    assert chaos.stored("o") == b"x"


@pytest.mark.parametrize("room", [20, 1 << 20])
async def test_short_writes_of_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Short writes are continued. If the disk is full, the journal from before stays (I14, I16)."""
    journal = UploadJournal(tmp_path / "uploads.json", "here")
    journal.open()
    ids = [f"id{number}" for number in range(3)]
    for upload in ids:
        await journal.add(KEY, upload)
    write, left = os.write, room

    def nearly_full(fd: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "no space left on the device")
        written = write(fd, data[: min(left, 20)])
        left -= written
        return written

    monkeypatch.setattr(os, "write", nearly_full)
    await journal.add(KEY, "last")
    monkeypatch.undo()
    again = UploadJournal(tmp_path / "uploads.json", "here")
    again.open()
    assert [upload for _, upload in again.abandoned] == (ids if room == 20 else [*ids, "last"])


async def test_a_stop_waits_for_aborts(chaos: ChaosOrigin, s3: S3Origin) -> None:
    """An upload whose creation is cancelled is aborted before the S3 client closes (I8, I12)."""
    chaos.script = InTurn(Behaviour(pause=0.2), methods=("POST",))
    beginning = asyncio.create_task(Multipart.begin(s3, KEY, {}))
    async with asyncio.timeout(HANG_S):
        while not chaos.counts["POST"]:  # noqa: ASYNC110 - the other side has no event for it
            await asyncio.sleep(0.005)
    beginning.cancel()
    await asyncio.gather(beginning, return_exceptions=True)
    chaos.script = honest
    await s3.__aexit__(None, None, None)
    assert chaos.counts["DELETE"] == 1
    assert chaos.uploads.running == {}
