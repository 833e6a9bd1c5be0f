"""The fill: single flight, late joiners, seekers, splits, and every way in which a part fetch can end."""

import asyncio
import errno
import os
from collections import deque
from pathlib import Path
from typing import Literal

import pytest
from cache_harness import PART, TURNS, Rig, fill_of, runs, turns
from fake_origin import BLOCK, KEY, FakeOrigin, content
from rows import each_row

from bucketfront.cache.entries.entry import ENTRY_BYTES
from bucketfront.cache.fetch.body_stream import MAX_FAILURES
from bucketfront.cache.fetch.part_fetch import PartOutcome
from bucketfront.cache.fetch.read_ahead import SHORT_WALK_BYTES
from bucketfront.cache.origin import OriginResponse
from bucketfront.errors import (
    BodyTruncated,
    ObjectChanged,
    OriginError,
    OriginTimeout,
    OriginUnavailable,
    RangeUnsatisfiable,
    StoreError,
)
from bucketfront.http.ranges import Demand, FromTo, Span

SIZE = 10 * BLOCK + 123


@each_row("chunk", [61, BLOCK - 1, BLOCK, BLOCK + 1, 10 * BLOCK])
async def test_any_chunk_size_gives_the_bytes_once(tmp_path: Path, chunk: int) -> None:
    """However the origin cuts its body, the object is read and written once, and the reader gets it (I2, I10)."""
    size = BLOCK + 100 if chunk < BLOCK - 1 else SIZE
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(size))
        rig.origin.chunk = chunk
        rig.origin.jitter = 0
        assert await rig.get() == data
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, size)]
        assert runs(rig.store.writes) == [(0, size)]
        assert rig.entry().is_complete(BLOCK)


@each_row("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, PART, PART + 1, 3 * PART - 1])
async def test_every_size_is_filled_whole(tmp_path: Path, size: int) -> None:
    """Objects that end at, before and after the end of a block or part come whole, and are charged exactly (I17)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(size))
        assert await rig.get() == data
        assert await rig.get() == data
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, size)]


@each_row("count", [2, 10, 50])
async def test_many_readers_share_each_block(tmp_path: Path, count: int) -> None:
    """Readers at once, at different offsets, cause each block to be read once (I10)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        starts = [rig.chance.randrange(SIZE) for _ in range(count - 1)]
        got = await asyncio.gather(rig.get(), *(rig.get(start) for start in starts))
        assert got == [data, *(data[start:] for start in starts)]
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, SIZE)]
        assert runs(rig.store.writes) == [(0, SIZE)]


async def test_a_late_joiner_reads_what_is_there(tmp_path: Path) -> None:
    """A reader gets present blocks, and bytes below the mark of a running part fetch, without further requests (I2)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        cut = BLOCK + BLOCK // 2
        gate = rig.origin.gate(cut)
        first = asyncio.create_task(rig.get(0, PART))
        await turns()
        with await rig.reader() as late:
            late.expect(Span(10, PART))
            upto = await late.readable(10)
            assert upto == cut
            assert late.region is not None
            assert os.pread(late.region.fd, upto - 10, 10) == data[10:cut]
            assert not first.done()
        gate.set()
        assert await first == data[:PART]
        await rig.audit()


async def test_a_seeker_does_not_wait_for_the_parts_before_it(tmp_path: Path) -> None:
    """A reader ahead of all running part fetches gets its own at once, however many run (I10)."""
    async with Rig(tmp_path, parallel_parts=2) as rig:
        data = rig.origin.put(content(8 * PART))
        gates = [rig.origin.gate(part * PART) for part in range(3)]
        slow = asyncio.create_task(rig.get())
        await turns()
        tail = 7 * PART + 5
        assert await rig.get(tail) == data[tail:]
        assert not slow.done()
        for gate in gates:
            gate.set()
        assert await slow == data
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, 8 * PART)]


async def test_read_ahead_leaves_connections_for_waiting_readers(tmp_path: Path) -> None:
    """A reader that waits gets a part fetch even if read-ahead uses its whole share of the origin's connections."""
    async with Rig(tmp_path, parallel_parts=8, read_ahead_limit=1) as rig:
        data = rig.origin.put(content(8 * PART))
        gate = rig.origin.gate(BLOCK)
        slow = asyncio.create_task(rig.get())
        await turns()
        assert rig.stats.running == 1
        assert await rig.get(5 * PART, 6 * PART) == data[5 * PART : 6 * PART]
        gate.set()
        assert await slow == data
        await rig.audit()


async def test_a_slow_part_is_split_for_a_reader_inside_it(tmp_path: Path) -> None:
    """A reader far beyond the mark of a slow part fetch gets its own.

    The old one ends there, and no byte is written, committed or charged twice (I10, I17).
    """
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(PART))
        stuck = rig.origin.gate(BLOCK)
        first = asyncio.create_task(rig.get())
        await turns()
        rig.monotonic.now += 10.0  # one block in ten seconds
        rig.origin.gates[2 * BLOCK + 5] = stuck
        late = 3 * BLOCK + 7
        assert await rig.get(late) == data[late:]
        assert rig.stats.split == 1
        assert not first.done()
        stuck.set()
        assert await first == data
        await rig.audit()
        assert runs(rig.store.writes) == [(0, PART)]


async def test_a_fast_part_is_not_split(tmp_path: Path) -> None:
    """A reader waits if the running part fetch will reach it soon."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(PART))
        gate = rig.origin.gate(BLOCK)
        first = asyncio.create_task(rig.get())
        await turns()
        late = asyncio.create_task(rig.get(3 * BLOCK))
        await turns()
        gate.set()
        assert await late == data[3 * BLOCK :]
        assert await first == data
        assert (rig.stats.split, rig.origin.gets) == (0, 1)
        await rig.audit()


async def test_the_delay_of_a_part_is_that_of_its_own_request(tmp_path: Path) -> None:
    """A part fetch knows how long its request took to a first byte, unless a lookup had sent the request."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(2 * PART))
        gates = [rig.origin.gate(at) for at in (BLOCK, PART, PART + BLOCK)]
        reader = asyncio.create_task(rig.get())
        await turns()
        rig.monotonic.now += 0.25
        gates[1].set()
        await turns()
        assert {fetch.start: fetch.delay for fetch in rig.stats.fetches} == {0: None, PART: 0.25}
        for gate in gates:
            gate.set()
        assert await reader == data
        await rig.audit()


async def test_a_part_is_never_split_within_a_write(tmp_path: Path) -> None:
    """A reader inside a running write waits for it.

    A reader behind it gets a part fetch of its own, and no byte is written twice (I10).
    """
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(PART))
        rig.origin.chunk = 3 * BLOCK
        rig.store.hold = asyncio.Event()
        first = asyncio.create_task(rig.get())
        await turns()
        rig.monotonic.now += 10.0  # slow enough for a split anywhere else
        inside = asyncio.create_task(rig.get(2 * BLOCK + 5))
        await turns()
        assert (rig.stats.split, rig.stats.running) == (0, 1)
        behind = asyncio.create_task(rig.get(3 * BLOCK + 5))
        await turns()
        assert (rig.stats.split, rig.stats.running) == (1, 2)
        rig.store.hold.set()
        assert [await task for task in (first, inside, behind)] == [data, data[2 * BLOCK + 5 :], data[3 * BLOCK + 5 :]]
        await rig.audit()
        assert sorted(rig.store.writes) == [(0, 3 * BLOCK), (3 * BLOCK, PART)]


async def test_a_response_is_adopted_for_missing_blocks_only(tmp_path: Path) -> None:
    """An adopted response claims no block that another part fetch has claimed (I10)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(3 * PART))
        gate = rig.origin.gate(BLOCK + 5)
        first = asyncio.create_task(rig.get(BLOCK, 2 * BLOCK))
        await turns()
        answer = await rig.origin.get(KEY, FromTo(0, PART))
        assert isinstance(answer, OriginResponse)
        fill = fill_of(rig.entry())
        assert fill is not None
        fill.adopt(answer)
        assert sorted((flight.start, flight.stop) for flight in rig.stats.fetches) == [
            (0, BLOCK), (BLOCK, 2 * BLOCK), (2 * BLOCK, PART)
        ]  # fmt: skip
        gate.set()
        assert await first == data[BLOCK : 2 * BLOCK]
        await rig.audit()
        assert runs(rig.store.writes) == [(0, PART)]
        assert await rig.get() == data
        await rig.audit()


@each_row(("start", "stop"), [(5, BLOCK), (BLOCK - 5, PART), (7, PART + 7), (2 * PART + 1, 3 * PART)])
async def test_a_short_closed_range_takes_two_requests_at_most(tmp_path: Path, start: int, stop: int) -> None:
    """A range of at most a part that ends before the object is fetched whole, with at most two requests (I10)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(9 * PART))
        await rig.get(8 * PART, 8 * PART + 1)
        rig.origin.requested.clear()
        assert await rig.get(start, stop) == data[start:stop]
        await rig.audit()
        assert runs(rig.origin.requested) == [(start // BLOCK * BLOCK, -(-stop // BLOCK) * BLOCK)]
        assert len(rig.origin.requested) <= 2


@each_row("count", [BLOCK // 2, 3 * BLOCK, 4 * PART, 30 * PART])
async def test_a_dropped_open_range_costs_little_more_than_was_read(tmp_path: Path, count: int) -> None:
    """A client that sends `bytes=N-` and leaves costs at most an eighth more than it read, and three blocks.

    This holds for a fast origin and a slow reader too.
    """
    async with Rig(tmp_path, after_disconnect="auto", parallel_parts=8) as rig:
        rig.origin.put(content(200 * PART))
        start = 50 * PART + 5
        with await rig.reader(part=FromTo(start, None)) as reader:
            reader.expect(Span(start, 200 * PART), Demand.OPEN)
            offset = start
            while offset < start + count:
                offset = min(await reader.readable(offset), offset + BLOCK // 2)
                await turns()
        await rig.audit()
        sent = sum(stop - start for start, stop in rig.origin.reads)
        assert sent <= (offset - start) * 9 / 8 + 3 * BLOCK


@each_row("length", [PART, 5 * BLOCK, 6 * BLOCK, 7 * BLOCK, 2 * PART, 40 * PART])
async def test_a_range_with_an_end_takes_whole_parts(tmp_path: Path, length: int) -> None:
    """A client that names the end of its range gets whole parts, and no short one that costs a round trip (I10)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(50 * PART))
        assert await rig.get(5, length) == data[5:length]
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, length)]
        assert len(rig.origin.requested) <= max(1, 1.15 * length / PART)


@each_row(
    ("length", "workers", "is_last_open"),
    [
        (BLOCK // 4, 32, False),
        (BLOCK + 9, 16, True),
        (3 * BLOCK + 5, 4, False),
        (3 * BLOCK + 5, 10, False),
        (PART, 10, True),
        (6 * BLOCK, 10, False),
        (2 * PART, 10, True),
        (8 * PART, 10, False),
    ],
)
@each_row("seed", range(3), few=1)
async def test_a_download_in_ranges_side_by_side(
    tmp_path: Path, length: int, workers: int, is_last_open: bool, seed: int
) -> None:
    """A tool that requests ranges side by side, in nearly any order, costs 1.3 requests a part at most (I10).

    Some tools leave the end of the last range open. No byte is fetched twice, however slow the parts are.
    """
    size = 79 * PART + 77
    async with Rig(tmp_path, seed=seed, parallel_parts=8, read_ahead_limit=48) as rig:
        data = rig.origin.put(content(size))
        starts = list(range(0, size, length))
        for at in range(0, len(starts) - 2, 3):
            starts[at], starts[at + 1] = starts[at + 1], starts[at]
        got: dict[int, bytes] = {}

        async def work() -> None:
            while starts:
                start = starts.pop(0)
                rig.monotonic.now += 10.0
                stop = None if is_last_open and start + length >= size else min(size, start + length)
                got[start] = await rig.get(start, stop)

        await asyncio.gather(*(work() for _ in range(workers)))
        assert b"".join(got[start] for start in sorted(got)) == data
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, size)]
        assert len(rig.origin.requested) <= 1.3 * size / PART
        assert rig.stats.split == 0


async def test_ranges_of_one_turn_are_planned_in_order(tmp_path: Path) -> None:
    """Ranges that come at once cost whole parts, although the last of them comes first (I10)."""
    async with Rig(tmp_path, parallel_parts=8) as rig:
        data = rig.origin.put(content(40 * PART))
        await rig.get(39 * PART, 39 * PART + 1)
        rig.origin.requested.clear()
        starts = range(15 * BLOCK, -1, -BLOCK)
        got = await asyncio.gather(*(rig.get(start, start + BLOCK) for start in starts))
        assert got == [data[start : start + BLOCK] for start in starts]
        await rig.audit()
        assert sorted(rig.origin.requested)[:4] == [(at * PART, (at + 1) * PART) for at in range(4)]


async def test_a_range_within_a_download_does_not_split_it(tmp_path: Path) -> None:
    """A range that has no neighbour yet waits for its part of the download, however slow that is (I10)."""
    async with Rig(tmp_path, parallel_parts=8) as rig:
        data = rig.origin.put(content(40 * PART))
        await rig.get(39 * PART, 39 * PART + 1)
        gate = rig.origin.gate(PART + 1)
        download = [asyncio.create_task(rig.get(at, at + PART)) for at in range(0, 3 * PART, PART)]
        await turns()
        rig.monotonic.now += 10.0
        late = asyncio.create_task(rig.get(6 * BLOCK + 5, 6 * BLOCK + 9))
        await turns()
        assert rig.stats.split == 0
        gate.set()
        assert await late == data[6 * BLOCK + 5 : 6 * BLOCK + 9]
        await asyncio.gather(*download)
        await rig.audit()


async def test_an_open_range_behind_a_short_one_is_no_download(tmp_path: Path) -> None:
    """A player that reads a head and then all behind it, at the same time, may drop the second range at any time."""
    async with Rig(tmp_path, parallel_parts=8, after_disconnect="auto") as rig:
        rig.origin.put(content(200 * PART))
        gate = rig.origin.gate(BLOCK + 5)
        head = asyncio.create_task(rig.get(0, 2 * BLOCK))
        await turns()
        with await rig.reader(part=FromTo(2 * BLOCK, None)) as reader:
            reader.expect(Span(2 * BLOCK, 200 * PART), Demand.OPEN)
            await reader.readable(2 * BLOCK)
            await turns()
        gate.set()
        await head
        await rig.audit()
        assert sum(stop - start for start, stop in rig.origin.reads) <= 5 * BLOCK


async def test_a_seek_may_name_the_objects_end(tmp_path: Path) -> None:
    """A client that drops a range from the middle to the named end costs little, although it is the first to do so."""
    size = 200 * PART
    async with Rig(tmp_path, parallel_parts=8, after_disconnect="auto") as rig:
        rig.origin.put(content(size))
        start = 100 * PART + 5
        with await rig.reader(part=FromTo(start, size)) as reader:
            reader.expect(Span(start, size))
            await reader.readable(start)
            await turns()
        await rig.audit()
        assert sum(stop - start for start, stop in rig.origin.reads) <= 3 * BLOCK


@pytest.mark.parametrize("names_end", [True, False])
async def test_an_open_range_that_is_read_whole(tmp_path: Path, names_end: bool) -> None:
    """A download by `bytes=N-` costs 1.3 requests a part at most, and so does one that names the object's end (I10)."""
    size = 60 * PART
    async with Rig(tmp_path, parallel_parts=8, after_disconnect="auto") as rig:
        data = rig.origin.put(content(size))
        assert await rig.get(5, size if names_end else None) == data[5:]
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, size)]
        assert len(rig.origin.requested) <= 1.3 * 60


async def test_an_open_range_makes_no_walk(tmp_path: Path) -> None:
    """A client that sent `bytes=0-` did not ask for all bytes, so a small range in the middle gets its block alone."""
    async with Rig(tmp_path, parallel_parts=8, after_disconnect="auto") as rig:
        rig.origin.put(content(400 * PART))
        with await rig.reader(part=FromTo(0, None)) as reader:
            reader.expect(Span(0, 400 * PART), Demand.OPEN)
            await reader.readable(0)
        await rig.audit()
        rig.origin.reads.clear()
        await rig.get(200 * PART, 200 * PART + 1)
        await rig.audit()
        assert sum(stop - start for start, stop in rig.origin.reads) == BLOCK


async def test_an_open_last_range_may_come_first(tmp_path: Path) -> None:
    """The last range of a download gets whole parts too if the range before it begins later (I10)."""
    async with Rig(tmp_path, parallel_parts=8) as rig:
        data = rig.origin.put(content(40 * PART))
        await rig.get(0, 1)
        rig.origin.requested.clear()
        half = 20 * PART
        gate = rig.origin.gate(half)
        last = asyncio.create_task(rig.get(half))
        await turns()
        first = asyncio.create_task(rig.get(5, half))
        await turns()
        gate.set()
        assert await first + await last == data[5:]
        await rig.audit()
        assert len(rig.origin.requested) <= 1.2 * 40


async def test_a_reader_of_small_ranges_in_a_row_gets_parts(tmp_path: Path) -> None:
    """Small ranges, each behind the one before, soon cost few requests: what comes next is fetched ahead (I10)."""
    size = 100 * PART
    async with Rig(tmp_path, parallel_parts=8) as rig:
        data = rig.origin.put(content(size))
        for start in range(0, size, BLOCK):
            assert await rig.get(start, start + BLOCK) == data[start : start + BLOCK]
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, size)]
        assert len(rig.origin.requested) <= 1.3 * size / PART


async def test_small_reads_at_random_places_cost_a_block_each(tmp_path: Path) -> None:
    """A reader of small ranges that continue nothing gets their blocks alone, and each block once for all (I10)."""
    async with Rig(tmp_path, after_disconnect="auto") as rig:
        data = rig.origin.put(content(500 * BLOCK))
        await rig.get(0, 1)
        starts = [rig.chance.randrange(len(data) - 100) for _ in range(60)]
        for start in starts:
            got = await asyncio.gather(*(rig.get(start, start + 100) for _ in range(3)))
            assert got == [data[start : start + 100]] * 3
        await rig.audit()
        touched = {0, *(at // BLOCK for start in starts for at in (start, start + 99))}
        assert sum(stop - start for start, stop in rig.origin.reads) == len(touched) * BLOCK


@pytest.mark.parametrize("count", [40, 400])
async def test_a_row_of_ranges_that_ends_costs_little_more(tmp_path: Path, count: int) -> None:
    """A player that requests segments as ranges and seeks away costs a tenth more than it read, or a few blocks."""
    async with Rig(tmp_path, parallel_parts=8, after_disconnect="auto") as rig:
        rig.origin.put(content(4 * count * BLOCK))
        for start in range(0, count * BLOCK, 2 * BLOCK):
            await rig.get(start, start + 2 * BLOCK)
        await rig.audit()
        beyond = sum(stop - start for start, stop in rig.origin.reads) - count * BLOCK
        assert beyond <= max(SHORT_WALK_BYTES, count * BLOCK // 10) + BLOCK


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_walk_ends_with_its_version(tmp_path: Path, is_replaced: bool) -> None:
    """What is fetched behind the last range goes on without its reader, but not of a version that was replaced."""
    async with Rig(tmp_path, after_disconnect="auto") as rig:
        rig.origin.put(content(100 * PART))
        for start in range(0, 40 * BLOCK, 2 * BLOCK):
            await rig.get(start, start + 2 * BLOCK)
        await rig.audit()
        begin = max(stop for _, stop in rig.origin.reads)
        gate = rig.origin.gate(begin + 1)
        rig.origin.chunk = BLOCK // 4
        with await rig.reader(part=FromTo(40 * BLOCK, begin)) as reader:
            await rig.read(reader, 40 * BLOCK, begin)
            await turns()
            assert rig.stats.running
            if is_replaced:
                await rig.cache.invalidate(KEY)
        gate.set()
        while rig.stats.running:
            await turns()
        at = begin + 2 * BLOCK  # in the part that the gate held
        assert any(start <= at < stop for start, stop in rig.origin.reads) != is_replaced


@pytest.mark.parametrize("shows", ["first bytes", "drop"])
async def test_a_range_to_the_objects_end_may_be_dropped(tmp_path: Path, shows: str) -> None:
    """Once a client showed that it drops ranges although it named their end, they cost no more than open-ended ones."""
    size = 200 * PART
    async with Rig(tmp_path, parallel_parts=8, after_disconnect="auto") as rig:
        rig.origin.put(content(size))

        async def drop(start: int) -> None:
            with await rig.reader(part=FromTo(start, size)) as reader:
                reader.expect(Span(start, size))
                offset = start
                while offset < start + 8 * BLOCK:
                    offset = min(await reader.readable(offset), offset + BLOCK)
                    await turns()

        if shows == "first bytes":
            await rig.get(0, 2)
        else:
            await drop(0)
        rig.origin.reads.clear()
        await drop(100 * PART)
        await rig.audit()
        assert sum(stop - start for start, stop in rig.origin.reads) <= 8 * BLOCK * 7 / 6 + 2 * BLOCK


async def test_an_open_range_that_is_read_on_gets_several_parts_at_once(tmp_path: Path) -> None:
    """After it read 32 parts, a reader of `bytes=N-` has several part fetches ahead of it."""
    async with Rig(tmp_path, after_disconnect="stop", parallel_parts=8) as rig:
        rig.origin.put(content(100 * PART))
        with await rig.reader(part=FromTo(0, None)) as reader:
            reader.expect(Span(0, 100 * PART), Demand.OPEN)
            offset = 0
            while offset < 32 * PART:
                offset = await reader.readable(offset)
            rig.origin.door = asyncio.Event()
            waiting = asyncio.create_task(reader.readable(max(flight.stop for flight in rig.stats.fetches)))
            await turns()
            assert rig.stats.running >= 3
            rig.origin.door.set()
            await waiting
        await rig.audit()


async def test_read_ahead_takes_a_quarter_of_the_budget_at_most(tmp_path: Path) -> None:
    """What is fetched ahead of all readers stays within a quarter of the cache, with what they wait for.

    A reader that waits gets its part in any case (I17).
    """
    keys = [KEY._replace(key=f"{number}") for number in range(3)]
    async with Rig(tmp_path, max_size=64 * BLOCK, parallel_parts=8, read_ahead_limit=64) as rig:
        data = [rig.origin.put(content(5 * PART, seed), key=key) for seed, key in enumerate(keys)]
        gates = [rig.origin.gate(part * PART + 5) for part in range(1, 5)]
        reading = [asyncio.create_task(rig.get(key=key)) for key in keys]
        most = 0
        for turn in range(2 * TURNS):
            await asyncio.sleep(0)
            most = max(most, rig.stats.outstanding)
            assert most <= 16 * BLOCK, turn
        assert most > 3 * PART, "there was read-ahead to bound"
        rig.origin.gates.pop(4 * PART + 5)
        assert await rig.get(4 * PART, key=keys[0]) == data[0][4 * PART :]
        for gate in gates:
            gate.set()
        assert list(await asyncio.gather(*reading)) == data
        await rig.audit()


@each_row("rate", [1, 8])
@each_row("count", [PART // 2, 20 * PART, 100 * PART])
async def test_a_stopped_download_costs_a_quarter_more(tmp_path: Path, count: int, rate: int) -> None:
    """A client that leaves a download costs at most a quarter more than it read, or two parts."""
    async with Rig(tmp_path, after_disconnect="auto", parallel_parts=8) as rig:
        rig.origin.put(content(400 * PART))
        with await rig.reader() as reader:
            reader.expect(Span(0, 400 * PART), Demand.WHOLE)
            offset = 0
            while offset < count:
                offset = min(await reader.readable(offset), offset + rate * BLOCK)
                await turns(20)
        await rig.audit()
        assert sum(stop - start for start, stop in rig.origin.reads) - offset <= max(2 * PART, offset // 4)


async def test_a_setting_bounds_what_is_fetched_ahead(tmp_path: Path) -> None:
    """No more than `read_ahead_max` is fetched ahead of a reader, however much it has read."""
    async with Rig(tmp_path, after_disconnect="auto", parallel_parts=8, read_ahead_max=3 * PART) as rig:
        rig.origin.put(content(200 * PART))
        with await rig.reader() as reader:
            reader.expect(Span(0, 200 * PART), Demand.WHOLE)
            offset = 0
            while offset < 100 * PART:
                offset = min(await reader.readable(offset), offset + BLOCK)
                await turns(20)
        await rig.audit()
        assert sum(stop - start for start, stop in rig.origin.reads) - offset <= 3 * PART


def mp4(media: int, index: int) -> bytes:
    """Return ftyp, free, mdat with `media` bytes and moov with `index`, as ffmpeg writes them."""
    head = (24).to_bytes(4) + b"ftypisom" + bytes(12) + (8).to_bytes(4) + b"free"
    filling = content(media + index)
    media_data = (media + 8).to_bytes(4) + b"mdat" + filling[:media]
    return head + media_data + (index + 8).to_bytes(4) + b"moov" + filling[media:]


@pytest.mark.parametrize("whole", [True, False])
async def test_the_index_of_an_mp4_is_fetched_with_its_head(tmp_path: Path, whole: bool) -> None:
    """If the index is behind the media data, head and tail are fetched before the middle, once each (I10)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(mp4(20 * PART + 99, PART))
        with await rig.reader(part=None if whole else FromTo(0, None)) as reader:
            assert await rig.read(reader, demand=Demand.WHOLE if whole else Demand.OPEN) == data
        await rig.audit()
        first = PART if whole else BLOCK
        tail = (20 * PART + 99) // BLOCK * BLOCK
        assert rig.origin.requested[:2] == [(0, first), (tail, len(data))]
        assert runs(rig.origin.reads) == [(0, len(data))]


async def test_the_index_comes_with_the_head_however_long_the_rest_takes(tmp_path: Path) -> None:
    """A player that reads the head of an MP4 has the index on disk before the middle has come."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(mp4(20 * PART, BLOCK))
        gate = rig.origin.gate(BLOCK)
        playing = asyncio.create_task(rig.get())
        await turns()
        asked = rig.origin.gets
        assert await rig.get(20 * PART + 40) == data[20 * PART + 40 :]
        assert rig.origin.gets == asked
        gate.set()
        assert await playing == data
        await rig.audit()


async def test_the_index_belongs_to_the_object(tmp_path: Path) -> None:
    """The player that began an MP4 drops its first request at once. Its next one finds the index on the way (I10)."""
    async with Rig(tmp_path, after_disconnect="auto") as rig:
        data = rig.origin.put(mp4(20 * PART, BLOCK))
        gate = rig.origin.gate(20 * PART)
        with await rig.reader(part=FromTo(0, None)) as reader:
            reader.expect(Span(0, len(data)), Demand.OPEN)
            await reader.readable(0)
            await turns()
        asked = rig.origin.gets
        tail = asyncio.create_task(rig.get(20 * PART + 40))
        await turns()
        gate.set()
        assert await tail == data[20 * PART + 40 :]
        assert rig.origin.gets == asked
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, BLOCK), (20 * PART, len(data))]


async def test_the_index_is_not_given_up_for_another_reader(tmp_path: Path) -> None:
    """With `auto`, the part fetch of the index continues as long as the reader that it was started for is there."""
    async with Rig(tmp_path, after_disconnect="auto") as rig:
        data = rig.origin.put(mp4(20 * PART, BLOCK))
        gates = [rig.origin.gate(at) for at in (BLOCK, 20 * PART)]
        playing = asyncio.create_task(rig.get())
        await turns()
        running = sorted((flight.start, flight.stop) for flight in rig.stats.fetches)
        assert running[-1] == (20 * PART, len(data))
        assert await rig.get(BLOCK - 5, BLOCK) == data[BLOCK - 5 : BLOCK]
        await turns()
        assert sorted((flight.start, flight.stop) for flight in rig.stats.fetches) == running
        for gate in gates:
            gate.set()
        assert await playing == data
        await rig.audit()


@each_row("what", ["closed", "no room", "no index"])
async def test_the_index_is_left_alone(tmp_path: Path, what: str) -> None:
    """A reader of some bytes of the head causes no read-ahead at the tail.

    The index is not fetched either if read-ahead has no room, or if the object is no MP4.
    """
    async with Rig(tmp_path, after_disconnect="stop", read_ahead_limit=0 if what == "no room" else 8) as rig:
        data = rig.origin.put(content(20 * PART) if what == "no index" else mp4(20 * PART, BLOCK))
        gate = rig.origin.gate(2 * BLOCK)
        with await rig.reader(part=FromTo(0, None)) as reader:
            reader.expect(
                Span(0, BLOCK if what == "closed" else len(data)), Demand.BOUNDED if what == "closed" else Demand.OPEN
            )
            await reader.readable(0)
            await turns()
        gate.set()
        await rig.audit()
        assert max(stop for _, stop in rig.origin.requested) <= PART


@each_row("cuts", [[1], [BLOCK], [BLOCK + 5], [5, BLOCK - 1, 2 * BLOCK + 1, SIZE - 1]])
async def test_a_cut_body_costs_its_missing_bytes_only(tmp_path: Path, cuts: list[int]) -> None:
    """A body that ends early is continued where it ended, and the reader does not notice (I3, I11)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        rig.origin.cuts = list(cuts)
        assert await rig.get() == data
        assert rig.origin.cuts == []
        assert {start for start, _ in rig.origin.requested} >= set(cuts)
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, SIZE)]
        assert runs(rig.store.writes) == [(0, SIZE)]


@each_row("error", [OriginUnavailable("503"), OriginTimeout("slow"), BodyTruncated("cut")])
async def test_two_failures_in_a_row_are_not_noticed(tmp_path: Path, error: Exception) -> None:
    """A part fetch is retried while the origin fails fewer than MAX_FAILURES times in a row (I11)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(3 * PART))
        assert await rig.get(0, PART) == data[:PART]
        rig.origin.errors = deque([error] * (MAX_FAILURES - 1))
        assert await rig.get(PART, 2 * PART) == data[PART : 2 * PART]
        await rig.audit()


@pytest.mark.parametrize("error", [OriginUnavailable("503"), OriginError("odd")])
async def test_a_final_failure_reaches_all_waiters(tmp_path: Path, error: Exception) -> None:
    """All waiters of a failed part fetch get its error. No bit is set, and its reservation is given back (I2, I13)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(3 * PART))
        assert await rig.get(0, PART) == data[:PART]
        rig.origin.errors = deque([error] * MAX_FAILURES * 20)
        spans = [(PART, 2 * PART), (PART + 9, 2 * PART), (2 * PART - 1, 2 * PART)]
        got = await asyncio.gather(*(rig.get(*span) for span in spans), return_exceptions=True)
        assert [type(result) for result in got] == [type(error)] * 3
        await rig.audit()
        assert rig.entry().present == 0b1111
        rig.origin.errors.clear()
        assert await rig.get() == data
        await rig.audit()


async def test_half_a_block_is_given_back_to_the_disk(tmp_path: Path) -> None:
    """A part fetch that fails in the middle of a block leaves no bit and no bytes of that block (I2, I17)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(PART))
        gate = rig.origin.gate(2 * BLOCK + 5)
        reading = asyncio.create_task(rig.get())
        await turns()
        rig.origin.errors = deque([OriginUnavailable("503")] * MAX_FAILURES)
        rig.origin.cuts = [2 * BLOCK + 5]
        gate.set()
        with pytest.raises(OriginUnavailable):
            await reading
        assert rig.entry().present == 0b11
        await rig.audit()
        assert await rig.get() == data
        await rig.audit()


async def test_readable_bytes_stay_right_when_their_part_fails(tmp_path: Path) -> None:
    """Bytes that a reader may read stay in the file while it reads, even if their part fetch fails in the middle of the
    block (I1, I2).
    """
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(PART))
        cut = BLOCK + BLOCK // 2
        gate = rig.origin.gate(cut)
        with await rig.reader() as reader:
            reader.expect(Span(0, PART), Demand.WHOLE)
            upto = 0
            while upto < cut:
                upto = await reader.readable(upto)
            rig.origin.errors = deque([OriginUnavailable("503")] * 2 * MAX_FAILURES)
            rig.origin.cuts = [cut]
            gate.set()
            await turns()
            assert reader.region is not None
            assert os.pread(reader.region.fd, cut, 0) == data[:cut]
            with pytest.raises(OriginUnavailable):
                await reader.readable(cut)
            assert os.pread(reader.region.fd, cut, 0) == data[:cut]
            rig.origin.errors.clear()
            assert await rig.get() == data
        await rig.audit()


async def test_a_new_version_during_a_fill_ends_it(tmp_path: Path) -> None:
    """All waiters for bytes of a replaced version get ObjectChanged, and its entry is removed (I1, I6)."""
    async with Rig(tmp_path) as rig:
        old = rig.origin.put(content(4 * PART))
        assert await rig.get(0, PART) == old[:PART]
        entry = rig.entry()
        new = rig.origin.put(content(4 * PART, seed=1), '"2"')
        got = await asyncio.gather(rig.get(PART), rig.get(2 * PART + 5), return_exceptions=True)
        assert [type(result) for result in got] == [ObjectChanged, ObjectChanged]
        assert entry.is_removed
        assert await rig.get() == new
        await rig.audit()
        assert rig.entry().metadata.etag == '"2"'


async def test_a_reader_of_present_blocks_outlives_its_version(tmp_path: Path) -> None:
    """A reader whose blocks are all on disk reads on after the entry was removed (I1, I18)."""
    async with Rig(tmp_path) as rig:
        old = rig.origin.put(content(4 * PART))
        assert await rig.get(0, PART) == old[:PART]
        with await rig.reader() as reader:
            rig.origin.put(content(PART, seed=1), '"2"')
            with pytest.raises(ObjectChanged):
                await rig.get(2 * PART)
            await turns()
            assert await rig.read(reader, 0, PART) == old[:PART]
        await rig.audit()


@each_row("after", range(0, 120, 3), few=14)
async def test_a_reader_may_be_cancelled_anywhere(tmp_path: Path, after: int) -> None:
    """Cancelling one reader at any point changes nothing for the others and leaves no pin (I12)."""
    async with Rig(tmp_path, seed=after) as rig:
        data = rig.origin.put(content(SIZE))
        doomed = asyncio.create_task(rig.get())
        other = asyncio.create_task(rig.get(5))
        await turns(after)
        doomed.cancel()
        assert await other == data[5:]
        await asyncio.gather(doomed, return_exceptions=True)
        await rig.audit()
        assert runs(rig.origin.reads) == [(0, SIZE)]


@each_row(("policy", "blocks"), [("finish", 12), ("auto", 2), ("stop", 1)])
async def test_a_fill_without_readers(tmp_path: Path, policy: Literal["finish", "stop", "auto"], blocks: int) -> None:
    """`finish` fetches what the reader wanted, `auto` the rest of the current block, `stop` no more.

    For `auto`, less than half of the object is present. Bytes that came are kept (I12), and the reservation for the
    others is given back at once (I17).
    """
    async with Rig(tmp_path, after_disconnect=policy, parallel_parts=1) as rig:
        rig.origin.put(content(3 * PART))
        gate = rig.origin.gate(BLOCK + 5)
        rig.origin.gate(2 * BLOCK).set()  # no piece goes beyond it
        reading = asyncio.create_task(rig.get())
        await turns()
        reading.cancel()
        await turns()
        if policy == "auto":
            assert rig.budget.used == ENTRY_BYTES + 2 * BLOCK
        gate.set()
        await rig.audit(begun=BLOCK if policy == "stop" else 0)
        assert rig.entry().present.bit_count() == blocks
        assert max(stop for _, stop in rig.origin.reads) == (BLOCK + 5 if policy == "stop" else blocks * BLOCK)


@pytest.mark.parametrize("at", [0, BLOCK])
async def test_auto_cancels_a_part_between_two_blocks(tmp_path: Path, at: int) -> None:
    """After its reader left, a part fetch ends at once if it has no byte yet, or stands at a block's end."""
    async with Rig(tmp_path, after_disconnect="auto", parallel_parts=1) as rig:
        rig.origin.put(content(9 * PART))
        gate = rig.origin.gate(at)
        reading = asyncio.create_task(rig.get())
        await turns()
        reading.cancel()
        await turns()
        assert (rig.stats.running, rig.origin.bodies) == (0, 0)
        gate.set()
        await rig.audit()
        assert rig.entry().present.bit_count() == at // BLOCK
        assert rig.stats.outcomes[PartOutcome.ABANDONED] == 1


async def test_a_reader_that_leaves_takes_its_read_ahead_along(tmp_path: Path) -> None:
    """With `auto`, the part fetches that served one reader only end when it leaves.

    Those of another reader continue (I12).
    """
    async with Rig(tmp_path, after_disconnect="auto", parallel_parts=4) as rig:
        data = rig.origin.put(content(40 * PART))
        far = 30 * PART
        gates = [rig.origin.gate(at) for at in (5, PART + 5, far + 5)]
        leaving = asyncio.create_task(rig.get())
        staying = asyncio.create_task(rig.get(far, far + PART))
        await turns()
        assert {flight.start for flight in rig.stats.fetches} == {0, PART, far}
        leaving.cancel()
        await turns()
        left = [(0, BLOCK), (PART, PART + BLOCK), (far, far + PART)]
        assert sorted((flight.start, flight.stop) for flight in rig.stats.fetches) == left
        for gate in gates:
            gate.set()
        assert await staying == data[far : far + PART]
        await rig.audit()
        assert runs(rig.store.writes) == left


async def test_a_part_that_another_reader_needs_continues(tmp_path: Path) -> None:
    """With `auto`, a part fetch outlives the reader that it was started for if another one waits in it (I12)."""
    async with Rig(tmp_path, after_disconnect="auto") as rig:
        data = rig.origin.put(content(PART))
        gate = rig.origin.gate(BLOCK + 5)
        leaving = asyncio.create_task(rig.get(0, PART))
        await turns()
        staying = asyncio.create_task(rig.get(3 * BLOCK, PART))
        await turns()
        leaving.cancel()
        await turns()
        gate.set()
        assert await staying == data[3 * BLOCK : PART]
        await rig.audit()
        assert rig.origin.requested == [(0, PART)]
        assert runs(rig.store.writes) == [(0, PART)]


async def test_a_reader_that_comes_while_a_part_is_cut_gets_all(tmp_path: Path) -> None:
    """Blocks that were cut off a part fetch are fetched for the next reader, and no block twice (I10)."""
    async with Rig(tmp_path, after_disconnect="auto") as rig:
        data = rig.origin.put(content(3 * PART))
        gate = rig.origin.gate(BLOCK + 5)
        rig.origin.gate(2 * BLOCK).set()  # no piece goes beyond it
        leaving = asyncio.create_task(rig.get())
        await turns()
        leaving.cancel()
        await turns()
        again = asyncio.create_task(rig.get())
        await turns()
        gate.set()
        assert await again == data
        await rig.audit()
        assert runs(rig.store.writes) == [(0, 3 * PART)]
        assert runs(rig.origin.reads) == [(0, 3 * PART)]


@pytest.mark.parametrize(("missing", "is_finished"), [(PART, False), (2 * BLOCK, True)])
async def test_auto_finishes_an_object_that_lacks_little(tmp_path: Path, missing: int, is_finished: bool) -> None:
    """If an object lacks an eighth of what is present, `auto` fetches it. It ends all other part fetches."""
    async with Rig(tmp_path, after_disconnect="auto", parallel_parts=1) as rig:
        rig.origin.put(content(5 * PART))
        await rig.get(missing)
        await rig.audit()
        assert rig.entry().is_complete(BLOCK) == is_finished


async def test_finish_goes_on_although_the_origin_was_busy(tmp_path: Path) -> None:
    """A fill without readers that had no room for read-ahead continues once it has."""
    async with Rig(tmp_path, read_ahead_limit=1, parallel_parts=1) as rig:
        rig.origin.put(content(2 * PART))
        other = KEY._replace(key="other")
        rig.origin.put(content(2 * PART, seed=1), key=other)
        await rig.get(0, BLOCK)
        gate = rig.origin.gate(BLOCK)
        busy = asyncio.create_task(rig.get(key=other))
        await turns()
        with await rig.reader() as reader:
            reader.expect(Span(PART, 2 * PART))
        gate.set()
        await busy
        await rig.audit()
        assert rig.entry().present >> 4 == 0b1111


async def test_stop_twice_in_a_row(tmp_path: Path) -> None:
    """A second reader that comes and leaves while a part fetch is being ended does not disturb its end (I12)."""
    async with Rig(tmp_path, after_disconnect="stop") as rig:
        data = rig.origin.put(content(PART))
        for when in range(8):
            gate = rig.origin.gate(BLOCK // 2)
            reading = asyncio.create_task(rig.get())
            await turns()
            reading.cancel()
            await turns(when)
            with await rig.reader() as reader:
                reader.expect(Span(0, PART))
            await turns()
            gate.set()
            rig.origin.gates.clear()
        assert await rig.get() == data
        await rig.audit()


async def test_a_part_cancelled_before_its_first_step_ends(tmp_path: Path) -> None:
    """A reader that leaves in the turn in which its part fetch was started leaves no claim behind (I12)."""
    async with Rig(tmp_path, after_disconnect="stop") as rig:
        data = rig.origin.put(content(3 * PART))
        assert await rig.get(0, PART) == data[:PART]
        await turns()
        with await rig.reader() as reader:
            reader.expect(Span(0, 3 * PART), Demand.WHOLE)
            assert await reader.readable(BLOCK) == PART
            await turns(1)
            assert rig.stats.running == 1, "read-ahead has begun"
        await rig.audit()
        assert await rig.get() == data
        await rig.audit()


async def test_a_rate_of_zero_is_a_rate(tmp_path: Path) -> None:
    """After a part fetch that stored nothing, a reader inside another reader's part waits or splits it."""
    async with Rig(tmp_path, after_disconnect="auto") as rig:
        data = rig.origin.put(content(4 * PART))
        await rig.get(0, PART)
        rig.store.errors = deque([OSError(errno.EIO, "broken")])
        rig.origin.gate(PART)
        failing = asyncio.create_task(rig.get(PART, 2 * PART))
        await turns()
        rig.monotonic.now += 1.0
        rig.origin.gates[PART].set()
        # The first byte is seen, then the clock moves on while it is being written.
        for _ in range(20):
            await asyncio.sleep(0)
            rig.monotonic.now += 0.1
        assert await failing == data[PART : 2 * PART]
        rig.monotonic.now += 60.0
        gate = rig.origin.gate(2 * PART)
        first = asyncio.create_task(rig.get(2 * PART))
        await turns()
        second = asyncio.create_task(rig.get(2 * PART + 3 * BLOCK))
        await turns()
        gate.set()
        assert await first == data[2 * PART :]
        assert await second == data[2 * PART + 3 * BLOCK :]


@each_row("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
async def test_a_disk_that_fails_during_a_fill(tmp_path: Path, number: int) -> None:
    """Waiters get StoreError, and the right bytes from the origin (I16). A later fill is complete."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        rig.store.errors = deque([None, None, OSError(number, os.strerror(number))])
        assert list(await asyncio.gather(rig.get(), rig.get(2 * BLOCK))) == [data, data[2 * BLOCK :]]
        await rig.audit(begun=BLOCK)
        assert rig.stats.outcomes[PartOutcome.STORE_FAILED] >= 1
        rig.monotonic.now += 60.0
        assert await rig.get() == data
        await rig.audit()
        assert rig.entry().is_complete(BLOCK)


async def test_a_write_that_was_cut_short_by_a_full_disk_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of a write that failed half way, or was cancelled, are not charged and not on the disk (I17)."""
    real = os.pwrite
    failures = iter([False, True])

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if next(failures, False):
            real(fd, data, offset)
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    async with Rig(tmp_path, after_disconnect="auto") as rig:
        data = rig.origin.put(content(PART))
        assert await rig.get() == data
        await rig.audit()


async def test_no_room_streams(tmp_path: Path) -> None:
    """With the budget full of pinned entries a reader gets its bytes uncached, and nothing pinned is evicted (I16)."""
    async with Rig(tmp_path, max_size=8 * BLOCK) as rig:
        one, other = KEY, KEY._replace(key="other")
        data = rig.origin.put(content(5 * BLOCK), key=one)
        more = rig.origin.put(content(5 * BLOCK, seed=1), key=other)
        with await rig.reader(one) as reader:
            assert await rig.read(reader) == data
            assert await rig.get(key=other) == more
            assert reader.region is not None
            assert os.pread(reader.region.fd, len(data), 0) == data
            assert rig.budget.used <= rig.budget.limit
        await rig.audit()
        assert await rig.get(key=other) == more
        await rig.audit()


async def test_a_416_for_a_version_that_shrank_is_a_new_version(tmp_path: Path) -> None:
    """A 416 in place of a failed If-Match means another version: the request starts again (I1, I6)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(4 * PART))
        await rig.get(0, PART)
        rig.origin.errors = deque([RangeUnsatisfiable("416")])
        with pytest.raises(ObjectChanged):
            await rig.get(2 * PART)
        assert await rig.get() == data
        await rig.audit()


async def test_a_response_of_another_version_is_refused(tmp_path: Path) -> None:
    """No byte of an origin that ignores If-Match is stored (I1)."""
    async with Rig(tmp_path, origin=FakeOrigin(ignores_if_match=True)) as rig:
        old = rig.origin.put(content(4 * PART))
        assert await rig.get(0, PART) == old[:PART]
        new = rig.origin.put(content(4 * PART, seed=1), '"2"')
        with pytest.raises(ObjectChanged):
            await rig.get(PART)
        assert await rig.get() == new
        await rig.audit()


async def test_nothing_is_readable_beyond_the_mark(tmp_path: Path) -> None:
    """At every turn of the loop, all bytes that `readable` grants are in the file and right (I2)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        rig.origin.chunk = BLOCK // 3
        rig.origin.cuts = [5, BLOCK * 3 + 1, BLOCK * 7]
        readers = [asyncio.create_task(rig.get(start)) for start in (0, 3 * BLOCK, SIZE - 5)]
        while not all(reader.done() for reader in readers):
            await asyncio.sleep(0)
            entry = rig.entries.get(KEY)
            if entry is not None:
                rig.check_readable(entry, data)
        await asyncio.gather(*readers)
        await rig.audit()


async def test_nothing_comes_for_too_long(tmp_path: Path) -> None:
    """A reader fails with OriginTimeout after its timeout, and the part fetch continues for the next one (I20)."""
    async with Rig(tmp_path, reader_timeout=0.0) as rig:
        data = rig.origin.put(content(PART))
        gate = rig.origin.gate(BLOCK)
        with await rig.reader(part=FromTo(0, None)) as reader:
            reader.expect(Span(BLOCK, PART))
            with pytest.raises(OriginTimeout):
                await reader.readable(BLOCK)
        gate.set()
        await turns()
        assert await rig.get() == data
        await rig.audit()


async def test_store_error_is_an_order_to_stream(tmp_path: Path) -> None:
    """A reader of an entry without a file gets StoreError, and no wrong or missing byte (I16)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(PART))
        rig.store.note_failure("test")
        with await rig.reader() as reader:
            reader.expect(Span(0, PART))
            with pytest.raises(StoreError):
                await reader.readable(0)
            assert await rig.read(reader) == data
        await rig.audit()
