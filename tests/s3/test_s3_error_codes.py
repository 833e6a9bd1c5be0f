"""S3's error codes, and whose fault each of them is."""

import asyncio
from typing import Any

import pytest
from fakes import FakeClock, Head, RawConnection, RawServer, Script, answering, response
from rows import each_row
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import (
    AccessDenied,
    BodyTooLarge,
    ErrorResponse,
    Fault,
    InvalidOriginResponse,
    NoSuchBucket,
    ObjectArchived,
    OriginError,
    OriginOverloaded,
    OriginRefused,
    OriginServerError,
    OriginThrottled,
    RequestRefused,
    WriteRefused,
)
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.s3 import client, pace
from bucketfront.s3.client import READ_ATTEMPTS, S3Origin
from bucketfront.s3.error_translation import UnexplainedRefusal
from bucketfront.s3.reference import VERDICT_S
from bucketfront.troubles import Troubles

KEY = ObjectKey("bucket", "o")

CREDENTIALS, CLOCK, CONFIGURATION = Fault.CREDENTIALS, Fault.CLOCK, Fault.CONFIGURATION
# S3 API, "Error responses": status, code, whose fault, the errors of a read and of a delete
ROWS = [
    (403, "InvalidAccessKeyId", CREDENTIALS),
    (403, "SignatureDoesNotMatch", CREDENTIALS),
    (400, "ExpiredToken", CREDENTIALS),
    (400, "InvalidToken", CREDENTIALS),
    (400, "TokenRefreshRequired", CREDENTIALS),
    (403, "AccountProblem", CREDENTIALS),
    (403, "AllAccessDisabled", CREDENTIALS),
    (403, "NotSignedUp", CREDENTIALS),
    (403, "InvalidSecurity", CREDENTIALS),
    (401, "", CREDENTIALS),
    (401, "Unauthorized", CREDENTIALS),
    (403, "RequestTimeTooSkewed", CLOCK),
    (400, "AuthorizationHeaderMalformed", CONFIGURATION),
    (400, "IllegalLocationConstraintException", CONFIGURATION),
    (301, "PermanentRedirect", CONFIGURATION),
    (307, "TemporaryRedirect", CONFIGURATION),
    (302, "", CONFIGURATION),
    (404, "NoSuchBucket", CONFIGURATION),
    (400, "InvalidBucketName", CONFIGURATION),
    (400, "KMS.DisabledException", CONFIGURATION),
    (403, "QuotaExceeded", CONFIGURATION),
    (407, "", CONFIGURATION),
    (403, "", Fault.ORIGIN),  # the page of a firewall
    (404, "", Fault.ORIGIN),
    (418, "Teapot", Fault.ORIGIN),
]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MIN_RATE", 1000.0)
    monkeypatch.setattr(client, "RETRY_PAUSE_S", 0.0)


def refusal(status: int, code: str, **headers: Any) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>…</Message></Error>" if code else "<html>"
    return response(f"{status} X", body.encode(), Content_Type="application/xml" if code else "text/html", **headers)


def settings(server: RawServer) -> OriginSettings:
    keys = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"}
    return OriginSettings.model_validate({"endpoint_url": server.endpoint_url, "credentials": keys})


async def failure(answer: bytes, method: str = "get") -> tuple[OriginError, RawServer, S3Origin]:
    """Return what a call to an origin raises that always answers so."""
    async with asyncio.timeout(HANG_S), RawServer(answering(answer)) as server, S3Origin(settings(server)) as origin:
        with pytest.raises(OriginError) as raised:
            await (origin.delete(KEY) if method == "delete" else origin.get(KEY, FromTo(0, 10)))
        return raised.value, server, origin


@each_row(("status", "code", "fault"), ROWS)
async def test_our_own_faults(status: int, code: str, fault: Fault) -> None:
    """I13, I35: our credentials, clock and configuration are neither the object's state nor the client's fault.

    The origin is asked once, it costs no retry of others, and the breaker does not count it.
    """
    error, server, origin = await failure(refusal(status, code))
    assert isinstance(error, OriginRefused)
    assert (error.fault, len(server.heads)) == (fault, 1)
    assert isinstance(error, NoSuchBucket) == (code == "NoSuchBucket")
    assert "0 failures" in repr(origin.breaker)
    assert "10.0 of 10" in repr(origin.retries)


@each_row(
    ("status", "code", "read", "write"),
    [
        (403, "AccessDenied", AccessDenied, AccessDenied),
        (403, "SomethingNew", AccessDenied, AccessDenied),
        (403, "InvalidObjectState", ObjectArchived, ObjectArchived),
        (400, "KeyTooLongError", RequestRefused, WriteRefused),
        (400, "XMinioInvalidObjectName", RequestRefused, WriteRefused),
        (400, "InvalidURI", RequestRefused, WriteRefused),
        (400, "InvalidRequest", UnexplainedRefusal, WriteRefused),
        (400, "SomethingNew", UnexplainedRefusal, WriteRefused),
        (501, "NotImplemented", UnexplainedRefusal, WriteRefused),
        (501, "", OriginRefused, OriginRefused),
        (400, "", UnexplainedRefusal, UnexplainedRefusal),
        (400, "BadDigest", UnexplainedRefusal, WriteRefused),
        (400, "EntityTooLarge", UnexplainedRefusal, BodyTooLarge),
        (413, "", UnexplainedRefusal, BodyTooLarge),
        (411, "MissingContentLength", UnexplainedRefusal, OriginRefused),
        (412, "PreconditionFailed", InvalidOriginResponse, InvalidOriginResponse),  # nothing was conditional
        # a status that contradicts the code
        (500, "AccessDenied", OriginServerError, OriginServerError),
        (503, "AccessDenied", OriginOverloaded, OriginOverloaded),
        (500, "NoSuchKey", OriginServerError, OriginServerError),
        (410, "NoSuchKey", OriginRefused, OriginRefused),
        (404, "AccessDenied", OriginRefused, OriginRefused),
        (500, "KeyTooLongError", OriginServerError, OriginServerError),
        (502, "BadDigest", OriginServerError, OriginServerError),
        (301, "AccessDenied", OriginRefused, OriginRefused),
        (409, "SomethingNew", UnexplainedRefusal, WriteRefused),
        (500, "InternalError", OriginServerError, OriginServerError),
        (503, "ServiceUnavailable", OriginOverloaded, OriginOverloaded),
        (503, "", OriginOverloaded, OriginOverloaded),
        (503, "SlowDown", OriginThrottled, OriginThrottled),
        (400, "RequestTimeout", OriginServerError, OriginServerError),
        (429, "", OriginThrottled, OriginThrottled),
        (429, "TooManyRequests", OriginThrottled, OriginThrottled),
    ],
)
async def test_other_faults(status: int, code: str, read: type[OriginError], write: type[OriginError]) -> None:
    """I35: the object's state, the client's request and the origin's trouble are told apart, for reads and writes."""
    for method, kind in (("get", read), ("delete", write)):
        error, server, _ = await failure(refusal(status, code), method)
        assert type(error) is kind
        if method == "get":
            reference = 1 if isinstance(error, UnexplainedRefusal) else 0
            assert len(server.heads) == (READ_ATTEMPTS if isinstance(error, OriginServerError) else 1 + reference)


async def test_a_client_that_asks_for_bad_keys_costs_nothing() -> None:
    """I35: requests that S3 refuses because of their key leave all retries to others, and the breaker closed."""
    answer = refusal(400, "KeyTooLongError")
    async with asyncio.timeout(HANG_S), RawServer(answering(answer)) as server, S3Origin(settings(server)) as origin:
        for number in range(20):
            with pytest.raises(RequestRefused):
                await origin.get(ObjectKey("bucket", f"bad/{number}"), FromTo(0, 10))
        assert len(server.heads) == 20
        assert "10.0 of 10" in repr(origin.retries)
        assert not origin.breaker.is_open


# Statuses and codes that a key, a query or a field of a client causes at S3 and at compatible servers.
MISTAKES = [
    (400, "InvalidArgument"),
    (400, "InvalidRequest"),
    (400, "BadRequest"),
    (400, "InvalidURI"),
    (400, "KeyTooLongError"),
    (400, "MalformedXML"),
    (400, "InvalidTag"),
    (400, "MetadataTooLarge"),
    (400, "BadDigest"),
    (400, ""),
    (405, "MethodNotAllowed"),
    (405, ""),
    (409, "ParentIsFile"),
    (409, "ObjectConflict"),
    (409, ""),
    (411, "MissingContentLength"),
    (411, ""),
    (413, ""),
    (414, "RequestURITooLong"),
    (414, ""),
    (431, ""),
    (501, "NotImplemented"),
]
GOOD = response("206 Partial Content", b"x", ETag='"1"', Content_Range="bytes 0-0/1")


def refusing(answer: bytes) -> Script:
    """Return an origin that sends `answer` for odd keys, and has every other object."""

    async def script(connection: RawConnection, head: Head) -> None:
        chosen = answer if "/odd" in head.target else GOOD
        await connection.send(chosen.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.method == "HEAD" else chosen)

    return script


@each_row("warm", [False, True])
@each_row(("status", "code"), MISTAKES, few=9)
async def test_a_mistake_of_a_client(status: int, code: str, warm: bool) -> None:
    """I35: a refusal of one key, while the origin serves others, is the client's mistake, by GET, HEAD and DELETE.

    It costs no retry, the breaker does not count it, and one read of another object shows it for all.
    """
    troubles = Troubles(FakeClock(), lambda *_: None)
    script = refusing(refusal(status, code))
    async with (
        asyncio.timeout(HANG_S),
        RawServer(script) as server,
        S3Origin(settings(server), troubles=troubles) as origin,
    ):
        origin.calls.reference._clock = FakeClock()  # one verdict, also on a busy machine
        if warm:
            await origin.get(ObjectKey("bucket", "good"), FromTo(0, 1))
        for number in range(12):
            odd = ObjectKey("bucket", f"odd{number}")
            with pytest.raises(RequestRefused):
                await (origin.head(odd) if number % 2 else origin.get(odd, FromTo(0, 10)))
        if code not in ("MissingContentLength", "MalformedXML"):  # these are ours: a client cannot cause them by a key
            with pytest.raises(RequestRefused):
                await origin.delete(ObjectKey("bucket", "odd"))
        assert len([head for head in server.heads if "/odd" not in head.target]) <= 1 + warm
        assert "0 failures" in repr(origin.breaker)
        assert "10.0 of 10" in repr(origin.retries)
        assert troubles.failing == []


async def test_a_known_object_is_no_mistake() -> None:
    """I35: a refusal of a version that the origin has sent before is no mistake of a client's."""
    script = refusing(refusal(400, "InvalidRequest"))
    async with asyncio.timeout(HANG_S), RawServer(script) as server, S3Origin(settings(server)) as origin:
        await origin.get(ObjectKey("bucket", "good"), FromTo(0, 1))
        for condition in ({"if_match": '"1"'}, {"if_none_match": '"1"'}):
            with pytest.raises(OriginRefused):
                await origin.get(ObjectKey("bucket", "odd"), FromTo(0, 1), **condition)


@pytest.mark.parametrize("other", [refusal(403, "AccessDenied"), refusal(404, "NoSuchKey")])
async def test_a_mistake_before_the_first_object(other: bytes) -> None:
    """I35: until the origin has sent an object, its response for one that does not exist shows that it works."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(refusal(400, "InvalidRequest") if "/odd" in head.target else other)

    async with asyncio.timeout(HANG_S), RawServer(script) as server, S3Origin(settings(server)) as origin:
        with pytest.raises(RequestRefused):
            await origin.get(ObjectKey("bucket", "odd"), FromTo(0, 10))


@each_row(
    "other",
    [
        refusal(403, "SignatureDoesNotMatch"),
        refusal(403, "RequestTimeTooSkewed"),
        refusal(400, "AuthorizationHeaderMalformed"),
        refusal(404, "NoSuchBucket"),
        refusal(400, "InvalidRequest"),
        refusal(503, "ServiceUnavailable"),
        refusal(403, ""),
    ],
)
async def test_an_unexplained_refusal_while_nothing_works(other: bytes) -> None:
    """I35: an unexplained refusal is no mistake of the client's if the origin serves no other object either."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(refusal(400, "SomethingNew") if "/odd" in head.target else other)

    async with asyncio.timeout(HANG_S), RawServer(script) as server, S3Origin(settings(server)) as origin:
        with pytest.raises(OriginError) as raised:
            await origin.get(ObjectKey("bucket", "odd"), FromTo(0, 10))
        assert isinstance(raised.value, OriginRefused)


async def test_a_verdict_ends() -> None:
    """I35: if our credentials fail while a client makes mistakes, its next ones are no mistakes after VERDICT_S."""
    clock, answers = FakeClock(), [GOOD, refusal(403, "InvalidAccessKeyId")]

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(refusal(400, "SomethingNew") if "/odd" in head.target else answers.pop(0))

    async with asyncio.timeout(HANG_S), RawServer(script) as server, S3Origin(settings(server)) as origin:
        origin.calls.reference._clock = clock
        for passed, kind in ((0.0, RequestRefused), (VERDICT_S - 0.1, RequestRefused), (0.1, OriginRefused)):
            clock.advance(passed)
            with pytest.raises(kind):
                await origin.get(ObjectKey("bucket", "odd"), FromTo(0, 10))
    assert not answers


async def test_what_a_response_says_of_itself() -> None:
    """An error has S3's code, ids and the bucket's region from headers or body. Texts of another form are dropped."""
    request_id, host_id, code = "4442587FB7D0A2F9", "vlR7PnpV2Ce81l0PRw6j/G2wxw==", "AuthorizationHeaderMalformed"
    ids = {"x_amz_request_id": request_id, "x_amz_id_2": host_id, "x_amz_bucket_region": "eu-west-1"}
    error, _, _ = await failure(refusal(400, code, **ids))
    assert error.response == ErrorResponse(400, code, request_id, host_id, "eu-west-1")
    assert "region is eu-west-1" in str(error)
    error, _, _ = await failure(refusal(403, "AccessDenied"))
    assert error.response == ErrorResponse(403, "AccessDenied")
    odd = refusal(403, "odd code", x_amz_request_id="a b", x_amz_id_2="x" * 300, x_amz_bucket_region="EU WEST")
    error, _, _ = await failure(odd)
    assert error.response == ErrorResponse(403)


async def test_a_throttled_bucket_gets_fewer_requests() -> None:
    """SlowDown limits the pace of its own bucket, and of no other."""
    sent = refusal(503, "SlowDown"), response("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>")
    async with asyncio.timeout(HANG_S), RawServer(answering(*sent)) as server, S3Origin(settings(server)) as origin:
        with pytest.raises(OriginError):
            await origin.get(KEY, FromTo(0, 10))
        with pytest.raises(OriginError):
            await origin.get(ObjectKey("other", "o"), FromTo(0, 10))
        assert origin.calls.paces["bucket"].limit is not None
        assert origin.calls.paces["other"].limit is None
        assert origin.calls.paces["bucket"].throttled_count == 1


async def test_an_error_that_is_not_flat() -> None:
    """I13: XML of another shape than S3's errors is an invalid response, whatever botocore makes of it."""
    error, _, _ = await failure(refusal(403, "<b>odd</b>"))
    assert isinstance(error, InvalidOriginResponse)
