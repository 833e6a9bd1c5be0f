"""Each failure of S3 is counted and told in closed kinds, and a response ends exactly what it contradicts (I28)."""

import pytest
from fakes import FakeClock
from rows import each_row

from bucketfront.errors import (
    AccessDenied,
    BodyTruncated,
    ErrorResponse,
    Fault,
    InvalidOriginResponse,
    NoSuchBucket,
    ObjectArchived,
    ObjectNotFound,
    OriginBusy,
    OriginCircuitOpen,
    OriginError,
    OriginRefused,
    OriginServerError,
    OriginThrottled,
    OriginTimeout,
    OriginUnavailable,
    RequestRefused,
)
from bucketfront.s3.failures import ACCESS_SHOWN_S, OriginFailures, kind_of, label
from bucketfront.troubles import SETTLE_S, Reason, Troubles


def told(error: OriginError, status: int, code: str = "") -> OriginError:
    error.response = ErrorResponse(status, code)
    return error


EXPIRED = told(OriginRefused("x", Fault.CREDENTIALS), 400, "ExpiredToken")
SKEWED = told(OriginRefused("x", Fault.CLOCK), 403, "RequestTimeTooSkewed")
NO_BUCKET = told(NoSuchBucket("x", Fault.CONFIGURATION), 404, "NoSuchBucket")
SLOW_DOWN = told(OriginThrottled("x"), 503, "SlowDown")
INTERNAL = told(OriginServerError("x"), 500, "InternalError")
DENIED = told(AccessDenied("x"), 403, "AccessDenied")
ABSENT = told(ObjectNotFound("x"), 404, "NoSuchKey")
REFUSED = OriginUnavailable("x")

KINDS = [
    (EXPIRED, "ExpiredToken", Reason.CREDENTIALS_REFUSED, ""),
    (SKEWED, "RequestTimeTooSkewed", Reason.CLOCK_REFUSED, ""),
    (NO_BUCKET, "NoSuchBucket", Reason.CONFIGURATION_REFUSED, "b"),
    (SLOW_DOWN, "SlowDown", Reason.ORIGIN_THROTTLES, "b"),
    (INTERNAL, "InternalError", Reason.ORIGIN_FAILING, "b"),
    (told(OriginRefused("x", Fault.ORIGIN), 404), "404", Reason.ORIGIN_FAILING, "b"),
    (told(OriginServerError("x"), 599), "other", Reason.ORIGIN_FAILING, "b"),
    (told(OriginServerError("x"), 500, "EvilCode"), "other", Reason.ORIGIN_FAILING, "b"),
    (DENIED, "AccessDenied", Reason.ACCESS_DENIED, "b"),
    (OriginTimeout("x"), "timeout", Reason.ORIGIN_UNREACHABLE, ""),
    (REFUSED, "connection", Reason.ORIGIN_UNREACHABLE, ""),
    (OriginRefused("x", Fault.CREDENTIALS), "no-credentials", Reason.CREDENTIALS_REFUSED, ""),
    (BodyTruncated("x"), "truncated", Reason.ORIGIN_FAILING, ""),
    (InvalidOriginResponse("x"), "invalid-response", Reason.ORIGIN_FAILING, ""),
]
FACTS = [
    (ABSENT, "NoSuchKey"),
    (told(ObjectArchived("x"), 403, "InvalidObjectState"), "InvalidObjectState"),
    (told(RequestRefused("x"), 400, "KeyTooLongError"), "KeyTooLongError"),
    (OriginBusy("x"), "timeout"),
    (OriginCircuitOpen("x", 1.0), "connection"),
]


class Subject:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.lines: list[str] = []
        self.troubles = Troubles(self.clock, self.lines.append)
        self.failures = OriginFailures(self.troubles, self.clock)

    def fails(self, error: OriginError, bucket: str = "b") -> None:
        self.failures.failed("GetObject", bucket, error)

    @property
    def failing(self) -> set[Reason]:
        return {trouble.kind.reason for trouble in self.troubles.failing}


@pytest.fixture
def subject() -> Subject:
    return Subject()


@each_row(("error", "name", "reason", "bucket"), KINDS)
def test_kinds(error: OriginError, name: str, reason: Reason, bucket: str) -> None:
    """The kind of a failure has a name from a closed set, a reason, and the bucket if it concerns that one alone."""
    kind = kind_of(error, "b")
    assert kind is not None
    assert (label(error), kind.name, kind.reason, kind.bucket) == (name, name, reason, bucket)
    assert ("bucket b" in kind.failing) == ("bucket b" in kind.works_again) == bool(bucket)


@each_row(("error", "name"), FACTS)
def test_facts_are_no_trouble(error: OriginError, name: str) -> None:
    """A fact about an object or a request is counted and not told."""
    subject = Subject()
    subject.fails(error)
    assert subject.failures.counts == {("GetObject", name): 1}
    assert subject.lines == []


@each_row("error", [error for error, *_ in KINDS])
@each_row("response", ["ok", ABSENT])
def test_a_response_ends_troubles(error: OriginError, response: OriginError | str) -> None:
    """A response about an object ends every trouble of its bucket, and it is told."""
    subject = Subject()
    subject.fails(error)
    subject.clock.advance(SETTLE_S)
    if isinstance(response, OriginError):
        subject.fails(response)
    else:
        subject.failures.succeeded("GetObject", "b")
    assert subject.failing == set()
    assert len(subject.lines) == 2
    assert "again" in subject.lines[1]


def test_another_bucket_ends_only_what_all_share(subject: Subject) -> None:
    """A success of another bucket ends no trouble of this one, only those of credentials, clock and connection."""
    for error, *_ in KINDS:
        subject.fails(error)
    subject.failures.succeeded("GetObject", "other")
    left = [trouble.kind for trouble in subject.troubles.failing]
    assert left
    assert all(kind.bucket == "b" for kind in left)


def test_any_response_shows_that_the_origin_is_there(subject: Subject) -> None:
    """A response with an error ends the trouble that the origin cannot be reached, and no other one."""
    subject.fails(REFUSED)
    subject.fails(EXPIRED)
    assert subject.failing == {Reason.CREDENTIALS_REFUSED}
    subject.fails(DENIED)  # S3 knows who asks
    assert subject.failing == {Reason.ACCESS_DENIED}


def test_one_denied_object_is_none_of_the_operators_business(subject: Subject) -> None:
    """While a bucket gives objects, a denied one is not told, since S3 denies absent ones to some credentials."""
    subject.failures.succeeded("GetObject", "b")
    subject.fails(DENIED)
    assert subject.lines == []
    subject.clock.advance(ACCESS_SHOWN_S)
    subject.fails(DENIED)
    assert len(subject.lines) == 1
    assert "permission to list" in subject.lines[0]


def test_our_own_probe_is_not_told(subject: Subject) -> None:
    """A bucket that is looked for before it is created is no trouble."""
    subject.failures.failed("HeadBucket", "b", NO_BUCKET)
    assert subject.lines == []
    assert subject.failures.counts == {("HeadBucket", "NoSuchBucket"): 1}
