"""How an object appears in a response: types, headers of rules, errors for programs and people, timings, HEAD like
GET.
"""

import asyncio

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from relay import Seen, canned

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

TYPES = {
    "a.m3u8": "application/vnd.apple.mpegurl",
    "a.mpd": "application/dash+xml",
    "a.m4s": "video/iso.segment",
    "a.ts": "video/mp2t",
    "a.mp4": "video/mp4",
    "a.webm": "video/webm",
    "a.vtt": "text/vtt; charset=utf-8",
    "a.wasm": "application/wasm",
    "A.MP4": "video/mp4",
    "a.unknown": "binary/octet-stream",
    "none": "binary/octet-stream",
}


async def test_types_by_extension(proxy: Proxy, s3: S3) -> None:
    """An object without a type of its own at S3 gets the type of its extension."""
    for key, wanted in TYPES.items():
        s3.put(key, b"data", ContentType="binary/octet-stream")
        for method in ("GET", "HEAD"):
            assert (await proxy.request(method, f"/{key}")).headers["Content-Type"] == wanted, key


async def test_types_that_were_set(proxy: Proxy, s3: S3) -> None:
    """A type that was chosen stays, also `application/octet-stream`, which means "save as a file"."""
    for chosen in ("text/x-own", "application/octet-stream"):
        s3.put("a.mp4", b"data", ContentType=chosen)
        await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/a.mp4"]}')
        assert (await proxy.get("/a.mp4")).headers["Content-Type"] == chosen


async def test_no_guessing(start: StartProxy, s3: S3) -> None:
    """With `guess_types: false` S3's type is passed on."""
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "guess_types": False}])
    s3.put("a.mp4", b"data", ContentType="binary/octet-stream")
    assert (await proxy.get("/a.mp4")).headers["Content-Type"] == "binary/octet-stream"


async def test_rules_change_headers(start: StartProxy, s3: S3) -> None:
    """A rule sets and removes headers and replaces Cache-Control for clients.

    What is stored, and for how long, does not change.
    """
    proxy = await start(
        freshness={
            "rules": [
                {
                    "match": "a/**",
                    "headers": {"X-Robots-Tag": "noindex", "x-amz-meta-author": None, "Content-Language": "de"},
                    "cache_control": "public, max-age=5",
                }
            ]
        }
    )
    told = {"Metadata": {"author": "me", "kept": "yes"}, "CacheControl": "max-age=60", "ContentLanguage": "en"}
    for key in ("a/x", "b/x"):
        s3.put(key, b"data", **told)
    for status, headers in ((200, {}), (206, {"Range": "bytes=0-1"})):
        response = await proxy.request("GET", "/a/x", headers)
        assert response.status == status
        assert response.headers["X-Robots-Tag"] == "noindex"
        assert response.headers.getall("Content-Language") == ["de"]
        assert response.headers.getall("Cache-Control") == ["public, max-age=5"]
        assert "x-amz-meta-author" not in response.headers
        assert response.headers["x-amz-meta-kept"] == "yes"
    assert (await proxy.get("/a/x")).cache_status == "hit; ttl=60"
    other = await proxy.get("/b/x")
    assert (other.headers["Cache-Control"], other.headers["x-amz-meta-author"]) == ("max-age=60", "me")


async def test_rule_without_cache(start: StartProxy, s3: S3) -> None:
    """With `cache: false` an object is served whole, fetched each time, and never stored."""
    proxy = await start(freshness={"rules": [{"match": "p/**", "cache": False}]})
    body = pattern(3 * BLOCK + 1)
    s3.put("p/x", body)
    for _ in range(2):
        response = await proxy.get("/p/x")
        assert (response.body, response.cache_status.partition(";")[0]) == (body, "fwd=miss")
    s3.put("p/x", b"new")
    assert (await proxy.get("/p/x")).body == b"new"
    assert proxy.figures["entries"] == 0


async def test_rule_for_absence(start: StartProxy, s3: S3) -> None:
    """A rule's `negative_ttl` applies to its keys. The built-in one for segments is a second, for the live edge."""
    proxy = await start(freshness={"rules": [{"match": "slow/**", "negative_ttl": "1m"}]})
    for key, seconds in (("slow/x", 60), ("live/1.m4s", 1), ("live/a.m3u8", 1), ("other", 10)):
        assert (await proxy.get(f"/{key}")).status == 404
        s3.put(key, b"data")
        proxy.clock.advance(seconds - 0.5)
        assert (await proxy.get(f"/{key}")).status == 404, key
        proxy.clock.advance(0.5)
        assert (await proxy.get(f"/{key}")).status == 200, key


async def test_media_rules(start: StartProxy, s3: S3) -> None:
    """Playlists are fresh for 2 s and never served stale, segments for a day. A setting turns that off."""
    for key in ("a.m3u8", "a.mpd", "a.ts", "a.m4s"):
        s3.put(key, b"old")
    proxy = await start()
    for key, ttl in (("a.m3u8", 2), ("a.mpd", 2), ("a.ts", 86400), ("a.m4s", 86400)):
        await proxy.get(f"/{key}")
        assert (await proxy.get(f"/{key}")).cache_status == f"hit; ttl={ttl}", key
    s3.put("a.m3u8", b"new")
    proxy.clock.advance(2)
    assert (await proxy.get("/a.m3u8")).body == b"new"
    await proxy.stop()
    proxy = await start(freshness={"media_rules": False})
    s3.put("b.m3u8", b"data")
    await proxy.get("/b.m3u8")
    assert (await proxy.get("/b.m3u8")).cache_status == "hit; ttl=300"


async def test_head_is_gets_head(proxy: Proxy, s3: S3) -> None:
    """HEAD has GET's headers, cold and warm, found and not, and fetches no body (RFC 9110 section 9.3.2)."""
    s3.put("x.css", pattern(5 * BLOCK), CacheControl="max-age=60", Metadata={"a": "b"})
    for target in ("/x.css", "/none", "/%ff"):
        head = await proxy.request("HEAD", target)
        assert (head.body, proxy.relay.body_bytes) == (b"", 0)
        get = await proxy.get(target)
        again = await proxy.request("HEAD", target)
        volatile = {"Cache-Status", "Date", "X-Request-Id"}
        for response in (head, again):
            assert response.status == get.status
            ours = {name: value for name, value in response.headers.items() if name not in volatile}
            assert ours == {name: value for name, value in get.headers.items() if name not in volatile}
        await proxy.settled()
        proxy.relay.reset()
        await proxy.request("HEAD", target)
        assert proxy.relay.seen == []


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [("/none", 404, "no such object"), ("/%ff", 400, "not UTF-8"), ("/x?versionId=", 400, "versionId")],
)
async def test_errors_by_accept(proxy: Proxy, target: str, status: int, words: str) -> None:
    """An error is JSON for programs and a page for browsers, with Vary (RFC 9110 section 12.5.1)."""
    plain = await proxy.get(target, Accept="*/*")
    page = await proxy.get(target, Accept=BROWSER)
    for response in (plain, page):
        assert (response.status, response.headers["Vary"]) == (status, "Accept")
        assert response.headers["Cache-Control"] == "no-store"
        assert "Cache-Status" in response.headers
    assert words in plain.json()["error"]
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert words in page.body.decode()
    assert f"<h1>{status} " in page.body.decode()


async def test_error_pages_quote_safely(proxy: Proxy) -> None:
    """The client's input appears in a page as text, never as markup."""
    response = await proxy.get("/%<script>", Accept=BROWSER)
    assert response.status == 400
    assert b"<script" not in response.body


async def test_cache_status_on_every_answer(proxy: Proxy, s3: S3) -> None:
    """Each response has the cache's decision, also failures and refusals (RFC 9211)."""
    s3.put("x", b"data")
    asked = [
        ("GET", "/x", {}), ("HEAD", "/x", {}), ("GET", "/x", {"Range": "bytes=9-"}), ("GET", "/x", {"If-Match": '"a"'}),
        ("GET", "/none", {}), ("GET", "/%ff", {}), ("PATCH", "/x", {}), ("OPTIONS", "/x", {}), ("PUT", "/y", {}),
        ("DELETE", "/y", {}), ("GET", "/x", {"Expect": "100-continue"}), ("GET", "/x", {"Content-Length": "x"}),
    ]  # fmt: skip
    for method, target, headers in asked:
        response = await proxy.request(method, target, headers)
        assert response.headers.getall("Cache-Status")[0].startswith("bucketfront; "), (method, target, headers)


async def test_server_timing(start: StartProxy, s3: S3) -> None:
    """A setting adds the durations of the phases to each response. By default they are absent."""
    s3.put("x", b"data")
    proxy = await start()
    assert "Server-Timing" not in (await proxy.get("/x")).headers
    await proxy.stop()
    proxy = await start(server={"timing": True})
    told = [(await proxy.get("/x")).headers["Server-Timing"] for _ in range(2)]
    assert told[1].startswith("cache;desc=hit, lookup;dur=")
    assert "wait;dur=" in told[1]
    assert "Server-Timing" in (await proxy.get("/none")).headers


# --- transparent revalidation ----------------------------------------------------------------------------------


async def test_metadata_that_changed_under_the_same_etag(proxy: Proxy, s3: S3) -> None:
    """An object copied onto itself keeps its ETag. A revalidation takes over its new metadata.

    Its bytes are fetched once more, because some ETags do not tell versions apart (I1).
    """
    body = pattern(3 * BLOCK)
    etag = s3.put("x", body, CacheControl="max-age=60", ContentType="text/old")
    await proxy.get("/x")
    await proxy.settled()
    s3.client.copy_object(
        Bucket=s3.bucket,
        Key="x",
        CopySource={"Bucket": s3.bucket, "Key": "x"},
        MetadataDirective="REPLACE",
        CacheControl="max-age=5",
        ContentType="text/new",
    )

    async def not_modified(seen: Seen) -> bytes | None:
        # S3's 304 has the time of the copy. moto's has not, and the copy is too soon for a clock of whole seconds.
        told = (f"ETag: {etag}", "Last-Modified: Fri, 01 Jan 2100 00:00:00 GMT")
        return canned(304, "", *told) if seen.headers.get("if-none-match") == etag else None

    proxy.relay.on_request = not_modified
    assert s3.head("x")["ETag"] == etag
    proxy.relay.reset()
    proxy.clock.advance(1000)
    response = await proxy.get("/x")
    assert (response.body, response.headers["ETag"], response.headers["Content-Type"]) == (body, etag, "text/new")
    await proxy.settled()
    assert proxy.relay.body_bytes == len(body)
    assert (await proxy.get("/x")).cache_status == "hit; ttl=5"


async def test_metadata_that_changed_shows_in_the_background_too(proxy: Proxy, s3: S3) -> None:
    """A revalidation behind a stale response takes over all of the object's metadata."""
    s3.put("x", b"data", ContentType="text/old")
    await proxy.get("/x")
    s3.client.copy_object(
        Bucket=s3.bucket, Key="x", CopySource={"Bucket": s3.bucket, "Key": "x"}, MetadataDirective="REPLACE",
        ContentType="text/new",
    )  # fmt: skip
    proxy.relay.reset()
    proxy.clock.advance(330)
    assert (await proxy.get("/x")).headers["Content-Type"] == "text/old"
    await until(lambda: [seen.is_over for seen in proxy.relay.seen] == [True])
    response = await proxy.get("/x")
    assert (response.headers["Content-Type"], response.body) == ("text/new", b"data")
    assert proxy.relay.seen[0].method == "HEAD"


# --- what a client may ask of the cache ------------------------------------------------------------------------


async def test_only_if_cached(proxy: Proxy, s3: S3) -> None:
    """The response comes from the cache, or is a 504. The origin gets no request (RFC 9111 section 5.2.1.7)."""
    body = pattern(6 * BLOCK)
    s3.put("x", body)
    asked = {"Cache-Control": "only-if-cached"}
    assert (await proxy.request("GET", "/x", asked)).status == 504
    assert proxy.relay.seen == []
    await proxy.get("/x", Range="bytes=0-9")
    await proxy.settled()
    proxy.relay.reset()
    assert (await proxy.request("GET", "/x", {**asked, "Range": "bytes=5-9"})).body == body[5:10]
    assert (await proxy.request("HEAD", "/x", asked)).status == 200
    assert (await proxy.request("GET", "/x", asked)).status == 504
    assert proxy.relay.seen == []


async def test_what_must_not_be_stored_answers_one_request(proxy: Proxy, s3: S3) -> None:
    """A `no-store` response serves no other request, not even a waiting one (RFC 9111 section 5.2.2.5)."""
    s3.put("x", b"data", CacheControl="no-store")
    responses = await asyncio.gather(*(proxy.get("/x") for _ in range(8)))
    assert {response.body for response in responses} == {b"data"}
    assert len(proxy.relay.seen) == 8
    assert not [response for response in responses if "collapsed" in response.cache_status]
    await until(lambda: not proxy.figures["bytes_used"])


async def test_stale_by_its_own_word(proxy: Proxy, s3: S3) -> None:
    """An object with `max-age=0` is revalidated each time, and the configured stale window does not apply."""
    s3.put("x", b"old", CacheControl="max-age=0")
    await proxy.get("/x")
    s3.put("x", b"new", CacheControl="max-age=0")
    assert (await proxy.get("/x")).body == b"new"


async def test_denied_in_the_background(proxy: Proxy, s3: S3) -> None:
    """If S3 withdraws access, serving ends with the first refusal, not with the stale window (I13)."""
    s3.put("x", b"data")
    await proxy.get("/x")

    async def deny(_: Seen) -> bytes | None:
        return canned(403, "AccessDenied")

    proxy.relay.on_request = deny
    proxy.relay.reset()
    proxy.clock.advance(310)
    assert (await proxy.get("/x")).status == 200
    await until(lambda: [seen.is_over for seen in proxy.relay.seen] == [True, True])  # HEAD, and GET for the code
    while (await proxy.get("/x")).status != 403:
        assert len(proxy.relay.seen) == 2, "the first refusal is enough"
