"""A bucket as a web site: index, folders, extensions, fallback, error documents, precompressed siblings."""

import asyncio
from typing import Any

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern
from relay import Seen, canned
from rows import each_row

from bucketfront.keys import ObjectKey
from bucketfront.server.handlers import objects

SITE = {"try_extensions": [".html"], "errors": {"404": "404.html", "503": "down.html"}}


@pytest.fixture
async def site(start: StartProxy, s3: S3) -> Proxy:
    s3.put("index.html", b"home", ContentType="text/html")
    s3.put("docs/index.html", b"docs", ContentType="text/html")
    s3.put("about.html", b"about", ContentType="text/html")
    s3.put("404.html", b"<h1>lost</h1>", ContentType="text/html")
    return await start(mounts=[_mount(s3, site=SITE)])


def _mount(s3: S3, **more: Any) -> dict[str, Any]:
    return {"path": "/", "bucket": s3.bucket, **more}


@each_row(
    ("target", "status", "body"),
    [
        ("/", 200, b"home"),
        ("/index.html", 200, b"home"),
        ("/docs/", 200, b"docs"),
        ("/docs/?a=b", 200, b"docs"),
        ("/about", 200, b"about"),
        ("/about.html", 200, b"about"),
        ("/about/", 404, b"<h1>lost</h1>"),
        ("/none", 404, b"<h1>lost</h1>"),
    ],
)
async def test_documents(site: Proxy, target: str, status: int, body: bytes) -> None:
    """A path has its object, else its index, else the object with an extension, else the error document.

    HEAD has the same.
    """
    for _ in range(2):
        response = await site.get(target)
        assert (response.status, response.body, response.headers["Content-Type"]) == (status, body, "text/html")
        head = await site.request("HEAD", target)
        assert (head.status, head.headers["Content-Length"]) == (status, str(len(body)))


async def test_an_object_comes_first(site: Proxy, s3: S3) -> None:
    """The key that the path spells takes precedence over all other candidates."""
    s3.put("about", b"itself")
    assert (await site.get("/about")).body == b"itself"


@pytest.mark.parametrize(("target", "location"), [("/docs", "/docs/"), ("/docs?x=%20&y", "/docs/?x=%20&y")])
async def test_folder_without_its_slash(site: Proxy, target: str, location: str) -> None:
    """A path of a folder redirects to that folder with its query, and fetches no body of its index."""
    for method in ("GET", "HEAD"):
        response = await site.request(method, target)
        assert (response.status, response.headers["Location"], response.body) == (301, location, b"")
    assert not any(seen.method == "GET" and seen.target.endswith("docs/index.html") for seen in site.relay.seen)


async def test_no_redirect_to_another_host(site: Proxy, s3: S3) -> None:
    """A Location never begins with two slashes, because a browser would read the rest as a host."""
    s3.put("/evil.example/index.html", b"x")
    response = await site.get("//evil.example")
    assert (response.status, response.headers.get("Location")) == (404, None)


async def test_error_document(site: Proxy) -> None:
    """An error document has the status of the failure and no validators of its own, and is not cacheable."""
    response = await site.get("/none", If_None_Match="*", Range="bytes=0-1")
    assert (response.status, response.body) == (404, b"<h1>lost</h1>")
    assert response.headers["Cache-Control"] == "no-store"
    assert not {"ETag", "Last-Modified", "Accept-Ranges", "Content-Range", "Age"} & set(response.headers)
    assert response.cache_status.startswith("fwd=miss; fwd-status=404")
    assert site.log[-1]["status"] == 404


async def test_error_document_that_is_not_there(start: StartProxy, s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    """Without its document an error has the proxy's own text. The log has one warning, whatever the requests."""
    proxy = await start(mounts=[_mount(s3, site={"errors": {"404": "gone.html"}})])
    for number in range(5):
        response = await proxy.get(f"/none{number}")
        assert (response.status, response.json()) == (404, {"error": "no such object"})
    assert caplog.text.count("gone.html does not exist") == 1


async def test_fallback(start: StartProxy, s3: S3) -> None:
    """For an application that routes in the browser, each path without an object has the fallback, with 200."""
    s3.put("app.html", b"app")
    s3.put("app.js", b"code")
    proxy = await start(mounts=[_mount(s3, site={"fallback": "app.html"})])
    for target, body in (("/", b"app"), ("/users/7", b"app"), ("/deep/", b"app"), ("/app.js", b"code")):
        response = await proxy.get(target)
        assert (response.status, response.body) == (200, body)


async def test_below_a_prefix(start: StartProxy, s3: S3) -> None:
    """Documents are below the mount's prefix."""
    s3.put("www/index.html", b"home")
    s3.put("www/a/index.html", b"a")
    s3.put("www/404.html", b"lost")
    proxy = await start(
        mounts=[{"path": "/s/", "bucket": s3.bucket, "prefix": "www/", "site": {"errors": {"404": "404.html"}}}],
        uploads=None,
    )
    assert (await proxy.get("/s/")).body == b"home"
    assert (await proxy.get("/s/a")).headers["Location"] == "/s/a/"
    assert (await proxy.get("/s/b")).body == b"lost"


async def test_without_a_site(proxy: Proxy, s3: S3) -> None:
    """Paths are only keys, and a folder is an object or a 404."""
    s3.put("docs/index.html", b"docs")
    assert (await proxy.get("/docs")).status == 404
    assert (await proxy.get("/docs/")).status == 404
    assert (await proxy.get("/")).status == 400


async def test_denied_is_not_absent(start: StartProxy, s3: S3) -> None:
    """S3 sends 403 in place of 404 if the credentials may not list.

    Further candidates are tried, and the end is a 403, never a 404 (I13).
    """
    s3.put("docs/index.html", b"docs")
    proxy = await start(mounts=[_mount(s3, site={"try_extensions": [".html"]})])

    async def deny(seen: Seen) -> bytes | None:
        return None if "docs/index" in seen.target else canned(403, "AccessDenied")

    proxy.relay.on_request = deny
    assert (await proxy.get("/docs")).headers["Location"] == "/docs/"
    assert (await proxy.get("/none")).status == 403


# --- precompressed siblings ------------------------------------------------------------------------------------


@pytest.fixture
async def packed(start: StartProxy, s3: S3) -> Proxy:
    s3.put("a.js", b"plain script", ContentType="text/javascript")
    s3.put("a.js.br", b"BR", ContentType="binary/octet-stream")
    s3.put("a.js.gz", b"GZ", ContentType="application/gzip")
    s3.put("b.css", b"plain style", ContentType="text/css")
    s3.put("c.mp4", b"film")
    s3.put("c.mp4.br", b"never")
    return await start(mounts=[_mount(s3, precompressed=["br", "gzip"])])


@pytest.mark.parametrize(
    ("accept", "body", "coding"),
    [
        ("br, gzip", b"BR", "br"),
        ("gzip, br;q=0.5", b"GZ", "gzip"),
        ("gzip", b"GZ", "gzip"),
        ("*", b"BR", "br"),
        ("br;q=0, gzip;q=0", b"plain script", None),
        ("zstd", b"plain script", None),
        ("identity", b"plain script", None),
        (None, b"plain script", None),
    ],
)
async def test_sibling(packed: Proxy, s3: S3, accept: str | None, body: bytes, coding: str | None) -> None:
    """A client that accepts a coding gets the sibling, under its own ETag, with the original's type.

    All responses have Vary (RFC 9110 sections 8.4, 12.5.3 and 12.5.5).
    """
    headers = {} if accept is None else {"Accept-Encoding": accept}
    for _ in range(2):
        response = await packed.request("GET", "/a.js", headers)
        assert (response.status, response.body, response.headers.get("Content-Encoding")) == (200, body, coding)
        assert response.headers["Content-Type"].startswith("text/javascript")
        assert response.headers["Vary"] == "Accept-Encoding"
        suffix = {"br": ".br", "gzip": ".gz", None: ""}[coding]
        assert response.headers["ETag"] == s3.head(f"a.js{suffix}")["ETag"]
        again = await packed.request("GET", "/a.js", {**headers, "If-None-Match": response.headers["ETag"]})
        assert (again.status, again.headers["Vary"]) == (304, "Accept-Encoding")


async def test_no_sibling(packed: Proxy) -> None:
    """Text without a sibling is sent as it is, and has Vary nevertheless, because a sibling may be added."""
    response = await packed.request("GET", "/b.css", {"Accept-Encoding": "br"})
    assert (response.body, response.headers["Vary"]) == (b"plain style", "Accept-Encoding")
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize(
    ("stored", "body", "coding"),
    [
        ("gzip", b"GZ", "gzip"),
        ("br, gzip", b"GZ", "gzip"),
        ("unknown", b"GZ", "gzip"),
        ("br", b"BR", "br"),
        ("BR", b"BR", "br"),
        ("identity", b"BR", "br"),
    ],
)
async def test_a_sibling_of_another_coding(packed: Proxy, s3: S3, stored: str, body: bytes, coding: str) -> None:
    """A sibling whose stored Content-Encoding contradicts its name is left out, because its bytes are not decodable."""
    s3.put("a.js.br", b"BR", ContentEncoding=stored)
    s3.put("a.js.gz", b"GZ", ContentEncoding="x-gzip")
    for _ in range(3):
        response = await packed.request("GET", "/a.js", {"Accept-Encoding": "br, gzip"})
        assert (response.status, response.body, response.headers["Content-Encoding"]) == (200, body, coding)
        assert response.headers["Vary"] == "Accept-Encoding"


async def test_only_siblings_of_another_coding(packed: Proxy, s3: S3) -> None:
    """Without a usable sibling the object itself is sent, and its absence is a 404."""
    s3.put("a.js.br", b"BR", ContentEncoding="gzip")
    s3.put("d.js.br", b"BR", ContentEncoding="gzip")
    for _ in range(2):
        response = await packed.request("GET", "/a.js", {"Accept-Encoding": "br"})
        assert (response.body, "Content-Encoding" in response.headers) == (b"plain script", False)
        assert (await packed.request("GET", "/d.js", {"Accept-Encoding": "br"})).status == 404


async def test_no_siblings_of_media(packed: Proxy) -> None:
    """Formats that are already compressed have no sibling lookups."""
    response = await packed.request("GET", "/c.mp4", {"Accept-Encoding": "br"})
    assert (response.body, "Vary" in response.headers) == (b"film", False)
    assert len(packed.relay.seen) == 1


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (500, "InternalError")])
async def test_a_refused_sibling_costs_no_request_for_each_hit(packed: Proxy, status: int, code: str) -> None:
    """A 403 or a failure of a sibling is remembered for `negative_ttl`, so hits of the plain object cost no request.

    It is no response: the sibling itself is requested again, also if the plain object is absent (I13).
    """

    async def refuse(seen: Seen) -> bytes | None:
        return canned(status, code) if seen.target.endswith(".br") else None

    async def get(target: str = "/a.js") -> bytes:
        return (await packed.request("GET", target, {"Accept-Encoding": "br"})).body

    packed.relay.on_request = refuse
    assert await get() == b"plain script"
    packed.relay.reset()
    for _ in range(3):
        assert await get() == b"plain script"
    assert not packed.relay.seen
    assert (await packed.get("/a.js.br")).status in (403, 502, 503)
    for _ in range(2):
        packed.relay.reset()
        response = await packed.request("GET", "/none.js", {"Accept-Encoding": "br"})
        assert response.status == 403 if status == 403 else response.status in (502, 503)
        assert status == 500 or any(seen.target.endswith(".br") for seen in packed.relay.seen)


@pytest.mark.parametrize("is_purged", [False, True])
async def test_a_refused_sibling_is_forgotten(packed: Proxy, *, is_purged: bool) -> None:
    """After `negative_ttl`, or a purge of a refused sibling, the next request gets the sibling (I7, I27)."""

    async def refuse(seen: Seen) -> bytes | None:
        return canned(403, "AccessDenied") if seen.target.endswith(".br") else None

    packed.relay.on_request = refuse
    assert (await packed.request("GET", "/a.js", {"Accept-Encoding": "br"})).body == b"plain script"
    packed.relay.on_request = None
    assert (await packed.request("GET", "/a.js", {"Accept-Encoding": "br"})).body == b"plain script"
    if is_purged:
        await packed.app.cache.purge([ObjectKey(packed.app.settings.mounts[0].bucket, "a.js.br")])
    else:
        packed.clock.advance(3600)
    assert (await packed.request("GET", "/a.js", {"Accept-Encoding": "br"})).body == b"BR"


async def test_range_of_a_sibling(start: StartProxy, s3: S3) -> None:
    """A range counts the coded bytes, which the ETag names (RFC 9110 section 14.2)."""
    body = pattern(3 * BLOCK)
    s3.put("a.txt.gz", body)
    proxy = await start(mounts=[_mount(s3, precompressed=["gzip"])])
    response = await proxy.request("GET", "/a.txt", {"Accept-Encoding": "gzip", "Range": "bytes=70000-70009"})
    assert (response.status, response.body, response.headers["Content-Encoding"]) == (206, body[70000:70010], "gzip")


async def test_sibling_of_what_is_down(packed: Proxy) -> None:
    """An origin that fails does not prevent a hit: the plain object is served in place of its sibling."""
    assert (await packed.get("/b.css")).status == 200

    async def fail(_: Seen) -> bytes | None:
        return canned(500, "InternalError")

    packed.relay.on_request = fail
    response = await packed.request("GET", "/b.css", {"Accept-Encoding": "br"})
    assert (response.status, response.body) == (200, b"plain style")


async def test_a_dead_origin_is_waited_for_once(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many candidates a path has, an unresponsive origin costs one timeout (I20)."""
    monkeypatch.setattr(objects, "CANDIDATES_TIMEOUT_S", 0.2)
    timeouts = {"connect_timeout": "100ms", "read_timeout": "300ms"}
    site = {"try_extensions": [".html", ".htm"], "fallback": "app.html"}
    proxy = await start(origin=timeouts, mounts=[_mount(s3, site=site, precompressed=["br"])])
    s3.put("app.html", b"app")
    s3.put("about.css.html", b"about")
    assert (await proxy.get("/about.css.html")).status == 200

    async def stall(_: Seen) -> bytes | None:
        await asyncio.Event().wait()
        return None

    proxy.relay.on_request = stall
    proxy.relay.reset()
    response = await proxy.request("GET", "/about.css", {"Accept-Encoding": "br"})
    assert (response.status, response.body) == (200, b"about")
    assert {seen.target.rpartition("/")[2] for seen in proxy.relay.seen} == {"about.css.br"}


async def test_a_fallback_is_for_what_is_absent(start: StartProxy, s3: S3) -> None:
    """In an outage it is unknown whether a path has an object.

    A script never gets an HTML page, unless an earlier 404 of S3 showed that it is absent (I13).
    """
    s3.put("app.html", b"app")
    mount = _mount(s3, site={"fallback": "app.html"}, precompressed=["br"])
    proxy = await start(mounts=[mount], freshness={"negative_ttl": "1s"})
    for target in ("/", "/users/7", "/old.css"):
        assert (await proxy.request("GET", target, {"Accept-Encoding": "br"})).body == b"app"

    async def fail(_: Seen) -> bytes | None:
        return canned(500, "InternalError")

    proxy.relay.on_request = fail
    proxy.clock.advance(2)
    for target, is_absent in (("/users/7", True), ("/old.css", True), ("/users/8", False), ("/new.css", False)):
        response = await proxy.request("GET", target, {"Accept-Encoding": "br"})
        assert response.status in ([200] if is_absent else [502, 503]), target
        assert (response.body == b"app") is is_absent, target
    response = await proxy.request("GET", "/users/9", {"Cache-Control": "only-if-cached"})
    assert response.status == 504
