"""How long a client may take, in acknowledged bytes and injected time (I20)."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from rows import each_row
from stopwatch import TRIES
from wire import message

from bucketfront.server import client_progress
from bucketfront.server.client_limits import MIN_RATE_BYTES_PER_S
from bucketfront.server.client_progress import LOOK_INTERVAL_S, PATIENCE_S, Patience, acknowledged_bytes
from bucketfront.server.send import sendfile

AUDIO = 4000  # bytes per second of an audio stream with 32 kbit/s


def cut_off_after(acknowledged: Callable[[float], float], seconds: float, rate: int = MIN_RATE_BYTES_PER_S) -> float:
    """Return when a client is cut off that has acknowledged so many bytes by a time, or `seconds` if it is not."""
    patience, now = Patience(rate), 0.0
    while now < seconds:
        now += LOOK_INTERVAL_S
        if patience.left(LOOK_INTERVAL_S, int(acknowledged(now))) <= 0:
            return now
    return seconds


@each_row("step", [1, 64 << 10, 384 << 10])
def test_an_audio_stream_lives(step: int) -> None:
    """A reader of 32 kbit/s is served to the end, however large the steps are in which its kernel takes bytes."""
    assert cut_off_after(lambda now: AUDIO * now // step * step, 86400) == 86400


def test_a_client_that_stops() -> None:
    """A client that acknowledges nothing more is cut off in a bounded time, whatever it took before."""
    assert cut_off_after(lambda _: 0, 86400) == PATIENCE_S
    for taken in (1, 1 << 20, 1 << 30):
        assert cut_off_after(lambda now, taken=taken: taken * min(now, 300), 86400) <= 300 + PATIENCE_S  # type: ignore[misc]


def test_a_client_that_drips() -> None:
    """A client below the lowest rate is cut off in the end, and the mount's own rate counts."""
    half = MIN_RATE_BYTES_PER_S / 2
    assert cut_off_after(lambda now: half * now, 86400) <= 2 * PATIENCE_S + LOOK_INTERVAL_S
    assert cut_off_after(lambda now: AUDIO * now, 86400, 2 * AUDIO) <= 2 * PATIENCE_S + LOOK_INTERVAL_S


async def test_what_the_kernel_acknowledged() -> None:
    """Progress is what the other kernel took, not what ours did."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    _, writer = await asyncio.open_connection(*listener.getsockname())
    theirs, _ = listener.accept()
    theirs.setblocking(False)
    try:
        writer.write(bytes(8 << 20))
        await until(lambda: acknowledged_bytes(writer.transport) > 0)
        before = acknowledged_bytes(writer.transport)
        assert before < 1 << 20
        for _ in range(20):
            await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
        await until(lambda: acknowledged_bytes(writer.transport) > before)
        assert acknowledged_bytes(None) == 0
    finally:
        writer.transport.abort()
        theirs.close()
        listener.close()


@pytest.mark.long
@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_steady_slow_reader(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch, fast_path: bool
) -> None:
    """A reader that takes a few bytes at a time gets all of them, although our kernel takes none for longer than the
    patience with a client.
    """
    monkeypatch.setattr(client_progress, "PATIENCE_S", 1.0)
    monkeypatch.setattr(client_progress, "LOOK_INTERVAL_S", 0.1)
    monkeypatch.setattr(sendfile, "MAX_BURST_S", 0.01)
    proxy = await start(server={"fast_path": fast_path})
    body = pattern(200 * BLOCK)
    s3.put("x", body)
    await proxy.get("/x")
    await proxy.settled()
    for _ in range(TRIES):  # a process that does not run for a second is a reader that takes nothing
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            assert await slowly_read(proxy, len(body)) == body
            return
    pytest.fail("each response was cut")


async def slowly_read(proxy: Proxy, size: int) -> bytes:
    """Return a body whose first MiB is read in small pieces. Raises IncompleteReadError if it is cut."""
    async with proxy.connection() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        await client.send(message("GET", "/x"))
        await client.head()
        got = b""
        while len(got) < 1 << 20:
            got += await client.reader.readexactly(16 << 10)
            await asyncio.sleep(0.05)  # the pace of the reader, no synchronisation
        return got + await client.reader.readexactly(size - len(got))
