"""`cache.mode: observe`: S3 serves each read, nothing is stored, and a forecast says what the cache would give."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from proxy_under_test import BLOCK, KIB, S3, Proxy, StartProxy, pattern, settings_of

from bucketfront.checks.machine import check_machine

OBSERVE = {"mode": "observe"}
SIZE = 2 * BLOCK
BYPASS = 'fwd=bypass; fwd-status={}; detail="observe"'
PRICES = {"currency": "EUR", "per_1000_gets": 1, "per_1000_puts": 1, "per_gb_out": 1000}


async def summary_of(proxy: Proxy) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await proxy.admin("GET", "/api/v1/stats")).body)["summary"]
    return found


async def forecast_of(proxy: Proxy, factor: float = 1.0) -> dict[str, Any]:
    sizes = (await summary_of(proxy))["forecast"]["sizes"]
    found: dict[str, Any] = next(size for size in sizes if size["factor"] == factor)
    return found


async def test_each_read_goes_to_s3(start: StartProxy, s3: S3) -> None:
    """Each GET and HEAD is a request to S3, says so in Cache-Status, and leaves neither an entry nor a file."""
    proxy = await start(cache=OBSERVE)
    body = pattern(SIZE)
    s3.put("a", body)
    for number in range(1, 4):
        response = await proxy.get("/a")
        assert (response.status, response.body) == (200, body)
        assert response.cache_status == BYPASS.format(206)
        assert len(proxy.relay.seen) == number
    part = await proxy.get("/a", Range="bytes=100-199")
    assert (part.status, part.body) == (206, body[100:200])
    assert proxy.relay.seen[-1].range == "bytes=100-199"
    assert (await proxy.request("HEAD", "/a")).cache_status == BYPASS.format(200)
    absent = await proxy.get("/none")
    assert (absent.status, absent.cache_status) == (404, BYPASS.format(404))
    assert (await proxy.get("/none")).status == 404
    assert len(proxy.relay.seen) == 7
    assert proxy.figures["entries"] == proxy.figures["absences"] == 0
    assert proxy.files == []
    assert not proxy.app.fast_path.is_on


async def test_changes_show_at_once(start: StartProxy, s3: S3) -> None:
    """What an earlier run has stored is not served, and a change at S3 shows in the next response."""
    s3.put("a", b"old")
    serving = await start()
    assert (await serving.get("/a")).body == b"old"
    await serving.settled()
    await serving.stop()
    proxy = await start(cache=OBSERVE)
    assert proxy.figures["entries"] == 1
    for body in (b"new", b"newer"):
        s3.put("a", body)
        assert (await proxy.get("/a")).body == body
    s3.delete("a")
    assert (await proxy.get("/a")).status == 404


async def test_uploads_are_written_and_not_stored(start: StartProxy, s3: S3) -> None:
    """A PUT and a DELETE work as ever, and the body of the upload is in S3 alone."""
    proxy = await start(cache=OBSERVE)
    body = pattern(3 * SIZE)
    assert (await proxy.request("PUT", "/up", body=body)).status == 201
    assert s3.get("up") == body
    assert (await proxy.get("/up")).body == body
    assert proxy.figures["entries"] == 0
    assert proxy.files == []
    assert (await proxy.request("DELETE", "/up")).status == 204
    assert (await proxy.get("/up")).status == 404


async def test_conditions_and_errors(start: StartProxy, s3: S3) -> None:
    """Conditions hold, `only-if-cached` is a 504, and a failure of S3 is a 502, as there is nothing in the cache."""
    proxy = await start(cache=OBSERVE)
    etag = s3.put("a", b"body")
    assert (await proxy.get("/a", If_None_Match=etag)).status == 304
    assert (await proxy.get("/a", If_Match='"other"')).status == 412
    assert (await proxy.get("/a", Range="bytes=9-")).status == 416
    assert (await proxy.get("/a", Cache_Control="only-if-cached")).status == 504
    before = len(proxy.relay.seen)

    async def fail(_: object) -> bytes:
        return b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"

    proxy.relay.on_request = fail
    response = await proxy.get("/a")
    assert response.status == 502
    assert response.cache_status.startswith("fwd=bypass; fwd-status=500")
    assert len(proxy.relay.seen) > before


async def test_operators_see_the_mode(start: StartProxy, tmp_path: Path, s3: S3) -> None:
    """`/readyz`, statistics, metrics, explanations and `check` show the mode, and a warm job is refused."""
    proxy = await start(cache=OBSERVE)
    ready = await proxy.admin("GET", "/readyz")
    assert ready.body == b"ready\ncache.mode is observe\n"
    as_json = await proxy.admin("GET", "/readyz", headers={"Accept": "application/json"})
    assert json.loads(as_json.body)["cache_mode"] == "observe"
    assert (await summary_of(proxy))["mode"] == "observe"
    metrics = (await proxy.admin("GET", "/metrics")).body.decode()
    assert 'bucketfront_cache_mode{mode="observe"} 1.0' in metrics
    assert 'bucketfront_cache_mode{mode="serve"} 0.0' in metrics
    explained = json.loads((await proxy.admin("GET", "/api/v1/explain?path=/a")).body)
    assert explained["next"]["decision"] == "bypass"
    assert "cache.mode is observe" in explained["next"]["why"]
    warm = await proxy.admin("POST", "/api/v1/warm", b'{"paths": ["/a"]}')
    assert (warm.status, b"cache.mode is observe" in warm.body) == (409, True)
    settings = settings_of(tmp_path, proxy.relay.url, s3.bucket, cache={**OBSERVE, "dir": str(tmp_path / "other")})
    messages = [result.message for result in check_machine(settings, str, None)]
    assert any("cache.mode is observe" in message for message in messages)


async def test_reads_count_as_reads(start: StartProxy, s3: S3) -> None:
    """What S3 served counts as reads without a hit, so that the real figures are those of no cache."""
    proxy = await start(cache=OBSERVE, pricing=PRICES)
    s3.put("a", pattern(SIZE))
    for _ in range(4):
        await proxy.get("/a")
    summary = await summary_of(proxy)
    assert (summary["total"]["reads"], summary["total"]["hits"], summary["total"]["origin_reads"]) == (4, 0, 4)
    assert summary["total"]["saved"]["bytes"] == 0
    forecast = await forecast_of(proxy)
    assert forecast["hit_ratio"] == {"requests": 0.75, "bytes": 0.75}
    assert (forecast["origin_reads"], forecast["origin_bytes"]) == (1, SIZE)
    assert forecast["saved"]["requests"] == 3
    assert forecast["saved"]["money"] == pytest.approx(3 / 1000 + 3 * SIZE / 10**9 * 1000)
    metrics = (await proxy.admin("GET", "/metrics")).body.decode()
    assert 'bucketfront_predicted_hit_ratio{by="requests",factor="1"} 0.75' in metrics
    assert 'bucketfront_predicted_origin_reads{factor="1"} 1.0' in metrics
    assert 'bucketfront_requests_total{cache="observe",method="GET",mount="/",status="2xx"} 4.0' in metrics


class Step(NamedTuple):
    """One request of a trace, after `passed` seconds. `is_new` replaces the object before it."""

    method: str
    key: str
    passed: float
    range: str | None
    is_new: bool


SETTINGS: dict[str, Any] = {
    "freshness": {
        "default_ttl": "100s",
        "stale_while_revalidate": 0,
        "negative_ttl": "20s",
        "rules": [{"match": "never*", "cache": False}],
    },
}


def trace(seed: int, requests: int) -> list[Step]:
    """Return requests for a few objects, of which one must not be stored, and one does not exist."""
    chosen = random.Random(seed)
    keys = ["a", "b", "c", "never", "none"]
    steps = []
    for _ in range(requests):
        key = chosen.choice(keys)
        # A 404 to a HEAD costs a GET as well, in each mode, because S3's code is in the body.
        method = "GET" if key == "none" else chosen.choice(["GET", "GET", "GET", "HEAD"])
        passed = chosen.choice([0, 0, 1, 30, 70])
        part = chosen.choice([None, None, "bytes=0-999", f"bytes={BLOCK}-{BLOCK + 9}"])
        steps.append(Step(method, key, passed, part, chosen.random() < 0.1))
    return steps


async def play(proxy: Proxy, s3: S3, steps: Sequence[Step]) -> None:
    for key in ("a", "b", "c", "never"):
        s3.put(key, pattern(SIZE))
    for number, step in enumerate(steps):
        proxy.clock.advance(step.passed)
        if step.is_new and step.key != "none":
            s3.put(step.key, pattern(SIZE, seed=number + 2))
        headers = {} if step.range is None else {"Range": step.range}
        response = await proxy.request(step.method, f"/{step.key}", headers)
        assert response.status in (200, 206, 404)
        await proxy.settled()


@pytest.mark.parametrize("seed", range(2))
async def test_the_forecast_is_what_serving_gives(start: StartProxy, s3: S3, tmp_path: Path, seed: int) -> None:
    """The same requests give as many hits and reads of S3 in the mode `serve` as `observe` has forecast (I37)."""
    steps = trace(seed, 60)
    observing = await start(cache={**OBSERVE, "dir": str(tmp_path / "observing")}, **SETTINGS)
    await play(observing, s3, steps)
    forecast = await forecast_of(observing)
    await observing.stop()
    before = len(observing.relay.seen)
    serving = await start(cache={"dir": str(tmp_path / "serving")}, **SETTINGS)
    await play(serving, s3, steps)
    total = (await summary_of(serving))["total"]
    assert total["reads"] == len(steps)
    assert round(forecast["hit_ratio"]["requests"] * len(steps)) == total["hits"]
    assert forecast["origin_reads"] == total["origin_reads"] == len(serving.relay.seen) - before


async def test_the_forecast_knows_sizes(start: StartProxy, s3: S3) -> None:
    """A loop over more bytes than the cache has hits only in the larger ones (the order is that of `lru`)."""
    proxy = await start(cache={**OBSERVE, "max_size": f"{8 * BLOCK}"})
    for number in range(12):
        s3.put(f"o{number}", pattern(BLOCK))
    for _ in range(3):
        for number in range(12):
            await proxy.get(f"/o{number}")
    ratios = [(await forecast_of(proxy, factor))["hit_ratio"]["requests"] for factor in (0.5, 1.0, 2.0, 4.0)]
    assert ratios[:2] == [0.0, 0.0]
    assert ratios[2:] == [pytest.approx(2 / 3)] * 2


async def test_the_forecast_knows_idle_objects(start: StartProxy, s3: S3) -> None:
    """An object that was idle for longer than `cache.idle_timeout` is a miss again."""
    proxy = await start(cache={**OBSERVE, "idle_timeout": "10m"}, freshness={"default_ttl": "1d"})
    s3.put("a", pattern(KIB))
    for passed in (0, 500, 500, 700):
        proxy.clock.advance(passed)
        await proxy.get("/a")
    assert (await forecast_of(proxy))["hit_ratio"]["requests"] == 0.5
