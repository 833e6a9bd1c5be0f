"""Cache-Status: `fwd-status` is what the origin responded, and a hit asked the origin for nothing (RFC 9211)."""

import hashlib
import os
import re
from pathlib import Path

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, copy_cache, pattern, until
from relay import Cut, Seen, canned

from bucketfront.cache import RemovalReason, StorageRefusal
from bucketfront.cache.storage import file_storage
from bucketfront.http.cache_status import Detail
from bucketfront.s3 import breaker, client
from bucketfront.s3.upload import repetition

BODY = pattern(6 * BLOCK)
DELETE_X = b"<Delete><Object><Key>x</Key></Object></Delete>"
STALE_S = 400.0  # seconds after which an object is past its TTL of 300 s


@pytest.fixture(autouse=True)
def _patient_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "MAX_FAILURES", 1000)
    monkeypatch.setattr(repetition, "PAUSE_S", 0.0)
    monkeypatch.setattr(client, "RETRY_PAUSE_S", 0.0)


def refuse(proxy: Proxy, status: int, code: str = "") -> None:
    async def answer(_: Seen) -> bytes | None:
        return canned(status, code)

    proxy.relay.on_request = answer


async def status_of(proxy: Proxy, target: str = "/x", method: str = "GET", **headers: str) -> str:
    response = await proxy.request(method, target, {name.replace("_", "-"): value for name, value in headers.items()})
    await proxy.settled()
    return response.cache_status


async def test_bytes_that_are_missing(proxy: Proxy, s3: S3) -> None:
    """What the cache has in part, or by a HEAD alone, names the status of the GET for the rest."""
    s3.put("x", BODY)
    s3.put("y", BODY)
    assert await status_of(proxy, Range=f"bytes=0-{BLOCK - 1}") == "fwd=miss; fwd-status=206; stored"
    assert await status_of(proxy, Range=f"bytes={4 * BLOCK}-") == "fwd=partial; fwd-status=206; ttl=300; stored"
    assert await status_of(proxy, "/y", "HEAD") == "fwd=miss; fwd-status=200"
    assert await status_of(proxy, "/y") == "fwd=miss; fwd-status=206; ttl=300; stored"
    assert await status_of(proxy, "/y") == "hit; ttl=300"


async def test_an_origin_that_ignores_ranges(proxy: Proxy) -> None:
    """A 200 to a request with Range is a 200, cold and at a revalidation."""
    body = b"data"
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    head = f"HTTP/1.1 200 OK\r\nETag: {etag}\r\nLast-Modified: {date}\r\nContent-Length: {len(body)}\r\n\r\n"

    async def whole(_: Seen) -> bytes | None:
        return head.encode() + body

    proxy.relay.on_request = whole
    assert await status_of(proxy) == "fwd=miss; fwd-status=200; stored"
    proxy.clock.advance(100_000)
    assert await status_of(proxy) == "fwd=stale; fwd-status=200"


async def test_what_is_absent_or_out_of_range(proxy: Proxy, s3: S3) -> None:
    """A 404 is one. Beyond the end of an object the HEAD after the 416 counts."""
    assert await status_of(proxy, "/none") == "fwd=miss; fwd-status=404; stored"
    assert (await status_of(proxy, "/none")).startswith("hit; ttl=")
    s3.put("x", BODY)
    assert await status_of(proxy, Range=f"bytes={len(BODY)}-") in (
        "fwd=miss; fwd-status=200",
        "fwd=miss; fwd-status=206; stored",
    )
    proxy.clock.advance(STALE_S)
    assert await status_of(proxy) == "fwd=stale; fwd-status=304"


@pytest.mark.parametrize("status", [500, 503])
async def test_an_origin_that_fails(start: StartProxy, s3: S3, status: int) -> None:
    """A failure names its status, and whether the object was stale. Served stale, it is no hit."""
    proxy = await start(freshness={"stale_while_revalidate": 0, "stale_if_error": "1h"})
    s3.put("x", b"data")
    s3.put("strict", b"data", CacheControl="max-age=300, must-revalidate")
    for target in ("/x", "/strict"):
        await proxy.get(target)
    refuse(proxy, status)
    assert await status_of(proxy, "/cold") == f'fwd=miss; fwd-status={status}; detail="origin-unavailable"'
    assert await status_of(proxy) == "hit; ttl=300"
    proxy.clock.advance(STALE_S)
    assert await status_of(proxy) == f'fwd=stale; fwd-status={status}; ttl=-100; detail="stale-if-error"'
    strict = await status_of(proxy, "/strict")
    assert strict == f'fwd=stale; fwd-status={status}; detail="origin-unavailable"'


STRICT = ["max-age=300, must-revalidate", "max-age=300, proxy-revalidate", "no-cache", "s-maxage=300", "max-age=0"]


@pytest.mark.parametrize("failures", [1, 1000])
async def test_an_outage_of_an_object_that_must_not_be_stale(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """It is `fwd=stale`, whichever bytes are cached, and whichever candidates of a path failed before it.

    That holds with and without a request to the origin.
    """
    monkeypatch.setattr(breaker, "MAX_FAILURES", failures)
    site = {"path": "/site/", "bucket": s3.bucket, "site": {"try_extensions": [".html"]}, "precompressed": ["gzip"]}
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket}, site], freshness={"stale_if_error": 0})
    for number, strict in enumerate(STRICT):
        s3.put(f"{number}.html", BODY, CacheControl=strict)
        await proxy.get(f"/{number}.html", Range=f"bytes=0-{BLOCK - 1}")
    await proxy.settled()
    proxy.clock.advance(STALE_S)
    await proxy.relay.stop()
    for number, strict in enumerate(STRICT):
        for target in (f"/{number}.html", f"/site/{number}"):
            assert (await status_of(proxy, target)).startswith("fwd=stale; detail="), strict
            for last in (9, len(BODY)):
                missing = await status_of(proxy, target, Range=f"bytes={last - 9}-{last}")
                assert missing.startswith("fwd=stale; detail="), strict
            assert (await status_of(proxy, target, "HEAD")).startswith("fwd=stale; detail="), strict


async def test_missing_bytes_of_a_failing_origin(start: StartProxy, s3: S3) -> None:
    """What is cached in part, or stale, says so, if the rest of its bytes cannot be fetched."""
    proxy = await start()
    s3.put("x", BODY)
    rest = {"Range": f"bytes={5 * BLOCK}-"}
    await proxy.get("/x", Range=f"bytes=0-{BLOCK - 1}")
    await proxy.settled()
    refuse(proxy, 500)
    unavailable = 'fwd-status=500; detail="origin-unavailable"'
    assert await status_of(proxy, **rest) == f"fwd=partial; {unavailable}"
    assert await status_of(proxy, "/cold", **rest) == f"fwd=miss; {unavailable}"
    proxy.clock.advance(STALE_S)
    assert await status_of(proxy, **rest) == f"fwd=stale; {unavailable}"


async def test_a_client_that_wants_a_revalidation(start: StartProxy, s3: S3) -> None:
    """A fresh object that the client does not take as it is, is `fwd=request`, and a stale one is `fwd=stale`."""
    proxy = await start(freshness={"honor_client_no_cache": True, "stale_while_revalidate": 0})
    s3.put("x", b"data")
    await proxy.get("/x")
    assert await status_of(proxy, Cache_Control="no-cache") == "fwd=request; fwd-status=304"
    proxy.clock.advance(STALE_S)
    assert await status_of(proxy, Cache_Control="no-cache") == "fwd=stale; fwd-status=304"
    refuse(proxy, 403, "AccessDenied")
    assert await status_of(proxy, Cache_Control="no-cache") == "fwd=request; fwd-status=403"


async def test_an_origin_without_a_response(start: StartProxy, s3: S3) -> None:
    """Without a response there is no status."""
    proxy = await start(freshness={"stale_while_revalidate": 0, "stale_if_error": "1h"})
    s3.put("x", b"data")
    await proxy.get("/x")

    async def drop(_: Seen) -> bytes | None:
        raise Cut

    proxy.relay.on_request = drop
    assert await status_of(proxy, "/cold") == 'fwd=miss; detail="origin-unavailable"'
    proxy.clock.advance(STALE_S)
    assert await status_of(proxy) == 'fwd=stale; ttl=-100; detail="stale-if-error"'


async def test_denied(start: StartProxy, s3: S3) -> None:
    """A 403 about an object is one, cold and stale."""
    proxy = await start(freshness={"stale_while_revalidate": 0})
    s3.put("x", b"data")
    await proxy.get("/x")
    refuse(proxy, 403, "AccessDenied")
    assert await status_of(proxy, "/cold") == "fwd=miss; fwd-status=403"
    proxy.clock.advance(STALE_S)
    assert await status_of(proxy) == "fwd=stale; fwd-status=403"


@pytest.mark.parametrize(
    ("status", "code", "reported"),
    [
        (500, "InternalError", 'fwd=method; fwd-status=500; detail="origin-unavailable"'),
        (200, "InternalError", 'fwd=method; fwd-status=200; detail="origin-unavailable"'),
        (403, "AccessDenied", "fwd=method; fwd-status=403"),
        (400, "EntityTooLarge", "fwd=method; fwd-status=400"),
        # Without a condition, a 412 is no fact about the object.
        (412, "PreconditionFailed", 'fwd=method; fwd-status=412; detail="origin-unavailable"'),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
async def test_a_write_that_fails(proxy: Proxy, method: str, status: int, code: str, reported: str) -> None:
    """A write that the origin refuses is one, with the status that the origin sent, also for an error inside a 200."""
    refuse(proxy, status, code)
    target, body = ("/?delete", DELETE_X) if method == "POST" else ("/x", b"data")
    response = await proxy.request(method, target, {}, body)
    assert response.cache_status == reported
    await until(lambda: len(proxy.log) == 1)
    [line] = proxy.log
    assert (line["cache"], line["s3"]) == (reported, {"status": status, "code": code})
    assert f"the origin answered {status} " in str(line["cause"])
    assert code in str(line["cause"])


async def test_a_write_that_is_not_forwarded(proxy: Proxy) -> None:
    """A write that the proxy itself refuses has no status of the origin."""
    assert await status_of(proxy, "/%zz", "PUT") == 'fwd=bypass; detail="refused"'
    assert proxy.relay.seen == []


async def test_a_disk_that_fails(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that the disk refuses are no hit."""

    def fail(*_: object) -> int:
        raise OSError(5, "as the test says")

    s3.put("x", BODY)
    await proxy.request("HEAD", "/x")
    monkeypatch.setattr(file_storage, "_write", fail)
    assert (await status_of(proxy)).startswith("fwd=miss; fwd-status=206; ttl=300")


@pytest.mark.parametrize("damaged", [None, 0, 4])
async def test_after_an_unclean_stop(start: StartProxy, s3: S3, tmp_path: Path, damaged: int | None) -> None:
    """Blocks that are verified at first touch are a hit. It is none if the first block was corrupt (I15)."""
    s3.put("x", BODY)
    proxy = await start()
    await proxy.get("/x")
    await proxy.settled()
    await proxy.step()
    folder = tmp_path / "copy"
    copy_cache(proxy, folder)
    if damaged is not None:
        (path,) = (folder / "objects").glob("*/*")
        with path.open("r+b") as file:
            file.seek(damaged * BLOCK + 7)
            octet = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([octet ^ 1]))
    proxy.relay.reset()
    revived = await start(cache={"dir": str(folder)})
    response = await revived.get("/x", Cache_Control="only-if-cached")
    assert (response.status, response.body) == (200, BODY)
    assert response.cache_status == ("fwd=partial; fwd-status=206; ttl=300; stored" if damaged == 0 else "hit; ttl=300")
    assert len(proxy.relay.seen) == (damaged is not None)


async def test_why_an_object_left_the_cache(start: StartProxy, s3: S3) -> None:
    """A miss names the reason why the object is not there any more. A first one has none to name."""
    proxy = await start(cache={"idle_timeout": "1h"})
    s3.put("x", BODY)
    assert await status_of(proxy) == "fwd=miss; fwd-status=206; stored"
    await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')
    assert await status_of(proxy) == 'fwd=miss; fwd-status=206; stored; detail="purged"'
    proxy.clock.advance(3601)
    await proxy.step()
    assert await status_of(proxy) == 'fwd=miss; fwd-status=206; stored; detail="idle"'
    await proxy.request("PUT", "/x", {}, b"")
    await proxy.request("DELETE", "/x")
    s3.put("x", BODY)
    proxy.clock.advance(100)
    assert await status_of(proxy) == 'fwd=miss; fwd-status=206; stored; detail="written"'


@pytest.mark.parametrize(
    ("key", "control", "detail"),
    [("x", "no-store", "no-store"), ("x", "private", "private"), ("ruled/x", "", "rule"), ("large", "", "too-large")],
)
async def test_why_an_object_is_not_stored(start: StartProxy, s3: S3, key: str, control: str, detail: str) -> None:
    """Each miss of an object that is not stored names the reason."""
    proxy = await start(cache={"max_size": 4 * BLOCK}, freshness={"rules": [{"match": "ruled/*", "cache": False}]})
    s3.put(key, BODY if key == "large" else b"data", CacheControl=control)
    for _ in range(2):
        found = await status_of(proxy, f"/{key}")
        assert found.startswith("fwd=miss; fwd-status=20")
        assert found.endswith(f'; detail="{detail}"')
        assert "stored" not in found


def test_the_table_of_details() -> None:
    """docs/http.md has all details, and each reason of the cache is one of them."""
    section = (Path(__file__).parents[2] / "docs" / "http.md").read_text().partition("### Cache-Status (RFC 9211)")[2]
    rows = [line.split("|")[1] for line in section.partition("\n### ")[0].splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r'detail="([a-z-]+)"', row) or re.findall("`([a-z-]+)`", row)}
    assert named - {"collapsed", "detail"} == set(Detail)
    assert {reason.value for reason in (*RemovalReason, *StorageRefusal)} <= set(Detail)
