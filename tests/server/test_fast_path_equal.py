"""The fast path's responses equal the ordinary path's (I24, I26). Two proxies are compared byte for byte."""

import asyncio
import contextlib
import os
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser
from http_table import ROWS, SIZE
from mutation import HEADS, mutated
from proxy_under_test import S3, Proxy, StartProxy, pattern
from test_http_table import headers_of
from wire import Connection, connected, message

from bucketfront.server.fast_path.recogniser import FIRST, LAST, recogniser

pytestmark = pytest.mark.long

ROUNDS = int(os.environ.get("BUCKETFRONT_FUZZ_ROUNDS", "400"))  # of heads sent to both; a hundred times as many parsed
ENDING = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
QUIET = 0.05  # seconds after which a server that waits for more gets more


@dataclass(frozen=True, slots=True)
class Pair:
    fast: Proxy
    slow: Proxy

    @property
    def answered(self) -> int:
        assert not self.slow.app.fast_path.is_on
        assert self.fast.app.fast_path.is_on
        return self.fast.app.fast_path.served

    async def warm(self, *targets: str, **headers: str) -> None:
        for proxy in (self.fast, self.slow):
            for target in targets:
                await proxy.get(target, **headers)
            await proxy.settled()

    async def compare(self, *segments: bytes) -> bytes:
        """Return the response that both have to these segments, without Date and Age."""
        fast, slow = [await _told(proxy, segments) for proxy in (self.fast, self.slow)]
        assert fast == slow, segments
        await self.fast.app.catch_up()  # for `answered`, if front ends have served it
        return fast


async def _told(proxy: Proxy, segments: Iterable[bytes]) -> bytes:
    """Return all bytes until the server closes, at the latest after a last request, without those that depend on the
    moment.
    """
    told = b""
    async with connected(proxy.address) as connection:
        with contextlib.suppress(ConnectionError):
            for segment in segments:
                await connection.send(segment)
                told += await _what_comes(connection, has_body=not segment.startswith(b"HEAD "))
            await connection.send(ENDING)
        told += await connection.rest()
    boundary = re.search(rb"boundary=([0-9a-f]{32})", told)
    if boundary is not None:
        told = told.replace(boundary[1], b"")
    # Ids are made on the ordinary path alone. test_log_fields.py has those that clients bring.
    told = re.sub(rb"\r\n(?:x-amz|X)-(?i:request-id): [^\r]*|<RequestId>[^<]*", b"", told)
    return re.sub(rb"\r\n(?:Date|Age): [^\r]*", b"", told)


async def _what_comes(connection: Connection, *, has_body: bool) -> bytes:
    """Read one response if its length is known, else what arrives."""
    try:
        async with asyncio.timeout(QUIET):
            told = await connection.reader.read(1 << 20)
    except TimeoutError:
        return b""
    length = re.search(rb"\r\nContent-Length: (\d+)", told)
    if has_body and length is not None and b"\r\n\r\n" in told and b" 304 " not in told[:16]:
        missing = int(length[1]) - len(told.partition(b"\r\n\r\n")[2])
        try:
            async with asyncio.timeout(QUIET):  # it may be the response to a HEAD in a second segment
                told += await connection.reader.readexactly(max(missing, 0))
        except (TimeoutError, asyncio.IncompleteReadError):
            pass
    return told


StartPair = Callable[..., Awaitable[Pair]]


@pytest.fixture
def start_pair(start: StartProxy) -> StartPair:
    async def started(**sections: object) -> Pair:
        fast = await start(**sections)
        folder = fast.app.settings.cache.dir
        server = {**sections.get("server", {}), "fast_path": False}  # type: ignore[dict-item]
        apart = {"cache": {"dir": str(folder.with_name("slow"))}, "access_log": {"path": str(folder) + "-slow.log"}}
        return Pair(fast, await start(**{**sections, **apart, "server": server}))

    return started


async def test_http_table(start_pair: StartPair, s3: S3) -> None:
    """Each row of ranges and conditions, and its HEAD, has one response on both paths.

    Plain rows take the fast path (I26).
    """
    pair = await start_pair()
    for key, size in (("x", SIZE), ("large", 16 * SIZE)):
        s3.put(key, pattern(size), Metadata={"who": "me"}, ContentType="text/plain", CacheControl="max-age=60")
        await pair.warm(f"/{key}")
        before = pair.answered
        for row in ROWS:
            headers = headers_of(row, s3, key)
            await pair.compare(message("GET", f"/{key}", headers))
            await pair.compare(message("HEAD", f"/{key}", headers))
        assert pair.answered - before > 20


TARGETS = (
    "/x", "/x?", "/x?v=1", "/x?versionId=1", "/x?response-content-type=a/b", "/x?response-expires=0", "/%78", "/%2578",
    "/y%20z", "/y z", "//x", "/./x", "/../x", "/x/", "/", "/%", "/%zz", "/%ff", "/%00", "/x#f", "/x%23",
    "/x;a=b", "/x:1",
    "/a/b/../x", "http://other/x", "http:/x", "*", "/x?a=%00", "/x?" + "a" * 3000, "/" + "x" * 1100, "/empty", "/none",
    "/x?partNumber=1", "/@:!$&'()*+,;=~", "/a&b",
)  # fmt: skip


async def test_targets(start_pair: StartPair, s3: S3) -> None:
    """A target has one key, or none, on both paths (I23)."""
    mounts = [{"path": "/", "bucket": s3.bucket, "versions": True, "response_overrides": True}]
    pair = await start_pair(mounts=mounts)
    for key in ("x", "y z", "x/", "%78", "a&b", "@:!$&'()*+,;=~"):
        s3.put(key, pattern(100))
    s3.put("empty", b"")
    plain = [target for target in TARGETS if " " not in target]
    await pair.warm(*plain)
    before = pair.answered
    for target in TARGETS:
        for method in ("GET", "HEAD", "get", "POST"):
            await pair.compare(message(method, target))
    assert pair.answered - before > 20


async def test_presentation(start_pair: StartPair, s3: S3) -> None:
    """Sites, siblings, rules and CORS present an object alike on both paths, for every kind of client."""
    mounts = [
        {"path": "/", "bucket": s3.bucket, "precompressed": ["br", "gzip"],
         "site": {"index": "index.html", "try_extensions": [".html"], "errors": {"404": "404.html"}}}
    ]  # fmt: skip
    rules = [{"match": "ruled/*", "cache_control": "max-age=7", "headers": {"X-New": "1", "Content-Language": None}}]
    cors = {"allow_origins": ["https://a.example"], "timing_allow_origins": ["*"]}
    pair = await start_pair(mounts=mounts, freshness={"rules": rules}, cors=cors)
    for key in (
        "a.js",
        "a.js.br",
        "b.js",
        "b.js.gz",
        "index.html",
        "about.html",
        "404.html",
        "ruled/x",
        "dir/index.html",
    ):
        s3.put(key, pattern(500, len(key)), ContentLanguage="de")
    targets = (
        "/a.js",
        "/a.js?X-Amz-Signature=0",
        "/?X-Amz-Signature=0",
        "/b.js",
        "/",
        "/index.html",
        "/about",
        "/about.html",
        "/nothing",
        "/ruled/x",
        "/dir",
        "/dir/",
    )
    wishes: list[dict[str, str]] = [
        {}, {"Accept-Encoding": "br, gzip"}, {"Accept-Encoding": "gzip"}, {"Accept-Encoding": "br;q=0"},
        {"Accept-Encoding": "identity, *;q=0"}, {"Origin": "https://a.example"}, {"Origin": "https://b.example"},
        {"Origin": "null", "Accept-Encoding": "gzip", "Range": "bytes=3-9"},
        {"Authorization": "AWS A:b", "Accept-Encoding": "br"}, {"amz-sdk-invocation-id": "1"},
    ]  # fmt: skip
    for wish in wishes:
        await pair.warm(*targets, **{name.replace("-", "_"): value for name, value in wish.items()})
    before = pair.answered
    for target in targets:
        for wish in wishes:
            for method in ("GET", "HEAD"):
                await pair.compare(message(method, target, wish))
    assert pair.answered - before > 80  # the first one of a path goes to the owner, if there are front ends


async def test_log_and_metrics(start_pair: StartPair, s3: S3) -> None:
    """Both paths log and count a hit alike."""
    pair = await start_pair()
    s3.put("x", pattern(1000))
    s3.put("large", pattern(300_000))
    await pair.warm("/x", "/large", "/x", "/large")
    before = pair.answered
    for headers in ({}, {"Range": "bytes=1-9"}, {"If-None-Match": "*"}):
        for target in ("/x?secret=1", "/large"):
            for method in ("GET", "HEAD"):
                await pair.compare(message(method, target, headers))
    assert pair.answered - before >= 8
    of_one = {"time": "", "ms": 0, "first_byte_ms": 0, "request_id": ""}
    logs = [[line | of_one for line in proxy.log] for proxy in (pair.fast, pair.slow)]
    logs = [sorted(lines, key=repr) for lines in logs]  # those of several processes come in batches
    assert logs[0] == logs[1]
    counts = []
    for proxy in (pair.fast, pair.slow):
        lines = (await proxy.admin("GET", "/metrics")).body.decode().splitlines()
        names = ("bucketfront_requests_total", "bucketfront_sent_bytes_total", "bucketfront_cache_hits")
        counts.append(sorted(line for line in lines if line.startswith(names)))
    assert counts[0] == counts[1]


async def test_mutated_heads(start_pair: StartPair, s3: S3) -> None:
    """Realistic heads with random changes get the same bytes from both paths.

    They come whole or in two segments, as the first or the second request of a connection.
    """
    pair = await start_pair()
    s3.put("x", pattern(1000), ContentType="text/plain")
    await pair.warm("/x", "/x", "/last", "/last")
    dice = random.Random(4)
    before = pair.answered
    for _ in range(ROUNDS):
        head = mutated(dice)
        kind = dice.randrange(4)
        if kind == 0:
            cut = dice.randrange(1, len(head) + 1)
            await pair.compare(head[:cut], head[cut:])
        elif kind == 1:
            await pair.compare(dice.choice(HEADS), head)
        else:
            await pair.compare(head)
    assert pair.answered - before > ROUNDS // 3


class _Connection(BaseProtocol):
    """The part of a connection that aiohttp's parser uses."""

    def _pause_reading_for_buffer(self) -> None:
        raise AssertionError("one request needs no pause")


async def test_parser_agrees() -> None:
    """To aiohttp's parser, each recognised request is one request with the same method, target and fields, and no
    body.
    """
    loop = asyncio.get_running_loop()
    recognise = recogniser(frozenset({"accept-encoding"}))
    dice = random.Random(7)
    names = ("If-None-Match", "If-Modified-Since", "Origin", "Accept-Encoding")
    recognised = 0
    for _ in range(ROUNDS * 50):
        head = mutated(dice)
        asked = recognise(head)
        if asked is None:
            continue
        recognised += 1
        parser = HttpRequestParser(_Connection(loop), loop, 1 << 16, max_line_size=16 << 10, auto_decompress=False)
        ((message_, body),), is_upgraded, tail = parser.feed_data(head)
        told = [message_.headers.getall(name, []) for name in names]
        assert not is_upgraded
        assert not tail
        assert body.is_eof()
        assert (message_.should_close, message_.chunked, message_.upgrade) == (False, False, False), head
        assert (message_.method.encode(), message_.path.encode()) == asked[:2], head
        assert told == [[] if value is None else [value.decode()] for value in asked[2:6]], head
        first, last = asked[FIRST], asked[LAST]
        ranges = [] if first is None else [f"bytes={first.decode()}-{(last or b'').decode()}"]
        assert message_.headers.getall("Range", []) == ranges, head
        assert len(message_.headers.getall("Host")) == 1, head
        for name in ("If-Match", "If-Range", "If-Unmodified-Since", "Expect", "Content-Length", "Transfer-Encoding"):
            assert name not in message_.headers, head
    assert recognised > ROUNDS * 10
