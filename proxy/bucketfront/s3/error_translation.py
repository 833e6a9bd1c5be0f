"""The errors of botocore and aiohttp as bucketfront's, in the one module that knows both.

The messages have S3's error code and the key. They never have a signature, a credential or a URL with a query
(docs/invariants.md#secrets-stay-in).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    DeleteMarker,
    InvalidOriginResponse,
    NoSuchUpload,
    NoSuchVersion,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    OriginServerError,
    OriginTimeout,
    OriginUnavailable,
    PreconditionFailed,
    RangeUnsatisfiable,
    WriteConflict,
    WriteRefused,
)
from bucketfront.http import ranges
from bucketfront.s3 import responses

# S3 API, "Error responses".
_ABSENT = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion"})
# S3 API, "Common response headers". A load balancer or a proxy in front of S3 sends none of them with its own pages.
_S3_HEADERS = ("x-amz-request-id", "x-amz-id-2", "x-amz-bucket-region", "x-amz-version-id", "x-amz-delete-marker")
_XML = ("application/xml", "text/xml")
_READS = frozenset({"GetObject", "HeadObject", "HeadBucket", "ListObjectsV2"})
_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound)
_RETRY_AFTER_S = range(1, 61)  # a longer one would keep an origin out of use for too long if it is an error
_NO_PARAMS: Mapping[str, Any] = {}
_TIMEOUTS = (ConnectTimeoutError, ReadTimeoutError, aiohttp.ServerTimeoutError, TimeoutError)


class VersionUnchanged(Exception):
    """S3's 304. `headers` have names in lower case. It never leaves `s3/`, because the client returns NotModified."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__()
        self.headers = headers


class UnprovenAbsence(InvalidOriginResponse):
    """A 404 to HEAD without a header of S3, so that it may be a load balancer's. The client sends a GET then."""


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
        raise OriginUnavailable(
            f"{what}: no usable credentials ({type(error).__name__}); see origin.credentials"
        ) from error
    except _TIMEOUTS as error:
        raise OriginTimeout(f"{what}: the origin did not answer in time ({type(error).__name__})") from error
    except ParamValidationError as error:
        raise WriteRefused(f"{what}: a header or the key holds what S3 does not take") from error
    except (ResponseParserError, ValueError) as error:
        # The ValueError is botocore's, which parses every header that it knows, needed or not.
        raise InvalidOriginResponse(f"{what}: {type(error).__name__}") from error
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:
        kind = InvalidOriginResponse if _is_invalid_head(error) else OriginUnavailable
        raise kind(f"{what}: {type(error).__name__}") from error


def _is_invalid_head(error: Exception) -> bool:
    """Return whether a response came, and aiohttp or aiobotocore could not parse its head."""
    return isinstance(error, HTTPClientError) and isinstance(
        error.kwargs.get("error"), aiohttp.ClientResponseError | ValueError
    )


def _from_status(what: str, error: ClientError, params: Mapping[str, Any]) -> OriginError | VersionUnchanged:  # noqa: C901, PLR0911, PLR0912 - a table
    response = error.response.get("ResponseMetadata", {})
    status, headers = response.get("HTTPStatusCode", 0), response.get("HTTPHeaders", {})
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = f"{what}: the origin answered {status} {code}"
    if "VersionId" in params and (fault := _version_error(message, status, code, headers)) is not None:
        return fault
    match status:
        case 304 if "IfNoneMatch" in params and error.operation_name in _READS:
            return VersionUnchanged(headers)
        case 404 if code in _ABSENT or (code == "404" and _may_be_from_s3(what, error)):
            return ObjectNotFound(message)
        case 404 if what.startswith("HEAD "):
            return UnprovenAbsence(message)
        case 404 if code == "NoSuchUpload" and error.operation_name not in _READS:
            return NoSuchUpload(message)
        case 401 | 403:
            return AccessDenied(message)
        case 412 if error.operation_name not in _READS:
            return PreconditionFailed(message)
        case 412 if "IfMatch" in params:
            return ObjectChanged(message)
        case 409 if code == "ConditionalRequestConflict":
            return WriteConflict(message)
        case 416 if responses.is_unsatisfiable(headers, ranges.requested(params.get("Range"))):
            return RangeUnsatisfiable(message)
        case 400 | 409 | 411 | 413 | 501 if error.operation_name not in _READS:
            return WriteRefused(message)
        case 301 | 302 | 307 | 308:
            return InvalidOriginResponse(f"{message}; the bucket lives elsewhere: see origin.region and endpoint_url")
        case _:
            return (
                OriginServerError(message, _retry_after(headers)) if status >= 500 else InvalidOriginResponse(message)
            )


def _version_error(message: str, status: int, code: str, headers: Mapping[str, str]) -> OriginError | None:
    """Return the error of a GetObject or HeadObject whose versionId is the reason, or None.

    A response to HEAD has no body, so its status is all that botocore has for a code.
    """
    if status == 400 and code in ("InvalidArgument", "400"):
        return NoSuchVersion(f"{message}; the version id is malformed")
    if status == 405 and (code == "MethodNotAllowed" or headers.get("x-amz-delete-marker") == "true"):
        return DeleteMarker(f"{message}; the version is a delete marker")
    return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return Retry-After in seconds (RFC 9110 section 10.2.3), or None. S3 sends it with some 503 responses."""
    text = headers.get("retry-after", "")
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    return float(seconds) if seconds in _RETRY_AFTER_S else None


def _may_be_from_s3(what: str, error: ClientError) -> bool:
    """Return whether S3 sent a 404 in which botocore found no code, and which it so named by its status.

    A response to HEAD has no body, but S3's headers may show it. The others repeat the key, and XML cannot represent
    all control characters.
    """
    headers = error.response["ResponseMetadata"]["HTTPHeaders"]
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if what.startswith("HEAD "):
        return media_type in ("", *_XML) and any(name in headers for name in _S3_HEADERS)
    return media_type in _XML and headers.get("content-length") != "0"
