"""A client that has sent its request and closes its side is done, and has not left (RFC 9112 section 9.6).

What arrived whole is carried out, and a client that only closed its sending side gets its responses.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import localhost_certificate
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern, until
from relay import Relay, Seen
from tus_client import BODY as TUS_BODY
from tus_client import created
from wire import Connection as Wire
from wire import chunked, connected, message

from bucketfront.server.http1.connection import Connection

LARGE = pattern(100 * BLOCK)  # more than the kernel takes for a client that does not read
DATA = b"data of the object"
CODED = {"Transfer-Encoding": "chunked"}


def hold(relay: Relay, *methods: str) -> asyncio.Event:
    """Hold back the origin's responses to `methods` until the event is set."""
    gate = asyncio.Event()

    async def held(seen: Seen) -> bytes | None:
        if seen.method in methods:
            await gate.wait()
        return None

    relay.on_request = held
    return gate


def connections(proxy: Proxy) -> list[Connection]:
    server = proxy.app.listener.server
    assert server is not None
    return [each for each in server.connections if isinstance(each, Connection)]


def has_lost_its_client(proxy: Proxy) -> bool:
    return all(each.transport is None for each in connections(proxy))


def has_seen_the_end(proxy: Proxy) -> bool:
    return all(each.has_ended or each.transport is None for each in connections(proxy))


async def half_close(client: Wire) -> None:
    await client.writer.drain()
    client.writer.write_eof()


WRITES = {
    "put": (message("PUT", "/x", body=DATA), 201, DATA),
    "chunked": (message("PUT", "/x", CODED) + chunked(DATA[:3], DATA[3:]), 201, DATA),
    "large": (message("PUT", "/x", body=LARGE), 201, LARGE),
    "large chunked": (message("PUT", "/x", CODED) + chunked(LARGE[: 3 * BLOCK], LARGE[3 * BLOCK :]), 201, LARGE),
    "empty": (message("PUT", "/x", body=b""), 201, b""),
    "expect": (message("PUT", "/x", {"Expect": "100-continue"}, DATA), 201, DATA),
    "delete": (message("DELETE", "/x"), 204, None),
}


@pytest.mark.parametrize("write", WRITES)
async def test_write_of_a_client_that_is_done(proxy: Proxy, s3: S3, write: str) -> None:
    """A write whose client closes its side behind the body is carried out, and its response arrives."""
    data, status, stored = WRITES[write]
    s3.put("x", b"old")
    gate = hold(proxy.relay, "PUT", "POST", "DELETE")
    async with proxy.connection() as client:
        client.writer.write(data)
        await half_close(client)
        await until(lambda: proxy.relay.seen and (not connections(proxy) or has_seen_the_end(proxy)))
        gate.set()
        response = await client.rest()
    assert response.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)
    assert s3.keys() == ([] if stored is None else ["x"])
    assert stored is None or s3.get("x") == stored
    assert [line["status"] for line in proxy.log] == [status]


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("write", ["put", "chunked", "empty", "delete"])
async def test_write_of_a_client_that_is_gone(proxy: Proxy, s3: S3, write: str, is_reset: bool) -> None:
    """A write whose body arrived whole is carried out, also if its client closed or reset the connection.

    The connection counts until then.
    """
    data, status, stored = WRITES[write]
    s3.put("x", b"old")
    gate = hold(proxy.relay, "PUT", "DELETE")
    async with proxy.connection() as client:
        await client.send(data)
        await until(lambda: proxy.relay.seen)
        if is_reset:
            client.abort()
        else:
            client.writer.transport.close()
    await until(lambda: has_seen_the_end(proxy))
    assert proxy.app.connection_limit.open == 1
    gate.set()
    await until(lambda: not connections(proxy))
    assert s3.keys() == ([] if stored is None else ["x"])
    assert stored is None or s3.get("x") == stored
    assert [line["status"] for line in proxy.log] == [status]
    await until(lambda: not proxy.app.connection_limit.open)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_pipelined_writes_of_a_client_that_is_gone(proxy: Proxy, s3: S3, is_reset: bool) -> None:
    """Each whole write of the connection is carried out in its turn, although the client is gone.

    If it only closed, the first response is met by a reset, and the second one fails.
    """
    gate = hold(proxy.relay, "PUT")
    async with proxy.connection() as client:
        await client.send(b"".join(message("PUT", f"/{key}", body=key.encode()) for key in "abcd"))
        await until(lambda: proxy.relay.seen)
        if is_reset:
            client.abort()
        else:
            client.writer.transport.close()
    await until(lambda: has_seen_the_end(proxy))
    gate.set()
    await until(lambda: not connections(proxy))
    assert [(key, s3.get(key)) for key in sorted(s3.keys())] == [(key, key.encode()) for key in "abcd"]
    assert [line["status"] for line in proxy.log] == [201] * 4


@pytest.mark.one_process("it looks at what waits in the connection; test_front_end_clients.py has front ends")
@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("is_hit", [False, True])
@pytest.mark.parametrize("in_one_segment", [False, True])
async def test_write_behind_a_read_that_nobody_takes(
    proxy: Proxy, s3: S3, in_one_segment: bool, is_hit: bool, is_reset: bool
) -> None:
    """A whole write is carried out although its client left while the response to the read before it was on its way."""
    s3.put("large", LARGE)
    if is_hit:
        await proxy.get("/large")
        await proxy.settled()
    async with proxy.connection() as client:
        read, write = message("GET", "/large"), message("PUT", "/x", body=DATA)
        if in_one_segment:
            await client.send(read + write)
        else:
            await client.send(read)
            await client.head()
            await client.send(write)
        await until(lambda: any(each.has_queued_request or getattr(each, "_held", b"") for each in connections(proxy)))
        if is_reset:
            client.abort()
        else:
            client.writer.transport.close()
    await until(lambda: not connections(proxy))
    assert s3.get("x") == DATA
    assert [line["status"] for line in proxy.log][-2:] == [499, 201]
    await until(lambda: not proxy.app.connection_limit.open)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_piece_of_a_resumable_upload(proxy: Proxy, s3: S3, is_reset: bool) -> None:
    """The last piece of a resumable upload makes the object, although its client closes behind it."""
    url = await created(proxy, len(DATA))
    gate = hold(proxy.relay, "PUT")
    async with proxy.connection() as client:
        await client.send(message("PATCH", url, {**TUS_BODY, "Upload-Offset": "0"}, DATA))
        await until(lambda: any(seen.method == "PUT" for seen in proxy.relay.seen))
        if is_reset:
            client.abort()
    await until(lambda: has_seen_the_end(proxy))
    gate.set()
    await until(lambda: not connections(proxy))
    assert s3.get("x") == DATA


async def test_write_over_tls(start: StartProxy, s3: S3, tmp_path: Path) -> None:
    """TLS has no half-closed connections here, and yet a write that arrived whole is carried out."""
    chain, key = localhost_certificate(tmp_path)
    tls = ssl.create_default_context(cafile=str(chain))
    tls.check_hostname = False  # the address is 127.0.0.1
    proxy = await start(server={"tls": {"certificate": str(chain), "key": str(key)}})
    gate = hold(proxy.relay, "PUT")
    async with connected(proxy.address, tls) as client:
        await client.send(message("PUT", "/x", body=DATA))
        await until(lambda: proxy.relay.seen)
    await until(lambda: has_seen_the_end(proxy))
    gate.set()
    await until(lambda: not connections(proxy))
    assert s3.get("x") == DATA
    assert [line["status"] for line in proxy.log] == [201]


@pytest.mark.parametrize("framing", [{"Content-Length": "1000"}, CODED])
@pytest.mark.parametrize("is_reset", [False, True])
async def test_end_within_a_body(proxy: Proxy, s3: S3, framing: dict[str, str], is_reset: bool) -> None:
    """A client that closes within a body left: nothing of it is stored (I8). A write before it is carried out."""
    part = chunked(DATA, end=False) if framing is CODED else DATA
    async with proxy.connection() as client:
        await client.send(message("PUT", "/first", body=b"first") + message("PUT", "/x", framing) + part)
        await until(lambda: len(proxy.log) == 1)
        if is_reset:
            client.abort()
        else:
            await half_close(client)
    await until(lambda: not connections(proxy))
    assert s3.keys() == ["first"]
    assert [line["status"] for line in proxy.log] == [201, 499]


async def test_end_within_a_body_behind_others(proxy: Proxy, s3: S3) -> None:
    """The requests before a broken body get their responses, and it gets none."""
    s3.put("a", DATA)
    gate = hold(proxy.relay, "GET")
    async with proxy.connection() as client:
        data = message("GET", "/a") + message("PUT", "/b", body=b"b") + message("PUT", "/c", {"Content-Length": "9"})
        client.writer.write(data + b"1234")
        await half_close(client)
        await until(lambda: has_seen_the_end(proxy) and connections(proxy))
        gate.set()
        assert (await client.response()).body == DATA
        last = await client.response("PUT")
        assert (last.status, last.headers["Connection"]) == (201, "close")
        assert await client.rest() == b""
    assert sorted(s3.keys()) == ["a", "b"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_miss_of_a_half_closed_client(proxy: Proxy, s3: S3, method: str) -> None:
    """A client that closes its side during a lookup gets the whole response."""
    s3.put("x", LARGE)
    gate = hold(proxy.relay, "GET", "HEAD")
    async with proxy.connection() as client:
        client.writer.write(message(method, "/x"))
        await half_close(client)
        await until(lambda: connections(proxy) and has_seen_the_end(proxy))
        gate.set()
        response = await client.response(method)
        assert response.status == 200
        assert method == "HEAD" or response.body == LARGE
        assert await client.rest() == b""
    assert [line["status"] for line in proxy.log] == [200]


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("sent", ["small", "large", "large small", "small large small", "large PUT large"])
async def test_hits_of_a_half_closed_client(start: StartProxy, s3: S3, fast_path: bool, sent: str) -> None:
    """All requests before the end get their responses, in order, and then the connection closes."""
    proxy = await start(server={"fast_path": fast_path})
    bodies = {"small": DATA, "large": LARGE}
    for key, body in bodies.items():
        s3.put(key, body)
        await proxy.get(f"/{key}")
    await proxy.settled()
    async with proxy.connection() as client:
        for word in sent.split():
            client.writer.write(message("GET", f"/{word}") if word in bodies else message("PUT", "/new", body=DATA))
            await asyncio.sleep(0.01)  # so that each request is a segment of its own, behind a response under way
        await half_close(client)
        for word in sent.split():
            response = await client.response()
            assert response.body == bodies[word] if word in bodies else response.status == 201
        assert await client.rest() == b""
    await until(lambda: not proxy.app.connection_limit.open)
    assert {line["status"] for line in proxy.log} <= {200, 201}


async def test_more_requests_than_the_queue_has_room_for(proxy: Proxy, s3: S3) -> None:
    """Requests that wait outside the queue get their responses as well."""
    s3.put("x", DATA)
    async with proxy.connection() as client:
        client.writer.write(message("GET", "/x", {"X": "y", "Cache-Control": "no-cache"}) * 300)
        await half_close(client)
        for _ in range(300):
            assert (await client.response()).body == DATA
        assert await client.rest() == b""


@pytest.mark.parametrize("begun", [b"", b"GET /x HT", message("GET", "/x")[:-2]])
async def test_end_without_a_request(proxy: Proxy, s3: S3, begun: bytes) -> None:
    """A connection that owes no response closes at once, also within a head."""
    s3.put("x", DATA)
    async with proxy.connection() as client:
        assert (await client.request("GET", "/x")).body == DATA
        client.writer.write(begun)
        await half_close(client)
        assert await client.rest() == b""
    await until(lambda: not proxy.app.connection_limit.open)


def gone(client: Wire) -> None:
    client.abort()


def closed(client: Wire) -> None:
    client.writer.transport.close()


@pytest.mark.parametrize("leave", [gone, closed])
@pytest.mark.parametrize("is_ended", [False, True])
async def test_half_closed_client_that_leaves(
    start: StartProxy, s3: S3, is_ended: bool, leave: Callable[[Wire], None]
) -> None:
    """A client that leaves ends its fetch, whether or not it had closed its side before: at the next write."""
    proxy = await start(cache={"after_disconnect": "stop"}, origin={"parallel_parts": 1})
    s3.put("x", LARGE)
    gate = asyncio.Event()

    async def hold_body(seen: Seen) -> None:
        if seen.offset >= 2 * PART:
            await gate.wait()

    proxy.relay.on_body = hold_body
    async with proxy.connection() as client:
        await client.send(message("GET", "/x"))
        if is_ended:
            await half_close(client)
        await client.head()
        await client.reader.readexactly(PART)
        leave(client)
    await until(lambda: not connections(proxy) or has_seen_the_end(proxy))
    gate.set()
    await until(lambda: not connections(proxy))
    await proxy.settled()
    await until(lambda: not proxy.relay.running)
    assert proxy.relay.body_bytes < len(LARGE)
    assert [line["status"] for line in proxy.log] == [499]
    await until(lambda: not proxy.app.connection_limit.open)


async def test_stop_waits_for_a_write_without_its_client(proxy: Proxy, s3: S3) -> None:
    """A clean stop lets a write end whose client is gone."""
    gate = hold(proxy.relay, "PUT")
    async with proxy.connection() as client:
        await client.send(message("PUT", "/x", body=DATA))
        await until(lambda: proxy.relay.seen)
        client.abort()
    await until(lambda: has_lost_its_client(proxy))
    stopping = asyncio.create_task(proxy.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    gate.set()
    await stopping
    assert s3.get("x") == DATA
