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
    entry: Entry, span: Span, context: FetchContext, on_status: Callable[[int | None], None], *, continues: bool
) -> AsyncGenerator[bytes, None]:
    """Yield `span` of the entry's version, in order. Close the generator when done, because it holds a connection.

    `on_status` gets the status of the origin's response with each piece. `continues`: other bytes of the version were
    sent before. Without that, a version without a strong ETag is cut out of one response that has all of it.

    Raises ObjectChanged and the other OriginErrors. Bytes that were yielded before stay right.
    """
    whole = Span(0, entry.metadata.size)
    requested = span if continues or entry.metadata.is_strong else whole
    version = Version(entry, context.origin, context.remove)
    body = BodyStream(version, context, requested.start, lambda: requested.stop)
    try:
        while body.at < span.stop and (data := await body.read()):
            on_status(body.status)
            begin = body.at - len(data)
            if piece := data[max(0, span.start - begin) : span.stop - begin]:
                yield piece
    finally:
        body.close()
