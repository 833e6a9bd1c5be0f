"""What every bus keeps: the real servers and the one of the tests alike."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_bus import FakeBus, FakeServer
from redis_server import SERVERS, RedisServer

from bucketfront.config.bus_settings import BusSettings
from bucketfront.fleet.bus import MAX_ENTRIES, Bus, EntryId, Member, Position
from bucketfront.fleet.redis_bus import RedisBus


@pytest.fixture(params=["fake", *SERVERS])
async def bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bus]:
    if request.param == "fake":
        yield FakeBus(FakeServer(time.time))
        return
    server = RedisServer(tmp_path, server=request.param)
    found = RedisBus(BusSettings(url=server.url))
    try:
        yield found
    finally:
        await found.close()
        server.kill()


async def test_an_empty_bus_has_an_end(bus: Bus) -> None:
    batch = await bus.read(EntryId())
    assert batch.entries == ()
    assert batch.end == Position(EntryId(), 0)
    assert batch.is_last


async def test_entries_come_in_their_order_with_all_bytes(bus: Bus) -> None:
    """Notices are bytes of any value, and each reader gets those behind its position."""
    notices = [b"one", bytes(range(256)), b""]
    last = await bus.append("me", notices)
    batch = await bus.read(EntryId())
    assert [entry.notice for entry in batch.entries] == notices
    assert {entry.sender for entry in batch.entries} == {"me"}
    assert batch.end == Position(last, 3)
    assert batch.entries[-1].at == last
    behind = await bus.read(batch.entries[0].at)
    assert [entry.notice for entry in behind.entries] == notices[1:]
    assert (await bus.read(last)).entries == ()


async def test_a_batch_has_a_bound(bus: Bus) -> None:
    """A reader that was away gets its entries in several batches, and knows which is the last."""
    await bus.append("me", [b"x"] * (MAX_ENTRIES + 1))
    first = await bus.read(EntryId())
    assert len(first.entries) == MAX_ENTRIES
    assert not first.is_last
    second = await bus.read(first.entries[-1].at)
    assert len(second.entries) == 1
    assert second.is_last


async def test_a_wait_ends_with_an_entry(bus: Bus) -> None:
    """A wait ends at once if an entry is there, and after its time if none comes."""
    before = await bus.append("me", [b"a"])
    await bus.append("me", [b"b"])
    await bus.wait(before, 1000.0)
    await bus.wait((await bus.read(EntryId())).end.at, 0.01)


async def test_the_register_has_live_nodes_alone(bus: Bus) -> None:
    """A node is live from its registration on, with its last position, until it leaves or its time is over."""
    await bus.register(Member("n1", "a:1", EntryId(1, 2)), 1000.0)
    await bus.register(Member("n1", "a:1", EntryId(3, 0)), 1000.0)
    await bus.register(Member("n2", "b:1", EntryId(1, 0)), 1000.0)
    await bus.register(Member("n3", "c:1", EntryId(1, 0)), -1.0)
    assert await bus.members() == [Member("n1", "a:1", EntryId(3, 0)), Member("n2", "b:1", EntryId(1, 0))]
    await bus.leave("n1")
    assert await bus.members() == [Member("n2", "b:1", EntryId(1, 0))]
