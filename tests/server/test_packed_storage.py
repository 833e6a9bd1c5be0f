"""The proxy over a storage that packs its versions into one file: no sender takes an object's offset for the file's."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import localhost_certificate
from packed_storage import PackedStorage
from proxy_under_test import BLOCK, S3, StartProxy, pattern
from wire import fetch

from bucketfront.cache import assembly
from bucketfront.cache.storage.file_storage import FileStorage

MIB = 1 << 20
SIZES = (1, 1000, BLOCK, 3 * BLOCK + 7, 3 * MIB + 5)
CALLS = (
    "create", "open_file", "write", "read", "read_known", "read_in", "checksums", "digest", "audit", "punch", "sync",
    "remove", "close_file",
)  # fmt: skip


class PackedFolder(FileStorage):
    """The cache folder for the index, and a `PackedStorage` for the objects."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        packed = PackedStorage()
        for name in CALLS:
            setattr(self, name, getattr(packed, name))


@pytest.mark.parametrize("is_tls", [False, True])
async def test_objects_and_ranges(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_tls: bool
) -> None:
    """Objects of every size and ranges of them, cold and warm, from memory, by `sendfile` and over TLS (I1)."""
    monkeypatch.setattr(assembly, "FileStorage", PackedFolder)
    settings, tls = {}, None
    if is_tls:
        chain, key = localhost_certificate(tmp_path)
        settings = {"server": {"tls": {"certificate": str(chain), "key": str(key)}}}
        tls = ssl.create_default_context(cafile=str(chain))
        tls.check_hostname = False  # the address is 127.0.0.1
    proxy = await start(**settings)
    for size in SIZES:
        body = pattern(size)
        s3.put(f"x{size}", body)
        for _ in range(3):
            response = await fetch(proxy.address, f"/x{size}", tls=tls)
            assert (response.status, response.is_complete) == (200, True)
            assert response.body == body
        assert response.cache_status.startswith("hit")
        first = size // 3
        response = await fetch(proxy.address, f"/x{size}", headers={"Range": f"bytes={first}-"}, tls=tls)
        assert (response.status, response.body) == (206, body[first:])
    assert proxy.figures["entries"] == len(SIZES)
    assert proxy.figures["passthroughs"] == 0
