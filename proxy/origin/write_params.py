"""A `WriteHead` as parameters of S3's calls. Bucket, key and body are for the caller to add."""

from typing import Any

from proxy.http.write_head import WriteHead

_HEADERS = {
    "content-type": "ContentType",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "content-disposition": "ContentDisposition",
    "cache-control": "CacheControl",
    "expires": "Expires",
}


def put_params(head: WriteHead) -> dict[str, Any]:
    """Of PutObject."""
    params = create_params(head)
    if head.content_md5 is not None:
        params["ContentMD5"] = head.content_md5
    return params


def create_params(head: WriteHead) -> dict[str, Any]:
    """Of CreateMultipartUpload."""
    params: dict[str, Any] = {_HEADERS[name]: value for name, value in head.headers}
    if head.metadata:
        params["Metadata"] = dict(head.metadata)
    return params


def complete_params(head: WriteHead) -> dict[str, Any]:
    """Of CompleteMultipartUpload."""
    del head
    return {}
