"""Stores that keep objects compressed and decode them on the way, unless Accept-Encoding names their coding."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes import Head, RawConnection, RawServer, response
from proxy_under_test import BLOCK, PART, WallClock, pattern, settings_of
from rows import each_row
from wire import Response, chunked, fetch

from bucketfront.app import App

BODY = pattern(20 * PART + 100)
CODED = pattern(len(BODY), seed=2)  # opaque, and by chance as long as what it stands for


@dataclass(slots=True)
class Store:
    """One object, stored with gzip. `etag` is that of the coded bytes, and `decoded_etag` that of the decoded ones.

    The decoded object has no length and no ranges if `is_chunked`, as at Google, else both.
    """

    etag: str = '"coded"'
    decoded_etag: str | None = None
    is_chunked: bool = True
    app: App | None = None
    accepted: list[str] = field(default_factory=list)  # Accept-Encoding of each request
    methods: list[str] = field(default_factory=list)

    async def send(self, connection: RawConnection, head: Head) -> None:
        accepted = head.headers["accept-encoding"]
        self.accepted.append(accepted)
        self.methods.append(head.method)
        assert "accept-encoding" not in head.headers["authorization"], "an HTTP proxy may change it"
        is_coded = "gzip" in accepted
        etag, body = (self.etag, CODED) if is_coded else (self.decoded_etag, BODY)
        told: dict[str, Any] = {"ETag": etag, "Cache_Control": "max-age=60", "Vary": "Accept-Encoding"}
        told["Content_Encoding"] = "gzip" if is_coded else None
        if etag is not None and head.headers.get("if-none-match") == etag:
            await connection.send(response("304 Not Modified", length=-1, **told))
        elif "if-match" in head.headers and head.headers["if-match"] != etag:
            await connection.send(response("412 Precondition Failed"))
        elif not is_coded and self.is_chunked:
            headers = response("200 OK", length=-1, Transfer_Encoding="chunked", **told)
            await connection.send(headers if head.method == "HEAD" else headers + chunked(body[:1000], body[1000:]))
        elif head.method == "HEAD":
            await connection.send(response("200 OK", length=len(body), **told))
        else:
            first, last = head.headers["range"].removeprefix("bytes=").split("-")
            start = int(first) if first else max(0, len(body) - int(last))
            part = body[start : int(last) + 1 if first and last else None]
            where = f"bytes {start}-{start + len(part) - 1}/{len(body)}"
            await connection.send(response("206 Partial Content", part, Content_Range=where, **told))

    async def get(self, method: str = "GET", target: str = "/x", **headers: str) -> Response:
        assert self.app is not None
        return await fetch(self.app.address, target, method=method, headers=headers)


@asynccontextmanager
async def store_of(folder: Path, store: Store, **sections: Any) -> AsyncIterator[WallClock]:
    async with RawServer(store.send) as server, started(folder, store, server, **sections) as clock:
        yield clock


@asynccontextmanager
async def started(folder: Path, store: Store, raw: RawServer, **sections: Any) -> AsyncIterator[WallClock]:
    settings, clock = settings_of(folder, raw.endpoint_url, "bucket", **sections), WallClock()
    async with App(settings, clock=clock, elapsed=clock.passed) as app:
        store.app = app
        yield clock


def is_one_of(got: Response, start: int = 0, stop: int | None = None) -> bool:
    """Return whether the response has bytes of one of the two representations, and the fields of the same."""
    is_coded = got.headers.get("Content-Encoding") == "gzip"
    assert got.is_complete
    return got.body == (CODED if is_coded else BODY)[start:stop]


@pytest.mark.parametrize("where", ["origin", "mounts"])
async def test_a_named_coding_is_cached(tmp_path: Path, where: str) -> None:
    """I25: with its coding named, by every kind of request, an object is cached as the store keeps it."""
    mount = {"path": "/", "bucket": "bucket", "accept_encoding": "gzip" if where == "mounts" else None}
    coding = "br, gzip" if where == "origin" else "identity"
    store = Store()
    async with store_of(tmp_path, store, origin={"accept_encoding": coding}, mounts=[mount]) as clock:
        assert (await store.get("HEAD")).headers["Content-Length"] == str(len(CODED))
        for _ in range(2):
            got = await store.get(Range=f"bytes={PART}-{PART + 9}")
            assert (got.status, got.headers["Content-Encoding"]) == (206, "gzip")
            assert is_one_of(got, PART, PART + 10)
            assert is_one_of(await store.get())
        assert (await store.get()).cache_status.startswith("hit")
        clock.advance(1000)
        assert is_one_of(await store.get())
        assert set(store.accepted) == {"br, gzip" if where == "origin" else "gzip"}


@each_row("etag", [None, 'W/"coded"', '"coded"'])
@each_row("is_chunked", [True, False])
async def test_a_decoded_object_is_right(tmp_path: Path, etag: str | None, is_chunked: bool) -> None:
    """I1: without its coding named, the object is served decoded, whatever its length, ranges and ETag are."""
    store = Store(decoded_etag=etag, is_chunked=is_chunked)
    async with store_of(tmp_path, store) as clock:
        for _ in range(2):
            got = await store.get()
            assert (got.status, got.body, "Content-Encoding" in got.headers) == (200, BODY, False)
            for start in (0, BLOCK + 5, len(BODY) - 7):
                got = await store.get(Range=f"bytes={start}-{start + 3}")
                assert (got.status, got.body) == (206, BODY[start : start + 4])
            got = await store.get("HEAD")
            assert (got.status, got.headers["Content-Length"]) == (200, str(len(BODY)))
            clock.advance(1000)
        assert set(store.accepted) == {"identity"}


@pytest.mark.parametrize("etag", [None, '"coded"'])
async def test_two_codings_never_mix(tmp_path: Path, etag: str | None) -> None:
    """I1: after the setting changes, no response has bytes or fields of both representations, even under one ETag."""
    store, later = Store(decoded_etag=etag, is_chunked=False), 19 * PART
    async with RawServer(store.send) as server:
        for number, coding in enumerate(("gzip", "identity", "gzip")):
            start = 7 * number * PART
            settings = {"origin": {"accept_encoding": coding}, "cache": {"after_disconnect": "stop"}}
            async with started(tmp_path, store, server, **settings) as clock:
                assert is_one_of(await store.get(Range="bytes=0-9"), 0, 10)
                assert is_one_of(await store.get(Range=f"bytes={start}-{start + 9}"), start, start + 10)
                clock.advance(1000)
                assert is_one_of(await store.get(Range="bytes=5-9"), 5, 10)
                if number == 2:
                    assert is_one_of(await store.get(Range=f"bytes={later}-{later + 9}"), later, later + 10)
                    assert is_one_of(await store.get())


async def test_mounts_of_one_bucket(tmp_path: Path) -> None:
    """I25: what a key's requests accept follows from the key, by whatever mount it is named."""
    mounts = [
        {"path": "/", "bucket": "bucket"},
        {"path": "/short/", "bucket": "bucket", "prefix": "packed/", "accept_encoding": "gzip"},
    ]
    store = Store()
    async with store_of(tmp_path, store, mounts=mounts):
        for target in ("/packed/x", "/short/x"):
            got = await store.get(target=target)
            assert (got.headers["Content-Encoding"], is_one_of(got)) == ("gzip", True)
        assert got.cache_status.startswith("hit")
        assert "Content-Encoding" not in (await store.get()).headers
