"""Bytes straight from the origin, for when the disk or the budget refuses them.

See docs/invariants.md#disk-faults-degrade.
"""

from collections.abc import AsyncGenerator, Callable

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.body_stream import BodyStream
from bucketfront.cache.fetch.part_fetch import FetchContext
from bucketfront.cache.fetch.version import Version
from bucketfront.http.ranges import Span


async def stream(
    entry: Entry, span: Span, context: FetchContext, on_status: Callable[[int | None], None]
) -> AsyncGenerator[bytes, None]:
    """Yield `span` of the entry's version, in order. Close the generator when done, because it holds a connection.

    `on_status` gets the status of the origin's response with each piece.

    Raises ObjectChanged and the other OriginErrors. Bytes that were yielded before stay right.
    """
    body = BodyStream(Version(entry, context.origin, context.remove), context, span.start, lambda: span.stop)
    try:
        while data := await body.read():
            on_status(body.status)
            yield data[: span.stop - (body.at - len(data))]
    finally:
        body.close()
