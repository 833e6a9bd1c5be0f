"""The exception tree. No HTTP in it: `server/error_responses.py` maps classes to statuses."""


class ProxyError(Exception):
    """Whatever bucketfront raises on purpose."""


class ConfigError(ProxyError):
    """The configuration cannot be used. The message names file, line, key and the cure."""


class BadPath(ProxyError):
    """A request path that names no S3 key."""


class NoSuchMount(ProxyError):
    """A well-formed path below no mount."""


class NotCached(ProxyError):
    """A client that wanted nothing but what is cached wants what is not."""


class OriginError(ProxyError):
    """The origin did not give what was asked for."""


class ObjectNotFound(OriginError):
    """S3 answered 404: the object, or its bucket, does not exist."""


class ObjectChanged(OriginError):
    """The version asked for is no longer the current one (S3's 412, or an answer with another ETag)."""


class ContentMismatch(ObjectChanged):
    """The origin's bytes are not those that its own checksum of the version speaks of."""


class RangeUnsatisfiable(OriginError):
    """S3 answered 416: no byte of the object lies in the range asked for."""


class AccessDenied(OriginError):
    """S3 answered 401 or 403. Says nothing about whether the object exists."""


class NoSuchVersion(OriginError):
    """S3 answered 400: what was asked for as a version id is none. An id of the right form is ObjectNotFound."""


class DeleteMarker(OriginError):
    """S3 answered 405: the version asked for exists, and says that the object was deleted then."""


class WriteRefused(OriginError):
    """S3 refused a write for a reason of the request's own (400, 409, 411, 412, 413)."""


class PreconditionFailed(WriteRefused):
    """The condition of a write does not hold (S3's 412, or one that can never hold). Nothing was written."""


class WriteConflict(WriteRefused):
    """Another write of the same object got in between (S3's 409, ConditionalRequestConflict). It may be tried again."""


class NoSuchUpload(WriteRefused):
    """S3 knows no such multipart upload: it was completed or aborted, or never begun."""


class OriginUnavailable(OriginError):
    """The origin is out of reach, or (OriginServerError) in reach and of no use."""


class OriginServerError(OriginUnavailable):
    """The origin answered 5xx. `retry_after`: in how many seconds it wants to be asked again, None: it did not say."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidOriginResponse(OriginServerError):
    """The origin answered what is no answer to the question, or not S3. Says nothing about its load."""


class OriginCircuitOpen(OriginUnavailable):
    """The origin has failed so often that it is not asked now. `retry_after`: in how many seconds it may be."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OriginTimeout(OriginUnavailable):
    """The origin did not answer within its deadline."""


class OriginBusy(OriginTimeout):
    """None of our own connections to the origin came free within the deadline. Says nothing about the origin."""


class BodyTruncated(OriginUnavailable):
    """The origin's body ended before its declared length."""


class StoreError(ProxyError):
    """The cache folder or its disk failed. Requests go on uncached."""


class StoreFull(StoreError):
    """No room within `max_size` and `min_free`, and nothing left that may be evicted."""


class IndexTooNew(StoreError):
    """A newer bucketfront wrote the cache's index. It is left untouched, and the start fails."""


class CacheInUse(StoreError):
    """Another process has this cache folder open."""
