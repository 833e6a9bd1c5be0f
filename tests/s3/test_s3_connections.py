"""The origin's client and connections that were idle: which are used again, and what happens if they are closed."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from fakes import Head, RawConnection, RawServer, Script, object_bytes, response
from rows import each_row
from stopwatch import HANG_S

from bucketfront.cache.origin import NotModified, OriginResponse
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import OriginUnavailable
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget
from bucketfront.s3 import transport
from bucketfront.s3.client import READ_ATTEMPTS, S3Origin

pytestmark = pytest.mark.usefixtures("each_read_path")

KEY = ObjectKey("bucket", "o")
CONTENT = object_bytes(10)
FULL = response("206 Partial Content", CONTENT, ETag='"d41d8cd98f00b204e9800998ecf8427e"', Content_Range="bytes 0-9/10")
FULL_HEAD = response("200 OK", length=10, ETag='"d41d8cd98f00b204e9800998ecf8427e"')
DONE = response("204 No Content", length=-1, x_amz_request_id="1")
FOREIGN = response(
    "206 Partial", CONTENT[::-1], ETag='"0cc175b9c0f1b6a831c399e269772661"', Content_Range="bytes 0-9/10"
)
ABSENT = response("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>", Content_Type="application/xml")
SURPLUS = {
    "response": FOREIGN,
    "absence": ABSENT,
    "success": DONE,
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n",
    "first byte": b"H",
    "part of a head": FOREIGN[:40],
    "head": FOREIGN[:-10],
    "other protocol": b"SSH-2.0-OpenSSH\r\n",
}
End = Callable[[RawConnection], Awaitable[None]]


def settings(server: RawServer, **more: object) -> OriginSettings:
    static = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"}
    return OriginSettings.model_validate({"endpoint_url": server.endpoint_url, "credentials": static} | more)


async def reset(connection: RawConnection) -> None:
    connection.reset()


async def close(connection: RawConnection) -> None:
    connection.writer.close()


async def close_within_a_head(connection: RawConnection) -> None:
    await connection.send(FULL[:30])
    connection.writer.close()


async def time_out(connection: RawConnection) -> None:
    await connection.send(response("408 Request Timeout", Connection="close"))
    connection.writer.close()


def ending_reused(end: End, *, kept: int = 1, together: int = 1) -> Script:
    """Return a script that responds to `kept` requests of a connection, and ends it at the next one.

    It responds to the first `together` requests once it has all of them, so each has a connection of its own.
    """
    first = asyncio.Barrier(together)
    served: Counter[int] = Counter()

    async def script(connection: RawConnection, head: Head) -> None:
        served[id(connection)] += 1
        if served[id(connection)] > kept:
            await end(connection)
        else:
            if sum(served.values()) <= together:
                await first.wait()
            await connection.send({"DELETE": DONE, "HEAD": FULL_HEAD}.get(head.method, FULL))

    return script


async def fetch(origin: S3Origin, name: str = "o") -> None:
    answer = await origin.get(ObjectKey("bucket", name), FromTo(0, 10))
    assert isinstance(answer, OriginResponse)
    received = b""
    while data := await answer.body.read():
        received += data
    answer.body.close()
    assert received == CONTENT


async def failures_of(*calls: Awaitable[object]) -> list[object]:
    """Return the errors of the calls, which run together."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    return [result for result in results if isinstance(result, Exception)]


async def read_head(origin: S3Origin) -> None:
    await origin.head(KEY)


async def remove(origin: S3Origin) -> None:
    await origin.delete(KEY)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make retries follow at once: the jitter is 0."""
    monkeypatch.setattr(random, "random", lambda: 0.0)


@each_row("end", [reset, close, time_out])
@each_row("read", [fetch, read_head])
async def test_a_read_on_a_stale_connection(end: End, read: Callable[[S3Origin], Awaitable[None]]) -> None:
    """I35: a read whose idle connection the origin has closed is sent again on a new one. No failure is counted."""
    async with asyncio.timeout(HANG_S), RawServer(ending_reused(end)) as server, S3Origin(settings(server)) as origin:
        for _ in range(6):
            await read(origin)
        assert repr(origin.breaker) == "<Breaker closed, 0 failures>"
        assert repr(origin.retries) == repr(RetryBudget())
        # The first takes a new connection. Each second one is sent on that and again on one that is not kept.
        assert len(server.heads) == 6 + 3


async def test_many_stale_connections() -> None:
    """I35: a read is sent at most twice, although all connections of the pool are stale."""
    async with (
        asyncio.timeout(HANG_S),
        RawServer(ending_reused(reset, together=8)) as server,
        S3Origin(settings(server)) as origin,
    ):
        assert await failures_of(*(fetch(origin, str(number)) for number in range(8))) == []
        assert (len(server.heads), len(server.connections)) == (8, 8)
        assert await failures_of(fetch(origin)) == []
        assert (len(server.heads), len(server.connections)) == (10, 9)


async def test_a_new_connection_that_fails() -> None:
    """I35: only a connection that was idle is stale. A new one that the origin closes is its failure."""
    async with (
        asyncio.timeout(HANG_S),
        RawServer(ending_reused(reset, kept=0)) as server,
        S3Origin(settings(server)) as origin,
    ):
        with pytest.raises(OriginUnavailable):
            await fetch(origin)
        assert len(server.heads) == READ_ATTEMPTS
        assert repr(origin.breaker) == f"<Breaker closed, {READ_ATTEMPTS} failures>"


async def test_a_response_that_began() -> None:
    """I35: a connection that ends within a head was not stale, so the failure is counted."""
    script = ending_reused(close_within_a_head)
    async with asyncio.timeout(HANG_S), RawServer(script) as server, S3Origin(settings(server)) as origin:
        await fetch(origin)
        await fetch(origin)
        assert repr(origin.retries) != repr(RetryBudget())


async def test_a_write_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """I9: a write on a connection that the origin closes is not sent again, because its outcome is unknown."""
    monkeypatch.setattr(transport, "WRITE_IDLE_TIMEOUT_S", HANG_S)
    async with (
        asyncio.timeout(HANG_S),
        RawServer(ending_reused(reset)) as server,
        S3Origin(settings(server, keep_alive_timeout="1h")) as origin,
    ):
        await origin.delete(KEY)
        with pytest.raises(OriginUnavailable):
            await origin.delete(KEY)
        assert len(server.heads) == 2


async def test_a_write_takes_no_idle_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """I35: a write uses neither the reads' connections nor one that was idle, and none of them is lost."""
    monkeypatch.setattr(transport, "WRITE_IDLE_TIMEOUT_S", 1e-9)
    async with (
        asyncio.timeout(HANG_S),
        RawServer(ending_reused(reset)) as server,
        S3Origin(settings(server)) as origin,
    ):
        await fetch(origin)
        for _ in range(5):
            assert await failures_of(origin.delete(KEY)) == []
        assert (len(server.heads), len(server.connections)) == (6, 6)


async def test_writes_in_a_row_share_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write right after another one needs no connection of its own."""
    monkeypatch.setattr(transport, "WRITE_IDLE_TIMEOUT_S", HANG_S)
    async with (
        asyncio.timeout(HANG_S),
        RawServer(ending_reused(reset, kept=100)) as server,
        S3Origin(settings(server, keep_alive_timeout="1h")) as origin,
    ):
        for _ in range(5):
            await origin.delete(KEY)
        assert len(server.connections) == 1


async def test_an_idle_connection_is_closed() -> None:
    """`origin.keep_alive_timeout` closes idle connections before the origin does."""
    async with (
        asyncio.timeout(HANG_S),
        RawServer(ending_reused(reset, kept=100)) as server,
        S3Origin(settings(server, keep_alive_timeout="10ms")) as origin,
    ):
        await fetch(origin)
        await server.connections[0].ended.wait()


async def test_no_connection_is_kept() -> None:
    """With `origin.keep_alive_timeout: 0` every request has a connection of its own."""
    async with (
        asyncio.timeout(HANG_S),
        RawServer(ending_reused(reset, kept=100)) as server,
        S3Origin(settings(server, keep_alive_timeout="0")) as origin,
    ):
        for _ in range(3):
            await fetch(origin)
        assert len(server.connections) == 3


@each_row("surplus", SURPLUS.values(), ids=SURPLUS)
@each_row("turns", [0, 3], ids=["unread", "read"])
@each_row("call", [fetch, read_head, remove])
async def test_bytes_on_an_idle_connection(
    call: Callable[[S3Origin], Awaitable[None]], turns: int, surplus: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: bytes that come while a connection is idle are no response: the next request has a new connection.

    That holds whether the event loop has read them or not. They count as no failure.
    """
    monkeypatch.setattr(transport, "WRITE_IDLE_TIMEOUT_S", HANG_S)
    async with (
        asyncio.timeout(HANG_S),
        RawServer(ending_reused(reset, kept=100)) as server,
        S3Origin(settings(server, keep_alive_timeout="1h")) as origin,
    ):
        await call(origin)
        server.connections[0].writer.write(surplus)
        for _ in range(turns):
            await asyncio.sleep(0)
        await call(origin)
        assert (len(server.heads), len(server.connections)) == (2, 2)
        assert repr(origin.breaker) == "<Breaker closed, 0 failures>"
        assert repr(origin.retries) == repr(RetryBudget())
        await call(origin)
        assert (len(server.heads), len(server.connections)) == (3, 2)


@each_row("surplus", list(SURPLUS.values())[:-1], ids=list(SURPLUS)[:-1])
async def test_bytes_after_a_response(surplus: bytes) -> None:
    """I12: a response with bytes behind its end is good, but its connection is not used again."""

    async def script(connection: RawConnection, _: Head) -> None:
        await connection.send(FULL + surplus)

    async with (
        asyncio.timeout(HANG_S),
        RawServer(script) as server,
        S3Origin(settings(server, keep_alive_timeout="1h")) as origin,
    ):
        for _ in range(3):
            await fetch(origin)
        assert (len(server.heads), len(server.connections)) == (3, 3)


@each_row("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["final", "after 100"])
@each_row("body", [CONTENT, FOREIGN, b"<a>\r\n\r\n</a>"], ids=["object", "response", "empty line"])
async def test_a_body_behind_the_head_that_was_requested(body: bytes, interim: bytes) -> None:
    """I12: the head of a response to HEAD counts although a body follows. Its connection is not used again."""

    async def script(connection: RawConnection, _: Head) -> None:
        await connection.send(interim + FULL_HEAD + body)

    async with (
        asyncio.timeout(HANG_S),
        RawServer(script) as server,
        S3Origin(settings(server, keep_alive_timeout="1h")) as origin,
    ):
        for _ in range(2):
            found = await origin.head(KEY)
            assert isinstance(found, Metadata)
            assert (found.etag, found.size) == ('"d41d8cd98f00b204e9800998ecf8427e"', 10)
        assert (len(server.heads), len(server.connections)) == (2, 2)


@pytest.mark.parametrize("body", [b"ok", FOREIGN, b"0\r\n\r\n"], ids=["text", "response", "last chunk"])
async def test_a_body_behind_a_status_without_one(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """I12: a 204 and a 304 count although a body follows. Their connections are not used again."""
    monkeypatch.setattr(transport, "WRITE_IDLE_TIMEOUT_S", HANG_S)
    etag = '"d41d8cd98f00b204e9800998ecf8427e"'
    framed = {"Transfer_Encoding": "chunked"} if body.startswith(b"0") else {"Content_Length": str(len(body))}

    async def script(connection: RawConnection, head: Head) -> None:
        status = "204 No Content" if head.method == "DELETE" else "304 Not Modified"
        await connection.send(response(status, length=-1, ETag=etag, **framed) + body)

    async with (
        asyncio.timeout(HANG_S),
        RawServer(script) as server,
        S3Origin(settings(server, keep_alive_timeout="1h")) as origin,
    ):
        for _ in range(2):
            await origin.delete(KEY)
            assert isinstance(await origin.get(KEY, FromTo(0, 10), if_none_match=etag), NotModified)
        assert (len(server.heads), len(server.connections)) == (4, 4)


async def test_a_body_that_looks_like_a_head() -> None:
    """I12: bytes of an object are no head, although they look like one."""
    content = b"HTTP/1.1 204 No Content\r\n\r\n more"
    head = FULL.removesuffix(CONTENT).replace(b"Length: 10", b"Length: %d" % len(content))
    head = head.replace(b"bytes 0-9/10", b"bytes 0-%d/%d" % (len(content) - 1, len(content)))

    async def script(connection: RawConnection, _: Head) -> None:
        await connection.send(head)
        for _round in range(5):  # so that the client has read the head alone
            await asyncio.sleep(0)
        await connection.send(content)

    async with asyncio.timeout(HANG_S), RawServer(script) as server, S3Origin(settings(server)) as origin:
        for _ in range(2):
            answer = await origin.get(KEY, FromTo(0, len(content)))
            assert isinstance(answer, OriginResponse)
            received = b""
            while data := await answer.body.read():
                received += data
            answer.body.close()
            assert received == content
        assert len(server.connections) == 1
