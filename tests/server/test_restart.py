"""A stop and a kill leave a warm cache and never a wrong byte (I14, I15)."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from proxy_under_test import BLOCK, PART, S3, StartProxy, copy_cache, pattern, until
from relay import Relay, Seen
from wire import fetch

from bucketfront.cache.storage import schema
from bucketfront.errors import CacheInUse, IndexTooNew

READY = 30.0  # seconds from the start of the interpreter on, loaded cores included


async def test_warm_after_a_clean_restart(start: StartProxy, s3: S3) -> None:
    """After a restart fresh objects are hits and stale ones cost a 304. No byte is fetched again."""
    bodies = {"a": pattern(3 * BLOCK + 7, 1), "b/c ü": pattern(10, 2), "part": pattern(6 * BLOCK, 3)}
    for key, body in bodies.items():
        s3.put(key, body, ContentType="text/x-test", Metadata={"who": "me"})
    proxy = await start()
    before = await proxy.get("/a")
    await proxy.get("/b/c%20%C3%BC")
    await proxy.get("/part", Range=f"bytes={2 * BLOCK}-{3 * BLOCK}")
    await proxy.settled()
    await proxy.stop()
    proxy.relay.reset()

    proxy = await start()
    assert proxy.figures["entries"] == 3
    proxy.clock.advance(100)
    after = await proxy.get("/a")
    assert (after.body, after.cache_status, after.headers["Age"]) == (bodies["a"], "hit; ttl=200", "100")
    moving = {"Age", "Date", "Cache-Status", "X-Request-Id"}
    assert [field for field in after.headers.items() if field[0] not in moving] == [
        field for field in before.headers.items() if field[0] not in moving
    ]
    part = await proxy.get("/part", Range=f"bytes={2 * BLOCK}-{3 * BLOCK}")
    assert (part.body, part.cache_status) == (bodies["part"][2 * BLOCK : 3 * BLOCK + 1], "hit; ttl=200")
    assert proxy.relay.seen == []
    proxy.clock.advance(1000)
    assert (await proxy.get("/b/c%20%C3%BC")).body == bodies["b/c ü"]
    assert [seen.status for seen in proxy.relay.seen] == [304]
    assert (await proxy.get("/part")).body == bodies["part"]
    await proxy.settled()
    assert proxy.relay.body_bytes == 4 * BLOCK


async def test_space_is_counted_across_restarts(start: StartProxy, s3: S3) -> None:
    """The budget of a new process begins with the old one's entries, and idle times continue (I17)."""
    proxy = await start()
    s3.put("x", pattern(3 * BLOCK))
    await proxy.get("/x")
    await proxy.settled()
    used = proxy.figures["bytes_used"]
    assert used
    await proxy.stop()
    proxy = await start()
    assert proxy.figures["bytes_used"] == used
    proxy.clock.advance(4000)
    await proxy.step()
    assert (proxy.figures["bytes_used"], proxy.files) == (0, [])


async def test_one_process_per_folder(start: StartProxy, s3: S3) -> None:
    """A second proxy on the same cache folder is refused with its name, and the first does not notice."""
    proxy = await start()
    s3.put("x", b"data")
    with pytest.raises(CacheInUse, match=r"the cache folder .*/cache is in use by another bucketfront"):
        await start()
    assert (await proxy.get("/x")).body == b"data"


async def test_another_endpoint_shares_nothing(start: StartProxy, s3: S3, relay: Relay) -> None:
    """Entries belong to an endpoint. Another endpoint with the same bucket and key is another object (I25)."""
    proxy = await start()
    s3.put("x", b"data")
    await proxy.get("/x")
    await proxy.settled()
    await proxy.stop()
    other = Relay(relay.upstream)
    await other.start()
    proxy = await start(origin={"endpoint_url": other.url})
    assert (await proxy.get("/x")).cache_status.startswith("fwd=miss")
    await proxy.stop()
    await other.close()


async def test_every_moment_of_a_fill(start: StartProxy, s3: S3, tmp_path: Path) -> None:
    """A copy of the folder at any moment of a fill is what a kill would leave.

    A proxy starts on it without help, and serves right bytes only, whole and by ranges (I14).
    """
    bodies = {f"k{number}": pattern(5 * BLOCK + number, number) for number in range(3)}
    for key, body in bodies.items():
        s3.put(key, body)
    proxy = await start()
    copies: list[Path] = []
    chunks = 0

    async def copy(_: Seen) -> None:
        nonlocal chunks
        chunks += 1
        if chunks % 9 == 0:
            copies.append(tmp_path / f"copy{len(copies)}")
            copy_cache(proxy, copies[-1])
            # The next copy finds something in the index too.
            await proxy.app.cache_assembly.flusher.flush()

    proxy.relay.on_body = copy
    for key, body in bodies.items():
        assert (await proxy.get(f"/{key}")).body == body
    await proxy.settled()
    proxy.relay.on_body = None
    assert len(copies) > 5
    for folder in copies:
        revived = await start(cache={"dir": str(folder)})
        for key, body in bodies.items():
            part = await revived.get(f"/{key}", Range=f"bytes={BLOCK + 5}-{3 * BLOCK}")
            assert part.body == body[BLOCK + 5 : 3 * BLOCK + 1], folder
            assert (await revived.get(f"/{key}")).body == body, folder
        await revived.settled()
        assert revived.figures["corrupt_blocks"] == 0
        await revived.app.cache_assembly.housekeeper.sweep()
        assert len(revived.files) == 3
        await revived.stop()


@pytest.mark.parametrize("harm", ["flipped", "zeroed", "shortened", "gone"])
async def test_damage_after_an_unclean_stop(start: StartProxy, s3: S3, tmp_path: Path, harm: str) -> None:
    """After an unclean stop a damaged block is found before a byte of it is sent. It alone is fetched again (I15)."""
    body = pattern(6 * BLOCK)
    s3.put("x", body)
    proxy = await start()
    await proxy.get("/x")
    await proxy.settled()
    await proxy.step()
    folder = tmp_path / "copy"
    copy_cache(proxy, folder)
    (path,) = (folder / "objects").glob("*/*")
    with path.open("r+b") as file:
        file.seek(2 * BLOCK + 77)
        if harm == "flipped":
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 0x10]))
        elif harm == "zeroed":
            file.write(bytes(100))
        elif harm == "shortened":
            file.truncate(2 * BLOCK + 77)
    if harm == "gone":
        path.unlink()
    proxy.relay.reset()
    revived = await start(cache={"dir": str(folder)})
    response = await revived.get("/x")
    assert (response.status, response.is_complete) == (200, True)
    assert response.body == body
    await revived.settled()
    if harm in ("flipped", "zeroed"):
        assert revived.figures["corrupt_blocks"] == 1
        assert proxy.relay.calls == [("GET", f"bytes={2 * BLOCK}-{3 * BLOCK - 1}")]
    else:
        assert proxy.relay.body_bytes == len(body)
    proxy.relay.reset()
    assert (await revived.get("/x")).body == body
    assert proxy.relay.seen == []


@pytest.mark.parametrize("harm", ["garbage", "empty", "cut", "gone", "wal gone"])
async def test_damaged_index(start: StartProxy, s3: S3, tmp_path: Path, harm: str) -> None:
    """An unreadable index costs the cache, not the start. Its files are removed, and bytes stay right (I14)."""
    body = pattern(3 * BLOCK)
    proxy = await start()
    s3.put("x", body)
    await proxy.get("/x")
    await proxy.settled()
    await proxy.step()
    folder = tmp_path / "copy"
    copy_cache(proxy, folder)
    database = folder / "index.db"
    match harm:
        case "garbage":
            database.write_bytes(os.urandom(20_000))
        case "empty":
            database.write_bytes(b"")
        case "cut":
            os.truncate(database, database.stat().st_size // 2)
        case "gone":
            database.unlink()
        case "wal gone":
            (folder / "index.db-wal").unlink()
    revived = await start(cache={"dir": str(folder)})
    response = await revived.get("/x")
    assert (response.status, response.is_complete) == (200, True)
    assert response.body == body
    await revived.settled()
    assert (await revived.get("/x")).body == body


async def test_schema_of_another_version(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade migrates the index, and what was cached stays a hit (docs/invariants.md#crash-only)."""
    proxy = await start()
    s3.put("x", b"data")
    await proxy.get("/x")
    await proxy.settled()
    await proxy.stop()
    version = schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 1)
    monkeypatch.setattr(schema, "MIGRATIONS", {version: "ALTER TABLE entries ADD COLUMN note TEXT"})
    proxy = await start()
    proxy.relay.reset()
    response = await proxy.get("/x")
    assert (response.body, response.cache_status) == (b"data", "hit; ttl=300")
    assert proxy.relay.seen == []
    await proxy.stop()
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version)
    with pytest.raises(IndexTooNew, match="upgrade bucketfront"):
        await start()


@pytest.mark.parametrize("block_size", [2 * BLOCK, 4 * BLOCK])
async def test_other_block_size(start: StartProxy, s3: S3, block_size: int) -> None:
    """A range that is cached in blocks of one size makes no holes in blocks of another (I2)."""
    body = pattern(16 * BLOCK)
    s3.put("x", body)
    proxy = await start()
    await proxy.get("/x", Range=f"bytes=0-{2 * BLOCK - 1}")
    await proxy.settled()
    await proxy.stop()
    proxy = await start(cache={"block_size": block_size}, origin={"part_size": 4 * BLOCK})
    for _ in range(2):
        response = await proxy.get("/x")
        assert response.is_complete
        assert response.body == body
        await proxy.settled()
    await proxy.stop()


@asynccontextmanager
async def serving(config: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a real `bucketfront serve`, and return its address."""
    command = [sys.executable, "-m", "bucketfront.cli", "serve", "-c", str(config)]
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=root, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    assert process.stderr is not None
    try:
        address = None
        async with asyncio.timeout(READY):
            while line := await process.stderr.readline():
                if found := re.search(rb"clients +(http\S+)", line):
                    address = found[1].decode()
                if b"admin" in line:
                    break
        assert address is not None
        yield process, address
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.long
async def test_kill_in_the_middle(s3: S3, relay: Relay, tmp_path: Path) -> None:
    """After repeated `kill -9` during fills each start needs no help and is soon ready, and all bytes are right
    (I14).
    """
    bodies = {f"k{number}": pattern(16 * BLOCK + number, number) for number in range(6)}
    for key, body in bodies.items():
        s3.put(key, body)
    config = tmp_path / "proxy.yaml"
    config.write_text(
        json.dumps(
            {
                "server": {"port": 0, "workers": 1},
                "admin": {"port": 0},
                "origin": {
                    "endpoint_url": relay.url,
                    "addressing_style": "path",
                    "credentials": {"access_key_id": "any", "secret_access_key": "any"},
                    "part_size": PART,
                },
                "mounts": [{"path": "/", "bucket": s3.bucket}],
                "cache": {"dir": str(tmp_path / "cache"), "block_size": BLOCK, "max_size": "64MiB", "min_free": 0},
                "access_log": {"path": str(tmp_path / "access.log")},
            }
        )
    )
    for kill_at in (3 * BLOCK, 20 * BLOCK, 40 * BLOCK):
        limit = relay.body_bytes + kill_at

        async def hold(_: Seen, limit: int = limit) -> None:
            if relay.body_bytes >= limit:
                await asyncio.Event().wait()

        relay.on_body = hold
        async with serving(config) as (process, address):
            clients = [asyncio.create_task(fetch(address, f"/{key}")) for key in bodies]
            await until(lambda limit=limit: relay.body_bytes >= limit)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            await process.wait()
            responses = await asyncio.gather(*clients, return_exceptions=True)
        cut = [response for response in responses if isinstance(response, BaseException) or not response.is_complete]
        assert cut
        for response, body in zip(responses, bodies.values(), strict=True):
            if not isinstance(response, BaseException):
                assert body.startswith(response.body)
    relay.on_body = None
    began_at = time.monotonic()
    async with serving(config) as (_, address):
        assert time.monotonic() - began_at < READY
        for key, body in bodies.items():
            part = await fetch(address, f"/{key}", headers={"Range": f"bytes={3 * BLOCK + 1}-{9 * BLOCK}"})
            assert part.body == body[3 * BLOCK + 1 : 9 * BLOCK + 1]
            whole = await fetch(address, f"/{key}")
            assert (whole.status, whole.is_complete, whole.body == body) == (200, True, True)
