"""An origin that fails, or a client that sends nonsense, gets a clear error soon, and no error is cached."""

import asyncio
import random
import time

import pytest
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern, until
from relay import Cut, Seen, canned
from stopwatch import HANG_S
from wire import Response, message

from bucketfront.cache.fetch import body_stream
from bucketfront.s3 import breaker
from bucketfront.s3.breaker import Breaker
from bucketfront.server.http1 import connection as server_connection

OTHER = '"00000000000000000000000000000000"'


async def served(proxy: Proxy, **headers: str) -> Response:
    """Request /x until the response is complete. With timeouts this short, a slow machine misses some, and the breaker
    may open.
    """
    async with asyncio.timeout(HANG_S):
        while True:
            response = await proxy.get("/x", **headers)
            if response.status in (200, 206) and response.is_complete:
                return response
            await asyncio.sleep(0.05)


async def test_origin_down(proxy: Proxy, s3: S3) -> None:
    """Without an origin, a miss is soon a 502 with short JSON without detail, and it is not cached (I13, I28)."""
    s3.put("x", b"data")
    await proxy.relay.stop()
    response = await proxy.get("/x")
    assert (response.status, response.json()) == (502, {"error": "the origin is unavailable"})
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.cache_status == 'fwd=miss; detail="origin-unavailable"'
    assert (await proxy.request("HEAD", "/x")).status in (502, 503)  # by then the breaker may have opened
    await proxy.relay.start()
    proxy.app.origin.breaker = Breaker(time.monotonic, random.random)  # what it does is test_outage.py's matter
    assert (await proxy.get("/x")).body == b"data"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_origin_stalls(start: StartProxy, s3: S3, method: str) -> None:
    """An origin that accepts and sends nothing is a 504 within the timeout (I20)."""
    proxy = await start(origin={"connect_timeout": "100ms", "read_timeout": "200ms"})
    s3.put("x", b"data")

    async def stall(_: Seen) -> bytes | None:
        await asyncio.Event().wait()
        return None

    proxy.relay.on_request = stall
    response = await proxy.request(method, "/x", body=b"new" if method == "PUT" else None)
    assert response.status == 504
    assert "Retry-After" in response.headers
    proxy.relay.on_request = None
    assert (await served(proxy)).body == b"data"  # the write never reached S3


async def test_origin_stalls_in_the_body(start: StartProxy, s3: S3) -> None:
    """A body that stalls ends in an error: a 504 before the first byte, a cut connection after it (I3, I20)."""
    proxy = await start(origin={"connect_timeout": "100ms", "read_timeout": "200ms"})
    body = pattern(4 * BLOCK)
    s3.put("x", body)
    limit = 0

    async def stall(seen: Seen) -> None:
        if seen.sent >= limit and seen.method == "GET":
            await asyncio.Event().wait()

    proxy.relay.on_body = stall
    assert (await proxy.get("/x")).status == 504
    await proxy.settled()
    limit = BLOCK
    assert (await served(proxy, Range="bytes=0-0")).body == body[:1]
    await proxy.settled()
    limit = 0
    response = await proxy.get("/x")
    assert (response.status, response.is_complete) == (200, False)
    assert body.startswith(response.body)
    await proxy.settled()
    proxy.relay.on_body = None
    assert (await served(proxy)).body == body


async def test_reader_outlives_a_flight_that_was_dying(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that joins a part fetch which then fails continues on a new one (I11)."""
    monkeypatch.setattr(body_stream, "RETRY_PAUSE_S", 0.0)  # else the first reader may time out before the last attempt
    proxy = await start(origin={"connect_timeout": "1s", "read_timeout": "500ms"})
    body = pattern(BLOCK)
    s3.put("x", body)

    async def stall(_: Seen) -> None:
        await asyncio.Event().wait()

    proxy.relay.on_body = stall
    first = asyncio.create_task(proxy.get("/x"))
    await until(lambda: len(proxy.relay.seen) == 3)  # the last attempt of the part fetch
    proxy.relay.on_body = None
    response = await proxy.get("/x")
    assert (response.status, response.body) == (200, body)
    assert (await first).status in (200, 504)


ERRORS = [
    # S3's status and code, ours
    (403, "AccessDenied", 403),
    (401, "Unauthorized", 502),
    (403, "SignatureDoesNotMatch", 502),
    (500, "InternalError", 502),
    (503, "SlowDown", 503),
    (400, "ExpiredToken", 502),  # the proxy's credentials are no fault of the client's
    (301, "PermanentRedirect", 502),
    (307, "TemporaryRedirect", 502),
    (418, "Teapot", 502),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_errors_are_not_kept(proxy: Proxy, s3: S3, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response of S3 that is neither the object nor a 404 is never cached, and the next request goes to S3 (I13)."""
    monkeypatch.setattr(breaker, "MAX_FAILURES", 1000)
    for row in range(len(ERRORS)):
        s3.put(f"x{row}", b"data")

    async def fail(seen: Seen) -> bytes | None:
        status, code, _ = ERRORS[int(seen.target.partition("/x")[2])]
        return canned(status, code, "Location: http://127.0.0.1:1/elsewhere")

    proxy.relay.on_request = fail
    for _ in range(2):
        proxy.relay.reset()
        responses = await asyncio.gather(*(proxy.request(method, f"/x{row}") for row in range(len(ERRORS))))
        assert [response.status for response in responses] == [told for _, _, told in ERRORS]
        assert [response.cache_status for response in responses if "hit" in response.cache_status] == []
        assert len({seen.target for seen in proxy.relay.seen}) == len(ERRORS)
    assert proxy.figures["absences"] == proxy.figures["entries"] == 0
    proxy.relay.on_request = None
    assert (await proxy.get("/x0")).body == b"data"


async def test_404_of_somebody_else_is_no_absence(proxy: Proxy, s3: S3) -> None:
    """A 404 page that is not S3's does not mean absence. It becomes a 502, and the cached version stays (I13)."""
    s3.put("x", b"data")
    await proxy.get("/x")
    page = b"<html>no backend</html>"

    async def page_of_a_load_balancer(_: Seen) -> bytes | None:
        return b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)

    proxy.relay.on_request = page_of_a_load_balancer
    for method in ("GET", "HEAD"):
        assert (await proxy.request(method, "/y")).status == 502
    assert proxy.figures["absences"] == 0
    proxy.clock.advance(1000)
    assert (await proxy.request("HEAD", "/x")).status == 200
    assert (await proxy.get("/x")).body == b"data"


@pytest.mark.parametrize("part", [None, "bytes=0-99", "bytes=-100"])
async def test_a_part_with_the_status_of_the_whole(proxy: Proxy, s3: S3, part: str | None) -> None:
    """A part that comes with the status 200 is a 502 and never the object. Nothing of it is stored (I1, I3, I13)."""
    body = pattern(2 * PART + 5)
    etag = s3.put("x", body)

    async def say_200(seen: Seen) -> bytes | None:
        if seen.method == "HEAD":
            return None
        first, _, last = (seen.range or f"bytes=0-{PART - 1}").removeprefix("bytes=").partition("-")
        stop = min(int(last) + 1 if first else len(body), len(body))
        start = int(first) if first else len(body) - int(last)
        lines = [f"Content-Length: {stop - start}", f"Content-Range: bytes {start}-{stop - 1}/{len(body)}"]
        head = ["HTTP/1.1 200 OK", "Connection: close", f"ETag: {etag}", *lines, "", ""]
        return "\r\n".join(head).encode() + body[start:stop]

    proxy.relay.on_request = say_200
    headers = {} if part is None else {"Range": part}
    for _ in range(2):
        assert (await proxy.get("/x", **headers)).status == 502
    assert proxy.figures["entries"] == 0
    assert "0 failures" in repr(proxy.app.origin.breaker)
    proxy.relay.on_request = None
    assert (await proxy.get("/x")).body == body


async def test_cut_body_is_continued(proxy: Proxy, s3: S3) -> None:
    """If the origin breaks off in the middle, the rest is retried, and the client does not notice (I11)."""
    body = pattern(7 * BLOCK + 3)
    s3.put("x", body)
    cut: set[str | None] = set()

    async def break_off(seen: Seen) -> None:
        if seen.sent > BLOCK and seen.range not in cut:
            cut.add(seen.range)
            raise Cut

    proxy.relay.on_body = break_off
    response = await proxy.get("/x")
    assert (response.status, response.is_complete) == (200, True)
    assert response.body == body
    assert len(cut) >= 3


async def test_cut_for_good_cuts_the_answer(proxy: Proxy, s3: S3) -> None:
    """If bytes are unavailable, the connection is cut. The response is never padded, ended early or stored (I3)."""
    body = pattern(6 * BLOCK)
    s3.put("x", body)

    async def break_off(seen: Seen) -> None:
        if seen.range != f"bytes=0-{PART - 1}":
            raise Cut

    proxy.relay.on_body = break_off
    response = await proxy.get("/x")
    assert (response.status, response.is_complete) == (200, False)
    assert response.headers["Content-Length"] == str(len(body))
    assert response.body == body[:PART]
    await until(lambda: proxy.log)
    assert proxy.log[-1]["fault"]
    proxy.relay.on_body = None
    assert (await proxy.get("/x")).body == body


async def test_origin_that_lies(proxy: Proxy, s3: S3) -> None:
    """A 206 is accepted only with the requested ETag, Content-Range and lengths (I1)."""
    body = pattern(4 * BLOCK)
    lies = ("etag", "range", "total", "length")
    etags = {lie: s3.put(lie, body) for lie in lies}

    async def other(seen: Seen) -> bytes | None:
        if seen.range is None or seen.range.startswith("bytes=0-"):
            return None
        lie = seen.target.rpartition("/")[2]
        first = int(seen.range.removeprefix("bytes=").partition("-")[0])
        length = len(body) - first
        moved = lie == "range"
        lines = [
            "HTTP/1.1 206 Partial Content",
            f"ETag: {OTHER if lie == 'etag' else etags[lie]}",
            f"Content-Range: bytes {first + moved}-{len(body) - 1 + moved}/{len(body) + (lie == 'total')}",
            f"Content-Length: {length - (lie == 'length')}",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + bytes(length)

    proxy.relay.on_request = other
    responses = await asyncio.gather(*(proxy.get(f"/{lie}") for lie in lies))
    assert [response.is_complete for response in responses] == [False] * 4
    assert [body.startswith(response.body) for response in responses] == [True] * 4
    proxy.relay.on_request = None
    for lie in lies:
        assert (await proxy.get(f"/{lie}")).body == body


MALFORMED = [
    # RFC 9112 sections 2.3, 3.2, 6.1 to 6.3; RFC 9110 sections 5.3 and 10.1.1
    b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /x HTTP/1.1\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\nRange: bytes=2-3\r\n\r\n",
    b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n",
    b"PUT /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
    b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5\r\n\r\nhello",
    b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a\r\nX y: 1\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    b"NONSENSE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS to the plain port
]


async def test_ambiguous_messages(proxy: Proxy, s3: S3) -> None:
    """A message with two possible readings is refused with the proxy's own response.

    The connection closes, what follows is not read, and the origin gets nothing (I24).
    """
    s3.put("x", b"secret")

    async def answered(data: bytes) -> tuple[int, bytes]:
        async with proxy.connection() as connection:
            await connection.send(data + message("GET", "/x"))
            response = await connection.response()
            assert list(response.json()) == ["error"], data
            assert response.headers["Cache-Status"].startswith("bucketfront; "), data
            return response.status, await connection.rest()

    found = await asyncio.gather(*map(answered, MALFORMED))
    assert {status for status, _ in found} <= {400, 417, 501, 505}
    assert {rest for _, rest in found} == {b""}
    assert proxy.relay.seen == []


async def test_head_that_is_too_large(proxy: Proxy) -> None:
    """A head without end is refused, not collected (I19)."""
    async with proxy.connection() as connection:
        await connection.send(b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000 + b"\r\n\r\n")
        assert (await connection.response()).status in (400, 431)
    assert proxy.relay.seen == []


async def test_slow_head(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not finish its head is disconnected (I20)."""
    monkeypatch.setattr(server_connection, "HEAD_TIMEOUT_S", 0.05)
    async with proxy.connection() as connection:
        await connection.send(b"GET /x HT")
        assert await connection.rest() == b""
    async with proxy.connection() as connection:
        assert await connection.rest() == b""


async def test_pipelined_requests(proxy: Proxy, s3: S3) -> None:
    """Requests sent at once get their responses in order (RFC 9112 section 9.3.2)."""
    bodies = {name: pattern(BLOCK + number, number) for number, name in enumerate("abc")}
    for name, body in bodies.items():
        s3.put(name, body)
    async with proxy.connection() as connection:
        await connection.send(b"".join(message("GET", f"/{name}") for name in "abcab"))
        for name in "abcab":
            assert (await connection.response()).body == bodies[name]


async def test_http_1_0(proxy: Proxy, s3: S3) -> None:
    """An HTTP/1.0 client gets the object, and the connection closes after it (RFC 9112 section 9.3)."""
    s3.put("x", b"data")
    async with proxy.connection() as connection:
        await connection.send(b"GET /x HTTP/1.0\r\n\r\n")
        assert (await connection.response()).body == b"data"
        assert await connection.rest() == b""


async def test_errors_keep_the_connection(proxy: Proxy, s3: S3) -> None:
    """An error that does not concern the framing keeps the connection open."""
    s3.put("x", b"data")
    async with proxy.connection() as connection:
        assert (await connection.request("GET", "/absent")).status == 404
        assert (await connection.request("GET", "/%zz")).status == 400
        assert (await connection.request("GET", "/x", {"Range": "bytes=99-"})).status == 416
        assert (await connection.request("GET", "/x")).body == b"data"


async def test_log_has_one_sound_line_a_request(proxy: Proxy, s3: S3) -> None:
    """Each request is one line of JSON without its query, whatever bytes it has (I28)."""
    s3.put("x", pattern(1000))
    await proxy.get("/x?X-Amz-Signature=secret")
    await proxy.get("/%1b[31m")
    await proxy.request("PATCH", '/%0d%0a{"status":200}')
    await until(lambda: len(proxy.log) == 3)
    first, second, third = proxy.log
    assert (first["method"], first["path"], first["status"], first["sent"]) == ("GET", "/x", 200, 1000)
    assert first["cache"] == "fwd=miss; fwd-status=206; stored"
    assert second["status"] == 404
    assert (third["path"], third["status"]) == ('/%0d%0a{"status":200}', 405)
