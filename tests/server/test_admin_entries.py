"""`GET /api/v1/entries` lists what the cache holds, page by page."""

import base64
from typing import Any
from urllib.parse import quote

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern
from rows import each_row

from bucketfront.admin.entries import MAX_LISTED, cursor_of, outermost
from bucketfront.cache import KeyRange
from bucketfront.keys import ObjectKey


async def page(proxy: Proxy, query: str = "") -> dict[str, Any]:
    response = await proxy.admin("GET", f"/api/v1/entries{query}")
    assert response.status == 200, response.body
    found: dict[str, Any] = response.json()
    return found


async def all_pages(proxy: Proxy, limit: int, prefix: str = "/") -> list[str]:
    """Return the keys of all pages, and check that each but the last one is full."""
    found, cursor = list[str](), ""
    while True:
        current = await page(proxy, f"?limit={limit}&prefix={quote(prefix, safe='')}{cursor}")
        found += [entry["key"] for entry in current["entries"]]
        if current["cursor"] is None:
            return found
        assert len(current["entries"]) == limit
        cursor = f"&cursor={quote(current['cursor'], safe='')}"


async def test_an_entry(proxy: Proxy, s3: S3) -> None:
    """An entry has its paths, ETag, type, sizes and times, and a listing is no use of it."""
    assert await page(proxy) == {"entries": [], "cursor": None}
    etag = s3.put("a b", pattern(3 * BLOCK), ContentType="video/mp4")
    await proxy.get("/a%20b", Range="bytes=0-9")
    await proxy.settled()
    proxy.clock.advance(10)
    before, seen = proxy.figures, len(proxy.relay.seen)
    (entry,) = (await page(proxy))["entries"]
    assert (proxy.figures, len(proxy.relay.seen)) == (before, seen)
    assert (entry["bucket"], entry["key"], entry["version"], entry["paths"]) == (s3.bucket, "a b", None, ["/a%20b"])
    assert (entry["etag"], entry["type"], entry["size"]) == (etag, "video/mp4", 3 * BLOCK)
    assert entry["stored"] in (BLOCK, 2 * BLOCK)
    assert (entry["ttl"], entry["stored_at"]) == (290, entry["validated_at"])
    assert entry["accessed_at"] <= proxy.app.cache_assembly.clock() - 10
    await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/a%20b"], "soft": true}')
    (entry,) = (await page(proxy))["entries"]
    assert (entry["validated_at"], entry["ttl"]) == (None, 0)


@pytest.mark.parametrize("is_flushed", [False, True])
async def test_pages_have_each_entry_once(proxy: Proxy, s3: S3, is_flushed: bool) -> None:
    """The pages together have all entries in the order of their keys, whether the index has them already or not."""
    keys = sorted(["b", "a/1", "a/2", "a/10", "a", "c d", "ä", "a/1.x"], key=str.encode)
    for key in keys:
        s3.put(key, b"data")
        await proxy.get("/" + quote(key))
    if is_flushed:
        await proxy.step()
    for limit in (1, 3, 8, 100):
        assert await all_pages(proxy, limit) == keys
    if not is_flushed:
        await proxy.app.cache_assembly.flusher.flush()
        proxy.app.cache_assembly.entries.hot_limit = 0
        await proxy.step()
        assert await all_pages(proxy, 3) == keys
    await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/a/1"]}')
    assert await all_pages(proxy, 3) == [key for key in keys if key != "a/1"]


async def test_a_prefix(start: StartProxy, s3: S3) -> None:
    """A prefix is a path, as that of a purge: nothing beyond it is listed, and an entry of two mounts comes once."""
    proxy = await start(
        mounts=[
            {"path": "/", "bucket": s3.bucket},
            {"path": "/v/", "bucket": s3.bucket, "prefix": "videos/"},
        ]
    )
    for key in ("videos/1", "videos/2", "videos", "videosX", "w"):
        s3.put(key, b"data")
        await proxy.get(f"/{key}")
    assert await all_pages(proxy, 2, "/v/") == ["videos/1", "videos/2"]
    assert await all_pages(proxy, 2, "/videos/") == ["videos/1", "videos/2"]
    assert await all_pages(proxy, 2, "/v") == ["videos", "videos/1", "videos/2", "videosX"]
    assert await all_pages(proxy, 2, "/videosX") == ["videosX"]
    assert await all_pages(proxy, 2) == ["videos", "videos/1", "videos/2", "videosX", "w"]
    (first, _) = (await page(proxy, "?prefix=/v/"))["entries"]
    assert sorted(first["paths"]) == ["/v/1", "/videos/1"]


async def test_a_cursor_is_stable(proxy: Proxy, s3: S3) -> None:
    """A page begins behind its cursor, also if that entry is gone and others have come before it."""
    for key in ("b", "c", "d"):
        s3.put(key, b"data")
        await proxy.get(f"/{key}")
    first = await page(proxy, "?limit=2")
    await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/c"]}')
    s3.put("a", b"data")
    await proxy.get("/a")
    rest = await page(proxy, f"?limit=2&cursor={quote(first['cursor'], safe='')}")
    assert [entry["key"] for entry in rest["entries"]] == ["d"]
    assert rest["cursor"] is None


NO_CURSORS = ["x", "%00", base64.urlsafe_b64encode(b"one").decode(), base64.urlsafe_b64encode(b"\xff\0\xff").decode()]


@each_row(
    "query",
    ["?limit=0", f"?limit={MAX_LISTED + 1}", "?prefix=", "?prefix=x", "?sort=size", "?prefix=/%25ff",
     *(f"?cursor={cursor}" for cursor in NO_CURSORS)],
)  # fmt: skip
async def test_a_wrong_query_is_refused(proxy: Proxy, query: str) -> None:
    """A limit out of range, a prefix that is no path, an invented cursor and unknown parameters get 400."""
    response = await proxy.admin("GET", f"/api/v1/entries{query}")
    assert response.status == 400
    assert response.json()["error"]


def test_places_within_others_are_left_out() -> None:
    """A listing of several mounts has each place once, also if their prefixes are nested."""
    a, ab, other = KeyRange("x", "a"), KeyRange("x", "ab"), KeyRange("y", "")
    assert outermost([other, ab, a, other]) == [a, other]
    assert outermost([ab]) == [ab]
    assert cursor_of(ObjectKey("x", "a")) != cursor_of(ObjectKey("x", "a", ""))
