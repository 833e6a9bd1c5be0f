"""Bytes straight from the origin, for when the disk or the budget does not take them (I16)."""

from collections.abc import AsyncGenerator

from proxy.cache.origin import NotModified, Origin
from proxy.errors import ObjectChanged, ObjectNotFound, OriginUnavailable, RangeUnsatisfiable
from proxy.http.metadata import Metadata
from proxy.http.ranges import FromTo, Span
from proxy.keys import ObjectKey

MAX_FAILURES = 3  # in a row without a byte


async def stream(origin: Origin, key: ObjectKey, metadata: Metadata, span: Span) -> AsyncGenerator[bytes, None]:
    """`span` of the version that `metadata` describes, in order. Close it when done: it holds a connection.

    Raises ObjectChanged and the other OriginErrors; bytes already given are right all the same.
    """
    offset = span.start
    failures = 0
    while offset < span.stop:
        try:
            answer = await origin.get(key, FromTo(offset, span.stop), if_match=metadata.etag)
        except (ObjectNotFound, RangeUnsatisfiable) as error:
            raise ObjectChanged(str(error)) from error
        assert not isinstance(answer, NotModified)
        before = offset
        try:
            if answer.metadata.etag != metadata.etag or answer.metadata.size != metadata.size:
                raise ObjectChanged(f"{key} was {metadata.etag}, is {answer.metadata.etag}")
            while offset < span.stop and (data := await answer.body.read()):
                data = data[: span.stop - offset]
                offset += len(data)
                yield data
        except OriginUnavailable:
            failures = failures + 1 if offset == before else 1
            if failures == MAX_FAILURES:
                raise
        finally:
            answer.body.close()
