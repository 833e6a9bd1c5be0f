"""Uploads to SeaweedFS, an S3 server of its own making: it handles parts, conditions and metadata in its own way, and
checks the signature of each request.
"""

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from proxy_under_test import S3, Proxy, StartProxy, pattern, until
from tus_client import created, offset_of, patched
from uploads_under_test import framed

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.s3.upload.parts import PART_SIZE

pytestmark = pytest.mark.e2e

MIB = 1 << 20
SMALL, LARGE = 100_000, 20 * MIB
MD5_OF_OTHERS = {"Content-MD5": "eV8yAuF6/ms99Mk33kXm0A=="}


@pytest.fixture(scope="session")
def origin_server(seaweed: OriginSettings) -> OriginSettings:
    return seaweed


@pytest.fixture
def s3(
    seaweed: OriginSettings,
    client_of: Callable[[OriginSettings], Any],
    bucket_of: Callable[[OriginSettings], str],
) -> S3:
    return S3(client_of(seaweed), bucket_of(seaweed))


@pytest.fixture
async def proxy(start: StartProxy, seaweed: OriginSettings) -> Proxy:
    return await start(origin={"credentials": seaweed.credentials})


async def assert_a_hit(proxy: Proxy, s3: S3, body: bytes, target: str = "/x") -> None:
    """Assert that S3 has the object, and that the proxy serves it under S3's ETag without a request."""
    assert s3.get(target[1:]) == body
    before = len(proxy.relay.seen)
    got = await proxy.get(target)
    assert (got.status, got.body) == (200, body)
    assert got.headers["ETag"] == s3.head(target[1:])["ETag"]
    assert got.cache_status.startswith("hit")
    assert len(proxy.relay.seen) == before


@pytest.mark.parametrize("size", [0, 1, SMALL, LARGE])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_the_next_get_is_a_hit(proxy: Proxy, s3: S3, size: int, is_chunked: bool) -> None:
    """In one piece or in parts, with a length or without, the response and the entry have S3's ETag (I4, I5)."""
    body = pattern(size)
    response = await proxy.request("PUT", "/x", *framed(body, is_chunked=is_chunked))
    assert response.status == 201
    assert response.headers["ETag"] == s3.head("x")["ETag"]
    await assert_a_hit(proxy, s3, body)
    writes = [seen.target.partition("=")[0] for seen in proxy.relay.seen if seen.method in ("PUT", "POST")]
    assert len(writes) == (5 if size == LARGE else 1)
    assert s3.unfinished == 0


async def test_overwritten_and_deleted(proxy: Proxy, s3: S3) -> None:
    """After each write reads return its object, small or large, and after a DELETE none (I5)."""
    assert (await proxy.get("/x")).status == 404
    for seed, size in enumerate((SMALL, LARGE, LARGE, 1)):
        body = pattern(size, seed)
        assert (await proxy.request("PUT", "/x", body=body)).status == 201
        await assert_a_hit(proxy, s3, body)
    assert (await proxy.request("DELETE", "/x")).status == 204
    assert (await proxy.get("/x")).status == 404
    assert s3.keys() == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_conditions(proxy: Proxy, s3: S3, size: int) -> None:
    """A false condition is 412, from PutObject or from the completion, and the object stays (I8)."""
    body, other = pattern(size), pattern(size, 2)
    assert (await proxy.request("PUT", "/x", {"If-None-Match": "*"}, body)).status == 201
    etag = s3.head("x")["ETag"]
    for condition in ({"If-None-Match": "*"}, {"If-Match": '"0123456789abcdef0123456789abcdef"'}):
        assert (await proxy.request("PUT", "/x", condition, other)).status == 412
        assert s3.get("x") == (await proxy.get("/x")).body == body
    assert (await proxy.request("PUT", "/x", {"If-Match": etag}, other)).status == 201
    await assert_a_hit(proxy, s3, other)
    assert s3.unfinished == 0


async def test_as_it_was_sent(proxy: Proxy, s3: S3) -> None:
    """A gzip body stays gzip, and its headers survive in the entry and in a new fetch (I4, I24, I25)."""
    said = {
        "Content-Type": "text/x-test; charset=utf-8",
        "Content-Encoding": "gzip",
        "Content-Language": "de",
        "Content-Disposition": 'attachment; filename="a b"',
        "Cache-Control": "max-age=77",
        "x-amz-meta-who": "me",
        "x-amz-meta-where": "here, there",
    }
    for size in (SMALL, LARGE):
        body = gzip.compress(pattern(size), compresslevel=0)
        assert (await proxy.request("PUT", "/x", said, body)).status == 201
        await assert_a_hit(proxy, s3, body)
        stored = await proxy.request("HEAD", "/x")
        assert (await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')).status == 200
        fetched = await proxy.get("/x")
        assert fetched.body == body
        for response in (stored, fetched):
            assert {name: response.headers.get(name) for name in said} == said


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_a_checksum_that_does_not_fit(proxy: Proxy, s3: S3, size: int) -> None:
    """A wrong checksum is 400, and nothing is stored: no object, no part, no entry. An existing object stays (I8)."""
    body = pattern(size)
    assert (await proxy.request("PUT", "/x", MD5_OF_OTHERS, body)).status == 400
    assert s3.keys() == []
    await until(lambda: proxy.files == [])
    s3.put("x", b"old")
    assert (await proxy.request("PUT", "/x", MD5_OF_OTHERS, body)).status == 400
    assert s3.get("x") == (await proxy.get("/x")).body == b"old"
    assert s3.unfinished == 0


async def test_a_resumable_upload(proxy: Proxy, s3: S3) -> None:
    """In two requests that end within a part: reads get the old version until the end, then the new one (I5)."""
    body, cut = pattern(PART_SIZE + 2 * MIB), 3 * MIB + 1
    s3.put("x", b"old")
    url = await created(proxy, len(body))
    assert (await patched(proxy, url, 0, body[:cut])).status == 204
    assert (await proxy.get("/x")).body == b"old"
    assert await offset_of(proxy, url) == cut
    response = await patched(proxy, url, cut, body[cut:])
    assert (response.status, response.headers["ETag"]) == (204, s3.head("x")["ETag"])
    assert s3.get("x") == (await proxy.get("/x")).body == body
    assert s3.unfinished == 0
