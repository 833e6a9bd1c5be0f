"""S3's error codes, and whose fault each of them is."""

import asyncio
from typing import Any

import pytest
from fakes import RawServer, answering, response
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
    (400, "", Fault.ORIGIN),
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


@pytest.mark.parametrize(("status", "code", "fault"), ROWS)
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


@pytest.mark.parametrize(
    ("status", "code", "read", "write"),
    [
        (403, "AccessDenied", AccessDenied, AccessDenied),
        (403, "SomethingNew", AccessDenied, AccessDenied),
        (403, "InvalidObjectState", ObjectArchived, ObjectArchived),
        (400, "KeyTooLongError", RequestRefused, WriteRefused),
        (400, "XMinioInvalidObjectName", RequestRefused, WriteRefused),
        (400, "InvalidURI", RequestRefused, WriteRefused),
        (400, "InvalidRequest", OriginRefused, WriteRefused),
        (400, "SomethingNew", OriginRefused, WriteRefused),
        (501, "NotImplemented", OriginRefused, WriteRefused),
        (501, "", OriginRefused, OriginRefused),
        (400, "", OriginRefused, OriginRefused),
        (400, "BadDigest", OriginRefused, WriteRefused),
        (400, "EntityTooLarge", OriginRefused, BodyTooLarge),
        (413, "", OriginRefused, BodyTooLarge),
        (411, "MissingContentLength", OriginRefused, OriginRefused),
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
        (409, "SomethingNew", OriginRefused, WriteRefused),
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
            assert len(server.heads) == (READ_ATTEMPTS if isinstance(error, OriginServerError) else 1)


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
