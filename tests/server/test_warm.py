"""Warm jobs over real sockets: what they fill, what they leave alone, and how they end."""

import asyncio
import json
from functools import partial
from typing import Any

import pytest
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern, until
from relay import Seen, canned
from rows import each_row
from wire import Response

from bucketfront.admin.warming import DEFAULT_PARALLEL
from bucketfront.http.path_rules import Rules, Ruling
from bucketfront.keys import ObjectKey
from bucketfront.s3.listing import MAX_KEYS, Listed, ListPage, list_objects
from bucketfront.warm import filler
from bucketfront.warm.job import WARM_CLIENT, JobState
from bucketfront.warm.registry import MAX_ENDED, MAX_RUNNING, JobRegistry, Wish

BODY = pattern(3 * BLOCK + 5)
FOREVER = "max-age=99999"


async def post(proxy: Proxy, **wanted: object) -> Response:
    return await proxy.admin("POST", "/api/v1/warm", json.dumps(wanted).encode())


async def warmed(proxy: Proxy, **wanted: object) -> dict[str, Any]:
    """Run a job, and return its report at its end."""
    response = await post(proxy, **wanted)
    assert response.status == 202, response.body
    job = proxy.app.warm_jobs.find(response.json()["id"])
    await until(lambda: job.state is not JobState.RUNNING)
    report = (await proxy.admin("GET", response.headers["Location"])).json()
    assert report["state"] == job.state.value
    return dict(report)


async def is_hit(proxy: Proxy, target: str, **headers: str) -> bool:
    return (await proxy.get(target, **headers)).cache_status.startswith("hit")


async def test_paths(proxy: Proxy, s3: S3) -> None:
    """A job fills the named objects whole, before any client has requested them."""
    s3.put("a b", BODY)
    s3.put("empty", b"")
    report = await warmed(proxy, paths=["/a%20b", "/empty"])
    assert (report["state"], report["filled"], report["failed"]) == ("done", 1, 0)
    assert (report["objects_known"], report["objects_done"]) == (2, 2)
    assert report["bytes_filled"] == report["bytes_done"] == report["bytes_known"] == len(BODY)
    sent = len(proxy.relay.seen)
    response = await proxy.get("/a%20b")
    assert response.body == BODY
    assert response.cache_status.startswith("hit")
    assert len(proxy.relay.seen) == sent


async def test_a_range(proxy: Proxy, s3: S3) -> None:
    """Only the blocks of a range are fetched."""
    s3.put("x", pattern(8 * BLOCK))
    report = await warmed(proxy, objects=[{"path": "/x", "range": f"bytes={5 * BLOCK}-{5 * BLOCK + 9}"}])
    assert report["bytes_filled"] <= BLOCK
    assert await is_hit(proxy, "/x", Range=f"bytes={5 * BLOCK}-{5 * BLOCK + 99}")
    assert not await is_hit(proxy, "/x", Range=f"bytes={2 * BLOCK}-{2 * BLOCK}")


async def test_a_prefix(proxy: Proxy, s3: S3) -> None:
    """All objects below a path are filled, page by page of S3's list, also with odd names; others are not."""
    names = [f"p/{number:04}" for number in range(MAX_KEYS + 1)] + ["p/ü ?%2F+", "p/folder/"]
    for name in names:
        s3.put(name, b"" if name.endswith("/") else b"data", CacheControl=FOREVER)
    s3.put("q", b"data")
    report = await warmed(proxy, prefix="/p/", parallel=16)
    assert (report["state"], report["filled"]) == ("done", len(names) - 1)
    assert report["bytes_known"] == 4 * (len(names) - 1)
    lists = [seen for seen in proxy.relay.seen if "list-type=2" in seen.target]
    assert len(lists) == 2
    assert await is_hit(proxy, "/p/%C3%BC%20%3F%252F+")
    assert not await is_hit(proxy, "/q")


async def test_a_prefix_of_several_mounts(start: StartProxy, s3: S3) -> None:
    """A prefix has the keys of each mount below it, under the paths that clients see."""
    mounts = [
        {"path": "/", "bucket": s3.bucket, "prefix": "site/"},
        {"path": "/v/", "bucket": s3.bucket, "prefix": "media/"},
    ]
    proxy = await start(mounts=mounts, uploads=None)
    s3.put("site/index.html", b"1")
    s3.put("site/v/hidden", b"2")  # the other mount has its path
    s3.put("media/a", b"3")
    report = await warmed(proxy, prefix="/")
    assert (report["filled"], report["objects_known"]) == (2, 2)
    assert await is_hit(proxy, "/v/a")
    assert not await is_hit(proxy, "/v/hidden")


async def test_a_repeated_job(proxy: Proxy, s3: S3) -> None:
    """What is fresh and complete is skipped without a request, and the rest is filled: the job goes on."""
    s3.put("whole", BODY, CacheControl=FOREVER)
    s3.put("part", pattern(8 * BLOCK), CacheControl=FOREVER)
    s3.put("new", BODY, CacheControl=FOREVER)
    await proxy.get("/whole")
    await proxy.get("/part", Range="bytes=0-9")
    await proxy.settled()
    hits, sent = proxy.figures["hits"], len(proxy.relay.seen)
    report = await warmed(proxy, paths=["/whole", "/part", "/new"])
    assert (report["fresh"], report["filled"]) == (1, 2)
    assert not any("/whole" in seen.target for seen in proxy.relay.seen[sent:])
    assert await is_hit(proxy, "/part")
    sent = len(proxy.relay.seen)
    report = await warmed(proxy, paths=["/whole", "/part", "/new"])
    assert (report["fresh"], report["filled"], report["bytes_filled"]) == (3, 0, 0)
    assert len(proxy.relay.seen) == sent
    assert proxy.figures["hits"] - hits <= 2


async def test_a_stale_object(proxy: Proxy, s3: S3) -> None:
    """A stale object is revalidated, and a new version is filled whole."""
    s3.put("same", BODY, CacheControl="max-age=10, stale-while-revalidate=999")
    s3.put("other", BODY, CacheControl="max-age=10, stale-while-revalidate=999")
    await warmed(proxy, paths=["/same", "/other"])
    s3.put("other", BODY[::-1], CacheControl=FOREVER)
    proxy.clock.advance(20)
    report = await warmed(proxy, paths=["/same", "/other"])
    assert (report["fresh"], report["filled"], report["failed"]) == (1, 1, 0)
    response = await proxy.get("/other")
    assert response.body == BODY[::-1]
    assert response.cache_status.startswith("hit")


async def test_what_is_not_stored(start: StartProxy, s3: S3) -> None:
    """A rule with `cache: false` costs no request, and an object that forbids storage is not fetched on."""
    proxy = await start(freshness={"rules": [{"match": "*.private", "cache": False}]})
    s3.put("a.private", BODY)
    s3.put("b", pattern(20 * PART), CacheControl="no-store")
    report = await warmed(proxy, paths=["/a.private", "/b"])
    assert (report["state"], report["not_stored"], report["filled"]) == ("done", 2, 0)
    assert not any("private" in seen.target for seen in proxy.relay.seen)
    assert sum(seen.method == "GET" for seen in proxy.relay.seen) == 1


async def test_failures(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that fails is named with the reason, up to a bound, and the others are filled (I19)."""
    monkeypatch.setattr(filler, "PAUSE_S", 0.0)

    async def refuse(seen: Seen) -> bytes | None:
        return canned(403, "AccessDenied") if "/denied" in seen.target else None

    proxy.relay.on_request = refuse
    s3.put("fine", BODY)
    report = await warmed(proxy, paths=["/denied", "/absent", "/fine"])
    assert (report["state"], report["failed"], report["filled"]) == ("done", 2, 1)
    reasons = {failure["path"]: failure["reason"] for failure in report["failures"]}
    assert "AccessDenied" in reasons["/denied"]
    assert reasons["/absent"] == "there is no such object"
    report = await warmed(proxy, paths=[f"/absent/{number}" for number in range(50)])
    assert report["failed"] == 50
    assert len(report["failures"]) == 20


async def test_a_list_that_fails(proxy: Proxy, s3: S3) -> None:
    """A job whose list S3 denies says so, and does not count as done."""

    async def refuse(seen: Seen) -> bytes | None:
        return canned(403, "AccessDenied") if "list-type" in seen.target else None

    proxy.relay.on_request = refuse
    report = await warmed(proxy, prefix="/")
    assert report["state"] == "failed"
    assert "AccessDenied" in report["message"]


@each_row(
    ("wanted", "reason"),
    [
        ({}, "name paths"),
        ({"paths": ["/"]}, "names a mount"),
        ({"paths": ["/%zz"]}, "percent-escape"),
        ({"paths": ["/x"], "rate": "fast"}, "must be a size"),
        ({"paths": ["/x"], "rate": 0}, "greater than 0"),
        ({"paths": ["/x"], "parallel": 1000}, "less than or equal to 32"),
        ({"paths": ["/x"] * 10_001}, "at most 10000 items"),
        ({"all": True}, "not permitted"),
    ],
)
async def test_a_wrong_request(proxy: Proxy, wanted: dict[str, object], reason: str) -> None:
    """A request that cannot be fulfilled gets a 400 that names the reason, and no job begins."""
    response = await post(proxy, **wanted)
    assert response.status == 400
    assert reason in response.json()["error"]
    assert (await proxy.admin("GET", "/api/v1/jobs")).json() == {"jobs": []}


class Gate:
    """Holds the requests for bodies at the origin until it opens."""

    def __init__(self, proxy: Proxy) -> None:
        self.waiting = 0
        self.is_open = asyncio.Event()
        proxy.relay.on_request = self._wait

    async def _wait(self, seen: Seen) -> bytes | None:
        if seen.method == "GET" and "/slow" in seen.target:
            self.waiting += 1
            await self.is_open.wait()
        return None


async def test_a_cancelled_job(proxy: Proxy, s3: S3) -> None:
    """Once a cancel has answered, nothing of the job goes on: no request is sent for it any more (I12)."""
    for number in range(30):
        s3.put(f"slow/{number}", BODY)
    gate = Gate(proxy)
    job_id = (await post(proxy, prefix="/slow/", parallel=3)).json()["id"]
    await until(lambda: gate.waiting == 3)
    response = await proxy.admin("POST", f"/api/v1/jobs/{job_id}/cancel")
    assert (response.status, response.json()["state"]) == (200, "cancelled")
    gate.is_open.set()
    await proxy.settled()
    assert gate.waiting == 3
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not {name for name in names if name.startswith(("warm ", "job "))}
    again = (await proxy.admin("POST", f"/api/v1/jobs/{job_id}/cancel")).json()
    assert again["state"] == "cancelled"


async def test_a_job_outlives_its_client(proxy: Proxy, s3: S3) -> None:
    """A client of the API that leaves does not end the job, and the stop of the proxy does (I12)."""
    s3.put("slow/1", BODY)
    gate = Gate(proxy)
    job_id = (await post(proxy, paths=["/slow/1"])).json()["id"]
    await until(lambda: gate.waiting == 1)
    job = proxy.app.warm_jobs.find(job_id)
    assert job.state.value == "running"
    await proxy.stop()
    assert job.state.value == "cancelled"


async def test_unknown_jobs(proxy: Proxy) -> None:
    """A job of an earlier process is unknown, and the error says how to go on."""
    for method, path in (("GET", "/api/v1/jobs/01j"), ("POST", "/api/v1/jobs/01j/cancel")):
        response = await proxy.admin(method, path)
        assert response.status == 404
        assert "Run the command again" in response.json()["error"]
    for path in ("/api/v1/jobs/", "/api/v1/jobs/a/b", "/api/v1/jobs//cancel"):
        assert (await proxy.admin("GET", path)).json()["error"] == "there is nothing at this path"


async def test_jobs_are_bounded(proxy: Proxy, s3: S3) -> None:
    """So many jobs run at once and no more, and so many that have ended are remembered (I19)."""
    s3.put("slow/1", BODY)
    s3.put("x", b"data")
    for _ in range(MAX_ENDED + 3):
        await warmed(proxy, paths=["/x"])
    gate = Gate(proxy)
    for _ in range(MAX_RUNNING):
        assert (await post(proxy, paths=["/slow/1"])).status == 202
    refused = await post(proxy, paths=["/x"])
    assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
    assert len((await proxy.admin("GET", "/api/v1/jobs")).json()["jobs"]) <= MAX_ENDED + MAX_RUNNING
    gate.is_open.set()


async def test_a_fetch_is_shared(proxy: Proxy, s3: S3) -> None:
    """A job and a client that want the same object share one request (I10)."""
    s3.put("slow/1", BODY)
    gate = Gate(proxy)
    await post(proxy, paths=["/slow/1"])
    await until(lambda: gate.waiting == 1)
    client = asyncio.create_task(proxy.get("/slow/1"))
    await until(lambda: proxy.figures["lookups_joined"] == 1)
    gate.is_open.set()
    assert (await client).body == BODY
    await proxy.settled()
    fetched = sum(seen.method == "GET" and "/slow" in seen.target for seen in proxy.relay.seen)
    assert fetched == -(-len(BODY) // PART)


async def test_clients_come_first(start: StartProxy, s3: S3) -> None:
    """A job with as many fetches as connections has its share of them, and a client gets one at once (I34)."""
    proxy = await start(origin={"max_connections": 4}, server={"client_share": "25%"})
    for number in range(40):
        s3.put(f"slow/{number}", BODY)
    s3.put("client", BODY)
    gate = Gate(proxy)
    await post(proxy, prefix="/slow/", parallel=32)
    await until(lambda: proxy.app.origin.slots.wanted.of(WARM_CLIENT) == 32)
    assert (await proxy.get("/client", Range="bytes=0-9")).status == 206
    assert gate.waiting < 4
    gate.is_open.set()


async def test_the_hot_set_stays(start: StartProxy, s3: S3) -> None:
    """A job of more than the cache holds ends as full, and replaces a tenth at most. The hot set stays (I34)."""
    proxy = await start(cache={"max_size": "4MiB", "idle_timeout": "1d"})
    body = pattern(BLOCK)
    for number in range(6):
        s3.put(f"hot/{number}", body, CacheControl=FOREVER)
    for number in range(120):
        s3.put(f"cold/{number:03}", body, CacheControl=FOREVER)
    for _ in range(3):
        for number in range(6):
            await proxy.get(f"/hot/{number}")
            await proxy.settled()
    report = await warmed(proxy, prefix="/cold/")
    assert report["state"] == "full"
    assert "cache.max_size" in report["message"]
    assert 40 < report["filled"] < 70
    assert proxy.figures["evicted"] == 0
    again = await warmed(proxy, prefix="/cold/")
    assert (again["state"], again["fresh"]) == ("full", report["filled"])
    assert again["filled"] <= DEFAULT_PARALLEL  # bytes on their way count twice for a moment
    assert proxy.figures["evicted"] == 0
    named = await warmed(proxy, paths=[f"/cold/{number:03}" for number in range(80, 120)])
    assert named["state"] == "full"
    assert 0 < named["filled"] * BLOCK <= (4 << 20) // 10
    assert proxy.figures["evicted"] <= named["filled"] + 1
    assert all([await is_hit(proxy, f"/hot/{number}") for number in range(6)])


async def test_stale_objects_in_a_full_cache(start: StartProxy, s3: S3) -> None:
    """A job that only revalidates what is there needs no room, however full the cache is."""
    proxy = await start(cache={"max_size": "2MiB", "idle_timeout": "1d"})
    for number in range(60):
        s3.put(f"x/{number:03}", pattern(BLOCK), CacheControl="max-age=10")
    report = await warmed(proxy, prefix="/x/", parallel=1)
    assert report["state"] == "full"
    proxy.clock.advance(20)
    again = await warmed(proxy, prefix="/x/", parallel=1)
    assert (again["state"], again["fresh"]) == ("full", report["filled"])


async def test_an_object_larger_than_the_cache(start: StartProxy, s3: S3) -> None:
    """An object that does not fit is not stored, and the others are filled."""
    proxy = await start(cache={"max_size": "1MiB"})
    s3.put("large", bytes(2 << 20))
    s3.put("small", BODY)
    report = await warmed(proxy, paths=["/large", "/small"], parallel=1)
    assert (report["state"], report["not_stored"], report["filled"]) == ("done", 1, 1)


async def test_a_rate(proxy: Proxy, s3: S3) -> None:
    """A job takes as long as its rate requires for its bytes, whatever its number of workers is, and no longer."""
    for number in range(4):
        s3.put(f"r/{number}", pattern(3 * PART))
    now, asleep = 1000.0, 0

    async def sleep(seconds: float) -> None:
        nonlocal now, asleep
        until_then = now + seconds
        asleep += 1
        await asyncio.sleep(0)
        now = max(now, until_then)

    jobs = JobRegistry(
        proxy.app.cache, partial(list_objects, proxy.app.origin), proxy.app.warm_jobs.places, Rules(()), part=PART,
        clock=lambda: now, sleep=sleep,
    )  # fmt: skip
    job = jobs.start(Wish(below=tuple(jobs.places.below("/r/")), rate=PART // 2, parallel=3))
    await until(lambda: job.state is not JobState.RUNNING)
    assert (job.state.value, job.progress.filled) == ("done", 4)
    assert now == 1000.0 + 12 * PART / (PART // 2)
    assert job.seconds_left is None
    assert job.rate == PART // 2
    await jobs.close()


async def test_an_outage(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job ends if the origin fails for many objects in a row. It does not run through its list."""
    monkeypatch.setattr(filler, "PAUSE_S", 0.0)
    monkeypatch.setattr(filler, "MAX_PAUSE_S", 0.0)

    async def refuse(_: Seen) -> bytes | None:
        return canned(500, "InternalError")

    proxy.relay.on_request = refuse
    report = await warmed(proxy, paths=[f"/{number}" for number in range(500)])
    assert report["state"] == "failed"
    assert "in a row" in report["message"]
    assert report["objects_done"] < 50


async def test_a_failing_disk(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk fails, a job fetches nothing from the origin in vain (I16)."""
    monkeypatch.setattr(type(proxy.app.cache_assembly.store), "is_usable", False)
    report = await warmed(proxy, paths=[f"/{number}" for number in range(500)])
    assert report["state"] == "failed"
    assert "disk" in report["message"]
    assert proxy.relay.seen == []


async def test_a_list_of_any_length(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a job does not depend on the number of listed objects: a page follows when one is used up (I19)."""
    pages, longest = 0, 0

    async def lists(bucket: str, prefix: str, token: str | None) -> ListPage:
        nonlocal pages, longest
        pages += 1
        longest = max(longest, len(job._waiting))
        page = int(token or 0)
        names = (f"{prefix}{page}/{number}.private" for number in range(1000))
        return ListPage(
            tuple(Listed(ObjectKey(bucket, name), 1) for name in names), str(page + 1) if page < 19 else None
        )

    rules = Rules((("*.private", Ruling(cache=False)),))
    jobs = JobRegistry(proxy.app.cache, lists, proxy.app.warm_jobs.places, rules, part=PART)
    job = jobs.start(Wish(below=tuple(jobs.places.below("/"))))
    await until(lambda: job.state is not JobState.RUNNING)
    assert (job.state.value, job.progress.not_stored, pages, longest) == ("done", 20_000, 20, 0)
    await jobs.close()
