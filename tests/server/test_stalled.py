"""Clients that send a request and do not read.

They are cut off in time, whatever the source of their bytes, and no other client notices (I20).
"""

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import localhost_certificate
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from wire import connected, message

from bucketfront.server import client_progress
from bucketfront.server.send import sendfile

pytestmark = pytest.mark.long

SIZE = 256 * BLOCK  # 16 MiB: more than the buffers of two kernels take
TIMEOUT_S = 0.3  # in place of 120


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Let the proxy have less patience within the block. A client that reads may be late on a busy machine."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(client_progress, "PATIENCE_S", TIMEOUT_S)
        patched.setattr(sendfile, "MAX_BURST_S", 0.05)
        yield


async def stall(proxy: Proxy, tls: ssl.SSLContext | None = None) -> None:
    """Check that a client that requests `/x` and reads nothing is cut off, and that nothing leaks."""
    before = len(proxy.log)
    async with connected(proxy.address, tls) as connection:
        with impatient():
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await connection.send(message("GET", "/x"))
            await until(lambda: len(proxy.log) > before)
            await until(lambda: not proxy.app.connection_limit.open)  # though the client is still there
            connection.abort()
    line = proxy.log[before]
    assert (line["status"], line["cut"], line["fault"]) == (200, "slow-client", "the client was too slow")
    assert line["sent"] < SIZE
    await until(lambda: not [entry for entry in proxy.app.cache_assembly.entries.hot_entries() if entry.pins])
    await until(lambda: proxy.app.origin.free_slots == proxy.app.settings.origin.max_connections)


@pytest.mark.parametrize("fast_path", [True, False])
async def test_from_the_cache(start: StartProxy, s3: S3, fast_path: bool) -> None:
    """The bytes come from a file that is whole."""
    proxy = await start(server={"fast_path": fast_path})
    body = pattern(SIZE)
    s3.put("x", body)
    assert (await proxy.get("/x")).body == body
    await proxy.settled()
    await stall(proxy)
    assert (await proxy.get("/x")).body == body


async def test_while_it_is_filled(proxy: Proxy, s3: S3) -> None:
    """The bytes come from a file that is being filled, and the fill goes on for other readers."""
    body = pattern(SIZE)
    s3.put("x", body)
    await stall(proxy)
    assert (await proxy.get("/x")).body == body
    await proxy.settled()
    assert proxy.relay.body_bytes == SIZE


async def test_past_the_cache(proxy: Proxy, s3: S3) -> None:
    """The bytes come straight from the origin, and its connection is closed at once."""
    s3.put("x", pattern(SIZE), CacheControl="no-store")
    await stall(proxy)
    await until(lambda: not proxy.relay.running)


async def test_over_tls(start: StartProxy, s3: S3, tmp_path: Path) -> None:
    """The bytes are encrypted."""
    chain, key = localhost_certificate(tmp_path)
    tls = ssl.create_default_context(cafile=str(chain))
    tls.check_hostname = False  # the address is 127.0.0.1
    proxy = await start(server={"tls": {"certificate": str(chain), "key": str(key)}})
    s3.put("x", pattern(SIZE))
    await stall(proxy, tls)
