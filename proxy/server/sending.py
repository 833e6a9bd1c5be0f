"""The bytes of an answer: from the cached file by `sendfile`, stretch by stretch, or straight from the origin.

An error after the head aborts the connection: it never pads and never ends cleanly short (I1, I3).
"""

import asyncio
import os
from collections.abc import AsyncGenerator

from aiohttp import web

from proxy.cache.cache import Reader
from proxy.errors import BodyTruncated, OriginError, StoreError
from proxy.http.ranges import Span

STRETCH = 1 << 20  # bytes handed to one sendfile: bounds how long a client may take for it
TLS_CHUNK = 256 << 10  # bytes; TLS has no sendfile, and small chunks are slow
PATIENCE = 30.0  # seconds within which something has to move (I20)
MIN_RATE = 8 << 10  # bytes a second


class BrokenOff(ConnectionResetError):
    """The answer was cut off on purpose; the connection is aborted. The log's `cause` says why."""


class _Descriptor:
    """What `loop.sendfile` needs of a file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


class Sender:
    """Sends the pieces of one answer: spans of the reader's object, and framing between them as it stands. `begin`
    before the head, then `send`; `close` in any case. `whole`: the client takes the object from its first byte to its
    last.
    """

    def __init__(self, reader: Reader, pieces: tuple[bytes | Span, ...], *, whole: bool) -> None:
        self._reader = reader
        self._pieces = pieces
        self._whole = whole
        self._length = sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in pieces)
        self._asked: Span | None = None  # the span that the reader was told of last
        self._ready = 0  # bytes of the object below are in the file, from where the sender is on
        self._chunks: AsyncGenerator[bytes, None] | None = None
        self._first = b""
        self.sent = 0

    async def begin(self) -> None:
        """Wait for the object's first byte: until then an error is an answer. Raises OriginErrors, ObjectChanged."""
        span = next(piece for piece in self._pieces if isinstance(piece, Span))
        self._ask_for(span)
        if span.start == span.stop:
            return
        try:
            self._ready = await self._reader.readable(span.start)
        except StoreError:
            self._chunks = self._reader.stream(span)
            self._first = await anext(self._chunks)

    async def send(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Head and body. Raises BrokenOff after aborting the connection, ConnectionError when the client left."""
        await response.prepare(request)
        try:
            for piece in self._pieces:
                if isinstance(piece, bytes):
                    async with asyncio.timeout(PATIENCE):
                        await response.write(piece)
                    self.sent += len(piece)
                else:
                    await self._send_span(piece, request, response)
            if self.sent != self._length:
                raise BodyTruncated(f"sent {self.sent} of {self._length} bytes")
        except (OriginError, StoreError, TimeoutError, EOFError) as error:
            abort(request)
            raise BrokenOff(str(error) or "the client was too slow") from error

    async def close(self) -> None:
        if self._chunks is not None:
            await self._chunks.aclose()

    def _ask_for(self, span: Span) -> None:
        if self._asked != span:
            self._asked = span
            self._ready = span.start
            self._reader.ask_for(span, whole=self._whole)

    async def _send_span(self, span: Span, request: web.BaseRequest, response: web.StreamResponse) -> None:
        self._ask_for(span)
        before = self.sent
        if self._chunks is None:
            try:
                await self._send_file(span, request, response)
                return
            except StoreError:
                self._chunks = self._reader.stream(Span(span.start + self.sent - before, span.stop))
        await self._send_chunks(response, self._chunks)
        await self._chunks.aclose()
        self._chunks = None

    async def _send_file(self, span: Span, request: web.BaseRequest, response: web.StreamResponse) -> None:
        is_tls = request.transport is not None and request.transport.get_extra_info("sslcontext") is not None
        offset = span.start
        while offset < span.stop:
            if offset == self._ready:
                self._ready = await self._reader.readable(offset)
            stretch = Span(offset, min(self._ready, offset + (TLS_CHUNK if is_tls else STRETCH)))
            file = self._reader.file
            assert file is not None
            async with asyncio.timeout(max(PATIENCE, stretch.length / MIN_RATE)):
                if is_tls:
                    await _write(response, file.fd, stretch)
                else:
                    await _sendfile(request, file.fd, stretch)
            offset = stretch.stop
            self.sent += stretch.length
            # A reader that is ahead of the fill learns of new bytes here; one behind it moves its window.
            if offset < span.stop and offset < self._ready:
                self._ready = await self._reader.readable(offset)

    async def _send_chunks(self, response: web.StreamResponse, chunks: AsyncGenerator[bytes, None]) -> None:
        chunk = self._first or await anext(chunks, b"")
        self._first = b""
        while chunk:
            async with asyncio.timeout(max(PATIENCE, len(chunk) / MIN_RATE)):
                await response.write(chunk)
            self.sent += len(chunk)
            chunk = await anext(chunks, b"")


async def _sendfile(request: web.BaseRequest, fd: int, stretch: Span) -> None:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client left")
    loop = asyncio.get_running_loop()
    try:
        sent = await loop.sendfile(
            transport,
            _Descriptor(fd),  # type: ignore[arg-type]
            stretch.start,
            stretch.length,
            fallback=False,
        )
    except (RuntimeError, asyncio.SendfileNotAvailableError) as error:
        # asyncio says the first of a transport that closed meanwhile, the second of any OSError before the first byte.
        cause = error.__context__
        if isinstance(cause, OSError) and not isinstance(cause, ConnectionError) and not transport.is_closing():
            raise StoreError(f"sendfile from the cache failed: {cause.strerror}") from error
        raise ConnectionResetError("the client left") from error
    if sent != stretch.length:
        raise EOFError(f"the cached file ended {stretch.length - sent} bytes early")


async def _write(response: web.StreamResponse, fd: int, stretch: Span) -> None:
    data = await asyncio.to_thread(os.pread, fd, stretch.length, stretch.start)
    if len(data) != stretch.length:
        raise EOFError(f"the cached file ended {stretch.length - len(data)} bytes early")
    await response.write(data)


def abort(request: web.BaseRequest) -> None:
    """End the connection with a reset, so that no client takes the answer for whole."""
    if request.transport is not None:
        request.transport.abort()
