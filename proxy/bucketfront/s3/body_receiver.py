"""The rest of a long body, received straight into the buffers that are written to the disk.

Theory of operation
-------------------
aiohttp's parser copies each piece of a body into a `bytes`, and its stream joins these once more. For a body whose
length Content-Length declares, neither has anything to find out. So once the head was read, the connection's transport
gets this protocol in place of aiohttp's, and gets aiohttp's back after the last byte of the body.

- A buffer is never longer than what is left of the body. What follows stays with the transport, so that
  `connector` finds it before the connection is used again (docs/invariants.md#cancellation).
- What `read` has returned never changes, although later bytes go to the same buffer. A buffer is used again only after
  all views of it are gone (`_Buffers`).
- While a buffer waits to be read, the next one is not filled, so a slow reader holds two of them at most.
"""

import asyncio
from collections import deque
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from bucketfront.s3.transport import READ_BUFFER_BYTES

BUFFER_BYTES = 1 << 20
MIN_ROOM_BYTES = 128 << 10  # for the next receive: below that a new buffer is made
MIN_REST_BYTES = 128 << 10  # of a body: a shorter rest costs less the ordinary way
MAX_KEPT_BUFFERS = 8  # of all receivers, also while none runs: one for each part of a fill


class _Buffers:
    """Buffers that receivers have left. A used one costs neither page faults nor zeroing, which are 200 us a MiB."""

    def __init__(self) -> None:
        self._left: deque[bytearray] = deque(maxlen=MAX_KEPT_BUFFERS)

    def take(self, length: int) -> bytearray:
        """Return a buffer of `length` bytes or more that has no view."""
        for _ in range(len(self._left)):
            buffer = self._left.popleft()
            if not _has_views(buffer):
                return buffer
            self._left.append(buffer)
        return bytearray(length)

    def leave(self, buffer: bytearray) -> None:
        """Keep a buffer, which may still have views, for another receiver. Drops one that is shorter than others."""
        if len(buffer) == BUFFER_BYTES:
            self._left.append(buffer)


def _has_views(buffer: bytearray) -> bool:
    """Return whether a view of the buffer exists, in any thread. Python refuses to resize such a bytearray."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return True
    return False


_buffers = _Buffers()


class BodyReceiver(asyncio.BufferedProtocol):
    """Receives the `left` bytes of a body that are still to come on a connection that `handler` has used so far."""

    def __init__(self, response: aiohttp.ClientResponse, handler: ResponseHandler, ahead: bytes, left: int) -> None:
        assert handler.transport is not None
        self._response = response
        self._handler = handler
        self._transport: Any = handler.transport
        self._left = left  # bytes that have not arrived
        self._ahead = memoryview(ahead)  # arrived before, and not read yet
        self._read_to = self._filled_to = 0  # offsets in the buffer
        self._take_buffer()
        self._is_lost = False
        self._waiter: asyncio.Future[None] | None = None
        handler.read_timeout = None  # the reader has deadlines of its own
        handler.start_timeout()  # ends the one that runs
        self._transport.set_protocol(self)

    @classmethod
    def of(cls, response: aiohttp.ClientResponse, length: int) -> "BodyReceiver | None":
        """Return a receiver of the rest of a body of `length` bytes, None if the rest is better read as usual.

        No byte of the body may have been read before.
        """
        content, connection = response.content, response.connection
        handler = None if connection is None else connection.protocol
        if handler is None or content.is_eof() or content.exception() is not None:
            return None
        if handler.transport is None or handler.transport.is_closing():
            return None
        # Behind so many bytes aiohttp may have paused the connection, and hold some of them back.
        if content.total_bytes > READ_BUFFER_BYTES or length - content.total_bytes < MIN_REST_BYTES:
            return None
        ahead = content.read_nowait()
        return cls(response, handler, ahead, length - len(ahead))

    async def read(self) -> memoryview:
        """Return what has arrived and was not read, and nothing at the end. A cancelled read loses no byte.

        Raises aiohttp.ClientPayloadError if the connection ended before the body.
        """
        while not (data := self.read_arrived()):
            if not self._left:
                break
            if self._is_lost:
                raise aiohttp.ClientPayloadError(f"the connection ended {self._left} bytes early")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return data

    def read_arrived(self) -> memoryview:
        """Return what has arrived and was not read, or nothing. Never waits."""
        if self._ahead:
            data, self._ahead = self._ahead, memoryview(b"")
            return data
        if self._read_to == self._filled_to:
            return memoryview(b"")
        data = self._buffer[self._read_to : self._filled_to].toreadonly()
        self._read_to = self._filled_to
        if self._left and len(self._buffer) - self._filled_to < min(self._left, MIN_ROOM_BYTES):
            _buffers.leave(self._memory)
            self._take_buffer()
            self._transport.resume_reading()  # does nothing if it was not paused
        return data

    def _take_buffer(self) -> None:
        length = min(self._left, BUFFER_BYTES)
        self._memory = _buffers.take(length)
        self._buffer = memoryview(self._memory)[:length]
        self._read_to = self._filled_to = 0

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._buffer[self._filled_to :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled_to += nbytes
        self._left -= nbytes
        if not self._left:
            self._hand_back()
        elif self._filled_to == len(self._buffer):
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._is_lost = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._handler.connection_lost(exc)
        self._wake()

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def _hand_back(self) -> None:
        """Give the connection back to aiohttp, which takes it for one whose response has ended."""
        _buffers.leave(self._memory)  # it has views until the last bytes were read
        # Its parser has not seen the end of the body. The next request gets a new one.
        self._handler._parser = None  # noqa: SLF001 - it has no public name
        self._transport.set_protocol(self._handler)
        self._response.content.feed_eof()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
