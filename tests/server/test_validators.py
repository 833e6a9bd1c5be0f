"""Origins whose ETags cannot tell versions apart: absent, empty, constant, weak or without quotes."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes import Head, RawConnection, RawServer, response
from proxy_under_test import BLOCK, PART, WallClock, pattern, settings_of
from rows import each_row
from wire import Response, fetch

from bucketfront.app import App
from bucketfront.cache.storage import file_storage

OLD, NEW = "Wed, 21 Oct 2015 07:28:00 GMT", "Thu, 22 Oct 2015 07:28:00 GMT"


@dataclass(slots=True)
class Shelf:
    """One object with the ETag `etag`, sent by an origin that compares If-Match and If-None-Match as RFC 9110 does."""

    body: bytes
    etag: str | None
    last_modified: str | None = OLD
    version: str | None = None
    is_deaf: bool = False  # whether If-None-Match is ignored
    later: "Shelf | None" = None  # sends the ranges that do not begin at 0
    ignores_range: bool = False
    is_exact: bool = False  # whether a suffix longer than the object gets 416, as from rclone
    app: App | None = None
    gets: list[str] = field(default_factory=list)  # the Range of each

    async def send(self, connection: RawConnection, head: Head) -> None:
        if self.later is not None and not head.headers.get("range", "bytes=0-").startswith("bytes=0-"):
            await self.later.send(connection, head)
            return
        told: dict[str, Any] = {"ETag": self.etag, "Last_Modified": self.last_modified, "Cache_Control": "max-age=60"}
        told["x_amz_version_id"] = self.version
        if self.etag and head.headers.get("if-none-match") == self.etag and not self.is_deaf:
            await connection.send(response("304 Not Modified", length=-1, **told))
        elif "if-match" in head.headers and (head.headers["if-match"] != self.etag or self.etag.startswith("W/")):
            await connection.send(response("412 Precondition Failed"))
        elif head.method == "HEAD":
            await connection.send(response("200 OK", length=len(self.body), **told))
        else:
            self.gets.append(head.headers.get("range", ""))
            if self.ignores_range or not self.gets[-1]:
                await connection.send(response("200 OK", self.body, **told))
                return
            first, last = head.headers["range"].removeprefix("bytes=").split("-")
            if self.is_exact and not first and int(last) > len(self.body):
                await connection.send(response("416 Range Not Satisfiable"))
                return
            start = int(first) if first else max(0, len(self.body) - int(last))
            body = self.body[start : int(last) + 1 if first and last else None]
            where = f"bytes {start}-{start + len(body) - 1}/{len(self.body)}"
            await connection.send(response("206 Partial Content", body, Content_Range=where, **told))

    async def get(self, part: str | None = None, *, method: str = "GET") -> Response:
        assert self.app is not None
        headers = None if part is None else {"Range": part}
        return await fetch(self.app.address, "/x", method=method, headers=headers)


@asynccontextmanager
async def shelf_of(folder: Path, body: bytes, etag: str | None) -> AsyncIterator[tuple[Shelf, WallClock]]:
    shelf, clock = Shelf(body, etag), WallClock()
    async with (
        RawServer(shelf.send) as server,
        App(settings_of(folder, server.endpoint_url, "bucket"), clock=clock) as app,
    ):
        shelf.app = app
        yield shelf, clock


@each_row("etag", [None, 'W/"weak"', '"strong"'])
@each_row("size", [1, 100])
async def test_a_suffix_that_the_origin_refuses(tmp_path: Path, etag: str | None, size: int) -> None:
    """I1: if the origin sends 416 for a suffix that is longer than the object, a shorter one is served all the same.
    Without a strong ETag it is cut out of the whole object.
    """
    body = pattern(size)
    async with shelf_of(tmp_path, body, etag) as (shelf, _):
        shelf.is_exact = True
        for _ in range(2):
            got = await shelf.get("bytes=-1")
            assert (got.status, got.body, got.headers["Content-Range"]) == (
                206,
                body[-1:],
                f"bytes {size - 1}-{size - 1}/{size}",
            )
        got = await shelf.get(f"bytes=-{size + 1}")
        assert (got.status, got.body) == (206, body)


@each_row("etag", [None, '""', 'W/""'])
@each_row("size", [1, BLOCK + 5, 2 * PART + 5])
async def test_an_object_without_a_validator_passes_through(tmp_path: Path, etag: str | None, size: int) -> None:
    """An object whose ETag is absent or empty is served whole from one response, and is never stored (I1)."""
    body = pattern(size)
    async with shelf_of(tmp_path, body, etag) as (shelf, _):
        for _ in range(2):
            got = await shelf.get()
            assert (got.status, got.body, got.is_complete) == (200, body, True)
            assert got.cache_status == 'fwd=miss; fwd-status=206; detail="no-validator"'
            assert "ETag" not in got.headers
        got = await shelf.get("bytes=-1")
        assert (got.status, got.body) == (206, body[-1:])
        shelf.body, shelf.last_modified = pattern(size, seed=2), NEW
        got = await shelf.get()
        assert (got.body, got.headers["Last-Modified"]) == (shelf.body, NEW)
        assert shelf.app is not None
        assert shelf.app.cache.statistics().entries == 0


@each_row("etag", ['"constant"', 'W/"constant"', "constant"])
@each_row("size", [1, 2 * PART + 5])
async def test_an_etag_that_never_changes(tmp_path: Path, etag: str, size: int) -> None:
    """If Last-Modified shows another version under the same ETag, its bytes are fetched (I1, I4)."""
    async with shelf_of(tmp_path, pattern(size), etag) as (shelf, clock):
        for seed, date in enumerate((OLD, NEW, OLD)):
            shelf.body, shelf.last_modified = pattern(size, seed=seed), date
            clock.advance(1000)
            for _ in range(2):
                got = await shelf.get()
                assert (got.status, got.body, got.headers["Last-Modified"]) == (200, shelf.body, date)
            assert got.cache_status.startswith("hit")


@each_row(
    ("dates", "versions"),
    [
        ((OLD, None), (None, None)),
        ((None, OLD), (None, None)),
        ((OLD, OLD), ("v1", "v2")),
        ((OLD, OLD), ("v1", None)),
        ((OLD, OLD), (None, "v1")),
        ((None, None), ("v1", "v2")),
    ],
)
async def test_parts_that_differ_in_date_or_version(
    tmp_path: Path, dates: tuple[str | None, str | None], versions: tuple[str | None, str | None]
) -> None:
    """I1: parts with one ETag are of two versions if one has another Last-Modified or version id, or has none."""
    old, new = pattern(4 * PART), pattern(4 * PART, seed=1)
    async with shelf_of(tmp_path, old, '"constant"') as (shelf, _):
        shelf.last_modified, shelf.version = dates[0], versions[0]
        shelf.later = Shelf(new, '"constant"', dates[1], versions[1])
        for _ in range(2):
            got = await shelf.get()
            assert got.status == 502 or (not got.is_complete and old.startswith(got.body))
        got = await shelf.get(f"bytes={3 * PART}-")
        assert (got.status, got.body) == (206, new[3 * PART :])


@pytest.mark.parametrize("is_headed", [False, True])
async def test_later_ranges_are_ignored(tmp_path: Path, is_headed: bool) -> None:
    """An origin that ignores the Range of later parts alone costs bytes, and no response (I1, I3)."""
    body = pattern(3 * PART + 5)
    async with shelf_of(tmp_path, body, '"1"') as (shelf, _):
        shelf.later = Shelf(body, '"1"', ignores_range=True)
        if is_headed:
            assert (await shelf.get(method="HEAD")).status == 200
            got = await shelf.get(f"bytes={2 * PART + 7}-{2 * PART + 16}")
            assert (got.status, got.body) == (206, body[2 * PART + 7 : 2 * PART + 17])
        for _ in range(2):
            got = await shelf.get()
            assert (got.status, got.body) == (200, body)
        assert got.cache_status.startswith("hit")


@each_row("method", ["GET", "HEAD"])
@each_row("size", [1, 2 * PART + 5])
async def test_nothing_tells_the_versions_apart(tmp_path: Path, size: int, method: str) -> None:
    """Only a 304 confirms a version without Last-Modified, because its ETag may never change (I7).

    An origin that ignores If-None-Match sends the new bytes, and they replace the old ones.
    """
    async with shelf_of(tmp_path, pattern(size), '"constant"') as (shelf, clock):
        shelf.last_modified, shelf.is_deaf = None, True
        for seed in range(3):
            shelf.body = pattern(size, seed=seed)
            clock.advance(1000)
            assert (await shelf.get(method=method)).status == 200
            for _ in range(2):
                got = await shelf.get()
                assert (got.status, got.body) == (200, shelf.body)
            assert got.cache_status.startswith("hit")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_304_confirms_a_version_without_a_date(tmp_path: Path, method: str) -> None:
    """A 304 confirms an object without Last-Modified, and none of its bytes are fetched again (I10)."""
    async with shelf_of(tmp_path, pattern(2 * PART), '"1"') as (shelf, clock):
        shelf.last_modified = None
        assert (await shelf.get()).body == shelf.body
        gets = len(shelf.gets)
        for _ in range(2):
            clock.advance(1000)
            got = await shelf.get(method=method)
            assert (got.status, got.cache_status) == (200, "fwd=stale; fwd-status=304")
            assert (await shelf.get()).body == shelf.body
        assert len(shelf.gets) == gets


@each_row("part", [None, "bytes=0-9", f"bytes={PART + 7}-{PART + 9}", "bytes=-5"])
@each_row("is_headed", [False, True])
async def test_a_weak_etag_is_never_joined(tmp_path: Path, part: str | None, is_headed: bool) -> None:
    """An object with a weak ETag is stored from one response, whichever bytes of it are requested first (I1)."""
    body = pattern(2 * PART + 5)
    async with shelf_of(tmp_path, body, 'W/"1"') as (shelf, _):
        if is_headed:
            assert (await shelf.get(method="HEAD")).status == 200
        got = await shelf.get(part)
        assert got.status == (200 if part is None else 206)
        assert got.is_complete
        assert shelf.gets[-1] == "bytes=0-"
        got = await shelf.get()
        assert (got.status, got.body) == (200, body)
        assert set(shelf.gets[1:]) == {"bytes=0-"}


@pytest.mark.parametrize("etag", [None, 'W/"weak"', '"strong"'])
@pytest.mark.parametrize("broken", ["_create", "_write"])
async def test_a_range_while_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, etag: str | None, broken: str
) -> None:
    """I1, I16: a failing disk fails no range. Without a strong ETag it is cut out of one response with all bytes."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "as the test says")

    body = pattern(3 * PART + 5)
    async with shelf_of(tmp_path, body, etag) as (shelf, _):
        monkeypatch.setattr(file_storage if broken == "_write" else file_storage.FileStorage, broken, fail)
        for start, stop in ((0, 9), (BLOCK + 1, 2 * PART), (len(body) - 1, len(body)), (0, len(body))):
            got = await shelf.get(f"bytes={start}-{stop - 1}")
            assert (got.status, got.is_complete) == (206, True)
            assert got.body == body[start:stop]
        assert (await shelf.get("bytes=-7")).body == body[-7:]
        assert (await shelf.get()).body == body
