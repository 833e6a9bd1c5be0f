"""The admin listener: probes, metrics, statistics, purge (I27)."""

import asyncio
import gc
import json
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern
from relay import Seen, canned
from rows import each_row
from wire import connected, message

from bucketfront.admin import purges, request_body
from bucketfront.admin.purges import MAX_PATHS

JSON = {"Content-Type": "application/json"}
BLOCKS = pattern(3 * BLOCK)


async def purge(proxy: Proxy, **wanted: object) -> int:
    response = await proxy.admin("POST", "/api/v1/purge", json.dumps(wanted).encode())
    assert response.status == 200, response.body
    return int(response.json()["purged"])


async def test_probes(proxy: Proxy) -> None:
    """`/healthz` and `/readyz` respond with 200, also to HEAD, and send no request to the origin."""
    for path in ("/healthz", "/readyz"):
        assert (await proxy.admin("GET", path)).status == 200
        assert (await proxy.admin("HEAD", path)).status == 200
    assert proxy.relay.seen == []


async def test_apart_from_the_clients(proxy: Proxy) -> None:
    """The admin paths are not on the clients' listener, and no objects on the admin's (I27)."""
    assert proxy.app.admin_address != proxy.address
    assert (await proxy.request("GET", "/healthz")).status == 404
    assert (await proxy.admin("GET", "/x")).status == 404


async def test_metrics(proxy: Proxy, s3: S3) -> None:
    """`/metrics` is valid Prometheus text, and its counters count the events."""
    s3.put("x", BLOCKS)
    await proxy.get("/x")
    await proxy.settled()
    await proxy.get("/x")
    await proxy.get("/x", Range="bytes=0-9")
    await proxy.get("/absent")
    await proxy.request("PUT", "/y", body=b"data")
    await proxy.request("PATCH", "/y")
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    series = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    samples = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in series}

    def requests(method: str, status: str, cache: str) -> float:
        labels = {"cache": cache, "method": method, "status": status}.items()
        named = [sample for sample in series if sample.name == "bucketfront_requests_total"]
        return sum(sample.value for sample in named if labels <= sample.labels.items())

    assert requests("GET", "2xx", "miss") == 1
    assert requests("GET", "2xx", "hit") == 2
    assert requests("GET", "4xx", "miss") == 1
    assert requests("PUT", "2xx", "method") == 1
    assert requests("other", "4xx", "bypass") == 1  # a closed set (I28)
    sent = sum(sample.value for sample in series if sample.name == "bucketfront_sent_bytes_total")
    assert sent == 2 * len(BLOCKS) + 10
    assert samples["bucketfront_received_bytes_total",] == 4
    assert samples["bucketfront_uploads_cached_total",] == 1
    assert samples["bucketfront_cache_entries",] == 2  # what was put is one
    assert samples["bucketfront_cache_hits_total",] == 2
    assert samples["bucketfront_flights_ended_total", ("ending", "filled")] == 2
    assert "/x" not in text


async def test_metrics_of_uploads(proxy: Proxy, s3: S3) -> None:
    """`/metrics` has the parts that were sent again, the multipart uploads to abort, and the unfinished uploads."""
    busy = canned(503, "SlowDown")
    first_part = [busy]

    async def refuse(seen: Seen) -> bytes | None:
        if "partNumber=1" in seen.target and first_part:
            return first_part.pop()
        if seen.method == "POST" and "uploadId=" in seen.target:
            return canned(400, "InvalidRequest")
        return busy if seen.method == "DELETE" else None

    proxy.relay.on_request = refuse
    assert (await proxy.request("PUT", "/x", body=bytes(17 << 20))).status == 400
    head = {"Tus-Resumable": "1.0.0", "Upload-Length": "1000", "Content-Type": "application/offset+octet-stream"}
    assert (await proxy.request("POST", "/upload", head, b"12345")).status == 201
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    samples = {
        sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }
    assert samples["bucketfront_upload_parts_total"] == 3
    assert samples["bucketfront_upload_parts_retried_total"] == 1
    assert samples["bucketfront_uploads_to_abort"] == 1
    assert (samples["bucketfront_resumable_uploads"], samples["bucketfront_resumable_waiting_bytes"]) == (1, 5)
    assert samples["bucketfront_uploads_cached_total"] == 0


async def test_stats(proxy: Proxy, s3: S3) -> None:
    """`/api/v1/stats` has the cache's counters as JSON."""
    s3.put("x", BLOCKS)
    await proxy.get("/x")
    await proxy.settled()
    figures = (await proxy.admin("GET", "/api/v1/stats")).json()
    assert (figures["entries"], figures["misses"], figures["flights_running"]) == (1, 1, 0)
    assert len(BLOCKS) <= figures["bytes_used"] <= len(BLOCKS) + 3 * 4096
    assert figures["endings"]["filled"] == 2
    assert figures["disk_is_usable"] is True


async def test_purge_by_path(proxy: Proxy, s3: S3) -> None:
    """A purge of paths removes these objects, their remembered 404s and their files. It returns their number."""
    for key in ("a b", "c", "d"):
        s3.put(key, b"old")
        await proxy.get(f"/{key.replace(' ', '%20')}")
    await proxy.get("/absent")
    await proxy.settled()
    assert await purge(proxy, paths=["/a%20b", "/c", "/never", "/absent"]) == 2
    assert len(proxy.files) == 1
    for key in ("a b", "c", "d", "absent"):
        s3.put(key, b"new")
    assert (await proxy.get("/a%20b")).body == b"new"
    assert (await proxy.get("/c")).body == b"new"
    assert (await proxy.get("/absent")).body == b"new"
    assert (await proxy.get("/d")).body == b"old"
    assert await purge(proxy, paths=["/c"]) == 1
    assert await purge(proxy, paths=["/c"]) == 0  # it can be repeated


async def test_purge_by_prefix(proxy: Proxy, s3: S3) -> None:
    """A purge of a prefix removes all keys that begin with its bytes, in memory and on disk."""
    keys = ["v/a", "v/b/c", "v", "va", "w", "\U0010ffff"]
    for key in keys:
        s3.put(key, b"old")
    for path in ("/v/a", "/v/b/c", "/v", "/va", "/w"):
        await proxy.get(path)
    await proxy.settled()
    await proxy.step()
    assert await purge(proxy, prefix="/v/") == 2
    assert len(proxy.files) == 3
    assert await purge(proxy, prefix="/v") == 2
    assert await purge(proxy, prefix="/") == 1
    assert proxy.files == []
    assert proxy.figures["bytes_used"] == 0


async def test_soft_purge(proxy: Proxy, s3: S3) -> None:
    """A soft purge keeps the bytes and marks them stale, so that the next request revalidates."""
    for key in ("same", "changed"):
        s3.put(key, BLOCKS)
        await proxy.get(f"/{key}")
    await proxy.settled()
    s3.put("changed", b"new")
    proxy.relay.reset()
    assert await purge(proxy, paths=["/same", "/changed"], soft=True) == 2
    assert proxy.relay.seen == []
    same = await proxy.get("/same")
    assert (same.body, same.cache_status) == (BLOCKS, "fwd=stale; fwd-status=304")
    assert (await proxy.get("/changed")).body == b"new"
    assert proxy.relay.body_bytes == 3
    assert (await proxy.get("/same")).cache_status == "hit; ttl=300"


@pytest.mark.parametrize("soft", [False, True])
async def test_purge_survives_a_restart(start: StartProxy, s3: S3, soft: bool) -> None:
    """Purged entries do not come back after a restart, however soon that is (I27)."""
    proxy = await start()
    for key in ("x", "y"):
        s3.put(key, BLOCKS)
        await proxy.get(f"/{key}")
    await proxy.settled()
    await proxy.step()
    assert await purge(proxy, paths=["/x"], soft=soft) == 1
    await proxy.stop()
    proxy = await start()
    s3.put("x", b"new")
    assert (await proxy.get("/x")).body == b"new"
    assert (await proxy.get("/y")).cache_status == "hit; ttl=300"


@each_row(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"paths": []}',
        b'{"paths": "/x"}',
        b'{"paths": [""]}',
        b'{"paths": ["x"]}',
        b'{"paths": ["/%zz"]}',
        b'{"paths": ["/"]}',
        b'{"paths": [1]}',
        b'{"prefix": "/%ff"}',
        b'{"path": ["/x"]}',
        b'{"paths": ["/x"], "soft": "maybe"}',
        b"\xff",
    ],
)
async def test_bad_purge(proxy: Proxy, s3: S3, body: bytes) -> None:
    """A malformed purge gets a 400 with the reason, and removes nothing."""
    s3.put("x", b"data")
    await proxy.get("/x")
    response = await proxy.admin("POST", "/api/v1/purge", body)
    assert response.status == 400
    assert response.json()["error"]
    assert (await proxy.get("/x")).cache_status.startswith("hit")


async def test_wrong_method(proxy: Proxy) -> None:
    """A purge must be a POST."""
    assert (await proxy.admin("GET", "/api/v1/purge")).status == 405


async def test_token(start: StartProxy, s3: S3) -> None:
    """With a token, all paths except the probes require it as a bearer token (RFC 6750 section 2.1)."""
    proxy = await start(admin={"token": "open-sesame-0123456789"})
    s3.put("x", b"data")
    await proxy.get("/x")
    body = b'{"paths": ["/x"]}'
    for given in (
        None,
        "Bearer wrong",
        "Bearer open-sesame-01234567899",
        "Bearer open-sesame-012345678",
        "Basic open-sesame-0123456789",
        "Bearer ",
        "open-sesame-0123456789",
    ):
        wrong = {} if given is None else {"Authorization": given}
        for method, path in (("POST", "/api/v1/purge"), ("GET", "/api/v1/stats"), ("GET", "/metrics"), ("GET", "/z")):
            response = await proxy.admin(method, path, body if method == "POST" else None, wrong)
            assert (response.status, response.headers.get("WWW-Authenticate")) == (401, "Bearer"), path
    assert (await proxy.get("/x")).cache_status.startswith("hit")
    assert (await proxy.admin("GET", "/healthz")).status == 200
    assert (await proxy.admin("GET", "/readyz")).status == 200
    response = await proxy.admin("POST", "/api/v1/purge", body, {"Authorization": "Bearer open-sesame-0123456789"})
    assert response.json() == {"purged": 1}


async def test_a_request_that_never_comes_in(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of a purge has a timeout, after which the connection closes (I20)."""
    monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", 0.2)
    async with connected(proxy.app.admin_address) as client:
        await client.send(message("POST", "/api/v1/purge", {"Content-Length": "100", **JSON}) + b'{"paths"')
        assert (await client.response()).status == 408
        assert await client.rest() == b""


async def test_a_purge_that_takes_too_long(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gets a 504 after a timeout, and the purge goes on (I20, I27)."""
    monkeypatch.setattr(purges, "PURGE_TIMEOUT_S", 0.2)
    s3.put("x", BLOCKS)
    await proxy.get("/x")
    await proxy.settled()
    store = proxy.app.cache_assembly.store
    remove, gate = store.remove, asyncio.Event()

    async def slow(name: str) -> None:
        await gate.wait()
        await remove(name)

    monkeypatch.setattr(store, "remove", slow)
    response = await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')
    assert response.status == 504
    gate.set()
    await proxy.app.cache_assembly.purges.running.wait()
    assert proxy.files == []


async def test_a_large_purge_lets_others_in(proxy: Proxy, s3: S3) -> None:
    """A purge of as many paths as allowed does not hold the loop (I22). More paths are refused."""
    keys = [f"k/{number}" for number in range(MAX_PATHS)]
    s3.put(keys[-1], b"data")
    await proxy.get(f"/{keys[-1]}")
    gc.collect()
    gc.freeze()  # as a start does: a collection of all that the tests before have left takes longer than the purge
    longest, last = 0.0, (begun := time.thread_time())

    async def watch() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()

    watching = asyncio.create_task(watch())
    try:
        assert await purge(proxy, paths=[f"/{key}" for key in keys]) == 1
    finally:
        watching.cancel()
    # CPU time of this thread, so that neither other load nor a slow machine counts.
    assert longest < (time.thread_time() - begun) / 4
    response = await proxy.admin("POST", "/api/v1/purge", json.dumps({"paths": ["/x"] * (MAX_PATHS + 1)}).encode())
    assert response.status == 400
    assert "at most 10000 items" in response.json()["error"]
