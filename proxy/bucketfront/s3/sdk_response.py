"""aiohttp's response as the SDK gets it: with the fields that the SDK needs, and no others.

botocore parses every field that it knows and fails on one that it cannot parse, for example a date. aiobotocore keeps
one line of a repeated field, and fails on a value that is not UTF-8. bucketfront reads the fields itself, so no field
that it does not use can make a response unusable.
"""

import zlib
from functools import cached_property

import aiohttp

from bucketfront.http.response_fields import ResponseFields

# All of these are text to botocore. It returns the ETag of an upload; its log and its errors name the others.
_FOR_THE_SDK = ("etag", "content-type", "date", "x-amz-request-id", "x-amz-id-2", "x-amz-bucket-region")
_MAX_ERROR_BYTES = 1 << 20  # of a decoded error; S3's have less than 1 KiB


class SdkResponse(aiohttp.ClientResponse):
    """A response with `fields`, which are those that the origin sent."""

    @cached_property
    def fields(self) -> ResponseFields:
        return ResponseFields(super().raw_headers)

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the fields for the SDK, in UTF-8."""
        kept = ((name, self.fields[name]) for name in _FOR_THE_SDK if name in self.fields)
        return tuple((name.encode(), value.encode("utf-8", "replace")) for name, value in kept)

    async def read(self) -> bytes:
        """Return the body. That of an error is decoded, because a proxy may have compressed it."""
        body = await super().read()
        if self.status < 300 or self.fields.get("content-encoding", "").lower() not in ("gzip", "x-gzip"):
            return body
        try:
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, _MAX_ERROR_BYTES)
        except zlib.error:
            return body
