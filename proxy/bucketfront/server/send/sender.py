"""The bytes of an answer: from the cached file by `sendfile`, stretch by stretch, or straight from the origin.

An error after the head aborts the connection: it never pads and never ends cleanly short (I1, I3).
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

from bucketfront.cache import Reader, page_cache
from bucketfront.errors import BodyTruncated, OriginError, StoreError
from bucketfront.http.ranges import Span
from bucketfront.server.send.sendfile import MIN_RATE, PATIENCE, FileSender, patience_for

STRETCH = 1 << 20  # bytes after which a reader that follows a fill asks how far it is
TLS_TURN = 256 << 10  # bytes sent over TLS in one turn of the loop


class BrokenOff(ConnectionResetError):
    """The answer was cut off on purpose; the connection is aborted. The log's `cause` says why."""


class Writer(Protocol):
    def send_headers(self) -> None: ...

    async def drain(self) -> None: ...


class Connected(Protocol):
    @property
    def transport(self) -> asyncio.Transport | None: ...


class Outlet(Connected, Protocol):
    """Where an answer goes, as aiohttp's request knows it."""

    @property
    def writer(self) -> Writer: ...


class Body(Protocol):
    """What an answer's bytes are written to, as aiohttp's response takes them."""

    async def write(self, data: bytes) -> None: ...


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

    async def send(self, outlet: Outlet, body: Body) -> None:
        """All of the body. Raises BrokenOff after aborting the connection, ConnectionError when the client left."""
        try:
            for piece in self._pieces:
                if isinstance(piece, bytes):
                    await self._write(body, piece)
                else:
                    await self._send_span(piece, outlet, body)
            if self.sent != self._length:
                raise BodyTruncated(f"sent {self.sent} of {self._length} bytes")
        except (OriginError, StoreError, TimeoutError, EOFError) as error:
            abort(outlet)
            raise BrokenOff(str(error) or "the client was too slow") from error

    async def close(self) -> None:
        if self._chunks is not None:
            await self._chunks.aclose()

    def _ask_for(self, span: Span) -> None:
        if self._asked != span:
            self._asked = span
            self._ready = span.start
            self._reader.ask_for(span, whole=self._whole)

    async def _send_span(self, span: Span, outlet: Outlet, body: Body) -> None:
        self._ask_for(span)
        before = self.sent
        if self._chunks is None:
            try:
                await self._send_file(span, outlet, body)
                return
            except StoreError:
                self._chunks = self._reader.stream(Span(span.start + self.sent - before, span.stop))
        await self._send_chunks(body, self._chunks)
        await self._chunks.aclose()
        self._chunks = None

    async def _send_file(self, span: Span, outlet: Outlet, body: Body) -> None:
        offset = span.start
        while offset < span.stop:
            if offset == self._ready:
                self._ready = await self._reader.readable(offset)
            is_all_here = self._ready == span.stop
            stretch = Span(offset, self._ready if is_all_here else min(self._ready, offset + STRETCH))
            offset = await self._send_stretch(stretch, outlet, body)
            # A reader that is ahead of the fill learns of new bytes here; one behind it moves its window.
            if not is_all_here and offset < self._ready:
                self._ready = await self._reader.readable(offset)

    async def _send_stretch(self, stretch: Span, outlet: Outlet, body: Body) -> int:
        """Returns the offset that was reached, the stretch's end or short of it."""
        transport, file = outlet.transport, self._reader.file
        if transport is None:
            raise ConnectionResetError("the client left")
        assert file is not None
        if stretch.length <= page_cache.PEEK and (data := _peeked(file.fd, stretch)) is not None:
            await self._write(body, data)
            return stretch.stop
        if transport.get_extra_info("sslcontext") is not None:
            turn = Span(stretch.start, min(stretch.stop, stretch.start + TLS_TURN))
            return await self._send_enciphered(turn, outlet, body)
        outlet.writer.send_headers()
        pouring = FileSender(transport, file.fd, stretch, self._reader.bring_in, self._reader.is_sound)
        try:
            await pouring.run()
        finally:
            self.sent += pouring.at - stretch.start
        return stretch.stop

    async def _send_enciphered(self, turn: Span, outlet: Outlet, body: Body) -> int:
        """TLS has no sendfile. A little at a time: what a client does not take is in memory, more than once (I19)."""
        file = self._reader.file
        assert file is not None
        if not self._reader.is_sound(turn):
            raise StoreError("the file has lost what comes next")
        async with asyncio.timeout(patience_for(turn.length)):
            for start in range(turn.start, turn.stop, page_cache.PEEK):
                piece = Span(start, min(turn.stop, start + page_cache.PEEK))
                if (data := _peeked(file.fd, piece)) is None:
                    await self._reader.bring_in(Span(start, turn.stop))
                    data = await self._reader.read(piece)
                await body.write(data)
                del data
                await outlet.writer.drain()  # aiohttp does it after 64 KiB
                self.sent += piece.length
            await asyncio.sleep(0)  # a client that takes everything at once would have all turns
        return turn.stop

    async def _send_chunks(self, body: Body, chunks: AsyncGenerator[bytes, None]) -> None:
        chunk = self._first or await anext(chunks, b"")
        self._first = b""
        while chunk:
            await self._write(body, chunk)
            chunk = await anext(chunks, b"")

    async def _write(self, body: Body, data: bytes) -> None:
        async with asyncio.timeout(max(PATIENCE, len(data) / MIN_RATE)):
            await body.write(data)
        self.sent += len(data)


def _peeked(fd: int, span: Span) -> bytes | None:
    data = page_cache.peek(fd, span.start, span.length)
    return None if data is None else bytes(data)


def abort(outlet: Connected) -> None:
    """End the connection with a reset, so that no client takes the answer for whole."""
    if outlet.transport is not None:
        outlet.transport.abort()
