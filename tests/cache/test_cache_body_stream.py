"""Where bytes come from: retries and their budget, versions of the past, second requests for what is late."""

import asyncio
import random
from collections import deque
from pathlib import Path

import pytest
from cache_harness import NEVER, PART, Rig, runs, turns
from fake_origin import BLOCK, KEY, FakeOrigin, content
from rows import each_row

from bucketfront.cache.fetch import body_stream
from bucketfront.cache.fetch.body_stream import MAX_FAILURES, MAX_HEDGES
from bucketfront.cache.fetch.part_fetch import PartOutcome
from bucketfront.cache.fetch.traffic import Waste
from bucketfront.cache.reader import Reader
from bucketfront.errors import (
    AccessDenied,
    DeleteMarker,
    InvalidOriginResponse,
    NoSuchVersion,
    ObjectChanged,
    ObjectNotFound,
    OriginBusy,
    OriginCircuitOpen,
    OriginError,
    OriginTimeout,
    OriginUnavailable,
)
from bucketfront.http.ranges import Demand, FromTo, Span
from bucketfront.retry import RetryBudget

SIZE = 10 * BLOCK + 123


async def reader_of(rig: Rig) -> Reader:
    """Return a reader of an object whose metadata is known and of which no byte has come."""
    (await rig.reader(wants_body=False)).close()
    return await rig.reader()


# --- retries -------------------------------------------------------------------------------------------------


async def test_a_passthrough_is_retried(tmp_path: Path) -> None:
    """Without a disk as well, a failed GET and a cut body are retried, for the missing bytes only (I11, I16)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        rig.store.note_failure("test")
        with await reader_of(rig) as reader:
            rig.origin.errors = deque([OriginUnavailable("503")] * (MAX_FAILURES - 1))
            rig.origin.cuts = [5, BLOCK + 1, 7 * BLOCK]
            assert b"".join([piece async for piece in reader.stream(Span(0, SIZE))]) == data
        assert runs(rig.origin.reads) == [(0, SIZE)]
        assert rig.origin.requested == [(start, SIZE) for start in (0, 5, BLOCK + 1, 7 * BLOCK)]
        await rig.audit()


@pytest.mark.parametrize("is_stored", [True, False])
async def test_three_failures_in_a_row_are_final(tmp_path: Path, is_stored: bool) -> None:
    """With and without a disk, MAX_FAILURES GETs without a byte are final with the last error (I20)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(SIZE))
        if not is_stored:
            rig.store.note_failure("test")
        with await reader_of(rig) as reader:
            rig.origin.errors = deque([OriginUnavailable(str(number)) for number in range(2 * MAX_FAILURES)])
            with pytest.raises(OriginUnavailable, match=str(MAX_FAILURES - 1)):
                await rig.read(reader)
            assert rig.origin.gets == MAX_FAILURES
            rig.origin.errors.clear()
        await rig.audit()


@pytest.mark.parametrize("is_stored", [True, False])
async def test_without_a_token_a_failure_is_final(tmp_path: Path, is_stored: bool) -> None:
    """A GET that brought no byte is retried only if the retry budget pays, with and without a disk (I20)."""
    async with Rig(tmp_path, retries=RetryBudget(1)) as rig:
        data = rig.origin.put(content(SIZE))
        if not is_stored:
            rig.store.note_failure("test")
        with await reader_of(rig) as reader:
            rig.origin.errors = deque([OriginUnavailable("503")])
            assert await rig.read(reader, 0, BLOCK) == data[:BLOCK]
            asked = rig.origin.gets
            rig.origin.errors = deque([OriginUnavailable("503")])
            with pytest.raises(OriginUnavailable):
                await rig.read(reader, 5 * BLOCK)
            assert rig.origin.gets == asked + 1
        assert rig.cache.statistics().retries_refused == 1
        await rig.audit(begun=BLOCK)


async def test_a_cut_body_needs_no_token(tmp_path: Path) -> None:
    """A body that brought bytes is progress. However many break off, each costs its missing bytes and no retry."""
    async with Rig(tmp_path, retries=RetryBudget(0)) as rig:
        data = rig.origin.put(content(SIZE))
        rig.origin.cuts = list(range(100, SIZE, 997))
        assert await rig.get() == data
        assert runs(rig.origin.reads) == [(0, SIZE)]
        await rig.audit()


async def test_our_own_congestion_needs_no_token(tmp_path: Path) -> None:
    """OriginBusy takes no token, because no request was sent. As many in a row as of any failure are final (I20)."""
    async with Rig(tmp_path, retries=RetryBudget(0)) as rig:
        data = rig.origin.put(content(SIZE))
        with await reader_of(rig) as reader:
            rig.origin.errors = deque([OriginBusy("no connection")] * (MAX_FAILURES - 1))
            assert await rig.read(reader, 0, BLOCK) == data[:BLOCK]
            rig.origin.errors = deque([OriginBusy("no connection")] * MAX_FAILURES)
            with pytest.raises(OriginBusy):
                await rig.read(reader, 5 * BLOCK)
        await rig.audit(begun=BLOCK)


async def test_an_open_circuit_is_final(tmp_path: Path) -> None:
    """OriginCircuitOpen is final at once, with and without a disk, because the breaker decides when to try again."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(SIZE))
        with await reader_of(rig) as reader:
            for read in (rig.read(reader), anext(reader.stream(Span(0, SIZE)))):
                asked = rig.origin.gets
                rig.origin.errors = deque([OriginCircuitOpen("resting", 1.0)])
                with pytest.raises(OriginCircuitOpen):
                    await read
                assert rig.origin.gets == asked + 1
        await rig.audit()


@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_slow_body_is_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stored: bool) -> None:
    """A body that ends because it came too slowly counts as empty, unless PROGRESS_BYTES of it arrived (I20)."""
    monkeypatch.setattr(body_stream, "PROGRESS_BYTES", BLOCK // 2)
    origin = FakeOrigin()
    async with Rig(tmp_path, origin=origin) as rig:
        data = origin.put(content(3 * PART))
        origin.chunk = 99
        if not is_stored:
            rig.store.note_failure("test")
        with await reader_of(rig) as reader:
            origin.ration = BLOCK // 2 - 1
            with pytest.raises(OriginTimeout):
                await rig.read(reader, demand=Demand.WHOLE)
            assert origin.gets >= MAX_FAILURES
            await turns()
            origin.ration = BLOCK // 2
            assert await rig.read(reader, demand=Demand.WHOLE) == data
        await rig.audit(begun=PART)


# --- versions of the past ------------------------------------------------------------------------------------

SIZES = (SIZE, SIZE - BLOCK, SIZE + BLOCK)


def versioned(seed: int = 0) -> FakeOrigin:
    origin = FakeOrigin(random.Random(seed))
    origin.is_versioned = True
    return origin


@each_row("new_size", SIZES)
@each_row("block", range(8), few=3)
async def test_a_version_is_completed_by_its_id(tmp_path: Path, block: int, new_size: int) -> None:
    """An object is overwritten when `block` blocks of it have come.

    Its reader gets all of the old version, by its id from then on, and later readers get the new one (I1, I5).
    """
    async with Rig(tmp_path, origin=versioned(), parallel_parts=1) as rig:
        old = rig.origin.put(content(SIZE), '"old"')
        gate = rig.origin.gate(block * BLOCK)
        reading = asyncio.create_task(rig.get())
        await turns()
        new = rig.origin.put(content(new_size, seed=1), '"new"')
        before = len(rig.origin.keys)
        gate.set()
        assert await reading == old
        named = [key.version for key in rig.origin.keys[before:]]
        assert named[0] is None
        assert set(named[1:]) <= {"version-1"}
        assert len(named) > 1
        assert await rig.get() == new
        await rig.audit()


@each_row("new_size", SIZES)
@each_row("block", range(8), few=3)
async def test_without_an_id_a_version_ends_with_its_key(tmp_path: Path, block: int, new_size: int) -> None:
    """In a bucket without versions, bytes of the old version come until its end shows as ObjectChanged (I1)."""
    async with Rig(tmp_path, parallel_parts=1) as rig:
        rig.origin.put(content(SIZE), '"old"')
        gate = rig.origin.gate(block * BLOCK)
        reading = asyncio.create_task(rig.get())
        await turns()
        new = rig.origin.put(content(new_size, seed=1), '"new"')
        gate.set()
        with pytest.raises(ObjectChanged):
            await reading
        assert await rig.get() == new
        await rig.audit()


async def test_a_deleted_version_is_completed_by_its_id(tmp_path: Path) -> None:
    """A delete leaves a marker and the version behind it. Its reader gets all of it, and later ones get a 404 (I5)."""
    async with Rig(tmp_path, origin=versioned(), parallel_parts=1) as rig:
        old = rig.origin.put(content(SIZE))
        gate = rig.origin.gate(BLOCK)
        reading = asyncio.create_task(rig.get())
        await turns()
        del rig.origin.objects[KEY]
        gate.set()
        assert await reading == old
        assert await rig.is_absent()
        await rig.audit()


async def test_the_new_version_is_there_before_the_old_one_is_complete(tmp_path: Path) -> None:
    """Once one part shows that a version was replaced, the next request gets the new one at once (I5, I7)."""
    async with Rig(tmp_path, origin=versioned(), parallel_parts=1) as rig:
        old = rig.origin.put(content(SIZE))
        gate = rig.origin.gate(PART + BLOCK)
        with await rig.reader(part=FromTo(0, BLOCK)) as reader:
            new = rig.origin.put(content(SIZE - 7, seed=1), '"new"')
            reading = asyncio.create_task(rig.read(reader))
            await turns()
            assert not reading.done()
            rig.origin.gates.clear()
            assert await rig.get() == new
            gate.set()
            assert await reading == old
        assert await rig.get() == new
        await rig.audit()


@each_row(
    "error",
    [
        AccessDenied("403"),  # s3:GetObjectVersion is a right of its own
        ObjectNotFound("404"),
        NoSuchVersion("400"),
        DeleteMarker("405"),
        ObjectChanged("412"),
        InvalidOriginResponse("another version"),
    ],
)
@each_row("is_stored", [True, False])
async def test_a_version_that_is_not_given_by_id(tmp_path: Path, is_stored: bool, error: OriginError) -> None:
    """A version that its id does not give has changed, like one without id. Later readers get the new version (I1)."""
    async with Rig(tmp_path, origin=versioned(), parallel_parts=1) as rig:
        old = rig.origin.put(content(SIZE))
        if not is_stored:
            rig.store.note_failure("test")
        with await reader_of(rig) as reader:
            new = rig.origin.put(content(SIZE, seed=1), '"new"')
            rig.origin.errors = deque([None, error])
            with pytest.raises(ObjectChanged, match=r'is "new"'):
                await rig.read(reader)
            assert [key.version for key in rig.origin.keys] == [None, "version-1"]
        assert await rig.get() == new != old
        await rig.audit()


async def test_a_failure_does_not_end_a_version_of_the_past(tmp_path: Path) -> None:
    """An outage while a version is completed by its id is retried like any other (I11)."""
    async with Rig(tmp_path, origin=versioned()) as rig:
        old = rig.origin.put(content(SIZE))
        with await reader_of(rig) as reader:
            rig.origin.put(content(SIZE, seed=1), '"new"')
            rig.origin.errors = deque([None, OriginUnavailable("503"), OriginTimeout("slow")])
            rig.origin.cuts = [BLOCK + 5]
            assert await rig.read(reader, 0, PART) == old[:PART]
        await rig.audit(begun=PART)


async def test_a_passthrough_notices_the_change(tmp_path: Path) -> None:
    """Without a disk as well, a version that was found to be replaced is not served again (I5, I6)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(SIZE))
        rig.store.note_failure("test")
        with await reader_of(rig) as reader:
            new = rig.origin.put(content(SIZE, seed=1), '"new"')
            with pytest.raises(ObjectChanged):
                await rig.read(reader)
        assert await rig.get() == new
        await rig.audit()


# --- second requests for what is late ------------------------------------------------------------------------


async def test_a_late_head_is_raced(tmp_path: Path) -> None:
    """A second request joins a GET whose head is late. Its bytes become the part's, and no connection is left open."""
    async with Rig(tmp_path, hedge_after=0.0) as rig:
        data = rig.origin.put(content(SIZE))
        rig.origin.deaf = {1}
        with await reader_of(rig) as reader:
            assert await rig.read(reader, 0, PART) == data[:PART]
        assert (rig.stats.hedges_won, rig.stats.hedging) == (1, 0)
        assert rig.origin.requested == [(0, PART)]
        await rig.audit()


@each_row("at", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7, PART - 1])
@each_row("is_stored", [True, False])
async def test_a_stalled_body_is_raced_from_where_it_stands(tmp_path: Path, at: int, is_stored: bool) -> None:
    """A hedge continues a stalled body from its position, so that no byte is read twice (I10)."""
    async with Rig(tmp_path, hedge_after=0.0) as rig:
        data = rig.origin.put(content(PART))
        rig.origin.jitter = 0  # nothing but the stall is late
        rig.origin.stalls = {1: at}
        if not is_stored:
            rig.store.note_failure("test")
        with await reader_of(rig) as reader:
            assert await rig.read(reader, demand=Demand.WHOLE) == data
        assert rig.stats.hedges_won == 1
        assert rig.origin.requested == [(0, PART), (at, PART)]
        assert runs(rig.origin.reads) == [(0, PART)]
        await rig.audit()


async def test_bytes_that_both_requests_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a request and its hedge bring bytes at once, those of the second one are counted as of no use (I37)."""
    async with Rig(tmp_path, hedge_after=0.0) as rig:
        data = rig.origin.put(content(PART))
        door = asyncio.Event()

        async def until_both(tasks: "list[asyncio.Task[object]]") -> None:
            door.set()
            await asyncio.wait(tasks)

        monkeypatch.setattr(body_stream, "_until_bytes", until_both)
        with await reader_of(rig) as reader:
            rig.origin.door = door
            assert await rig.read(reader, demand=Demand.WHOLE) == data
        account = rig.cache.traffic[""]
        assert rig.stats.hedges == 1
        assert account.wasted[Waste.TWICE] == sum(account.received.values()) - len(data) > 0


async def test_a_hedge_that_fails_leaves_the_first_alone(tmp_path: Path) -> None:
    """If the hedge fails, the first request continues, and no retry is paid."""
    async with Rig(tmp_path, hedge_after=0.0, retries=RetryBudget(0), hedges=RetryBudget(1)) as rig:
        data = rig.origin.put(content(PART))
        gate = rig.origin.gate(BLOCK)
        with await reader_of(rig) as reader:
            rig.origin.errors = deque([None, OriginUnavailable("503")])
            rig.origin.door = asyncio.Event()
            reading = asyncio.create_task(rig.read(reader))
            await turns()
            assert rig.stats.hedges == 1
            rig.origin.door.set()
            gate.set()
            assert await reading == data
        assert rig.stats.hedges_won == 0
        await rig.audit()


async def test_the_first_may_fail_while_the_hedge_is_under_way(tmp_path: Path) -> None:
    """The hedge then is the retry: it brings the bytes, and there is no third request."""
    async with Rig(tmp_path, hedge_after=0.0, retries=RetryBudget(0), hedges=RetryBudget(1)) as rig:
        data = rig.origin.put(content(BLOCK))
        with await reader_of(rig) as reader:
            rig.origin.errors = deque([OriginUnavailable("503"), None])
            rig.origin.door = asyncio.Event()
            reading = asyncio.create_task(rig.read(reader))
            await turns()
            rig.origin.door.set()
            assert await reading == data
        assert (rig.origin.gets, rig.stats.hedges_won) == (2, 1)
        await rig.audit()


@each_row(
    ("errors", "told"),
    [
        ((OriginTimeout("1"), OriginUnavailable("2")), OriginUnavailable),
        ((OriginTimeout("1"), AccessDenied("2")), AccessDenied),
        ((AccessDenied("1"), OriginTimeout("2")), AccessDenied),
    ],
)
async def test_both_may_fail(tmp_path: Path, errors: tuple[OriginError, ...], told: type[OriginError]) -> None:
    """Two requests that fail count as one failure. An error that no retry can cure comes first (I13)."""
    async with Rig(tmp_path, hedge_after=0.0, retries=RetryBudget(0)) as rig:
        rig.origin.put(content(BLOCK))
        with await reader_of(rig) as reader:
            rig.origin.errors = deque(errors)
            rig.origin.door = asyncio.Event()
            reading = asyncio.create_task(rig.read(reader))
            await turns()
            rig.origin.door.set()
            with pytest.raises(told):
                await reading
        assert rig.origin.gets == 2
        await rig.audit()


async def test_a_hedge_finds_out_that_the_object_changed(tmp_path: Path) -> None:
    """A hedge may show that the version was replaced, though the first request's bytes win.

    Its reader gets the old version, and later ones get the new one (I1, I5).
    """
    async with Rig(tmp_path, hedge_after=0.0) as rig:
        old = rig.origin.put(content(PART))
        gate = rig.origin.gate(BLOCK)
        reading = asyncio.create_task(rig.get())
        body_stream.HEDGE_AFTER_S = NEVER
        await turns()
        new = rig.origin.put(content(PART, seed=1), '"new"')
        body_stream.HEDGE_AFTER_S = 0.0
        rig.origin.gates[2 * BLOCK] = second = asyncio.Event()
        gate.set()
        await turns()
        assert not reading.done()
        rig.origin.gates.clear()
        assert await rig.get() == new
        second.set()
        assert await reading == old
        await rig.audit()


async def test_no_more_than_a_few_hedges_at_once(tmp_path: Path) -> None:
    """However many parts wait, at most MAX_HEDGES hedges run, and the budget bounds them as well."""
    async with Rig(tmp_path, hedge_after=0.0, parallel_parts=8, read_ahead_limit=64) as rig:
        data = rig.origin.put(content(8 * PART))
        with await reader_of(rig) as reader:
            assert await rig.read(reader, 0, 1) == data[:1]
        rig.origin.door = asyncio.Event()
        already = rig.stats.hedges
        reading = [asyncio.create_task(rig.get(start, start + PART)) for start in range(PART, 8 * PART, PART)]
        await turns()
        assert rig.stats.running > MAX_HEDGES
        assert rig.stats.hedging == rig.stats.hedges - already == MAX_HEDGES
        rig.origin.door.set()
        assert b"".join(await asyncio.gather(*reading)) == data[PART:]
        await rig.audit()
    async with Rig(tmp_path / "second", hedge_after=0.0, hedges=RetryBudget(2)) as rig:
        rig.origin.put(data)
        rig.origin.jitter = 20
        assert await rig.get() == data
        assert 2 <= rig.stats.hedges <= 2 + (rig.stats.started + 9) / 10
        await rig.audit()


@each_row("seed", range(40), few=12)
async def test_any_interleaving_of_two_requests_gives_the_bytes(tmp_path: Path, seed: int) -> None:
    """Whichever of two requests is first at each read, the file gets all bytes once, and no connection stays open.

    There are cuts, stalls and heads that never come (I1, I2, I10, I12).
    """
    async with Rig(tmp_path, seed=seed, hedge_after=0.0, origin=versioned(seed) if seed % 2 else None) as rig:
        chance = rig.chance
        data = rig.origin.put(content(SIZE))
        rig.origin.jitter = chance.choice([1, 3, 12])
        rig.origin.chunk = chance.choice([BLOCK // 3, BLOCK, PART])
        rig.origin.cuts = [chance.randrange(SIZE) for _ in range(3)]
        rig.origin.stalls = {number: chance.randrange(SIZE) for number in range(1, 20, 4)}
        rig.origin.deaf = {number for number in range(2, 20) if chance.random() < 0.2}
        rig.origin.read_timeout = 50
        starts = [chance.randrange(SIZE) for _ in range(3)]
        got = await asyncio.gather(rig.get(), *(rig.get(start) for start in starts))
        assert got == [data, *(data[start:] for start in starts)]
        assert runs(rig.store.writes) == [(0, SIZE)]
        await rig.audit()


@pytest.mark.parametrize("is_stored", [True, False])
async def test_cancelling_a_race_at_any_turn_leaves_nothing(tmp_path: Path, is_stored: bool) -> None:
    """A cancelled race leaves no open body, no task and no count, at any turn of either request (I12)."""
    async with Rig(tmp_path, hedge_after=0.0, after_disconnect="stop") as rig:
        data = rig.origin.put(content(PART))
        rig.origin.jitter = 2
        if not is_stored:
            rig.store.note_failure("test")
        is_done = False
        number = 0
        while not is_done:
            with await reader_of(rig) as reader:
                reading = asyncio.create_task(rig.read(reader))
                await turns(number)
                is_done = reading.done()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            await turns(40)
            assert (rig.origin.bodies, rig.stats.running, rig.stats.hedging) == (0, 0, 0), number
            await rig.cache.purge([KEY])
            number += 1
        assert number > 10
        assert reading.result() == data
        assert rig.stats.hedges > 5
        await rig.audit()


async def test_a_stop_ends_a_race(tmp_path: Path) -> None:
    """A process that stops while two requests run ends both (I12)."""
    async with Rig(tmp_path, hedge_after=0.0) as rig:
        rig.origin.put(content(PART))
        with await reader_of(rig) as reader:
            rig.origin.door = asyncio.Event()
            reading = asyncio.create_task(rig.read(reader))
            await turns()
            assert rig.stats.hedging == 1
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await rig.close()
        assert rig.stats.outcomes[PartOutcome.ABANDONED]
        assert (rig.origin.bodies, rig.stats.hedging) == (0, 0)
