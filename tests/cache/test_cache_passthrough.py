"""Streams without the cache: how they divide an object into parts, and what they do while their client waits."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from cache_harness import NEVER, Rig, runs, turns
from fake_origin import BLOCK, KEY, FakeOrigin, content

from bucketfront.cache.fetch import passthrough
from bucketfront.cache.fetch.traffic import Waste
from bucketfront.cache.reader import Reader
from bucketfront.errors import ObjectChanged, OriginUnavailable
from bucketfront.http.ranges import FromTo, Span
from bucketfront.keys import ObjectKey

AHEAD = 4 * BLOCK
SIZE = 100 * BLOCK + 123


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stream have AHEAD bytes in memory, and wait for its client for ever, in pieces of a block."""
    monkeypatch.setattr(passthrough, "MAX_AHEAD_BYTES", AHEAD)
    monkeypatch.setattr(passthrough, "MIN_AHEAD_BYTES", BLOCK)
    monkeypatch.setattr(passthrough, "MAX_PIECE_BYTES", BLOCK)
    monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", NEVER)


class Uncached:
    """A stream of an object, in a cache whose disk refuses."""

    def __init__(self, rig: Rig, stack: AsyncExitStack) -> None:
        self.rig = rig
        self.stack = stack
        rig.store.note_failure("test")

    async def stream(self, key: ObjectKey = KEY, start: int = 0) -> AsyncGenerator[bytes, None]:
        (await self.rig.reader(key, wants_body=False)).close()
        reader = self.stack.enter_context(await self.rig.reader(key))
        pieces = reader.stream(Span(start, reader.metadata.size))
        return await self.stack.enter_async_context(aclosing(pieces))


@pytest.fixture
async def uncached(tmp_path: Path) -> "AsyncGenerator[Uncached, None]":
    origin = FakeOrigin()
    origin.is_versioned = True
    async with Rig(tmp_path, origin=origin) as rig:
        async with AsyncExitStack() as stack:
            yield Uncached(rig, stack)
        await rig.audit()


async def rest_of(pieces: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def test_a_fast_client_costs_few_requests(uncached: Uncached) -> None:
    """The parts of a client that keeps pace grow, and no byte comes twice (I10)."""
    origin = uncached.rig.origin
    data = origin.put(content(SIZE))
    assert await rest_of(await uncached.stream()) == data
    assert runs(origin.reads) == [(0, SIZE)]
    lengths = [stop - start for start, stop in origin.requested]
    assert lengths[0] == AHEAD
    assert max(lengths) > AHEAD
    assert len(lengths) < SIZE // (AHEAD // 2) + 1
    assert uncached.rig.stats.pauses == 0


async def test_a_slow_client_holds_no_connection(uncached: Uncached, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a client takes nothing, its stream has no connection. No byte comes twice. Requests are few (I10, I34)."""
    monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", 0.0)
    origin = uncached.rig.origin
    data = origin.put(content(SIZE))
    got = b""
    async for piece in await uncached.stream():
        got += piece
        await turns(40)
        assert origin.bodies == 0
    assert got == data
    assert runs(origin.reads) == [(0, SIZE)]
    assert len(origin.requested) <= SIZE // AHEAD + 2
    assert uncached.rig.stats.pauses > 10


async def test_a_client_that_stops_loses_few_bytes(uncached: Uncached, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that kept pace and stops lets its connection go. At most a twentieth is requested twice (I10, I34)."""
    origin = uncached.rig.origin
    data = origin.put(content(SIZE))
    pieces = await uncached.stream()
    got = b""
    for stop in range(60, 96, 5):
        monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", NEVER)
        while len(got) < stop * BLOCK:
            got += await anext(pieces)
        monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", 0.0)
        await turns(40)
        got += await anext(pieces)
        await turns(40)
        assert origin.bodies == 0
    assert got + await rest_of(pieces) == data
    # All that was requested may be on its way when a connection is closed.
    requested = sum(stop - start for start, stop in origin.requested)
    assert SIZE < requested <= SIZE * 1.05


@pytest.mark.parametrize("has_id", [True, False])
async def test_a_version_that_changes_in_a_pause(
    uncached: Uncached, monkeypatch: pytest.MonkeyPatch, has_id: bool
) -> None:
    """After a pause come bytes of the same version, by its id, or the stream ends with ObjectChanged (I1)."""
    monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", 0.0)
    origin = uncached.rig.origin
    origin.is_versioned = has_id
    old = origin.put(content(SIZE))
    pieces = await uncached.stream()
    got = await anext(pieces)
    await turns(40)
    origin.put(content(SIZE, seed=1), '"new"')
    if has_id:
        assert got + await rest_of(pieces) == old
        return
    while len(got) < AHEAD:
        got += await anext(pieces)
    assert got == old[:AHEAD]
    with pytest.raises(ObjectChanged):
        await anext(pieces)


async def test_a_failure_after_a_pause_is_retried(uncached: Uncached, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request after a pause is repeated if it fails, as the first one of all (I11)."""
    monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", 0.0)
    origin = uncached.rig.origin
    data = origin.put(content(SIZE))
    pieces = await uncached.stream()
    got = await anext(pieces)
    await turns(40)
    origin.errors = deque([OriginUnavailable("503")] * 2)
    assert got + await rest_of(pieces) == data


@pytest.mark.parametrize("start", [0, 30 * BLOCK + 5])
async def test_a_weak_etag_needs_one_response(uncached: Uncached, monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    """Bytes that only one response can bring come in one, however slow the client is (I1)."""
    monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", 0.0)
    origin = uncached.rig.origin
    data = origin.put(content(SIZE), 'W/"1"')
    got = b""
    async for piece in await uncached.stream(start=start):
        got += piece
        await turns(10)
    assert got == data[start:]
    assert origin.requested == [(0, SIZE)]


async def test_many_streams_share_the_memory(uncached: Uncached, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams whose clients stop have a bounded number of bytes in memory together, as long as each has few (I19)."""
    monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", 0.0)
    monkeypatch.setattr(passthrough, "ALL_AHEAD_BYTES", 16 * BLOCK)
    origin = uncached.rig.origin
    keys = [ObjectKey("bucket", str(number)) for number in range(32)]
    for key in keys:
        origin.put(content(SIZE), key=key)
    streams = [await uncached.stream(key) for key in keys]
    taken = 0
    for _ in range(3 * AHEAD // BLOCK):
        taken += sum(map(len, await asyncio.gather(*(anext(pieces) for pieces in streams))))
        await turns()
        assert origin.bodies == 0
    received = sum(stop - start for start, stop in origin.reads)
    assert received - taken <= len(keys) * BLOCK


async def test_a_client_that_leaves_ends_its_stream(uncached: Uncached) -> None:
    """A stream that is closed has no task, no connection and no share, at any turn of its requests (I12)."""
    origin = uncached.rig.origin
    origin.put(content(SIZE))
    origin.jitter = 2
    for number in range(60):
        pieces = await uncached.stream()
        taking = asyncio.ensure_future(anext(pieces))
        await turns(number)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        await pieces.aclose()
        assert origin.bodies == 0, number
        assert uncached.rig.stats.streams == 0


async def test_a_stop_ends_a_stream_that_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that stops ends streams that wait for their client. The client gets an error, and no end (I3, I12)."""
    monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", 0.0)
    async with Rig(tmp_path) as rig, AsyncExitStack() as stack:
        rig.origin.put(content(SIZE))
        pieces = await Uncached(rig, stack).stream()
        await anext(pieces)
        await turns(40)
        await rig.assembly.fetch_context.tasks.close()
        with pytest.raises(OriginUnavailable, match="stopped"):
            await rest_of(pieces)


# --- the response of the lookup ------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [None, FromTo(0, 5), FromTo(7 * BLOCK + 1), FromTo(3, 9 * BLOCK)])
async def test_the_bytes_of_the_lookup_are_used(uncached: Uncached, part: FromTo | None) -> None:
    """Without a disk, the bytes that came with an object's metadata are not requested a second time (I10)."""
    rig = uncached.rig
    data = rig.origin.put(content(SIZE))
    start, stop = (0, None) if part is None else (part.start, part.stop)
    assert await rig.get(start, stop) == data[start:stop]
    runs(rig.origin.requested)


async def test_a_lookup_whose_clients_leave_keeps_no_connection(uncached: Uncached) -> None:
    """Without a disk, the response of a lookup is closed with the last client that may take its bytes (I12)."""
    rig = uncached.rig
    rig.origin.put(content(SIZE))
    rig.origin.jitter = 2
    for number in range(30):
        reading = [asyncio.create_task(rig.reader()) for _ in range(2)]
        await turns(number)
        reading[0].cancel()
        if number % 2:
            reading[1].cancel()
        for found in await asyncio.gather(*reading, return_exceptions=True):
            if isinstance(found, Reader):
                found.close()
        await turns(40)
        assert rig.origin.bodies == 0, number
        await rig.cache.purge([KEY])


async def test_an_object_that_does_not_fit_costs_a_small_first_part(tmp_path: Path) -> None:
    """The first request for an object that the cache cannot hold is for a twentieth of the cache at most (I10)."""
    async with Rig(tmp_path, max_size=20 * BLOCK) as rig:
        data = rig.origin.put(content(SIZE))
        (await rig.reader()).close()
        assert rig.origin.requested == [(0, BLOCK)]
        assert await rig.get() == data
        await rig.audit()


async def test_what_a_client_that_leaves_has_not_taken(uncached: Uncached) -> None:
    """Bytes that came for a client that left before it took them count as unread, each once (I37)."""
    data = uncached.rig.origin.put(content(SIZE))
    pieces = await uncached.stream()
    taken = await anext(pieces)
    await turns()
    await pieces.aclose()
    account = uncached.rig.cache.traffic[""]
    assert taken == data[: len(taken)]
    assert account.wasted[Waste.UNREAD] == sum(account.received.values()) - len(taken) > 0
    assert sum(account.wasted.values()) == account.wasted[Waste.UNREAD]
