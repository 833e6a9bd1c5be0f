"""`GET /api/v1/export`: what the cache holds, by heat, as another instance warms from it."""

import json
from typing import Any

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern
from test_warm import FOREVER, is_hit, warmed

from bucketfront.warm import heat


async def exported(proxy: Proxy) -> list[dict[str, Any]]:
    """Return the objects of all pages."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        response = await proxy.admin("GET", f"/api/v1/export{cursor and f'?cursor={cursor}'}")
        assert response.status == 200, response.body
        found += response.json()["objects"]
        cursor = response.json()["cursor"]
    return found


async def test_order_of_heat(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects come by last access, over pages of any size, and within a page by their uses."""
    monkeypatch.setattr(heat, "PAGE_ENTRIES", 4)
    monkeypatch.setattr(heat, "ENTRIES_PER_TURN", 2)
    for number in range(10):
        s3.put(f"{number}", b"data", CacheControl=FOREVER)
        await proxy.get(f"/{number}")
        await proxy.settled()
        proxy.clock.advance(10)
    await proxy.get("/0")
    await proxy.get("/7")
    proxy.clock.advance(10)
    await proxy.get("/8")
    found = await exported(proxy)
    assert [one["path"] for one in found] == ["/8", "/7", "/0", "/9", "/6", "/5", "/4", "/3", "/2", "/1"]
    assert [one["uses"] for one in found] == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]


async def test_ranges_and_paths(start: StartProxy, s3: S3) -> None:
    """An object has the ranges that are held, and one of its paths. What no client can name is left out."""
    mounts = [
        {"path": "/", "bucket": s3.bucket, "prefix": "site/"},
        {"path": "/m/", "bucket": s3.bucket, "prefix": "media/", "versions": True},
    ]
    proxy = await start(mounts=mounts, uploads=None)
    body = pattern(40 * BLOCK)
    s3.put("site/a b", b"data", CacheControl=FOREVER)
    s3.put("media/x", body, CacheControl=FOREVER)
    await proxy.get("/a%20b")
    await proxy.get("/m/x", Range=f"bytes={10 * BLOCK}-{10 * BLOCK + 1}")
    await proxy.settled()
    by_path = {one["path"]: one for one in await exported(proxy)}
    assert by_path.keys() == {"/a%20b", "/m/x"}
    assert by_path["/a%20b"]["range"] is None
    assert by_path["/m/x"]["range"].startswith(f"bytes={10 * BLOCK}-")
    assert by_path["/m/x"]["size"] == len(body)


async def test_another_instance_warms_from_it(start: StartProxy, s3: S3) -> None:
    """After an import, what was a hit of the first cache is a hit of an empty one (the bytes come from S3)."""
    proxy = await start()
    s3.put("whole", pattern(3 * BLOCK), CacheControl=FOREVER)
    s3.put("ranged", pattern(40 * BLOCK), CacheControl=FOREVER)
    await proxy.get("/whole")
    await proxy.get("/ranged", Range=f"bytes={20 * BLOCK}-{20 * BLOCK}")
    await proxy.settled()
    objects = [{"path": one["path"], "range": one["range"]} for one in await exported(proxy)]
    response = await proxy.admin("POST", "/api/v1/purge", json.dumps({"prefix": "/"}).encode())
    assert response.json() == {"purged": 2}
    assert await exported(proxy) == []
    report = await warmed(proxy, objects=objects)
    assert (report["filled"], report["failed"]) == (2, 0)
    assert await is_hit(proxy, "/whole")
    assert await is_hit(proxy, "/ranged", Range=f"bytes={20 * BLOCK}-{20 * BLOCK}")
    assert report["bytes_filled"] < 20 * BLOCK


@pytest.mark.parametrize("cursor", ["x", "1", ":1", "1:", "nan:1", "1:2:3", "1e9:1", "-:1"])
async def test_a_wrong_cursor(proxy: Proxy, cursor: str) -> None:
    """A cursor that no page has named gets a 400."""
    assert (await proxy.admin("GET", f"/api/v1/export?cursor={cursor}")).status == 400
