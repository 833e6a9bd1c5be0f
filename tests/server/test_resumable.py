"""Resumable uploads (tus 1.0.0): what is asked, what breaks off, what a restart leaves, what expires."""

import asyncio
import base64
import hashlib
import zlib
from collections.abc import Mapping

import pytest
from proxy_under_test import S3, Proxy, StartProxy, pattern, until
from relay import Cut, Seen, canned
from wire import Answer, chunked, message

from proxy.errors import StoreError
from proxy.http import dates
from proxy.resumable import uploads as resumable_uploads
from proxy.resumable.record import MIN_PART
from proxy.server.failures import status_of

MIB = 1 << 20
DAY = 86400.0
TUS = {"Tus-Resumable": "1.0.0"}
BODY = {**TUS, "Content-Type": "application/offset+octet-stream"}


def metadata(**pairs: str) -> str:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs.items())


async def created(proxy: Proxy, length: int, key: str = "x", **headers: str) -> str:
    """The upload's URL."""
    told = {**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata(key=key)}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await proxy.ask("POST", "/upload", told)
    assert answer.status == 201, answer.body
    return answer.headers["Location"]


async def patched(proxy: Proxy, url: str, offset: int, body: bytes, headers: Mapping[str, str] = BODY) -> Answer:
    return await proxy.ask("PATCH", url, {**headers, "Upload-Offset": str(offset)}, body)


async def offset_of(proxy: Proxy, url: str) -> int:
    answer = await proxy.ask("HEAD", url, TUS)
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    return int(answer.headers["Upload-Offset"])


def unfinished(s3: S3) -> int:
    return len(s3.client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", ()))


def names(proxy: Proxy) -> list[str]:
    """Of the files of uploads."""
    return sorted(path.name for path in (proxy.runtime.settings.cache.dir / "uploads").iterdir())


async def test_in_pieces(proxy: Proxy, s3: S3) -> None:
    """An upload in pieces becomes an object with what its creation said of it; the next read gives it (I5)."""
    s3.put("a b/c.bin", b"old")
    assert (await proxy.get("/a%20b/c.bin")).body == b"old"
    body = pattern(300_000)
    told = {
        **TUS,
        "Upload-Length": str(len(body)),
        "Upload-Metadata": metadata(key="a b/c.bin", filetype="text/x-test", empty=""),
        "Cache-Control": "max-age=77",
        "x-amz-meta-who": "me",
    }
    answer = await proxy.ask("POST", "/upload", told)
    assert (answer.status, answer.headers["Tus-Resumable"]) == (201, "1.0.0")
    url = answer.headers["Location"]
    at = 0
    for size in (1, 99_999, 100_000, 100_000):
        assert await offset_of(proxy, url) == at
        assert (await proxy.get("/a%20b/c.bin")).body == b"old"
        answer = await patched(proxy, url, at, body[at : at + size])
        at += size
        assert (answer.status, answer.headers["Upload-Offset"]) == (204, str(at))
    stored = s3.head("a b/c.bin")
    assert answer.headers["Location"] == "/a%20b/c.bin"
    assert answer.headers["ETag"] == stored["ETag"]
    assert (stored["ContentType"], stored["CacheControl"], stored["Metadata"]) == (
        "text/x-test", "max-age=77", {"who": "me"},
    )  # fmt: skip
    assert (await proxy.get("/a%20b/c.bin")).body == body
    told_at_the_end = await proxy.ask("HEAD", url, TUS)
    assert told_at_the_end.headers["Upload-Offset"] == told_at_the_end.headers["Upload-Length"] == str(len(body))
    assert told_at_the_end.headers["Upload-Metadata"] == told["Upload-Metadata"]
    assert told_at_the_end.headers["Location"] == "/a%20b/c.bin"
