"""The responses to clients while S3 stalls, or while an object is overwritten, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fakes import Head, RawConnection, RawServer, Script, response
from proxy_under_test import BLOCK, PART, S3, Proxy, WallClock, pattern, settings_of
from relay import Seen, canned
from wire import fetch

from bucketfront.app import App
from bucketfront.cache.fetch import body_stream

READ_TIMEOUT = 5.0  # seconds, of the proxy under test
BODY = pattern(2 * PART + 123)


@asynccontextmanager
async def proxy_of(script: Script, folder: Path) -> AsyncIterator[tuple[App, RawServer]]:
    async with (
        RawServer(script) as server,
        App(settings_of(folder, server.endpoint_url, "bucket"), clock=WallClock()) as app,
    ):
        yield app, server


def part_of(head: Head, *, sent: int | None = None) -> bytes:
    """Return the 206 that `head` requests, with only `sent` bytes of it."""
    first, last = (int(number) for number in head.headers["range"].removeprefix("bytes=").split("-"))
    body = BODY[first : last + 1]
    there = f"bytes {first}-{first + len(body) - 1}/{len(BODY)}"
    return response("206 OK", body[:sent], length=len(body), ETag='"1"', Content_Range=there)


@pytest.mark.parametrize("sent", [0, 1, BLOCK, BLOCK + 5])
async def test_a_stalled_body_does_not_stall_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    """A second request takes over where the first one stalls, long before `read_timeout`.

    The first one's connection is closed, and the breaker counts no failure (I10, I12, I20).
    """
    monkeypatch.setattr(body_stream, "HEDGE_AFTER_S", 0.1)

    async def script(connection: RawConnection, head: Head) -> None:
        if connection is server.connections[0]:
            await connection.send(part_of(head, sent=sent))
            await connection.hang()
        else:
            await connection.send(part_of(head))

    async with proxy_of(script, tmp_path) as (app, server):
        began = asyncio.get_running_loop().time()
        response = await fetch(app.address, "/x")
        assert (response.status, response.body) == (200, BODY)
        assert asyncio.get_running_loop().time() - began < READ_TIMEOUT - 1
        assert f"bytes={sent}-{PART - 1}" in [head.headers["range"] for head in server.heads]
        await server.connections[0].ended.wait()
        assert app.cache.statistics().hedges_won
        assert app.origin.free_slots == app.settings.origin.max_connections
        assert "0 failures" in repr(app.origin.breaker)


async def test_a_stalled_head_does_not_stall_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part whose first request gets no head has its bytes from a second one, and the first is withdrawn (I12,
    I20).
    """
    monkeypatch.setattr(body_stream, "HEDGE_AFTER_S", 0.1)
    stalled: list[RawConnection] = []

    async def script(connection: RawConnection, head: Head) -> None:
        if head.headers["range"].startswith(f"bytes={PART}-") and not stalled:
            stalled.append(connection)
            await connection.hang()
        else:
            await connection.send(part_of(head))

    async with proxy_of(script, tmp_path) as (app, _):
        began = asyncio.get_running_loop().time()
        response = await fetch(app.address, "/x")
        assert (response.status, response.body) == (200, BODY)
        assert asyncio.get_running_loop().time() - began < READ_TIMEOUT - 1
        await stalled[0].ended.wait()
        assert app.cache.statistics().hedges_won
        assert app.origin.free_slots == app.settings.origin.max_connections
        assert "0 failures" in repr(app.origin.breaker)


async def overwritten(proxy: Proxy, s3: S3) -> tuple[bytes, bytes]:
    """Store an object, cache a block of it, and overwrite it. Returns the old and the new bytes."""
    old, new = pattern(3 * PART), pattern(3 * PART + 7, seed=2)
    s3.put("x", old)
    assert (await proxy.get("/x", Range="bytes=0-9")).body == old[:10]
    await proxy.settled()
    s3.put("x", new)
    proxy.relay.reset()
    return old, new


async def test_a_version_is_completed_though_it_was_overwritten(proxy: Proxy, s3: S3) -> None:
    """In a bucket with versions, a reader whose head was sent gets the old version whole, by its id.

    The next request on the same connection gets the new one (I1, I7).
    """
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    old, new = await overwritten(proxy, s3)
    async with proxy.connection() as connection:
        response = await connection.request("GET", "/x")
        assert (response.status, response.body, response.is_complete) == (200, old, True)
        assert next(seen.status for seen in proxy.relay.seen if "versionId" not in seen.target) == 412
        assert any(seen.status == 206 for seen in proxy.relay.seen if "versionId" in seen.target)
        response = await connection.request("GET", "/x")
        assert (response.status, response.body) == (200, new)


@pytest.mark.parametrize("refusal", [canned(403, "AccessDenied"), canned(404, "NoSuchVersion")])
async def test_a_version_that_is_not_given_by_id_is_cut(proxy: Proxy, s3: S3, refusal: bytes) -> None:
    """If the version's id does not help, the response is cut within the old version's bytes, and the next one has
    the new version (I1).
    """
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    old, new = await overwritten(proxy, s3)

    async def refuse(seen: Seen) -> bytes | None:
        return refusal if "versionId" in seen.target else None

    proxy.relay.on_request = refuse
    response = await proxy.get("/x")
    assert (response.status, response.is_complete) == (200, False)
    assert old.startswith(response.body)
    response = await proxy.get("/x")
    assert (response.status, response.body) == (200, new)


async def test_without_versions_an_overwritten_object_is_cut(proxy: Proxy, s3: S3) -> None:
    """In a bucket without versions the rest of the old version is lost. The body never mixes versions (I1, I3)."""
    old, new = await overwritten(proxy, s3)
    response = await proxy.get("/x")
    assert (response.status, response.is_complete) == (200, False)
    assert old.startswith(response.body)
    assert (await proxy.get("/x")).body == new
