"""Paths with the segments "." and "..": they name a raw key, and lead to the path without them (I23, RFC 3986)."""

import pytest
from proxy_under_test import S3, Proxy, StartProxy
from relay import Seen, canned

REFUSALS = [
    canned(400, "InvalidRequest"),  # SeaweedFS
    canned(400, "XMinioInvalidResourceName"),  # MinIO
    canned(400, "InvalidURI"),
    b"HTTP/1.1 301 Moved\r\nLocation: /b/x\r\nContent-Length: 0\r\n\r\n",  # a web server in front
]


@pytest.fixture
async def proxy(start: StartProxy, s3: S3) -> Proxy:
    methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
    sub = {"path": "/sub/", "bucket": s3.bucket, "prefix": "p/", "methods": methods}
    site = {"path": "/site/", "bucket": s3.bucket, "prefix": "s/", "site": {"fallback": "app.html"}}
    return await start(mounts=[{"path": "/", "bucket": s3.bucket, "methods": methods}, sub, site])


def refuse_dots(proxy: Proxy, refusal: bytes) -> None:
    async def answer(seen: Seen) -> bytes | None:
        return refusal if {".", ".."} & set(seen.target.partition("?")[0].split("/")) else None

    proxy.relay.on_request = answer


LED = [
    # the path, the object that it leads to, its URL
    ("/repo/./a%20b", "repo/a b", "/repo/a%20b"),
    ("/./repo/a?x=1", "repo/a", "/repo/a?x=1"),
    ("/repo/%2E/b", "repo/b", "/repo/b"),
    ("/repo/x/../c", "repo/c", "/repo/c"),
    ("/../../d", "d", "/d"),
    ("/.//host/e", "/host/e", "/%2Fhost/e"),
    ("/sub/./f", "p/f", "/sub/f"),
    ("/site/x/..", "s/index.html", "/site/"),
    ("/site/./g", "s/g", "/site/g"),
]


@pytest.mark.parametrize("refusal", [None, *REFUSALS])
async def test_an_origin_without_such_a_key(proxy: Proxy, s3: S3, refusal: bytes | None) -> None:
    """If the origin has no such key, or takes none, a read is redirected to the object without the segments."""
    if refusal is not None:
        refuse_dots(proxy, refusal)
    for target, key, location in LED:
        s3.put(key, b"data")
        for method in ("GET", "HEAD"):
            response = await proxy.request(method, target)
            assert (response.status, response.headers.get("Location")) == (301, location), (method, target)
        assert (await proxy.get(location)).body == b"data"


@pytest.mark.parametrize("refusal", [None, *REFUSALS])
async def test_a_path_that_leads_to_nothing(proxy: Proxy, s3: S3, refusal: bytes | None) -> None:
    """Without an object in the same mount it is a 4xx, never a 502: a 404, or a 400 if the origin takes no such key."""
    s3.put("a", b"data")
    if refusal is not None:
        refuse_dots(proxy, refusal)
    for target in ("/repo/./none", "/sub/../a", "/none/..", "/..", "/repo/.", "/site/./x.js"):
        for method in ("GET", "HEAD"):
            response = await proxy.request(method, target)
            assert response.status == (404 if refusal is None else 400), (method, target)


async def test_a_client_of_s3_is_not_redirected(proxy: Proxy, s3: S3) -> None:
    """A client of S3 names keys, so a key that does not exist is a 404 for it. SDKs take a 301 for another region."""
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request"}
    for target, key, _ in LED:
        s3.put(key, b"data")
        for method in ("GET", "HEAD"):
            response = await proxy.request(method, target, signed)
            assert (response.status, response.headers.get("Location")) == (404, None), (method, target)
    s3.put("s/docs/index.html", b"data")
    assert (await proxy.request("GET", "/site/docs")).status == 301
    response = await proxy.request("GET", "/site/docs", signed)
    assert (response.status, b"<Code>NoSuchKey</Code>" in response.body) == (404, True)


async def test_an_origin_with_such_a_key(proxy: Proxy, s3: S3) -> None:
    """The raw key is the object where the origin has one, whatever the path without the segments names (I23)."""
    s3.put("repo/a", b"other")
    s3.put("a", b"other")
    for key in ("repo/./a", "../a", "repo/..", "."):
        s3.put(key, b"raw")
        for _ in range(2):
            response = await proxy.get(f"/{key}")
            assert (response.status, response.body) == (200, b"raw"), key
    assert (await proxy.request("DELETE", "/repo/./a")).status == 204
    assert (s3.get("repo/a"), sorted(s3.keys())) == (b"other", [".", "../a", "a", "repo/..", "repo/a"])


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_write_that_the_origin_refuses(proxy: Proxy, s3: S3, refusal: bytes) -> None:
    """A write is never redirected, and changes nothing. It is a 400."""
    s3.put("repo/a", b"data")
    refuse_dots(proxy, refusal)
    for method in ("PUT", "DELETE"):
        assert (await proxy.request(method, "/repo/./a", {}, b"new")).status == 400
    assert s3.get("repo/a") == b"data"


@pytest.mark.parametrize("code", ["ExpiredToken", "AuthorizationHeaderMalformed", "NoSuchBucket"])
async def test_our_own_mistakes_are_no_refused_keys(proxy: Proxy, code: str) -> None:
    """A refusal of our credentials or configuration is a 502 for such a key too (I35)."""
    refuse_dots(proxy, canned(400, code))
    assert (await proxy.get("/repo/./a")).status == 502


async def test_the_redirect_needs_the_object(proxy: Proxy, s3: S3) -> None:
    """A failure of the origin is no redirect, and no 404 (I13)."""
    s3.put("repo/a", b"data")
    proxy.relay.reset()

    async def fail(_: Seen) -> bytes | None:
        return canned(500, "InternalError")

    proxy.relay.on_request = fail
    assert (await proxy.get("/repo/./a")).status == 502
