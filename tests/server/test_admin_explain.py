"""`GET /api/v1/explain`: what is known of a path and what the next GET gets, which then is what it gets."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from rows import each_row

from bucketfront.config.quantities import rounded_duration
from bucketfront.server.telemetry.access_log import AccessRecord, FinishedRequest
from bucketfront.server.telemetry.last_responses import LastResponses
from bucketfront.server.telemetry.logged_fields import NOTHING


async def explain(proxy: Proxy, path: str, **further: str) -> dict[str, Any]:
    query = "".join(f"&{name}={quote(value, safe='')}" for name, value in further.items())
    response = await proxy.admin("GET", f"/api/v1/explain?path={quote(path, safe='')}{query}")
    assert response.status == 200, response.body
    found: dict[str, Any] = response.json()
    return found


async def decided(proxy: Proxy, path: str) -> dict[str, Any]:
    """Return the candidate that decides. What `next` says must agree with it."""
    found = await explain(proxy, path)
    (candidate,) = (each for each in found["candidates"] if each["decides"])
    assert found["next"] == {"decision": candidate["next"], "why": candidate["why"]}
    return dict(candidate)


async def cache_of(proxy: Proxy, path: str) -> str:
    return (await proxy.get(path)).headers["Cache-Status"]


async def test_a_cached_object(proxy: Proxy, s3: S3) -> None:
    """An entry is shown with its mount, ETag, size, times, lifetime and blocks."""
    data = pattern(3 * BLOCK + 5)
    etag = s3.put("a b", data, ContentType="video/mp4")
    await proxy.get("/a%20b")
    await proxy.settled()
    proxy.clock.advance(100)
    found = await explain(proxy, "/a%20b")
    assert found["mounts"] == [{"path": "/", "bucket": s3.bucket, "prefix": "", "read": ["public"], "public": True}]
    assert found["next"] == {"decision": "hit", "why": "it is fresh for another 3 min 20 s"}
    (candidate,) = found["candidates"]
    entry = candidate["entry"]
    assert (entry["etag"], entry["size"], entry["type"], entry["paths"]) == (etag, len(data), "video/mp4", ["/a%20b"])
    assert entry["stored_at"] == entry["validated_at"] <= entry["accessed_at"]
    assert (candidate["age"], entry["ttl"]) == (100, 200)
    assert candidate["blocks"] == {
        "block_size": BLOCK, "count": 4, "runs": [[0, 4]], "present": len(data), "percent": 100.0, "unverified": 0,
    }  # fmt: skip
    assert (candidate["state"], candidate["pins"], candidate["fill"], candidate["removal"]) == (
        "published", 0, None, None,
    )  # fmt: skip
    assert "hit" in await cache_of(proxy, "/a%20b")


async def test_it_changes_nothing(start: StartProxy, s3: S3) -> None:
    """It sends no request, counts no use, opens no file and loads no entry, whether the key is cached or not."""
    proxy = await start()
    s3.put("x", pattern(BLOCK))
    await proxy.get("/x")
    await proxy.settled()
    table = proxy.app.cache_assembly.entries
    table.hot_limit = 0
    await proxy.step()
    assert table.hot(next(iter(_keys(proxy)))) is None
    before, seen = proxy.figures, len(proxy.relay.seen)
    proxy.clock.advance(10)
    for path in ("/x", "/y"):
        await explain(proxy, path)
    assert (await explain(proxy, "/x"))["candidates"][0]["uses"] is None
    assert (proxy.figures, len(proxy.relay.seen)) == (before, seen)
    assert len(list(table.hot_entries())) == 0
    proxy.clock.advance(3600)  # the uses before count, and no later ones
    await proxy.step()
    assert proxy.figures["entries"] == 0


def _keys(proxy: Proxy) -> list[Any]:
    return [row.key for row in proxy.app.cache_assembly.index.rows_after(0, 9)]


async def test_never_requested(proxy: Proxy) -> None:
    """A key of which nothing is known is a miss, and is said to be unknown."""
    candidate = await decided(proxy, "/never")
    assert (candidate["next"], candidate["removal"], candidate["entry"]) == ("miss", None, None)
    assert "no request" in candidate["why"]


async def test_each_decision_is_what_the_next_request_gets(proxy: Proxy, s3: S3) -> None:
    """Fresh, stale within the window, stale beyond it, absent and unknown: the next GET is as foretold."""
    s3.put("x", pattern(BLOCK), CacheControl="max-age=100, stale-while-revalidate=50")
    assert (await decided(proxy, "/x"))["next"] == "miss"
    assert "fwd=miss" in await cache_of(proxy, "/x")
    assert (await decided(proxy, "/x"))["next"] == "hit"
    proxy.clock.advance(120)
    candidate = await decided(proxy, "/x")
    assert (candidate["next"], candidate["why"]) == (
        "stale", "it is stale since 20 s, and is revalidated in the background",
    )  # fmt: skip
    assert "stale-while-revalidate" in await cache_of(proxy, "/x")
    await proxy.settled()
    await until(lambda: not proxy.app.cache_assembly.lookups.tasks)
    proxy.clock.advance(160)
    assert (await decided(proxy, "/x"))["next"] == "revalidate"
    assert "fwd=stale" in await cache_of(proxy, "/x")
    assert (await proxy.get("/gone")).status == 404
    found = await explain(proxy, "/gone")
    assert found["next"]["decision"] == "absent"
    assert found["candidates"][0]["absent_for"] == 10
    assert "hit" in await cache_of(proxy, "/gone")


@pytest.mark.one_process("compares the time of a hit with the clock of the test")
async def test_the_last_response(proxy: Proxy, s3: S3) -> None:
    """The last response to a path is shown, by the fast path or not, and an explanation is none."""
    s3.put("x", b"data")
    assert (await explain(proxy, "/x"))["last"] is None
    await proxy.get("/x?token=secret")
    await proxy.settled()
    for status in ("miss", "hit"):
        assert proxy.app.telemetry.drain(timeout_s=10)
        response = await proxy.admin("GET", "/api/v1/explain?path=/x")
        assert b"secret" not in response.body
        last = response.json()["last"]
        assert (last["method"], last["status"], last["fault"]) == ("GET", 200, None)
        assert last["at"] == proxy.clock.now
        assert status in last["cache"]
        proxy.clock.advance(5)
        await proxy.get("/x")
    assert (await proxy.get("/absent")).status == 404
    assert proxy.app.telemetry.drain(timeout_s=10)
    assert (await explain(proxy, "/absent"))["last"]["status"] == 404


@given(paths=st.lists(st.integers(0, 20)), batch=st.integers(1, 5))
def test_the_last_responses_are_bounded(paths: list[int], batch: int) -> None:
    """At least half of the limit is remembered, never more than the limit, and each with its last response (I19)."""
    last = LastResponses(limit=8)
    records = [AccessRecord("GET", f"/{path}", number, "hit", "hit") for number, path in enumerate(paths)]
    requests: list[FinishedRequest] = [(record, 0, "", float(record.status), 0.0, NOTHING) for record in records]
    for at in range(0, len(requests), batch):
        last.add(requests[at : at + batch])
        assert len(last) <= 8
    newest = {path: number for number, path in enumerate(paths)}
    for path in list(dict.fromkeys(reversed(paths)))[:4]:
        found = last.find(f"/{path}")
        assert found is not None
        assert found.status == newest[path]


async def test_some_blocks(proxy: Proxy, s3: S3) -> None:
    """An entry with some of its blocks is partial, with their runs."""
    s3.put("x", pattern(9 * BLOCK))
    await proxy.get("/x", Range=f"bytes={4 * BLOCK}-{5 * BLOCK - 1}")
    await proxy.settled()
    candidate = await decided(proxy, "/x")
    assert candidate["next"] == "partial"
    assert candidate["blocks"]["runs"] == [[4, 5]]
    assert candidate["blocks"]["percent"] == 11.1
    assert "fwd=partial" in await cache_of(proxy, "/x")


async def test_who_fills_it(proxy: Proxy, s3: S3) -> None:
    """A running fill is shown with its parts and readers."""
    gate = asyncio.Event()

    async def hold(_: object) -> None:
        await gate.wait()

    s3.put("x", pattern(4 * BLOCK))
    proxy.relay.on_body = hold
    reading = asyncio.create_task(proxy.get("/x"))
    try:
        await until(lambda: any(fill.readers for fill in proxy.app.cache.fills()))
        candidate = await decided(proxy, "/x")
    finally:
        gate.set()
        await reading
    assert candidate["fill"]["reader_count"] == 1
    assert candidate["fill"]["parts"]
    assert candidate["pins"] >= 1


@pytest.mark.parametrize(
    ("control", "key", "lifetime"),
    [
        ("max-age=7", "a.bin", {"ttl": 7, "basis": "max-age", "header": "Cache-Control", "rule": None}),
        ("s-maxage=8", "a.bin", {"ttl": 8, "basis": "s-maxage", "header": "Cache-Control", "rule": None}),
        (None, "a.bin", {"ttl": 300, "basis": "configured", "rule": None, "builtin": False}),
        (None, "a.m3u8", {"ttl": 2, "basis": "configured", "rule": "*.m3u8", "builtin": True}),
        (None, "a.txt", {"ttl": 60, "basis": "configured", "rule": "*.txt", "builtin": False}),
    ],
)
async def test_the_lifetime_in_force(
    start: StartProxy, s3: S3, control: str | None, key: str, lifetime: dict[str, Any]
) -> None:
    """It is named what decides the lifetime: the object's own header, a rule, or the default."""
    proxy = await start(freshness={"rules": [{"match": "*.txt", "ttl": "60s"}]})
    s3.put(key, b"data", **({} if control is None else {"CacheControl": control}))
    if control is None:  # the rule is known before the object is
        before = (await decided(proxy, f"/{key}"))["lifetime"]
        assert {name: before[name] for name in lifetime} == lifetime
    await proxy.get(f"/{key}")
    found = (await decided(proxy, f"/{key}"))["lifetime"]
    assert {name: found[name] for name in lifetime} == lifetime


async def test_why_it_is_not_cached(start: StartProxy, s3: S3) -> None:
    """A purge, no-store, a rule and idleness are told apart, each with its time."""
    proxy = await start(freshness={"rules": [{"match": "*.raw", "cache": False}]})
    s3.put("x", b"data")
    s3.put("secret", b"data", CacheControl="no-store")
    s3.put("a.raw", b"data")
    for path in ("/x", "/secret", "/a.raw"):
        await proxy.get(path)
    await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')
    proxy.clock.advance(90)
    purged = await decided(proxy, "/x")
    assert (purged["next"], purged["removal"]["reason"], purged["removal"]["ago"]) == ("miss", "purged", 90)
    assert purged["why"] == "it is not in the cache: purged 1 min 30 s ago, 0 s old and unused for 0 s"
    secret = await decided(proxy, "/secret")
    assert (secret["next"], secret["removal"]["reason"]) == ("miss", "no-store")
    raw = await decided(proxy, "/a.raw")
    assert (raw["next"], raw["removal"]["reason"], raw["lifetime"]["basis"]) == ("bypass", "rule", "rule")
    assert raw["lifetime"]["rule"] == "*.raw"
    await proxy.get("/x")
    proxy.clock.advance(4000)
    await proxy.step()
    assert (await decided(proxy, "/x"))["removal"]["reason"] == "idle"


async def test_a_soft_purge(proxy: Proxy, s3: S3) -> None:
    """After a soft purge the entry is there and is revalidated."""
    s3.put("x", b"data")
    await proxy.get("/x")
    await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"], "soft": true}')
    candidate = await decided(proxy, "/x")
    assert (candidate["next"], candidate["why"]) == ("revalidate", "it was marked stale")
    assert candidate["entry"]["validated_at"] is None
    assert candidate["lifetime"]["basis"] == "unknown"


async def test_the_candidates_of_a_site(start: StartProxy, s3: S3) -> None:
    """All objects that may serve a path are shown, and the first that is not known to be absent decides."""
    proxy = await start(
        mounts=[{
            "path": "/", "bucket": s3.bucket, "precompressed": ["gzip"],
            "site": {"try_extensions": [".html"], "fallback": "app.html"},
        }]
    )  # fmt: skip
    s3.put("about.html", b"page", ContentType="text/html")
    assert (await proxy.get("/about")).body == b"page"
    found = await explain(proxy, "/about")
    keys = [(each["key"], each["next"], each["decides"]) for each in found["candidates"]]
    assert keys == [
        ("about", "absent", False),
        ("about.html", "hit", True),
        ("about/index.html", "miss", False),
        ("app.html", "miss", False),
    ]
    assert [each["fallback"] for each in found["candidates"]] == [False, False, False, True]
    with_siblings = await explain(proxy, "/about", accept_encoding="gzip")
    assert "about.html.gz" in [each["key"] for each in with_siblings["candidates"]]


async def test_what_is_refused_before_the_cache(start: StartProxy, s3: S3) -> None:
    """A mount without GET, one with access rules, a mount itself and a missing slash are told apart."""
    proxy = await start(
        mounts=[
            {"path": "/", "bucket": s3.bucket},
            {"path": "/in/", "bucket": s3.bucket, "prefix": "in/", "methods": ["PUT"]},
            {"path": "/team/", "bucket": s3.bucket, "prefix": "team/", "read": ["team"]},
        ],
        access={"team": {"bearer": {"tokens": ["0123456789abcdef"]}}},
    )
    assert (await explain(proxy, "/in/x"))["next"]["decision"] == "refused"
    assert (await explain(proxy, "/"))["next"] == {
        "decision": "refused", "why": "the path names a mount, not an object",
    }  # fmt: skip
    team = await explain(proxy, "/team/x")
    assert team["mounts"] == [
        {"path": "/team/", "bucket": s3.bucket, "prefix": "team/", "read": ["team"], "public": False}
    ]


async def test_an_inner_mount_decides_as_well(start: StartProxy, s3: S3) -> None:
    """By another path to the same key, the rules of the inner mount are shown too."""
    proxy = await start(
        mounts=[
            {"path": "/all/", "bucket": s3.bucket},
            {"path": "/team/", "bucket": s3.bucket, "prefix": "team/", "read": ["team"]},
        ],
        uploads=None,
        access={"team": {"bearer": {"tokens": ["0123456789abcdef"]}}},
    )
    found = await explain(proxy, "/all/team/x")
    assert [(mount["path"], mount["public"]) for mount in found["mounts"]] == [("/all/", True), ("/team/", False)]


@each_row("query", ["", "?path=", "?path=x", "?path=/%25zz", "?path=/a&path=/b", "?path=/a&x=1"])
async def test_a_wrong_query_is_refused(proxy: Proxy, query: str) -> None:
    """A missing, malformed or repeated path and unknown parameters get 400."""
    response = await proxy.admin("GET", f"/api/v1/explain{query}")
    assert response.status == 400
    assert response.json()["error"]


@each_row(
    ("seconds", "text"),
    [
        (0, "0 s"), (-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3661, "1 h 1 min"),
        (90_000, "1 d 1 h"), (86_401, "1 d"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    """A duration is shown in its two largest units."""
    assert rounded_duration(seconds) == text
