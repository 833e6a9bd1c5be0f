"""A stop: not ready first, then the last response of each connection, then the end."""

import asyncio

import pytest
from proxy_under_test import S3, Proxy, StartProxy, pattern, until
from relay import Seen
from wire import connected

from bucketfront.server.http1 import listener

CLIENTS = 16


async def ask_until_the_last(proxy: Proxy, target: str, body: bytes) -> int:
    """Send GETs on one connection until a response says that it is the last. Return their number."""
    answered = 0
    async with connected(proxy.address) as connection:
        while True:
            response = await connection.request("GET", target)
            assert response.is_complete
            assert response.body == body
            answered += 1
            if response.headers.get("Connection") == "close":
                assert await connection.rest() == b""
                return answered


async def test_a_stop_loses_no_request(start: StartProxy, s3: S3) -> None:
    """Clients that send requests without a pause get a response to each, of which the last one says so."""
    bodies = {"/small": pattern(1000), "/large": pattern(300_000), "/miss": b""}
    for target in ("/small", "/large"):
        s3.put(target[1:], bodies[target])
    proxy = await start(freshness={"negative_ttl": "0s"})
    for target in ("/small", "/large"):
        await proxy.get(target)
        await proxy.settled()
    targets = [list(bodies)[number % 2] for number in range(CLIENTS)]
    clients = [asyncio.create_task(ask_until_the_last(proxy, target, bodies[target])) for target in targets]
    served = proxy.app.fast_path.served
    await proxy.until(lambda: proxy.app.fast_path.served >= served + 4 * CLIENTS)
    await proxy.stop()
    assert sum(await asyncio.gather(*clients)) >= 4 * CLIENTS


@pytest.mark.parametrize("is_held", [False, True])
async def test_a_response_that_begins_in_the_stop_is_the_last(start: StartProxy, s3: S3, *, is_held: bool) -> None:
    """A response whose head leaves after the beginning of a stop has `Connection: close`, also if S3 was slow."""
    s3.put("x", b"data")
    proxy = await start()
    goes_on = asyncio.Event()

    async def hold(_: Seen) -> None:
        await goes_on.wait()

    proxy.relay.on_request = hold if is_held else None
    if not is_held:
        goes_on.set()
        await proxy.get("/x")
    async with proxy.connection() as connection:
        asking = asyncio.create_task(connection.request("GET", "/x")) if is_held else None
        if is_held:
            await until(lambda: proxy.relay.seen)
        stopping = asyncio.create_task(proxy.stop())
        await until(lambda: proxy.app.connection_limit.is_draining)
        goes_on.set()
        response = await (asking or connection.request("GET", "/x"))
        assert (response.body, response.headers.get("Connection")) == (b"data", "close")
    await stopping


async def test_the_delay(start: StartProxy, s3: S3) -> None:
    """During `server.stop_delay` new connections are served, `/readyz` is 503, and each response is the last one."""
    s3.put("x", b"data")
    proxy = await start(server={"stop_delay": "1h"})
    await proxy.get("/x")
    assert (await proxy.admin("GET", "/readyz")).status == 200
    stopping = asyncio.create_task(proxy.stop())
    await until(lambda: proxy.app.connection_limit.is_draining)
    ready = await proxy.admin("GET", "/readyz")
    assert (ready.status, ready.body) == (503, b"not ready\nstopping\n")
    response = await proxy.get("/x")
    assert (response.body, response.headers.get("Connection")) == (b"data", "close")
    stopping.cancel()  # the hour
    await asyncio.gather(stopping, return_exceptions=True)
    with pytest.raises(ConnectionError):
        await proxy.get("/x")


async def test_idle_connections_end(start: StartProxy, s3: S3) -> None:
    """A connection without a request is closed, and one that never sent any, so that a stop does not wait for them."""
    s3.put("x", b"data")
    proxy = await start()
    async with proxy.connection() as used, proxy.connection() as unused:
        assert (await used.request("GET", "/x")).status == 200
        await proxy.until(lambda: proxy.app.connection_limit.total == 2)
        await proxy.stop()
        assert [await one.rest() for one in (used, unused)] == [b"", b""]


async def test_progress(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop shows how many connections it waits for."""
    monkeypatch.setattr(listener, "PROGRESS_INTERVAL_S", 0.0)
    s3.put("x", b"data")
    proxy = await start()
    goes_on = asyncio.Event()
    shown: list[int] = []
    proxy.app.listener.on_progress = shown.append

    async def hold(_: Seen) -> None:
        await goes_on.wait()

    proxy.relay.on_request = hold
    asking = asyncio.create_task(proxy.get("/x"))
    await until(lambda: proxy.relay.seen)
    stopping = asyncio.create_task(proxy.stop())
    await until(lambda: shown)
    goes_on.set()
    assert (await asking).body == b"data"
    await stopping
    assert set(shown) == {1}
