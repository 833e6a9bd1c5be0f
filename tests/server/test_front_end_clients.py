"""Clients of front ends that are odd, hostile or slow: they get what one process would give them (I19, I24, I36)."""

import asyncio
import random
import re
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from certificates import localhost_certificate
from front_ends_under_test import front_ends
from proxy_under_test import S3, Proxy, StartProxy, pattern
from stopwatch import HANG_S
from wire import Connection, connected, message

KIB = 1 << 10
MIB = 1 << 20
READERS = 40
PER_READER = 160 * KIB  # I19 has 128 KiB of each, and memory that is free is not given back at once
SLACK = 6 * MIB  # of each front end: leases, buffers for pieces, code that runs for the first time
LARGE = pattern(16 * MIB)  # more than the kernel takes for a client that does not read


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return localhost_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["plain", "tls"])
def context(request: pytest.FixtureRequest, certificate: tuple[Path, Path]) -> ssl.SSLContext | None:
    """How a client connects: None without TLS."""
    if request.param == "plain":
        return None
    found = ssl.create_default_context(cafile=str(certificate[0]))
    found.check_hostname = False  # the address is 127.0.0.1
    return found


@pytest.fixture
async def proxy(start_two: StartProxy, context: ssl.SSLContext | None, certificate: tuple[Path, Path]) -> Proxy:
    chain, key = certificate
    tls = None if context is None else {"certificate": str(chain), "key": str(key)}
    return await start_two(server={"tls": tls})


async def fill(proxy: Proxy, context: ssl.SSLContext | None, s3: S3, **bodies: bytes) -> None:
    """Have objects at S3, and in the cache, whole."""
    async with connected(proxy.address, context) as client:
        for key, body in bodies.items():
            s3.put(key, body)
            assert (await client.request("GET", f"/{key}")).body == body
    await proxy.settled()


def memory(proxy: Proxy) -> int:
    """Return the bytes of memory that the front ends take, each with its part of what it shares."""
    texts = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in front_ends(proxy)]
    return sum(int(re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)[0]) for text in texts) * KIB


async def test_alpn(proxy: Proxy, context: ssl.SSLContext | None) -> None:
    """Of the protocols that a client offers, a front end chooses HTTP/1.1."""
    if context is None:
        pytest.skip("ALPN is of TLS")
    context.set_alpn_protocols(["h2", "http/1.1"])
    for _ in range(4):
        async with connected(proxy.address, context) as client:
            found = client.writer.get_extra_info("ssl_object")
            assert found.selected_alpn_protocol() == "http/1.1"
            assert (await client.request("GET", "/absent")).status == 404


async def test_pipelined_writes(proxy: Proxy, context: ssl.SSLContext | None, s3: S3) -> None:
    """Large bodies and hits that come in one piece have their responses in order, and S3 has each byte of them."""
    await fill(proxy, context, s3, hit=pattern(100_000))
    bodies = [pattern(2 * MIB, seed=seed) for seed in range(3)]
    requests = b""
    for number, body in enumerate(bodies):
        requests += message("GET", "/hit", None, None)
        requests += message("PUT", f"/{number}", {"Content-Length": str(len(body))}, body)
        requests += message("GET", f"/{number}", None, None)
    async with connected(proxy.address, context) as client:
        sending = asyncio.create_task(client.send(requests))
        for body in bodies:
            assert (await client.response()).body == pattern(100_000)
            assert (await client.response("PUT")).status == 201
            assert (await client.response()).body == body
        await sending
    assert [s3.get(str(number)) for number in range(len(bodies))] == bodies


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_write_behind_a_hit_that_nobody_takes(
    proxy: Proxy, context: ssl.SSLContext | None, s3: S3, *, is_reset: bool
) -> None:
    """A whole write is carried out although its client left during the hit before it, as in one process."""
    await fill(proxy, context, s3, large=LARGE)
    async with connected(proxy.address, context) as client:
        body = b"written"
        write = message("PUT", "/x", {"Content-Length": str(len(body))}, body)
        await client.send(message("GET", "/large", None, None) + write)
        await client.head()
        if is_reset:
            client.writer.transport.abort()
        else:
            client.writer.transport.close()
    await proxy.until(lambda: "x" in set(s3.keys()))
    assert s3.get("x") == body


async def test_garbage(proxy: Proxy, context: ssl.SSLContext | None, s3: S3) -> None:
    """No bytes of a client end a front end, keep a connection, or change what others get (I24)."""
    await fill(proxy, context, s3, x=b"data")
    processes = front_ends(proxy)
    dice = random.Random(1)
    good = message("GET", "/x", None, None)
    for _ in range(30):
        kind = dice.randrange(4)
        garbage = dice.randbytes(dice.randrange(1, 3000))
        if kind == 0:
            garbage = good + garbage
        elif kind == 1:
            cut = dice.randrange(1, len(good))
            garbage = good[:cut] + garbage + good[cut:]
        # Half of them come below TLS, where they break the handshake.
        async with connected(proxy.address, None if kind == 3 else context) as client:
            await client.send(garbage)
            client.writer.write_eof() if client.writer.can_write_eof() else client.writer.close()
            async with asyncio.timeout(HANG_S):
                try:
                    answer = await client.reader.read()
                except (ConnectionError, ssl.SSLError):
                    continue
            assert not answer or answer.startswith(b"HTTP/1.") or context is not None
    async with connected(proxy.address, context) as client:
        assert (await client.request("GET", "/x")).body == b"data"
    await proxy.until(lambda: proxy.app.connection_limit.total == 0)
    assert front_ends(proxy) == processes


async def test_slow_readers(proxy: Proxy, context: ssl.SSLContext | None, s3: S3) -> None:
    """Clients that read only the head of a large hit take a bounded part of the front ends' memory (I19)."""
    await fill(proxy, context, s3, large=LARGE, small=b"data")
    async with AsyncExitStack() as stack:
        clients: list[Connection] = []
        for _ in range(READERS):
            clients.append(await stack.enter_async_context(connected(proxy.address, context)))
            assert (await clients[-1].request("GET", "/small")).body == b"data"
        before = memory(proxy)
        for client in clients:
            await client.send(message("GET", "/large", None, None))
            assert (await client.head()).status == 200
        grown = memory(proxy) - before
        assert grown < READERS * PER_READER + len(front_ends(proxy)) * SLACK
        for client in clients[:3]:
            async with asyncio.timeout(HANG_S):
                assert await client.reader.readexactly(len(LARGE)) == LARGE
    await proxy.until(lambda: proxy.app.connection_limit.total == 0)
