"""The access of web pages from other origins: CORS (Fetch standard), Resource Timing, Cross-Origin-Resource-Policy."""

import pytest
from proxy_under_test import S3, Proxy, StartProxy

PAGE = "https://app.example.com"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}


async def test_any_page_may_read(proxy: Proxy, s3: S3) -> None:
    """By default every page may read every response, also errors, with all headers that players need."""
    s3.put("x", b"data")
    for target, headers in (("/x", {}), ("/x", {"Origin": PAGE}), ("/none", {"Origin": PAGE}), ("/%ff", {})):
        response = await proxy.request("GET", target, headers)
        assert response.headers["Access-Control-Allow-Origin"] == "*", target
        exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
        assert exposed >= {"Content-Range", "Content-Length", "ETag", "Age", "Cache-Status"}, target
        assert "Origin" not in response.headers.get("Vary", ""), target


async def test_preflight(proxy: Proxy) -> None:
    """A preflight gets a response for any path of a mount without a request to the origin, and browsers keep it for
    `max_age`.
    """
    response = await proxy.request("OPTIONS", "/any/key", PREFLIGHT)
    assert (response.status, response.body) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert response.headers["Access-Control-Allow-Headers"] == "range"
    assert response.headers["Access-Control-Max-Age"] == "7200"
    assert proxy.relay.seen == []


@pytest.mark.parametrize("asked", ["range, if-range , x-player", "RANGE"])
async def test_any_header_may_be_sent(proxy: Proxy, asked: str) -> None:
    """Headers are allowed by name, because `*` does not include Authorization."""
    response = await proxy.request("OPTIONS", "/x", {**PREFLIGHT, "Access-Control-Request-Headers": asked})
    assert response.headers["Access-Control-Allow-Headers"] == asked


@pytest.mark.parametrize("asked", ["a b", "x-a,,x-b", "x-a\x7f", "x" * 3000])
async def test_odd_header_lists_are_not_echoed(proxy: Proxy, asked: str) -> None:
    """A text that is no list of field names is not repeated in the response."""
    response = await proxy.request("OPTIONS", "/x", {**PREFLIGHT, "Access-Control-Request-Headers": asked})
    assert "Access-Control-Allow-Headers" not in response.headers


async def test_options_without_a_page(proxy: Proxy) -> None:
    """OPTIONS returns the methods of a path, and of the server as a whole (RFC 9110 section 9.3.7)."""
    for target in ("/x", "*"):
        response = await proxy.request("OPTIONS", target)
        assert (response.status, response.headers["Allow"]) == (204, "GET, HEAD, PUT, POST, DELETE, OPTIONS")
        assert "Access-Control-Allow-Methods" not in response.headers
        assert response.cache_status.startswith("fwd=bypass")


async def test_methods_of_a_path(start: StartProxy, s3: S3) -> None:
    """The response to a preflight of a named origin has the methods of the mount, and POST for the upload route."""
    proxy = await start(
        mounts=[{"path": "/media/", "bucket": s3.bucket}],
        uploads={"path": "/upload", "mount": "/media/"},
        cors={"allow_origins": [PAGE]},
    )
    for target, allowed in (("/media/x", "GET, HEAD, OPTIONS"), ("/upload", "POST, OPTIONS")):
        response = await proxy.request("OPTIONS", target, PREFLIGHT)
        assert response.headers["Allow"] == allowed
        assert response.headers["Access-Control-Allow-Methods"] == allowed
    assert (await proxy.request("OPTIONS", "/elsewhere", PREFLIGHT)).status == 404


async def test_named_origins(start: StartProxy, s3: S3) -> None:
    """With named origins only their pages may read, and Vary keeps CDNs from mixing responses, whichever page comes
    first.
    """
    proxy = await start(cors={"allow_origins": [PAGE], "allow_credentials": True, "allow_headers": ["Range"]})
    s3.put("x", b"data")
    for origin, allowed in ((PAGE, PAGE), ("https://evil.example", None), (None, None)):
        headers = {} if origin is None else {"Origin": origin}
        response = await proxy.request("GET", "/x", headers)
        assert response.status == 200
        assert response.headers.get("Access-Control-Allow-Origin") == allowed
        assert response.headers.get("Access-Control-Allow-Credentials") == ("true" if allowed else None)
        assert "Origin" in response.headers.getall("Vary")
        question = await proxy.request(
            "OPTIONS", "/x", {**PREFLIGHT, **headers, **({} if origin else {"Origin": "null"})}
        )
        assert question.status == 204
        assert question.headers.get("Access-Control-Allow-Headers") == ("Range" if allowed else None)


async def test_no_page_may_read(start: StartProxy, s3: S3) -> None:
    """With no origins at all no CORS header is sent."""
    proxy = await start(cors={"allow_origins": []})
    s3.put("x", b"data")
    response = await proxy.request("GET", "/x", {"Origin": PAGE})
    assert not [name for name in response.headers if name.lower().startswith("access-control")]
    assert "Vary" not in response.headers


async def test_timing_and_resource_policy(start: StartProxy, s3: S3) -> None:
    """Settings decide which pages get detailed timings, and which may embed objects."""
    proxy = await start(cors={"timing_allow_origins": [PAGE], "resource_policy": "cross-origin"})
    s3.put("x", b"data")
    response = await proxy.request("GET", "/x", {"Origin": PAGE})
    assert response.headers["Timing-Allow-Origin"] == PAGE
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    other = await proxy.get("/x")
    assert "Timing-Allow-Origin" not in other.headers
    assert "Origin" in other.headers.getall("Vary")
