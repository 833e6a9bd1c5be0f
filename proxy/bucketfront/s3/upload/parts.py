"""A body in parts, and the place where the bytes of each part wait until S3 has them.

Theory of operation
-------------------
`UploadBody.part` cuts the next part off a body. `PartRoute` is the way that its bytes take:

    route    length   bytes wait                             a part may be sent
    SPOOL    any      in the spool                           again, and beside others
    STREAM   known    at the client, except the first ones   once, before the next part is cut
    MEMORY   unknown  in memory, at most MAX_BUFFER_BYTES    once, before the next part is cut

A body with a spool begins in SPOOL, others in STREAM or MEMORY. A spool that refuses bytes ends SPOOL for good, because
it holds the bytes of one body in order. STREAM needs the length, because S3 wants to know it before the first byte. The
first SMALL_BUFFER_BYTES of such a part are received before it is cut: a client that sends nothing, or slowly sends a
small body, holds no connection to S3.
The part in which the route changes begins with the bytes that the spool has, and goes on with the others.

A spool that is only full refuses no bytes while parts from it are on their way: their end makes room (`make_room`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto

from bucketfront.errors import OriginBusy, StoreError, StoreFull, WriteRefused
from bucketfront.s3.upload.multipart import MAX_PARTS
from bucketfront.s3.upload.spool import Spool

MiB = 1 << 20
PART_SIZE = 8 * MiB  # bytes of each part, as far as MAX_PARTS allows: a retry repeats no more than this
EQUAL_PARTS = 1_000  # of a body of unknown length; later ones grow, so that MAX_PARTS hold S3's largest object, 5 TiB
GROWTH_PARTS = 60  # parts after which they are PART_SIZE larger
MAX_GATHER_BYTES = 512 << 10  # written to the spool at once, while few bodies are on their way
MIN_GATHER_BYTES = 64 << 10  # the same while many are: below this the calls cost more than the copying
ALL_GATHER_BYTES = 16 << 20  # of all bodies, as long as each may have its minimum (docs/invariants.md#memory)
MAX_BUFFER_BYTES = 8 * MiB  # of a part in memory: above S3's smallest part of 5 MiB
SMALL_BUFFER_BYTES = 64 << 10  # of a body in memory that need no permit of the limiter

log = logging.getLogger(__name__)


def part_size(number: int, length: int | None) -> int:
    """Return the bytes of part `number`, from 1, of a body of `length` bytes, or of unknown length.

    With a known length all parts but the last are equal, because some compatible servers require it.
    """
    if length is not None:
        return PART_SIZE if length <= MAX_PARTS * PART_SIZE else -(-length // MAX_PARTS // MiB) * MiB
    return PART_SIZE * (1 + max(0, number - EQUAL_PARTS) // GROWTH_PARTS)


class ChunkReader:
    """Reads exact numbers of bytes from chunks of any size. `length` is that of the stream in bytes, if it is known."""

    def __init__(self, chunks: AsyncIterator[bytes], length: int | None) -> None:
        self._chunks = chunks
        self._unread = b""
        self._left = length

    async def exactly(self, count: int) -> AsyncIterator[bytes]:
        """Yield the next `count` bytes as they come. Raises WriteRefused if the stream has fewer."""
        while count:
            chunk = await self._next()
            if not chunk:
                missing = count if self._left is None else self._left
                raise WriteRefused(f"the body ended {missing} bytes early")
            self._unread = chunk[count:]
            chunk = chunk[:count]
            count -= len(chunk)
            yield chunk

    async def up_to(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer at the end. Raises WriteRefused if a known length is not reached."""
        gathered: list[bytes] = []
        missing = count
        while missing and (chunk := await self._next()):
            self._unread = chunk[missing:]
            gathered.append(chunk[:missing])
            missing -= len(gathered[-1])
        if self._left is not None and missing:
            raise WriteRefused(f"the body ended {self._left} bytes early")
        return b"".join(gathered)

    async def is_over(self) -> bool:
        """Return whether all bytes were read. Waits for the next bytes if the length is unknown."""
        if self._left is not None:
            return not self._left and not self._unread
        self._unread = await self._next()
        return not self._unread

    def unread(self, data: bytes) -> None:
        """Put `data` back in front of the stream."""
        self._unread = data + self._unread

    async def _next(self) -> bytes:
        if self._unread:
            return self._unread
        if self._left == 0:
            return b""
        chunk = await anext(self._chunks, b"")
        if self._left is not None:
            chunk = chunk[: self._left]
            self._left -= len(chunk)
        return chunk


@dataclass(frozen=True, slots=True)
class BodyPart:
    """The bytes [start, stop) of a body.

    `chunks` yields them, again with each call if `is_spooled`, else once. `acknowledge` is called once S3 has them.
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


class BufferLimiter:
    """Bounds the memory of all bodies: each gathers some bytes, and `count` at once hold MAX_BUFFER_BYTES.

    `permit_timeout` is how many seconds a body waits for a permit to hold so many.
    """

    def __init__(self, count: int, permit_timeout: float) -> None:
        self._permits = asyncio.Semaphore(count)
        self._permit_timeout = permit_timeout
        self._bodies = 0

    @property
    def gather_bytes(self) -> int:
        """Return how many bytes a body may gather before it hands them on: the fewer, the more bodies there are."""
        return max(MIN_GATHER_BYTES, min(MAX_GATHER_BYTES, ALL_GATHER_BYTES // max(1, self._bodies)))

    def enter(self) -> None:
        """Count a body that is on its way, until `leave`."""
        self._bodies += 1

    def leave(self) -> None:
        self._bodies -= 1

    async def acquire(self) -> None:
        """Wait for a permit. Raises OriginBusy if none comes free in time."""
        try:
            async with asyncio.timeout(self._permit_timeout):
                await self._permits.acquire()
        except TimeoutError:
            raise OriginBusy("too many bodies of unknown length at once, and no disk to hold them") from None

    def release(self) -> None:
        self._permits.release()


class PartRoute(Enum):
    """The way of a part's bytes to S3, see the head of this module."""

    SPOOL = auto()
    STREAM = auto()
    MEMORY = auto()


async def _no_part_runs() -> bool:
    return False


class UploadBody:
    """A body in parts. A part that is not spooled has to be sent before the next one is cut. `close` it at the end."""

    def __init__(
        self, chunks: AsyncIterator[bytes], length: int | None, spool: Spool | None, limiter: BufferLimiter
    ) -> None:
        self.length = length
        self._reader = ChunkReader(chunks, length)
        self._spool = spool
        self._route = PartRoute.SPOOL if spool is not None else self._route_without_spool()
        self._limiter = limiter
        self._has_permit = False
        limiter.enter()
        self._at = 0  # bytes that were cut off
        self.make_room: Callable[[], Awaitable[bool]] = _no_part_runs
        """Wait until S3 has more of what is in the spool. Returns False if no part of it is on its way."""

    async def part(self, size: int) -> BodyPart:
        """Cut off the next part: `size` bytes, or fewer at the end and in memory.

        The last part of a body of unknown length may be empty. Raises WriteRefused for a body shorter than its length,
        OriginBusy; what the chunks raise passes through.
        """
        self._release_permit()
        start = self._at
        if self.length is not None:
            size = min(size, self.length - start)
        spooled = await self._fill_spool(start, size) if self._route is PartRoute.SPOOL else start

        async def acknowledge() -> None:
            if self._spool is not None and start < spooled:
                await self._spool.acknowledge(start, spooled)

        if self._route is PartRoute.SPOOL:
            self._at = spooled
            is_last = spooled - start < size or await self._reader.is_over()
            return BodyPart(
                start, spooled, lambda: self._from_spool(start, spooled), acknowledge, is_spooled=True, is_last=is_last
            )
        if self._route is PartRoute.STREAM:
            self._at = start + size
            first = await self._reader.up_to(min(SMALL_BUFFER_BYTES, self._at - spooled))
            rest = _joined(first, self._reader.exactly(self._at - spooled - len(first)))
            is_last = self._at == self.length
        else:
            data = await self._fill_memory(min(size - (spooled - start), MAX_BUFFER_BYTES))
            self._at = spooled + len(data)
            rest = _chunks_of(data)
            is_last = await self._reader.is_over()
        return BodyPart(
            start, self._at, lambda: self._spool_and_rest(start, spooled, rest), acknowledge, is_last=is_last
        )

    def close(self) -> None:
        """Return what the body holds of the limiter."""
        self._release_permit()
        self._limiter.leave()

    def _release_permit(self) -> None:
        if self._has_permit:
            self._has_permit = False
            self._limiter.release()

    def _route_without_spool(self) -> PartRoute:
        return PartRoute.MEMORY if self.length is None else PartRoute.STREAM

    async def _fill_spool(self, start: int, size: int) -> int:
        """Write up to `size` bytes into the spool, or leave its route. Return the offset at which the spool ends."""
        assert self._spool is not None
        at, stop = start, start + size
        while at < stop and (data := await self._reader.up_to(min(self._limiter.gather_bytes, stop - at))):
            if not await self._write_to(self._spool, data):
                self._route = self._route_without_spool()
                self._reader.unread(data)
                break
            at += len(data)
        return at

    async def _write_to(self, spool: Spool, data: bytes) -> bool:
        """Write `data` as soon as there is room. Returns False if the spool refuses it."""
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

    async def _fill_memory(self, size: int) -> bytes:
        data = await self._reader.up_to(min(size, SMALL_BUFFER_BYTES))
        if len(data) < min(size, SMALL_BUFFER_BYTES) or size <= SMALL_BUFFER_BYTES:
            return data
        await self._limiter.acquire()
        self._has_permit = True
        return data + await self._reader.up_to(size - len(data))

    async def _from_spool(self, start: int, stop: int) -> AsyncIterator[bytes]:
        if self._spool is not None and start < stop:
            async for chunk in self._spool.read(start, stop):
                yield chunk

    async def _spool_and_rest(self, start: int, spooled: int, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield what the spool has of a part, then the rest of it."""
        async for chunk in self._from_spool(start, spooled):
            yield chunk
        async for chunk in rest:
            yield chunk


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk


async def _chunks_of(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), MAX_GATHER_BYTES):
        yield data[at : at + MAX_GATHER_BYTES]
