"""Find out what our credentials may do with a bucket, by requests that leave nothing behind. For `bucketfront check`.

Each probe is the operation that the server itself uses, on a key that does not exist.
"""

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from botocore.exceptions import ClientError
from ulid import ULID

from bucketfront.cache import NotModified
from bucketfront.errors import AccessDenied, ObjectNotFound, OriginError, RangeUnsatisfiable
from bucketfront.http import dates
from bucketfront.http.ranges import FromTo
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3 import responses
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.multipart import Multipart
from bucketfront.s3.upload.params import create_params

# "User: … is not authorized to perform: s3:GetObject on resource: …" (IAM User Guide, access denied error messages)
_ACTION = re.compile(r"not authorized to perform: ([A-Za-z0-9-]{1,32}:[A-Za-z]{1,64})\b")
_ENDPOINT = re.compile(r"[A-Za-z0-9.-]{1,255}")


class ReadAccess(Enum):
    """Whether s3:GetObject is allowed for the keys of a prefix."""

    GRANTED = "granted"
    GRANTED_UNLISTED = "granted, and absent objects cannot be told from denied ones"
    DENIED = "denied"
    UNKNOWN = "unknown"  # S3 hides whether a denied object exists
    NOT_S3 = "not S3"  # an object came for a key that no object has


class DeleteAccess(Enum):
    """Whether s3:DeleteObject is allowed for the keys of a prefix."""

    GRANTED = "granted"
    UNKNOWN = "unknown"  # the probe would leave a delete marker in a bucket with versions


@dataclass(frozen=True, slots=True)
class Clue:
    """What an error response has beyond its code. Absent texts are empty.

    `action` is the permission that is missing, `endpoint` the host that has the bucket. `is_page` is true for HTML,
    which S3 never sends. `clock_ahead` is by how many seconds our clock is ahead of the origin's, None if unknown.
    """

    action: str = ""
    endpoint: str = ""
    is_page: bool = False
    clock_ahead: float | None = None


def absent_key(bucket: str, prefix: str) -> ObjectKey:
    """Return a key below the prefix that no object has."""
    return ObjectKey(bucket, f"{prefix}bucketfront-check-{ULID()}")


async def probe_read(origin: S3Origin, bucket: str, prefix: str) -> ReadAccess:
    """Get an object that does not exist. Raises OriginErrors other than those that show the access.

    S3 sends 404 for it if s3:GetObject and s3:ListBucket are allowed. Without s3:ListBucket it sends 403, whether
    s3:GetObject is allowed or not.
    """
    try:
        await _get(origin, absent_key(bucket, prefix))
    except ObjectNotFound:
        return ReadAccess.GRANTED
    except AccessDenied as error:
        match clue(error).action:
            case "s3:ListBucket":
                return ReadAccess.GRANTED_UNLISTED
            case "":
                return await _probe_listed(origin, bucket, prefix)
            case _:
                return ReadAccess.DENIED
    return ReadAccess.NOT_S3


async def _probe_listed(origin: S3Origin, bucket: str, prefix: str) -> ReadAccess:
    """Return what a list shows: if S3 allows one and denies an absent object, it denies s3:GetObject."""
    params = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": 1}
    try:
        await origin.calls.make(f"LIST {bucket}", origin.client.list_objects_v2, params)
    except OriginError:
        return ReadAccess.UNKNOWN
    return ReadAccess.DENIED


async def is_readable(origin: S3Origin, key: ObjectKey) -> bool:
    """Return whether S3 sends an object that may exist."""
    try:
        await _get(origin, key)
    except (AccessDenied, ObjectNotFound):
        return False
    return True


async def _get(origin: S3Origin, key: ObjectKey) -> None:
    """Get the first byte of an object, as the server does. An empty object is one as well. Raises OriginErrors."""
    with suppress(RangeUnsatisfiable):
        response = await origin.get(key, FromTo(0, 1))
        assert not isinstance(response, NotModified)
        response.body.close()


async def probe_multipart(origin: S3Origin, bucket: str, prefix: str) -> Multipart:
    """Begin a multipart upload without parts, which takes s3:PutObject. The caller aborts it. Raises OriginErrors."""
    return await Multipart.begin(origin, absent_key(bucket, prefix), create_params(WriteHead()))


async def probe_delete(origin: S3Origin, bucket: str, prefix: str) -> DeleteAccess:
    """Delete an object that does not exist, unless the bucket may have versions. Raises OriginErrors."""
    try:
        versioning = await origin.calls.make(
            f"VERSIONING {bucket}", origin.client.get_bucket_versioning, {"Bucket": bucket}
        )
    except OriginError:
        return DeleteAccess.UNKNOWN
    if versioning.get("Status"):
        return DeleteAccess.UNKNOWN
    await origin.delete(absent_key(bucket, prefix))
    return DeleteAccess.GRANTED


def clue(error: OriginError) -> Clue:
    """Return what the error response has beyond its code."""
    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return Clue()
    body: Any = cause.response.get("Error", {})
    headers = cause.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    action = _ACTION.search(str(body.get("Message", "")))
    endpoint = str(body.get("Endpoint", ""))
    return Clue(
        action=action[1] if action else "",
        endpoint=endpoint if _ENDPOINT.fullmatch(endpoint) else "",
        is_page=responses.media_type(headers) in responses.HTML_TYPES,
        clock_ahead=_clock_ahead(headers.get("date", "")),
    )


def _clock_ahead(date: str) -> float | None:
    now = time.time()
    sent = dates.parse(date, now)
    return None if sent is None else now - sent
