"""The disk may fail or be small.

The proxy still sends the right bytes without a 5xx (I16), and never takes more space than allowed (I17).
"""

import errno
import os
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern, until

from bucketfront.cache import upload
from bucketfront.cache.storage import file_storage, index
from bucketfront.cache.storage.folder import Folder
from bucketfront.cache.storage.storage import DiskSpace
from bucketfront.errors import StoreError

MIB = 1 << 20


def space(folder: Path) -> int:
    """Return the bytes that a folder's files take on the disk (`st_blocks` counts 512 bytes each)."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue  # evicted meanwhile
    return found


async def test_unusable_folder_at_start(start: StartProxy, tmp_path: Path) -> None:
    """A cache folder that cannot be created ends the start with its name and the remedy (I30)."""
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "below"
    with pytest.raises(StoreError, match=f"cannot write to the cache folder {folder}: .*set cache.dir"):
        await start(cache={"dir": str(folder)})


async def works(proxy: Proxy, s3: S3) -> None:
    """Check that each kind of request has its usual result."""
    body, other = pattern(5 * BLOCK + 3, 5), pattern(BLOCK, 6)
    s3.put("cold", body)
    for _ in range(2):
        response = await proxy.get("/cold")
        assert (response.status, response.is_complete, response.body == body) == (200, True, True)
    part = await proxy.get("/cold", Range=f"bytes={BLOCK - 1}-{3 * BLOCK}")
    assert part.body == body[BLOCK - 1 : 3 * BLOCK + 1]
    assert (await proxy.request("HEAD", "/cold")).headers["Content-Length"] == str(len(body))
    assert (await proxy.request("PUT", "/cold", body=other)).status == 201
    assert (await proxy.get("/cold")).body == other
    assert (await proxy.request("DELETE", "/cold")).status == 204
    assert (await proxy.get("/cold")).status == 404
    assert (await proxy.admin("GET", "/readyz")).status == 200


@pytest.mark.parametrize("harm", ["replaced", "objects removed", "removed"])
async def test_folder_breaks_while_running(proxy: Proxy, s3: S3, harm: str) -> None:
    """A cache folder that is lost under the running proxy costs the cache, but no request (I16)."""
    warm = pattern(3 * BLOCK, 9)
    s3.put("warm", warm)
    await proxy.get("/warm")
    await proxy.settled()
    folder = proxy.app.settings.cache.dir
    shutil.rmtree(folder if harm == "removed" else folder / "objects")
    if harm == "replaced":
        (folder / "objects").write_text("in the way")
    await works(proxy, s3)
    assert (await proxy.get("/warm")).body == warm
    proxy.clock.advance(4000)  # everything is idle: the upkeep wants to unlink
    await works(proxy, s3)
    assert (await proxy.get("/warm")).body == warm


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
async def test_writes_fail(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """On a disk that refuses writes the proxy continues uncached.

    Once the disk works again, objects are stored again (I16).
    """

    def fail(*_: object) -> int:
        raise OSError(code, "as the test says")

    with monkeypatch.context() as broken:
        broken.setattr(file_storage, "_write", fail)
        await works(proxy, s3)
        assert proxy.figures["disk_failures"]
    monkeypatch.setattr(file_storage, "FAILURE_PAUSE_S", 0)
    s3.put("x", b"data")
    await proxy.get("/x")
    await proxy.settled()
    assert (await proxy.get("/x")).cache_status.startswith("hit")


@pytest.mark.parametrize("call", ["pwrite", "pread"])
async def test_an_upload_before_a_disk_that_hangs(
    proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A hanging disk delays an upload for a bounded time.

    Bytes that it refuses bypass it, and a read that it does not complete is refused (I16, I20).
    """
    # The write before the read that hangs must not be late on a slow machine.
    monkeypatch.setattr(upload, "DISK_TIMEOUT_S", 0.05 if call == "pwrite" else 1.0)
    may_go_on, real = threading.Event(), getattr(os, call)

    def hang(*arguments: Any) -> Any:
        may_go_on.wait(5)
        return real(*arguments)

    monkeypatch.setattr(os, call, hang)
    response = await proxy.request("PUT", "/x", body=b"data")
    assert response.status == (201 if call == "pwrite" else 500)
    assert s3.keys() == (["x"] if call == "pwrite" else [])
    may_go_on.set()
    monkeypatch.undo()
    await until(lambda: not proxy.figures["bytes_used"])
    monkeypatch.setattr(file_storage, "FAILURE_PAUSE_S", 0)
    assert (await proxy.request("PUT", "/x", body=b"other")).status == 201
    assert (await proxy.get("/x")).cache_status.startswith("hit")


async def test_a_full_cache_on_a_disk_that_hangs(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no file can be removed to make room, requests go on without the cache, and none waits (I16, I20)."""
    proxy = await start(cache={"max_size": "6MiB"})
    for number in range(4):
        s3.put(f"old-{number}", bytes(MIB))
        await proxy.get(f"/old-{number}")
    await proxy.settled()
    may_go_on, unlink = threading.Event(), Folder.unlink

    def hang(self: Folder, name: str) -> None:
        may_go_on.wait(5)
        unlink(self, name)

    monkeypatch.setattr(file_storage, "DISK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(Folder, "unlink", hang)
    for number in range(4):
        s3.put(f"new-{number}", pattern(MIB, number))
        response = await proxy.get(f"/new-{number}")
        assert (response.status, response.body) == (200, pattern(MIB, number))
    assert proxy.figures["disk_failures"]
    may_go_on.set()


@pytest.mark.parametrize("after", [1, 3, 7])
async def test_disk_fills_up_in_the_middle(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A disk that fills up in the middle of a response does not change it (I1, I16)."""
    body = pattern(9 * BLOCK + 1)
    s3.put("x", body)
    write, count = file_storage._write, 0

    def fail_after(fd: int, offset: int, data: bytes, checksum: int, block_size: int) -> list[int]:
        nonlocal count
        count += 1
        if count > after:
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(fd, offset, data, checksum, block_size)

    monkeypatch.setattr(file_storage, "_write", fail_after)
    response = await proxy.get("/x")
    assert (response.status, response.is_complete) == (200, True)
    assert response.body == body
    assert (await proxy.get("/x")).body == body


@pytest.mark.parametrize("broken", ["_create", "_open_file", "_remove"])
async def test_other_calls_fail(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Errors of creating, opening or removing files fail no request either (I16)."""

    def fail(*_: object) -> None:
        raise OSError(errno.EACCES, "permission denied")

    monkeypatch.setattr(file_storage.FileStorage, broken, fail)
    await works(proxy, s3)


async def test_index_fails(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that refuses writes and reads fails no request either (I16)."""

    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def fail_to_read(*_: object) -> None:
        raise StoreError("the cache index failed")

    with monkeypatch.context() as broken:
        broken.setattr(index.Index, "_write", fail)
        broken.setattr(index.Index, "_read", fail_to_read)
        await works(proxy, s3)
    monkeypatch.setattr(file_storage, "FAILURE_PAUSE_S", 0)
    await proxy.step()


async def test_larger_than_the_cache(start: StartProxy, s3: S3) -> None:
    """An object larger than `max_size` is streamed, whole and by ranges, and leaves nothing in the cache (I17)."""
    proxy = await start(cache={"max_size": "1MiB"})
    body = pattern(2 * MIB + 5)
    s3.put("x", body)
    for _ in range(2):
        assert (await proxy.get("/x")).body == body
    part = await proxy.get("/x", Range=f"bytes={MIB}-{MIB + 99}")
    assert (part.status, part.body) == (206, body[MIB : MIB + 100])
    await proxy.settled()
    assert proxy.figures["passthroughs"]
    assert space(proxy.app.settings.cache.dir / "objects") <= 128 << 10


async def test_space_bound(start: StartProxy, s3: S3) -> None:
    """With three times more objects than fit, the least recently used are evicted, and the folder never exceeds
    `max_size` (I17).
    """
    limit = 6 * MIB
    proxy = await start(cache={"max_size": limit})
    bodies = {f"k{number}": pattern(5 * BLOCK + number, number) for number in range(55)}
    running = 8 * PART
    for key, body in bodies.items():
        s3.put(key, body)
        assert (await proxy.get(f"/{key}")).body == body
        assert (await proxy.get("/k0")).body == bodies["k0"]  # always in use, so never a victim
        assert space(proxy.app.settings.cache.dir) <= limit + running
        if key.endswith("7"):
            await proxy.step()
    await proxy.settled()
    figures = proxy.figures
    assert figures["evicted"] > 30
    assert figures["bytes_used"] + figures["index_bytes"] <= limit
    proxy.relay.reset()
    assert (await proxy.get("/k0")).cache_status.startswith("hit")
    assert (await proxy.get("/k54")).cache_status.startswith("hit")
    assert (await proxy.get("/k1")).cache_status.startswith("fwd=miss")


async def test_min_free(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk has less than `min_free` left, nothing is stored and entries are evicted. Responses stay right."""
    free = 100 * MIB

    async def disk_space(_: object) -> DiskSpace:
        return DiskSpace(free, 1000 * MIB)

    monkeypatch.setattr(file_storage.FileStorage, "disk_space", disk_space)
    proxy = await start(cache={"min_free": "5%"})
    s3.put("x", b"data")
    s3.put("y", b"data")
    await proxy.get("/x")
    await proxy.settled()
    await proxy.step()
    assert len(proxy.files) == 1
    free = 10 * MIB
    await proxy.step()
    assert proxy.files == []
    assert (await proxy.get("/y")).body == b"data"
    await proxy.settled()
    assert proxy.files == []


async def test_idle_timeout(start: StartProxy, s3: S3) -> None:
    """An object without a request in `idle_timeout` is removed.

    Each access restarts the timer, also a 304 or a HEAD.
    """
    proxy = await start(cache={"idle_timeout": "1h"})
    etags = {key: s3.put(key, b"data", CacheControl="max-age=99999") for key in ("idle", "get", "head", "304")}
    for key in etags:
        await proxy.get(f"/{key}")
    await proxy.settled()
    await proxy.step()
    assert len(proxy.files) == 4
    proxy.clock.advance(3000)
    await proxy.get("/get")
    await proxy.request("HEAD", "/head")
    await proxy.get("/304", If_None_Match=etags["304"])
    proxy.clock.advance(1000)
    await proxy.step()
    assert len(proxy.files) == 3
    assert (await proxy.get("/idle")).cache_status.startswith("fwd=miss")
    for key in ("get", "head", "304"):
        assert (await proxy.get(f"/{key}")).cache_status.startswith("hit"), key
    proxy.clock.advance(3601)
    await proxy.step()
    assert proxy.files == []
    assert proxy.figures["entries"] == 0


async def test_open_answers_outlive_eviction(start: StartProxy, s3: S3) -> None:
    """A purge during a response only unlinks the file, and the response goes on to its last byte (I18)."""
    proxy = await start()
    body = pattern(8 * MIB)
    s3.put("x", body)
    await proxy.get("/x")
    await proxy.settled()
    async with proxy.connection() as connection:
        await connection.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await connection.head()).status == 200
        assert (await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')).json() == {"purged": 1}
        assert await connection.reader.readexactly(len(body)) == body
    await until(lambda: not proxy.figures["bytes_used"])
