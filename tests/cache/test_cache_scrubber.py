"""The scrubber finds blocks that the disk damaged while they were not read, and they are fetched again."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, KEY, content
from rows import each_row

from bucketfront.cache.scrubber import FILE_COST_BYTES, READ_RATE
from bucketfront.keys import ObjectKey

OTHER = ObjectKey("bucket", "other")
SIZE = 5 * BLOCK + 7


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def swap(path: Path, other: Path) -> None:
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


@each_row("is_hot", [False, True])
@each_row(
    ("harm", "corrupt"),
    [
        (lambda path, _: flip(path, 2 * BLOCK + 5), 1),
        (lambda path, _: path.write_bytes(path.read_bytes()[:BLOCK] + bytes(SIZE - BLOCK)), 5),
        (swap, 12),
        (lambda path, _: os.truncate(path, SIZE - 1), 0),
        (lambda path, _: os.unlink(path), 0),  # noqa: PTH108 - one expression
    ],
    ids=["bit rot", "hole", "swapped", "truncated", "gone"],
)
async def test_damage_after_a_clean_start(
    tmp_path: Path, is_hot: bool, harm: Callable[[Path, Path], None], corrupt: int
) -> None:
    """One round finds each block that changed under a clean cache, and leaves the others.

    The block is counted and removed, and fetched again with the next request (I15).
    """
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        other = rig.origin.put(content(SIZE, seed=1), key=OTHER)
        for key in (KEY, OTHER):
            await rig.get(key=key)
        await rig.flusher.flush()
        names = [rig.entry(key).file_name for key in (KEY, OTHER)]
    async with Rig(tmp_path, origin=rig.origin) as again:
        if is_hot:
            for key in (KEY, OTHER):
                await again.get(key=key)
        files = again.stored_files()
        harm(files[names[0] or ""], files[names[1] or ""])
        await again.scrubber().round()
        await turns()
        assert again.entries.corrupt_blocks == corrupt
        calls = len(again.origin.reads)
        assert await again.get() == data
        assert await again.get(key=OTHER) == other
        fetched = sum(stop - start for start, stop in again.origin.reads[calls:])
        assert fetched == {0: SIZE, 1: BLOCK, 5: SIZE - BLOCK, 12: 2 * SIZE}[corrupt]
        await again.scrubber().round()
        assert again.entries.corrupt_blocks == corrupt
        await again.audit()


async def test_a_sound_cache_is_left_alone(tmp_path: Path) -> None:
    """A round over sound files reads each present block once, at no more than READ_RATE, and changes nothing (I15)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(300 * BLOCK))
        other = rig.origin.put(content(SIZE), key=OTHER)
        await rig.get()
        await rig.get(2 * BLOCK, 3 * BLOCK, key=OTHER)
        await rig.flusher.flush()
        present = sum(rig.entry(key).present.bit_count() for key in (KEY, OTHER))
        slept: list[float] = []
        await rig.scrubber(slept).round()
        assert rig.cache.statistics().scrubbed_blocks == present
        assert len(slept) == 3, "two pages of the one, one of the other"
        assert sum(slept) == pytest.approx((present * BLOCK + 3 * FILE_COST_BYTES) / READ_RATE)
        assert rig.entries.corrupt_blocks == 0
        calls = rig.origin.gets
        assert await rig.get() == data
        assert await rig.get(2 * BLOCK, 3 * BLOCK, key=OTHER) == other[2 * BLOCK : 3 * BLOCK]
        assert rig.origin.gets == calls
        await rig.audit()


async def test_a_lease_is_revoked(tmp_path: Path) -> None:
    """The lease of an object is revoked once one of its blocks is found corrupt (I15)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(BLOCK))
        await rig.get()
        await rig.flusher.flush()
        hit = rig.cache.lease(KEY)
        assert hit is not None
        (path,) = rig.stored_files().values()
        flip(path, 5)
        await rig.scrubber().round()
        assert not hit.is_valid
        assert rig.cache.lease(KEY) is None
        assert await rig.get() == data
        assert rig.cache.lease(KEY) is not None
        await rig.audit()
