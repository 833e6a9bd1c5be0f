"""Requests that are cancelled at once, and a stop that comes at once: nothing is lost, nothing is left (I12)."""

import asyncio
from pathlib import Path

import pytest
from cache_harness import Rig, fill_of, turns
from fake_origin import BLOCK, content
from stopwatch import HANG_S

from bucketfront.cache.storage.storage import StoredFile
from bucketfront.errors import OriginUnavailable
from bucketfront.http.ranges import Span


async def test_a_stale_entry_is_held_for_its_lookup(tmp_path: Path) -> None:
    """A lookup pins its stale entry from its start, even if the request that started it is cancelled."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        await turns()
        rig.wall.advance(1000)
        entry, lookups = rig.entry(), rig.lookups
        rig.origin.door = asyncio.Event()
        asking = asyncio.create_task(rig.reader())
        while not lookups.is_running(entry.key):
            await turns(1)
        asking.cancel()
        assert entry.pins == 2
        await turns()
        assert asking.cancelled()
        assert entry.pins == 1
        rig.origin.door.set()
        await turns()
        assert entry.pins == 0
        await rig.audit()


@pytest.mark.parametrize("is_stale", [True, False])
async def test_a_stop_before_a_lookup_has_its_turn(tmp_path: Path, is_stale: bool) -> None:
    """The waiters of a lookup that a stop cancels get an error."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        if is_stale:
            await rig.get()
            await turns()
            rig.wall.advance(1000)
        asking = asyncio.create_task(rig.reader())
        while not rig.lookups.tasks:
            await turns(1)
        async with asyncio.timeout(HANG_S):
            await rig.close()
            with pytest.raises(OriginUnavailable, match="shutting down"):
                await asking
        assert [entry.pins for entry in rig.entries.hot_entries() if entry.pins] == []


async def test_a_stop_while_a_file_is_opened(tmp_path: Path) -> None:
    """A stop waits for files that are being opened, and closes them even if their requests are gone."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        await turns()
    async with Rig(tmp_path, origin=rig.origin) as again:
        asking = asyncio.create_task(again.reader())
        while not again.assembly.open_files._opening:
            await turns(1)
        asking.cancel()
        await again.close()
        assert asking.cancelled()


async def test_a_stop_while_a_block_is_verified(tmp_path: Path) -> None:
    """A stop closes a file only after its blocks are verified, because the descriptor's number may be reused (I15)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        await rig.audit()
        rig.abandon()
    async with Rig(tmp_path, origin=rig.origin) as again:
        gate, checksums = asyncio.Event(), again.store.checksums
        seen: list[bool] = []

        async def slow(file: StoredFile, span: Span, block_size: int) -> list[int | None]:
            await gate.wait()
            seen.append(bool(again.open_files()))
            return await checksums(file, span, block_size)

        again.store.checksums = slow  # type: ignore[method-assign]
        reading = asyncio.create_task(again.get())
        while (fill := fill_of(again.entry())) is None or not fill.verification.is_running:
            await turns(1)
        reading.cancel()
        asyncio.get_running_loop().call_later(0.05, gate.set)
        await again.close()
        assert seen == [True]
