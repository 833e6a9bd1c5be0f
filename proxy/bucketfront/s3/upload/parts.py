"""How a body is cut into parts, and where its bytes are until S3 has them.

In the spool, as long as there is one and it takes them: such parts can be sent side by side, and again. What it does
not take passes straight through where the body's length is known, for then S3 can be told how much comes; else it is
held in memory, BUFFER bytes at a time.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from bucketfront.errors import OriginBusy, StoreError, StoreFull, WriteRefused
from bucketfront.s3.upload.multipart import MAX_PARTS
from bucketfront.s3.upload.spool import Spool

MiB = 1 << 20
PART_SIZE = 8 * MiB  # of all parts, as far as S3's number of them allows
EQUAL_PARTS = 1_000  # of a body of unknown length; the later ones grow, so that MAX_PARTS hold 5 TiB
GROWTH = 60  # parts after which they are PART_SIZE larger
GATHERED = 512 << 10  # bytes handed to the spool at once, where few bodies are on their way
GATHERED_AT_LEAST = 64 << 10
GATHERED_IN_ALL = 16 << 20  # bytes of all bodies, as long as each may have GATHERED_AT_LEAST (I19)
BUFFER = 8 * MiB
SMALL_BUFFER = 64 << 10  # bytes that need no leave

log = logging.getLogger(__name__)


def part_size(number: int, length: int | None) -> int:
    """Bytes of part `number`, from 1, of a body of `length` bytes. Where that is known, all but the last are equal:
    some S3-alikes want it.
    """
    if length is not None:
        return PART_SIZE if length <= MAX_PARTS * PART_SIZE else -(-length // MAX_PARTS // MiB) * MiB
    return PART_SIZE * (1 + max(0, number - EQUAL_PARTS) // GROWTH)


class Pieces:
    """A stream of chunks of any size, cut where S3 wants it cut. `length` in bytes, where it is known."""

    def __init__(self, chunks: AsyncIterator[bytes], length: int | None) -> None:
        self._chunks = chunks
        self._rest = b""
        self._left = length

    async def exactly(self, count: int) -> AsyncIterator[bytes]:
        """The next `count` bytes. Raises WriteRefused when the stream has fewer."""
        while count:
            piece = await self._next()
            if not piece:
                raise WriteRefused(f"the body ended {count} bytes early")
            self._rest = piece[count:]
            piece = piece[:count]
            count -= len(piece)
            yield piece

    async def up_to(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end of a stream of unknown length. Raises WriteRefused as `exactly`."""
        gathered: list[bytes] = []
        missing = count
        while missing and (piece := await self._next()):
            self._rest = piece[missing:]
            gathered.append(piece[:missing])
            missing -= len(gathered[-1])
        if self._left is not None and missing:
            raise WriteRefused(f"the body ended {self._left} bytes early")
        return b"".join(gathered)

    async def is_over(self) -> bool:
        """Whether all has been read. Waits for the next bytes where that is not known."""
        if self._left is not None:
            return not self._left and not self._rest
        self._rest = await self._next()
        return not self._rest

    def unread(self, data: bytes) -> None:
        """Put bytes back in front."""
        self._rest = data + self._rest

    async def _next(self) -> bytes:
        if self._rest:
            return self._rest
        if self._left == 0:
            return b""
        piece = await anext(self._chunks, b"")
        if self._left is not None:
            piece = piece[: self._left]
            self._left -= len(piece)
        return piece


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes [start, stop) of a body. `chunks` gives them: once, or where `is_spooled` as often as is asked.
    `acknowledge` is called once S3 has them. `is_last`: what was sent ends with it.
    """

    start: int
    stop: int
    chunks: Callable[[], AsyncIterator[bytes]]
    acknowledge: Callable[[], Awaitable[None]]
    is_spooled: bool = False
    is_last: bool = False

    @property
    def size(self) -> int:
        return self.stop - self.start


class Buffers:
    """What bodies on their way may hold in memory: each of them a piece, and `count` at once BUFFER bytes."""

    def __init__(self, count: int, patience: float) -> None:
        self._permits = asyncio.Semaphore(count)
        self._patience = patience
        self._bodies = 0

    @property
    def piece(self) -> int:
        """Bytes that a body may gather before it hands them on: few where there are many."""
        return max(GATHERED_AT_LEAST, min(GATHERED, GATHERED_IN_ALL // max(1, self._bodies)))

    def enter(self) -> None:
        """One body more is on its way."""
        self._bodies += 1

    def leave(self) -> None:
        self._bodies -= 1

    async def take(self) -> None:
        """Raises OriginBusy."""
        try:
            async with asyncio.timeout(self._patience):
                await self._permits.acquire()
        except TimeoutError:
            raise OriginBusy("too many bodies of unknown length at once, and no disk to hold them") from None

    def give_back(self) -> None:
        self._permits.release()


async def _nothing_runs() -> bool:
    return False


class Body:
    """A body in parts. A part that is not spooled has to be sent before the next one is asked for; `close` it."""

    def __init__(self, chunks: AsyncIterator[bytes], length: int | None, spool: Spool | None, buffers: Buffers) -> None:
        self.length = length
        self._pieces = Pieces(chunks, length)
        self._spool = spool
        self._is_spooling = spool is not None
        self._buffers = buffers
        self._has_leave = False
        buffers.enter()
        self._at = 0  # bytes cut off
        self.make_room: Callable[[], Awaitable[bool]] = _nothing_runs
        """Returns once S3 has taken more of what is in the spool; False: none of it is under way."""

    async def part(self, size: int) -> Part:
        """The next one: `size` bytes, fewer at the end, and where memory is what holds them. With an unknown length
        the last one may be empty.

        Raises WriteRefused for a body shorter than its length; whatever the chunks raise; OriginBusy.
        """
        self._forget()
        start = self._at
        if self.length is not None:
            size = min(size, self.length - start)
        held = await self._fill(start, size) if self._is_spooling else start

        async def acknowledge() -> None:
            if self._spool is not None and start < held:
                await self._spool.acknowledge(start, held)

        if self._is_spooling:
            self._at = held
            is_last = held - start < size or await self._pieces.is_over()
            return Part(start, held, lambda: self._spooled(start, held), acknowledge, is_spooled=True, is_last=is_last)
        if self.length is not None:
            self._at = start + size
            rest = self._pieces.exactly(self._at - held)
            is_last = self._at == self.length
        else:
            data = await self._buffered(min(size - (held - start), BUFFER))
            self._at = held + len(data)
            rest = _pieces_of(data)
            is_last = await self._pieces.is_over()
        return Part(start, self._at, lambda: self._through(start, held, rest), acknowledge, is_last=is_last)

    def close(self) -> None:
        self._forget()
        self._buffers.leave()

    def _forget(self) -> None:
        if self._has_leave:
            self._has_leave = False
            self._buffers.give_back()

    async def _fill(self, start: int, size: int) -> int:
        """Into the spool, as far as it takes it. Returns where that ended."""
        assert self._spool is not None
        at, stop = start, start + size
        while at < stop and (data := await self._pieces.up_to(min(self._buffers.piece, stop - at))):
            if not await self._is_taken(self._spool, data):
                self._is_spooling = False
                self._pieces.unread(data)
                break
            at += len(data)
        return at

    async def _is_taken(self, spool: Spool, data: bytes) -> bool:
        while True:
            try:
                await spool.write(data)
            except StoreFull as error:
                if not await self.make_room():
                    log.info("an upload goes on without the disk: %s", error)
                    return False
            except StoreError as error:
                log.info("an upload goes on without the disk: %s", error)
                return False
            else:
                return True

    async def _spooled(self, start: int, stop: int) -> AsyncIterator[bytes]:
        if self._spool is not None and start < stop:
            async for piece in self._spool.read(start, stop):
                yield piece

    async def _through(self, start: int, held: int, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What the spool took of a part, then the rest of it."""
        async for piece in self._spooled(start, held):
            yield piece
        async for piece in rest:
            yield piece

    async def _buffered(self, size: int) -> bytes:
        data = await self._pieces.up_to(min(size, SMALL_BUFFER))
        if len(data) < min(size, SMALL_BUFFER) or size <= SMALL_BUFFER:
            return data
        await self._buffers.take()
        self._has_leave = True
        return data + await self._pieces.up_to(size - len(data))


async def _pieces_of(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), GATHERED):
        yield data[at : at + GATHERED]
