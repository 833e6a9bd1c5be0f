"""S3 is out of reach.

Cached objects are served and marked, other requests fail at once, and S3 gets few requests meanwhile.
"""

import asyncio

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from relay import Seen, canned
from stopwatch import HANG_S, assert_takes_less_than
from wire import Response

WEEK = 7 * 86400.0


async def _break(proxy: Proxy) -> None:
    """Take S3 away, and send enough requests to open the breaker."""
    await proxy.relay.stop()
    await until_open(proxy)


async def until_open(proxy: Proxy) -> None:
    for number in range(5):
        await proxy.get(f"/missing{number}")
    assert proxy.app.origin.breaker.is_open


async def test_what_is_cached_is_served(start: StartProxy, s3: S3) -> None:
    """Within `outage` a stale object is served however stale it is, whole, by range and to HEAD, and is marked as
    such (RFC 9111 section 4.2.4, I31).
    """
    proxy = await start(freshness={"outage": "30d"})
    body = pattern(3 * BLOCK + 5)
    s3.put("x", body)
    await proxy.get("/x")
    await proxy.settled()
    await _break(proxy)
    proxy.clock.advance(WEEK)
    response = await proxy.get("/x")
    assert (response.status, response.body) == (200, body)
    assert response.cache_status == f'hit; ttl={300 - int(WEEK)}; detail="outage"'
    assert response.headers["Age"] == str(int(WEEK))
    assert (await proxy.get("/x", Range="bytes=5-9")).body == body[5:10]
    assert (await proxy.request("HEAD", "/x")).headers["Content-Length"] == str(len(body))
    assert (await proxy.get("/x", If_None_Match=response.headers["ETag"])).status == 304


async def test_no_older_than_allowed(start: StartProxy, s3: S3) -> None:
    """Beyond the window a response would be too old (I7), so it is an error."""
    proxy = await start(freshness={"outage": "1d", "stale_if_error": "1m"})
    s3.put("x", b"data")
    await proxy.get("/x")
    await _break(proxy)
    proxy.clock.advance(86400 + 299)
    assert (await proxy.get("/x")).status == 200
    proxy.clock.advance(2)
    assert (await proxy.get("/x")).status == 503


@pytest.mark.parametrize(
    "control", ["max-age=60, must-revalidate", "no-cache", "s-maxage=60", "max-age=60, stale-if-error=9"]
)
async def test_what_forbids_stale(proxy: Proxy, s3: S3, control: str) -> None:
    """Objects that must not be served stale are not (RFC 9111 sections 5.2.2.2, 5.2.2.4, 5.2.2.10, RFC 5861 section
    4).
    """
    s3.put("x", b"data", CacheControl=control)
    await proxy.get("/x")
    await _break(proxy)
    proxy.clock.advance(200)
    response = await proxy.get("/x")
    assert (response.status, response.json()) == (503, {"error": "the origin is out of reach"})


async def test_misses_fail_at_once(proxy: Proxy) -> None:
    """Once the breaker is open, a miss is a 503 with Retry-After within milliseconds, and S3 gets no request for it
    (I20).
    """
    await _break(proxy)
    refused = proxy.app.origin.breaker.refused
    responses: list[Response] = []

    async def miss() -> None:
        responses.extend(await asyncio.gather(*(proxy.get(f"/other{number}") for number in range(20))))

    await assert_takes_less_than(0.9, miss)
    for response in responses:
        assert response.status == 503
        assert 1 <= int(response.headers["Retry-After"]) <= 30
        assert response.cache_status == 'fwd=miss; detail="outage"'
    assert proxy.app.origin.breaker.refused > refused


async def test_recovery(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """When S3 is back, it gets requests again within seconds, first a single one, and responses are fresh as before."""
    monkeypatch.undo()  # the pauses of production
    proxy = await start()
    s3.put("x", b"old")
    await proxy.get("/x")
    await _break(proxy)
    proxy.clock.advance(1000)
    assert (await proxy.get("/x")).body == b"old"
    s3.put("x", b"new")
    await proxy.relay.start()

    async def recovered() -> bool:
        return (await proxy.get("/x")).body == b"new"

    async with asyncio.timeout(HANG_S):
        while not await recovered():  # noqa: ASYNC110 - the breaker's rest is real time
            await asyncio.sleep(0.05)
    assert not proxy.app.origin.breaker.is_open
    assert (await proxy.get("/missing0")).status == 404


async def test_one_sick_object(proxy: Proxy, s3: S3) -> None:
    """5xx responses for one key do not block the others."""
    s3.put("well", b"data")

    async def sick(seen: Seen) -> bytes | None:
        return canned(500, "InternalError") if seen.target.endswith("/sick") else None

    proxy.relay.on_request = sick
    for _ in range(4):
        assert (await proxy.get("/sick")).status == 502
    assert (await proxy.get("/well")).body == b"data"


async def test_service_unavailable(proxy: Proxy) -> None:
    """S3's 503 for everything is an outage as well, and opens the breaker."""

    async def unavailable(_: Seen) -> bytes | None:
        return canned(503, "ServiceUnavailable")

    proxy.relay.on_request = unavailable
    await until_open(proxy)
    seen = len(proxy.relay.seen)
    for number in range(10):
        assert (await proxy.get(f"/y{number}")).status in (502, 503)
    assert len(proxy.relay.seen) - seen <= 5  # a probe now and then; 30 attempts without the breaker


async def test_metrics_tell(proxy: Proxy) -> None:
    """A gauge and a counter show the outage to operators."""
    await _break(proxy)
    told = (await proxy.admin("GET", "/metrics")).body.decode()
    assert "bucketfront_origin_resting 1.0" in told
    assert "bucketfront_origin_outages_total 1.0" in told


async def test_what_is_missing_of_an_object(proxy: Proxy, s3: S3) -> None:
    """The present part of an object is served, and the rest fails without a byte too many (I3)."""
    body = pattern(6 * BLOCK)
    s3.put("x", body)
    await proxy.get("/x", Range=f"bytes=0-{BLOCK - 1}")
    await proxy.settled()
    await _break(proxy)
    assert (await proxy.get("/x", Range="bytes=0-99")).body == body[:100]
    assert (await proxy.get("/x", Range=f"bytes={5 * BLOCK}-")).status == 503
    await until(lambda: not proxy.figures["flights_running"])
