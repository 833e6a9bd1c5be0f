"""The body of one GetObject, compared with the length and the rate that it must have.

See docs/invariants.md#exact-length and docs/invariants.md#deadlines-everywhere.
"""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from bucketfront.errors import BodyTruncated, InvalidOriginResponse, OriginError, OriginTimeout
from bucketfront.http.ranges import Span
from bucketfront.s3.body_receiver import BodyReceiver
from bucketfront.s3.error_translation import translated
from bucketfront.s3.minimum_rate import MinimumRate
from bucketfront.s3.sdk_response import SdkResponse

MAX_UNKNOWN_LENGTH_BYTES = 4 << 20  # of a body whose length no field has: it is held in memory until it is known


class S3Body:
    """A body that holds a connection until it is closed. `what` names the request in messages.

    `on_close` is called once, when the connection is free. `on_slow` is called with the error of a body that comes
    too slowly, and `on_failure` with each error.
    """

    def __init__(self, response: SdkResponse, what: str, read_timeout: float) -> None:
        # aiobotocore's wrapper returns pieces of a requested size. aiohttp's stream returns what has arrived, which is
        # both sooner and cheaper.
        self._response = response
        self._receive_some: Callable[[], Awaitable[bytes | memoryview]] = response.content.readany
        self._read_arrived: Callable[[], bytes | memoryview] = bytes  # returns nothing
        self._what = what
        self._read_timeout = read_timeout
        self._left: int | None = None  # bytes
        self._ahead: bytes | memoryview = b""  # received and not read yet
        self._skipped = 0  # bytes still to come before those that were requested
        self._is_cut = False  # whether other bytes of the object may follow
        self._shows_end = False  # whether the framing itself ends the body at the declared length
        self._is_closed = False
        self._rate = MinimumRate()
        self.on_close: Callable[[], None] | None = None
        self.on_slow: Callable[[OriginTimeout], None] | None = None
        self.on_failure: Callable[[OriginError], None] | None = None

    def expect(self, length: int, *, is_framed: bool) -> None:
        """Set the length in bytes that the head declared.

        `is_framed` means that Content-Length declared it, so the body cannot be longer.
        """
        self._left = length
        self._shows_end = is_framed
        if not is_framed:
            return
        receiver = BodyReceiver.of(self._response, int(self._response.fields["content-length"]))
        if receiver is not None:
            self._receive_some, self._read_arrived = receiver.read, receiver.read_arrived

    def cut(self, span: Span) -> None:
        """Read only this span of the body. The bytes before it are received and dropped."""
        self._skipped, self._left = span.start, span.length
        self._is_cut = self._shows_end = True

    async def measure(self) -> int:
        """Receive the whole body, and return its length in bytes.

        Raises InvalidOriginResponse if it is too long for that, OriginTimeout, OriginUnavailable.
        """
        pieces, length = [], 0
        while data := await self._receive():
            pieces.append(data)
            length += len(data)
            if length > MAX_UNKNOWN_LENGTH_BYTES:
                raise InvalidOriginResponse(
                    f"{self._what}: the origin sent neither length nor end within {MAX_UNKNOWN_LENGTH_BYTES} bytes;"
                    " if it decodes objects on the way, see accept_encoding"
                )
        self._ahead = b"".join(pieces)
        return length

    async def read(self) -> bytes | memoryview:
        """Return the next bytes, or `b""` at the declared length. A read that is cancelled loses no byte.

        Raises BodyTruncated, InvalidOriginResponse if the body is longer, OriginTimeout, OriginUnavailable.
        """
        try:
            return await self._read()
        except OriginError as error:
            if self.on_failure is not None:
                self.on_failure(error)
            raise

    async def _read(self) -> bytes | memoryview:
        assert self._left is not None
        if not self._left:
            return b""
        if not self._ahead:
            self._ahead = await self._next()
        while self._skipped:
            dropped = min(self._skipped, len(self._ahead))
            self._skipped, self._ahead = self._skipped - dropped, self._ahead[dropped:]
            if not self._ahead:
                self._ahead = await self._next()
        if self._is_cut:
            self._ahead = self._ahead[: self._left]
        # The last bytes come once the end is sure: a longer body is not the one that the head describes.
        is_last = len(self._ahead) == self._left
        if len(self._ahead) > self._left or (is_last and not self._shows_end and await self._receive()):
            raise InvalidOriginResponse(f"{self._what}: the origin's body is longer than the head declares")
        data, self._ahead = self._ahead, b""
        self._left -= len(data)
        return data

    async def _next(self) -> bytes | memoryview:
        if not self._rate.is_kept():
            self._fail_slow()
        if arrived := self._read_arrived():  # without the timers of a wait
            self._rate.waited(0.0, len(arrived))
            return arrived
        clock = asyncio.get_running_loop().time
        began = clock()
        data: bytes | memoryview = b""
        try:
            data = await self._receive()
        finally:
            self._rate.waited(clock() - began, len(data))
        if not data:
            raise BodyTruncated(f"{self._what}: the origin's body ended {self._left} bytes early")
        return data

    async def _receive(self) -> bytes | memoryview:
        with translated(self._what):
            async with asyncio.timeout(self._read_timeout):
                try:
                    return await self._receive_some()
                except aiohttp.ClientPayloadError as error:
                    missing = "before its end" if self._left is None else f"{self._left} bytes early"
                    raise BodyTruncated(f"{self._what}: the body broke off {missing}") from error

    def _fail_slow(self) -> None:
        """Raise OriginTimeout."""
        error = OriginTimeout(f"{self._what}: the body comes too slowly, {self._left} bytes are missing")
        if self.on_slow is not None:
            self.on_slow(error)
        raise error

    def arrived(self) -> int:
        """Return how many bytes have come of a body that is closed without being read."""
        return len(self._read_arrived()) or self._response.content.total_bytes

    def close(self) -> None:
        """Return the connection to the pool if the body was read to its end, else close it.

        A connection with a rest of a body would give that rest to another request (docs/invariants.md#cancellation).
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._left == 0 and self._response.content.is_eof():
            self._response.release()
        else:
            self._response.close()
        if self.on_close is not None:
            self.on_close()
