"""Header fields of an object on their way from the origin's wire to the client's."""

import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from certificates import localhost_certificate
from fakes import Head, RawConnection, RawServer
from proxy_under_test import WallClock, pattern, settings_of, until
from rows import each_row
from wire import Response, fetch

from bucketfront.app import App

BODY = pattern(4000)
ETAG = '"1-2"'
PAST, FUTURE = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2065 07:28:00 GMT"

Lines = Sequence[tuple[str, bytes]]


@dataclass(slots=True)
class Shelf:
    """One object with these field lines, as they go over the wire."""

    lines: Lines
    of_304: Lines | None = None  # None: those of the object
    app: App | None = None
    requests: list[str] = field(default_factory=list)

    async def send(self, connection: RawConnection, head: Head) -> None:
        self.requests.append(head.method)
        if head.headers.get("if-none-match") == ETAG:
            await connection.send(raw("304 Not Modified", (("ETag", ETAG.encode()), *self._lines_of_304)))
            return
        first, last = head.headers.get("range", f"bytes=0-{len(BODY) - 1}").removeprefix("bytes=").split("-")
        start = int(first) if first else max(0, len(BODY) - int(last))
        body = BODY[start : int(last) + 1 if first and last else None]
        lines = [("ETag", ETAG.encode()), *self.lines, ("Content-Length", b"%d" % len(body))]
        if head.method == "HEAD":
            await connection.send(raw("200 OK", lines))
        else:
            lines.append(("Content-Range", b"bytes %d-%d/%d" % (start, start + len(body) - 1, len(BODY))))
            await connection.send(raw("206 Partial Content", lines) + body)

    @property
    def _lines_of_304(self) -> Lines:
        return self.lines if self.of_304 is None else self.of_304

    async def get(self, method: str = "GET", tls: ssl.SSLContext | None = None, **headers: str) -> Response:
        assert self.app is not None
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await fetch(self.app.address, "/x", method=method, headers=named, tls=tls)


def raw(status: str, lines: Lines) -> bytes:
    head = b"".join(b"%s: %s\r\n" % (name.encode(), value) for name, value in lines)
    return f"HTTP/1.1 {status}\r\n".encode() + head + b"\r\n"


@asynccontextmanager
async def shelf_of(folder: Path, *lines: tuple[str, bytes], **sections: Any) -> AsyncIterator[tuple[Shelf, WallClock]]:
    shelf, clock = Shelf(lines), WallClock()
    async with RawServer(shelf.send) as server, started(shelf, folder, server, clock, **sections):
        yield shelf, clock


@asynccontextmanager
async def started(
    shelf: Shelf, folder: Path, origin: RawServer, clock: WallClock, **sections: Any
) -> AsyncIterator[None]:
    settings = settings_of(folder, origin.endpoint_url, "bucket", **sections)
    async with App(settings, clock=clock, elapsed=clock.passed) as app:
        shelf.app = app
        yield


OCTETS = [
    b'attachment; filename="\xdcbung.pdf"',  # Latin-1
    'attachment; filename="Übung, 日本.pdf"'.encode(),
    b"\x80\xfe\xff",
    b"\xed\xa0\x80",  # a surrogate in what looks like UTF-8
    b"=?UTF-8?Q?sch=C3=B6n?=",
]


PASSED = ("Content-Disposition", "x-amz-meta-note", "Content-Type", "Content-Language")


@each_row("value", OCTETS)
async def test_octets_pass_unchanged(tmp_path: Path, value: bytes) -> None:
    """Values in any coding reach the client as the octets that the origin sent: cold, from the cache on both paths, to
    HEAD, in parts, and after a restart (I4).
    """

    def is_unchanged(got: Response) -> bool:
        return {name: got.headers[name].encode("latin-1") for name in PASSED} == dict.fromkeys(PASSED, value)

    mounts = [{"path": "/", "bucket": "bucket", "inline_types": ["*/*"]}]
    shelf, clock = Shelf([(name, value) for name in PASSED]), WallClock()
    async with RawServer(shelf.send) as server:
        async with started(shelf, tmp_path, server, clock, mounts=mounts):
            assert is_unchanged(await shelf.get("HEAD"))
            for _ in range(3):
                got = await shelf.get()
                assert is_unchanged(got)
                assert (got.status, got.body) == (200, BODY)
            assert shelf.app is not None
            assert shelf.app.fast_path is not None
            assert shelf.app.fast_path.served
            assert is_unchanged(await shelf.get(Range="bytes=1-2"))
            assert is_unchanged(await shelf.get(Range="bytes=1-2", If_Range=ETAG))  # the ordinary path
            got = await shelf.get(Range="bytes=0-0,500-501")
            assert got.headers["Content-Type"].startswith("multipart/byteranges")
            assert value in got.body
        async with started(shelf, tmp_path, server, clock, mounts=mounts):
            asked = len(shelf.requests)
            assert is_unchanged(await shelf.get())
            assert is_unchanged(await shelf.get("HEAD"))
            assert len(shelf.requests) == asked


@each_row("value", OCTETS)
async def test_octets_pass_in_a_304(tmp_path: Path, value: bytes) -> None:
    """A 304 has the octets of the origin in its fields as well, on both paths."""
    async with shelf_of(tmp_path, ("Cache-Control", b'max-age=60, x="%s"' % value)) as (shelf, _):
        await shelf.get()
        for _ in range(2):
            for condition in (ETAG, f'"other", {ETAG}'):
                got = await shelf.get(If_None_Match=condition)
                assert got.status == 304
                assert got.headers["Cache-Control"].encode("latin-1") == b'max-age=60, x="%s"' % value
                assert got.cache_status.startswith("hit")


async def test_octets_pass_over_tls(tmp_path: Path) -> None:
    """TLS changes nothing of a field (I26)."""
    chain, key = localhost_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(chain))
    context.check_hostname = False  # the address is 127.0.0.1
    settings = {"tls": {"certificate": str(chain), "key": str(key)}}
    async with shelf_of(tmp_path, ("x-amz-meta-note", OCTETS[0]), server=settings) as (shelf, _):
        for method in ("GET", "GET", "HEAD"):
            got = await shelf.get(method, tls=context)
            assert (got.status, got.headers["x-amz-meta-note"].encode("latin-1")) == (200, OCTETS[0])


async def test_octets_of_an_etag_pass(tmp_path: Path) -> None:
    """An ETag that is not UTF-8 goes out as it came. It is no validator, so the object is not stored."""

    async def script(connection: RawConnection, head: Head) -> None:
        lines = (("ETag", b'"\xfc"'), ("Content-Length", b"4"), ("Content-Range", b"bytes 0-3/4"))
        await connection.send(raw("206 Partial Content", lines) + b"body")

    async with RawServer(script) as server, App(settings_of(tmp_path, server.endpoint_url, "bucket")) as app:
        for _ in range(2):
            got = await fetch(app.address, "/x")
            assert (got.status, got.body, got.headers["ETag"]) == (200, b"body", '"\xfc"')
            assert 'detail="no-validator"' in got.cache_status
        assert not app.cache.statistics().entries


@each_row(
    "lines",
    [
        [b"no-store", b"public, max-age=60"],
        [b"public, max-age=60", b"no-store"],
        [b"private", b"public"],
        [b"max-age=60", b"private"],
    ],
)
async def test_lines_of_cache_control_are_one_list(tmp_path: Path, lines: list[bytes]) -> None:
    """I13: a directive in any of several Cache-Control lines counts, and a cache behind gets all of them."""
    async with shelf_of(tmp_path, *(("Cache-Control", line) for line in lines)) as (shelf, _):
        for _ in range(2):
            got = await shelf.get()
            assert got.headers.getall("Cache-Control") == [b", ".join(lines).decode()]
            assert not got.cache_status.startswith("hit")
        assert shelf.app is not None
        assert not shelf.app.cache.statistics().entries


async def test_lines_of_user_metadata_are_one_list(tmp_path: Path) -> None:
    """User metadata that is given twice is one list (RFC 9110 section 5.3)."""
    lines = (("x-amz-meta-a", b"1"), ("X-Amz-Meta-A", b"2"), ("x-amz-meta-a", b"2"), ("x-amz-meta-b", b""))
    async with shelf_of(tmp_path, *lines) as (shelf, _):
        for method in ("GET", "GET", "HEAD"):
            got = await shelf.get(method)
            assert got.headers.getall("x-amz-meta-a") == ["1, 2, 2"]
            assert got.headers["x-amz-meta-b"] == ""


@each_row(
    ("lines", "sent"),
    [
        ([b"next tuesday"], "next tuesday"),
        ([b"-1"], "-1"),
        ([PAST.encode(), FUTURE.encode()], f"{PAST}, {FUTURE}"),
        ([FUTURE.encode(), b"0"], f"{FUTURE}, 0"),
        ([b"\xfc"], "\xfc"),
    ],
)
async def test_expires_that_is_no_date(tmp_path: Path, lines: list[bytes], sent: str) -> None:
    """RFC 9111 section 5.3: an Expires that is no date means already expired, and goes out as it came."""
    async with shelf_of(tmp_path, *(("Expires", line) for line in lines)) as (shelf, _):
        for number in range(3):
            got = await shelf.get()
            assert (got.status, got.headers.getall("Expires")) == (200, [sent])
            assert got.cache_status.startswith("fwd=stale; fwd-status=304" if number else "fwd=miss")


@each_row("headers", [{}, {"If-None-Match": ETAG}, {"Range": "bytes=0-1"}, {"If-Match": ETAG}])
async def test_the_age_counts_once(tmp_path: Path, headers: dict[str, str]) -> None:
    """RFC 9111 section 4.2.3: for a cache behind, Expires minus Date minus Age is what is left, on both paths."""
    async with shelf_of(tmp_path, ("Expires", formatdate(WallClock().now + 900, usegmt=True).encode())) as (
        shelf,
        clock,
    ):
        await shelf.get()
        clock.advance(300)
        for _ in range(2):
            began = time.time()
            assert shelf.app is not None
            got = await fetch(shelf.app.address, "/x", headers=headers)
            assert got.cache_status.startswith("hit")
            sent = parsedate_to_datetime(got.headers["Date"]).timestamp()
            age = int(got.headers["Age"])
            assert age >= 300
            assert began - 2 < sent + age <= time.time()


async def test_an_age_beyond_all_bounds(tmp_path: Path) -> None:
    """RFC 9111 section 1.2.2: an age that is too large to represent is 2^31, and Date is a date."""
    async with shelf_of(tmp_path, ("Age", b"9" * 19)) as (shelf, _):
        began = time.time()
        got = await shelf.get()
        assert (got.status, got.headers["Age"]) == (200, str(2**31))
        assert parsedate_to_datetime(got.headers["Date"]).timestamp() > began - 2


async def test_an_expires_line_twice_is_one(tmp_path: Path) -> None:
    """Equal lines of a field that is no list are one."""
    async with shelf_of(tmp_path, ("Expires", FUTURE.encode()), ("Expires", FUTURE.encode())) as (shelf, _):
        await shelf.get()
        got = await shelf.get()
        assert got.cache_status.startswith("hit")
        assert got.headers.getall("Expires") == [FUTURE]


# S3 API, GetObject and PutObject: fields that botocore parses, and of which bucketfront uses none.
TYPED = [
    "Last-Modified", "x-amz-mp-parts-count", "x-amz-tagging-count", "x-amz-missing-meta", "x-amz-delete-marker",
    "x-amz-object-lock-retain-until-date", "x-amz-server-side-encryption-bucket-key-enabled", "x-amz-restore",
    "x-amz-expiration", "x-amz-abort-date", "x-amz-object-size", "x-amz-write-offset-bytes", "Expires",
    "x-amz-checksum-crc32", "x-amz-checksum-type", "x-amz-storage-class", "Accept-Ranges", "Content-Language", "Date",
    "x-amz-request-id", "x-amz-id-2", "x-amz-archive-status", "x-amz-replication-status", "Retry-After", "Age", "Vary",
    "x-amz-website-redirect-location", "Set-Cookie", "Server", "x-amz-bucket-region",
]  # fmt: skip


@each_row("value", [b"", b"nonsense", b"\xff\xfe", b"-1", b"9" * 400, b"a\x01b", b"2030-13-45T99:99Z"])
async def test_no_unused_field_makes_a_response_unusable(tmp_path: Path, value: bytes) -> None:
    """Whatever the fields say that bucketfront does not need, once or twice, the object is served."""
    lines = [(name, line) for name in TYPED for line in (value, b"other")]
    async with shelf_of(tmp_path, *lines) as (shelf, _):
        assert (await shelf.get("HEAD")).status == 200
        got = await shelf.get()
        assert (got.status, got.body) == (200, BODY)


async def test_an_error_with_odd_fields_is_that_error(tmp_path: Path) -> None:
    """I13: fields that are no text or no date do not turn S3's 404 into a failure of the origin."""
    document = b"<Error><Code>NoSuchKey</Code></Error>"
    odd = [(name, b"\xff") for name in TYPED if name != "Retry-After"]

    async def script(connection: RawConnection, head: Head) -> None:
        lines = [("Content-Type", b"application/xml"), ("Content-Length", b"%d" % len(document)), *odd]
        await connection.send(raw("404 Not Found", lines) + (b"" if head.method == "HEAD" else document))

    async with RawServer(script) as server, App(settings_of(tmp_path, server.endpoint_url, "bucket")) as app:
        assert (await fetch(app.address, "/x")).status == 404
        assert (await fetch(app.address, "/y", method="HEAD")).status == 404


async def test_a_write_with_odd_fields_is_done(tmp_path: Path) -> None:
    """A response to an upload is usable whatever its other fields say, also twice."""
    odd = [(name, b"\xff") for name in TYPED] + [("ETag", ETAG.encode())]

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.reader.readexactly(int(head.headers.get("content-length", 0)))
        length = b"4" if head.method == "HEAD" else b"0"  # the HEAD confirms the object
        await connection.send(raw("200 OK", [*odd, *odd, ("Content-Length", length)]))

    async with RawServer(script) as server, App(settings_of(tmp_path, server.endpoint_url, "bucket")) as app:
        assert (await fetch(app.address, "/x", method="PUT", body=b"body")).status == 201


@pytest.mark.parametrize("name", ["Cache-Control", "Expires"])
async def test_a_304_renews_the_lifetime(tmp_path: Path, name: str) -> None:
    """RFC 9111 section 4.3.4: the lifetime of a 304 replaces the stored one, also after a restart."""
    first, renewed = {"Cache-Control": (b"max-age=1", b"max-age=500")}.get(name, (b"", b""))
    shelf, clock = Shelf(((name, first), ("x-amz-meta-a", b"1"))), WallClock()
    if name == "Expires":
        first, renewed = (formatdate(clock.now + after, usegmt=True).encode() for after in (1, 500))
        shelf.lines = (("Expires", first), ("x-amz-meta-a", b"1"))
    async with RawServer(shelf.send) as server:
        async with started(shelf, tmp_path, server, clock, freshness={"stale_while_revalidate": 0}):
            await shelf.get()
            clock.advance(5)
            shelf.of_304 = ((name, renewed), ("Content-Type", b"application/xml"))
            got = await shelf.get()
            assert (got.cache_status.split("; ")[:2], got.headers[name]) == (
                ["fwd=stale", "fwd-status=304"],
                renewed.decode(),
            )
            clock.advance(100)
            assert (await shelf.get()).cache_status.startswith("hit")
        async with started(shelf, tmp_path, server, clock):
            got = await shelf.get()
            assert (got.cache_status[:3], got.headers[name], got.headers["x-amz-meta-a"]) == (
                "hit",
                renewed.decode(),
                "1",
            )
            assert got.headers["Content-Type"] == "application/octet-stream"
    assert shelf.requests == ["GET", "GET"]


async def test_a_304_with_other_metadata(tmp_path: Path) -> None:
    """I4: user metadata that differs in a 304 shows that the object was written anew, so a HEAD fetches all of it."""
    async with shelf_of(tmp_path, ("Cache-Control", b"max-age=1"), ("x-amz-meta-a", b"1")) as (shelf, clock):
        await shelf.get()
        clock.advance(100)
        shelf.lines = (("Content-Type", b"text/x"), ("x-amz-meta-a", b"2"), ("Cache-Control", b"max-age=60"))
        got = await shelf.get()
        await until(lambda: len(shelf.requests) > 1)
        got = await shelf.get()
        assert (got.headers["x-amz-meta-a"], got.headers["Content-Type"]) == ("2", "text/x")


@pytest.mark.parametrize(
    "user",
    [
        [(f"x-amz-meta-{number:x}", b"v") for number in range(500)],
        [("x-amz-meta-long", b"v" * 30_000)],
    ],
    ids=["many", "long"],
)
async def test_as_much_user_metadata_as_there_is(tmp_path: Path, user: Lines) -> None:
    """All user metadata passes, however many fields it has, or however long one is: GET, a hit, and HEAD."""
    async with shelf_of(tmp_path, *user) as (shelf, _):
        for method in ("GET", "GET", "HEAD"):
            response = await shelf.get(method)
            assert response.status == 200
            sent = [(name.lower(), value.encode()) for name, value in response.headers.items()]
            assert [field for field in sent if field[0].startswith("x-amz-meta-")] == sorted(user)


DESCRIPTIONS = ("Content-Type", "Content-Language", "Content-Disposition", "x-amz-meta-q")


@pytest.mark.parametrize("control", [b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1b", b"\x1f", b"\x7f"])
async def test_a_field_with_control_characters_is_dropped(
    tmp_path: Path, control: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """I28: a description with a control character is dropped, cold and cached. It is counted, and one line warns."""
    lines = [(name, b"a" + control + b"Set-Cookie: x=1") for name in DESCRIPTIONS]
    lines += [("x-amz-meta-fine", b"\xc3\xa9 a\tb"), ("Cache-Control", b"max-age=60" + control)]
    async with shelf_of(tmp_path, *lines) as (shelf, _):
        for method in ("HEAD", "GET", "GET", "HEAD"):
            got = await shelf.get(method)
            assert got.status == 200
            assert got.body == (BODY if method == "GET" else b"")
            assert not got.headers.keys() & {name.lower() for name in DESCRIPTIONS if name != "Content-Type"}
            assert "Set-Cookie" not in str(got.headers)
            assert got.headers["Cache-Control"] == "max-age=60"
            assert "x-amz-meta-fine" in got.headers
        assert shelf.app is not None
        assert shelf.app.origin.dropped_fields >= len(DESCRIPTIONS)
    assert caplog.text.count("control characters") == 1


async def test_a_head_that_cannot_be_parsed(tmp_path: Path) -> None:
    """A NUL in a field makes the origin's response unusable (RFC 9110 section 5.5), and no field of it
    reaches a client.
    """
    async with shelf_of(tmp_path, ("x-amz-meta-q", b"a\x00Set-Cookie: x=1")) as (shelf, _):
        got = await shelf.get()
        assert got.status == 502
        assert "Set-Cookie" not in str(got.headers)
