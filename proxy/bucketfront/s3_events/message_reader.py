"""Read a message without holding the event loop (docs/invariants.md#cost-of-a-request)."""

import asyncio

from bucketfront.s3_events.event import EventMessage
from bucketfront.s3_events.event_parser import parse

MAX_INLINE = 32 << 10  # characters or bytes, which take some 2 ms; an event of S3 has 1 KiB


async def read_message(body: str | bytes) -> EventMessage:
    """Return what a message holds. A long one is parsed in a thread. Raises UnreadableMessage."""
    return parse(body) if len(body) <= MAX_INLINE else await asyncio.to_thread(parse, body)
