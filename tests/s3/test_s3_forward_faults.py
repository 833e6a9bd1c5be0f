"""Forwarded requests with an origin that misbehaves, and with clients that go away."""

import asyncio
import gzip
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from fakes import Head, RawConnection, RawServer, Script, answering, object_bytes, response
from rows import each_row
from stopwatch import HANG_S, assert_takes_less_than

from bucketfront.config.loader import load
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import (
    AccessDenied,
    BodyTooLarge,
    BodyTruncated,
    InvalidOriginResponse,
    NoShare,
    OriginCircuitOpen,
    OriginError,
    OriginRefused,
    OriginServerError,
    OriginThrottled,
    OriginTimeout,
    OriginUnavailable,
    RequestRefused,
)
from bucketfront.fair_share import FairShares, acting_for
from bucketfront.retry import RetryBudget
from bucketfront.s3 import credentials, minimum_rate, pace
from bucketfront.s3.breaker import Breaker
from bucketfront.s3.client import READ_ATTEMPTS, S3Origin
from bucketfront.s3.finished_call import FinishedCall
from bucketfront.s3.forwarded_body import FIRST_BYTES, WrongLength
from bucketfront.s3.forwarded_request import ForwardedRequest
from bucketfront.s3.forwarded_response import MAX_AHEAD_BYTES, ForwardedResponse
from bucketfront.s3.sdk_response import MAX_ERROR_BYTES

SHORT = 0.3  # seconds: a deadline that a test waits out
ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'
LIST = b"<ListBucketResult><Name>bucket</Name></ListBucketResult>"
LISTED = response("200 OK", LIST, Content_Type="application/xml", x_amz_request_id="R1")
LIST_REQUEST = ForwardedRequest("ListObjectsV2", "GET", "bucket", query="list-type=2")
GET = ForwardedRequest("GetObject", "GET", "bucket", "o")
HEAD = ForwardedRequest("HeadObject", "HEAD", "bucket", "o")
DONE = response("200 OK", ETag=ETAG)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make retries follow at once: the jitter is 0."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    monkeypatch.setattr(pace, "MIN_RATE", 1000.0)


@asynccontextmanager
async def origin_of(script: Script, *, read: float = 20, **given: Any) -> AsyncIterator[tuple[S3Origin, RawServer]]:
    async with asyncio.timeout(HANG_S), RawServer(script) as server:
        settings = {
            "endpoint_url": server.endpoint_url,
            "connect_timeout": f"{read * 1000:.0f}ms",
            "read_timeout": f"{read * 1000:.0f}ms",
            "credentials": {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret-4711"},
        }
        shares = given.pop("shares", None)
        async with S3Origin(OriginSettings.model_validate({**settings, **given}), shares=shares) as origin:
            yield origin, server
            assert origin.free_slots == origin._settings.max_connections
            assert not origin.upload_slots.half.shares.used


def put(body: Any, length: int | None = None, operation: str = "UploadPart") -> ForwardedRequest:
    return ForwardedRequest(operation, "PUT", "bucket", "o", "partNumber=1&uploadId=u", (), body, length)


def refusal(status: str, code: str, **headers: Any) -> bytes:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>m</Message></Error>'
    return response(status, text.encode(), Content_Type="application/xml", **headers)


async def whole(response: ForwardedResponse) -> bytes:
    return b"".join([bytes(piece) async for piece in response.chunks()])


async def fetch(origin: S3Origin, request: ForwardedRequest) -> tuple[int, bytes]:
    async with origin.forward(request) as found:
        return found.status, await whole(found)


async def outcome(origin: S3Origin, request: ForwardedRequest) -> int | OriginError:
    """Return the status that the client gets, or the error that is raised."""
    try:
        return (await fetch(origin, request))[0]
    except OriginError as error:
        return error


BEGIN = object_bytes(FIRST_BYTES)


def long_put() -> ForwardedRequest:
    """Return an upload whose body is not in memory."""
    return put(stream(BEGIN, b"end"), FIRST_BYTES + 3)


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n", **headers: str) -> bytes:
    head = response("200 OK", length=-1, Transfer_Encoding="chunked", ETag=ETAG, **headers)
    return head + b"".join(map(chunk, pieces)) + end


# --- bodies of responses -------------------------------------------------------------------------------------


def cutting(*cut: bytes, then: bytes) -> Script:
    """Return a script that sends each of `cut` on a connection that it then resets, and `then` to all that follows."""
    left = list(cut)

    async def script(connection: RawConnection, head: Head) -> None:
        if left:
            await connection.send(left.pop(0))
            connection.writer.close()
        else:
            await connection.send(then)

    return script


@each_row("cut", [LISTED[:-5], chunked(LIST[:10], end=b""), chunked(end=b""), b"HTTP/1.1 200 OK\r\nConte"])
async def test_a_list_that_breaks_off_is_read_again(cut: bytes) -> None:
    """I3: a list that breaks off before its end never reaches the client, and the retry budget pays for another."""
    async with origin_of(cutting(cut, then=LISTED)) as (origin, server):
        assert await fetch(origin, LIST_REQUEST) == (200, LIST)
        assert len(server.heads) == 2


@each_row(
    "cut",
    [
        response("200 OK", object_bytes(1000), length=2000, ETag=ETAG),
        chunked(object_bytes(1000), end=b""),
        chunked(object_bytes(1000), end=b"100\r\nshort"),
    ],
)
async def test_an_object_that_breaks_off_raises(cut: bytes) -> None:
    """I3: a body that ends before its framing does raises, and is never read again behind the client's back."""
    async with origin_of(cutting(cut, then=LISTED)) as (origin, server):
        async with origin.forward(GET) as found:
            with pytest.raises(BodyTruncated):
                await whole(found)
        assert len(server.heads) == 1
        assert origin.calls.failures.counts == {("GetObject", "ok"): 1, ("GetObject", "truncated"): 1}


async def test_a_chunk_that_is_malformed_raises() -> None:
    """I3: a body whose framing breaks after the client has its begin raises at once."""
    has_begun = asyncio.Event()

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(chunked(object_bytes(1000), end=b""))
        await has_begun.wait()
        await connection.send(b"zz\r\n")
        await connection.hang()

    async with origin_of(script) as (origin, server):
        async with origin.forward(GET) as found:
            assert await found.read() == object_bytes(1000)
            has_begun.set()
            with pytest.raises(BodyTruncated):
                await whole(found)
        await server.connections[0].ended.wait()


async def test_a_long_list_that_breaks_off_raises() -> None:
    """I3: the same holds for a list of which the client has the begin."""
    cut = chunked(object_bytes(MAX_AHEAD_BYTES), object_bytes(10), end=b"")
    async with origin_of(cutting(cut, then=LISTED)) as (origin, _), origin.forward(LIST_REQUEST) as found:
        assert await found.read()
        with pytest.raises(BodyTruncated):
            await whole(found)


async def test_a_body_whose_end_nothing_shows() -> None:
    """I3: a body that ends with its connection may be a part, so it is refused."""
    script = cutting(*[response("200 OK", LIST, length=-1, ETag=ETAG)] * READ_ATTEMPTS, then=LISTED)
    async with origin_of(script) as (origin, _):
        with pytest.raises(InvalidOriginResponse):
            await fetch(origin, LIST_REQUEST)


@each_row("read_to_end", [True, False])
async def test_a_connection_is_kept_after_the_end_only(read_to_end: bool) -> None:
    """I12: a connection with the rest of a body is closed, and one without is used again."""
    body = object_bytes(3 * MAX_AHEAD_BYTES)
    async with origin_of(answering(response("200 OK", body, ETag=ETAG))) as (origin, server):
        for _ in range(2):
            async with origin.forward(GET) as found:
                assert found.status == 200
                assert await found.read()
                if read_to_end:
                    await whole(found)
        assert len(server.connections) == (1 if read_to_end else 2)


async def test_a_response_that_is_closed_has_no_end() -> None:
    """I3: a reader that comes too late gets an error, and not what looks like the end of the body."""
    async with origin_of(answering(response("200 OK", object_bytes(1000), ETag=ETAG))) as (origin, _):
        async with origin.forward(GET) as found:
            pass
        with pytest.raises(BodyTruncated):
            await found.read()
        async with origin.forward(GET) as found:
            await whole(found)
        assert await found.read() == b""


async def test_a_short_list_holds_no_connection() -> None:
    """I34: a client that reads a short list slowly holds no connection to the origin."""
    async with origin_of(answering(chunked(LIST)), max_connections=1) as (origin, _):
        async with origin.forward(LIST_REQUEST) as found:
            assert origin.free_slots == 1
            assert await fetch(origin, LIST_REQUEST) == (200, LIST)
            assert await whole(found) == LIST
        async with origin.forward(GET):
            assert origin.free_slots == 0


async def test_fields_of_a_response() -> None:
    """I25: all fields pass line by line, but those of the connection, and no value can end its line."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n"
        b"X-Hop: a\r\n"
        b'ETag: "e"\r\nx-amz-meta-a: one\r\nx-amz-meta-a: two\r\nx-amz-meta-b: \xe9\tt\r\nTrailer: x\r\n\r\n'
    )
    async with origin_of(answering(head)) as (origin, _), origin.forward(GET) as found:
        assert found.headers.getall("x-amz-meta-a") == ["one", "two"]
        assert found.headers["X-Amz-Meta-B"] == "\udce9\tt"
        assert {name.lower() for name in found.headers} == {"content-length", "etag", "x-amz-meta-a", "x-amz-meta-b"}


# --- deadlines -----------------------------------------------------------------------------------------------


@each_row("request_", [GET, HEAD, LIST_REQUEST, ForwardedRequest("ListBuckets", "GET", None), put(b"content", 7)])
async def test_an_origin_without_a_response(request_: ForwardedRequest) -> None:
    """I20: an origin without a response is OriginTimeout within the deadline of a call, retries included."""
    async with origin_of(answering(None), read=SHORT) as (origin, _):

        async def time_out() -> None:
            origin.breaker, origin.retries = Breaker(time.monotonic, random.random), RetryBudget()
            with pytest.raises(OriginTimeout):
                await fetch(origin, request_)

        await assert_takes_less_than(3 * SHORT, time_out)


async def test_a_body_that_stops() -> None:
    """I20: a body of which nothing more comes ends after the read timeout."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(chunked(object_bytes(10), end=b""))
        await connection.hang()

    async with origin_of(script, read=SHORT) as (origin, _), origin.forward(GET) as found:
        with pytest.raises(OriginTimeout):
            await whole(found)


async def test_a_body_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    """I20: a chunked body that keeps the read timeout, and no rate, ends as well. The breaker gets to know it."""
    monkeypatch.setattr(minimum_rate, "WINDOW_S", 0.05)

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(chunked(object_bytes(10), end=b""))
        while not connection.writer.is_closing():
            await connection.send(chunk(b"x"))
            await asyncio.sleep(0.01)  # the slow body itself

    async with origin_of(script) as (origin, _), origin.forward(GET) as found:
        with pytest.raises(OriginTimeout):
            await whole(found)
        assert origin.slow_bodies == 1


async def test_slow_operations_have_a_deadline_of_their_own() -> None:
    """I20: S3 may take minutes to complete an upload, and sends spaces meanwhile, but not without end."""
    complete = ForwardedRequest("CompleteMultipartUpload", "POST", "bucket", "o", "uploadId=u", (), b"<C/>", 4)
    endless = asyncio.Event()

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.reader.readexactly(4)
        await asyncio.sleep(2 * SHORT)  # the slow origin itself
        await connection.send(chunked(b" ", end=b""))
        await asyncio.sleep(2 * SHORT)
        while endless.is_set() and not connection.writer.is_closing():
            await connection.send(chunk(b" "))
            await asyncio.sleep(0.01)
        await connection.send(chunk(b"<Done/>") + b"0\r\n\r\n")

    async with origin_of(script, read=SHORT) as (origin, _):
        assert await fetch(origin, complete) == (200, b" <Done/>")
        endless.set()
        origin._forwarder._slow_timeout = 4 * SHORT
        async with origin.forward(complete) as found:
            with pytest.raises(OriginTimeout):
                await whole(found)


async def test_an_origin_that_takes_no_body() -> None:
    """I20: an upload of which the origin takes no more bytes ends. The time of the client does not count."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.ended.wait()

    async def endless() -> AsyncIterator[bytes]:
        yield BEGIN
        await asyncio.sleep(4 * SHORT)  # the slow client itself
        while True:
            yield bytes(1 << 20)

    async with origin_of(script, read=SHORT) as (origin, server):
        origin._stall_timeout = SHORT
        with pytest.raises(OriginTimeout):
            await fetch(origin, put(endless(), 1 << 40))
        assert len(server.heads) == 1


# --- whose fault ---------------------------------------------------------------------------------------------

OURS = [
    ("403 Forbidden", "InvalidAccessKeyId"),
    ("403 Forbidden", "SignatureDoesNotMatch"),
    ("400 Bad Request", "ExpiredToken"),
    ("400 Bad Request", "InvalidToken"),
    ("403 Forbidden", "RequestTimeTooSkewed"),
    ("400 Bad Request", "AuthorizationHeaderMalformed"),
    ("400 Bad Request", "IncorrectEndpoint"),
    ("301 Moved Permanently", "PermanentRedirect"),
    ("307 Temporary Redirect", "TemporaryRedirect"),
    ("403 Forbidden", "AllAccessDisabled"),
    ("401 Unauthorized", "Other"),
    ("407 Proxy Authentication Required", ""),
    ("508 Loop Detected", ""),
]
THEIRS = [
    ("403 Forbidden", "AccessDenied"),
    ("403 Forbidden", "Other"),
    ("404 Not Found", "NoSuchBucket"),
    ("404 Not Found", "NoSuchUpload"),
    ("404 Not Found", "NoSuchTagSet"),
    ("400 Bad Request", "InvalidPart"),
    ("400 Bad Request", "MalformedXML"),
    ("400 Bad Request", "EntityTooSmall"),
    ("400 Bad Request", "XAmzContentSHA256Mismatch"),
    ("400 Bad Request", "EntityTooLarge"),
    ("400 Bad Request", "Other"),
    ("405 Method Not Allowed", "MethodNotAllowed"),
    ("409 Conflict", "OperationAborted"),
    ("409 Conflict", "BucketNotEmpty"),
    ("411 Length Required", "MissingContentLength"),
    ("412 Precondition Failed", "PreconditionFailed"),
    ("416 Range Not Satisfiable", "InvalidRange"),
    ("501 Not Implemented", "NotImplemented"),
]


@each_row(("status", "code"), OURS)
async def test_our_own_faults_never_reach_a_client(status: str, code: str) -> None:
    """I35: our credentials, clock, region or settings are no 4xx of a client, for any method."""
    sent = refusal(status, code, Location="http://127.0.0.1:9/elsewhere")
    async with origin_of(answering(sent)) as (origin, server):
        for request in (LIST_REQUEST, GET, HEAD, ForwardedRequest("HeadBucket", "HEAD", "bucket"), put(b"content", 7)):
            assert isinstance(await outcome(origin, request), OriginRefused), request
            assert origin.calls.failures._kinds  # an operator sees it, by whatever request it comes
        assert isinstance(await outcome(origin, long_put()), OriginRefused)
        assert {head.target.partition("?")[0] for head in server.heads} <= {"/bucket/o", "/bucket"}


@each_row(("status", "code"), THEIRS)
async def test_faults_of_clients_pass(status: str, code: str) -> None:
    """I35: what a client's request has caused reaches it as it came. It costs no retry and no reputation."""
    async with origin_of(answering(refusal(status, code, x_amz_id_2="host"))) as (origin, server):
        origin.calls.has_shown_itself("bucket")
        for request in (GET, LIST_REQUEST, put(b"content", 7), long_put()):
            async with origin.forward(request) as found:
                assert found.status == int(status[:3])
                assert f"<Code>{code}</Code>".encode() in await whole(found)
                assert found.headers["x-amz-id-2"] == "host"
                assert found.refusal is not None
                assert found.refusal.response is not None
                assert found.refusal.response.code == code
        assert len(server.heads) == 4
        assert "0 failures" in repr(origin.breaker)
        reasons = {kind.reason.value for kind in origin.calls.failures._kinds}
        assert reasons == ({"access-denied"} if status.startswith("403") else set())


@each_row(
    ("sent", "error"),
    [
        (response("404 Not Found", b"<html>no backend</html>", Content_Type="text/html"), OriginRefused),
        (response("403 Forbidden", b"<html>firewall</html>", Content_Type="text/html"), OriginRefused),
        (response("413 Too Large", b"<html>nginx</html>", Content_Type="text/html"), BodyTooLarge),
        (response("200 OK", b"<html>portal</html>", Content_Type="text/html"), InvalidOriginResponse),
        (response("304 Not Modified", ETag=ETAG), OriginUnavailable),
        (response("502 Bad Gateway", b"<html></html>", Content_Type="text/html"), OriginServerError),
        (refusal("503 Slow Down", "SlowDown"), OriginThrottled),
        (refusal("500 Internal Server Error", "InternalError"), OriginServerError),
        (response("400 Bad Request", bytes(MAX_ERROR_BYTES), Content_Type="application/xml"), InvalidOriginResponse),
    ],
)
async def test_pages_and_failures_are_raised(sent: bytes, error: type[OriginError]) -> None:
    """I35: pages of servers before S3, and failures of the origin, are raised as for other requests."""
    async with origin_of(answering(sent)) as (origin, server):
        assert isinstance(await outcome(origin, put(b"content", 7)), error)
        assert len(server.heads) == 1  # a write is sent once (I9)
        assert isinstance(await outcome(origin, long_put()), error)
        assert len(server.heads) == 2


async def test_reads_are_repeated_and_writes_are_not() -> None:
    """I9: a failure of the origin costs a read some attempts, and a write its only one. The breaker learns of reads."""
    failing = refusal("500 Internal Server Error", "InternalError")
    async with origin_of(answering(failing, failing, LISTED)) as (origin, server):
        assert await fetch(origin, LIST_REQUEST) == (200, LIST)
        assert len(server.heads) == 3
    async with origin_of(answering(failing)) as (origin, server):
        assert isinstance(await outcome(origin, put(b"content", 7)), OriginServerError)
        assert len(server.heads) == 1
        assert "0 failures" in repr(origin.breaker)
        for number in range(10):
            await outcome(origin, ForwardedRequest("GetObject", "GET", "bucket", f"o{number}"))
        assert origin.breaker.is_open
        assert isinstance(await outcome(origin, GET), OriginCircuitOpen)
        before = len(server.heads)
        assert isinstance(await outcome(origin, put(b"content", 7)), OriginServerError)
        assert len(server.heads) == before + 1


async def test_a_throttled_request_slows_its_bucket_down() -> None:
    """SlowDown limits the pace of the bucket, by whatever request it comes."""
    async with origin_of(answering(refusal("503 Slow Down", "SlowDown"))) as (origin, _):
        origin.calls.has_shown_itself("bucket")
        assert isinstance(await outcome(origin, put(b"content", 7)), OriginThrottled)
        assert origin.calls.paces["bucket"].throttled_count == 1


async def test_an_error_that_a_proxy_has_compressed() -> None:
    """The client gets a compressed error decoded, with the fields of what it gets."""
    text = b"<Error><Code>NoSuchBucket</Code></Error>"
    sent = response("404 No", gzip.compress(text), Content_Encoding="gzip", Content_Type="application/xml")
    async with origin_of(answering(sent)) as (origin, _), origin.forward(LIST_REQUEST) as found:
        assert await whole(found) == text
        assert (found.headers["content-length"], "content-encoding" in found.headers) == (str(len(text)), False)


async def test_a_head_is_explained_by_a_get() -> None:
    """I35: a HEAD has no code of S3, so a GET shows whether its refusal is ours."""

    async def script(connection: RawConnection, head: Head) -> None:
        sent = refusal("403 Forbidden", codes[0])
        await connection.send(sent[: sent.index(b"\r\n\r\n") + 4] if head.method == "HEAD" else sent)

    codes = ["AccessDenied"]
    async with origin_of(script) as (origin, server):
        assert await outcome(origin, HEAD) == 403
        assert [head.method for head in server.heads] == ["HEAD", "GET"]
        assert server.heads[1].headers["range"] == "bytes=0-0"
        codes[0] = "InvalidAccessKeyId"
        assert isinstance(await outcome(origin, HEAD), OriginRefused)
        assert isinstance(await outcome(origin, ForwardedRequest("HeadBucket", "HEAD", "bucket")), OriginRefused)
        assert server.heads[-1].target == "/bucket?list-type=2&max-keys=1"


# --- signatures ----------------------------------------------------------------------------------------------

OLD, NEW = ("AKIDOLD", "old-secret-4711"), ("AKIDNEW", "new-secret-4712")


class Rotation:
    """Secret files whose keys change, and an origin that accepts the new ones."""

    def __init__(self, folder: Path) -> None:
        self.id, self.secret = folder / "id", folder / "secret"
        self.write(OLD)
        self.sent: list[tuple[str, int]] = []  # methods and statuses

    def write(self, keys: tuple[str, str]) -> None:
        self.id.write_text(keys[0])
        self.secret.write_text(keys[1])

    @property
    def credentials(self) -> dict[str, str]:
        return {"access_key_id": f"file:{self.id}", "secret_access_key": f"file:{self.secret}"}

    async def script(self, connection: RawConnection, head: Head) -> None:
        await connection.reader.readexactly(int(head.headers.get("content-length", 0)))
        accepted = f"Credential={NEW[0]}/" in head.headers["authorization"]
        self.sent.append((head.method, 200 if accepted else 403))
        found = LISTED if accepted else refusal("403 Forbidden", "InvalidAccessKeyId")
        await connection.send(found[: found.index(b"\r\n\r\n") + 4] if head.method == "HEAD" else found)


@asynccontextmanager
async def rotating(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[S3Origin, Rotation]]:
    monkeypatch.setattr(credentials, "FILE_RELOAD_INTERVAL_S", 0.0)
    rotation = Rotation(folder)
    async with origin_of(rotation.script) as (_, server):
        lines = [
            "mounts: [{path: /, bucket: b}]", "origin:", f"  endpoint_url: {server.endpoint_url}", "  credentials:",
            *(f"    {name}: {value}" for name, value in rotation.credentials.items()),
        ]  # fmt: skip
        file = folder / "proxy.yaml"
        file.write_text("\n".join(lines))
        async with S3Origin(load(file, {}).origin) as origin:
            await origin.credentials.get_frozen_credentials()
            rotation.write(NEW)
            yield origin, rotation


@each_row(
    ("request_", "sent"),
    [
        (LIST_REQUEST, [("GET", 403), ("GET", 200)]),
        (put(b"content", 7), [("PUT", 403), ("PUT", 200)]),
        (HEAD, [("HEAD", 403), ("GET", 403), ("GET", 200), ("HEAD", 200)]),
    ],
)
async def test_rotated_credentials(
    request_: ForwardedRequest, sent: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I35: a request that our old credentials have spoilt is signed anew, and costs no retry."""
    async with rotating(tmp_path, monkeypatch) as (origin, rotation):
        assert await outcome(origin, request_) == 200
        assert rotation.sent == sent
        assert repr(origin.retries) == repr(RetryBudget())


async def test_a_streamed_body_is_not_sent_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that comes while it is sent is gone, so the refusal is ours, and the next request succeeds."""
    async with rotating(tmp_path, monkeypatch) as (origin, rotation):
        assert isinstance(await outcome(origin, long_put()), OriginRefused)
        assert await outcome(origin, long_put()) == 200
        assert rotation.sent == [("PUT", 403), ("PUT", 200)]


async def test_a_wrong_clock() -> None:
    """I35: a clock that the origin refuses is corrected by the origin's Date."""
    ahead = 3600.0

    async def script(connection: RawConnection, head: Head) -> None:
        signed = head.headers["x-amz-date"]
        now = time.strftime("%Y%m%dT%H", time.gmtime(time.time() + ahead))
        right = LISTED if signed.startswith(now) else refusal("403 No", "RequestTimeTooSkewed")
        date = formatdate(time.time() + ahead, usegmt=True)
        await connection.send(right.replace(b"\r\n", f"\r\nDate: {date}\r\n".encode(), 1))

    async with origin_of(script) as (origin, _):
        origin.signing_clock._wall = lambda: time.time() // 3600 * 3600 + 1800
        ahead += origin.signing_clock._wall() - time.time()
        assert await outcome(origin, LIST_REQUEST) == 200


# --- bodies of requests --------------------------------------------------------------------------------------


async def test_an_early_refusal_ends_the_upload() -> None:
    """A refusal that comes before the whole body passes, and the rest of the body is not sent."""
    asked = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield BEGIN
        asked.set()
        await asyncio.Event().wait()
        yield b"never"

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.reader.readexactly(FIRST_BYTES)
        await asked.wait()
        await connection.send(refusal("403 Forbidden", "AccessDenied"))
        await connection.hang()

    async with origin_of(script) as (origin, server):
        async with origin.forward(put(body(), FIRST_BYTES + 5)) as found:
            assert found.status == 403
            assert isinstance(found.refusal, AccessDenied)
        await server.connections[0].ended.wait()


async def test_an_early_success_is_none() -> None:
    """I8: a success before the origin can have had the whole body proves nothing."""

    async def body() -> AsyncIterator[bytes]:
        yield BEGIN
        await asyncio.Event().wait()
        yield b"never"

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.reader.readexactly(FIRST_BYTES)
        await connection.send(DONE)
        await connection.hang()

    async with origin_of(script) as (origin, server):
        assert isinstance(await outcome(origin, put(body(), FIRST_BYTES + 5)), InvalidOriginResponse)
        await server.connections[0].ended.wait()


class Broken(Exception):
    """What the body of a client raises."""


async def breaking() -> AsyncIterator[bytes]:
    yield BEGIN
    raise Broken


async def breaking_soon() -> AsyncIterator[bytes]:
    yield b"begin"
    raise Broken


@each_row(
    ("body", "length", "error"),
    [
        (lambda: stream(b"short"), 10, WrongLength),
        (lambda: stream(b"long", b"er"), 5, WrongLength),
        (stream, 1, WrongLength),
        (breaking_soon, 10, Broken),
        (lambda: stream(BEGIN, b"short"), FIRST_BYTES + 10, WrongLength),
        (lambda: stream(BEGIN, b"long", b"er"), FIRST_BYTES + 5, WrongLength),
        (breaking, FIRST_BYTES + 10, Broken),
        (breaking, None, Broken),
    ],
)
async def test_a_body_of_another_length_is_never_complete(
    body: Callable[[], AsyncIterator[bytes]], length: int | None, error: type[Exception]
) -> None:
    """I8: the connection of a body that is not as declared ends before S3 can have it whole. It is no fault of S3's."""
    received = bytearray()

    async def script(connection: RawConnection, head: Head) -> None:
        with suppress(ConnectionError):
            while piece := await connection.reader.read(1 << 16):
                received.extend(piece)

    async with origin_of(script) as (origin, server):
        with pytest.raises(error):
            await fetch(origin, put(body(), length))
        for connection in server.connections:
            await connection.ended.wait()
        assert len(server.heads) == (0 if length is not None and length <= 10 else 1)  # a short one is not sent at all
        assert len(received) < (length or 1 << 20)
        assert not received.endswith(b"0\r\n\r\n")
        assert origin.calls.failures.counts == {}


async def test_a_body_that_has_not_begun_holds_no_connection() -> None:
    """I34: a client that does not send its body keeps no connection from others. Neither does one that sends slowly."""
    has_come = asyncio.Event()

    async def late(*pieces: bytes) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        await has_come.wait()
        yield b"end"

    async with origin_of(answering(DONE), max_connections=1) as (origin, server):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome(origin, put(late(*begin), None))) for begin in ((), (BEGIN[:-1],))]
            assert await outcome(origin, put(b"content", 7)) == 200
            assert len(server.heads) == 1
            has_come.set()
        assert [task.result() for task in tasks] == [200, 200]


async def test_an_empty_body() -> None:
    """An empty body is sent as one, and a piece without bytes does not end the body."""
    async with origin_of(answering(DONE)) as (origin, server):
        assert await outcome(origin, put(stream(), 0)) == 200
        assert await outcome(origin, put(stream(b"con", b"", b"tent"), 7)) == 200
        assert [head.headers["content-length"] for head in server.heads] == ["0", "7"]


SIZE, PIECE = 100 << 20, 256 << 10
MAX_LAG_BYTES = 24 << 20  # buffers of the kernel on both sides, and those of aiohttp


async def test_a_long_part_is_not_held_in_memory() -> None:
    """I19: of a body of 100 MiB no more is on its way than the buffers of the sockets hold, in either direction."""
    made = received = lag = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal made
        piece = bytes(PIECE)
        while made < SIZE:
            made += PIECE
            yield piece

    async def script(connection: RawConnection, head: Head) -> None:
        nonlocal made, received, lag
        if head.method == "PUT":
            while received < SIZE:
                received += len(await connection.reader.read(PIECE))
                lag = max(lag, made - received)
            await connection.send(DONE)
        else:
            await connection.send(response("200 OK", length=SIZE, ETag=ETAG))
            async for piece in body():
                await connection.send(piece)

    async with origin_of(script) as (origin, _):
        assert await outcome(origin, put(body(), SIZE)) == 200
        assert (received, lag < MAX_LAG_BYTES) == (SIZE, True)
        made = received = lag = 0
        async with origin.forward(GET) as found:
            async for piece in found.chunks():
                received += len(piece)
                lag = max(lag, made - received)
        assert (received, lag < MAX_LAG_BYTES) == (SIZE, True)


# --- clients that go away ------------------------------------------------------------------------------------


@each_row("request_", [GET, LIST_REQUEST, put(b"content", 7)])
async def test_a_cancelled_request_closes_its_connection(request_: ForwardedRequest) -> None:
    """I12: while a response is awaited, a client that goes away gives its slot back, and its connection closes."""
    async with origin_of(answering(None)) as (origin, server):
        task = asyncio.create_task(outcome(origin, request_))
        await server.head_received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert origin.free_slots == origin._settings.max_connections
        await server.connections[0].ended.wait()


async def test_a_cancelled_reader_closes_its_connection() -> None:
    """I12: the same holds in the middle of a body, and for an upload whose body does not come."""
    begun = asyncio.Event()

    async def script(connection: RawConnection, head: Head) -> None:
        if head.method == "GET":
            await connection.send(chunked(object_bytes(10), end=b""))
        await connection.hang()

    async def read(origin: S3Origin) -> None:
        async with origin.forward(GET) as found:
            await found.read()
            begun.set()
            await found.read()

    async def never() -> AsyncIterator[bytes]:
        yield BEGIN
        begun.set()
        await asyncio.Event().wait()

    async with origin_of(script) as (origin, server):
        for number, call in enumerate((read(origin), outcome(origin, put(never(), FIRST_BYTES + 5)))):
            begun.clear()
            task = asyncio.create_task(call)
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert origin.free_slots == origin._settings.max_connections
            await server.connections[number].ended.wait()


# --- figures -------------------------------------------------------------------------------------------------


async def test_figures_and_traces() -> None:
    """I37: each exchange is counted by its operation, charged by its class, and reported with S3's request id."""
    calls: list[FinishedCall] = []
    async with origin_of(answering(LISTED, DONE, refusal("404 Not Found", "NoSuchUpload"), DONE)) as (origin, _):
        origin.calls.on_call = calls.append
        await outcome(origin, LIST_REQUEST)
        await outcome(origin, put(b"content", 7))
        await outcome(origin, ForwardedRequest("ListParts", "GET", "bucket", "o", "uploadId=u"))
        await outcome(origin, ForwardedRequest("DeleteObject", "DELETE", "bucket", "o"))
        assert {kind.value: count for (_, kind), count in origin.billing.counts.items()} == {"write": 3}
        assert origin.calls.failures.counts == {
            ("ListObjectsV2", "ok"): 1, ("UploadPart", "ok"): 1, ("ListParts", "NoSuchUpload"): 1,
            ("DeleteObject", "ok"): 1,
        }  # fmt: skip
    found = [(call.operation, call.bucket, call.key, call.status, call.request_id) for call in calls]
    assert found == [
        ("ListObjectsV2", "bucket", None, 200, "R1"),
        ("UploadPart", "bucket", "o", 200, None),
        ("ListParts", "bucket", "o", 404, None),
        ("DeleteObject", "bucket", "o", 200, None),
    ]


async def test_buckets_that_clients_name_are_no_labels() -> None:
    """I28: a bucket that a client names gets figures of its own only once it has accepted a request."""

    async def script(connection: RawConnection, head: Head) -> None:
        mine = head.target.startswith("/mine")
        await connection.send(LISTED if mine else refusal("403 Forbidden", "AccessDenied"))

    async with origin_of(script) as (origin, _):
        for bucket in ("one", "two", "mine", "three"):
            await outcome(origin, ForwardedRequest("ListObjectsV2", "GET", bucket))
        assert set(origin.calls.paces) == {"", "mine"}
        assert set(origin.calls.failures._shown_at) <= {"", "mine"}
        assert origin.calls.failures._kinds == set()
        await outcome(origin, ForwardedRequest("ListObjectsV2", "GET", "mine"))
        assert set(origin.calls.failures._shown_at) == {"", "mine"}


async def test_a_client_beyond_its_share_is_refused() -> None:
    """I34: a client that wants too many connections already is refused before it waits."""
    async with origin_of(answering(LISTED), shares=FairShares({}, time.monotonic, print), max_connections=1) as (
        origin,
        server,
    ):
        with acting_for("crawler"):
            while origin.slots.wanted.refusal("crawler") is None:
                origin.slots.wanted.take("crawler", 1)
            with pytest.raises(NoShare):
                await fetch(origin, LIST_REQUEST)
        assert not server.heads
        assert await outcome(origin, LIST_REQUEST) == 200


async def test_requests_that_no_code_explains() -> None:
    """I35: a page with 400 is the client's mistake if the origin serves another object of the bucket."""

    async def script(connection: RawConnection, head: Head) -> None:
        is_reference = head.target.startswith("/bucket/bucketfront-reference")
        absent = refusal("404 Not Found", "NoSuchKey")
        await connection.send(absent if is_reference else response("400 Bad Request", b"<html>bad</html>"))

    async with origin_of(script) as (origin, _):
        error = await outcome(origin, GET)
        assert isinstance(error, RequestRefused)
        assert not isinstance(error, OriginUnavailable)
