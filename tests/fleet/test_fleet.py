"""Several nodes on one bus: what one of them sees is known to all, and what may be missed is not served as fresh."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_origin import BLOCK, KEY, content
from fleet_harness import GRACE, Node, World, eventually

from bucketfront.cache import KeyRange, PathGlob, PurgeMode, PurgeSelection
from bucketfront.fleet import fleet as fleet_module
from bucketfront.fleet import outbox
from bucketfront.fleet.bus import BusError, EntryId, Member, StreamEntry
from bucketfront.fleet.notice import Signal, encoded
from bucketfront.keys import ObjectKey

OLD, NEW = content(BLOCK), content(BLOCK + 1)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for name, value in (("RETRY_PAUSE_S", 0.002), ("START_TIMEOUT_S", 0.05), ("MAX_WAIT_S", 0.01)):
        monkeypatch.setattr(fleet_module, name, value)
    async with World(tmp_path) as found:
        found.origin.put(OLD, '"1"')
        yield found


async def pair(world: World) -> tuple[Node, Node]:
    """Return two nodes that have the object."""
    a, b = await world.node("a"), await world.node("b")
    for node in (a, b):
        assert await node.get() == OLD
    await world.settle()
    assert a.is_fresh
    assert b.is_fresh
    return a, b


SELECTIONS = {
    "key": PurgeSelection.of([KEY]),
    "prefix": PurgeSelection.of(ranges=[KeyRange(KEY.bucket, KEY.key[:1])]),
    "glob": PurgeSelection.of(ranges=[KeyRange(KEY.bucket, "", PathGlob("**"))]),
    "tag": PurgeSelection.of(tags=["t"]),
    "all": PurgeSelection.of(everything=True),
}


@pytest.mark.parametrize("mode", [PurgeMode.REMOVE, PurgeMode.EXPIRE])
@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
async def test_a_purge_reaches_all_nodes(world: World, selection: PurgeSelection, mode: PurgeMode) -> None:
    """What is purged on one node is purged on the other, in the same manner, before it is served again (I6)."""
    world.origin.put(OLD, '"1"', cache_tag="t")
    a, b = await pair(world)
    await a.cache.purge_selected(selection, mode)
    await world.settle()
    assert not b.is_fresh
    assert (b.rig.entries.get(KEY) is None) == (mode is PurgeMode.REMOVE)


async def test_a_write_reaches_all_nodes(world: World) -> None:
    """Once a write on one node has its response, the other one serves the new version (I5)."""
    a, b = await pair(world)
    world.origin.put(NEW, '"2"')
    await a.cache.invalidate(KEY)
    await world.settle()
    assert await b.get() == NEW


async def test_a_write_ends_a_404_on_all_nodes(world: World) -> None:
    """A 404 that one node remembers ends with the write on another one (I5)."""
    a, b = await pair(world)
    other = ObjectKey(KEY.bucket, "other")
    assert await b.rig.is_absent(other)
    world.origin.put(NEW, key=other)
    await a.cache.invalidate(other)
    await world.settle()
    assert await b.get(other) == NEW


async def test_a_version_that_one_node_finds_reaches_all(world: World) -> None:
    """A change at S3 that one node's revalidation finds makes the others ask S3, and then all is quiet (I7)."""
    a, b = await pair(world)
    world.origin.put(NEW, '"2"')
    a.rig.entries.expire(a.rig.entry())
    assert await a.get() == NEW
    await world.settle()
    assert not b.is_fresh
    assert await b.get() == NEW
    await world.settle()
    assert a.is_fresh
    assert b.is_fresh
    assert world.server.added == 3  # the first entry, and one from each node that has seen the change


async def test_no_notice_goes_round(world: World) -> None:
    """A notice is in the stream once, however many nodes apply it."""
    a, _ = await pair(world)
    before = world.server.added
    await a.cache.purge_selected(PurgeSelection.of([KEY]), PurgeMode.REMOVE)
    await world.settle()
    await world.settle()
    assert world.server.added == before + 1


async def test_a_node_reads_on_after_a_kill(world: World) -> None:
    """A node that was away for a short time applies what it has missed, and keeps the rest as fresh (I7)."""
    other = ObjectKey(KEY.bucket, "other")
    world.origin.put(OLD, key=other)
    a, b = await pair(world)
    await b.get(other)
    await world.pass_time(2)
    await b.kill()
    await a.cache.purge_selected(PurgeSelection.of([KEY]), PurgeMode.REMOVE)
    await world.pass_time(2 * GRACE)
    b = await world.node("b")
    await world.settle()
    assert not b.is_fresh
    found = b.rig.entry(other)
    assert found.ttl(world.clock()) > 0
    assert b.fleet.figures.follower.gaps == 0


async def test_a_node_that_was_away_for_too_long_takes_all_for_stale(world: World) -> None:
    """If entries that a node has not read are no longer in the stream, it asks S3 before it serves (I7)."""
    a, b = await pair(world)
    await world.pass_time(2)
    await b.kill()
    world.origin.put(NEW, '"2"')
    await a.cache.invalidate(KEY)
    await a.cache.invalidate(ObjectKey(KEY.bucket, "other"))
    await world.settle()
    del world.server.entries[:-1]
    b = await world.node("b")
    await world.settle()
    assert not b.is_fresh
    assert await b.get() == NEW
    assert b.fleet.figures.follower.gaps == 1


@pytest.mark.parametrize("loss", ["flushed", "restored", "one deleted", "deleted and grown"])
async def test_a_stream_that_lost_entries_makes_all_stale(world: World, loss: str) -> None:
    """Whatever a stream has lost, no node serves what it has as fresh after that (I7)."""
    a, b = await pair(world)
    server = world.server
    await a.cache.purge_selected(PurgeSelection.of([ObjectKey("x", "y")]), PurgeMode.REMOVE)
    await world.settle()
    server.failure = "cut off"
    await eventually(lambda: bool(b.fleet.reading_failure))
    match loss:
        case "flushed":
            server.flush()
        case "restored":
            server.entries.pop()
            server.end, server.added = server.entries[-1].at, server.added - 1
        case "one deleted":
            server.put("other node", next(encoded(Signal.ACKNOWLEDGE)))
            server.entries.pop()
        case "deleted and grown":
            server.flush()
            for _ in range(5):
                server.put("other node", next(encoded(Signal.ACKNOWLEDGE)))
    server.failure = ""
    await world.settle()
    assert not a.is_fresh
    assert not b.is_fresh


async def test_a_node_without_the_bus_serves_for_the_shorter_time(world: World) -> None:
    """While the bus is out of reach, a day of freshness is GRACE seconds, and ends with the return of the bus (I7)."""
    a, b = await pair(world)
    world.server.failure = "cut off"
    await eventually(lambda: bool(a.fleet.reading_failure and b.fleet.reading_failure))
    world.clock.advance(GRACE - 1)
    assert b.is_fresh
    world.clock.advance(1)
    assert not b.is_fresh
    assert b.cache.lease(KEY) is None
    assert not b.fleet.figures.is_connected
    assert b.fleet.figures.lag >= GRACE
    world.server.failure = ""
    await world.settle()
    assert b.is_fresh


async def test_a_node_starts_without_the_bus(world: World) -> None:
    """A start waits for a bounded time, and what an earlier run has validated is not fresh then (I7)."""
    b = await world.node("b")
    await b.get()
    await world.pass_time(GRACE)
    await b.kill()
    world.server.failure = "cut off"
    b = await world.node("b")
    assert not b.is_fresh
    assert await b.get() == OLD
    assert b.is_fresh


async def test_what_was_not_sent_is_sent_later(world: World) -> None:
    """A write while the bus is out of reach has its response, and reaches the others when the bus is back."""
    a, b = await pair(world)
    world.server.refuses_writes = "OOM"
    world.origin.put(NEW, '"2"')
    await a.cache.invalidate(KEY)
    assert a.fleet.sending_failure == "OOM"
    assert len(a.fleet._outbox)
    assert b.is_fresh
    world.server.refuses_writes = ""
    await world.settle()
    assert not b.is_fresh
    assert a.fleet.figures.is_connected


async def test_what_a_killed_node_has_not_sent_makes_all_stale(world: World) -> None:
    """A node that was killed with unsent notices has all others ask S3, once it is back (I5)."""
    a, b = await pair(world)
    world.server.refuses_writes = "OOM"
    world.origin.put(NEW, '"2"')
    await a.cache.invalidate(KEY)
    await a.kill()
    world.server.refuses_writes = ""
    await world.settle()
    assert b.is_fresh
    await world.node("a")
    await world.settle()
    assert not b.is_fresh


async def test_an_overflow_makes_all_stale(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If too many notices wait, one that all is stale takes their place, and memory stays bounded (I19)."""
    monkeypatch.setattr(outbox, "MAX_QUEUED", 5)
    a, b = await pair(world)
    world.server.refuses_writes = "OOM"
    for number in range(20):
        await a.cache.invalidate(ObjectKey("b", f"{number}"))
        assert len(a.fleet._outbox) <= 6
    world.server.refuses_writes = ""
    await world.settle()
    assert not b.is_fresh
    assert a.fleet.figures.overflows >= 1


FOREIGN = [(None, None), ("someone", None), (None, b"x")]
UNREADABLE = [b"", b"garbage", json.dumps({"v": 99}).encode(), b'{"v":1,"k":"invalid","keys":[["b","\\ud800",null]]}']


@pytest.mark.parametrize("notice", UNREADABLE)
async def test_a_notice_that_cannot_be_read_makes_all_stale(world: World, notice: bytes) -> None:
    """The notice of a later release or a damaged one may name any object, and the reader goes on after it."""
    a, b = await pair(world)
    world.server.put("other node", notice)
    await world.settle()
    assert not b.is_fresh
    await b.get()
    assert b.is_fresh
    await a.cache.purge_selected(PurgeSelection.of([KEY]), PurgeMode.REMOVE)
    await world.settle()
    assert not b.is_fresh


@pytest.mark.parametrize(("sender", "notice"), FOREIGN)
async def test_entries_of_other_programs_are_skipped(world: World, sender: str | None, notice: bytes | None) -> None:
    """What is no entry of a bucketfront changes nothing."""
    _, b = await pair(world)
    world.server.put(sender, notice)
    await world.settle()
    assert b.is_fresh
    assert b.fleet.figures.follower.foreign == 1


async def test_all_live_nodes_acknowledge(world: World) -> None:
    """A purge that waits names all nodes, and each of them has applied what came before."""
    a, b = await pair(world)
    await a.cache.purge_selected(PurgeSelection.of([KEY]), PurgeMode.REMOVE)
    found = await a.fleet.acknowledged()
    assert (found.done, found.missing) == (("a", "b"), ())
    assert not b.is_fresh


async def test_a_node_that_does_not_acknowledge_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that lives by the register and applies nothing is named after a bounded time."""
    monkeypatch.setattr(fleet_module, "ACKNOWLEDGE_TIMEOUT_S", 0.1)
    a, b = await pair(world)
    await b.fleet._tasks.close()
    found = await a.fleet.acknowledged()
    assert (found.done, found.missing) == (("a",), ("b",))
    await world.nodes.pop().kill()


async def test_a_register_that_was_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the server lost all, a purge names a node that may not know of it, until that has read on (I36)."""
    monkeypatch.setattr(fleet_module, "MAX_WAIT_S", 0.01)
    a, b = await pair(world)
    await eventually(lambda: len(a.fleet._known) == 2)
    with monkeypatch.context() as cut_off:
        cut_off.setattr(fleet_module, "ACKNOWLEDGE_TIMEOUT_S", 0.2)
        for name in ("read", "register"):
            cut_off.setattr(b.fleet._bus, name, fail)
        await eventually(lambda: b.fleet.reading_failure != "")
        world.server.flush()
        await eventually(lambda: a.fleet.figures.follower.gaps == 1)
        found = await a.fleet.acknowledged()
        assert (found.done, found.missing) == (("a",), ("b",))
    found = await a.fleet.acknowledged()
    assert (found.done, found.missing) == (("a", "b"), ())


async def fail(*_: object) -> None:
    """Fail as the calls of a node that cannot reach the bus."""
    raise BusError("cut off")


async def test_purges_that_wait_look_at_the_register_in_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many purges that wait at once take one connection of the bus, which has few."""
    a, _ = await pair(world)
    looks = 0
    members = a.fleet._bus.members

    async def look() -> list[Member]:
        nonlocal looks
        looks += 1
        assert looks == 1
        await asyncio.sleep(0)
        found = await members()
        looks -= 1
        return found

    monkeypatch.setattr(a.fleet._bus, "members", look)
    found = await asyncio.gather(*(a.fleet.acknowledged() for _ in range(50)))
    assert {(each.done, each.missing) for each in found} == {(("a", "b"), ())}


async def test_a_node_that_cannot_register_says_so_all_the_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the stream can be read does not hide that the register refuses the node."""
    a, _ = await pair(world)

    async def refuse(*_: object) -> None:
        raise BusError("no right to register")

    monkeypatch.setattr(a.fleet._bus, "register", refuse)
    await eventually(lambda: a.fleet.failure == "no right to register")
    await world.pass_time(1)
    assert a.fleet.failure == "no right to register"
    monkeypatch.undo()
    await eventually(lambda: not a.fleet.failure)


async def test_a_purge_that_waits_fails_without_the_bus(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "ACKNOWLEDGE_TIMEOUT_S", 0.1)
    a, _ = await pair(world)
    world.server.failure = "cut off"
    with pytest.raises(BusError, match="cut off"):
        await a.fleet.acknowledged()


async def test_a_copy_of_a_folder_is_another_node(world: World) -> None:
    """Two nodes of one folder's copies have names of their own in the register, and hear each other."""
    a = await world.node("a")
    await world.pass_time(2)
    await a.kill()
    shutil.copytree(world.folder / "a", world.folder / "b")
    a, b = await world.node("a"), await world.node("b")
    for node in (a, b):
        await node.get()
    await world.settle()
    assert len(world.server.nodes) == 2
    await a.cache.purge_selected(PurgeSelection.of([KEY]), PurgeMode.REMOVE)
    await world.settle()
    assert not b.is_fresh


async def test_a_node_that_hands_over_stays_in_the_register(world: World) -> None:
    """After a take-over the next process is the node, so that the end of the one before takes nothing from it."""
    a = await world.node("a")
    await world.settle()
    await a.fleet.pause()
    noted = (world.folder / "a" / "bus.json").read_bytes()
    world.server.put("other node", next(encoded(Signal.EVERYTHING_STALE)))
    await a.fleet.stop()
    assert len(world.server.nodes) == 1
    assert (world.folder / "a" / "bus.json").read_bytes() == noted
    await a.fleet.start()
    await world.settle()
    assert a.fleet.figures.follower.received == 1


@pytest.mark.parametrize("damage", [b"", b"garbage", b"{}", b'{"at":"x","node":1,"added":0,"owes":0,"place":""}'])
async def test_a_damaged_node_file_makes_all_stale(world: World, damage: bytes) -> None:
    """Without a position of its own, a node takes all that it has for stale (I7)."""
    b = await world.node("b")
    await b.get()
    await world.pass_time(2)
    await b.kill()
    (world.folder / "b" / "bus.json").write_bytes(damage)
    b = await world.node("b")
    await world.settle()
    assert not b.is_fresh


async def test_a_long_stream_is_read_in_batches(world: World) -> None:
    """A node that was away reads thousands of entries, and counts each of them."""
    a, b = await pair(world)
    await world.pass_time(2)
    await b.kill()
    for _ in range(1200):
        world.server.put("other node", next(encoded(Signal.ACKNOWLEDGE)))
    await a.cache.purge_selected(PurgeSelection.of([KEY]), PurgeMode.REMOVE)
    b = await world.node("b")
    await world.settle()
    assert b.fleet.figures.follower.gaps == 0
    assert not b.is_fresh


def test_ids_are_in_the_order_of_numbers() -> None:
    """Ids are compared as numbers, not as texts."""
    assert EntryId.parsed("9-9") < EntryId.parsed("10-0") < EntryId.parsed("10-10")
    assert str(EntryId.parsed("10-2")) == "10-2"
    assert StreamEntry(EntryId(1, 1), None, None).at == EntryId.parsed("1-1")
