"""Connections to the origin: their number, and the share of one key."""

import asyncio
import random

import pytest
from rows import each_row
from stopwatch import HANG_S

from bucketfront.errors import OriginBusy
from bucketfront.fair_share import UsedUp, acting_for
from bucketfront.keys import ObjectKey
from bucketfront.s3.connection_slots import ConnectionSlots, Slot
from bucketfront.s3.upload.upload_slots import UploadSlots

TIMEOUT_S = 10.0  # seconds: more than any test here takes
A, B, C = (ObjectKey("bucket", name) for name in "abc")


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def holders(slots: ConnectionSlots, key: ObjectKey | None, count: int) -> "list[asyncio.Task[Slot]]":
    """Return `count` tasks that want a slot. Those that have one are done."""
    tasks = [asyncio.create_task(slots.acquire(key)) for _ in range(count)]
    await turns()
    return tasks


@each_row(("count", "share"), [(1, 1), (2, 1), (3, 1), (8, 4), (64, 32)])
async def test_one_key_has_half_of_them(count: int, share: int) -> None:
    """One key has half of the slots, at least one, for any number of reads. Other keys have the others."""
    slots = ConnectionSlots(count)
    waiting = await holders(slots, A, 3 * count)
    assert sum(task.done() for task in waiting) == share
    others = await holders(slots, None, count - share)
    assert all(task.done() for task in others)
    assert slots.free == 0
    for task in waiting:
        (await task).release()
        await turns()
    assert all(task.done() for task in waiting)


async def test_a_wait_for_one_key_delays_no_other() -> None:
    """Reads beyond a key's half do not queue for the pool, so that the next slot goes to another key."""
    slots = ConnectionSlots(4)
    of_a = await holders(slots, A, 10)
    of_b = await holders(slots, B, 2)
    assert slots.free == 0
    of_c = await holders(slots, C, 1)
    assert not of_c[0].done()
    of_b[0].result().release()
    await turns()
    assert of_c[0].done()
    assert sum(task.done() for task in of_a) == 2
    for task in of_a:
        task.cancel()
    await asyncio.gather(*of_a, *of_b, return_exceptions=True)


async def test_versions_of_a_key_share_its_half() -> None:
    """A request by version id is for the same object, and gets no second half."""
    slots = ConnectionSlots(4)
    first = await holders(slots, A._replace(version="1"), 2)
    second = await holders(slots, A, 1)
    assert [task.done() for task in (*first, *second)] == [True, True, False]
    first[0].result().release()
    await turns()
    assert second[0].done()


@each_row("seed", range(30))
async def test_cancelling_loses_no_slot(seed: int) -> None:
    """I12: after cancellations at any point all slots are free, all can be acquired, and no key is remembered.

    The points are the wait for the key, the wait for the pool, and a slot that was just granted.
    """
    chance = random.Random(seed)
    slots = ConnectionSlots(chance.choice([1, 2, 5]))
    count = slots.free
    held = 0

    async def use(key: ObjectKey | None) -> None:
        nonlocal held
        slot = await slots.acquire(key)
        try:
            held += 1
            assert held <= count
            await turns(chance.randrange(4))
        finally:
            held -= 1
            slot.release()

    tasks: list[asyncio.Task[None]] = []
    for _ in range(150):
        tasks.append(asyncio.create_task(use(chance.choice([A, A, A, B, None]))))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        await turns(chance.randrange(3))
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), HANG_S)
    assert [task for task in tasks if not task.cancelled() and task.exception()] == []
    assert (slots.free, slots._keys) == (count, {})
    assert all(task.done() for task in await holders(slots, None, count))


async def test_a_read_that_another_client_joins() -> None:
    """A read in the queue of a client beyond its share gets a slot once another client wants the same object (I34)."""
    slots = ConnectionSlots(8, 0.25)
    with acting_for("greedy"):
        reads = await holders(slots, A, 4) + await holders(slots, B, 4) + await holders(slots, C, 1)
    assert [task.done() for task in reads] == 7 * [True] + 2 * [False]
    with acting_for("honest"):
        slots.hurry(C)
    await turns()
    assert reads[-1].done()
    reads[-1].result().release()
    await turns()
    assert (slots.free, slots.wanted.used) == (1, 8)
    reads[-2].cancel()
    await asyncio.gather(reads[-2], return_exceptions=True)
    for task in reads[:-2]:
        task.result().release()
    assert (slots.free, slots.wanted.used, slots._keys) == (8, 0, {})


async def test_reads_that_no_one_refused_leave_the_room_of_others() -> None:
    """Reads of parts count for a client as long as it has room. Others can begin reads all the same."""
    slots = ConnectionSlots(4, share_of_one=0.25)
    with acting_for("greedy"):
        reads = await holders(slots, A, 2 * slots.wanted.capacity)
    assert slots.wanted.used < slots.wanted.capacity
    assert slots.wanted.refusal("greedy") is UsedUp.SHARE
    assert slots.wanted.refusal("honest") is None
    for read in reads:
        read.cancel()
    for slot in await asyncio.gather(*reads, return_exceptions=True):
        if isinstance(slot, Slot):
            slot.release()
    assert (slots.free, slots.wanted.used, slots._keys) == (4, 0, {})


async def test_clients_take_turns_within_the_half_of_a_key() -> None:
    """A client that wants many ranges of an object delays another reader of it by one of them at most."""
    slots = ConnectionSlots(4)
    with acting_for("greedy"):
        reads = await holders(slots, A, 20)
    with acting_for("honest"):
        [other] = await holders(slots, A, 1)
    reads[0].result().release()
    reads[1].result().release()
    await turns()
    assert other.done()
    other.result().release()
    for read in reads[2:]:
        (await read).release()
    assert (slots.free, slots.wanted.used, slots._keys) == (4, 0, {})


async def test_uploads_have_half_of_them() -> None:
    """Reads have the other half of the connections, for any number of uploads."""
    slots = ConnectionSlots(4)
    uploads = UploadSlots(slots, 4)
    async with uploads.slot(TIMEOUT_S), uploads.slot(TIMEOUT_S):
        third = asyncio.create_task(held(uploads, TIMEOUT_S))
        await turns()
        reading = await holders(slots, A, 2)
        assert all(task.done() for task in reading)
        assert not third.done()
    await third
    assert slots.free == 2


async def test_an_upload_waits_as_long_as_others_move() -> None:
    """An upload waits while others move, and gives up after its `progress_timeout` without that (I20)."""
    slots = ConnectionSlots(2)
    uploads = UploadSlots(slots, 2)
    progress_timeout = 0.05
    async with uploads.slot(TIMEOUT_S):
        waiting = asyncio.create_task(held(uploads, progress_timeout))
        until = asyncio.get_running_loop().time() + 3 * progress_timeout
        while asyncio.get_running_loop().time() < until:
            uploads.moved_bytes += 1  # in each turn of the loop, so that a busy machine delays no movement
            await asyncio.sleep(0)
        assert not waiting.done()
        with pytest.raises(OriginBusy):
            await waiting
        second = asyncio.create_task(held(uploads, TIMEOUT_S))
        third = asyncio.create_task(held(uploads, TIMEOUT_S))
        await turns()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert not third.done()
    await third
    assert slots.free == 2


async def held(uploads: UploadSlots, progress_timeout: float) -> None:
    async with uploads.slot(progress_timeout):
        pass
