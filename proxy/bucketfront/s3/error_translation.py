"""The errors of botocore and aiohttp as bucketfront's, in the one module that knows both.

The messages have S3's error code and the key. They never have a signature, a credential or a URL with a query
(docs/invariants.md#secrets-stay-in).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from bucketfront.errors import (
    AccessDenied,
    BodyTooLarge,
    DeleteMarker,
    ErrorResponse,
    Fault,
    InvalidOriginResponse,
    NoSuchBucket,
    NoSuchUpload,
    NoSuchVersion,
    ObjectArchived,
    ObjectChanged,
    ObjectEncrypted,
    ObjectNotFound,
    OriginError,
    OriginOverloaded,
    OriginRefused,
    OriginServerError,
    OriginThrottled,
    OriginTimeout,
    OriginUnavailable,
    PreconditionFailed,
    RangeUnsatisfiable,
    RequestRefused,
    WriteConflict,
    WriteRefused,
)
from bucketfront.http import ranges
from bucketfront.http.key_template import has_dot_segment
from bucketfront.http.response_fields import ResponseFields
from bucketfront.s3 import connection_causes, error_codes, responses

# S3 API, "Common response headers". A load balancer or a proxy in front of S3 sends none of them with its own pages.
_S3_HEADERS = ("x-amz-request-id", "x-amz-id-2", "x-amz-bucket-region", "x-amz-version-id", "x-amz-delete-marker")
_XML = ("application/xml", "text/xml")
_READS = frozenset({"GetObject", "HeadObject", "HeadBucket", "ListObjectsV2"})
_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound)
_RETRY_AFTER_S = range(1, 61)  # a longer one would keep an origin out of use for too long if it is an error
_NO_PARAMS: Mapping[str, Any] = {}
_TIMEOUTS = (ConnectTimeoutError, ReadTimeoutError, aiohttp.ServerTimeoutError, TimeoutError)
_ENCRYPTION = "Server Side Encryption"  # "The object was stored using a form of Server Side Encryption. …"
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,79}")
_CODE_ELEMENT = re.compile(rb"<Code>\s*([A-Za-z][A-Za-z0-9._-]{0,79})\s*</Code>")
_ID = re.compile(r"[\x21-\x7e]{1,200}")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
# Statuses to a HEAD that S3 explains in a body, which the response to a HEAD does not have. Some servers offer no HEAD.
_UNEXPLAINED = frozenset({400, 403, 404, 405, 409, 411, 414, 501})
_REDIRECTS = frozenset({301, 302, 307, 308})
# Statuses that a client's key, query or field can cause, with a code or without. A 404 or 403 without a code is rather
# the page of a load balancer that has no backend.
_MISTAKES = frozenset({400, 405, 409, 411, 413, 414, 431})
_OF_THE_WRITE = frozenset({400, 409, 501})  # statuses with a code of S3 that the client of a write causes


class VersionUnchanged(Exception):
    """S3's 304 with its fields. It never leaves `s3/`, because the client returns NotModified."""

    def __init__(self, headers: ResponseFields) -> None:
        super().__init__()
        self.headers = headers


class UnexplainedRefusal(OriginRefused):
    """A 4xx or 501 that a client's request can cause, and whose code does not show whether it did.

    `mistake` is the error if it did. See `reference`.
    """

    def __init__(self, message: str, mistake: RequestRefused) -> None:
        super().__init__(message, Fault.ORIGIN)
        self.mistake = mistake


class Unexplained(InvalidOriginResponse):
    """A refusal of HEAD: without a body, S3's code for the reason is unknown. A GET may show it."""

    is_final = True


def is_unchanged(status: int, params: Mapping[str, Any]) -> bool:
    """Return whether the status of a read confirms the version in its If-None-Match."""
    return status == 304 and "IfNoneMatch" in params


@contextmanager
def translated(what: str, params: Mapping[str, Any] = _NO_PARAMS) -> Iterator[None]:
    """Run one call to S3, and raise its errors as bucketfront's.

    `what` names the call in messages, as in `GET bucket/key`. `params` are those of the call. An error status of a read
    must fit them: a 304 needs If-None-Match, a 412 needs If-Match, and a 416 needs a Range.
    """
    try:
        yield
    except ClientError as error:
        raise _from_status(what, error, params) from error
    except _CREDENTIALS as error:
        message = f"{what}: no usable credentials ({type(error).__name__}); see origin.credentials"
        raise OriginRefused(message, Fault.CREDENTIALS) from error
    except _TIMEOUTS as error:
        raise OriginTimeout(f"{what}: {connection_causes.described(error)}") from error
    except ParamValidationError as error:
        raise WriteRefused(f"{what}: a header or the key holds what S3 does not take") from error
    except (ResponseParserError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The last four are botocore's, which expects flat XML.
        raise InvalidOriginResponse(f"{what}: {type(error).__name__}") from error
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:
        kind = InvalidOriginResponse if _is_invalid_head(error) else OriginUnavailable
        raise kind(f"{what}: {connection_causes.described(error)}") from error


def _is_invalid_head(error: Exception) -> bool:
    """Return whether a response came, and aiohttp or aiobotocore could not parse its head."""
    return isinstance(error, HTTPClientError) and isinstance(
        error.kwargs.get("error"), aiohttp.ClientResponseError | ValueError
    )


def _from_status(what: str, error: ClientError, params: Mapping[str, Any]) -> OriginError | VersionUnchanged:
    details = error.response.get("ResponseMetadata", {})
    headers = details.get("HTTPHeaders", ResponseFields(()))
    response = _response(error, details, headers)
    sent = replace(response, status=details.get("SentStatus", response.status))
    is_read = error.operation_name in _READS
    if is_read and is_unchanged(response.status, params):
        return VersionUnchanged(headers)
    message = f"{what}: {_as_text(sent)}"
    found = _fact(message, response, headers, params, is_read=is_read)
    if found is None and is_read and _names_encryption(error, response):
        found = ObjectEncrypted(f"{message}; the object is encrypted with a key of its owner (SSE-C)")
    # botocore takes the status for the code of a response in which it found none.
    has_no_code = error.response.get("Error", {}).get("Code") == str(response.status)
    if found is None and has_no_code and error.operation_name.startswith("Head"):
        found = _unexplained(message, error.operation_name, response, headers)
    if found is None and _refuses_dots(response, params, is_read=is_read):
        found = (RequestRefused if is_read else WriteRefused)(f"{message}; the origin takes no key with dot segments")
    if found is None:
        found = _fault(message, response, headers, params, is_read=is_read)
    found.response = sent
    return found


def error_of_forwarded(what: str, sent: ErrorResponse, headers: ResponseFields, *, is_read: bool) -> OriginError:
    """Return the error of a response to a request that a client of S3 has made.

    It is an OriginUnavailable if our credentials, clock or settings caused it, or the origin or what is before it. Any
    other error means that the client may get the response as it is.
    """
    message = f"{what}: {_as_text(sent)}"
    meaning = error_codes.meaning(sent.code, sent.status, is_read=is_read)
    if sent.code and error_codes.is_chosen_by_client(sent.code, sent.status):
        found: OriginError = RequestRefused(message)
    elif meaning is not None or not sent.code:
        found = _fault(message, sent, headers, _NO_PARAMS, is_read=is_read)
    elif sent.code in ("NoSuchKey", "NoSuchVersion"):
        found = ObjectNotFound(message)
    else:
        found = (AccessDenied if sent.status == 403 else RequestRefused)(message)
    found.response = sent
    return found


def code_in(body: bytes) -> str:
    """Return S3's code in the body of an error response, or "" without one."""
    at = body.find(b"<Error")
    found = _CODE_ELEMENT.search(body, at) if at >= 0 else None
    return "" if found is None else found[1].decode()


def _as_text(sent: ErrorResponse) -> str:
    if sent.status < 300:
        return f"the origin answered {sent.status} with the error {sent.code or 'of an unknown code'}"
    return f"the origin answered {sent.status} {sent.code}".rstrip()


def _response(error: ClientError, details: Mapping[str, Any], headers: Mapping[str, str]) -> ErrorResponse:
    """Return the facts that the response has, with the status that botocore gives it: 500 for an error inside a 200.

    A text of another form than S3's is dropped, since it goes into logs.
    """
    body = error.response.get("Error", {})
    return facts_of(details.get("HTTPStatusCode", 0), headers, body.get("Code"), body.get("Region"))


def facts_of(status: int, headers: Mapping[str, str], code: object, region: object = None) -> ErrorResponse:
    """Return the facts of an error response. `code` and `region` are those in its body, if it has any."""

    def text(pattern: re.Pattern[str], *found: object) -> str:
        return next((value for value in found if isinstance(value, str) and pattern.fullmatch(value)), "")

    return ErrorResponse(
        status=status,
        code=text(_CODE, code),
        request_id=text(_ID, headers.get("x-amz-request-id")),
        host_id=text(_ID, headers.get("x-amz-id-2")),
        region=text(_REGION, headers.get("x-amz-bucket-region"), region),
    )


def _fact(  # noqa: PLR0911 - a table
    message: str, response: ErrorResponse, headers: Mapping[str, str], params: Mapping[str, Any], *, is_read: bool
) -> OriginError | None:
    """Return the error of a response that states a fact about the object or the upload, or None.

    A 304, 412 or 416 must fit the request.
    """
    match response.status:
        case 400 if "VersionId" in params and response.code == "InvalidArgument":
            return NoSuchVersion(f"{message}; the version id is malformed")
        case 405 if "VersionId" in params and (
            response.code == "MethodNotAllowed" or headers.get("x-amz-delete-marker") == "true"
        ):
            return DeleteMarker(f"{message}; the version is a delete marker")
        case 404 if response.code in ("NoSuchKey", "NoSuchVersion"):
            return ObjectNotFound(message)
        case 404 if response.code == "NoSuchUpload" and not is_read:
            return NoSuchUpload(message)
        case 409 if response.code in ("ConditionalRequestConflict", "OperationAborted") and not is_read:
            return WriteConflict(message)
        case 412 if not is_read and ("IfMatch" in params or "IfNoneMatch" in params):
            return PreconditionFailed(message)
        case 412 if is_read and "IfMatch" in params:
            return ObjectChanged(message)
        case 416 if responses.is_unsatisfiable(headers, ranges.requested(params.get("Range"))):
            return RangeUnsatisfiable(message)
        case 304 | 412 | 416:
            return InvalidOriginResponse(message)
    return None


def _refuses_dots(response: ErrorResponse, params: Mapping[str, Any], *, is_read: bool) -> bool:
    """Return whether the origin refuses a key because it has segments "." or "..".

    There is no code of S3 for that. Some servers redirect to the path without them, as web servers do.
    """
    if not has_dot_segment(str(params.get("Key", ""))):
        return False
    if response.status in _REDIRECTS:
        return not response.code
    return response.status == 400 and error_codes.meaning(response.code, response.status, is_read=is_read) is None


def _names_encryption(error: ClientError, response: ErrorResponse) -> bool:
    """Return whether a read lacks the key of an object with SSE-C. S3 has no code of its own for that."""
    text = str(error.response.get("Error", {}).get("Message", ""))
    return response.status == 400 and response.code == "InvalidRequest" and _ENCRYPTION in text


def _unexplained(
    message: str, operation: str, response: ErrorResponse, headers: Mapping[str, str]
) -> OriginError | None:
    if response.status not in _UNEXPLAINED:
        return None
    is_from_s3 = any(name in headers for name in _S3_HEADERS) and responses.media_type(headers) in ("", *_XML)
    if operation == "HeadBucket" and response.status == 404 and is_from_s3:
        return NoSuchBucket(message, Fault.CONFIGURATION)
    return Unexplained(message)


def _fault(
    message: str, response: ErrorResponse, headers: Mapping[str, str], params: Mapping[str, Any], *, is_read: bool
) -> OriginError:
    """Return the error by whose fault it is, see `error_codes`."""
    meaning = error_codes.meaning(response.code, response.status, is_read=is_read)
    if meaning is None:
        return _unknown(message, response, params, is_read=is_read)
    if meaning.cure:
        message = f"{message}; {meaning.cure}"
    if response.region and meaning.fault is Fault.CONFIGURATION:
        message = f"{message}; the bucket's region is {response.region}"
    match meaning.fault:
        case Fault.OBJECT:
            return ObjectArchived(message) if response.code == "InvalidObjectState" else AccessDenied(message)
        case Fault.REQUEST:
            kind = BodyTooLarge if response.code == "EntityTooLarge" else WriteRefused
            return RequestRefused(message) if is_read else kind(message)
        case Fault.LOAD:
            return OriginThrottled(message, _retry_after(headers))
        case Fault.ORIGIN:
            failure = OriginOverloaded if response.status == 503 else OriginServerError
            return failure(message, _retry_after(headers))
        case fault:
            return NoSuchBucket(message, fault) if response.code == "NoSuchBucket" else OriginRefused(message, fault)


def _unknown(message: str, response: ErrorResponse, params: Mapping[str, Any], *, is_read: bool) -> OriginError:
    """Return the error of a 4xx or 501 with an unknown code, or with none, such as the page of a load balancer."""
    if not is_read and response.status == 413:
        return BodyTooLarge(message)
    if not is_read and response.code and response.status in _OF_THE_WRITE:
        return WriteRefused(message)
    if response.status == 403 and response.code:
        return AccessDenied(message)
    # The cache knows the version that it names in a condition, so its key and its query are no mistake of a client.
    is_known = is_read and ("IfMatch" in params or "IfNoneMatch" in params)
    if is_known or (response.status not in _MISTAKES and (response.status != 501 or not response.code)):
        return OriginRefused(message, Fault.ORIGIN)
    return UnexplainedRefusal(message, RequestRefused(message) if is_read else WriteRefused(message))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return Retry-After in seconds (RFC 9110 section 10.2.3), or None. S3 sends it with some 503 responses."""
    text = headers.get("retry-after", "")
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    return float(seconds) if seconds in _RETRY_AFTER_S else None
