"""Clients that take an uncached object slowly keep no connection from others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import Head, RawConnection, RawServer, response
from proxy_under_test import WallClock, pattern, settings_of, until
from stopwatch import HANG_S
from wire import connected, fetch, message

from bucketfront.app import App
from bucketfront.cache.fetch import passthrough

CONNECTIONS = 2
CLIENTS = CONNECTIONS + 1
SIZE = (8 << 20) + 5  # more than the kernels hold of a response that no client takes
BODY = pattern(SIZE)
SMALL = b"honest"


class Origin:
    """Sends BODY for each key, and SMALL for those that begin with `small`. Counts what it was asked for."""

    def __init__(self, *, has_ranges: bool = True) -> None:
        self._has_ranges = has_ranges
        self.asked = 0  # bytes
        self.server = RawServer(self._script)

    async def _script(self, connection: RawConnection, head: Head) -> None:
        body = SMALL if head.target.startswith("/bucket/small") else BODY
        fields = {"ETag": '"1"', "Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
        first, last = 0, len(body) - 1
        if "range" in head.headers and self._has_ranges:
            low, high = head.headers["range"].removeprefix("bytes=").split("-")
            first, last = int(low), min(last, int(high or last))
            fields["Content_Range"] = f"bytes {first}-{last}/{len(body)}"
        part = body[first : last + 1]
        self.asked += len(part)
        status = "206 Partial Content" if "Content_Range" in fields else "200 OK"
        await connection.send(response(status, b"" if head.method == "HEAD" else part, length=len(part), **fields))


@asynccontextmanager
async def proxy_of(origin: Origin, folder: Path, **sections: Any) -> AsyncIterator[App]:
    """Run a proxy whose cache is too small for BODY."""
    async with origin.server:
        settings = settings_of(
            folder,
            origin.server.endpoint_url,
            "bucket",
            origin={"max_connections": CONNECTIONS},
            cache={"max_size": "4MiB"},
            **sections,
        )
        async with App(settings, clock=WallClock()) as app:
            yield app


async def test_slow_clients_hold_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many clients take nothing of objects that the cache cannot hold, all origin connections are free.

    A miss gets its object, and the slow ones get the rest of theirs later. The origin sends few bytes twice (I10, I34).
    """
    monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", 0.0)
    origin = Origin()
    async with proxy_of(origin, tmp_path) as app, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(app.address)) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            await client.send(message("GET", f"/film{number}"))
        await until(lambda: app.cache.statistics().passthrough_pauses >= CLIENTS)
        await until(lambda: app.origin.free_slots == CONNECTIONS)
        miss = await fetch(app.address, "/small")
        assert (miss.status, miss.body) == (200, SMALL)
        responses = await asyncio.gather(*(client.response() for client in clients))
        assert [each.body == BODY for each in responses] == [True] * CLIENTS
    assert origin.asked <= 1.05 * CLIENTS * SIZE


async def test_an_origin_without_ranges_sends_an_object_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An origin that ignores Range gets no second request for a client that waits: it would begin anew (I10)."""
    monkeypatch.setattr(passthrough, "CLIENT_WAIT_S", 0.0)
    origin = Origin(has_ranges=False)
    async with proxy_of(origin, tmp_path) as app:
        first = await fetch(app.address, "/film")
        asked = origin.asked
        async with connected(app.address) as client, asyncio.timeout(HANG_S):
            await client.send(message("GET", "/film"))
            await until(lambda: app.origin.free_slots < CONNECTIONS)
            slow = await client.response()
    assert first.body == slow.body == BODY
    assert origin.asked - asked == SIZE
