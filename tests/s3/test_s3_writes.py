"""Uploads: streamed, all or nothing (I8), and with an unknown outcome reported as such (I9)."""

import asyncio
import hashlib
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fakes import Head, RawConnection, RawServer, Script, object_bytes, response
from multipart_server import etag_of
from proxy_under_test import until
from rows import each_row
from stopwatch import HANG_S, assert_takes_less_than

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import (
    AccessDenied,
    NoSuchBucket,
    OriginError,
    OriginRefused,
    OriginTimeout,
    OriginUnavailable,
    WriteRefused,
)
from bucketfront.http import dates, write_head
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload import parts, uploader
from bucketfront.s3.upload.repetition import ATTEMPTS
from bucketfront.s3.upload.uploader import S3Uploader

MiB = 1 << 20
KEY = ObjectKey("bucket", "o")
OLD = b"the old version"
SHORT = 0.3  # seconds: a deadline that a test waits out
NOTHING = WriteHead()


class Broken(Exception):
    """The error of the client's side of an upload."""


async def stream(content: bytes, piece: int = 1 << 16, error: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(content), piece):
        yield content[start : start + piece]
    if error is not None:
        raise error


# --- against S3 servers --------------------------------------------------------------------------------------


class Bucket:
    """A bucket for one test, and its owner's view of it."""

    def __init__(self, client: Any, name: str, put: Callable[..., Any]) -> None:
        self.client = client
        self.name = name
        self._put = put

    async def put(self, chunks: AsyncIterator[bytes], length: int | None, head: WriteHead = NOTHING) -> str:
        """Store a body through the code under test. Return the ETag."""
        written = await self._put(ObjectKey(self.name, "o"), chunks, length, head)
        return str(written.etag)

    def store(self, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key="o", Body=content)

    def stored(self) -> bytes | None:
        if not self.client.list_objects_v2(Bucket=self.name).get("Contents"):
            return None
        return bytes(self.client.get_object(Bucket=self.name, Key="o")["Body"].read())

    def uploads(self) -> list[Any]:
        """Return the multipart uploads that are neither completed nor aborted."""
        return list(self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ()))


@pytest.fixture(params=["moto_s3", pytest.param("seaweed", marks=pytest.mark.e2e)])
async def bucket(
    request: pytest.FixtureRequest,
    client_of: Callable[[OriginSettings], Any],
    bucket_of: Callable[[OriginSettings], str],
) -> AsyncIterator[Bucket]:
    settings: OriginSettings = request.getfixturevalue(request.param)
    async with asyncio.timeout(HANG_S), S3Origin(settings) as origin:
        yield Bucket(client_of(settings), bucket_of(settings), S3Uploader(origin, progress_timeout=10).put)
    await no_connections()


async def no_connections() -> None:
    """Wait until the server has received what was under way when a connection broke off within a body.

    The loop must not close before. All that it watches then is its own wake-up pipe.
    """
    watched = asyncio.get_running_loop()._selector.get_map()  # type: ignore[attr-defined]
    async with asyncio.timeout(HANG_S):
        while len(watched) > 1:  # noqa: ASYNC110 - asyncio has no event for it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("size", [8 * MiB - 1, 8 * MiB, 8 * MiB + 1, 20 * MiB])
@pytest.mark.parametrize("is_known", [True, False])
async def test_bodies_around_the_part_size(bucket: Bucket, size: int, is_known: bool) -> None:
    """A body comes out byte for byte. One of unknown length needs a multipart upload only beyond PART_SIZE."""
    content = object_bytes(size, seed=5)
    etag = await bucket.put(stream(content, piece=99_991), size if is_known else None)
    assert bucket.stored() == content
    assert ("-" in etag) == (not is_known and size > parts.PART_SIZE)
    assert bucket.uploads() == []


@pytest.mark.parametrize("piece", [1, 4095, 4096, 4097, 10_000])
@pytest.mark.parametrize("length", [None, 10_000])
async def test_chunks_of_any_size(bucket: Bucket, piece: int, length: int | None) -> None:
    """The sizes of the client's chunks make no difference to the object."""
    content = object_bytes(10_000, seed=6)
    await bucket.put(stream(content, piece), length)
    assert bucket.stored() == content


async def test_a_known_length_beyond_one_put(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 API: a body too large for one PutObject is sent in parts, byte for byte."""
    monkeypatch.setattr(uploader, "MAX_PUT_BYTES", 16 * MiB)
    content = object_bytes(17 * MiB, seed=7)
    etag = await bucket.put(stream(content, piece=MiB), len(content))
    assert etag.endswith('-3"')
    assert hashlib.sha256(bucket.stored() or b"").digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("old", [None, OLD])
@pytest.mark.parametrize(
    ("sent", "length"),
    [
        (0, 10),  # nothing came
        (100_000, 100_001),  # one byte is missing
        (100_000, 1 << 20),
        (100_000, None),  # unknown length, one PutObject
        (12 * MiB, None),  # unknown length, multipart, in its second part
        (12 * MiB, 20 * MiB),
    ],
)
async def test_a_body_that_fails(bucket: Bucket, old: bytes | None, sent: int, length: int | None) -> None:
    """I8: the error of the client's side passes through, the old version stays, and no upload is left behind."""
    if old is not None:
        bucket.store(old)
    with pytest.raises(Broken):
        await bucket.put(stream(object_bytes(sent), error=Broken("client left")), length)
    assert bucket.stored() == old
    assert bucket.uploads() == []


@pytest.mark.parametrize("old", [None, OLD])
@pytest.mark.parametrize(("sent", "length"), [(0, 1), (100_000, 100_001), (12 * MiB, 20 * MiB)])
async def test_a_body_that_ends_early(bucket: Bucket, old: bytes | None, sent: int, length: int) -> None:
    """I8: a body shorter than declared never becomes a shorter object."""
    if old is not None:
        bucket.store(old)
    with pytest.raises(WriteRefused):
        await bucket.put(stream(object_bytes(sent)), length)
    assert bucket.stored() == old


async def test_a_body_that_ends_early_in_a_part(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """I8: the same for a length that needs a multipart upload, which is aborted."""
    monkeypatch.setattr(uploader, "MAX_PUT_BYTES", 16 * MiB)
    bucket.store(OLD)
    with pytest.raises(WriteRefused):
        await bucket.put(stream(object_bytes(17 * MiB)), 20 * MiB)
    assert bucket.stored() == OLD
    assert bucket.uploads() == []


async def test_more_than_s3_can_hold(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 API: at most MAX_PARTS parts. A longer body of unknown length is refused with the cure, and aborted."""
    monkeypatch.setattr(uploader, "MAX_PARTS", 1)
    with pytest.raises(WriteRefused, match="Content-Length"):
        await bucket.put(stream(object_bytes(12 * MiB)), None)
    assert bucket.stored() is None
    assert bucket.uploads() == []


@pytest.mark.parametrize("length", [None, 20 * MiB])
async def test_a_cancelled_upload(bucket: Bucket, length: int | None) -> None:
    """I8, I12: a cancellation in the middle keeps the old version and leaves no upload behind."""
    bucket.store(OLD)
    sent = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        async for piece in stream(object_bytes(12 * MiB)):
            yield piece
        sent.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(bucket.put(stalls(), length))
    await sent.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert bucket.stored() == OLD
    assert bucket.uploads() == []


# --- on the wire ---------------------------------------------------------------------------------------------


class Sink:
    """Accepts uploads like S3 and keeps only their digest. It never sends a 100 Continue."""

    def __init__(self, answer: bytes | None = None) -> None:
        self._answer = answer  # None: a success with the ETag of the body
        self.received = 0
        self.digest = hashlib.sha256()

    async def __call__(self, connection: RawConnection, head: Head) -> None:
        left, md5 = int(head.headers.get("content-length", "0")), hashlib.md5()
        while left:
            data = await connection.reader.read(min(left, 1 << 16))
            if not data:
                return
            left -= len(data)
            self.received += len(data)
            self.digest.update(data)
            md5.update(data)
        await connection.send(self._answer or response("200 OK", ETag=f'"{md5.hexdigest()}"'))


@asynccontextmanager
async def writes_to(
    script: Script, *, progress_timeout: float = 10, read: float = 5, max_connections: int = 64
) -> AsyncIterator[tuple[S3Uploader, RawServer]]:
    async with asyncio.timeout(HANG_S), RawServer(script) as server:
        settings = OriginSettings.model_validate(
            {
                "endpoint_url": server.endpoint_url,
                "connect_timeout": "1s",
                "read_timeout": f"{read * 1000:.0f}ms",
                "max_connections": max_connections,
                "credentials": {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"},
            }
        )
        async with S3Origin(settings) as origin:
            yield S3Uploader(origin, progress_timeout), server


@pytest.fixture
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("_traced")
async def test_a_body_is_never_held_whole() -> None:
    """I19: 64 MiB pass through in the memory of a few chunks, byte for byte."""
    piece = object_bytes(1 << 16)
    pieces = 1024
    expected = hashlib.sha256()
    for _ in range(pieces):
        expected.update(piece)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield bytes(bytearray(piece))  # its own memory each time

    sink = Sink()
    async with writes_to(sink) as (put, _):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        await put.put(KEY, body(), pieces * len(piece), NOTHING)
        _, peak = tracemalloc.get_traced_memory()
    assert sink.received == pieces * len(piece)
    assert sink.digest.digest() == expected.digest()
    assert peak - before < 4 * MiB


@each_row("begin", [b"", b"some"])
@each_row("length", [5, 1 << 16, 1 << 20])
async def test_a_client_that_sends_nothing_holds_no_connection(begin: bytes, length: int) -> None:
    """I34: while the first bytes of a body are missing, its upload has no connection, and another one gets it."""
    waits, goes_on = asyncio.Event(), asyncio.Event()
    content = object_bytes(length)

    async def slow() -> AsyncIterator[bytes]:
        if begin:
            yield content[: len(begin)]
        waits.set()
        await goes_on.wait()
        yield content[len(begin) :]

    async with writes_to(Sink(), max_connections=2, progress_timeout=HANG_S) as (put, server):
        uploading = asyncio.create_task(put.put(KEY, slow(), length, NOTHING))
        await waits.wait()
        await put.put(KEY, stream(b"other"), 5, NOTHING)
        assert len(server.heads) == 1
        goes_on.set()
        assert (await uploading).etag == etag_of(content)


@each_row("content", [b"", b"x", object_bytes(300_000)], ids=len)
async def test_the_request_on_the_wire(content: bytes) -> None:
    """I30: the request has no Expect, no chunked framing and no checksum of the SDK, and the body is read once."""
    sink = Sink()
    async with writes_to(sink) as (put, server):
        assert (await put.put(KEY, stream(content), len(content), NOTHING)).etag == etag_of(content)
    (head,) = server.heads
    assert (head.method, head.target) == ("PUT", "/bucket/o")
    assert sink.digest.digest() == hashlib.sha256(content).digest()
    assert head.headers["content-length"] == str(len(content))
    assert head.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert not {"expect", "transfer-encoding", "content-encoding", "x-amz-trailer", "x-amz-decoded-content-length"} & {
        *head.headers
    }
    assert not [name for name in head.headers if name.startswith(("x-amz-checksum", "x-amz-sdk-checksum"))]


async def test_headers_pass_by_allow_list() -> None:
    """I25: the object's own headers and its user metadata go to S3, and no other header of the client."""
    passed = {
        "content-type": "video/mp4; codecs=avc1",
        "content-encoding": "gzip",
        "content-language": "de",
        "content-disposition": 'attachment; filename="a b"',
        "cache-control": "max-age=60",
        "expires": "Wed, 21 Oct 2065 07:28:00 GMT",
        "x-amz-meta-colour": "blue",
        "x-amz-tagging": "a=b",
        "x-amz-storage-class": "STANDARD_IA",
        "content-md5": "XrY7u+Ae7tCTyyK7j1rNww==",
    }
    dropped = {
        "authorization": "Bearer of-the-client",
        "cookie": "a=b",
        "x-amz-acl": "private",
        "x-amz-security-token": "of-the-client",
        "x-forwarded-for": "192.0.2.1",
        "range": "bytes=0-1",
        "host": "elsewhere",
        "te": "trailers",
    }
    async with writes_to(Sink()) as (put, server):
        await put.put(KEY, stream(b"hello world"), 11, write_head.parse((passed | dropped).items()))
    (head,) = server.heads
    assert {name: head.headers.get(name) for name in passed} == passed
    for name, value in dropped.items():
        assert head.headers.get(name) != value, name
    assert not (dropped.keys() - {"authorization", "host"}) & head.headers.keys()


@each_row(
    ("value", "at"),
    [
        ("Wed, 21 Oct 2065 07:28:00 GMT", 3023335680.0),
        ("Sun Nov  6 08:49:37 1994", 784111777.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777.0),
        ("Sunday, 06-Nov-44 08:49:37 GMT", 2362034977.0),
        ("Mon, 01 Jan 0001 00:00:00 GMT", -62135596800.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799.0),
        ("0", 0.0),
        ("-1", 0.0),
    ],
)
async def test_expires(value: str, at: float) -> None:
    """RFC 9111 section 5.3: a date of any form arrives as that date, and 0 and -1 mean expired."""
    async with writes_to(Sink()) as (put, server):
        await put.put(KEY, stream(b"x"), 1, write_head.parse([("expires", value)]))
    assert dates.parse(server.heads[0].headers["expires"], 0.0) == at


# --- what the origin may do to a write -----------------------------------------------------------------------


@each_row(
    ("answer", "error"),
    [
        (response("500 Internal Server Error"), OriginUnavailable),
        (response("503 Slow Down"), OriginUnavailable),
        (response("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>"), AccessDenied),
        (response("403 Forbidden", b"<Error><Code>InvalidAccessKeyId</Code></Error>"), OriginRefused),
        (response("400 Bad Request", b"<Error><Code>ExpiredToken</Code></Error>"), OriginRefused),
        (response("403 Forbidden"), OriginRefused),
        (response("400 Bad Request", b"<Error><Code>BadDigest</Code></Error>"), WriteRefused),
        (response("413 Content Too Large", b"<Error><Code>EntityTooLarge</Code></Error>"), WriteRefused),
        (response("404 Not Found", b"<Error><Code>NoSuchBucket</Code></Error>"), NoSuchBucket),
        (b"nonsense\r\n\r\n", OriginUnavailable),
    ],
)
async def test_a_write_is_not_retried(answer: bytes, error: type[OriginError]) -> None:
    """I9: if S3 refuses a body that it received, one request was sent, its error is raised, and the slot is free."""
    sink = Sink(answer)
    async with writes_to(sink, max_connections=1) as (put, server):
        for number in (1, 2):
            with pytest.raises(error):
                await put.put(KEY, stream(object_bytes(100_000)), 100_000, NOTHING)
            assert len(server.heads) == number
            assert sink.received == number * 100_000


@pytest.mark.parametrize("taken", [0, 100_000])
async def test_a_connection_that_breaks(taken: int) -> None:
    """I9: OriginUnavailable after one request, because half a stream cannot be repeated."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.reader.readexactly(taken)
        connection.reset()

    async with writes_to(script) as (put, server):
        with pytest.raises(OriginUnavailable) as raised:
            await put.put(KEY, stream(object_bytes(8 * MiB)), 8 * MiB, NOTHING)
        assert not isinstance(raised.value, OriginTimeout)
        assert len(server.heads) == 1


async def test_a_response_before_the_body() -> None:
    """S3 refuses large uploads by their head alone. That response counts, and the rest of the body is not sent."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(response("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>"))
        await asyncio.Event().wait()

    async with writes_to(script) as (put, _):
        with pytest.raises(AccessDenied):
            await put.put(KEY, stream(object_bytes(64 * MiB), MiB), 64 * MiB, NOTHING)


@pytest.mark.parametrize("length", [64 * MiB, None])
async def test_an_origin_that_stops_reading(length: int | None) -> None:
    """I20: OriginTimeout after `progress_timeout` without progress."""
    uploads, body = MultipartServer(), object_bytes(64 * MiB)

    async def script(connection: RawConnection, head: Head) -> None:
        if head.method == "PUT":
            await asyncio.Event().wait()
        await uploads(connection, head)

    async with writes_to(script, progress_timeout=SHORT) as (put, server):

        async def time_out() -> None:
            server.heads.clear()
            with pytest.raises(OriginTimeout):
                await put.put(KEY, stream(body, MiB), length, NOTHING)
            expected = ["PUT"] if length else ["POST", "PUT", "DELETE"]
            await until(lambda: [head.method for head in server.heads] == expected)

        await assert_takes_less_than(4 * SHORT, time_out)


async def test_a_write_without_a_response() -> None:
    """I9, I20: the body was received, but no response comes: OriginTimeout after `progress_timeout`, once."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.hang()

    async with writes_to(script, progress_timeout=SHORT) as (put, server):
        for length in (0, 10):
            server.heads.clear()
            with pytest.raises(OriginTimeout):
                await put.put(KEY, stream(b"x" * length), length, NOTHING)
            assert len(server.heads) <= 1  # a busy machine may time out before it connects


async def test_a_slow_client_is_not_the_origins_fault() -> None:
    """I20: `read_timeout` applies to the origin's response. A body may take longer as long as it moves."""

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(SHORT / 2)  # in sum twice the read timeout: time is what this test is about
            yield b"x"

    async with writes_to(Sink(), progress_timeout=10, read=SHORT) as (put, _):
        assert (await put.put(KEY, slow(), 4, NOTHING)).etag == etag_of(b"xxxx")


@pytest.mark.parametrize("length", [10, None])
async def test_a_redirected_write_is_not_followed(length: int | None) -> None:
    """I29: the body goes to the configured endpoint only."""
    async with RawServer(Sink()) as elsewhere:
        answer = response("307 Temporary Redirect", Location=f"{elsewhere.endpoint_url}/bucket/o")
        async with writes_to(Sink(answer)) as (put, server):
            with pytest.raises(OriginUnavailable, match=r"origin\.region"):
                await put.put(KEY, stream(b"x" * 10), length, NOTHING)
            with pytest.raises(OriginUnavailable, match=r"origin\.region"):
                await put.delete(KEY)
            assert elsewhere.connections == []
            assert [head.method for head in server.heads] == ["PUT", "DELETE"]


@pytest.mark.parametrize(
    ("answer", "error", "attempts"),
    [
        (response("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>"), AccessDenied, 1),
        (response("404 Not Found", b"<Error><Code>NoSuchBucket</Code></Error>"), NoSuchBucket, 1),
        (response("500 Internal Server Error"), OriginUnavailable, ATTEMPTS),
    ],
)
async def test_a_delete_that_fails(
    answer: bytes, error: type[OriginError], attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9: a delete is repeated after a failure of the origin alone, and its error is reported."""
    monkeypatch.setattr(random, "random", lambda: 0.0)  # no pauses
    async with writes_to(Sink(answer), max_connections=1) as (put, server):
        for number in (1, 2):
            with pytest.raises(error):
                await put.delete(KEY)
            assert len(server.heads) == number * attempts


class MultipartServer:
    """The minimum of S3's multipart upload. Tests replace the response to each step."""

    def __init__(self, **answers: bytes | None) -> None:
        self._answers: dict[str, bytes | None] = {
            "create": response(
                "200 OK", b"<InitiateMultipartUploadResult><UploadId>4711</UploadId></InitiateMultipartUploadResult>"
            ),
            "part": None,
            "complete": response(
                "200 OK", b"<CompleteMultipartUploadResult><ETag>&quot;m-2&quot;</ETag></CompleteMultipartUploadResult>"
            ),
            "abort": response("204 No Content"),
            "head": response("404 Not Found", length=-1, x_amz_request_id="R1"),
            "get": response("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>"),
        } | answers
        self.steps: list[str] = []

    async def __call__(self, connection: RawConnection, head: Head) -> None:
        step = {"PUT": "part", "DELETE": "abort", "HEAD": "head", "GET": "get"}.get(head.method) or (
            "create" if head.target.endswith("?uploads") else "complete"
        )
        self.steps.append(step)
        await Sink(self._answers[step])(connection, head)


async def test_the_steps_of_a_multipart_upload() -> None:
    """S3 API: create, parts in order, complete. The ETag is that of the whole."""
    server = MultipartServer(head=response("200 OK", length=9 * MiB, ETag='"m-2"'))
    async with writes_to(server) as (put, raw):
        assert (await put.put(KEY, stream(object_bytes(9 * MiB)), None, NOTHING)).etag == '"m-2"'
    assert server.steps == ["create", "part", "part", "complete", "head"]  # the ETag is not that of the parts
    assert [head.headers["content-length"] for head in raw.heads[1:3]] == [str(8 * MiB), str(MiB)]
    assert all(head.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD" for head in raw.heads[1:3])
    assert all("expect" not in head.headers for head in raw.heads)


GARBAGE = response("200 OK", b"this is no XML")
EMPTY = response("200 OK", b"<Result></Result>")
REFUSED = response("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>")
TWO_PARTS = ("create", "part", "part")
FAILED = response("200 OK", b"<Error><Code>InternalError</Code><Message>late</Message></Error>")


@pytest.mark.parametrize(
    ("answers", "error", "steps"),
    [
        ({"create": REFUSED}, AccessDenied, ["create"]),
        ({"create": GARBAGE}, OriginUnavailable, ["create"] * 3),
        ({"create": EMPTY}, OriginUnavailable, ["create"] * 3),
        ({"part": REFUSED}, AccessDenied, ["create", "part", "abort"]),
        ({"part": response("200 OK")}, OriginUnavailable, ["create", "part", "abort"]),
        ({"complete": REFUSED}, AccessDenied, ["create", "part", "part", "complete", "abort"]),
        # S3 API, CompleteMultipartUpload: an error may follow a 200
        (
            {"complete": FAILED},
            OriginUnavailable,
            ["create", "part", "part", *["complete"] * 4, "head", "get", "abort"],
        ),
        ({"complete": EMPTY}, OriginUnavailable, [*TWO_PARTS, *["complete", "head", "get"] * 4, "abort"]),
        (
            {"complete": GARBAGE},
            OriginUnavailable,
            ["create", "part", "part", *["complete"] * 4, "head", "get", "abort"],
        ),
        ({"part": REFUSED, "abort": GARBAGE}, AccessDenied, ["create", "part", *["abort"] * 3]),
        (
            {"part": REFUSED, "abort": response("500 Internal Server Error")},
            AccessDenied,
            ["create", "part", *["abort"] * 3],
        ),
    ],
)
async def test_a_multipart_upload_that_fails(
    answers: dict[str, bytes], error: type[OriginError], steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """I8: failures that may pass are repeated, and a created upload is aborted. The error is that of the step, not the
    SDK's.
    """
    monkeypatch.setattr(random, "random", lambda: 0.0)  # no pauses
    server = MultipartServer(**answers)
    async with writes_to(server, max_connections=1) as (put, _):
        for _ in range(2):  # twice: the slot came back
            server.steps.clear()
            with pytest.raises(error):
                await put.put(KEY, stream(object_bytes(9 * MiB), MiB), None, NOTHING)
            assert server.steps == steps


async def test_writes_wait_for_a_connection() -> None:
    """I20: an upload holds one of `max_connections`. The next one waits for it, longer than a head's deadline."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    content = object_bytes(parts.SMALL_BUFFER_BYTES + 1)

    async def held() -> AsyncIterator[bytes]:
        yield content[:-1]
        begun.set()
        await go_on.wait()
        yield content[-1:]

    async with writes_to(Sink(), read=SHORT, max_connections=1) as (put, server):
        first = asyncio.create_task(put.put(KEY, held(), len(content), NOTHING))
        await begun.wait()
        second = asyncio.create_task(put.put(KEY, stream(b"y"), 1, NOTHING))
        await asyncio.wait([second], timeout=1 + 2 * SHORT)
        assert not second.done()
        assert len(server.heads) <= 1
        go_on.set()
        assert ((await first).etag, (await second).etag) == (etag_of(content), etag_of(b"y"))
        assert len(server.heads) == 2
