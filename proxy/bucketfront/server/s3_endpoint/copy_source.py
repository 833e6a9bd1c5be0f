"""The object that a copy reads: the field `x-amz-copy-source` (S3 API, CopyObject, UploadPartCopy)."""

from bucketfront.config.bucket_name import bucket_name
from bucketfront.errors import BadPath
from bucketfront.http import query
from bucketfront.http.query import BadQuery
from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.keys import ObjectKey, percent_decode, percent_encode, to_key

FIELD = "x-amz-copy-source"

_VERSION = "?versionId="


def parse(text: str) -> ObjectKey:
    """Return the object of a value: `bucket/key` or `/bucket/key`, percent-encoded, perhaps with `?versionId=`.

    A plus sign is a space, as in S3. The ARN of an access point is no bucket here. Raises S3Refused.
    """
    place, _, version = text.partition(_VERSION)
    named, _, key = place.removeprefix("/").replace("+", "%20").partition("/")
    try:
        bucket = bucket_name(named)
        decoded = to_key(percent_decode(key.encode("utf-8", "surrogateescape")))
        found = query.parse(f"versionId={version}").version if version else None
    except (BadPath, BadQuery, ValueError):
        raise _malformed() from None
    return ObjectKey(bucket, decoded, found)


def _malformed() -> S3Refused:
    return S3Refused(
        Refusal.INVALID_ARGUMENT, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
    )


def text_of(source: ObjectKey) -> str:
    """Return the one spelling of a source, so that the origin reads the object that was permitted."""
    version = "" if source.version is None else f"{_VERSION}{percent_encode(source.version)}"
    return f"/{source.bucket}/{percent_encode(source.key)}{version}"
