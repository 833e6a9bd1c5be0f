"""The real origin client against a server that misbehaves on purpose."""

import asyncio
import itertools
import random
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import pytest
from fakes import FakeClock, Head, RawConnection, RawServer, Script, answering, object_bytes, response
from held_port import held_port
from pydantic import SecretStr
from rows import each_row
from stopwatch import HANG_S, assert_takes_less_than

from bucketfront.cache.origin import NotModified, OriginResponse
from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.errors import (
    AccessDenied,
    BodyTruncated,
    DeleteMarker,
    InvalidOriginResponse,
    NoSuchBucket,
    NoSuchVersion,
    ObjectArchived,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    OriginOverloaded,
    OriginRefused,
    OriginServerError,
    OriginThrottled,
    OriginTimeout,
    OriginUnavailable,
    RangeIgnored,
    RangeUnsatisfiable,
    RequestRefused,
)
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Requested, Suffix
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget
from bucketfront.s3 import body as s3_body
from bucketfront.s3 import pace
from bucketfront.s3.breaker import Breaker
from bucketfront.s3.client import READ_ATTEMPTS, S3Origin
from bucketfront.s3.error_translation import UnexplainedRefusal

pytestmark = pytest.mark.usefixtures("each_read_path")

KEY = ObjectKey("bucket", "folder/o")
VERSION = "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo"
PINNED = KEY._replace(version=VERSION)
ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'
CONTENT = object_bytes(1000, seed=3)
SIZE = len(CONTENT)
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "session-token-4711"
SHORT = 0.3  # seconds: a deadline that a test waits out


def settings(endpoint_url: str, *, connect: float = 20, read: float = 20, max_connections: int = 64) -> OriginSettings:
    # The configuration's types take durations as they are written in the file.
    return OriginSettings.model_validate(
        {
            "endpoint_url": endpoint_url,
            "connect_timeout": f"{connect * 1000:.0f}ms",
            "read_timeout": f"{read * 1000:.0f}ms",
            "max_connections": max_connections,
            "credentials": StaticCredentials(
                access_key_id=SecretStr("AKIDEXAMPLE"),
                secret_access_key=SecretStr(SECRET),
                session_token=SecretStr(TOKEN),
            ),
        }
    )


@asynccontextmanager
async def origin_of(script: Script, **limits: Any) -> AsyncIterator[tuple[S3Origin, RawServer]]:
    async with (
        asyncio.timeout(HANG_S),
        RawServer(script) as server,
        S3Origin(settings(server.endpoint_url, **limits)) as origin,
    ):
        yield origin, server


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make retries follow at once: the jitter is 0."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    monkeypatch.setattr(pace, "MIN_RATE", 1000.0)


def partial(start: int = 0, stop: int = 10, *, sent: bytes | None = None, **headers: str | None) -> bytes:
    """Return a 206 of CONTENT as S3 sends it, with some headers overridden."""
    body = CONTENT[start:stop]
    given = {"ETag": ETAG, "Content_Range": f"bytes {start}-{stop - 1}/{len(CONTENT)}"} | headers
    return response("206 Partial Content", body if sent is None else sent, length=len(body), **given)


def refusal(status: str, code: str) -> bytes:
    """Return an error response in S3's form."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>…</Message></Error>'
    return response(status, text.encode(), Content_Type="application/xml")


async def whole(answer: OriginResponse | NotModified) -> bytes:
    assert isinstance(answer, OriginResponse)
    data = b""
    while piece := await answer.body.read():
        data += piece
    return data


async def fetch(origin: S3Origin, part: Requested = FromTo(0, 10), **conditions: str) -> bytes:  # noqa: B008 - frozen
    answer = await origin.get(KEY, part, **conditions)
    assert isinstance(answer, OriginResponse)
    try:
        return await whole(answer)
    finally:
        answer.body.close()


# --- no response ---------------------------------------------------------------------------------------------


async def test_a_refused_connection(attempts: list[str]) -> None:
    """I20: a refused connection is OriginUnavailable at once, after at most READ_ATTEMPTS attempts."""
    with held_port() as port:
        async with asyncio.timeout(HANG_S), S3Origin(settings(f"http://127.0.0.1:{port}")) as origin:
            with pytest.raises(OriginUnavailable) as raised:
                await origin.get(KEY, FromTo(0, 10))
    assert not isinstance(raised.value, OriginTimeout | OriginServerError)
    assert len(attempts) == READ_ATTEMPTS


async def test_a_connection_closed_without_a_response() -> None:
    """I20: retries exist in one layer, so that READ_ATTEMPTS requests reach the origin, and not a multiple of them."""

    async def script(connection: RawConnection, head: Head) -> None:
        connection.reset()

    async with origin_of(script) as (origin, server):
        with pytest.raises(OriginUnavailable) as raised:
            await origin.get(KEY, FromTo(0, 10))
        assert not isinstance(raised.value, OriginServerError)
        assert len(server.heads) == READ_ATTEMPTS


@each_row(("connect", "read"), [(SHORT, SHORT), (0.1, 0.6)])
@each_row("method", ["get", "head"])
async def test_an_origin_without_a_response(connect: float, read: float, method: str) -> None:
    """I20: an origin without a response is OriginTimeout within connect_timeout + read_timeout, retries included."""
    async with origin_of(answering(None), connect=connect, read=read) as (origin, _):

        async def time_out() -> None:
            # Each run has all its retries, and the failures of runs before open no breaker.
            origin.breaker, origin.retries = Breaker(time.monotonic, random.random), RetryBudget()
            with pytest.raises(OriginTimeout):
                await (origin.get(KEY, FromTo(0, 10)) if method == "get" else origin.head(KEY))

        # The margin is less than one more attempt would take.
        await assert_takes_less_than(connect + read + min(read / 2, SHORT), time_out)


async def test_a_slow_head() -> None:
    """I20: bytes of a head that come too slowly do not move its deadline."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(b"HTTP/1.1 206 Partial Content\r\n")
        while not connection.writer.is_closing():
            await connection.send(b"X-Filler: x\r\n")
            await asyncio.sleep(0.05)  # the slow body itself, no synchronisation

    async with origin_of(script, connect=SHORT, read=SHORT) as (origin, _):
        with pytest.raises(OriginTimeout):
            await origin.get(KEY, FromTo(0, 10))


# --- statuses ------------------------------------------------------------------------------------------------


@each_row(
    ("status", "code", "error"),
    [
        ("500 Internal Server Error", "InternalError", OriginServerError),
        ("502 Bad Gateway", "", OriginServerError),
        ("503 Service Unavailable", "ServiceUnavailable", OriginOverloaded),
        ("503 Service Unavailable", "", OriginOverloaded),
        ("400 Bad Request", "RequestTimeout", OriginServerError),  # S3 waited too long for our request
    ],
)
async def test_what_may_pass_is_retried_up_to_a_limit(status: str, code: str, error: type[OriginError]) -> None:
    """I13: a failure that may pass is OriginServerError, after READ_ATTEMPTS requests."""
    async with origin_of(answering(refusal(status, code))) as (origin, server):
        with pytest.raises(OriginServerError) as raised:
            await origin.get(KEY, FromTo(0, 10))
        assert type(raised.value) is error
        assert len(server.heads) == READ_ATTEMPTS


async def test_retries_end_with_their_budget() -> None:
    """I20: an origin that fails every request gets each of them once, and at most ten and a tenth more."""
    async with origin_of(answering(refusal("500 Internal Server Error", "InternalError"))) as (origin, server):
        origin.retries = RetryBudget()
        for _ in range(40):
            with pytest.raises(OriginServerError):
                await origin.get(KEY, FromTo(0, 10))
        assert 40 + 10 <= len(server.heads) <= 40 + 10 + 4
        assert origin.retries.refused


async def test_a_lone_failure_after_an_outage() -> None:
    """A single 503 is repeated, also if an outage took all retries a while ago and few requests came since."""
    failures = 10**6

    async def script(connection: RawConnection, _: Head) -> None:
        nonlocal failures
        failures -= 1
        await connection.send(partial() if failures < 0 else refusal("503 Service Unavailable", ""))

    async with origin_of(script) as (origin, _):
        clock = FakeClock()
        origin.retries = RetryBudget(clock=clock)
        while not origin.retries.refused:
            with pytest.raises(OriginServerError):
                await origin.get(KEY, FromTo(0, 10))
        clock.advance(1.0)
        failures = 1
        assert await whole(await origin.get(KEY, FromTo(0, 10))) == CONTENT[:10]


@each_row(
    ("value", "seconds"),
    [
        (None, None),
        ("1", 1.0),  # RFC 9110 section 10.2.3: delay-seconds
        ("60", 60.0),
        ("0", None),  # not believed
        ("61", None),
        ("86400", None),
        ("-1", None),
        ("1.5", None),
        ("Wed, 21 Oct 2065 07:28:00 GMT", None),  # the origin's clock is unknown
    ],
)
async def test_retry_after(value: str | None, seconds: float | None) -> None:
    """A Retry-After from one second to a minute counts, and no other."""
    answer = response("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>", Retry_After=value)
    async with origin_of(answering(answer)) as (origin, _):
        with pytest.raises(OriginServerError) as raised:
            await origin.get(KEY, FromTo(0, 10))
        assert raised.value.retry_after == seconds


async def test_a_retry_that_succeeds() -> None:
    """If a retry succeeds, its response is the result, and the client does not see the first one."""
    async with origin_of(answering(refusal("503 Slow Down", "SlowDown"), partial())) as (origin, server):
        assert await fetch(origin) == CONTENT[:10]
        assert len(server.heads) == 2


async def test_access_denied_is_not_retried() -> None:
    """I13: S3's 403 is AccessDenied, which does not show whether the object exists. It is not retried."""
    async with origin_of(answering(refusal("403 Forbidden", "AccessDenied"))) as (origin, server):
        with pytest.raises(AccessDenied):
            await origin.get(KEY, FromTo(0, 10))
        assert len(server.heads) == 1
        with pytest.raises(AccessDenied):
            await origin.head(KEY)


@each_row(
    ("answer", "error"),
    [
        (refusal("404 Not Found", "NoSuchKey"), ObjectNotFound),  # S3 API, "Error responses"
        (refusal("404 Not Found", "NoSuchVersion"), ObjectNotFound),
        (refusal("412 Precondition Failed", "PreconditionFailed"), ObjectChanged),
        (refusal("416 Range Not Satisfiable", "InvalidRange"), RangeUnsatisfiable),
    ],
)
async def test_facts_are_not_retried(answer: bytes, error: type[OriginError]) -> None:
    """Responses that state a fact about the object are final at once."""
    async with origin_of(answering(answer)) as (origin, server):
        with pytest.raises(error):
            await origin.get(KEY, FromTo(0, 10), if_match=ETAG)
        assert len(server.heads) == 1


@each_row(
    "body",
    [
        b"<Error><Code>NoSuchKey</Code><Key>\x1b[31m</Key></Error>",
        b"<Error><Code>NoSuchKey</Code><Key>&#x1b;[31m\xff</Key></Error>",
        b'<?xml version="1.0"?><Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Code>NoSuchKey</Code></Error>',
    ],
)
async def test_a_404_whose_xml_needs_help(body: bytes) -> None:
    """I13: a 404 is absence also if its XML repeats a key that XML cannot represent, or names a namespace."""
    answer = response("404 Not Found", body, Content_Type="application/xml")
    async with origin_of(answering(answer)) as (origin, _):
        with pytest.raises(ObjectNotFound):
            await origin.get(ObjectKey("bucket", "\x1b[31m"), FromTo(0, 10))


@each_row(
    ("body", "media_type"),
    [
        (b"<!DOCTYPE html><html><head><title>404</title><body><hr>nginx", "text/html"),
        (b"<html><head><title>404 Not Found</title></head><body>nginx</body></html>", "text/html"),
        (b"404 page not found\n", "text/plain"),
        (b'{"error": "no route"}', "application/json"),
        (b"<Error><Code></Code></Error>", "application/xml"),
        (b"", "application/xml"),
        (b"not found", "application/xml"),
        (b"<Error><C", "text/xml"),
        (b"<html><head><title>404</title><body><hr>nginx", "text/xml"),
        (b"<Error><Code>404</Code></Error>", "application/xml"),
        (b"<Error><Code>NoSuchUpload</Code></Error>", "application/xml"),
        (b"", "text/plain"),
    ],
)
async def test_a_404_from_a_load_balancer(body: bytes, media_type: str) -> None:
    """I13: only S3's 404 is absence. That of a load balancer is OriginRefused."""
    async with origin_of(answering(response("404 Not Found", body, Content_Type=media_type))) as (origin, _):
        with pytest.raises(OriginRefused):
            await origin.get(KEY, FromTo(0, 10))
        with pytest.raises(OriginRefused):
            await origin.head(KEY)
        with pytest.raises(OriginRefused):
            await origin.head_bucket("bucket")
        assert "0 failures" in repr(origin.breaker)


@each_row("key", [KEY, PINNED])
@each_row(("code", "error"), [("NoSuchKey", ObjectNotFound), ("NoSuchBucket", NoSuchBucket), ("", OriginRefused)])
async def test_a_404_to_head_is_explained_by_a_get(key: ObjectKey, code: str, error: type[OriginError]) -> None:
    """I13, I35: a 404 to HEAD has no code, so it may be that of a bucket. A GET decides, whatever was before."""
    absent = response("404 Not Found", x_amz_request_id="4442587FB7D0A2F9")
    answers = partial(x_amz_version_id=VERSION), absent, refusal("404 Not Found", code), absent
    async with origin_of(answering(*answers, refusal("404 Not Found", code))) as (origin, server):
        await fetch(origin)
        for _ in range(2):
            with pytest.raises(error):
                await origin.head(key)
        assert [head.method for head in server.heads] == ["GET", "HEAD", "GET", "HEAD", "GET"]


async def test_a_404_of_head_to_a_bucket() -> None:
    """A 404 to HeadBucket with a header of S3 means that the bucket does not exist."""
    async with origin_of(answering(response("404 Not Found", x_amz_request_id="x"))) as (origin, _):
        with pytest.raises(NoSuchBucket):
            await origin.head_bucket("bucket")


ANSWERS_TO_GET = [
    (refusal("404 Not Found", "NoSuchKey"), ObjectNotFound),
    (refusal("404 Not Found", "NoSuchBucket"), NoSuchBucket),
    (refusal("403 Forbidden", "AccessDenied"), AccessDenied),
    (refusal("403 Forbidden", "InvalidAccessKeyId"), OriginRefused),
    (refusal("403 Forbidden", "InvalidObjectState"), ObjectArchived),
    (refusal("400 Bad Request", "ExpiredToken"), OriginRefused),
    (refusal("400 Bad Request", "KeyTooLongError"), RequestRefused),
    (refusal("503 Slow Down", "SlowDown"), OriginThrottled),
    (response("404 Not Found", b"<html>no backend</html>", Content_Type="text/html"), OriginRefused),
    (refusal("416 Range Not Satisfiable", "InvalidRange"), InvalidOriginResponse),  # an empty object exists
]
HEADS_WITHOUT_A_REASON = [
    {"Content_Type": "application/xml"},
    {"Content_Type": "text/html", "x_amz_request_id": "4442587FB7D0A2F9"},
    {"Content_Type": "application/xml", "x_amz_request_id": "4442587FB7D0A2F9"},
]


@each_row(
    ("status", "headers", "explained"),
    itertools.product(
        ["404 Not Found", "403 Forbidden", "400 Bad Request", "405 Method Not Allowed", "501 Not Implemented"],
        HEADS_WITHOUT_A_REASON,
        ANSWERS_TO_GET,
    ),
    few=37,
)
async def test_a_refusal_of_head_without_a_reason(
    status: str, headers: dict[str, Any], explained: tuple[bytes, type[OriginError]]
) -> None:
    """I13, I35: if nothing shows why S3 refused a HEAD, a GET of one byte decides."""
    answer, error = explained
    sent = {"HEAD": response(status, **headers), "GET": answer}

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(sent[head.method])

    async with origin_of(script, max_connections=1) as (origin, server):
        with pytest.raises(error) as raised:
            await origin.head(KEY)
        assert isinstance(raised.value, InvalidOriginResponse) == (error is InvalidOriginResponse)
        assert {head.headers.get("range") for head in server.heads if head.method == "GET"} == {"bytes=0-0"}
        assert len(server.heads) == (2 * READ_ATTEMPTS if error is OriginThrottled else 2)
        assert origin.free_slots == 1


@each_row("answer", [partial(0, 1), response("200 OK", CONTENT, ETag=ETAG)])
@each_row("status", ["404 Not Found", "403 Forbidden", "405 Method Not Allowed", "501 Not Implemented"])
async def test_an_origin_without_head(status: str, answer: bytes) -> None:
    """The metadata of an object come from a GET if the origin refuses HEAD and not GET."""
    sent = {"HEAD": response(status), "GET": answer}

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(sent[head.method])

    async with origin_of(script, max_connections=1) as (origin, server):
        assert await origin.head(KEY) == Metadata(ETAG, len(CONTENT))
        assert len(server.heads) == 2
        assert origin.free_slots == 1


@each_row(
    ("answer", "error"),
    [
        (refusal("404 Not Found", "NoSuchBucket"), NoSuchBucket),
        (refusal("403 Forbidden", "AccessDenied"), AccessDenied),
        (response("200 OK", b"<ListBucketResult/>", Content_Type="application/xml"), InvalidOriginResponse),
    ],
)
async def test_a_bucket_whose_404_may_not_be_s3s(answer: bytes, error: type[OriginError]) -> None:
    """I13: a 404 to HeadBucket that does not show S3's headers is checked with the code of a list."""
    sent = {"HEAD": response("404 Not Found"), "GET": answer}

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(sent[head.method])

    async with origin_of(script) as (origin, _):
        with pytest.raises(error):
            await origin.head_bucket("bucket")


@each_row("code", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
@each_row("method", ["get", "head"])
async def test_a_redirect_is_not_followed(code: str, method: str) -> None:
    """I29: connections go to the configured endpoint only. The message names the settings to check."""
    body = b"<Error><Code>PermanentRedirect</Code><Endpoint>127.0.0.2</Endpoint></Error>"
    async with RawServer(answering(partial())) as elsewhere:
        answer = response(
            code, body, Location=f"{elsewhere.endpoint_url}/bucket/folder/o", x_amz_bucket_region="eu-west-1"
        )
        async with origin_of(answering(answer)) as (origin, server):
            with pytest.raises(OriginUnavailable, match=r"origin\.region"):
                await (origin.get(KEY, FromTo(0, 10)) if method == "get" else origin.head(KEY))
            assert elsewhere.connections == []
            assert {head.target for head in server.heads} == {"/bucket/folder/o"}
            assert len(server.heads) <= READ_ATTEMPTS


# --- heads that are not believed -----------------------------------------------------------------------------


@each_row(
    ("part", "answer"),
    [
        (FromTo(0, 10), partial(10, 20)),
        (FromTo(0, 10), partial(0, 20)),
        (FromTo(0, 10), partial(0, 9)),
        (Suffix(10), partial(0, 10)),
        (FromTo(0, 10), partial(Content_Range=None)),
        (FromTo(0, 10), partial(Content_Range="bytes 0-9/*")),
        (FromTo(0, 10), partial(Content_Range="bytes 0-19/1000")),
        (FromTo(0, 10), partial(Content_Range="bytes 0-9/5")),
        (FromTo(0, 10), response("206 Partial", CONTENT[:10], length=-1, ETag=ETAG, Content_Range="bytes 0-9/1000")),
        (FromTo(10, 20), response("200 OK", CONTENT, ETag=ETAG)),
        (FromTo(10), response("200 OK", CONTENT, ETag=ETAG)),
        (FromTo(0, 10), response("204 No Content", ETag=ETAG)),
        # rclone's S3 server sends the part and its Content-Range with the status 200
        (FromTo(0, 10), response("200 OK", CONTENT[:10], ETag=ETAG, Content_Range="bytes 0-9/1000")),
        (FromTo(0), response("200 OK", CONTENT, ETag=ETAG, Content_Range="bytes 0-999/1000")),
        (FromTo(0, 10), response("200 OK", CONTENT, ETag=ETAG, Content_Range="nonsense")),
        (FromTo(0, 10), partial(Content_Type="multipart/byteranges; boundary=x", Content_Range=None)),
        (FromTo(0, 10), response("204 No Content", CONTENT[:10], ETag=ETAG)),
        (FromTo(0, 10), response("205 Reset Content", CONTENT[:10], ETag=ETAG)),
        (FromTo(0, 10), response("203 Non-Authoritative Information", CONTENT, ETag=ETAG)),
        # answers to conditions that the request does not have
        (FromTo(0, 10), response("304 Not Modified", length=-1, ETag=ETAG)),
        (FromTo(0, 10), refusal("412 Precondition Failed", "PreconditionFailed")),
        (FromTo(0, 10), response("416 Range Not Satisfiable", Content_Range="bytes */10")),
    ],
)
async def test_a_head_that_does_not_fit_is_refused(part: Requested, answer: bytes) -> None:
    """I1, I3: a response that does not fit the request is refused before its first byte is read."""
    async with origin_of(answering(answer)) as (origin, _):
        with pytest.raises(InvalidOriginResponse):
            await origin.get(KEY, part)


async def test_the_body_of_a_refused_response_is_not_read() -> None:
    """I12: the connection of a refused response is closed at once, and its slot is free."""
    async with origin_of(answering(partial(10, 20, sent=CONTENT[10:14])), max_connections=1) as (origin, server):
        for _ in range(2):
            with pytest.raises(OriginUnavailable, match="Content-Range"):
                await origin.get(KEY, FromTo(0, 10))
        for connection in server.connections:
            await connection.ended.wait()


async def test_if_match_ignored() -> None:
    """I1: if an origin ignores If-Match and sends another version, its ETag shows it, and no byte of it is read."""
    async with origin_of(answering(partial(sent=CONTENT[:4], ETag='"new"'))) as (origin, server):
        with pytest.raises(ObjectChanged):
            await origin.get(KEY, FromTo(0, 10), if_match=ETAG)
        assert [head.headers["if-match"] for head in server.heads] == [ETAG]
        await server.connections[0].ended.wait()


@each_row("part", [FromTo(0, 10), FromTo(0), Suffix(10)])
async def test_range_ignored_from_the_start(part: Requested) -> None:
    """RFC 9110 section 14.2: a server may send the whole object with 200. It is used if the range begins at 0."""
    async with origin_of(answering(response("200 OK", CONTENT, ETag=ETAG))) as (origin, _):
        answer = await origin.get(KEY, part)
        assert isinstance(answer, OriginResponse)
        assert (answer.start, answer.stop, answer.metadata.size) == (0, len(CONTENT), len(CONTENT))
        assert await whole(answer) == CONTENT
        answer.body.close()


async def parts_with_status_200(connection: RawConnection, head: Head) -> None:
    """Send parts of CONTENT with their Content-Range and the status 200, as rclone's S3 server does."""
    first, separator, last = head.headers.get("range", "").removeprefix("bytes=").partition("-")
    span = (FromTo(int(first), int(last) + 1 if last else None) if first else Suffix(int(last or 1))).within(SIZE)
    if not separator:
        await connection.send(response("200 OK", CONTENT, ETag=ETAG))
    elif span is None:
        await connection.send(refusal("416 Range Not Satisfiable", "InvalidRange"))
    else:
        where = f"bytes {span.start}-{span.stop - 1}/{SIZE}"
        await connection.send(response("200 OK", CONTENT[span.start : span.stop], ETag=ETAG, Content_Range=where))


@each_row("part", [FromTo(0, 10), FromTo(0), FromTo(10, 20), FromTo(990), FromTo(0, 9999), Suffix(10)])
async def test_parts_that_come_as_a_whole_are_read_without_range(part: Requested) -> None:
    """I1, I3: a 200 with Content-Range is not used. The same request without Range has no doubt, and the bytes around
    the requested ones are dropped.
    """
    async with origin_of(parts_with_status_200) as (origin, server):
        answer = await origin.get(KEY, part)
        span = part.within(SIZE)
        assert isinstance(answer, OriginResponse)
        assert span is not None
        assert (answer.start, answer.stop, answer.metadata.size) == (span.start, span.stop, SIZE)
        assert await whole(answer) == CONTENT[span.start : span.stop]
        answer.body.close()
        assert ["range" in head.headers for head in server.heads] == [True, False]


async def test_too_many_bytes_before_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """I20: a part far behind the beginning is refused, because dropping what comes before it has no bound."""
    monkeypatch.setattr("bucketfront.s3.object_reads.MAX_SKIPPED_BYTES", 100)
    async with origin_of(parts_with_status_200) as (origin, _):
        assert await fetch(origin, FromTo(100, 110)) == CONTENT[100:110]
        with pytest.raises(InvalidOriginResponse, match="no ranges"):
            await origin.get(KEY, FromTo(101, 110))


@each_row("part", [FromTo(0, 10), FromTo(0), Suffix(10)])
async def test_an_empty_object_from_an_origin_that_ignores_ranges(part: Requested) -> None:
    """An empty 200 is RangeUnsatisfiable, like S3's 416."""
    async with origin_of(answering(response("200 OK", ETag=ETAG))) as (origin, _):
        with pytest.raises(RangeUnsatisfiable):
            await origin.get(KEY, part)


@each_row("part", [FromTo(0, 10), FromTo(0), Suffix(10)])
@each_row(("where", "length"), [("bytes 0--1/0", 0), ("bytes 0-0/0", 1)])
async def test_a_part_of_an_empty_object(part: Requested, where: str, length: int) -> None:
    """I3: a 206 of an empty object, as MinIO and s3rver send it, is RangeUnsatisfiable, like S3's 416."""
    answer = response("206 Partial Content", length=length, ETag=ETAG, Content_Range=where)
    async with origin_of(answering(answer)) as (origin, _):
        with pytest.raises(RangeUnsatisfiable):
            await origin.get(KEY, part)


NOT_HTTP = {
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "binary": b"\x16\x03\x01\x00\x00\r\n\r\n",
    "no status": b"HTTP/9.9\r\n\r\n",
    "status no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "length no number": b"HTTP/1.1 206 OK\r\nContent-Length: ten\r\n\r\n",
    "two lengths": b"HTTP/1.1 206 OK\r\nContent-Length: 10\r\nContent-Length: 11\r\n\r\n0123456789",
    "no colon": b"HTTP/1.1 206 OK\r\nno colon here\r\n\r\n",
    "long header": b"HTTP/1.1 206 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
}


@each_row("answer", NOT_HTTP.values(), ids=NOT_HTTP)
async def test_a_response_that_is_no_http(answer: bytes) -> None:
    """I13: any response that is no HTTP is InvalidOriginResponse, and no error of the SDK."""
    async with origin_of(answering(answer)) as (origin, _):
        with pytest.raises(InvalidOriginResponse):
            await origin.get(KEY, FromTo(0, 10))


@each_row(
    "header",
    [
        {"Last_Modified": "yesterday"},
        {"Last_Modified": ""},
        {"Expires": "0"},
        {"Expires": "never"},
        {"x_amz_missing_meta": "many"},
        {"x_amz_mp_parts_count": "many"},
        {"x_amz_meta_name": "J\xfcrgen"},
        {"x_amz_delete_marker": "perhaps"},
        {"x_amz_object_lock_retain_until_date": "doomsday"},
    ],
)
async def test_headers_that_the_sdk_cannot_parse(header: dict[str, Any]) -> None:
    """I13: an unneeded header that the SDK cannot parse is ignored or InvalidOriginResponse, and no other error."""
    async with origin_of(answering(partial(**header))) as (origin, _):
        try:
            assert await fetch(origin) == CONTENT[:10]
        except OriginError as error:
            assert isinstance(error, InvalidOriginResponse)  # noqa: PT017 - either will do


@each_row(
    "answer",
    [
        response("200 OK", length=-1, ETag=ETAG),
        response("206 Partial Content", length=-1, ETag=ETAG, Connection="close"),
        response("204 No Content", length=-1, ETag=ETAG),
        response("204 No Content", length=1000, ETag=ETAG),
        response("205 Reset Content", length=1000, ETag=ETAG),
        response("206 Partial Content", length=1000, ETag=ETAG),
        response("206 Partial Content", length=10, ETag=ETAG, Content_Range="bytes 0-9/1000"),
        response("200 OK", length=10, ETag=ETAG, Content_Range="bytes 0-9/1000"),
        response("304 Not Modified", length=-1, ETag=ETAG),
        response("412 Precondition Failed"),
        response("416 Range Not Satisfiable"),
    ],
)
async def test_a_head_that_describes_no_object(answer: bytes) -> None:
    """I4: HEAD has metadata only from a 200 with a size. Any other response is InvalidOriginResponse.

    That is no failure to the breaker.
    """
    async with origin_of(answering(answer)) as (origin, _):
        with pytest.raises(InvalidOriginResponse):
            await origin.head(KEY)
        assert "0 failures" in repr(origin.breaker)


@each_row("status", ["202 Accepted", "203 Non-Authoritative Information", "206 Partial Content"])
async def test_a_success_that_is_none(status: str) -> None:
    """I9: a 2xx that S3 does not send for an operation does not show that it is done."""
    async with origin_of(answering(response(status))) as (origin, _):
        with pytest.raises(InvalidOriginResponse):
            await origin.delete(KEY)
        with pytest.raises(InvalidOriginResponse):
            await origin.head_bucket("bucket")


async def test_a_416_of_a_shorter_object() -> None:
    """RFC 9110 section 15.5.17: a 416 may name the size, and then the Range must lie outside it."""
    async with origin_of(answering(response("416 Range Not Satisfiable", Content_Range="bytes */10"))) as (origin, _):
        for part in (FromTo(10, 20), FromTo(10)):
            with pytest.raises(RangeUnsatisfiable):
                await origin.get(KEY, part)
        for inside in (FromTo(9, 20), FromTo(0), Suffix(5)):
            with pytest.raises(InvalidOriginResponse):
                await origin.get(KEY, inside)


async def test_a_304_of_another_etag() -> None:
    """I1: a 304 confirms the ETag that the request has, weak or not. One that names another ETag is refused."""
    other, same, none = (response("304 Not Modified", length=-1, ETag=etag) for etag in ('"other"', f"W/{ETAG}", None))
    async with origin_of(answering(other, same, none)) as (origin, _):
        with pytest.raises(InvalidOriginResponse):
            await origin.head(KEY, if_none_match=ETAG)
        for _ in range(2):
            assert await origin.get(KEY, FromTo(0, 10), if_none_match=ETAG) == NotModified()


# --- checksums -----------------------------------------------------------------------------------------------

WRONG = "AAECAw=="  # the CRC-32 of other bytes


async def test_s3s_checksum_is_requested_and_kept() -> None:
    """I15: the request for a checksum is signed, and a checksum of the whole object is kept.

    The SDK does not compare it, and the bytes come as sent.
    """
    part = partial(x_amz_checksum_crc32=WRONG, x_amz_checksum_type="FULL_OBJECT")
    full = response("200 OK", CONTENT, ETag=ETAG, x_amz_checksum_crc32=WRONG)
    async with origin_of(answering(part, full, full)) as (origin, server):
        some = await origin.get(KEY, FromTo(0, 10))
        assert isinstance(some, OriginResponse)
        assert some.metadata.checksum is None
        assert await whole(some) == CONTENT[:10]
        some.body.close()
        everything = await origin.get(KEY, FromTo(0))
        assert isinstance(everything, OriginResponse)
        assert everything.metadata.checksum == ("crc32", WRONG)
        assert await whole(everything) == CONTENT
        everything.body.close()
        told = await origin.head(KEY)
        assert isinstance(told, Metadata)
        assert told.checksum == ("crc32", WRONG)
        for head in server.heads:
            assert head.headers["x-amz-checksum-mode"] == "ENABLED"
            assert "x-amz-checksum-mode" in head.headers["authorization"]


# --- versions ------------------------------------------------------------------------------------------------


@each_row(("sent", "version"), [(VERSION, VERSION), (None, None), ("null", None)])
async def test_the_version_that_a_response_names(sent: str | None, version: str | None) -> None:
    """S3 API, GetObject: x-amz-version-id names the version. "null" can be overwritten, so it is no name."""
    answers = (partial(x_amz_version_id=sent), response("200 OK", length=1000, ETag=ETAG, x_amz_version_id=sent))
    async with origin_of(answering(*answers)) as (origin, server):
        answer = await origin.get(KEY, FromTo(0, 10))
        assert isinstance(answer, OriginResponse)
        assert answer.metadata.version == version
        await whole(answer)
        answer.body.close()
        assert await origin.head(KEY) == Metadata(ETAG, 1000, version=version)
        assert {head.target for head in server.heads} == {"/bucket/folder/o"}


@each_row("asked", [VERSION, "a/b?c=d&e#f%20+ \"'ü"])
async def test_a_requested_version_goes_to_s3(asked: str) -> None:
    """I23, I25: any version id goes to S3 as one parameter, with GET and with HEAD."""
    key = KEY._replace(version=asked)
    async with origin_of(answering(refusal("404 Not Found", "NoSuchVersion"))) as (origin, server):
        with pytest.raises(ObjectNotFound):
            await origin.get(key, FromTo(0, 10))
        with pytest.raises(OriginError):
            await origin.head(key)
        for head in server.heads:
            path, _, query = head.target.partition("?")
            assert path == "/bucket/folder/o"
            assert parse_qsl(query, strict_parsing=True) == [("versionId", asked)]


@each_row(
    ("asked", "sent"), [(VERSION, None), (VERSION, "null"), (VERSION, VERSION[:-1]), ("null", VERSION), ("", None)]
)
@each_row("size", [1000, 0])
async def test_an_origin_that_sends_another_version(asked: str, sent: str | None, size: int) -> None:
    """I1: an origin that ignores versionId sends the current object, and no byte of it is accepted."""
    key = KEY._replace(version=asked)
    got = response("200 OK", CONTENT[:size], ETag=ETAG, x_amz_version_id=sent)
    async with origin_of(answering(got), max_connections=1) as (origin, _):
        with pytest.raises(InvalidOriginResponse, match="version id"):
            await origin.get(key, FromTo(0, 10))
        with pytest.raises(InvalidOriginResponse, match="version id"):
            await origin.head(key)
        assert not origin.breaker.is_open, "a client can bring this about"


@each_row("sent", [None, "null"])
async def test_the_version_null(sent: str | None) -> None:
    """S3 API, "Working with objects in a versioning-suspended bucket": such an object has the id "null"."""
    async with origin_of(answering(partial(x_amz_version_id=sent))) as (origin, _):
        answer = await origin.get(KEY._replace(version="null"), FromTo(0, 10))
        assert isinstance(answer, OriginResponse)
        assert answer.metadata.version is None
        assert await whole(answer) == CONTENT[:10]
        answer.body.close()


@each_row(
    ("answer", "error"),
    [
        # S3 API, "Error responses", and "Working with delete markers"
        (refusal("404 Not Found", "NoSuchVersion"), ObjectNotFound),
        (refusal("400 Bad Request", "InvalidArgument"), NoSuchVersion),
        (refusal("405 Method Not Allowed", "MethodNotAllowed"), DeleteMarker),
        (response("405 Method Not Allowed", x_amz_delete_marker="true", Allow="DELETE"), DeleteMarker),
        (response("405 Method Not Allowed", b"<html>nginx</html>", Content_Type="text/html"), UnexplainedRefusal),
        (refusal("400 Bad Request", "ExpiredToken"), OriginRefused),
    ],
)
async def test_errors_of_a_version(answer: bytes, error: type[OriginError]) -> None:
    """I13: a version id is malformed, unknown or a delete marker.

    Without a version id the same response is no such fact.
    """
    async with origin_of(answering(answer)) as (origin, server):
        with pytest.raises(error) as raised:
            await origin.get(PINNED, FromTo(0, 10))
        assert type(raised.value) is error
        assert len(server.heads) == (2 if error is UnexplainedRefusal else 1)
        if error in (NoSuchVersion, DeleteMarker):
            with pytest.raises(OriginRefused):
                await origin.get(KEY, FromTo(0, 10))


async def test_errors_of_a_version_with_head() -> None:
    """RFC 9110 section 9.3.2: a response to HEAD has no body with a code, so a header or a GET shows the reason."""
    marker = response("405 Method Not Allowed", x_amz_delete_marker="true")
    malformed = response("400 Bad Request"), refusal("400 Bad Request", "InvalidArgument")
    async with origin_of(answering(marker, *malformed, response("405 Method Not Allowed"))) as (origin, server):
        for error in (DeleteMarker, NoSuchVersion, OriginRefused):
            with pytest.raises(error):
                await origin.head(PINNED)
        assert [head.method for head in server.heads] == ["HEAD", "HEAD", "GET", "HEAD", "GET", "GET"]


async def test_a_304_of_another_version() -> None:
    """I1: a 304 that names another version than the requested one is refused.

    One without a version id is valid (SeaweedFS).
    """
    other, none = (response("304 Not Modified", length=-1, ETag=ETAG, x_amz_version_id=sent) for sent in ("x", None))
    async with origin_of(answering(other, none)) as (origin, _):
        with pytest.raises(InvalidOriginResponse, match="version id"):
            await origin.head(PINNED, if_none_match=ETAG)
        assert await origin.head(PINNED, if_none_match=ETAG) == NotModified()


async def test_a_version_is_not_deleted() -> None:
    """A delete of a version would destroy history for good. It is a programming error, and no request is sent."""
    async with origin_of(answering(response("204 No Content"))) as (origin, server):
        with pytest.raises(AssertionError):
            await origin.delete(PINNED)
        assert server.heads == []


# --- bodies --------------------------------------------------------------------------------------------------


async def test_a_body_cut_early() -> None:
    """I3, I12: the bytes that came are returned, then BodyTruncated. The connection serves no other request."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(partial(0, 1000, sent=CONTENT[:600]))
        connection.writer.close()

    async with origin_of(script) as (origin, server):
        answer = await origin.get(KEY, FromTo(0))
        assert isinstance(answer, OriginResponse)
        first = await answer.body.read()
        assert first
        assert CONTENT[:600].startswith(first)
        with pytest.raises(BodyTruncated):
            await whole(answer)
        answer.body.close()
        with pytest.raises(BodyTruncated):
            await fetch(origin, FromTo(0))
        assert len(server.connections) == 2


async def test_a_body_that_stalls() -> None:
    """I20: read_timeout without a byte is OriginTimeout. Closing the body then closes the connection (I12)."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(partial(0, 1000, sent=CONTENT[:600]))
        await connection.hang()

    async with origin_of(script, read=SHORT) as (origin, server):
        answer = await origin.get(KEY, FromTo(0))
        assert isinstance(answer, OriginResponse)
        with pytest.raises(OriginTimeout):
            await whole(answer)
        answer.body.close()
        await server.connections[0].ended.wait()


async def test_a_body_longer_than_declared() -> None:
    """I3: bytes behind the declared length are no part of the object, and reach no later response."""
    surplus = partial(10, 20, sent=b"surplus!!!")

    async def script(connection: RawConnection, head: Head) -> None:
        start = 10 * (head.headers["range"] == "bytes=10-19")
        await connection.send(partial(start, start + 10) + surplus)

    async with origin_of(script) as (origin, _):
        for start in (0, 10, 0, 10):
            try:
                assert await fetch(origin, FromTo(start, start + 10)) == CONTENT[start : start + 10]
            except OriginError as error:
                assert isinstance(error, OriginUnavailable)  # noqa: PT017 - either will do


async def test_a_body_read_to_its_end_leaves_the_connection() -> None:
    """I12: the same connection serves the next request."""
    async with origin_of(answering(partial())) as (origin, server):
        for _ in range(3):
            assert await fetch(origin) == CONTENT[:10]
        assert len(server.heads) == 3
        assert len(server.connections) == 1


@each_row("is_begun", [True, False])
async def test_closing_an_unread_body_closes_the_connection(is_begun: bool) -> None:
    """I12: a connection whose body was not read to its end is closed, not pooled. A second close is harmless."""
    body = object_bytes(1 << 23)
    answer = response("206 OK", body, ETag=ETAG, Content_Range=f"bytes 0-{len(body) - 1}/{len(body)}")
    async with origin_of(answering(answer, partial())) as (origin, server):
        held = await origin.get(KEY, FromTo(0))
        assert isinstance(held, OriginResponse)
        if is_begun:
            assert body.startswith(await held.body.read())
        held.body.close()
        held.body.close()
        await server.connections[0].ended.wait()
        assert await fetch(origin) == CONTENT[:10]
        assert len(server.connections) == 2


async def test_a_cancelled_get_closes_its_connection_and_returns_its_slot() -> None:
    """I12: the cancellation of a get that waits for its head releases everything."""
    async with origin_of(answering(None, partial()), max_connections=1) as (origin, server):
        waiting = asyncio.create_task(origin.get(KEY, FromTo(0, 10)))
        await server.head_received.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await server.connections[0].ended.wait()
        assert await fetch(origin) == CONTENT[:10]


async def test_a_cancelled_read_can_be_closed() -> None:
    """I12: after a read that waits for bytes is cancelled, `close` closes the connection and frees the slot."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(partial(0, 10) if head.headers["range"] == "bytes=0-9" else partial(0, 1000, sent=b""))

    async with origin_of(script, max_connections=1) as (origin, server):
        answer = await origin.get(KEY, FromTo(0))
        assert isinstance(answer, OriginResponse)
        reading = asyncio.create_task(answer.body.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        answer.body.close()
        await server.connections[0].ended.wait()
        assert await fetch(origin) == CONTENT[:10]


# --- connections and secrets ---------------------------------------------------------------------------------


async def test_no_more_than_max_connections() -> None:
    """I20: a get that finds every connection in use waits for one within its deadline."""
    async with origin_of(answering(partial()), max_connections=1, connect=SHORT, read=SHORT) as (
        origin,
        server,
    ):
        held = await origin.get(KEY, FromTo(0, 10))
        assert isinstance(held, OriginResponse)
        with pytest.raises(OriginTimeout, match="max_connections"):
            await origin.get(KEY, FromTo(0, 10))
        assert len(server.heads) == 1
        held.body.close()
        held.body.close()
        assert await fetch(origin) == CONTENT[:10]

        answer = await origin.get(KEY, FromTo(0, 10))
        assert isinstance(answer, OriginResponse)
        next_one = asyncio.create_task(fetch(origin))
        answer.body.close()
        assert await next_one == CONTENT[:10]


@each_row(
    "answer",
    [
        refusal("500 Internal Server Error", "InternalError"),
        refusal("404 Not Found", "NoSuchKey"),
        refusal("412 Precondition Failed", "PreconditionFailed"),
        refusal("416 Range Not Satisfiable", "InvalidRange"),
        refusal("403 Forbidden", "AccessDenied"),
        response("304 Not Modified"),
        partial(10, 20),
        b"nonsense\r\n\r\n",
    ],
)
async def test_every_failure_returns_its_slot(answer: bytes) -> None:
    """I12: after any end of a call, all slots are free."""
    async with origin_of(answering(answer), max_connections=1) as (origin, _):
        for _ in range(3):
            try:
                assert isinstance(await origin.get(KEY, FromTo(0, 10)), NotModified)
            except OriginError as error:
                assert "max_connections" not in str(error)  # noqa: PT017 - the table holds both kinds


async def test_not_modified() -> None:
    """RFC 9110 section 15.4.5: a 304 is NotModified for GET and HEAD, and leaves the connection usable."""
    async with origin_of(answering(response("304 Not Modified", length=-1, ETag=ETAG))) as (origin, server):
        assert isinstance(await origin.get(KEY, FromTo(0, 10), if_none_match=ETAG), NotModified)
        assert isinstance(await origin.head(KEY, if_none_match=ETAG), NotModified)
        assert [head.headers["if-none-match"] for head in server.heads] == [ETAG, ETAG]


async def test_headers_of_a_304_are_returned() -> None:
    """RFC 9110 section 15.4.5: a 304 repeats headers of the 200. The cache compares them with what it has."""
    facts = {
        "Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT",
        "Age": "7",
        "Cache_Control": "max-age=60",
        "Expires": "Wed, 21 Oct 2065 07:28:00 GMT",
    }
    said = NotModified(
        "Wed, 21 Oct 2015 07:28:00 GMT",
        7,
        (("Cache-Control", "max-age=60"), ("Expires", "Wed, 21 Oct 2065 07:28:00 GMT")),
    )
    bare = response("304 Not Modified", length=-1, ETag=ETAG, Last_Modified="", Age="old")
    full = response("304 Not Modified", length=-1, ETag=ETAG, **facts)
    async with origin_of(answering(full, full, bare)) as (origin, _):
        assert await origin.get(KEY, FromTo(0, 10), if_none_match=ETAG) == said
        assert await origin.head(KEY, if_none_match=ETAG) == said
        assert await origin.get(KEY, FromTo(0, 10), if_none_match=ETAG) == NotModified()


async def test_metadata_of_head() -> None:
    """I4: HEAD returns the size and headers that the origin declared."""
    answer = response("200 OK", length=1000, ETag=ETAG, Content_Type="video/mp4")
    async with origin_of(answering(answer)) as (origin, _):
        assert await origin.head(KEY) == Metadata(ETAG, 1000, headers=(("Content-Type", "video/mp4"),))


@each_row(
    "answer",
    [
        None,
        b"nonsense\r\n\r\n",
        refusal("403 Forbidden", "SignatureDoesNotMatch"),
        refusal("500 Internal Server Error", "InternalError"),
        partial(10, 20),
        partial(Content_Range=None),
        response("301 Moved Permanently", Location="http://127.0.0.1:9/"),
    ],
)
async def test_errors_keep_secrets(answer: bytes | None) -> None:
    """I28: neither the message nor the traceback of a failure has a key, a token or a signature."""
    limits = {"connect": SHORT, "read": SHORT} if answer is None else {}
    async with origin_of(answering(answer), **limits) as (origin, server):
        while not server.heads:  # a busy machine may time out before it connects
            with pytest.raises(OriginError) as raised:
                await origin.get(KEY, FromTo(0, 10))
        told = str(raised.value) + "".join(traceback.format_exception(raised.value))
        signature = server.heads[0].headers["authorization"].rpartition("Signature=")[2]
        assert len(signature) == 64
        for secret in (SECRET, TOKEN, signature):
            assert secret not in told


# --- bodies without Content-Length ---------------------------------------------------------------------------


def chunks(head: bytes, *pieces: bytes, end: bool = True) -> bytes:
    """Return the response `head` with a chunked body (RFC 9112 section 7.1)."""
    head = head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if end else b"")


def bare(status: str, **headers: str | None) -> bytes:
    return response(status, length=-1, ETag=ETAG, **headers)


CHUNKED_206 = bare("206 Partial Content", Content_Range=f"bytes 0-9/{len(CONTENT)}")


async def test_a_chunked_206() -> None:
    """I3: a 206 without Content-Length has the length of its Content-Range, and its connection is used again."""
    good = chunks(CHUNKED_206, CONTENT[:4], CONTENT[4:10])
    async with origin_of(answering(good)) as (origin, server):
        for _ in range(2):
            answer = await origin.get(KEY, FromTo(0, 10))
            assert isinstance(answer, OriginResponse)
            assert (await whole(answer), answer.metadata.size) == (CONTENT[:10], len(CONTENT))
            answer.body.close()
        assert len(server.connections) == 1


@each_row(
    "bad",
    [
        chunks(CHUNKED_206, CONTENT[:9]),
        chunks(CHUNKED_206),
        chunks(CHUNKED_206, CONTENT[:11]),
        chunks(CHUNKED_206, CONTENT[:10], CONTENT[10:11]),
    ],
)
async def test_a_chunked_206_of_another_length(bad: bytes) -> None:
    """I3: a body that is shorter or longer than its Content-Range never ends cleanly."""
    async with origin_of(answering(bad)) as (origin, _):
        with pytest.raises(OriginUnavailable):
            await fetch(origin)


async def test_a_chunk_beyond_the_range() -> None:
    """I3: the last bytes come only once the framing shows that no others follow."""
    is_read = asyncio.Event()

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(chunks(CHUNKED_206, CONTENT[:10], end=False))
        await is_read.wait()
        await connection.send(b"1\r\nx\r\n0\r\n\r\n")

    async with origin_of(script) as (origin, _):
        answer = await origin.get(KEY, FromTo(0, 10))
        assert isinstance(answer, OriginResponse)
        is_read.set()
        with pytest.raises(InvalidOriginResponse):
            await whole(answer)
        answer.body.close()


async def test_a_chunked_206_that_breaks_off() -> None:
    """I3: the last chunk must come, even if all bytes are there."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(chunks(CHUNKED_206, CONTENT[:10], end=False))
        connection.writer.close()

    async with origin_of(script) as (origin, _):
        with pytest.raises(BodyTruncated):
            await fetch(origin)


async def test_a_chunked_200() -> None:
    """I3: a 200 without Content-Length is received before its size is told."""
    async with origin_of(answering(chunks(bare("200 OK"), CONTENT[:4], CONTENT[4:]))) as (origin, _):
        for part in (FromTo(0, 10), FromTo(0), Suffix(10)):
            answer = await origin.get(KEY, part)
            assert isinstance(answer, OriginResponse)
            assert (answer.start, answer.stop, answer.metadata.size) == (0, len(CONTENT), len(CONTENT))
            assert await whole(answer) == CONTENT
            answer.body.close()
        with pytest.raises(RangeIgnored):
            await origin.get(KEY, FromTo(10, 20))
        assert await origin.head(KEY) == Metadata(ETAG, len(CONTENT))


@each_row("is_chunked", [False, True])
async def test_a_later_part_whose_range_is_ignored(*, is_chunked: bool) -> None:
    """I1: a part of a known version is cut out of the whole object if the origin ignores its Range."""
    whole_object = chunks(bare("200 OK"), CONTENT) if is_chunked else response("200 OK", CONTENT, ETag=ETAG)
    async with origin_of(answering(whole_object)) as (origin, server):
        answer = await origin.get(KEY, FromTo(10, 20), if_match=ETAG)
        assert isinstance(answer, OriginResponse)
        assert (answer.start, answer.stop, answer.metadata.size) == (10, 20, len(CONTENT))
        assert await whole(answer) == CONTENT[10:20]
        answer.body.close()
        assert len(server.heads) == 2
        with pytest.raises(ObjectChanged):
            await origin.get(KEY, FromTo(10, 20), if_match='"another"')


async def test_a_chunked_200_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """I19: a body of unknown length is held in memory up to a bound."""
    monkeypatch.setattr(s3_body, "MAX_UNKNOWN_LENGTH_BYTES", len(CONTENT) - 1)
    async with origin_of(answering(chunks(bare("200 OK"), CONTENT))) as (origin, _):
        with pytest.raises(InvalidOriginResponse, match="accept_encoding"):
            await fetch(origin)


@each_row("end", [b"", b"2\r\nab"])
async def test_a_200_without_a_length_that_breaks_off(end: bytes) -> None:
    """I3: a 200 whose end cannot be told from an interruption is unusable."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(chunks(bare("200 OK"), CONTENT, end=False) + end if end else bare("200 OK") + CONTENT)
        connection.writer.close()

    async with origin_of(script) as (origin, _):
        with pytest.raises(OriginUnavailable):
            await fetch(origin)


@each_row("content", [CONTENT, b""])
async def test_a_head_without_a_length(content: bytes) -> None:
    """RFC 9110 section 9.3.2: a server may leave Content-Length out of a response to HEAD. A GET has the size."""

    async def script(connection: RawConnection, head: Head) -> None:
        if head.method == "HEAD":
            await connection.send(bare("200 OK", Content_Type="text/x", Transfer_Encoding="chunked"))
        elif content:
            await connection.send(partial(0, 1, Content_Type="text/x"))
        else:
            await connection.send(refusal("416 Range Not Satisfiable", "InvalidRange"))

    async with origin_of(script) as (origin, server):
        found = await origin.head(KEY)
        assert found == Metadata(ETAG, len(content), headers=(("Content-Type", "text/x"),))
        assert [head.method for head in server.heads] == ["HEAD", "GET"]
        assert len(server.connections) == 1
        assert origin.free_slots == 64


async def test_a_part_without_the_size() -> None:
    """RFC 9110 section 14.4: a 206 may leave out the complete length. A GET without Range has it."""

    async def script(connection: RawConnection, head: Head) -> None:
        if head.method == "HEAD":
            await connection.send(bare("200 OK"))
        elif "range" in head.headers:
            await connection.send(partial(Content_Range="bytes 0-9/*"))
        else:
            await connection.send(response("200 OK", CONTENT, ETag=ETAG))

    async with origin_of(script) as (origin, _):
        assert await fetch(origin) == CONTENT[:10]
        assert await origin.head(KEY) == Metadata(ETAG, len(CONTENT))
