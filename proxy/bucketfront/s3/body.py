"""The body of one GetObject, counted against what its head declared (I3) and against the clock (I20)."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp

from bucketfront.errors import BodyTruncated, OriginTimeout
from bucketfront.s3.error_translation import translated
from bucketfront.s3.minimum_rate import MinimumRate


class S3Body:
    """`on_close` is called once, when the connection is given back; `on_drip` with the error that ends a body which
    comes too slowly.
    """

    def __init__(self, stream: Any, what: str, read_timeout: float) -> None:
        # aiobotocore's wrapper hands out pieces of a size asked for; the stream below it gives whatever has
        # arrived, which is both the soonest and the cheapest.
        self._response = stream._raw_stream  # noqa: SLF001 - the wrapper has no public name for it
        self._what = what
        self._read_timeout = read_timeout
        self._left: int | None = None
        self._closed = False
        self._rate = MinimumRate()
        self.on_close: Callable[[], None] | None = None
        self.on_drip: Callable[[OriginTimeout], None] | None = None

    def expect(self, length: int) -> None:
        """Bytes that the head declared."""
        self._left = length

    async def read(self) -> bytes:
        assert self._left is not None
        if not self._left:
            return b""
        if not self._rate.is_kept():
            self._drips()
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

    def _drips(self) -> None:
        """Raises OriginTimeout."""
        error = OriginTimeout(f"{self._what}: the body comes too slowly, {self._left} bytes are missing")
        if self.on_drip is not None:
            self.on_drip(error)
        raise error

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # Only a connection whose body was read to its end may serve another request (I12).
        if self._left == 0 and self._response.content.is_eof():
            self._response.release()
        else:
            self._response.close()
        if self.on_close is not None:
            self.on_close()
