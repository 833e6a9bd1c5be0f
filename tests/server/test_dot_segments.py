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


@pytest.mark.parametrize("refusal", [None, *REFUSALS])
@pytest.mark.parametrize(
    ("target", "key", "location"),
    [
        ("/repo/./a%20b", "repo/a b", "/repo/a%20b"),
        ("/./repo/a?x=1", "repo/a", "/repo/a?x=1"),
        ("/repo/%2E/a", "repo/a", "/repo/a"),
        ("/repo/x/../a", "repo/a", "/repo/a"),
        ("/../../a", "a", "/a"),
        ("/.//host/a", "/host/a", "/%2Fhost/a"),
        ("/sub/./a", "p/a", "/sub/a"),
        ("/site/x/..", "s/index.html", "/site/"),
        ("/site/./a", "s/a", "/site/a"),
    ],
)
async def test_an_origin_without_such_a_key(
    proxy: Proxy, s3: S3, target: str, key: str, location: str, refusal: bytes | None
) -> None:
    """If the origin has no such key, or takes none, a read is redirected to the object without the segments."""
    s3.put(key, b"data")
    if refusal is not None:
        refuse_dots(proxy, refusal)
    for method in ("GET", "HEAD", "GET"):
        response = await proxy.request(method, target)
        assert (response.status, response.headers.get("Location")) == (301, location)
    assert (await proxy.get(location)).body == b"data"


@pytest.mark.parametrize("refusal", [None, *REFUSALS])
@pytest.mark.parametrize("target", ["/repo/./none", "/sub/../a", "/none/..", "/..", "/repo/.", "/site/./x.js"])
async def test_a_path_that_leads_to_nothing(proxy: Proxy, s3: S3, target: str, refusal: bytes | None) -> None:
    """Without an object in the same mount it is a 4xx, never a 502: a 404, or a 400 if the origin takes no such key."""
    s3.put("a", b"data")
    if refusal is not None:
        refuse_dots(proxy, refusal)
    for method in ("GET", "HEAD", "GET"):
        assert (await proxy.request(method, target)).status == (404 if refusal is None else 400)


@pytest.mark.parametrize("key", ["repo/./a", "../a", "repo/..", "."])
async def test_an_origin_with_such_a_key(proxy: Proxy, s3: S3, key: str) -> None:
    """The raw key is the object where the origin has one, whatever the path without the segments names (I23)."""
    s3.put("repo/a", b"other")
    s3.put("a", b"other")
    assert (await proxy.request("PUT", f"/{key}", {}, b"raw")).status == 201
    for _ in range(2):
        response = await proxy.get(f"/{key}")
        assert (response.status, response.body) == (200, b"raw")
    assert (await proxy.request("DELETE", f"/{key}")).status == 204


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_write_that_the_origin_refuses(proxy: Proxy, s3: S3, refusal: bytes, method: str) -> None:
    """A write is never redirected, and changes nothing. It is a 400."""
    s3.put("repo/a", b"data")
    refuse_dots(proxy, refusal)
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
