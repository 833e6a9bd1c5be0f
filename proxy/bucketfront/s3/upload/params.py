"""A `WriteHead` as parameters of S3's calls. The caller adds bucket, key and body."""

import base64
import time
from datetime import UTC, datetime
from typing import Any

from bucketfront.http import dates
from bucketfront.http.checksums import MD5
from bucketfront.http.write_head import WriteHead

_HEADERS = {
    "content-type": "ContentType",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "content-disposition": "ContentDisposition",
    "cache-control": "CacheControl",
    "expires": "Expires",
}
# S3 accepts one of these with a PutObject, so the first one of the client's is sent. bucketfront verifies all of them.
_CHECKSUMS = {
    "crc64nvme": "ChecksumCRC64NVME",
    "crc32c": "ChecksumCRC32C",
    "crc32": "ChecksumCRC32",
    "sha256": "ChecksumSHA256",
    "sha1": "ChecksumSHA1",
}


def put_params(head: WriteHead) -> dict[str, Any]:
    """Return the parameters of PutObject."""
    given = {digest.algorithm: base64.b64encode(digest.value).decode() for digest in head.checksums}
    params = _object_params(head) | complete_params(head)
    if MD5 in given:
        params["ContentMD5"] = given[MD5]
    for algorithm, parameter in _CHECKSUMS.items():
        if algorithm in given:
            return params | {parameter: given[algorithm]}
    return params


def create_params(head: WriteHead) -> dict[str, Any]:
    """Return the parameters of CreateMultipartUpload.

    They have no checksums, because S3's would be those of the parts, and the client's are those of the whole body.
    """
    return _object_params(head)


def complete_params(head: WriteHead) -> dict[str, Any]:
    """Return the parameters of CompleteMultipartUpload: the conditions, which S3 evaluates when it makes the object."""
    params: dict[str, Any] = {}
    if head.only_if_absent:
        params["IfNoneMatch"] = "*"
    if head.if_match is not None:
        params["IfMatch"] = head.if_match
    return params


def _object_params(head: WriteHead) -> dict[str, Any]:
    params: dict[str, Any] = {_HEADERS[name]: value for name, value in head.headers}
    if (expires := dict(head.headers).get("expires")) is not None:
        # botocore would parse a text in its own way, and send what it understood.
        params["Expires"] = datetime.fromtimestamp(dates.parse(expires, time.time()) or 0.0, UTC)
    if head.metadata:
        params["Metadata"] = dict(head.metadata)
    if head.tagging is not None:
        params["Tagging"] = head.tagging
    if head.storage_class is not None:
        params["StorageClass"] = head.storage_class
    return params
