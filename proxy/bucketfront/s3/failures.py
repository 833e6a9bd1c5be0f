"""The outcomes of requests to S3 in closed sets: for metrics, and for the reports to operators.

A failure that is ours, of the load, or of the origin is a trouble of some kind (see `bucketfront.troubles`). A response
that contradicts a kind counts as its success: any response shows that the origin can be reached, and one about an
object shows that the origin accepts our credentials and the bucket.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus

from bucketfront.errors import (
    AccessDenied,
    BodyTruncated,
    ErrorResponse,
    Fault,
    InvalidOriginResponse,
    ObjectArchived,
    OriginBusy,
    OriginCircuitOpen,
    OriginError,
    OriginRefused,
    OriginThrottled,
    OriginTimeout,
    OriginUnavailable,
)
from bucketfront.s3 import connection_causes, error_codes
from bucketfront.troubles import Kind, Reason, Troubles

OK = "ok"
ACCESS_SHOWN_S = 60.0  # after a success, a denied request is about its object and not about the bucket
_STATUSES = frozenset(int(status) for status in HTTPStatus)
_OTHER = "other"
# Sent to find out about a bucket. A failure is reported where the result is used.
_PROBES = frozenset({"HeadBucket", "ListObjectsV2", "GetBucketVersioning"})
_NO_CREDENTIALS = "no-credentials"
_INVALID = "invalid-response"
_UNUSABLE = frozenset({"truncated", _INVALID})  # the origin can be reached
_EVERYWHERE = frozenset({Fault.CREDENTIALS, Fault.CLOCK})  # all buckets share the credentials and the clock

# Of each fault: the reason, what fails, and what works again. `{of}` names the bucket.
_Texts = tuple[Reason, str, str]
_TEXTS: Mapping[Fault, _Texts] = {
    Fault.CREDENTIALS: (
        Reason.CREDENTIALS_REFUSED,
        "the origin refuses our credentials",
        "the origin accepts our credentials again",
    ),
    Fault.CLOCK: (Reason.CLOCK_REFUSED, "the origin refuses our clock", "the origin accepts our clock again"),
    Fault.CONFIGURATION: (
        Reason.CONFIGURATION_REFUSED,
        "the origin refuses our configuration{of}",
        "the origin accepts our configuration{of} again",
    ),
    Fault.LOAD: (
        Reason.ORIGIN_THROTTLES,
        "the origin asks for fewer requests{of}",
        "the origin takes requests{of} again",
    ),
    Fault.ORIGIN: (Reason.ORIGIN_FAILING, "the origin fails{of}", "the origin works{of} again"),
    Fault.OBJECT: (Reason.ACCESS_DENIED, "the origin denies access{of}", "the origin grants access{of} again"),
}
_UNREACHABLE_TEXTS: _Texts = (
    Reason.ORIGIN_UNREACHABLE,
    "the origin cannot be reached",
    "the origin can be reached again",
)
_UNUSABLE_TEXTS: _Texts = (
    Reason.ORIGIN_FAILING,
    "the origin's responses cannot be used",
    "the origin's responses can be used again",
)
_NO_CREDENTIALS_TEXTS: _Texts = (
    Reason.CREDENTIALS_REFUSED,
    "there are no usable credentials for the origin",
    "there are usable credentials for the origin again",
)
_DENIED_CURE = "without the permission to list the bucket, S3 denies absent objects as well"


def label(error: OriginError) -> str:
    """Return S3's code, else the status or the cause, from a closed set (docs/invariants.md#secrets-stay-in)."""
    response = error.response
    if response is None:
        return _cause(error)
    if response.code:
        return response.code if error_codes.is_known(response.code) else _OTHER
    if response.status < 300:
        return _INVALID
    return str(response.status) if response.status in _STATUSES else _OTHER


def _cause(error: OriginError) -> str:  # noqa: PLR0911 - a table
    """Return why there was no usable response, from a closed set."""
    found = None if error.__cause__ is None else connection_causes.cause(error.__cause__)
    match error:
        case OriginUnavailable() if found is not None and not isinstance(error, InvalidOriginResponse | BodyTruncated):
            return found.name.lower().replace("_", "-")
        case OriginRefused():
            return _NO_CREDENTIALS if error.fault is Fault.CREDENTIALS else _OTHER
        case BodyTruncated():
            return "truncated"
        case InvalidOriginResponse():
            return _INVALID
        case OriginTimeout():
            return "timeout"
        case OriginUnavailable():
            return "connection"
        case _:
            return _OTHER


def kind_of(error: OriginError, bucket: str) -> Kind | None:
    """Return the kind of trouble that an error is. Returns None if it is none, but a fact about an object."""
    fault, name = _fault(error), label(error)
    if fault is None:
        return None
    reason, failing, works_again = _texts(fault, name, error.response)
    is_of_bucket = error.response is not None and fault not in _EVERYWHERE and bucket != ""
    of = f" for bucket {bucket}" if is_of_bucket else ""
    return Kind(
        reason,
        name,
        f"{failing.format(of=of)} ({name})",
        f"{works_again.format(of=of)} ({name})",
        bucket if is_of_bucket else "",
    )


def _fault(error: OriginError) -> Fault | None:
    match error:
        case OriginBusy() | OriginCircuitOpen() | ObjectArchived():
            return None  # the first two were never sent
        case OriginRefused():
            return error.fault
        case OriginThrottled():
            return Fault.LOAD
        case OriginUnavailable():
            return Fault.ORIGIN
        case AccessDenied():
            return Fault.OBJECT
        case _:
            return None


def _texts(fault: Fault, name: str, response: ErrorResponse | None) -> _Texts:
    if response is not None:
        return _TEXTS[fault]
    if name == _NO_CREDENTIALS:
        return _NO_CREDENTIALS_TEXTS
    return _UNUSABLE_TEXTS if name in _UNUSABLE else _UNREACHABLE_TEXTS


class OriginFailures:
    """Counts the outcomes of requests to S3, and hands failures to `troubles`. `clock` is monotonic, in seconds."""

    def __init__(self, troubles: Troubles, clock: Callable[[], float]) -> None:
        self._troubles = troubles
        self._clock = clock
        self._kinds: set[Kind] = set()  # that have occurred here
        self._shown_at: dict[str, float] = {}  # by bucket: when a response last showed that access is granted
        self.counts: dict[tuple[str, str], int] = {}  # by operation and outcome

    def succeeded(self, operation: str, bucket: str) -> None:
        """Take a response without an error."""
        self._count(operation, OK)
        self._worked(bucket)

    def reached(self, operation: str) -> None:
        """Take a response to a request with another signature than ours, which shows nothing about our credentials."""
        self._count(operation, OK)
        self._ended(lambda known: known.reason is Reason.ORIGIN_UNREACHABLE)

    def failed(self, operation: str, bucket: str, error: OriginError, *, is_forwarded: bool = False) -> None:
        """Take an error of a request, also one that is a fact about its object.

        `is_forwarded` means that a client of S3 has made it, so it is no probe.
        """
        self._count(operation, label(error))
        kind = kind_of(error, bucket)
        if operation in _PROBES and not is_forwarded:
            return
        if kind is None:
            if error.response is not None:
                self._worked(bucket)
            return
        if error.response is not None:
            self._ended(lambda known: known.reason is Reason.ORIGIN_UNREACHABLE)
        detail = str(error)
        if kind.reason is Reason.ACCESS_DENIED:
            self._ended(lambda known: known.bucket in ("", bucket) and known.reason is not Reason.ACCESS_DENIED)
            if not bucket:
                return  # a client of S3 has named a bucket that may not be ours
            if self._clock() - self._shown_at.get(bucket, -ACCESS_SHOWN_S) < ACCESS_SHOWN_S:
                return
            detail = f"{detail}; {_DENIED_CURE}"
        self._kinds.add(kind)
        self._troubles.failed(kind, detail)

    def probed(self, operation: str, error: OriginError | None) -> None:
        """Count a request that was sent to find out whose fault another failure is. It is no trouble of its own."""
        self._count(operation, OK if error is None else label(error))

    def _count(self, operation: str, outcome: str) -> None:
        self.counts[operation, outcome] = self.counts.get((operation, outcome), 0) + 1

    def _worked(self, bucket: str) -> None:
        self._shown_at[bucket] = self._clock()
        self._ended(lambda kind: kind.bucket in ("", bucket))

    def _ended(self, includes: Callable[[Kind], bool]) -> None:
        self._troubles.succeeded(lambda kind: kind in self._kinds and includes(kind))
