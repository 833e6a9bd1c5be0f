"""`/api/v1/events` streams what happens, within bounds and behind the gate of the admin port (I19, I20, I27)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from relay import Seen
from stopwatch import HANG_S, assert_takes_less_than
from wire import Connection, connected, message

from bucketfront.admin import api, events
from bucketfront.server import client_progress
from bucketfront.server.telemetry import live_feed

PATH = "/api/v1/events"
TOKEN = "0123456789abcdef"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


class Stream:
    """The events of one response, as they come."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._text = ""

    async def next(self) -> tuple[str, Any]:
        """Return the next event. Comments and other fields are skipped."""
        while True:
            while "\n\n" not in self._text:
                self._text += (await self._chunk()).decode("ascii")
            block, _, self._text = self._text.partition("\n\n")
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "event" in fields:
                return fields["event"], json.loads(fields["data"])

    async def request(self) -> Any:
        """Return the data of the next event, which is a request."""
        kind, data = await self.next()
        assert kind == "request", (kind, data)
        return data

    async def _chunk(self) -> bytes:
        async with asyncio.timeout(HANG_S):
            size = int(await self._connection.reader.readuntil(b"\r\n"), 16)
            data = await self._connection.reader.readexactly(size + 2)
        assert size, "the stream has ended"
        return data[:-2]


@asynccontextmanager
async def streamed(proxy: Proxy, query: str = "kinds=request", **headers: str) -> AsyncIterator[Stream]:
    async with connected(proxy.app.admin_address) as connection:
        await connection.send(message("GET", f"{PATH}?{query}", headers))
        head = await connection.head()
        assert head.status == 200
        assert head.headers["Content-Type"] == "text/event-stream"
        assert head.headers["Cache-Control"] == "no-store"
        assert head.headers["X-Content-Type-Options"] == "nosniff"
        yield Stream(connection)


async def test_a_request_is_the_line_of_the_log(proxy: Proxy, s3: S3) -> None:
    """Each request becomes an event as it ends, with all that the access log has of it, hit or miss."""
    s3.put("x", pattern(1000))
    async with streamed(proxy) as stream:
        await proxy.get("/x?signature=secret")
        await proxy.settled()
        await proxy.get("/x")
        await proxy.get("/absent")
        found = [await stream.request() for _ in range(3)]
    assert found == proxy.log
    assert [(each["path"], each["status"]) for each in found] == [("/x", 200), ("/x", 200), ("/absent", 404)]


@pytest.mark.parametrize(
    "query",
    ["path=*.b", "path=/b/**", "status=404", "status=4xx,500", "cache=miss,stale&path=/b/*", "slow=0s&path=x.b"],
)
async def test_filters(proxy: Proxy, s3: S3, query: str) -> None:
    """The conditions of the query select the requests that become events."""
    s3.put("a", b"data")
    await proxy.get("/a")
    await proxy.settled()
    async with streamed(proxy, f"kinds=request&{query}") as stream:
        await proxy.get("/a")
        await proxy.get("/b/x.b")
        assert (await stream.request())["path"] == "/b/x.b"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("kinds=requests", "kinds: there is no kind 'requests'; the kinds are request, figures"),
        ("kinds=", "kinds: there is no kind ''"),
        ("kinds=dropped", "there is no kind 'dropped'"),
        ("status=20", "status: '20' is no status: write 404 or 5xx"),
        ("status=6xx", "no status"),
        ("cache=warm", "cache: there is no decision 'warm'; the decisions are bypass, hit"),
        ("slow=fast", "slow: must be a duration"),
        ("slow=-1s", "slow: must be"),
        ("path=", "path: "),
        ("path=" + "x" * 2000, "path: "),
        ("colour=red", "colour: "),
        ("status=404&status=403", "status occurs more than once"),
    ],
)
async def test_a_malformed_query(proxy: Proxy, query: str, reason: str) -> None:
    """A parameter that is unknown or malformed gets a 400 that names it."""
    response = await proxy.admin("GET", f"{PATH}?{query}")
    assert response.status == 400
    assert reason in response.json()["error"]


async def test_figures(proxy: Proxy, s3: S3) -> None:
    """The figures come at once and then with each sample, and equal those of `/api/v1/top`."""
    s3.put("x", pattern(1000))
    async with streamed(proxy, "kinds=figures") as stream:
        assert (await stream.next())[0] == "figures"
        await proxy.get("/x")
        await proxy.settled()
        await proxy.get("/x")
        await proxy.get("/absent")
        proxy.app.telemetry.flush()
        while (figures := (await stream.next())[1])["figures"]["requests"]["total"] < 3:
            pass
    assert figures["decisions"]["hit"]["requests"]["total"] == 1
    assert figures["decisions"]["miss"]["bytes"]["total"] == 1000
    assert figures["figures"]["sent_bytes"]["total"] == 2000
    assert figures["figures"]["client_errors"]["total"] == 1
    assert figures["cache"]["entries"] == 1
    assert figures["hottest"]["by_requests"][0]["path"] == "/x"
    assert figures["hottest"]["by_bytes"][0]["path"] == "/x"
    assert {request["path"] for request in figures["slowest"]} == {"/x", "/absent"}
    once = (await proxy.admin("GET", "/api/v1/top")).json()
    assert once["decisions"]["hit"]["requests"]["total"] == 1
    assert once.keys() == figures.keys()


async def test_the_gate_holds(start: StartProxy) -> None:
    """A stream needs the token, a name of the server, and no page of another origin (I27, I33)."""
    proxy = await start(admin={"token": TOKEN})
    assert (await proxy.admin("GET", PATH)).status == 401
    assert (await proxy.admin("GET", PATH, headers={**RIGHT, "Host": "evil.example"})).status == 421
    assert (await proxy.admin("GET", PATH, headers={**RIGHT, "Origin": "https://evil.example"})).status == 403
    assert (await proxy.admin("POST", PATH, b"{}", RIGHT)).status == 405
    assert (await proxy.admin("HEAD", PATH, headers=RIGHT)).status == 200
    async with streamed(proxy, "kinds=figures", **RIGHT) as stream:
        assert (await stream.next())[0] == "figures"


async def test_streams_are_bounded(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many streams there is a 503. One whose client leaves makes room at once (I19)."""
    monkeypatch.setattr(live_feed, "MAX_SUBSCRIPTIONS", 2)
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 10 * HANG_S)  # no comment shows that the client has left
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(streamed(proxy))
        async with streamed(proxy):
            refused = await proxy.admin("GET", PATH)
            assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
            assert refused.json()["error"]
            assert (await proxy.admin("HEAD", PATH)).status == 200
        await until(lambda: len(proxy.app.live_feed) == 1)
        await stack.enter_async_context(streamed(proxy))
    await until(lambda: len(proxy.app.live_feed) == 0)


async def test_streams_take_no_place_of_others(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """All streams that there may be leave the places of short requests free, and the probes as well (I27)."""
    monkeypatch.setattr(proxy.app.admin.server.request_handler, "_places", asyncio.Semaphore(1))  # type: ignore[union-attr]
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(live_feed.MAX_SUBSCRIPTIONS):
            await stack.enter_async_context(streamed(proxy))
        assert (await proxy.admin("GET", "/api/v1/stats")).status == 200
        assert (await proxy.admin("GET", "/readyz")).status == 200
    assert live_feed.MAX_SUBSCRIPTIONS + api.MAX_AT_ONCE < api.MIN_CONNECTIONS


async def test_a_stop_ends_streams(start: StartProxy) -> None:
    """At a stop each stream ends with an event that says so, and in order, and the stop does not wait (I20)."""

    async def stop() -> None:
        proxy = await start()
        async with streamed(proxy) as stream:
            stopping = asyncio.create_task(proxy.stop())
            assert await stream.next() == ("end", {"reason": "the proxy stops"})
            with pytest.raises(AssertionError, match="has ended"):
                await stream.next()
            await stopping

    await assert_takes_less_than(api.STOP_TIMEOUT_S, stop)


async def test_a_silent_stream_is_kept_alive(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an event there is a comment now and then, so that no server in front ends the stream."""
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.01)
    async with connected(proxy.app.admin_address) as connection:
        await connection.send(message("GET", f"{PATH}?kinds=request"))
        await connection.head()
        async with asyncio.timeout(HANG_S):
            assert await connection.reader.readuntil(b":\n\n")


async def test_a_reader_that_takes_nothing(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that stops loses events first and the connection then. Requests go on meanwhile (I19, I20)."""
    monkeypatch.setattr(client_progress, "PATIENCE_S", 0.3)
    monkeypatch.setattr(live_feed, "MAX_REQUESTS_PER_S", 1 << 20)
    s3.put("x", b"data")
    await proxy.get("/x")
    await proxy.settled()
    async with streamed(proxy) as stream:
        stream._connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(HANG_S), proxy.connection() as client:
            while len(proxy.app.live_feed):
                for _ in range(500):
                    assert (await client.request("GET", "/x")).status == 200


async def test_fills(proxy: Proxy, s3: S3) -> None:
    """An object that is being fetched is in the figures, with its path, percentage and readers."""
    s3.put("dir/a b", pattern(8 * BLOCK))
    gate = asyncio.Event()

    async def hold(seen: Seen) -> None:
        if seen.offset >= BLOCK:
            await gate.wait()

    proxy.relay.on_body = hold
    async with proxy.connection() as client:
        await client.send(message("GET", "/dir/a%20b"))
        await client.head()
        await until(lambda: [view.present for view in proxy.app.cache.fills()] == [BLOCK])
        (fill,) = (await proxy.admin("GET", "/api/v1/top")).json()["fills"]
        gate.set()
    found = fill["path"], fill["percent"], fill["size"], fill["readers"]
    assert found == ("/dir/a%20b", 12.5, 8 * BLOCK, 1)
