"""Reads of one object by GET and HEAD, without retries. `client` repeats them.

Some origins send a part where S3 sends the whole object, or leave out a size or a code. Then another request brings
what is missing, within the same attempt.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from bucketfront.cache import OriginResponse
from bucketfront.errors import AmbiguousPart, InvalidOriginResponse, RangeIgnored, RangeUnsatisfiable
from bucketfront.http import ranges
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.http.response_fields import ResponseFields
from bucketfront.keys import ObjectKey
from bucketfront.s3 import responses
from bucketfront.s3.accepted_codings import AcceptedCodings
from bucketfront.s3.body import S3Body
from bucketfront.s3.calls import Calls
from bucketfront.s3.direct_reads import ReadResponse
from bucketfront.s3.error_translation import Unexplained
from bucketfront.s3.transport import accept_encoding

log = logging.getLogger(__name__)

MAX_SKIPPED_BYTES = 256 << 20  # before the requested bytes of an origin without ranges: seconds on a fast network
MAX_SHOWN_NAMES = 200  # characters in the log


class ObjectReads:
    """The reads of one client. `read_timeout` is for each piece of a body, in seconds.

    Reads raise VersionUnchanged for a 304, and otherwise as `bucketfront.cache.Origin`.
    """

    def __init__(self, calls: Calls, codings: AcceptedCodings, read_timeout: float) -> None:
        self._calls = calls
        self._codings = codings
        self._read_timeout = read_timeout
        self.dropped_fields = 0  # of objects, because of control characters in them
        self._has_bare_etags = False  # the latest response with bytes had an ETag without quotes

    async def get(
        self,
        what: str,
        key: ObjectKey,
        part: FromTo | Suffix,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> OriginResponse:
        """Call S3 GetObject, and once more without Range if the response may have only a part of the object.

        A later part of the version `if_match` also comes from the whole object if the origin ignores its Range, because
        the parts before it are stored. Without `if_match` the caller may want the whole object from its first byte.
        """
        try:
            return await self._get_once(what, key, part, if_match, if_none_match)
        except (AmbiguousPart, RangeIgnored) as error:
            if isinstance(error, RangeIgnored) and if_match is None:
                raise
            response = await self._get_once(what, key, None, if_match, if_none_match)
            return _cut(what, response, part)

    async def head(self, key: ObjectKey, if_none_match: str | None = None) -> Metadata:
        """Call S3 HeadObject, and GetObject if the response does not have the size, or S3's code."""
        params = object_params(key, IfNoneMatch=if_none_match)
        try:
            response = await self._read(f"HEAD {key}", self._calls.objects.head_object, key, params)
        except Unexplained as refusal:
            # A GET has S3's code, or the object (docs/invariants.md#errors-are-not-data).
            found = await self._metadata_by_get(key, None)
            if found is None:
                raise
            log.info("%s; a GET has the object", refusal)
            return found
        size = responses.size_sent(response.status, response.fields)
        if size is None:
            found = await self._metadata_by_get(key, response.fields)
            assert found is not None
            return found
        return self._metadata(response.fields, size, key.version, is_whole=True)

    async def _get_once(
        self,
        what: str,
        key: ObjectKey,
        part: FromTo | Suffix | None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> OriginResponse:
        # The ETag of the response is compared in any case.
        condition = None if self._has_bare_etags else if_match
        header = None if part is None else ranges.field_value(part)
        params = object_params(key, Range=header, IfMatch=condition, IfNoneMatch=if_none_match)
        status, fields, raw = await self._read(what, self._calls.objects.get_object, key, params)
        body = S3Body(raw, what, self._read_timeout)
        try:
            self._has_bare_etags = responses.has_bare_etag(fields)
            measured = await body.measure() if status == 200 and responses.is_chunked(fields) else None
            span, size = responses.span_sent(status, fields, part or FromTo(0), measured)
            metadata = self._metadata(fields, size, key.version, is_whole=span.length == size)
            if not size:  # moto and others send 200 or 206 for some ranges of an empty object
                raise RangeUnsatisfiable(f"{what}: the object is empty")  # noqa: TRY301 - the body is closed below
            responses.check_version(metadata, if_match)
        except BaseException:
            body.close()
            raise
        body.expect(span.length, is_framed=not responses.is_chunked(fields))
        return OriginResponse(metadata, span.start, span.stop, body, status)

    def _metadata(
        self, fields: ResponseFields, size: int, requested_version: str | None, *, is_whole: bool
    ) -> Metadata:
        """Return the metadata that the fields have, see `responses.metadata`. Count those that are dropped."""
        dropped = responses.damaged_descriptions(fields)
        if dropped:
            if not self.dropped_fields:
                names = ", ".join(sorted(dropped))[:MAX_SHOWN_NAMES]
                log.warning("an object has control characters in %s: such fields are dropped", names)
            self.dropped_fields += len(dropped)
        return responses.metadata(fields, size, requested_version, is_whole=is_whole)

    async def _read(
        self, what: str, operation: Callable[..., Awaitable[ReadResponse]], key: ObjectKey, params: dict[str, Any]
    ) -> ReadResponse:
        """Run a call that reads `key`, with the Accept-Encoding of that key."""
        token = accept_encoding.set(self._codings.of(key))
        try:
            response: ReadResponse = await self._calls.send(what, operation, params)
            return response
        finally:
            accept_encoding.reset(token)

    async def _metadata_by_get(self, key: ObjectKey, of_head: ResponseFields | None) -> Metadata | None:
        """Return the metadata that the GET of one byte has, for a HEAD whose response does not show the object.

        `of_head` are the fields of that response if it was a success. An empty object has no byte, so they describe it,
        and without them None is returned.
        """
        try:
            with self._calls.observed("GetObject", key.bucket):
                try:
                    response = await self._get_once(f"GET {key}", key, FromTo(0, 1))
                except AmbiguousPart:
                    response = await self._get_once(f"GET {key}", key, None)
        except RangeUnsatisfiable:
            return None if of_head is None else self._metadata(of_head, 0, key.version, is_whole=True)
        try:
            await response.body.read()  # so that the connection can be used again
        finally:
            response.body.close()
        return response.metadata


def object_params(key: ObjectKey, **optional: str | None) -> dict[str, Any]:
    """Return the parameters of a call that concerns an object. Those of `optional` that are None are left out."""
    given = {name: value for name, value in optional.items() if value is not None}
    if key.version is not None:
        given["VersionId"] = key.version
    return {"Bucket": key.bucket, "Key": key.key, **given}


def _cut(what: str, response: OriginResponse, part: FromTo | Suffix) -> OriginResponse:
    """Return the response with this part of its body, which has the whole object.

    Raises RangeUnsatisfiable, and InvalidOriginResponse if too many bytes come before the part.
    """
    span = part.within(response.metadata.size)
    if span is None or span.start > MAX_SKIPPED_BYTES:
        response.body.close()
        if span is None:
            raise RangeUnsatisfiable(f"{what}: the object has {response.metadata.size} bytes")
        raise InvalidOriginResponse(f"{what}: the origin sends no ranges, and {span.start} bytes come before this one")
    assert isinstance(response.body, S3Body)
    response.body.cut(span)
    return OriginResponse(response.metadata, span.start, span.stop, response.body, response.status)
