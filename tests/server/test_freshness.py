"""How long a response is used without a revalidation (I7), and the cost of a revalidation without a change."""

import asyncio

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from relay import Cut, Seen, canned


async def test_default_ttl(proxy: Proxy, s3: S3) -> None:
    """An object without a lifetime is fresh for `default_ttl`. A change at S3 shows after that (I7)."""
    s3.put("x", b"old")
    await proxy.get("/x")
    s3.put("x", b"new")
    proxy.clock.advance(299)
    response = await proxy.get("/x")
    assert (response.body, response.cache_status) == (b"old", "hit; ttl=1")
    proxy.clock.advance(1 + 60)  # past stale-while-revalidate too
    response = await proxy.get("/x")
    assert (response.body, response.headers["Age"]) == (b"new", "0")
    assert response.cache_status.startswith("fwd=stale; fwd-status=206")


@pytest.mark.parametrize(
    ("control", "ttl"),
    [
        ("max-age=10", 10),  # RFC 9111 section 5.2.2.1
        ("max-age=10, s-maxage=20", 20),  # section 5.2.2.10
        ("public, max-age=0", 0),
        ("no-cache", 0),  # section 5.2.2.4
    ],
)
async def test_object_says_how_long(proxy: Proxy, s3: S3, control: str, ttl: int) -> None:
    """The object's own Cache-Control takes precedence over the configuration."""
    s3.put("x", b"data", CacheControl=f"{control}, stale-while-revalidate=0")
    await proxy.get("/x")
    if ttl:
        proxy.clock.advance(ttl - 1)
        assert (await proxy.get("/x")).cache_status == "hit; ttl=1"
        proxy.clock.advance(1)
    response = await proxy.get("/x")
    assert (response.body, response.cache_status) == (b"data", "fwd=stale; fwd-status=304")


@pytest.mark.parametrize("control", ["no-store", "private", "private, max-age=60"])
async def test_not_to_be_kept(proxy: Proxy, s3: S3, control: str) -> None:
    """Such an object passes through whole and is not stored (RFC 9111 sections 5.2.2.5 and 5.2.2.7)."""
    body = pattern(3 * BLOCK + 5)
    s3.put("x", body, CacheControl=control)
    for _ in range(2):
        response = await proxy.get("/x")
        assert response.body == body
        assert response.cache_status.startswith("fwd=miss")
        assert "stored" not in response.cache_status
    part = await proxy.get("/x", Range="bytes=70000-70009")
    assert part.body == body[70000:70010]
    await proxy.settled()
    await until(lambda: not proxy.figures["bytes_used"])
    assert proxy.figures["entries"] == 0
    assert proxy.files == []
    s3.put("x", b"new", CacheControl=control)
    assert (await proxy.get("/x")).body == b"new"


async def test_revalidation_costs_no_bytes(proxy: Proxy, s3: S3) -> None:
    """A stale object is requested with If-None-Match.

    A 304 makes it fresh again without a byte (RFC 9111 section 4.3).
    """
    body = pattern(3 * BLOCK)
    etag = s3.put("x", body)
    await proxy.get("/x")
    await proxy.settled()
    proxy.relay.reset()
    proxy.clock.advance(1000)
    response = await proxy.get("/x")
    assert (response.body, response.cache_status, response.headers["Age"]) == (body, "fwd=stale; fwd-status=304", "0")
    assert [(seen.headers.get("if-none-match"), seen.status) for seen in proxy.relay.seen] == [(etag, 304)]
    assert proxy.relay.body_bytes == 0
    assert (await proxy.get("/x")).cache_status == "hit; ttl=300"


async def test_revalidation_is_one_for_all(proxy: Proxy, s3: S3) -> None:
    """Many requests for a stale object cause one request to the origin (I10)."""
    s3.put("x", b"data")
    await proxy.get("/x")
    proxy.relay.reset()
    proxy.clock.advance(1000)
    responses = await asyncio.gather(*(proxy.get("/x") for _ in range(20)))
    assert {response.body for response in responses} == {b"data"}
    assert len(proxy.relay.seen) == 1


async def test_changed_object_is_replaced(proxy: Proxy, s3: S3) -> None:
    """A version that was replaced at S3 is replaced in the cache as a whole, and its file is removed."""
    old, new = pattern(3 * BLOCK, 1), pattern(2 * BLOCK + 9, 2)
    s3.put("x", old)
    await proxy.get("/x")
    etag = s3.put("x", new, ContentType="text/new")
    proxy.clock.advance(1000)
    response = await proxy.get("/x")
    assert (response.body, response.headers["ETag"], response.headers["Content-Type"]) == (new, etag, "text/new")
    await proxy.settled()
    assert (await proxy.get("/x", Range="bytes=0-9")).headers["Content-Range"] == f"bytes 0-9/{len(new)}"
    files = proxy.app.settings.cache.dir / "objects"
    await until(lambda: len(list(files.glob("*/*"))) == 1)


async def test_vanished_object_is_gone(proxy: Proxy, s3: S3) -> None:
    """A stale object that S3 has no longer is a 404 despite stale-if-error, because only a 404 means absence (I13)."""
    s3.put("x", b"data")
    await proxy.get("/x")
    s3.delete("x")
    proxy.clock.advance(1000)
    assert (await proxy.get("/x")).status == 404
    assert (await proxy.get("/x")).cache_status.startswith("hit")


async def test_negative_ttl(proxy: Proxy, s3: S3) -> None:
    """A 404 of S3 is remembered for `negative_ttl`, for GET and HEAD alike, and no longer (I13)."""
    first = await proxy.get("/x")
    assert (first.status, first.json()) == (404, {"error": "no such object"})
    assert first.cache_status.startswith("fwd=miss; fwd-status=404")
    s3.put("x", b"data")
    proxy.clock.advance(9)
    assert (await proxy.get("/x")).status == 404
    assert (await proxy.request("HEAD", "/x")).status == 404
    assert len(proxy.relay.seen) == 1
    proxy.clock.advance(1)
    assert (await proxy.get("/x")).body == b"data"


async def test_no_negative_ttl(start: StartProxy, s3: S3) -> None:
    """`negative_ttl: 0` remembers no 404."""
    proxy = await start(freshness={"negative_ttl": 0})
    assert (await proxy.get("/x")).status == 404
    s3.put("x", b"data")
    assert (await proxy.get("/x")).status == 200


async def test_rules(start: StartProxy, s3: S3) -> None:
    """The first rule that matches the key sets the TTL, unless the object has its own."""
    proxy = await start(
        freshness={
            "rules": [{"match": "live/**/*.m3u8", "ttl": "2s"}, {"match": "**/*.m3u8", "ttl": "30s"}],
            "stale_while_revalidate": 0,
        }
    )
    s3.put("own.m3u8", b"data", CacheControl="max-age=77")
    for key, ttl in (("live/a/b.m3u8", 2), ("vod/a.m3u8", 30), ("live/a/b.txt", 300), ("own.m3u8", 77)):
        if key != "own.m3u8":
            s3.put(key, b"data")
        await proxy.get(f"/{key}")
        assert (await proxy.get(f"/{key}")).cache_status == f"hit; ttl={ttl}", key


async def test_stale_while_revalidate(proxy: Proxy, s3: S3) -> None:
    """Within the window the stale response comes at once, and the origin gets one request meanwhile (RFC 5861
    section 3).
    """
    s3.put("x", b"old")
    await proxy.get("/x")
    s3.put("x", b"new")
    proxy.relay.reset()
    gate = asyncio.Event()

    async def held(_: Seen) -> bytes | None:
        await gate.wait()
        return None

    proxy.relay.on_request = held
    proxy.clock.advance(330)
    for _ in range(3):
        response = await proxy.get("/x")
        assert (response.body, response.headers["Age"]) == (b"old", "330")
        assert response.cache_status == 'hit; ttl=-30; detail="stale-while-revalidate"'
    assert len(proxy.relay.seen) == 1
    gate.set()
    await until(lambda: not proxy.relay.running)
    await until(lambda: not proxy.app.cache_assembly.lookups._shared)
    assert (await proxy.get("/x")).body == b"new"


@pytest.mark.parametrize("key", ["live.json", "live.m3u8"])
async def test_a_short_lifetime_is_revalidated_in_the_foreground(proxy: Proxy, s3: S3, key: str) -> None:
    """An overwrite of an object that is fresh for 3 s shows after 3 s, and all who wait share one request (I7, I10)."""
    s3.put(key, b"old", CacheControl="max-age=3")
    await proxy.get(f"/{key}")
    s3.put(key, b"new", CacheControl="max-age=3")
    proxy.clock.advance(2.9)
    assert (await proxy.get(f"/{key}")).body == b"old"
    proxy.relay.reset()
    gate = asyncio.Event()

    async def held(_: Seen) -> bytes | None:
        await gate.wait()
        return None

    proxy.relay.on_request = held
    proxy.clock.advance(0.2)
    waiting = [asyncio.create_task(proxy.get(f"/{key}")) for _ in range(8)]
    await until(lambda: proxy.relay.seen)
    gate.set()
    assert {(response.body, response.headers["Age"]) for response in await asyncio.gather(*waiting)} == {(b"new", "0")}
    assert len(proxy.relay.seen) == 1


async def test_a_configured_window_counts_for_short_lifetimes_too(start: StartProxy, s3: S3) -> None:
    """What the operator configures, and what the object says itself, come before the default."""
    proxy = await start(freshness={"stale_while_revalidate": "60s"})
    s3.put("x", b"old", CacheControl="max-age=3")
    await proxy.get("/x")
    proxy.clock.advance(5)
    assert (await proxy.get("/x")).cache_status == 'hit; ttl=-2; detail="stale-while-revalidate"'


STALE_IF_ERROR = [
    # the object's Cache-Control, whether it may be served stale
    (None, True),
    ("max-age=300", True),
    ("max-age=300, must-revalidate", False),  # RFC 9111 section 5.2.2.2
    ("max-age=300, proxy-revalidate", False),  # section 5.2.2.8
    ("s-maxage=300", False),  # section 5.2.2.10
    ("max-age=300, stale-if-error=10", False),  # RFC 5861 section 4: the object's own window has passed
    ("no-cache", False),
]


@pytest.mark.parametrize("failure", ["refused", "503", "cut"])
async def test_stale_if_error(proxy: Proxy, s3: S3, failure: str) -> None:
    """While the origin fails, a stale response is served and marked as such, but never past must-revalidate (RFC
    5861 section 4).
    """
    for number, (control, _) in enumerate(STALE_IF_ERROR):
        s3.put(f"x{number}", b"data", **({} if control is None else {"CacheControl": control}))
        await proxy.get(f"/x{number}")
    proxy.clock.advance(400)

    async def fail(_: Seen) -> bytes | None:
        if failure == "cut":
            raise Cut
        return canned(503, "SlowDown")

    if failure == "refused":
        await proxy.relay.stop()
    else:
        proxy.relay.on_request = fail
    responses = await asyncio.gather(*(proxy.get(f"/x{number}") for number in range(len(STALE_IF_ERROR))))
    for response, (control, may_be_stale) in zip(responses, STALE_IF_ERROR, strict=True):
        if may_be_stale:
            assert (response.status, response.body, response.headers["Age"]) == (200, b"data", "400"), control
            # By then the breaker may have opened, and the origin gets no request.
            assert response.cache_status in (
                'hit; ttl=-100; detail="outage"',
                'fwd=stale; ttl=-100; detail="stale-if-error"',
                'fwd=stale; fwd-status=503; ttl=-100; detail="stale-if-error"',
            )
        else:
            assert response.status in (502, 503), control


async def test_stale_if_error_ends(start: StartProxy, s3: S3) -> None:
    """Past `stale_if_error` an origin that is down is an error."""
    proxy = await start(freshness={"stale_if_error": "100s", "stale_while_revalidate": 0})
    s3.put("x", b"data")
    await proxy.get("/x")
    await proxy.relay.stop()
    proxy.clock.advance(399)
    assert (await proxy.get("/x")).status == 200
    proxy.clock.advance(1)
    assert (await proxy.get("/x")).status in (502, 503)


async def test_fresh_hits_need_no_origin(proxy: Proxy, s3: S3) -> None:
    """Without the origin fresh objects are still served, also for ranges and conditions (I31)."""
    body = pattern(3 * BLOCK)
    etag = s3.put("x", body)
    await proxy.get("/x")
    await proxy.relay.stop()
    assert (await proxy.get("/x")).body == body
    assert (await proxy.get("/x", Range="bytes=5-9")).body == body[5:10]
    assert (await proxy.get("/x", If_None_Match=etag)).status == 304
    assert (await proxy.request("HEAD", "/x")).status == 200


async def test_clients_cannot_force_a_refetch(proxy: Proxy, s3: S3) -> None:
    """A client's `no-cache` is ignored unless the configuration allows it."""
    s3.put("x", b"data")
    await proxy.get("/x")
    response = await proxy.get("/x", Cache_Control="no-cache, max-age=0", Pragma="no-cache")
    assert response.cache_status == "hit; ttl=300"


async def test_client_no_cache_where_it_is_honoured(start: StartProxy, s3: S3) -> None:
    """With `honor_client_no_cache` a client's `no-cache` revalidates (RFC 9111 section 5.2.1.4)."""
    proxy = await start(freshness={"honor_client_no_cache": True})
    s3.put("x", b"old")
    await proxy.get("/x")
    s3.put("x", b"new")
    assert (await proxy.get("/x")).body == b"old"
    assert (await proxy.get("/x", Cache_Control="no-cache")).body == b"new"


@pytest.mark.parametrize(
    ("targeted", "control", "ttl"),
    [
        ({"cdn-cache-control": "max-age=77"}, "no-store", 77),  # RFC 9213 section 2.2
        ({"cdn-cache-control": "max-age=77"}, "max-age=5", 77),
        ({"cdn-cache-control": "max-age=, ?"}, "max-age=5", 5),  # section 2.1: no structured field, ignored
        ({"surrogate-control": "max-age=66+10"}, "max-age=5", 66),
        ({"cdn-cache-control": "max-age=77", "surrogate-control": "max-age=66"}, "max-age=5", 77),
    ],
)
async def test_targeted_fields(proxy: Proxy, s3: S3, targeted: dict[str, str], control: str, ttl: int) -> None:
    """An object's headers for caches of this kind take precedence over those for all. Clients get both unchanged."""
    s3.put("x", b"data", CacheControl=control, Metadata=targeted)
    await proxy.get("/x")
    response = await proxy.get("/x")
    assert (response.cache_status, response.headers["Cache-Control"]) == (f"hit; ttl={ttl}", control)
    assert {name: response.headers[f"x-amz-meta-{name}"] for name in targeted} == targeted


async def test_targeted_no_store(proxy: Proxy, s3: S3) -> None:
    """`no-store` for this kind of cache is obeyed, however long others may store (RFC 9213 section 2.2)."""
    s3.put("x", b"data", CacheControl="max-age=300", Metadata={"cdn-cache-control": "no-store"})
    for _ in range(2):
        assert (await proxy.get("/x")).cache_status.startswith("fwd=miss")
    assert proxy.figures["entries"] == 0
