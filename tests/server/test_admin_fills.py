"""`GET /api/v1/fills` lists what is being fetched, and changes nothing of it."""

import asyncio
from typing import Any

from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern, until
from rows import each_row

from bucketfront.admin.fills import percent
from bucketfront.keys import ObjectKey
from bucketfront.server.router import Router


async def fills(proxy: Proxy, query: str = "") -> list[dict[str, Any]]:
    response = await proxy.admin("GET", f"/api/v1/fills{query}")
    assert response.status == 200, response.body
    found: list[dict[str, Any]] = response.json()["fills"]
    return found


async def test_nothing_runs(proxy: Proxy, s3: S3) -> None:
    """Without a part fetch the list is empty, also for a complete object that was just fetched."""
    assert await fills(proxy) == []
    s3.put("x", pattern(3 * BLOCK))
    await proxy.get("/x")
    await proxy.settled()
    assert await fills(proxy) == []


async def test_a_running_fill(start: StartProxy, s3: S3) -> None:
    """A running fill is listed with its blocks, parts and readers, and goes on as before."""
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket}, {"path": "/v/", "bucket": s3.bucket}])
    data = pattern(6 * BLOCK)
    etag = s3.put("a b.mp4", data)
    gate = asyncio.Event()
    chunks = 0

    async def hold(_: object) -> None:
        nonlocal chunks
        chunks += 1
        if chunks > 1:
            await gate.wait()

    proxy.relay.on_body = hold
    reading = asyncio.create_task(proxy.get("/a%20b.mp4"))
    try:
        await until(lambda: chunks > 1)
        await until(lambda: any(fill.readers for fill in proxy.app.cache.fills()))
        (fill,) = await fills(proxy)
    finally:
        gate.set()
    assert (await reading).body == data
    assert (fill["bucket"], fill["key"], fill["version"]) == (s3.bucket, "a b.mp4", None)
    assert sorted(fill["paths"]) == ["/a%20b.mp4", "/v/a%20b.mp4"]
    assert (fill["etag"], fill["size"], fill["block_size"]) == (etag, len(data), BLOCK)
    assert 0 <= fill["present"] < len(data)
    assert fill["percent"] == percent(fill["present"], len(data))
    assert fill["part_count"] == len(fill["parts"]) >= 1
    assert fill["parts"][0]["state"] in ("reserving", "requesting", "receiving")
    assert all(part["stop"] - part["start"] <= PART for part in fill["parts"])
    (reader,) = fill["readers"]
    assert (reader["start"], reader["stop"], reader["background"]) == (0, len(data), False)
    await proxy.settled()
    assert await fills(proxy) == []


async def test_the_number_of_fills_is_bounded(proxy: Proxy, s3: S3) -> None:
    """`limit` bounds the list, and values beyond its range are refused."""
    gate = asyncio.Event()

    async def hold(_: object) -> None:
        await gate.wait()

    for number in range(3):
        s3.put(f"{number}", pattern(2 * BLOCK))
    proxy.relay.on_body = hold
    reading = [asyncio.create_task(proxy.get(f"/{number}")) for number in range(3)]
    try:
        await until(lambda: len(proxy.app.cache.fills()) == 3)
        assert len(await fills(proxy)) == 3
        first, second = await fills(proxy, "?limit=2")
        assert [first["key"], second["key"]] == [view.key.key for view in proxy.app.cache.fills(2)]
    finally:
        gate.set()
        await asyncio.gather(*reading)


@each_row("query", ["?limit=0", "?limit=1001", "?limit=x", "?limit=1&limit=2", "?most=1"])
async def test_a_wrong_query_is_refused(proxy: Proxy, query: str) -> None:
    """Unknown and repeated parameters, and values out of their range, get 400 and their name."""
    response = await proxy.admin("GET", f"/api/v1/fills{query}")
    assert response.status == 400
    assert ("most" if "most" in query else "limit") in response.json()["error"]


@each_row(
    ("present", "size", "found"), [(0, 0, 100.0), (0, 1, 0.0), (999, 1000, 99.9), (9999, 10_000, 99.9), (5, 5, 100.0)]
)
def test_only_all_bytes_are_100_percent(present: int, size: int, found: float) -> None:
    """A share is rounded down, so that 100 % means that no byte is missing."""
    assert percent(present, size) == found


async def test_the_paths_of_a_key(start: StartProxy, s3: S3) -> None:
    """A key has the paths that lead to it, and none that another mount with a longer path takes."""
    proxy = await start(
        mounts=[
            {"path": "/", "bucket": s3.bucket},
            {"path": "/v/", "bucket": s3.bucket, "prefix": "videos/"},
            {"path": "/x/", "bucket": "elsewhere"},
        ]
    )
    router = Router(proxy.app.settings.mounts, None)
    assert sorted(router.paths(ObjectKey(s3.bucket, "videos/ä"))) == ["/v/%C3%A4", "/videos/%C3%A4"]
    assert router.paths(ObjectKey(s3.bucket, "x/1")) == ()
    assert router.paths(ObjectKey(s3.bucket, "v/1")) == ()
    assert router.paths(ObjectKey(s3.bucket, "videos/")) == ("/videos/",)
    assert router.paths(ObjectKey("unknown", "a")) == ()
    assert router.paths(ObjectKey(s3.bucket, "/a")) == ("/%2Fa",)
    assert router.paths(ObjectKey(s3.bucket, "1", "v?1")) == ("/1?versionId=v%3F1",)
