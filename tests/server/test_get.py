"""GET and HEAD have the right bytes: cold, warm and half warm, for one request and for many."""

import asyncio
import email.utils

import pytest
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern

SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7)
BIG = 5 * BLOCK + 7


def blocks_asked(proxy: Proxy, key: str = "") -> list[int]:
    """Return the whole blocks that the origin sent of objects whose key ends so, each as often as it was sent."""
    found: list[int] = []
    for seen in proxy.relay.seen:
        if seen.method == "GET" and seen.status == 206 and seen.target.endswith(key):
            assert seen.content_range is not None
            first, last = seen.content_range.partition("/")[0].split("-")
            found += range(-(-int(first) // BLOCK), -(-(int(last) + 1) // BLOCK))
    return sorted(found)


@pytest.mark.parametrize("size", SIZES)
async def test_whole_object(proxy: Proxy, s3: S3, size: int) -> None:
    """A GET returns exactly the object's bytes, cold and warm, and the second one needs no request to the origin."""
    body = pattern(size)
    etag = s3.put("a/b.bin", body, ContentType="application/x-test")
    cold = await proxy.get("/a/b.bin")
    await proxy.settled()
    asked = len(proxy.relay.seen)
    warm = await proxy.get("/a/b.bin")
    for response in (cold, warm):
        assert (response.status, response.body, response.is_complete) == (200, body, True)
        assert response.headers["Content-Length"] == str(size)
        assert response.headers["ETag"] == etag
        assert response.headers["Content-Type"] == "application/x-test"
    assert cold.cache_status == f"fwd=miss; fwd-status={206 if size else 200}{'; stored' if size else ''}"
    assert warm.cache_status == "hit; ttl=300"
    assert len(proxy.relay.seen) == asked
    assert proxy.relay.body_bytes == size


async def test_first_get_needs_no_head(proxy: Proxy, s3: S3) -> None:
    """The first ranged GET brings metadata and bytes, so the origin gets no HEAD."""
    s3.put("x", pattern(BIG))
    await proxy.get("/x")
    assert {seen.method for seen in proxy.relay.seen} == {"GET"}
    assert blocks_asked(proxy) == list(range(6))


RANGES = [
    # Range, status, start, stop; RFC 9110 section 14.1.2 unless noted otherwise
    ("bytes=0-0", 206, 0, 1),
    (f"bytes={BLOCK - 1}-{BLOCK}", 206, BLOCK - 1, BLOCK + 1),
    (f"bytes=10-{BIG * 2}", 206, 10, BIG),
    ("bytes=0-", 206, 0, BIG),
    (f"bytes={2 * BLOCK}-", 206, 2 * BLOCK, BIG),
    (f"bytes={BIG - 1}-", 206, BIG - 1, BIG),
    ("bytes=-1", 206, BIG - 1, BIG),
    (f"bytes=-{BLOCK}", 206, BIG - BLOCK, BIG),
    (f"bytes=-{BIG * 2}", 206, 0, BIG),
    (f"bytes={BIG}-", 416, 0, 0),  # section 15.5.17
    (f"bytes={BIG}-{BIG + 5}", 416, 0, 0),
    ("bytes=-0", 416, 0, 0),
    ("bytes=9223372036854775807-", 416, 0, 0),
    ("bytes=99999999999999999999999-", 416, 0, 0),
    ("bytes=5-3", 200, 0, BIG),  # invalid: ignored
    ("bytes=a-b", 200, 0, BIG),
    ("lines=0-5", 200, 0, BIG),  # an unknown unit: ignored
    ("bytes=0-1, 5-6", 206, 0, 7),  # section 15.3.7.2: a small gap is sent too
]


async def test_range(proxy: Proxy, s3: S3) -> None:
    """A range has its bytes and Content-Range, or a 416 and the size: on a cold, a half-filled and a full cache.

    No block is fetched twice (I10).
    """
    body = pattern(BIG)
    for row, (header, status, first, stop) in enumerate(RANGES):
        cold, half = f"cold{row}", f"half{row}"
        s3.put(cold, body)
        s3.put(half, body)
        await proxy.get(f"/{half}", Range=f"bytes={3 * BLOCK}-{3 * BLOCK}")
        for key in (cold, half, cold, half):
            response = await proxy.get(f"/{key}", Range=header)
            assert response.status == status, header
            if status == 416:
                assert response.headers["Content-Range"] == f"bytes */{BIG}", header
                assert "error" in response.json()
                continue
            assert response.body == body[first:stop], header
            told = f"bytes {first}-{stop - 1}/{BIG}" if status == 206 else None
            assert response.headers.get("Content-Range") == told, header
        await proxy.settled()
        for key in (cold, half):
            asked = blocks_asked(proxy, f"/{key}")
            assert len(asked) == len(set(asked)), (header, key)


async def test_empty_object_has_no_range(proxy: Proxy, s3: S3) -> None:
    """No range of an empty object can be satisfied, and without a range it is a 200 (RFC 9110 section 14.1.2)."""
    s3.put("empty", b"")
    for header in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        response = await proxy.get("/empty", Range=header)
        assert (response.status, response.headers["Content-Range"]) == (416, "bytes */0")
    assert (await proxy.get("/empty")).status == 200


@pytest.mark.parametrize("after", ["stop", "auto"])
async def test_range_asks_for_its_blocks_only(start: StartProxy, s3: S3, after: str) -> None:
    """A range of a large uncached object fetches only its own blocks (I10)."""
    proxy = await start(cache={"after_disconnect": after})
    body = pattern(40 * BLOCK)
    s3.put("big", body)
    first, last = 20 * BLOCK + 5, 21 * BLOCK + 5
    response = await proxy.get("/big", Range=f"bytes={first}-{last}")
    assert response.body == body[first : last + 1]
    await proxy.settled()
    assert proxy.relay.calls == [("GET", f"bytes={20 * BLOCK}-{22 * BLOCK - 1}")]


async def test_only_missing_blocks_are_asked(proxy: Proxy, s3: S3) -> None:
    """On a half-filled object only the missing blocks are fetched, each once, and all bytes are right (I10)."""
    body = pattern(BIG)
    s3.put("x", body)
    for block in (1, 4):
        await proxy.get("/x", Range=f"bytes={block * BLOCK}-{block * BLOCK + 9}")
    await proxy.settled()
    assert blocks_asked(proxy) == [1, 4]
    response = await proxy.get("/x")
    await proxy.settled()
    assert response.body == body
    assert response.cache_status.startswith("fwd=partial")
    assert blocks_asked(proxy) == [0, 1, 2, 3, 4, 5]
    assert proxy.relay.body_bytes == BIG


async def test_single_flight(proxy: Proxy, s3: S3) -> None:
    """Twenty GETs of a cold object at once fetch each block once, and all get all bytes (I10)."""
    body = pattern(9 * BLOCK + 11)
    s3.put("x", body)
    responses = await asyncio.gather(*(proxy.get("/x") for _ in range(20)))
    assert {response.body == body for response in responses} == {True}
    assert blocks_asked(proxy) == list(range(10))
    assert proxy.relay.body_bytes == len(body)
    assert sum("collapsed" in response.cache_status for response in responses) == 19


async def test_many_ranges_at_once(proxy: Proxy, s3: S3) -> None:
    """Overlapping ranges of a cold object at once have the right bytes, and no block is fetched twice (I10)."""
    body = pattern(16 * BLOCK)
    s3.put("x", body)
    spans = [(start, min(start + 3 * BLOCK, len(body))) for start in range(0, len(body), BLOCK // 2)]
    responses = await asyncio.gather(*(proxy.get("/x", Range=f"bytes={a}-{b - 1}") for a, b in spans))
    assert [response.body == body[a:b] for response, (a, b) in zip(responses, spans, strict=True)] == [True] * len(
        spans
    )
    await proxy.settled()
    assert blocks_asked(proxy) == list(range(16))


async def test_head_is_get_without_body(proxy: Proxy, s3: S3) -> None:
    """HEAD has GET's headers, and fetches no body (RFC 9110 section 9.3.2)."""
    s3.put("x", pattern(BIG), Metadata={"who": "me"}, CacheControl="max-age=60", ContentLanguage="de")
    cold = await proxy.request("HEAD", "/x")
    await proxy.settled()
    assert proxy.relay.calls == [("HEAD", None)]
    await proxy.get("/x")
    got, head = await proxy.get("/x"), await proxy.request("HEAD", "/x")
    ignored = {"Date", "Cache-Status", "X-Request-Id"}
    for response in (cold, head):
        assert response.status == 200
        assert response.body == b""
        assert {k: v for k, v in response.headers.items() if k not in ignored} == {
            k: v for k, v in got.headers.items() if k not in ignored
        }
    assert head.headers["Cache-Status"] == got.headers["Cache-Status"]


async def test_head_ignores_range(proxy: Proxy, s3: S3) -> None:
    """Range is defined for GET only (RFC 9110 section 14.2)."""
    s3.put("x", pattern(BIG))
    response = await proxy.request("HEAD", "/x", {"Range": "bytes=0-5"})
    assert (response.status, response.headers["Content-Length"]) == (200, str(BIG))


async def test_nothing_follows_a_head_or_a_304(proxy: Proxy, s3: S3) -> None:
    """On a kept connection the next response begins right after the head of a HEAD, a 304 or a 204."""
    etag = s3.put("x", pattern(100))
    async with proxy.connection() as connection:
        for method, headers, status in (
            ("HEAD", {}, 200),
            ("GET", {"If-None-Match": etag}, 304),
            ("HEAD", {"If-None-Match": etag}, 304),
            ("DELETE", {}, 204),
        ):
            assert (await connection.request(method, "/x", headers)).status == status
        assert (await connection.request("GET", "/x")).status == 404


OTHER = '"00000000000000000000000000000000"'
CONDITIONS = [
    # fields, status; RFC 9110 sections 13.1 and 13.2.2. {etag}, {before}, {at}, {after} are filled in.
    ({"If-Match": "{etag}"}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": OTHER}, 412),
    ({"If-Match": "W/{etag}"}, 412),  # 13.1.1: strong comparison
    ({"If-Match": f"{OTHER}, {{etag}}"}, 200),
    ({"If-None-Match": "{etag}"}, 304),
    ({"If-None-Match": "W/{etag}"}, 304),  # 13.1.2: weak comparison
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": OTHER}, 200),
    ({"If-Modified-Since": "{at}"}, 304),
    ({"If-Modified-Since": "{after}"}, 304),
    ({"If-Modified-Since": "{before}"}, 200),
    ({"If-Modified-Since": "yesterday"}, 200),
    ({"If-Unmodified-Since": "{at}"}, 200),
    ({"If-Unmodified-Since": "{before}"}, 412),
    ({"If-Match": "{etag}", "If-Unmodified-Since": "{before}"}, 200),  # step 1 over step 2
    ({"If-Match": OTHER, "If-None-Match": "{etag}"}, 412),  # step 1 before step 3
    ({"If-Match": "{etag}", "If-None-Match": "{etag}"}, 304),
    ({"If-None-Match": OTHER, "If-Modified-Since": "{at}"}, 200),  # step 3 over step 4
    ({"If-Unmodified-Since": "{before}", "If-None-Match": "{etag}"}, 412),  # step 2 before step 3
    ({"Range": "bytes=0-4", "If-None-Match": "{etag}"}, 304),  # step 5 comes last
    ({"Range": "bytes=0-4", "If-Match": OTHER}, 412),
    ({"Range": "bytes=0-4", "If-Range": "{etag}"}, 206),  # 13.1.5
    ({"Range": "bytes=0-4", "If-Range": "W/{etag}"}, 200),
    ({"Range": "bytes=0-4", "If-Range": OTHER}, 200),
    ({"Range": "bytes=0-4", "If-Range": "{at}"}, 206),
    ({"Range": "bytes=0-4", "If-Range": "{before}"}, 200),
    ({"Range": "bytes=0-4", "If-Range": "{after}"}, 200),
    ({"Range": "bytes=999-", "If-Range": OTHER}, 200),  # the Range is ignored, and with it the 416
    ({"Range": "bytes=999-", "If-Range": "{etag}"}, 416),
    ({"If-Range": "{etag}"}, 200),
]


async def test_conditional_requests(proxy: Proxy, s3: S3) -> None:
    """Every precondition and their order, on a cold and on a warm cache, with the body that the status requires."""
    body = pattern(100)
    etag = s3.put("x", body)
    at = s3.head("x")["LastModified"].timestamp()
    words = {
        "etag": etag,
        "before": email.utils.formatdate(at - 10, usegmt=True),
        "at": email.utils.formatdate(at, usegmt=True),
        "after": email.utils.formatdate(at + 10, usegmt=True),
    }
    expected = {200: body, 206: body[:5], 304: b""}
    for fields, status in CONDITIONS:
        headers = {name: value.format(**words) for name, value in fields.items()}
        for warmth in ("cold", "warm"):
            if warmth == "cold":
                await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')
            response = await proxy.request("GET", "/x", headers)
            assert response.status == status, (fields, warmth)
            assert response.body == expected.get(status, response.body), (fields, warmth)
            if status == 304:
                assert response.headers["ETag"] == etag
                assert response.headers.get("Content-Length") in (None, str(len(body)))  # section 8.6


async def test_if_range_by_a_young_date_gives_the_whole(proxy: Proxy, s3: S3) -> None:
    """A Last-Modified of this minute is a weak validator, so its If-Range fails (RFC 9110 section 8.8.2.2)."""
    body = pattern(100)
    s3.put("x", body)
    modified = s3.head("x")["LastModified"].timestamp()
    proxy.clock.now = modified + 5
    date = email.utils.formatdate(modified, usegmt=True)
    assert (await proxy.get("/x", Range="bytes=0-4", If_Range=date)).status == 200
    proxy.clock.now = modified + 100
    assert (await proxy.get("/x", Range="bytes=0-4", If_Range=date)).status == 206


async def test_object_headers_pass(proxy: Proxy, s3: S3) -> None:
    """The headers that S3 stores with an object come back unchanged, also user metadata, and no other header of S3
    (I4, I25).
    """
    etag = s3.put(
        "x",
        b"data",
        ContentType='text/plain; charset="utf-8"',
        ContentEncoding="identity",
        ContentLanguage="en, de",
        ContentDisposition='attachment; filename="x y.txt"',
        CacheControl="public, max-age=60",
        Metadata={"owner": "me", "empty-ish": "0"},
    )
    response = await proxy.get("/x")
    wanted = {
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Encoding": "identity",
        "Content-Language": "en, de",
        "Content-Disposition": 'attachment; filename="x y.txt"',
        "Cache-Control": "public, max-age=60",
        "x-amz-meta-owner": "me",
        "x-amz-meta-empty-ish": "0",
        "ETag": etag,
        "Last-Modified": email.utils.formatdate(s3.head("x")["LastModified"].timestamp(), usegmt=True),
        "Accept-Ranges": "bytes",
        "Age": "0",
        "Via": "1.1 bucketfront",
    }
    assert {name: response.headers.get(name) for name in wanted} == wanted
    assert "Date" in response.headers
    strangers = [name for name in response.headers if name.lower().startswith("x-amz") and "meta" not in name]
    assert strangers == []
    assert len(set(response.headers)) == len(response.headers)


async def test_every_answer_says_what_the_cache_did(proxy: Proxy, s3: S3) -> None:
    """`Cache-Status`, `Via` and `Date` are on every response, also on errors, and errors are short JSON."""
    etag = s3.put("x", b"data")
    cases = [
        ("GET", "/x", {}, 200),
        ("GET", "/x", {"Range": "bytes=0-1"}, 206),
        ("GET", "/x", {"If-None-Match": etag}, 304),
        ("GET", "/x", {"If-Match": OTHER}, 412),
        ("GET", "/x", {"Range": "bytes=9-"}, 416),
        ("GET", "/absent", {}, 404),
        ("GET", "/%zz", {}, 400),
        ("PATCH", "/x", {}, 405),
        ("PUT", "/x", {"Content-Length": "0"}, 201),
        ("DELETE", "/x", {}, 204),
    ]
    for method, target, headers, status in cases:
        response = await proxy.request(method, target, headers)
        assert response.status == status, (method, target)
        assert response.headers["Cache-Status"].startswith("bucketfront; "), (method, target)
        assert response.headers["Via"] == "1.1 bucketfront"
        assert "Date" in response.headers
        if status >= 400:
            assert response.headers["Content-Type"] == "application/json"
            assert list(response.json()) == ["error"]


async def test_age_follows_the_clock(proxy: Proxy, s3: S3) -> None:
    """`Age` is the time since the origin's response, and the ttl in Cache-Status shrinks (RFC 9111 section 5.1)."""
    s3.put("x", b"data")
    assert (await proxy.get("/x")).headers["Age"] == "0"
    proxy.clock.advance(100)
    response = await proxy.get("/x")
    assert response.headers["Age"] == "100"
    assert response.cache_status == "hit; ttl=200"
    assert (await proxy.request("HEAD", "/x")).headers["Age"] == "100"


async def test_object_smaller_than_a_block_is_one_request(proxy: Proxy, s3: S3) -> None:
    """A cold GET of a small object is one request of one part to the origin."""
    s3.put("x", b"data")
    await proxy.get("/x")
    assert proxy.relay.calls == [("GET", f"bytes=0-{PART - 1}")]


async def test_version_changes_between_parts(proxy: Proxy, s3: S3) -> None:
    """An object that is overwritten during a fill never mixes. The response is one version, or is cut off (I1)."""
    old, new = pattern(8 * BLOCK, seed=1), pattern(8 * BLOCK, seed=7)
    s3.put("x", old)
    # The first part fixes the version; its successor finds another one.
    await proxy.get("/x", Range=f"bytes=0-{BLOCK}")
    await proxy.settled()
    s3.put("x", new)
    response = await proxy.get("/x")
    assert response.body == new if response.is_complete else old.startswith(response.body)
    again = await proxy.get("/x")
    assert again.body == new
    assert again.is_complete


async def test_cors(start: StartProxy, s3: S3) -> None:
    """Pages of the allowed origins may read responses and errors, and other pages get no such header."""
    s3.put("x", b"data")
    proxy = await start(cors={"allow_origins": ["https://app.test"]})
    for target in ("/x", "/absent"):
        response = await proxy.get(target, Origin="https://app.test")
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.test"
        assert response.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Origin" not in (await proxy.get(target, Origin="https://evil.test")).headers


async def test_an_object_that_is_a_response_of_several_parts(proxy: Proxy, s3: S3) -> None:
    """An object of the type `multipart/byteranges` is served as any other, whole and by range (I1)."""
    body, kind = pattern(3 * BLOCK), "multipart/byteranges; boundary=x"
    s3.put("x", body, ContentType=kind)
    part = await proxy.get("/x", Range="bytes=5-99")
    assert (part.status, part.headers["Content-Type"], part.body) == (206, kind, body[5:100])
    assert part.headers["Content-Range"] == f"bytes 5-99/{len(body)}"
    whole = await proxy.get("/x")
    assert (whole.status, whole.headers["Content-Type"], whole.body) == (200, kind, body)
