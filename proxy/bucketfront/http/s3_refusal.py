"""Refusals of the S3 endpoint, each with the error code and the status of S3 (S3 API, "Error responses")."""

from enum import Enum

from bucketfront.errors import ProxyError


class Refusal(Enum):
    """Why a request is refused, by the code of S3."""

    MISSING = "MissingSecurityHeader"
    MALFORMED_HEADER = "AuthorizationHeaderMalformed"
    MALFORMED_QUERY = "AuthorizationQueryParametersError"
    UNKNOWN_KEY = "InvalidAccessKeyId"
    UNKNOWN_TOKEN = "InvalidToken"  # noqa: S105 - a code of S3, and no secret
    MISMATCH = "SignatureDoesNotMatch"
    SKEWED = "RequestTimeTooSkewed"
    DENIED = "AccessDenied"
    INVALID = "InvalidRequest"
    INVALID_ARGUMENT = "InvalidArgument"
    BODY = "XAmzContentSHA256Mismatch"
    INVALID_BUCKET = "InvalidBucketName"
    NO_SUCH_BUCKET = "NoSuchBucket"
    NOT_ALLOWED = "MethodNotAllowed"
    NOT_IMPLEMENTED = "NotImplemented"

    @property
    def status(self) -> int:
        """Return the status that S3 sends with the code."""
        return _STATUSES.get(self, 400)


_STATUSES = {
    Refusal.UNKNOWN_KEY: 403,
    Refusal.MISMATCH: 403,
    Refusal.SKEWED: 403,
    Refusal.DENIED: 403,
    Refusal.NO_SUCH_BUCKET: 404,
    Refusal.NOT_ALLOWED: 405,
    Refusal.NOT_IMPLEMENTED: 501,
}


class S3Refused(ProxyError):
    """A request that the S3 endpoint refuses in S3's words. The message quotes no secret and no signature."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal
