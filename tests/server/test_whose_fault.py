"""Whose fault an error of S3 is, as clients see it."""

import asyncio

import pytest
from proxy_under_test import S3, Proxy
from relay import Seen, canned
from rows import each_row

from bucketfront.s3 import breaker, client, pace

OURS = [
    (403, "InvalidAccessKeyId"),
    (403, "SignatureDoesNotMatch"),
    (403, "RequestTimeTooSkewed"),
    (403, "AccountProblem"),
    (400, "ExpiredToken"),
    (400, "AuthorizationHeaderMalformed"),
    (401, ""),
    (301, "PermanentRedirect"),
    (404, "NoSuchBucket"),
    (400, "KMS.DisabledException"),
]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "MAX_FAILURES", 1000)
    monkeypatch.setattr(pace, "MIN_RATE", 1000.0)
    monkeypatch.setattr(client, "RETRY_PAUSE_S", 0.0)


@each_row(("status", "code"), OURS)
async def test_our_fault_is_never_the_clients(proxy: Proxy, s3: S3, status: int, code: str) -> None:
    """I35: our credentials, clock, bucket and configuration become a 502, no absence, and nothing cached is lost."""
    s3.put("cached", b"data")
    await proxy.get("/cached")

    async def refuse(_: Seen) -> bytes | None:
        return canned(status, code)

    proxy.relay.on_request = refuse
    for method in ("GET", "HEAD"):
        response = await proxy.request(method, "/x")
        assert (response.status, response.headers.get("Retry-After")) == (502, "1")
    assert proxy.figures["absences"] == 0
    proxy.clock.advance(10 * 3600)
    for method in ("GET", "HEAD"):
        response = await proxy.request(method, "/cached")
        assert response.status == 200
        assert response.cache_status.endswith('detail="outage"')
    proxy.relay.on_request = None
    assert (await proxy.get("/cached")).body == b"data"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_clients_own_fault(proxy: Proxy, method: str) -> None:
    """I35: a key that S3 does not allow is the client's 400. Retries and the breaker stay for others."""

    async def refuse(_: Seen) -> bytes | None:
        return canned(400, "KeyTooLongError")

    proxy.relay.on_request = refuse
    for number in range(12):
        assert (await proxy.request(method, f"/bad{number}")).status == 400
    assert "10.0 of 10" in repr(proxy.app.origin.retries)
    assert "closed, 0 failures" in repr(proxy.app.origin.breaker)


@pytest.mark.parametrize(("status", "code"), [(400, ""), (400, "InvalidRequest"), (405, ""), (411, ""), (414, "")])
async def test_an_odd_key_is_never_a_502(proxy: Proxy, s3: S3, status: int, code: str) -> None:
    """I35: a key that the origin refuses, whatever its reason, is a 4xx for any method, and others notice nothing."""
    s3.put("well", b"data")

    async def refuse(seen: Seen) -> bytes | None:
        return canned(status, code) if "/odd" in seen.target else None

    proxy.relay.on_request = refuse
    for number in range(12):
        method, body = ("GET", "HEAD", "PUT", "DELETE")[number % 4], b"new" if number % 4 == 2 else b""
        response = await proxy.request(method, f"/odd{number}", body=body)
        assert 400 <= response.status < 500, (method, response.status)
    assert (await proxy.get("/well")).body == b"data"
    assert "10.0 of 10" in repr(proxy.app.origin.retries)
    assert "closed, 0 failures" in repr(proxy.app.origin.breaker)


async def test_a_refused_version_stays_cached(proxy: Proxy, s3: S3) -> None:
    """I35: an unexplained refusal of what is cached is an outage of that object, while others are served."""
    s3.put("cached", b"data")
    s3.put("well", b"data")
    await proxy.get("/cached")

    async def refuse(seen: Seen) -> bytes | None:
        return canned(400, "") if "/cached" in seen.target else None

    proxy.relay.on_request = refuse
    proxy.clock.advance(10 * 3600)
    response = await proxy.get("/cached")
    assert (response.status, response.body) == (200, b"data")
    assert response.cache_status.endswith('detail="outage"')
    assert (await proxy.get("/well")).status == 200


async def test_an_archived_object(proxy: Proxy, s3: S3) -> None:
    """An object in an archive is a 403 with the reason, for GET, while HEAD describes it."""
    s3.put("x", b"data")

    async def archived(seen: Seen) -> bytes | None:
        return canned(403, "InvalidObjectState") if seen.method == "GET" else None

    proxy.relay.on_request = archived
    response = await proxy.get("/x")
    assert response.status == 403
    assert b"archived" in response.body
    assert (await proxy.request("HEAD", "/x")).status == 200


@pytest.mark.parametrize(
    ("code", "wait"), [("SlowDown", "7"), ("ServiceUnavailable", "7"), ("", "7"), ("SlowDown", "")]
)
async def test_an_origin_under_load(proxy: Proxy, code: str, wait: str) -> None:
    """S3's SlowDown and other 503 are 503 with S3's Retry-After, or with one second."""

    async def slow_down(_: Seen) -> bytes | None:
        return canned(503, code, *([f"Retry-After: {wait}"] if wait else []))

    proxy.relay.on_request = slow_down
    for method in ("GET", "HEAD"):
        response = await proxy.request(method, "/x")
        assert (response.status, response.headers.get("Retry-After")) == (503, wait or "1")


async def test_throttled_requests_are_no_outage(proxy: Proxy, s3: S3) -> None:
    """SlowDown limits the pace of the bucket and leaves the breaker closed, and the cached version is served stale."""
    s3.put("cached", b"data")
    await proxy.get("/cached")

    async def slow_down(_: Seen) -> bytes | None:
        return canned(503, "SlowDown")

    proxy.relay.on_request = slow_down
    responses = await asyncio.gather(*(proxy.get(f"/x{number}") for number in range(8)))
    assert {response.status for response in responses} == {503}
    assert "closed, 0 failures" in repr(proxy.app.origin.breaker)
    assert proxy.app.origin.calls.paces[proxy.app.settings.mounts[0].bucket].limit is not None
    proxy.clock.advance(1000)
    response = await proxy.get("/cached")
    assert response.cache_status.endswith('detail="stale-if-error"')


@pytest.mark.parametrize("status", ["200 OK", "203 Non-Authoritative Information"])
async def test_a_page_is_no_object(proxy: Proxy, s3: S3, status: str) -> None:
    """The page of a captive portal, sent with a success for every path, is a 502 and never an object (I1, I13)."""
    s3.put("x", b"<html>mine</html>", ContentType="text/html")
    page = b"<html>please log in</html>"
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(page)}", "Content-Type: text/html; charset=utf-8"]

    async def log_in(_: Seen) -> bytes:
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + page

    proxy.relay.on_request = log_in
    for method in ("GET", "HEAD"):
        assert (await proxy.request(method, "/x")).status == 502
    proxy.relay.on_request = None
    assert (await proxy.get("/x")).body == b"<html>mine</html>"
