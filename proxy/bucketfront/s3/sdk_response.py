"""aiohttp's response as the SDK gets it: with the fields that the SDK needs, and no others.

botocore parses every field that it knows and fails on one that it cannot parse, for example a date. aiobotocore keeps
one line of a repeated field, and fails on a value that is not UTF-8. bucketfront reads the fields itself, so no field
that it does not use can make a response unusable.

The SDK reads the bodies of errors, and of all operations but GetObject, into memory. So they have a bound here, behind
which they are cut and their connection is closed. The rest of an XML document is missing then, so it does not parse: an
error has its status only, and a success is invalid.
"""

import zlib
from functools import cached_property

import aiohttp

from bucketfront.http.response_fields import ResponseFields

# All of these are text to botocore. It returns the ETag of an upload; its log and its errors name the others.
_FOR_THE_SDK = ("etag", "content-type", "date", "x-amz-request-id", "x-amz-id-2", "x-amz-bucket-region")
MAX_ERROR_BYTES = 64 << 10  # received or decoded; S3's have less than 3 KiB, most of which is the key
MAX_RESULT_BYTES = 8 << 20  # a listing of 1000 keys, with each byte of each as an entity, has less


class SdkResponse(aiohttp.ClientResponse):
    """A response with `fields`, which are those that the origin sent."""

    @property
    def lines(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the fields line by line, as the origin sent them."""
        return super().raw_headers

    @cached_property
    def fields(self) -> ResponseFields:
        return ResponseFields(super().raw_headers)

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the fields for the SDK, in UTF-8."""
        kept = ((name, self.fields[name]) for name in _FOR_THE_SDK if name in self.fields)
        return tuple((name.encode(), value.encode("utf-8", "replace")) for name, value in kept)

    async def read(self) -> bytes:
        """Return the body up to its bound. That of an error is decoded, because a proxy may have compressed it."""
        is_error = self.status >= 300
        body = await self._read_up_to(MAX_ERROR_BYTES if is_error else MAX_RESULT_BYTES)
        if not is_error or self.fields.get("content-encoding", "").lower() not in ("gzip", "x-gzip"):
            return body
        try:
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, MAX_ERROR_BYTES)
        except zlib.error:
            return body

    async def _read_up_to(self, limit: int) -> bytes:
        """Return the body, or its first `limit` bytes. In that case the connection is closed."""
        body = bytearray()
        try:
            while piece := await self.content.readany():
                body += piece
                if len(body) > limit:
                    self.close()
                    return bytes(body[:limit])
        except BaseException:
            self.close()
            raise
        await self._wait_released()
        return bytes(body)
