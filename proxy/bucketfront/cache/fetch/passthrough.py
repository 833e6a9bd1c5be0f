"""Bytes straight from the origin, for when the disk or the budget does not take them (I16)."""

from collections.abc import AsyncGenerator

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.body_stream import BodyStream
from bucketfront.cache.fetch.part import FetchContext
from bucketfront.cache.fetch.version import Version
from bucketfront.http.ranges import Span


async def stream(entry: Entry, span: Span, supply: FetchContext) -> AsyncGenerator[bytes, None]:
    """`span` of the entry's version, in order. Close it when done: it holds a connection.

    Raises ObjectChanged and the other OriginErrors; bytes already given are right all the same.
    """
    source = BodyStream(Version(entry, supply.origin, supply.changed), supply, span.start, lambda: span.stop)
    try:
        while data := await source.read():
            yield data[: span.stop - (source.at - len(data))]
    finally:
        source.close()
