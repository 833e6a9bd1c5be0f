"""A slow object keeps only its own readers waiting."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fakes import Head, RawConnection, RawServer, response
from proxy_under_test import BLOCK, WallClock, settings_of, until
from wire import Connection, connected, fetch

from bucketfront.app import App
from bucketfront.cache.fetch import body_stream

CLIENTS = 96
SIZE = 2 * CLIENTS * BLOCK
CONNECTIONS = 32


async def script(connection: RawConnection, head: Head) -> None:
    """`/bucket/drips` sends a byte now and then of any range. All other objects arrive at once."""
    if not head.target.startswith("/bucket/drips"):
        await connection.send(response("206 OK", b"healthy", ETag='"1"', Content_Range="bytes 0-6/7"))
        return
    first, last = (int(number) for number in head.headers["range"].removeprefix("bytes=").split("-"))
    last = min(last, SIZE - 1)
    there = f"bytes {first}-{last}/{SIZE}"
    await connection.send(response("206 OK", length=last + 1 - first, ETag='"2"', Content_Range=there))
    while not connection.writer.is_closing():
        await connection.send(b"x")
        await asyncio.sleep(0.2)  # the drip itself, no synchronisation


@pytest.mark.parametrize("has_hedges", [True, False])
async def test_a_dripping_object_starves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_hedges: bool
) -> None:
    """Many clients read a slow object, each at another place.

    Another object is served while they wait, and the slow one has half of the connections (I20).
    """
    monkeypatch.setattr(body_stream, "HEDGE_AFTER_S", 0.1 if has_hedges else 100.0)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(RawServer(script))
        settings = settings_of(tmp_path, server.endpoint_url, "bucket", origin={"max_connections": CONNECTIONS})
        app = await stack.enter_async_context(App(settings, clock=WallClock()))

        async def client(number: int) -> Connection:
            connection = await stack.enter_async_context(connected(app.address))
            place = 2 * number * BLOCK
            await connection.send(f"GET /drips HTTP/1.1\r\nHost: x\r\nRange: bytes={place}-\r\n\r\n".encode())
            return connection

        clients = [await client(number) for number in range(CLIENTS)]
        await until(lambda: app.cache.statistics().flights_running >= CLIENTS)
        await until(lambda: app.origin.free_slots == CONNECTIONS // 2)
        for number in range(5):
            response = await fetch(app.address, f"/healthy{number}")
            assert (response.status, response.body) == (200, b"healthy")
        assert app.origin.free_slots == CONNECTIONS // 2
        assert app.cache.statistics().flights_running >= CLIENTS
        for connection in clients:
            connection.abort()
