"""`cache.mode: shadow`: S3 serves each read, and what the cache would have served is compared with it."""

import json
import logging
from typing import Any

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern
from wire import message

from bucketfront.cache import Verdict, lookup_flow
from bucketfront.cache import shadow as shadow_module
from bucketfront.cache.entries.decision import Decision
from bucketfront.http.metadata import Metadata

SHADOW = {"mode": "shadow"}
SIZE = 3 * BLOCK + 100
BYPASS = 'fwd=bypass; fwd-status={}; detail="shadow"'


async def compared(proxy: Proxy) -> dict[str, int]:
    """Return the verdicts that occurred, once all comparisons have ended."""
    shadow = proxy.app.cache.shadow
    assert shadow is not None
    await shadow.wait()
    await proxy.settled()
    return {verdict.value: count for verdict, count in shadow.counts.items() if count}


async def differences(proxy: Proxy) -> list[dict[str, Any]]:
    summary = json.loads((await proxy.admin("GET", "/api/v1/stats")).body)["summary"]
    found: list[dict[str, Any]] = summary["shadow"]["differences"]
    return found


async def test_clients_get_what_s3_has(start: StartProxy, s3: S3) -> None:
    """Clients get S3's bytes of now, and the cache fills, hits and counts as if it served them."""
    proxy = await start(cache=SHADOW)
    body = pattern(SIZE)
    s3.put("a", body)
    for _ in range(3):
        response = await proxy.get("/a")
        assert (response.body, response.cache_status) == (body, BYPASS.format(206))
        await compared(proxy)
    part = await proxy.get("/a", Range=f"bytes={BLOCK - 5}-{2 * BLOCK + 5}")
    assert (part.status, part.body) == (206, body[BLOCK - 5 : 2 * BLOCK + 6])
    several = await proxy.get("/a", Range=f"bytes=0-9,{BLOCK}-{BLOCK + 9}")
    assert several.status == 206
    assert (await proxy.request("HEAD", "/a")).cache_status == BYPASS.format(200)
    assert (await proxy.get("/a", If_None_Match=s3.head("a")["ETag"])).status == 304
    assert await compared(proxy) == {"same": 7}
    figures = proxy.figures
    assert (figures["misses"], figures["hits"], figures["entries"]) == (1, 6, 1)
    assert len(proxy.files) == 1
    assert not proxy.app.fast_path.is_on


async def test_staleness_is_told_apart(start: StartProxy, s3: S3) -> None:
    """An older version within its lifetime is `stale`, and the cache follows once that is over (I7)."""
    proxy = await start(cache=SHADOW, freshness={"default_ttl": "100s", "stale_while_revalidate": 0})
    s3.put("a", b"old")
    assert (await proxy.get("/a")).body == b"old"
    assert await compared(proxy) == {"same": 1}
    s3.put("a", b"new")
    proxy.clock.advance(50)
    assert (await proxy.get("/a")).body == b"new"
    assert await compared(proxy) == {"same": 1, "stale": 1}
    proxy.clock.advance(60)
    assert (await proxy.get("/a")).body == b"new"
    assert await compared(proxy) == {"same": 2, "stale": 1}
    s3.delete("a")
    assert (await proxy.get("/a")).status == 404
    assert await compared(proxy) == {"same": 2, "stale": 2}
    assert await differences(proxy) == []


async def test_absences(start: StartProxy, s3: S3) -> None:
    """A remembered 404 is `stale` while it holds, and the same 404 is `same`."""
    proxy = await start(cache=SHADOW, freshness={"negative_ttl": "10s"})
    for _ in range(2):
        assert (await proxy.get("/a")).status == 404
        await compared(proxy)
    s3.put("a", b"body")
    assert (await proxy.get("/a")).status == 200
    assert await compared(proxy) == {"same": 2, "stale": 1}
    proxy.clock.advance(11)
    assert (await proxy.get("/a")).status == 200
    assert await compared(proxy) == {"same": 3, "stale": 1}


async def test_wrong_bytes_are_found(start: StartProxy, s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    """A block that another process changed is a `bytes` with key and offsets, in log, statistics and metrics (I1)."""
    proxy = await start(cache=SHADOW)
    body = pattern(SIZE)
    s3.put("a", body)
    await proxy.get("/a")
    await compared(proxy)
    (file,) = proxy.files
    with file.open("r+b") as opened:
        opened.seek(2 * BLOCK + 7)
        opened.write(b"wrong")
    with caplog.at_level(logging.ERROR, "bucketfront.cache.shadow"):
        for _ in range(3):
            assert (await proxy.get("/a")).body == body
            await compared(proxy)
    assert await compared(proxy) == {"same": 1, "bytes": 3}
    found = await differences(proxy)
    assert [each["key"] for each in found] == ["a"] * 3
    assert f"bytes {2 * BLOCK}-{3 * BLOCK - 1}" in found[0]["text"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1, "lines of one kind are rare"
    assert f"{s3.bucket}/a" in lines[0]
    metrics = (await proxy.admin("GET", "/metrics")).body.decode()
    assert 'bucketfront_shadow_comparisons_total{verdict="bytes"} 3.0' in metrics


async def test_outdated_versions_are_found(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that serves past the lifetime is `outdated`, which a lifetime does not explain (I7)."""
    proxy = await start(cache=SHADOW, freshness={"default_ttl": "100s", "stale_while_revalidate": 0})
    s3.put("a", b"old")
    await proxy.get("/a")
    await compared(proxy)
    s3.put("a", b"new")
    monkeypatch.setattr(lookup_flow, "decide", lambda *_, **__: Decision.HIT)
    proxy.clock.advance(101)
    assert (await proxy.get("/a")).body == b"new"
    assert await compared(proxy) == {"same": 1, "outdated": 1}
    assert "validated 101 s ago" in (await differences(proxy))[0]["text"]


async def test_other_headers_are_found(start: StartProxy, s3: S3) -> None:
    """A version with other headers than S3 sends is `headers`, with their names and not their values (I28)."""
    proxy = await start(cache=SHADOW)
    s3.put("a", b"body", ContentType="text/plain", Metadata={"secret": "hidden"})
    await proxy.get("/a")
    await compared(proxy)
    entry = proxy.app.cache_assembly.entries.get(next(iter(_keys(proxy))))
    assert entry is not None
    known = entry.metadata
    entry.metadata = Metadata(known.etag, known.size, known.last_modified, (("Content-Type", "text/html"),))
    await proxy.get("/a")
    assert await compared(proxy) == {"same": 1, "headers": 1}
    (found,) = await differences(proxy)
    assert "Content-Type, x-amz-meta-secret" in found["text"]
    assert "hidden" not in found["text"]


def _keys(proxy: Proxy) -> Any:
    found, _ = proxy.app.cache.entries(proxy.app.settings.mounts[0].bucket, "", None, 10)
    return [view.key for view in found]


async def test_what_is_not_stored(start: StartProxy, s3: S3) -> None:
    """An object larger than the cache is `unstored`: the cache would have sent S3's bytes as well."""
    proxy = await start(cache={**SHADOW, "max_size": 4 * BLOCK})
    body = pattern(8 * BLOCK)
    s3.put("a", body)
    assert (await proxy.get("/a")).body == body
    assert await compared(proxy) == {"unstored": 1}


async def test_writes(start: StartProxy, s3: S3) -> None:
    """After an upload, S3 and the cache have the same (I5)."""
    proxy = await start(cache=SHADOW)
    for seed in (1, 2):
        body = pattern(SIZE, seed)
        assert (await proxy.request("PUT", "/a", body=body)).status in (200, 201)
        assert (await proxy.get("/a")).body == body
    assert await compared(proxy) == {"same": 2}
    assert proxy.figures["hits"] == 2
    assert (await proxy.request("DELETE", "/a")).status == 204
    assert (await proxy.get("/a")).status == 404
    assert await compared(proxy) == {"same": 3}


async def test_a_client_that_leaves(start: StartProxy, s3: S3) -> None:
    """A client that leaves ends its comparison, of what it was sent, and nothing stays behind (I12)."""
    proxy = await start(cache=SHADOW)
    s3.put("a", pattern(64 * BLOCK))
    async with proxy.connection() as connection:
        await connection.send(message("GET", "/a"))
        assert (await connection.head()).status == 200
        connection.abort()
    assert sum((await compared(proxy)).values()) == 1
    assert set(await compared(proxy)) <= {"same", "skipped"}


async def test_no_more_than_so_many(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound, clients get their responses without a comparison (I19)."""
    monkeypatch.setattr(shadow_module, "MAX_AT_ONCE", 0)
    proxy = await start(cache=SHADOW)
    s3.put("a", b"body")
    assert (await proxy.get("/a")).body == b"body"
    assert await compared(proxy) == {"skipped": 1}
    assert proxy.figures["entries"] == 0


async def test_s3_fails(start: StartProxy, s3: S3) -> None:
    """While S3 fails, clients get its failure, although the cache has the object."""
    proxy = await start(cache=SHADOW)
    s3.put("a", b"body")
    await proxy.get("/a")
    await compared(proxy)

    async def fail(_: object) -> bytes:
        return b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"

    proxy.relay.on_request = fail
    assert (await proxy.get("/a")).status == 502
    assert await compared(proxy) == {"same": 1, "skipped": 1}


def test_the_kinds_of_verdicts() -> None:
    """Only what a lifetime or a change does not explain is a fault."""
    assert {Verdict.OUTDATED, Verdict.HEADERS, Verdict.BYTES} == shadow_module.WRONG
