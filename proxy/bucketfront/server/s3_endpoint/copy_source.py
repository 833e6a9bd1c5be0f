"""The object that a copy reads: the field `x-amz-copy-source` (S3 API, CopyObject, UploadPartCopy)."""

from dataclasses import dataclass

from bucketfront.config.bucket_name import bucket_name
from bucketfront.errors import BadPath
from bucketfront.http import query
from bucketfront.http.query import BadQuery
from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.keys import ObjectKey, percent_decode, percent_encode, to_key
from bucketfront.server.s3_endpoint.s3_resource import S3Resource

FIELD = "x-amz-copy-source"

_VERSION = "?versionId="


@dataclass(frozen=True, slots=True)
class CopySource:
    """The object that a copy reads, and its version, None for the current one."""

    resource: S3Resource
    version: str | None = None

    def text(self, key: ObjectKey) -> str:
        """Return the one spelling of the field, so that the origin reads the object `key` that was permitted."""
        version = "" if self.version is None else f"{_VERSION}{percent_encode(self.version)}"
        return f"/{key.bucket}/{percent_encode(key.key)}{version}"


def parse(text: str) -> CopySource:
    """Return the source of a value: `bucket/key` or `/bucket/key`, percent-encoded, perhaps with `?versionId=`.

    A plus sign is a space, as in S3. The ARN of an access point is no bucket here. Raises S3Refused.
    """
    place, _, version = text.partition(_VERSION)
    named, _, key = place.removeprefix("/").replace("+", "%20").partition("/")
    try:
        bucket = bucket_name(named)
        octets = percent_decode(key.encode("utf-8", "surrogateescape"))
        found = query.parse(f"versionId={version}").version if version else None
        to_key(octets)
    except (BadPath, BadQuery, ValueError):
        raise _malformed() from None
    return CopySource(S3Resource(bucket, octets, "", ""), found)


def _malformed() -> S3Refused:
    return S3Refused(
        Refusal.INVALID_ARGUMENT, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
    )
