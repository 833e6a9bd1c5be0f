"""Clients that leave.

Players do so all the time: other clients do not notice, nothing leaks, and fetched bytes are kept.
"""

import asyncio
import socket
from urllib.parse import urlsplit

import pytest
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, descriptors_open, pattern, until
from relay import Relay, Seen
from wire import chunked, message

from bucketfront.cache.fetch.fill import Fill
from bucketfront.server import server

SIZE = 20 * BLOCK
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def hold_at(relay: Relay, offset: int) -> asyncio.Event:
    """Hold back all bytes of an object from `offset` on until the event is set. `offset` is that of a block."""
    gate = asyncio.Event()

    async def hold(seen: Seen) -> None:
        if seen.offset >= offset:
            await gate.wait()

    relay.on_body = hold
    return gate


async def leave_after(proxy: Proxy, target: str, count: int, headers: dict[str, str] | None = None) -> bytes:
    """Be a client that reads `count` bytes of a body and leaves."""
    async with proxy.connection() as connection:
        await connection.send(message("GET", target, headers))
        await connection.head()
        data = await connection.reader.readexactly(count)
        connection.abort()
    return data


async def test_others_do_not_notice(proxy: Proxy, s3: S3) -> None:
    """The client that started a fill leaves. The others get every byte, and no block is fetched twice (I10, I12)."""
    body = pattern(SIZE)
    s3.put("x", body)
    gate = hold_at(proxy.relay, PART)
    assert await leave_after(proxy, "/x", BLOCK) == body[:BLOCK]
    others = [asyncio.create_task(proxy.get("/x")) for _ in range(5)]
    (entry,) = proxy.app.cache_assembly.entries.hot_entries()
    fill = Fill.of(entry, proxy.app.cache_assembly.fetch_context)
    await until(lambda: sum(not cursor.request.is_background for cursor in fill._cursors) == 5)
    gate.set()
    assert {response.body == body for response in await asyncio.gather(*others)} == {True}
    await proxy.settled()
    assert proxy.relay.body_bytes == SIZE


async def test_leaving_before_the_answer(proxy: Proxy, s3: S3) -> None:
    """Clients that leave during a lookup do not fail the other waiters of the same lookup (I12)."""
    s3.put("x", b"data")
    gate = asyncio.Event()

    async def hold(_: Seen) -> bytes | None:
        await gate.wait()
        return None

    proxy.relay.on_request = hold
    for _ in range(5):
        async with proxy.connection() as connection:
            await connection.send(message("GET", "/x"))
            await until(lambda: proxy.relay.seen and proxy.app.connection_limit.open)
            connection.abort()
            await until(lambda: not proxy.app.connection_limit.open)
    staying = asyncio.create_task(proxy.get("/x"))
    await until(lambda: len(proxy.log) == 5)
    gate.set()
    assert (await staying).body == b"data"
    assert len(proxy.relay.seen) == 1
    assert {line["status"] for line in proxy.log[:5]} == {499}


async def test_policy_finish(start: StartProxy, s3: S3) -> None:
    """`finish`: the bytes that the last client requested are fetched to their end without it."""
    proxy = await start(cache={"after_disconnect": "finish"})
    body = pattern(SIZE)
    s3.put("x", body)
    gate = hold_at(proxy.relay, PART)
    await leave_after(proxy, "/x", BLOCK)
    await until(lambda: len(proxy.log) == 1)
    gate.set()
    await until(lambda: proxy.relay.body_bytes == SIZE)
    await proxy.settled()
    proxy.relay.reset()
    assert (await proxy.get("/x")).body == body
    assert proxy.relay.seen == []


async def test_policy_stop(start: StartProxy, s3: S3) -> None:
    """`stop`: the part fetches end with the last client, their connections close, and the bytes fetched so far are
    kept.
    """
    proxy = await start(cache={"after_disconnect": "stop"})
    body = pattern(SIZE)
    s3.put("x", body)
    gate = hold_at(proxy.relay, PART)
    await leave_after(proxy, "/x", PART)
    await until(lambda: len(proxy.log) == 1)
    await proxy.settled()
    assert proxy.relay.body_bytes == PART
    gate.set()
    await until(lambda: not proxy.relay.running)
    assert proxy.relay.body_bytes < SIZE  # the connection closed before the origin sent the rest
    assert dict(proxy.figures["endings"])["abandoned"]
    proxy.relay.reset()
    assert (await proxy.get("/x")).body == body
    await proxy.settled()
    assert proxy.relay.body_bytes == SIZE - PART


@pytest.mark.parametrize(("parts", "goes_on"), [(2, False), (6, False), (9, True)])
async def test_policy_auto(start: StartProxy, s3: S3, parts: int, goes_on: bool) -> None:
    """`auto`: a fill that lacks a ninth of the object goes on.

    Any other ends with its running part fetches.
    """
    proxy = await start(cache={"after_disconnect": "auto"}, origin={"parallel_parts": 1})
    s3.put("x", pattern(SIZE))
    gate = hold_at(proxy.relay, parts * PART)
    await leave_after(proxy, "/x", parts * PART)
    await until(lambda: len(proxy.log) == 1)
    gate.set()
    await proxy.settled()
    assert (proxy.relay.body_bytes == SIZE) == goes_on


async def test_seek_costs_its_own_blocks(start: StartProxy, s3: S3) -> None:
    """A player requests `bytes=0-`, the tail, then the middle.

    Each seek gets its response before the fill gets there.
    """
    proxy = await start(cache={"after_disconnect": "stop"}, origin={"parallel_parts": 1})
    body = pattern(SIZE)
    s3.put("x", body)
    gate = hold_at(proxy.relay, PART)
    first = asyncio.create_task(leave_after(proxy, "/x", PART, {"Range": "bytes=0-"}))
    assert await first == body[:PART]
    gate.set()
    for start_at in (SIZE - 100, SIZE // 2):
        data = await leave_after(proxy, "/x", 100, {"Range": f"bytes={start_at}-"})
        assert data == body[start_at : start_at + 100]
    await proxy.settled()
    assert proxy.relay.body_bytes < SIZE


async def test_nothing_leaks(proxy: Proxy, s3: S3) -> None:
    """After many clients that left anywhere, tasks, descriptors and part fetches are back at their baseline (I12)."""
    body = pattern(SIZE)
    s3.put("warm", body)
    await proxy.get("/warm")
    await proxy.settled()

    def baseline() -> tuple[int, int]:
        return len(asyncio.all_tasks()), descriptors_open()

    await until(lambda: not proxy.relay.running)
    before = baseline()
    for number in range(10):
        s3.put(f"cold{number}", body)
    await asyncio.gather(*(leave_after(proxy, f"/cold{number}", number * 10_000) for number in range(10)))
    await asyncio.gather(*(leave_after(proxy, "/warm", number * 10_000) for number in range(10)))
    async with proxy.connection() as connection:
        await connection.send(message("PUT", "/up", {"Content-Length": "1000000"}) + bytes(1000))
        connection.abort()
    await until(lambda: len(proxy.log) == 22)
    await proxy.settled()
    response = await proxy.admin("POST", "/api/v1/purge", b'{"prefix": "/cold"}')
    assert response.json() == {"purged": 10}
    await until(lambda: baseline() <= before)
    assert len(proxy.files) == 1
    assert proxy.app.origin.free_slots == proxy.app.settings.origin.max_connections
    entries = proxy.app.cache_assembly.entries
    assert [entry for entry in entries.hot_entries() if entry.pins] == []


async def test_slow_reader_holds_up_nobody(proxy: Proxy, s3: S3) -> None:
    """A client that does not read slows down no other client, and its fill goes on (I19)."""
    body = pattern(200 * BLOCK)
    s3.put("x", body)
    async with proxy.connection() as connection:
        await connection.send(message("GET", "/x"))
        await connection.head()
        assert (await proxy.get("/x")).body == body
        assert await connection.reader.readexactly(len(body)) == body


def accepts(proxy: Proxy) -> bool:
    """Return whether a connection would be accepted. Blocks, because a refusal on loopback is immediate."""
    where = urlsplit(proxy.address)
    try:
        socket.create_connection((where.hostname or "", where.port or 0), timeout=1).close()
    except ConnectionError:
        return False
    return True


async def test_stop_drains(proxy: Proxy, s3: S3) -> None:
    """A stop lets a running response end, and refuses new connections."""
    body = pattern(SIZE)
    s3.put("x", body)
    gate = hold_at(proxy.relay, PART)
    async with proxy.connection() as connection:
        await connection.send(message("GET", "/x"))
        await connection.head()
        stopping = asyncio.create_task(proxy.stop())
        await until(lambda: not accepts(proxy))
        gate.set()
        assert await connection.reader.readexactly(SIZE) == body
    await stopping


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_stop_reads_the_body_under_way(
    start: StartProxy, s3: S3, is_chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a stop, an upload that is arriving completes. A request behind it has the last response of its connection."""
    body = pattern(SIZE)
    monkeypatch.setattr(server, "DRAIN_TIMEOUT_S", 10.0)  # no more than a failure would take
    proxy = await start()
    head = {"Transfer-Encoding": "chunked"} if is_chunked else {"Content-Length": str(len(body))}
    sent = chunked(body[:100], body[100:]) if is_chunked else body
    async with proxy.connection() as connection:
        await connection.send(message("PUT", "/x", {**head, "Expect": "100-continue"}) + sent[:100])
        assert await connection.reader.readuntil(b"\r\n\r\n") == CONTINUE
        stopping = asyncio.create_task(proxy.stop())
        await until(lambda: not accepts(proxy))
        await connection.send(sent[100:] + message("GET", "/x"))
        response = await connection.rest()
        assert response.startswith(b"HTTP/1.1 201 ")
        first, behind = response.split(b"HTTP/1.1 ")[1:]
        assert b"\r\nConnection: close\r\n" not in first
        assert b"\r\nConnection: close\r\n" in behind
        assert behind.endswith(body)
    await stopping
    assert s3.get("x") == body


async def test_stop_gives_up_a_body_that_does_not_end(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that is incomplete when the time of a stop is over is cut off, and makes no object (I8, I20)."""
    monkeypatch.setattr(server, "DRAIN_TIMEOUT_S", 0.05)
    proxy = await start()
    async with proxy.connection() as connection:
        await connection.send(message("PUT", "/x", {"Content-Length": "10", "Expect": "100-continue"}) + b"12345")
        assert await connection.reader.readuntil(b"\r\n\r\n") == CONTINUE
        await proxy.stop()
        assert await connection.rest() == b""
    assert s3.keys() == []
