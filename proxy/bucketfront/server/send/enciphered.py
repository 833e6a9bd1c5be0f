"""The bytes of a file in the page cache to a client of TLS, which has no `sendfile`.

One turn of the loop enciphers a bounded number of bytes, and only while the client's kernel has taken all of those
before. So at most one piece of a response waits in memory (docs/invariants.md#memory).
"""

import os
from collections.abc import Callable
from typing import Any, Protocol

from bucketfront.cache import Region, page_cache
from bucketfront.http.ranges import Span
from bucketfront.server.send.sendfile import Burst, SendfileStep

MAX_PER_TURN_BYTES = 256 << 10
# In one write, a record of TLS. OpenSSL keeps a buffer of a third more for each connection, and the transport keeps
# what the client does not take.
MAX_PIECE_BYTES = 16 << 10


class TlsOutlet(Protocol):
    """The part of a connection's transport of TLS that this uses."""

    def get_write_buffer_size(self) -> int: ...

    def is_closing(self) -> bool: ...

    def write_view(self, data: memoryview) -> None: ...

    def get_extra_info(self, name: str) -> Any: ...


def send_some(transport: TlsOutlet, region: Region, span: Span) -> int:
    """Send what the client's kernel takes at once of the bytes `span` of the object. Returns the offset reached.

    Raises EOFError if the next bytes are not in memory, ConnectionResetError if the client left.
    """
    at, stop = span.start, min(span.stop, span.start + MAX_PER_TURN_BYTES)
    while at < stop and not transport.get_write_buffer_size():
        if transport.is_closing():
            raise ConnectionResetError("the client left")
        length = min(MAX_PIECE_BYTES, stop - at)
        if (data := page_cache.peek(region.fd, region.offset + at, length)) is None:
            raise EOFError("the next bytes are on disk")
        transport.write_view(data)
        at += length
    return at


class _EncipheredStep(SendfileStep):
    def __init__(self, transport: TlsOutlet, region: Region, span: Span) -> None:
        super().__init__(region, span, os.dup(transport.get_extra_info("socket").fileno()))
        self._transport = transport

    def is_next_in_memory(self) -> bool:
        return True  # `send` looks

    def send(self) -> None:
        self.at = send_some(self._transport, self.region, Span(self.at, self.stop))


class EncipheredBurst(Burst):
    def __init__(self, transport: TlsOutlet, region: Region, span: Span, then: Callable[[int], None]) -> None:
        super().__init__(_EncipheredStep(transport, region, span), then)
