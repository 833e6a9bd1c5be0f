"""A body in a file of the cache on its way to S3: room is taken before it is written; it becomes an entry, or goes."""

import asyncio
import errno
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, KEY, FakeOrigin, content
from rows import each_row

from bucketfront.cache.entries.entry import ENTRY_BYTES
from bucketfront.cache.storage.blocks import ALLOCATION_UNIT
from bucketfront.cache.storage.folder import Folder
from bucketfront.cache.upload import Upload
from bucketfront.errors import ObjectChanged, ObjectNotFound, OriginUnavailable, StoreError, StoreFull
from bucketfront.fair_share import acting_for
from bucketfront.http.ranges import Demand
from bucketfront.keys import ObjectKey

OTHER = ObjectKey("bucket", "other")


async def filled(rig: Rig, data: bytes, *, length: int | None = None, step: int = BLOCK - 100) -> Upload:
    writing = rig.cache.begin_write(KEY, length)
    for at in range(0, len(data), step):
        await writing.write(data[at : at + step])
    return writing


async def bytes_of(writing: Upload, start: int, stop: int) -> bytes:
    return b"".join([piece async for piece in writing.read(start, stop)])


def on_disk(rig: Rig) -> int:
    return sum(path.stat().st_blocks * 512 for path in rig.stored_files().values())


@each_row("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 77])
@each_row("is_known", [True, False])
async def test_it_becomes_the_entry(tmp_path: Path, size: int, is_known: bool) -> None:
    """One HEAD makes it the entry, with the bytes, metadata, charges and index rows of a fill (I4, I17)."""
    async with Rig(tmp_path) as rig:
        data = content(size)
        writing = await filled(rig, data, length=size if is_known else None)
        assert rig.budget.used == (ENTRY_BYTES + -(-size // ALLOCATION_UNIT) * ALLOCATION_UNIT if size else 0)
        rig.origin.store(KEY, data, etag='"1"')
        await rig.cache.publish(writing, '"1"')
        writing.close()
        assert (rig.origin.heads, rig.origin.gets) == (1, 0)
        with await rig.reader() as reader:
            assert reader.status.hit
            assert await rig.read(reader) == data
        assert (rig.origin.heads, rig.origin.gets) == (1, 0)
        await rig.audit()
    async with Rig(tmp_path, origin=rig.origin) as rig:
        if size:
            assert await rig.get() == data
            assert rig.origin.gets == 0


async def test_an_origin_that_loses_bytes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The bytes that S3 has are served, and a log line reports that it lost some (I4, I5)."""
    async with Rig(tmp_path) as rig:
        writing = await filled(rig, content(2 * BLOCK))
        rig.origin.store(KEY, content(BLOCK), etag='"1"')
        await rig.cache.publish(writing, '"1"')
        writing.close()
        assert await rig.get() == content(BLOCK)
        assert caplog.messages == [f"{KEY}: the origin has {BLOCK} of {2 * BLOCK} bytes that it took"]
        await rig.audit()


async def test_an_unclean_stop(tmp_path: Path) -> None:
    """Blocks of the upload that the index has are verified by the checksums they were written with (I14, I15)."""
    async with Rig(tmp_path) as rig:
        data = content(3 * BLOCK + 5)
        rig.origin.store(KEY, data, etag='"1"')
        writing = await filled(rig, data)
        await rig.cache.publish(writing, '"1"')
        await rig.flusher.flush()
        await turns()
        (path,) = rig.stored_files().values()
        rig.abandon()
    with path.open("r+b") as file:
        file.seek(BLOCK)
        file.write(b"?")
    async with Rig(tmp_path, origin=rig.origin) as rig:
        assert await rig.get() == data
        assert rig.origin.reads == [(BLOCK, 2 * BLOCK)]


@each_row("start", [0, 1, BLOCK, BLOCK + 5])
async def test_reading_back(tmp_path: Path, start: int) -> None:
    """Any stretch can be read any number of times, also while the body is still written."""
    async with Rig(tmp_path) as rig:
        data = content(4 * BLOCK + 5)
        writing = await filled(rig, data)
        for stop in (start + 1, 2 * BLOCK, 3 * BLOCK + 9, len(data)):
            assert await bytes_of(writing, start, stop) == data[start:stop]
        reading = asyncio.create_task(bytes_of(writing, start, len(data)))
        await writing.write(content(3 * BLOCK, 2))
        assert await reading == data[start:]
        assert await bytes_of(writing, 0, writing.size) == data + content(3 * BLOCK, 2)
        writing.close()
        await turns()
        assert rig.stored_files() == {}
        await rig.audit()


async def test_what_went_bad_is_not_sent(tmp_path: Path) -> None:
    """If the disk has another byte than was written, S3 does not get it (I15)."""
    async with Rig(tmp_path) as rig:
        writing = await filled(rig, content(3 * BLOCK))
        (path,) = rig.stored_files().values()
        with path.open("r+b") as file:
            file.seek(BLOCK + 9)
            file.write(b"\0")
        assert await bytes_of(writing, 0, BLOCK) == content(3 * BLOCK)[:BLOCK]
        with pytest.raises(StoreError):
            await bytes_of(writing, BLOCK, 2 * BLOCK)
        writing.close()


async def test_a_file_that_is_cut_is_not_sent(tmp_path: Path) -> None:
    """If the file lost its end, S3 does not get the rest (I8)."""
    async with Rig(tmp_path) as rig:
        writing = await filled(rig, content(3 * BLOCK))
        (path,) = rig.stored_files().values()
        os.truncate(path, 2 * BLOCK + 1)
        with pytest.raises(StoreError):
            await bytes_of(writing, 0, 3 * BLOCK)
        writing.close()


@pytest.mark.parametrize("length", [20 * BLOCK, None])
async def test_larger_than_the_cache(tmp_path: Path, length: int | None) -> None:
    """The file is a window: acknowledged blocks make room, `max_size` always holds, and there is no entry (I17)."""
    limit = 6 * BLOCK + ENTRY_BYTES
    async with Rig(tmp_path, max_size=limit) as rig:
        writing = rig.cache.begin_write(KEY, length)
        data = content(20 * BLOCK)
        taken = 0
        for at in range(0, len(data), BLOCK // 2):
            try:
                await writing.write(data[at : at + BLOCK // 2])
            except StoreFull:
                assert at - taken > 4 * BLOCK
                assert await bytes_of(writing, taken, taken + 3 * BLOCK // 2) == data[taken : taken + 3 * BLOCK // 2]
                await writing.acknowledge(taken, taken + 3 * BLOCK // 2)
                taken += 3 * BLOCK // 2
                await writing.write(data[at : at + BLOCK // 2])
            assert rig.budget.used <= limit
            assert on_disk(rig) <= limit
        assert await bytes_of(writing, taken, len(data)) == data[taken:]
        assert not writing.is_whole
        rig.origin.store(KEY, data, etag='"1"')
        await rig.cache.publish(writing, '"1"')
        assert rig.origin.heads == 0
        writing.close()
        await turns()
        assert rig.budget.used == 0
        assert rig.stored_files() == {}


async def test_uploads_of_one_client_take_half_of_the_cache(tmp_path: Path) -> None:
    """Uploads of one client that run take half of the cache at most, and go on as windows. Others have room (I34)."""
    async with Rig(tmp_path, max_size=32 * BLOCK) as rig:
        rig.cache._upload_shares.share_of_one = 0.25
        with acting_for("greedy"):
            greedy = [rig.cache.begin_write(KEY._replace(key=f"greedy {number}"), None) for number in range(8)]
            for writing in greedy:
                with suppress(StoreFull):
                    for _ in range(4):
                        await writing.write(content(BLOCK))
        assert 12 * BLOCK < rig.budget.used <= 16 * BLOCK + len(greedy) * ENTRY_BYTES
        assert not greedy[-1].is_whole
        with acting_for("honest"):
            honest = await filled(rig, content(4 * BLOCK))
        assert honest.is_whole
        for writing in greedy[:2]:
            writing.close()
        await turns()
        await greedy[-1].write(content(BLOCK))
        for writing in [*greedy, honest]:
            writing.close()
        await turns()
        assert (rig.budget.used, rig.cache._upload_shares.used, rig.cache._upload_shares.clients) == (0, 0, {})


async def test_room_is_made_by_eviction(tmp_path: Path) -> None:
    """The least recently used entry is evicted first, as for a fill.

    Acknowledged blocks are punched only without victims.
    """
    async with Rig(tmp_path, max_size=8 * BLOCK + 2 * ENTRY_BYTES) as rig:
        other = content(4 * BLOCK)
        rig.origin.store(OTHER, other, etag='"o"')
        assert await rig.get(key=OTHER) == other
        await turns()
        data = content(6 * BLOCK, 2)
        writing = await filled(rig, data)
        assert writing.is_whole
        assert rig.entries.hot(OTHER) is None
        rig.origin.store(KEY, data, etag='"1"')
        await rig.cache.publish(writing, '"1"')
        assert await rig.get() == data
        assert rig.origin.keys.count(KEY) == 0
        await rig.audit()


@each_row("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
async def test_a_disk_that_fails(tmp_path: Path, number: int) -> None:
    """The write that fails raises StoreError, and so do all later ones.

    Earlier bytes stay readable, and all space is given back (I16).
    """
    async with Rig(tmp_path) as rig:
        data = content(3 * BLOCK)
        writing = await filled(rig, data)
        rig.store.errors.append(OSError(number, "made up"))
        for _ in range(2):
            with pytest.raises(StoreError):
                await writing.write(b"more")
        assert await bytes_of(writing, 0, len(data)) == data
        assert not writing.is_whole
        writing.close()
        await turns()
        await rig.audit()


async def test_a_file_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a failed upload is closed even if the disk does not unlink it, and stays charged."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async with Rig(tmp_path) as rig:
        writing = await filled(rig, content(2 * BLOCK))
        used = rig.budget.used
        with monkeypatch.context() as broken:
            broken.setattr(Folder, "unlink", refuse)
            writing.close()
            await turns()
        assert rig.open_files() == []
        assert rig.budget.used == used


async def test_a_disk_that_refuses_a_file(tmp_path: Path) -> None:
    """A disk that failed a moment ago is not used (I16)."""
    async with Rig(tmp_path) as rig:
        rig.store.note_failure("made up")
        writing = rig.cache.begin_write(KEY, 10)
        with pytest.raises(StoreError):
            await writing.write(b"0123456789")
        assert not writing.is_whole
        writing.close()
        assert rig.budget.used == 0


@pytest.mark.parametrize("error", [ObjectNotFound("gone"), OriginUnavailable("away")])
async def test_a_head_that_fails(tmp_path: Path, error: OriginUnavailable) -> None:
    """If the HEAD fails, no entry is made, and the next request sends its own (I13)."""
    async with Rig(tmp_path) as rig:
        data = content(2 * BLOCK)
        rig.origin.store(KEY, data, etag='"1"')
        writing = await filled(rig, data)
        rig.origin.errors.append(error)
        await rig.cache.publish(writing, '"1"')
        writing.close()
        await turns()
        assert rig.budget.used == 0
        assert rig.stored_files() == {}
        assert await rig.get() == data


async def test_a_writer_that_leaves_while_it_is_published(tmp_path: Path) -> None:
    """The entry is made nevertheless, once (I12)."""
    async with Rig(tmp_path) as rig:
        data = content(2 * BLOCK)
        rig.origin.store(KEY, data, etag='"1"')
        writing = await filled(rig, data)
        rig.origin.door = asyncio.Event()
        publishing = asyncio.create_task(rig.cache.publish(writing, '"1"'))
        await turns()
        publishing.cancel()
        await turns()
        writing.close()
        rig.origin.door.set()
        await turns()
        assert await rig.get() == data
        assert (rig.origin.heads, rig.origin.gets) == (1, 0)
        await rig.audit()


async def test_a_stop_while_it_is_published(tmp_path: Path) -> None:
    """The file is removed when the cache closes (I14)."""
    async with Rig(tmp_path) as rig:
        data = content(2 * BLOCK)
        rig.origin.store(KEY, data, etag='"1"')
        writing = await filled(rig, data)
        rig.origin.door = asyncio.Event()
        publishing = asyncio.create_task(rig.cache.publish(writing, '"1"'))
        await turns()
        await rig.close()
        await publishing
        writing.close()
    assert [*(tmp_path / "objects").glob("*/*")] == []


async def test_a_lookup_that_a_publication_displaces(tmp_path: Path) -> None:
    """A GET that is sent between a write and its publication, and ends after the next write, publishes nothing (I6)."""
    origin = FakeOrigin(random.Random(1))
    async with Rig(tmp_path, origin=origin) as rig:
        first, second = content(2 * BLOCK, 1), content(3 * BLOCK, 2)
        writing = await filled(rig, first)
        origin.store(KEY, first, etag='"1"')
        await rig.cache.invalidate(KEY)
        origin.late = late = asyncio.Event()
        reading = asyncio.create_task(rig.get())
        await turns()
        await rig.cache.publish(writing, '"1"')
        origin.late = None
        writing = await filled(rig, second)
        origin.store(KEY, second, etag='"2"')
        await rig.cache.invalidate(KEY)
        writing.close()
        late.set()
        assert await reading == first
        await turns()
        assert await rig.get() == second
        await rig.audit()


class Race:
    """Writes, reads, purges and another client's writes of one object. `order` has the versions as S3 got them.

    A read that begins now may get none before `order[floor]`.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.chance = rig.chance
        self.data: dict[str, bytes] = {}
        self.order: list[str] = []
        self.floor = 0
        self.answered = 0
        self.put(self.made())

    def made(self) -> str:
        etag = f'"{len(self.data) + 1}"'
        self.data[etag] = content(self.chance.choice([1, BLOCK, 3 * BLOCK + 5]), len(self.data))
        return etag

    def put(self, etag: str) -> None:
        self.rig.origin.store(KEY, self.data[etag], etag=etag)
        self.order.append(etag)

    async def write(self) -> None:
        """Write as `server/handlers/uploads.py` does.

        S3 accepts it, or refuses it, or accepts it and sends no response.
        """
        etag, outcome = self.made(), self.chance.choice(["answered", "answered", "refused", "unknown"])
        writing = await filled(self.rig, self.data[etag])
        try:
            await self.rig.cache.invalidate(KEY)
            await self.rig.origin.pause()
            if outcome != "refused":
                self.put(etag)
            await self.rig.origin.pause()
            await self.rig.cache.invalidate(KEY)
            if outcome == "answered":
                await self.rig.cache.publish(writing, etag)
            if outcome != "refused":
                self.answered += 1
                self.floor = max(self.floor, self.order.index(etag))
        finally:
            writing.close()

    async def read(self) -> None:
        least = self.floor
        try:
            with await self.rig.reader(wants_body=self.chance.random() < 0.8) as reader:
                etag = reader.metadata.etag
                assert self.order.index(etag) >= least, "an older version than one whose write had its response"
                assert await self.rig.read(reader, demand=Demand.WHOLE) == self.data[etag]
        except ObjectChanged:
            pass  # before the last byte came

    async def purge(self) -> None:
        await self.rig.cache.purge([KEY])

    async def overwrite(self) -> None:
        self.put(self.made())


@each_row("seed", range(100), few=16)
async def test_writes_and_fills_race(tmp_path: Path, seed: int) -> None:
    """In any order of events, a read after a write gets that version or a later one, whole, and so does the cache (I1,
    I5, I6, I9).
    """
    async with Rig(tmp_path, seed=seed) as rig:
        rig.origin.jitter = 6
        race = Race(rig)
        acts = [race.write, race.write, race.read, race.read, race.read, race.purge, race.overwrite]
        running: set[asyncio.Task[None]] = set()
        for _ in range(40):
            running.add(asyncio.create_task(race.chance.choice(acts)()))
            if len(running) > 4:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        await asyncio.gather(*running)
        assert race.answered
        await race.read()
        await race.purge()
        assert await rig.get() == race.data[race.order[-1]]
        await rig.audit()
