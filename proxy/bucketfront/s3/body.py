"""The body of one GetObject, compared with the length and the rate that it must have.

See docs/invariants.md#exact-length and docs/invariants.md#deadlines-everywhere.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp

from bucketfront.errors import BodyTruncated, OriginTimeout
from bucketfront.s3.error_translation import translated
from bucketfront.s3.minimum_rate import MinimumRate


class S3Body:
    """A body that holds a connection until it is closed. `what` names the request in messages.

    `on_close` is called once, when the connection is free. `on_slow` is called with the error of a body that comes
    too slowly.
    """

    def __init__(self, stream: Any, what: str, read_timeout: float) -> None:
        # aiobotocore's wrapper returns pieces of a requested size. The stream below it returns what has arrived, which
        # is both sooner and cheaper.
        self._response = stream._raw_stream  # noqa: SLF001 - the wrapper has no public name for it
        self._what = what
        self._read_timeout = read_timeout
        self._left: int | None = None  # bytes
        self._is_closed = False
        self._rate = MinimumRate()
        self.on_close: Callable[[], None] | None = None
        self.on_slow: Callable[[OriginTimeout], None] | None = None

    def expect(self, length: int) -> None:
        """Set the length in bytes that the head declared."""
        self._left = length

    async def read(self) -> bytes:
        """Return the next bytes, or `b""` at the declared length. A read that is cancelled loses no byte.

        Raises BodyTruncated, OriginTimeout, OriginUnavailable.
        """
        assert self._left is not None
        if not self._left:
            return b""
        if not self._rate.is_kept():
            self._fail_slow()
        clock = asyncio.get_running_loop().time
        began = clock()
        data = b""
        try:
            data = await self._receive()
        finally:
            self._rate.waited(clock() - began, len(data))
        if not data:
            raise BodyTruncated(f"{self._what}: the origin's body ended {self._left} bytes early")
        self._left -= len(data)
        return data

    async def _receive(self) -> bytes:
        with translated(self._what):
            async with asyncio.timeout(self._read_timeout):
                try:
                    data: bytes = await self._response.content.readany()
                except aiohttp.ClientPayloadError as error:
                    raise BodyTruncated(f"{self._what}: the body broke off {self._left} bytes early") from error
        return data

    def _fail_slow(self) -> None:
        """Raise OriginTimeout."""
        error = OriginTimeout(f"{self._what}: the body comes too slowly, {self._left} bytes are missing")
        if self.on_slow is not None:
            self.on_slow(error)
        raise error

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
