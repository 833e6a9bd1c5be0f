"""Maps exceptions to error responses, in one table.

The client gets the kind of the failure, and the log its details (docs/invariants.md#secrets-stay-in).
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from aiohttp import hdrs, web

from bucketfront.errors import (
    AccessDenied,
    AccessUnavailable,
    BadPath,
    BodyTooLarge,
    ContentMismatch,
    DeleteMarker,
    ErrorResponse,
    Forbidden,
    NoShare,
    NoSuchMount,
    NoSuchUpload,
    NoSuchVersion,
    NotCached,
    ObjectArchived,
    ObjectChanged,
    ObjectEncrypted,
    ObjectNotFound,
    OriginBusy,
    OriginCircuitOpen,
    OriginError,
    OriginOverloaded,
    OriginRefused,
    OriginServerError,
    OriginThrottled,
    OriginTimeout,
    OriginUnavailable,
    PreconditionFailed,
    ProxyError,
    RequestRefused,
    ShareUsedUp,
    StoreError,
    StoreFull,
    WholeUsedUp,
    WriteConflict,
    WriteRefused,
)
from bucketfront.http import negotiation, s3_requests
from bucketfront.http.aws_chunked import BadChunks, BadTrailer
from bucketfront.http.body_checksums import ChecksumMismatch
from bucketfront.http.cache_status import CacheStatus, Detail, Forward
from bucketfront.http.delete_objects import MalformedXml, MissingChecksum, NotXml
from bucketfront.http.multipart_form import BadForm, FormWithoutFile
from bucketfront.http.query import BadQuery, NoSuchOperation, QueryTooLong
from bucketfront.http.s3_refusal import S3Refused
from bucketfront.http.s3_requests import Dialect
from bucketfront.http.tus_fields import (
    CHECKSUM_MISMATCH,
    VERSION,
    BadUploadHead,
    TusChecksumMismatch,
    WrongBodyType,
    WrongVersion,
)
from bucketfront.http.write_head import BadMd5, BadWriteHead, NoSuchWrite
from bucketfront.server.access.access import Unauthenticated
from bucketfront.server.foreign_pages import ForeignPage
from bucketfront.server.host_names import UnknownHost
from bucketfront.server.http1.framing import BadFraming
from bucketfront.server.router import MethodNotAllowed
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.tus.refusals import TakenOver, UnknownUpload, UploadBusy, UploadLost


class LengthRequired(ProxyError):
    """A write has neither Content-Length nor Transfer-Encoding (RFC 9110 section 15.5.12)."""


class TooLarge(ProxyError):
    """The body is larger than `uploads.max_size`."""


class NotSupported(ProxyError):
    """A request needs a feature of S3 that is not implemented here."""


class LoopDetected(ProxyError):
    """A request comes back to a proxy that has sent it (RFC 5842 section 7.2)."""


class SlowClient(ProxyError):
    """A client sends less than the minimum rate."""


class PartlyStored(ProxyError):
    """A form failed after its first files were stored. `cause` is the reason, and `stored` describes those files."""

    def __init__(self, cause: ProxyError, stored: Sequence[Mapping[str, str]]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.stored = stored


class OffsetConflict(ProxyError):
    """Bytes came for another offset of a resumable upload than its current one."""


# The first row that fits counts. Without a message, the client gets the exception's own text, which holds only what
# the client sent.
_TABLE: tuple[tuple[type[ProxyError], int, str | None], ...] = (
    (BadPath, 400, None),
    (QueryTooLong, 414, None),
    (BadQuery, 400, None),
    (BadWriteHead, 400, None),
    (BadForm, 400, None),
    (FormWithoutFile, 415, None),
    (MalformedXml, 400, None),
    (NotXml, 415, None),
    (MissingChecksum, 400, None),
    (ChecksumMismatch, 400, None),
    (BadChunks, 400, None),
    (NoSuchMount, 404, None),
    (LoopDetected, 508, None),
    (ForeignPage, 403, None),
    (UnknownHost, 421, None),
    (MethodNotAllowed, 405, None),
    (Unauthenticated, 401, None),
    (Forbidden, 403, None),
    (AccessUnavailable, 503, "it cannot be decided at the moment whether you may do this"),
    (LengthRequired, 411, None),
    (TooLarge, 413, None),
    (NotSupported, 501, None),
    (NoSuchWrite, 501, None),
    (NoSuchOperation, 501, None),
    (SlowClient, 408, None),
    (BadUploadHead, 400, None),
    (TusChecksumMismatch, CHECKSUM_MISMATCH, None),
    (WrongVersion, 412, None),
    (WrongBodyType, 415, None),
    (OffsetConflict, 409, None),
    (UnknownUpload, 404, None),
    (UploadBusy, 423, None),
    (TakenOver, 409, None),
    (UploadLost, 410, None),
    (ShareUsedUp, 429, None),
    (WholeUsedUp, 503, None),
    (ObjectNotFound, 404, "no such object"),
    (NoSuchVersion, 400, "versionId is malformed"),
    (DeleteMarker, 405, "this version is a delete marker"),
    (ObjectArchived, 403, "the object is archived, and must be restored before it can be read"),
    (ObjectEncrypted, 403, "the object is encrypted with a key of its owner (SSE-C), which is not supported"),
    (AccessDenied, 403, "the origin denied access"),
    (NotCached, 504, "not in the cache, and the request says only-if-cached"),
    (OriginCircuitOpen, 503, "the origin is out of reach"),
    (OriginBusy, 503, "all connections to the origin are in use"),
    (OriginThrottled, 503, "the origin asks for fewer requests"),
    (OriginOverloaded, 503, "the origin cannot serve at the moment"),
    (OriginTimeout, 504, "the origin did not answer in time"),
    (OriginRefused, 502, "the origin refuses requests of the proxy itself; its log has the reason"),
    (OriginUnavailable, 502, "the origin is unavailable"),
    (ContentMismatch, 502, "the origin's bytes are not what its own checksum says"),
    (ObjectChanged, 502, "the object keeps changing at the origin"),
    (NoSuchUpload, 502, "the origin has lost the upload; send it again"),
    (BodyTooLarge, 413, "the origin does not accept so large a body"),
    (PreconditionFailed, 412, "the condition of the write does not hold"),
    (WriteConflict, 409, "another write of the object came in between; try again"),
    (WriteRefused, 400, "the origin refused the write"),
    (RequestRefused, 400, "the origin does not allow such a key"),
    (StoreFull, 503, "there is no room for more of an upload to wait in; try again"),
    (StoreError, 500, "the cache's disk failed"),
    (ProxyError, 502, "the origin failed"),
)
# The error codes of S3 that do not follow from the status (S3 API, "Error responses"). The first row that fits counts.
_CODES: tuple[tuple[type[ProxyError], str], ...] = (
    (BadPath, "InvalidURI"),
    (QueryTooLong, "InvalidURI"),
    (BadQuery, "InvalidArgument"),
    (BadMd5, "InvalidDigest"),
    (BadWriteHead, "InvalidArgument"),
    (BadForm, "MalformedPOSTRequest"),
    (MalformedXml, "MalformedXML"),
    (MissingChecksum, "InvalidRequest"),
    (ChecksumMismatch, "BadDigest"),
    (BadTrailer, "MalformedTrailerError"),
    (BadChunks, "IncompleteBody"),
    (NoSuchMount, "NoSuchBucket"),
    (Forbidden, "AccessDenied"),
    (AccessUnavailable, "ServiceUnavailable"),
    (SlowClient, "RequestTimeout"),
    (UnknownUpload, "NoSuchUpload"),
    (UploadLost, "NoSuchUpload"),
    (NoShare, "SlowDown"),
    (NoSuchVersion, "InvalidArgument"),
    (ObjectArchived, "InvalidObjectState"),
    (ObjectEncrypted, "InvalidRequest"),
    (OriginThrottled, "SlowDown"),
    (WriteConflict, "ConditionalRequestConflict"),
    (StoreFull, "SlowDown"),
)
_RETRY_AFTER_S = 1  # the proxy's own retries have been tried by then

_PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{phrase}</title>
<h1>{phrase}</h1>
<p>{message}</p>
</html>
"""

# After these errors the rest of a body may follow on the connection, or the framing is unknown.
_CLOSING = (BadFraming, QueryTooLong, LengthRequired, TooLarge, NotSupported, NoSuchWrite, SlowClient)


def status_of(error: ProxyError) -> int:
    return _row(error)[0]


def response_to(error: ProxyError, exchange: Exchange) -> web.Response:
    """Return the response to a request that failed with `error` before a byte of a response was sent."""
    if isinstance(error, PartlyStored):
        return _response_to(error.cause, exchange, {"stored": error.stored})
    return _response_to(error, exchange, {})


def _response_to(error: ProxyError, exchange: Exchange, details: Mapping[str, object]) -> web.Response:
    status, message = _row(error)
    headers = dict[str, str]()
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = ", ".join(error.challenges)
    if isinstance(error, DeleteMarker):
        headers["Allow"] = ""  # RFC 9110 section 10.2.1: no method is allowed at present
    if isinstance(error, OriginError) and status in (502, 503, 504):
        wait = error.retry_after if isinstance(error, OriginCircuitOpen | OriginServerError) else None
        headers["Retry-After"] = str(max(1, math.ceil(wait or _RETRY_AFTER_S)))
    if isinstance(error, StoreFull | NoShare | AccessUnavailable):
        headers["Retry-After"] = str(_RETRY_AFTER_S)
    if isinstance(error, WrongVersion):
        headers["Tus-Version"] = VERSION
    response = error_response(exchange, status, message or str(error), headers, details, _code(error))
    if isinstance(error, _CLOSING):
        response.force_close()
    return response


def _code(error: ProxyError) -> str | None:
    """Return S3's code of the error, or None if it follows from the status."""
    if isinstance(error, S3Refused):
        return error.refusal.value
    return next((code for kind, code in _CODES if isinstance(error, kind)), None)


def _row(error: ProxyError) -> tuple[int, str | None]:
    if isinstance(error, BadFraming):
        return error.status, None
    if isinstance(error, S3Refused):
        return error.refusal.status, None
    return next((status, text) for kind, status, text in _TABLE if isinstance(error, kind))


def cache_status(error: ProxyError, method: str) -> CacheStatus:
    """Return what the cache did with a request of `method` that failed with `error`."""
    match error.cause if isinstance(error, PartlyStored) else error:
        case OriginCircuitOpen() as failed:
            return CacheStatus(_forward(failed, method), detail=Detail.OUTAGE)
        case OriginUnavailable() | ObjectChanged() as failed:
            return CacheStatus(_forward(failed, method), fwd_status=failed.status, detail=Detail.ORIGIN_UNAVAILABLE)
        case OriginError(response=ErrorResponse(status=status)) as failed:
            return CacheStatus(_forward(failed, method), fwd_status=status)
        case _:
            return CacheStatus(Forward.BYPASS, detail=Detail.REFUSED)


def _forward(error: OriginError, method: str) -> Forward:
    if method not in (hdrs.METH_GET, hdrs.METH_HEAD):
        return Forward.METHOD
    return Forward(error.forward)


def error_response(
    exchange: Exchange,
    status: int,
    message: str,
    extra: Mapping[str, str] | None = None,
    details: Mapping[str, object] | None = None,
    code: str | None = None,
) -> web.Response:
    """Return XML for clients of S3, else JSON for programs or a short page for people.

    The request's Accept decides between the latter two (RFC 9110 section 12.5.1). `extra` are further headers, and
    `details` are further members of the JSON. `code` is S3's, and None if it follows from the status.
    """
    headers = exchange.headers()
    headers.update(extra or {})
    if exchange.dialect is Dialect.S3:
        headers.update(exchange.s3_fields())
        content_type, raw_target = "application/xml", exchange.request.raw_path
        is_version = exchange.key is not None and exchange.key.version is not None
        known = code or ("NoSuchVersion" if status == 404 and is_version else s3_requests.error_code(status))
        body = s3_requests.error_document(known, message, raw_target, headers[s3_requests.REQUEST_ID])
    # A page has no place for details, so a response with details is always JSON.
    elif not details and negotiation.prefers_html(exchange.request.headers.get(hdrs.ACCEPT)):
        content_type = "text/html; charset=utf-8"
        words = "Checksum Mismatch" if status == CHECKSUM_MISMATCH else HTTPStatus(status).phrase
        phrase = html.escape(f"{status} {words}")
        body = _PAGE.format(phrase=phrase, message=html.escape(message)).encode()
    else:
        content_type = "application/json"
        body = json.dumps({"error": message, **(details or {})}, ensure_ascii=False).encode() + b"\n"
    headers[hdrs.CONTENT_TYPE] = content_type
    headers[hdrs.CACHE_CONTROL] = "no-store"
    headers.add(hdrs.VARY, hdrs.ACCEPT)
    return web.Response(status=status, body=body, headers=headers)
