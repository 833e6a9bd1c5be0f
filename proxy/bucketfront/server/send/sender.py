"""The bytes of a response: from the cached file by `sendfile`, stretch by stretch, or straight from the origin.

An error after the head aborts the connection. The sender never pads a response, and never ends a short one cleanly
(docs/invariants.md#version-purity, docs/invariants.md#exact-length).
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Protocol

from bucketfront.cache import Region, page_cache
from bucketfront.errors import BodyTruncated, OriginError, StoreError
from bucketfront.http.ranges import Demand, Span
from bucketfront.server.client_progress import ClientWatch
from bucketfront.server.cut import broken_off
from bucketfront.server.send.sendfile import FileSender

MAX_STRETCH_BYTES = 1 << 20  # after which a reader that follows a fill looks how far the fill is
MAX_PER_TURN_TLS_BYTES = 256 << 10


class ResponseWriter(Protocol):
    """The part of aiohttp's writer of a response that a sender uses."""

    def send_headers(self) -> None: ...

    async def drain(self) -> None: ...


class Connected(Protocol):
    @property
    def transport(self) -> asyncio.Transport | None: ...


class Outlet(Connected, Protocol):
    """The part of aiohttp's request that a sender uses."""

    @property
    def writer(self) -> ResponseWriter: ...


class BodyWriter(Protocol):
    """The part of aiohttp's response that a sender uses."""

    async def write(self, data: bytes) -> None: ...


class BodyReader(Protocol):
    """The part of a reader that a sender uses: `Reader` of the cache has all of it."""

    @property
    def region(self) -> Region | None: ...

    def expect(self, span: Span, demand: Demand = Demand.BOUNDED) -> None: ...

    def announce_later(self, spans: Iterable[Span]) -> None: ...

    async def readable(self, offset: int) -> int: ...

    def held(self, span: Span) -> int: ...

    def note_sent(self, span: Span) -> None: ...

    def is_sound(self, span: Span) -> bool: ...

    async def load(self, span: Span) -> None: ...

    async def read(self, span: Span) -> bytes: ...

    def stream(self, span: Span, *, continues: bool = False) -> AsyncGenerator[bytes, None]: ...

    def close(self) -> None: ...


class Sender:
    """Sends the pieces of one response: spans of the reader's object, and the framing between them.

    Call `begin` before the head leaves, then `send`, and `close` in any case. `demand` is what the
    client asked for, and `min_rate` the lowest rate at which it must take that, in bytes per second.
    """

    def __init__(self, reader: BodyReader, pieces: tuple[bytes | Span, ...], demand: Demand, min_rate: int) -> None:
        self._reader = reader
        self._pieces = pieces
        self._demand = demand
        self._watch = ClientWatch(min_rate)
        self._length = sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in pieces)
        self._asked: Span | None = None  # the last argument of the reader's `ask_for`
        self._ready = 0  # the file has the bytes of the object from the sender's offset to here
        self._chunks: AsyncGenerator[bytes, None] | None = None
        self._first = b""
        self.sent = 0
        self.from_origin = 0  # bytes sent that the cache did not have when the first of them were requested

    async def begin(self) -> None:
        """Wait for the object's first byte, because an error can still become a status until then.

        Raises OriginError, ObjectChanged.
        """
        span, *later = (piece for piece in self._pieces if isinstance(piece, Span))
        self._ask_for(span)
        if later:
            self._reader.announce_later(later)
        if span.start == span.stop:
            return
        try:
            self._ready = await self._reader.readable(span.start)
        except StoreError:
            self._chunks = self._reader.stream(span)
            self._first = await anext(self._chunks)

    async def send(self, outlet: Outlet, body: BodyWriter) -> None:
        """Send all of the body.

        Raises BrokenOff after aborting the connection, ConnectionError if the client left.
        """
        try:
            for piece in self._pieces:
                if isinstance(piece, bytes):
                    await self._write(outlet, body, piece)
                else:
                    await self._send_span(piece, outlet, body)
            if self.sent != self._length:
                raise BodyTruncated(f"sent {self.sent} of {self._length} bytes")
        except (OriginError, StoreError, TimeoutError, EOFError) as error:
            abort(outlet)
            raise broken_off(error) from error

    async def close(self) -> None:
        if self._chunks is not None:
            await self._chunks.aclose()

    def _ask_for(self, span: Span) -> None:
        if self._asked != span:
            self._asked = span
            self._ready = span.start
            self._reader.expect(span, self._demand)

    async def _send_span(self, span: Span, outlet: Outlet, body: BodyWriter) -> None:
        self._ask_for(span)
        before = self.sent
        try:
            await self._send_bytes(span, outlet, body)
        finally:
            sent = Span(span.start, span.start + self.sent - before)
            self.from_origin += sent.length - self._reader.held(sent)
            self._reader.note_sent(sent)

    async def _send_bytes(self, span: Span, outlet: Outlet, body: BodyWriter) -> None:
        before = self.sent
        if self._chunks is None:
            try:
                await self._send_file(span, outlet, body)
                return
            except StoreError:
                rest = Span(span.start + self.sent - before, span.stop)
                self._chunks = self._reader.stream(rest, continues=self.sent > 0)
        await self._send_chunks(outlet, body, self._chunks)
        await self._chunks.aclose()
        self._chunks = None

    async def _send_file(self, span: Span, outlet: Outlet, body: BodyWriter) -> None:
        offset = span.start
        while offset < span.stop:
            if offset == self._ready:
                self._ready = await self._reader.readable(offset)
            is_all_here = self._ready == span.stop
            stretch = Span(offset, self._ready if is_all_here else min(self._ready, offset + MAX_STRETCH_BYTES))
            offset = await self._send_stretch(stretch, outlet, body)
            # A reader ahead of the fill sees new bytes here. A reader behind it moves its read-ahead window.
            if not is_all_here and offset < self._ready:
                self._ready = await self._reader.readable(offset)

    async def _send_stretch(self, stretch: Span, outlet: Outlet, body: BodyWriter) -> int:
        """Send a stretch or its beginning. Returns the offset reached."""
        transport, region = outlet.transport, self._reader.region
        if transport is None:
            raise ConnectionResetError("the client left")
        assert region is not None
        if stretch.length <= page_cache.MAX_PEEK_BYTES and (data := _peeked(region, stretch)) is not None:
            await self._write(outlet, body, data)
            return stretch.stop
        if transport.get_extra_info("sslcontext") is not None:
            turn = Span(stretch.start, min(stretch.stop, stretch.start + MAX_PER_TURN_TLS_BYTES))
            return await self._send_enciphered(turn, outlet, body)
        outlet.writer.send_headers()
        file_sender = FileSender(transport, region, stretch, self._reader.load, self._reader.is_sound, self._watch)
        try:
            await file_sender.run()
        finally:
            self.sent += file_sender.at - stretch.start
        return stretch.stop

    async def _send_enciphered(self, turn: Span, outlet: Outlet, body: BodyWriter) -> int:
        """Send by copies, because TLS has no `sendfile`. Returns the offset reached.

        It sends small pieces: memory holds unsent bytes more than once (docs/invariants.md#memory).
        """
        region = self._reader.region
        assert region is not None
        if not self._reader.is_sound(turn):
            raise StoreError("the file has lost what comes next")
        async with self._watch.wait(outlet.transport):
            for start in range(turn.start, turn.stop, page_cache.MAX_PEEK_BYTES):
                piece = Span(start, min(turn.stop, start + page_cache.MAX_PEEK_BYTES))
                if (data := _peeked(region, piece)) is None:
                    await self._reader.load(Span(start, turn.stop))
                    data = await self._reader.read(piece)
                await body.write(data)
                del data
                await outlet.writer.drain()  # aiohttp drains only after 64 KiB
                self.sent += piece.length
            await asyncio.sleep(0)  # without this a client that takes everything at once would get every turn
        return turn.stop

    async def _send_chunks(self, outlet: Outlet, body: BodyWriter, chunks: AsyncGenerator[bytes, None]) -> None:
        chunk = self._first or await anext(chunks, b"")
        self._first = b""
        while chunk:
            await self._write(outlet, body, chunk)
            chunk = await anext(chunks, b"")

    async def _write(self, outlet: Outlet, body: BodyWriter, data: bytes) -> None:
        async with self._watch.wait(outlet.transport):
            await body.write(data)
        self.sent += len(data)


def _peeked(region: Region, span: Span) -> bytes | None:
    data = page_cache.peek(region.fd, region.offset + span.start, span.length)
    return None if data is None else bytes(data)


def abort(outlet: Connected) -> None:
    """End the connection with a reset, so that no client takes the response for complete."""
    if outlet.transport is not None:
        outlet.transport.abort()
