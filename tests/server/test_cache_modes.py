"""The integrity of responses while the cache does not serve, in each such mode (I26)."""

import asyncio

import pytest
from http_table import ROWS, SIZE
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern
from relay import Cut, Seen
from test_http_table import check, headers_of
from wire import message

MODES = ("observe", "shadow")
MIB = 1 << 20

pytestmark = pytest.mark.parametrize("mode", MODES)


async def settled(proxy: Proxy) -> None:
    if proxy.app.cache.shadow is not None:
        await proxy.app.cache.shadow.wait()
    await proxy.settled()


async def test_the_http_table(start: StartProxy, s3: S3, mode: str) -> None:
    """Each row of ranges and conditions, twice, so that the second one is a hit of the cache beside it (I24, I26)."""
    proxy = await start(cache={"mode": mode})
    s3.put("x", pattern(SIZE))
    for row in ROWS:
        for state in ("cold", "warm"):
            check(row, state, await proxy.request("GET", "/x", headers_of(row, s3, "x")))
        head = await proxy.request("HEAD", "/x", headers_of(row, s3, "x"))
        expected = 200 if row.status in (200, 206, 416) else row.status
        assert head.status == expected, row.section
    await settled(proxy)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, PART + 1, 3 * MIB + 5])
async def test_bytes(start: StartProxy, s3: S3, mode: str, size: int) -> None:
    """Objects of each size are whole, with the ETag and length of S3 (I1, I3, I4)."""
    proxy = await start(cache={"mode": mode})
    body = pattern(size)
    etag = s3.put("x", body, ContentType="text/x-own", Metadata={"own": "value"})
    for _ in range(2):
        response = await proxy.get("/x")
        assert (response.status, response.is_complete, response.body) == (200, True, body)
        assert response.headers["ETag"] == etag
        assert (response.headers["Content-Type"], response.headers["x-amz-meta-own"]) == ("text/x-own", "value")
    await settled(proxy)


async def test_an_overwrite_during_a_response(start: StartProxy, s3: S3, mode: str) -> None:
    """A response whose object is overwritten amid its parts is cut, and never mixes two versions (I1)."""
    proxy = await start(cache={"mode": mode})
    old, new = pattern(8 * MIB), pattern(8 * MIB, seed=2)
    s3.put("x", old)
    async with proxy.connection() as connection:
        await connection.send(message("GET", "/x"))
        assert (await connection.head()).status == 200
        s3.put("x", new)
        body = await connection.rest()
    assert body == old[: len(body)]
    assert len(body) < len(old)
    assert (await proxy.get("/x")).body == new
    await settled(proxy)


async def test_a_body_that_breaks_off(start: StartProxy, s3: S3, mode: str) -> None:
    """A body of S3 that breaks off once goes on behind the break, and the response is whole (I3, I11)."""
    proxy = await start(cache={"mode": mode})
    body = pattern(PART)
    s3.put("x", body)
    broken: set[Seen] = set()

    async def cut_once(seen: Seen) -> None:
        if seen.sent > BLOCK and not broken:
            broken.add(seen)
            raise Cut

    proxy.relay.on_body = cut_once
    response = await proxy.get("/x")
    assert (response.status, response.is_complete, response.body) == (200, True, body)
    assert broken
    await settled(proxy)


async def test_many_clients(start: StartProxy, s3: S3, mode: str) -> None:
    """Many clients at once get their bytes, and at rest nothing of them is left (I1, I12)."""
    proxy = await start(cache={"mode": mode})
    bodies = {f"o{number}": pattern(PART + number, seed=number + 1) for number in range(8)}
    for key, body in bodies.items():
        s3.put(key, body)

    async def read(key: str) -> None:
        for _ in range(3):
            assert (await proxy.get(f"/{key}")).body == bodies[key]

    await asyncio.gather(*(read(key) for key in bodies for _ in range(3)))
    await settled(proxy)
    assert proxy.app.cache_assembly.fetch_context.stats.streams == 0
    assert proxy.app.origin.free_slots == proxy.app.settings.origin.max_connections
