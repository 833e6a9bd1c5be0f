"""The names under which the proxy is reached: others reach no write, and no read if names are configured (I33)."""

import pytest
from proxy_under_test import S3, StartProxy
from rows import each_row
from wire import message

from bucketfront.server.fast_path.recogniser import recogniser

OWN = (
    "localhost",
    "LOCALHOST:80",
    "a.localhost:1",
    "127.0.0.1:8080",
    "127.0.0.2",
    "[::1]:8080",
    "192.0.2.7",
    "[2001:db8::1]",
)
FOREIGN = ("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "1.2.3", "0x7f.1")
CONFIGURED = ("media.example.com", "MEDIA.example.com:443", "media.example.com.", "bucketfront:8080")
NAMES = ["Media.Example.com", "bucketfront"]


@pytest.mark.parametrize("is_fast", [True, False])
async def test_without_names(start: StartProxy, s3: S3, *, is_fast: bool) -> None:
    """By default reads answer to any name, and writes to addresses and loopback alone, on both paths (I33)."""
    proxy = await start(server={"fast_path": is_fast})
    s3.put("x", b"old")
    for host in (*OWN, *FOREIGN, *CONFIGURED):
        for _ in range(2):
            assert (await proxy.request("GET", "/x", {"Host": host})).body == b"old", host
        await proxy.settled()
    for host in (*FOREIGN, *CONFIGURED):
        for method, target in (
            ("PUT", "/x"),
            ("DELETE", "/x"),
            ("POST", "/"),
            ("POST", "/upload"),
            ("POST", "/?delete"),
        ):
            refused = await proxy.request(method, target, {"Host": host, "Origin": f"http://{host}"}, b"new")
            assert (refused.status, refused.headers.get("Cache-Control")) == (421, "no-store"), (host, method)
            assert "server.hosts" in refused.json()["error"]
    assert s3.get("x") == b"old"
    for host in OWN:
        assert (await proxy.request("PUT", "/x", {"Host": host}, b"new")).status == 201, host


@pytest.mark.parametrize("is_fast", [True, False])
async def test_with_names(start: StartProxy, s3: S3, *, is_fast: bool) -> None:
    """With configured names, reads, preflights and writes under another name get 421, on both paths (I33)."""
    proxy = await start(server={"fast_path": is_fast, "hosts": NAMES}, cors={"allow_origins": ["https://a.example"]})
    s3.put("x", b"old")
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "PUT"}
    for host in (*OWN, *CONFIGURED):
        for _ in range(2):
            assert (await proxy.request("GET", "/x", {"Host": host})).body == b"old", host
        await proxy.settled()
        assert (await proxy.request("OPTIONS", "/x", {"Host": host, **preflight})).status == 204
        assert (await proxy.request("PUT", "/y", {"Host": host}, b"new")).status == 201
    for host in (*FOREIGN, "a.media.example.com", "media.example.co", "xmedia.example.com"):
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            assert (await proxy.request(method, "/x", {"Host": host})).status == 421, (host, method)
        assert (await proxy.request("OPTIONS", "/x", {"Host": host, **preflight})).status == 421
    assert s3.get("x") == b"old"
    if is_fast:
        assert proxy.app.fast_path is not None
        assert proxy.app.fast_path.served


async def test_a_listener_on_a_name(start: StartProxy) -> None:
    """The name on which the proxy listens is one of its own."""
    proxy = await start(server={"host": "localhost", "hosts": ["media.example.com"]})
    assert (await proxy.request("PUT", "/x", {"Host": "localhost"}, b"new")).status == 201


async def test_without_host(start: StartProxy, s3: S3) -> None:
    """HTTP/1.0 without Host is from no browser, and an empty Host names nobody."""
    proxy = await start(server={"hosts": NAMES})
    s3.put("x", b"old")
    async with proxy.connection() as client:
        await client.send(b"GET /x HTTP/1.0\r\n\r\n")
        assert (await client.response()).body == b"old"
    assert (await proxy.request("PUT", "/x", {"Host": ""}, b"new")).status == 201


@each_row(
    ("host", "is_plain"),
    [
        ("media", True),
        ("MEDIA:80", True),
        ("a.example", True),
        ("xmedia", False),
        ("medias", False),
        ("axexample", False),
    ],
)
def test_the_recogniser_knows_the_names(host: str, *, is_plain: bool) -> None:
    """The fast path takes a request for a configured name only, in any case and with any port."""
    head = message("GET", "/x", {"Host": host})
    assert (recogniser(frozenset(), ("media", "a.example"))(head) is not None) is is_plain
    assert recogniser(frozenset())(head) is not None


@pytest.mark.parametrize("is_fast", [True, False])
async def test_no_sniffing(start: StartProxy, s3: S3, *, is_fast: bool) -> None:
    """Each response forbids a browser to guess another type, so that an upload does not become a page (I33)."""
    proxy = await start(server={"fast_path": is_fast})
    s3.put("x", b"<script>")
    for target in ("/x", "/x", "/x", "/none", "/%ff"):
        response = await proxy.get(target)
        assert response.headers.getall("X-Content-Type-Options") == ["nosniff"], target
        await proxy.settled()
    assert (await proxy.request("PUT", "/y", body=b"new")).headers["X-Content-Type-Options"] == "nosniff"
