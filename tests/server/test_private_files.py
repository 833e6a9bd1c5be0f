"""All that bucketfront writes is for its own user only, whatever the umask is (I28)."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern
from tus_client import created, patched

from bucketfront.cache.storage.folder import Folder
from bucketfront.keys import ObjectKey


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(root: Path) -> dict[str, int]:
    """Return the modes of the folder and of all that is in it, by path."""
    found = {str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode) for path in root.rglob("*")}
    return {".": stat.S_IMODE(root.stat().st_mode), **found}


def check_private(root: Path) -> set[str]:
    """Check that folders are 0700 and files 0600. Returns the paths."""
    found = modes(root)
    for path, mode in found.items():
        assert mode == (0o700 if (root / path).is_dir() else 0o600), (path, oct(mode))
    return set(found)


async def work(proxy: Proxy, s3: S3) -> None:
    """Fetch, write, upload in all ways, purge, and note what the next start needs."""
    s3.put("a", pattern(3 * BLOCK))
    assert (await proxy.get("/a")).status == 200
    assert (await proxy.get("/a", Range="bytes=5-9")).status == 206
    assert (await proxy.request("PUT", "/b", body=pattern(2 * BLOCK))).status < 300
    assert (await proxy.request("POST", "/upload", body=b"form")).status < 300
    url = await created(proxy, 3 * BLOCK)
    assert (await patched(proxy, url, 0, pattern(BLOCK))).status == 204
    await proxy.app.upload_journal.add(ObjectKey(s3.bucket, "parts"), "id")
    assert (await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/b"]}')).status == 200
    await proxy.settled()
    await proxy.step()


@pytest.mark.usefixtures("_umask")
async def test_what_is_written_is_private(start: StartProxy, s3: S3, tmp_path: Path) -> None:
    """During all kinds of work and after a stop, the cache folder is 0700 and each file in it 0600. Others cannot read
    the access log either.
    """
    proxy = await start()
    await work(proxy, s3)
    damage = sqlite3.DatabaseError("malformed")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    proxy.app.cache_assembly.index._failed(damage)
    paths = check_private(tmp_path / "cache")
    assert {"index.db", "index.db-wal", "index.db-shm", "index.db-damaged", "lock", "uploads.json"} <= paths
    assert any(path.startswith("objects/") and path.count("/") == 2 for path in paths)
    assert any(path.startswith("uploads/") and path.endswith(".1") for path in paths)
    assert any(path.startswith("uploads/") and path.endswith(".json") for path in paths)
    await proxy.stop()
    check_private(tmp_path / "cache")
    assert stat.S_IMODE((tmp_path / "access.log").stat().st_mode) & ~0o640 == 0


async def test_files_of_an_older_release_become_private(start: StartProxy, s3: S3, tmp_path: Path) -> None:
    """Files that others may read are private once they are used, and what they have is kept."""
    proxy = await start()
    await work(proxy, s3)
    await proxy.stop()
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file() and "uploads" not in path.name:
            path.chmod(0o644)
    proxy = await start()
    assert (await proxy.get("/a")).cache_status.startswith("hit")
    found = modes(tmp_path / "cache")
    assert [path for path in found if path.startswith("index.db") and found[path] != 0o600] == []
    (file,) = {path for path in proxy.files if path.stat().st_size == 3 * BLOCK}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.usefixtures("_umask")
def test_folders_above_are_not_writable_by_others(tmp_path: Path) -> None:
    """Missing folders above the cache folder are made so that no other user can rename it."""
    folder = Folder(tmp_path / "a" / "b" / "cache")
    folder.open()
    folder.close()
    for above in (tmp_path / "a", tmp_path / "a" / "b"):
        assert not stat.S_IMODE(above.stat().st_mode) & 0o022
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["index.db", "uploads.json", f"uploads/{'a' * 32}.json", f"uploads/{'a' * 32}.1"])
async def test_a_pipe_in_the_place_of_a_file(start: StartProxy, s3: S3, tmp_path: Path, name: str) -> None:
    """A named pipe in the cache folder does not hold the start, nor the requests after it (I14)."""
    proxy = await start()
    await work(proxy, s3)
    await proxy.stop()
    path = tmp_path / "cache" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    proxy = await start()
    assert (await proxy.get("/a")).body == pattern(3 * BLOCK)
