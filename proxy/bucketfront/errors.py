"""The exception tree. It has no HTTP in it: `server/error_responses.py` maps classes to statuses."""

from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    """Whose fault an error response of S3 is. `s3/error_codes.py` has it for each error code."""

    OBJECT = "object"  # a fact about the object, or about the permissions on it
    REQUEST = "request"  # the client's request
    CREDENTIALS = "credentials"  # ours
    CLOCK = "clock"  # ours
    CONFIGURATION = "configuration"  # ours: endpoint, region, bucket, encryption
    LOAD = "load"  # S3 asks for fewer requests
    ORIGIN = "origin"


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The facts that an error response of S3 has (S3 API, "Error responses"). Absent texts are empty.

    `code` is S3's, and empty if the response has none: it may not be from S3. `region` is the bucket's own.
    """

    status: int
    code: str = ""
    request_id: str = ""
    host_id: str = ""
    region: str = ""


class ProxyError(Exception):
    """The base of all exceptions that bucketfront raises on purpose."""


class ConfigError(ProxyError):
    """The configuration cannot be used. The message names file, line, key and the cure."""


class NoMounts(ConfigError):
    """No file, variable or option says what to serve."""


class UnusableSetting(ConfigError):
    """A setting is well-formed, and this machine cannot fulfil it. `at` is its place in the configuration."""

    def __init__(self, message: str, at: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.at = at


class CannotListen(UnusableSetting):
    """A listener's address is in use, or this machine does not have it. `process` is its user, None if unknown."""

    process: int | None = None


class BadPath(ProxyError):
    """A request path does not map to an S3 key."""


class NoSuchMount(ProxyError):
    """A well-formed path lies below no mount."""


class Forbidden(ProxyError):
    """The configuration does not let the client do what its request asks for."""


class AccessUnavailable(ProxyError):
    """The rules of access cannot decide on a request at present, so it is refused."""


class NoShare(ProxyError):
    """A client gets none of a limited resource at present. `resource` is a value of `fair_share.Resource`."""

    def __init__(self, message: str, resource: str) -> None:
        super().__init__(message)
        self.resource = resource


class ShareUsedUp(NoShare):
    """The client has its share of a limited resource, and the rest is for others."""


class WholeUsedUp(NoShare):
    """Nothing of a limited resource is left for any client."""


class NotCached(ProxyError):
    """A client accepts only cached bytes (`only-if-cached`), and they are not in the cache."""


class OriginError(ProxyError):
    """The origin did not carry out a request. `response` is its error response, None if there was none.

    `forward` is why the request went to the origin, a `Forward` of `http.cache_status`.
    """

    response: ErrorResponse | None = None
    forward = "miss"

    @property
    def status(self) -> int | None:
        """Return the status of the origin's response, None if there was none."""
        return None if self.response is None else self.response.status


class ObjectNotFound(OriginError):
    """S3's 404: the object or its version does not exist."""


class ObjectChanged(OriginError):
    """The requested version is no longer the current one: S3's 412, or a response with another ETag."""


class ContentMismatch(ObjectChanged):
    """The origin's bytes do not have the checksum that the origin declared for the version."""


class RangeUnsatisfiable(OriginError):
    """S3's 416: no byte of the object lies in the requested range."""


class AccessDenied(OriginError):
    """S3's 401 or 403. It does not show whether the object exists."""


class ObjectArchived(AccessDenied):
    """S3's InvalidObjectState: the object is in an archive, and must be restored before it can be read."""


class ObjectEncrypted(AccessDenied):
    """The object is encrypted with a key that its owner sends with each request (SSE-C), and that is not supported."""


class NoSuchVersion(OriginError):
    """S3's 400: the requested version id is malformed. For a well-formed id, S3 sends ObjectNotFound."""


class DeleteMarker(OriginError):
    """S3's 405: the requested version exists, and is the mark of a deletion."""


class RequestRefused(OriginError):
    """S3 refused a request because of what the client sent, for example a key that S3 does not allow."""


class WriteRefused(RequestRefused):
    """S3 refused a write because of the request itself (400, 409, 411, 412, 413)."""


class BodyTooLarge(WriteRefused):
    """The body is larger than S3, or a proxy in front of it, accepts (413, EntityTooLarge)."""


class PreconditionFailed(WriteRefused):
    """The condition of a write is false (S3's 412), or can never be true. Nothing was written."""


class WriteConflict(WriteRefused):
    """Another write of the object ran at the same time (S3's 409, ConditionalRequestConflict). A retry may work."""


class NoSuchUpload(WriteRefused):
    """S3 has no such multipart upload. It was completed or aborted, or never created."""


class BucketNotForwarded(RequestRefused):
    """Requests of S3's clients cannot be made anew for this bucket, such as an access point or a directory bucket."""


class OriginUnavailable(OriginError):
    """The origin is out of reach, or it responds and cannot serve (OriginServerError)."""

    is_final = False  # whether the same request would fail again


class OriginRefused(OriginUnavailable):
    """The origin refuses our requests, for a reason that is neither the object nor the client's request.

    See docs/invariants.md#whose-fault. `fault` is CREDENTIALS, CLOCK or CONFIGURATION, or ORIGIN if the response does
    not show the reason.
    """

    is_final = True

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


class NoSuchBucket(OriginRefused):
    """S3's 404 for a bucket that does not exist. It is no absence of an object."""


class OriginServerError(OriginUnavailable):
    """The origin sent a 5xx. `retry_after` is its Retry-After in seconds, or None without one."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OriginOverloaded(OriginServerError):
    """The origin sent a 503: it cannot serve at the moment."""


class OriginThrottled(OriginOverloaded):
    """S3 asks for fewer requests (SlowDown and the like), or our own pace for a bucket allows none soon enough."""


class InvalidOriginResponse(OriginServerError):
    """The response does not fit the request, or is not from S3. It does not show the origin's load."""


class RangeIgnored(InvalidOriginResponse):
    """The origin sent the whole object for a range that begins later. It may be requested from its first byte."""

    is_final = True


class AmbiguousPart(InvalidOriginResponse):
    """A part of the object, or perhaps all of it: a 200 with Content-Range, or a 206 without the complete length.

    The response to the same request without Range is not ambiguous.
    """


class OriginCircuitOpen(OriginUnavailable):
    """The circuit breaker refused the request. A retry may pass after `retry_after` seconds."""

    is_final = True

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OriginTimeout(OriginUnavailable):
    """The origin did not respond within its deadline."""


class OriginBusy(OriginTimeout):
    """None of our connections to the origin came free within the deadline. It does not show the origin's health."""


class BodyTruncated(OriginUnavailable):
    """The origin's body ended before its declared length."""


class StoreError(ProxyError):
    """The cache folder or its disk failed. Requests continue uncached."""


class StoreFull(StoreError):
    """There is no space within `max_size` and `min_free`, and no entry that may be evicted."""


class ObjectTooLarge(StoreFull):
    """An object is larger than the whole cache."""


class DiskFull(StoreError):
    """The file system refused bytes or a file: it is full, has no inode left, or a quota is used up."""


class IndexTooNew(StoreError):
    """A newer bucketfront wrote the cache's index. It is left untouched, and the start fails."""


class CacheInUse(StoreError):
    """Another process has this cache folder open. `process` is its id, None if it is unknown."""

    process: int | None = None


class AdminFailed(ProxyError):
    """A command got no response from the admin port of the running proxy, or only a part of one."""


_UNAUTHORIZED = (
    "\nThe proxy runs with another admin.token than this command has. If the configuration has a new one, let the proxy"
    " read it by SIGHUP, or run the command with the old one in BUCKETFRONT_ADMIN__TOKEN"
)


class AdminRefused(AdminFailed):
    """The admin port refused the request of a command, with this status and body."""

    def __init__(self, url: str, status: int, body: bytes) -> None:
        shown = body[:500].decode(errors="replace").strip()
        super().__init__(f"{url} answered {status}: {shown}{_UNAUTHORIZED if status == 401 else ''}")
        self.status = status
        self.body = body
