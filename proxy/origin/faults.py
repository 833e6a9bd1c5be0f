"""botocore's and aiohttp's errors -> bucketfront's, in the one place that knows both.

The messages carry S3's error code and the key, never a signature, a credential or a URL with a query (I28).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from proxy.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    OriginTimeout,
    OriginUnavailable,
    RangeUnsatisfiable,
    WriteRefused,
)

# S3 API, "Error responses".
_ABSENT = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion"})
_XML = ("application/xml", "text/xml")
_READS = frozenset({"GetObject", "HeadObject", "HeadBucket"})
_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound)
_TIMEOUTS = (ConnectTimeoutError, ReadTimeoutError, aiohttp.ServerTimeoutError, TimeoutError)


class VersionUnchanged(Exception):
    """S3's 304. It never leaves `proxy/origin/`: the client answers `NotModified` instead."""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run one call to S3; `what` names it in messages, as in `GET bucket/key`."""
    try:
        yield
    except ClientError as error:
        raise _from_status(what, error) from error
    except _CREDENTIALS as error:
        raise OriginUnavailable(
            f"{what}: no usable credentials ({type(error).__name__}); see origin.credentials"
        ) from error
    except _TIMEOUTS as error:
        raise OriginTimeout(f"{what}: the origin did not answer in time ({type(error).__name__})") from error
    except ParamValidationError as error:
        raise WriteRefused(f"{what}: a header or the key holds what S3 does not take") from error
    except (BotoCoreError, ResponseParserError, aiohttp.ClientError, OSError, ValueError) as error:
        # ValueError: botocore reads every header that it has a name for, needed or not.
        raise OriginUnavailable(f"{what}: {type(error).__name__}") from error


def _from_status(what: str, error: ClientError) -> OriginError | VersionUnchanged:  # noqa: PLR0911 - a table
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(error.response.get("Error", {}).get("Code", ""))
    said = f"{what}: the origin answered {status} {code}"
    match status:
        case 304:
            return VersionUnchanged()
        case 404 if code in _ABSENT or (code == "404" and _may_be_s3s(what, error)):
            return ObjectNotFound(said)
        case 401 | 403:
            return AccessDenied(said)
        case 412:
            return ObjectChanged(said)
        case 416:
            return RangeUnsatisfiable(said)
        case 400 | 409 | 411 | 413 | 501 if error.operation_name not in _READS:
            return WriteRefused(said)
        case 301 | 302 | 307 | 308:
            return OriginUnavailable(f"{said}; the bucket lives elsewhere: see origin.region and endpoint_url")
        case _:
            return OriginUnavailable(said)


def _may_be_s3s(what: str, error: ClientError) -> bool:
    """Whether an error that botocore could not read, and so named by its status, may be S3's all the same.

    HEAD has no body to read. Elsewhere S3 repeats the key, and XML has no way to write its control characters.
    """
    media_type = error.response["ResponseMetadata"]["HTTPHeaders"].get("content-type", "")
    return what.startswith("HEAD ") or media_type.partition(";")[0].strip().lower() in _XML
