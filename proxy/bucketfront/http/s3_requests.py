"""Recognise the requests of S3 clients, and write S3's documents for them.

A client of S3 parses each response as S3's own, so the proxy chooses the `Dialect` of a response once, from the head of
the request. The signature itself is not verified.
"""

import html
import re
from collections.abc import Iterable, Mapping
from enum import Enum

# S3 API, "Authenticating Requests": versions 4 and 4A of the signature, and version 2.
_SIGNATURE = re.compile(r"AWS(?:4-[A-Z0-9-]+)? ")
_SIGNED_QUERY = re.compile(r"[?&](?:X-Amz-Algorithm|X-Amz-Signature|AWSAccessKeyId)=")
_AWS_SDK = "amz-sdk-invocation-id"  # in each request of an AWS SDK, also if it is not signed
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 section 2.2
REQUEST_ID = "x-amz-request-id"
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
# S3 API, GetObject: a request with a key has all three.
CUSTOMER_KEY_FIELDS = frozenset(
    f"x-amz-server-side-encryption-customer-{name}" for name in ("algorithm", "key", "key-md5")
)
"""The fields of a request with a key of the client (SSE-C)."""
DIALECT_FIELDS = frozenset({"authorization", _AWS_SDK})
"""The fields that `dialect_of` reads, in lower case."""

_CODES = {
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    409: "OperationAborted",
    411: "MissingContentLength",
    412: "PreconditionFailed",
    413: "EntityTooLarge",
    416: "InvalidRange",
    501: "NotImplemented",
    502: "ServiceUnavailable",
    503: "ServiceUnavailable",
    504: "ServiceUnavailable",
    508: "InvalidRequest",
}


class Dialect(Enum):
    """The form of a response that its client can read."""

    HTTP = "http"
    S3 = "s3"


def dialect_of(fields: Mapping[str, str], raw_target: str) -> Dialect:
    """Return the dialect of a request. `fields` find a name in any case, and `raw_target` is as sent.

    It is that of S3 if the request has a signature of S3, in its fields or its query, or is from an AWS SDK.
    """
    is_s3 = (
        _SIGNATURE.match(fields.get("authorization", "")) is not None
        or _AWS_SDK in fields
        or ("?" in raw_target and _SIGNED_QUERY.search(raw_target) is not None)
    )
    return Dialect.S3 if is_s3 else Dialect.HTTP


def error_code(status: int) -> str:
    """Return the error code of S3 that most errors of this status have (S3 API, "Error responses")."""
    return _CODES.get(status, "InvalidRequest" if status < 500 else "InternalError")


def error_document(code: str, message: str, raw_target: str, request_id: str) -> bytes:
    """Return the body of an error response of S3. `Resource` lacks the query, which may hold a signature."""
    path = raw_target.partition("?")[0].encode("ascii", "replace").decode()
    return _document("Error", Code=code, Message=message, Resource=path, RequestId=request_id)


def post_document(location: str, bucket: str, key: str, etag: str) -> bytes:
    """Return the body of a response with status 201 to a form of S3 (S3 API, "POST Object")."""
    return _document("PostResponse", Location=location, Bucket=bucket, Key=key, ETag=etag)


def buckets_document(owner: str, buckets: Iterable[str]) -> bytes:
    """Return the body of a response to ListBuckets. S3 has the time of creation, which is not known here."""
    listed = "".join(
        f"<Bucket><Name>{_text(name)}</Name><CreationDate>1970-01-01T00:00:00.000Z</CreationDate></Bucket>"
        for name in buckets
    )
    named = f"<Owner><ID>{_text(owner)}</ID><DisplayName>{_text(owner)}</DisplayName></Owner>"
    root = "ListAllMyBucketsResult"
    content = f"{named}<Buckets>{listed}</Buckets>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{NAMESPACE}">{content}</{root}>'.encode()


def _text(value: str) -> str:
    return html.escape(_NO_XML.sub("?", value), quote=False)


def _document(root: str, **members: str) -> bytes:
    content = "".join(f"<{name}>{_text(value)}</{name}>" for name, value in members.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{content}</{root}>'.encode()
