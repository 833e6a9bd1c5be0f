"""Bytes straight from the origin, for when the disk or the budget refuses them.

See docs/invariants.md#disk-faults-degrade.
"""

from collections.abc import AsyncGenerator

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.body_stream import BodyStream
from bucketfront.cache.fetch.part_fetch import FetchContext
from bucketfront.cache.fetch.version import Version
from bucketfront.http.ranges import Span


async def stream(entry: Entry, span: Span, context: FetchContext) -> AsyncGenerator[bytes, None]:
    """Yield `span` of the entry's version, in order. Close the generator when done, because it holds a connection.

    Raises ObjectChanged and the other OriginErrors. Bytes that were yielded before stay right.
    """
    body = BodyStream(Version(entry, context.origin, context.remove), context, span.start, lambda: span.stop)
    try:
        while data := await body.read():
            yield data[: span.stop - (body.at - len(data))]
    finally:
        body.close()
