"""What the log and the metrics have of a response that did not reach its end, by who ended it."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern, until
from relay import Cut as BreakOff
from relay import Seen
from rows import each_row
from wire import Connection, message

from bucketfront.errors import ObjectChanged, OriginTimeout, StoreError
from bucketfront.server import client_progress, server
from bucketfront.server.cut import Cut, broken_off
from bucketfront.server.send import sendfile

BODY = pattern(64 * BLOCK)  # 4 MiB; more than the small buffers of `narrow` and of the server's kernel take

both_paths = pytest.mark.parametrize("fast_path", [True, False])


@pytest.fixture
async def warm(start: StartProxy, s3: S3, fast_path: bool) -> Proxy:
    """A proxy that has all bytes of `/x`."""
    proxy = await start(server={"fast_path": fast_path})
    s3.put("x", BODY)
    assert (await proxy.get("/x")).body == BODY
    await proxy.settled()
    return proxy


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give running requests little time at a stop. It comes before `warm`, which reads the constant."""
    monkeypatch.setattr(server, "DRAIN_TIMEOUT_S", 0.05)


@asynccontextmanager
async def unread(proxy: Proxy) -> AsyncIterator[Connection]:
    """A connection whose client has read the head of `/x`, and has little space for more."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(proxy.address.rpartition(":")[2])))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 14)
    client = Connection(reader, writer)
    try:
        await client.send(message("GET", "/x"))
        assert (await client.head()).status == 200
        yield client
    finally:
        await client.close()


async def line_behind(proxy: Proxy, count: int) -> dict[str, Any]:
    """Return the line of the log behind the first `count`."""
    await until(lambda: len(proxy.log) > count)
    return proxy.log[count]


async def cuts(proxy: Proxy) -> dict[str, int]:
    """Return the cut responses by reason, as the metrics have them."""
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("bucketfront_responses_cut_total{")]
    found = {line.partition('"')[2].partition('"')[0]: int(float(line.rpartition(" ")[2])) for line in lines}
    assert found.keys() == {cut.value for cut in Cut}
    return {reason: count for reason, count in found.items() if count}


async def test_the_origin_fails_in_the_middle(proxy: Proxy, s3: S3) -> None:
    """A response that ends because the origin failed has the status that the client got, and `cut` is `origin`."""

    async def break_off(seen: Seen) -> None:
        if seen.range != f"bytes=0-{PART - 1}":
            raise BreakOff

    s3.put("x", BODY)
    proxy.relay.on_body = break_off
    assert not (await proxy.get("/x")).is_complete
    line = await line_behind(proxy, 0)
    assert (line["status"], line["cut"], line["cache"]) == (200, "origin", "fwd=miss; fwd-status=206; stored")
    assert line["fault"]
    assert await cuts(proxy) == {"origin": 1}


@both_paths
async def test_the_disk_fails_in_the_middle(warm: Proxy) -> None:
    """A response that ends because the cached file is too short has `cut` `disk`."""
    async with unread(warm) as client:
        os.truncate(warm.files[0], 60 * BLOCK)
        assert len(await client.rest()) < len(BODY)
    line = await line_behind(warm, 1)
    assert (line["status"], line["cut"]) == (200, "disk")
    assert "early" in line["fault"]
    assert await cuts(warm) == {"disk": 1}


@pytest.mark.one_process("sets how long this process waits for a client")
@both_paths
async def test_a_client_is_too_slow(warm: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes no bytes within its deadline did not leave: the proxy cut its response."""
    monkeypatch.setattr(client_progress, "PATIENCE_S", 0.1)
    monkeypatch.setattr(sendfile, "MAX_BURST_S", 0.05)
    async with unread(warm):
        line = await line_behind(warm, 1)
    assert (line["status"], line["cut"], line["fault"]) == (200, "slow-client", "the client was too slow")
    assert await cuts(warm) == {"slow-client": 1}


@both_paths
@pytest.mark.usefixtures("_hasty")
async def test_a_stop_ends_responses(warm: Proxy) -> None:
    """A response that is under way when the time of a stop is over has `cut` `stop`."""
    async with unread(warm):
        await warm.stop()
    line = warm.log[1]
    assert (line["status"], line["cut"], line["fault"]) == (200, "stop", "the proxy stops")


@both_paths
async def test_a_client_leaves(warm: Proxy) -> None:
    """A client that leaves has 499 in the log, and the proxy cut nothing."""
    async with unread(warm) as client:
        client.abort()
        line = await line_behind(warm, 1)
    assert line["status"] == 499
    assert "cut" not in line
    assert "fault" not in line
    assert await cuts(warm) == {}


@each_row(
    ("error", "cut"),
    [
        (OriginTimeout("late"), Cut.ORIGIN),
        (ObjectChanged("new"), Cut.ORIGIN),
        (StoreError("disk"), Cut.DISK),
        (EOFError("short"), Cut.DISK),
        (TimeoutError(), Cut.SLOW_CLIENT),
        (ValueError(), Cut.BUG),
    ],
)
def test_each_error_has_its_reason(error: Exception, cut: Cut) -> None:
    """The reason is from a closed set, because it labels a metric, and the text is never empty (I28)."""
    found = broken_off(error)
    assert found.cut is cut
    assert str(found)
