"""The exception tree. No HTTP in it: `proxy/server/failures.py` maps classes to statuses."""


class ProxyError(Exception):
    """Whatever bucketfront raises on purpose."""


class ConfigError(ProxyError):
    """The configuration cannot be used. The message names file, line, key and the cure."""


class BadPath(ProxyError):
    """A request path that names no S3 key."""


class NoSuchMount(ProxyError):
    """A well-formed path below no mount."""


class OriginError(ProxyError):
    """The origin did not give what was asked for."""


class ObjectNotFound(OriginError):
    """S3 answered 404: the object, or its bucket, does not exist."""


class ObjectChanged(OriginError):
    """The version asked for is no longer the current one (S3's 412, or an answer with another ETag)."""


class RangeUnsatisfiable(OriginError):
    """S3 answered 416: no byte of the object lies in the range asked for."""


class AccessDenied(OriginError):
    """S3 answered 401 or 403. Says nothing about whether the object exists."""


class WriteRefused(OriginError):
    """S3 refused a write for a reason of the request's own (400, 409, 411, 412, 413)."""


class OriginUnavailable(OriginError):
    """The origin could not be reached, answered 5xx or something that is not S3."""


class OriginTimeout(OriginUnavailable):
    """The origin did not answer within its deadline."""


class BodyTruncated(OriginUnavailable):
    """The origin's body ended before its declared length."""


class StoreError(ProxyError):
    """The cache folder or its disk failed. Requests go on uncached."""


class StoreFull(StoreError):
    """No room within `max_size` and `min_free`, and nothing left that may be evicted."""


class CacheInUse(StoreError):
    """Another process has this cache folder open."""
