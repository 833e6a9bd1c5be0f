"""A body on its way to S3, in a file of the cache: when S3 has it, the file becomes the entry of its key.

Rule 1: space is taken from the budget before it is written (I17).
Rule 2: a file that does not have room for all of it is a window: what S3 has taken is given back to the disk.
Rule 3: what the disk refuses ends the file, not the upload: whoever writes goes on without (I16).
Rule 4: what is read is compared with what was written, or S3 would be given what went bad on our disk (I15).

Work on the file that has begun is finished, whoever is cancelled: its descriptor is closed after that (I12).
"""

import asyncio
import zlib
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from proxy.cache import blocks
from proxy.cache.disposal import Disposal
from proxy.cache.entry import ENTRY_BYTES
from proxy.cache.store import Store, StoredFile
from proxy.errors import StoreError, StoreFull
from proxy.http.ranges import Span
from proxy.keys import ObjectKey

if TYPE_CHECKING:
    from proxy.cache.budget import Budget

T = TypeVar("T")

PIECE = 512 << 10  # bytes read at once, in whole blocks


class Writing:
    """`length` in bytes, None where the client did not say. `reserve` takes bytes from `budget` or raises StoreError;
    `spare_descriptors` makes room for one more. Close it; once it was published, that does nothing.
    """

    def __init__(
        self,
        key: ObjectKey,
        length: int | None,
        *,
        store: Store,
        budget: "Budget",
        disposal: Disposal,
        reserve: Callable[[int], Awaitable[None]],
        spare_descriptors: Callable[[], Awaitable[None]],
        block_size: int,
    ) -> None:
        self.key = key
        self.size = 0  # bytes of the body that came into the file, those given back among them
        self._store = store
        self._budget = budget
        self._disposal = disposal
        self._reserve = reserve
        self._spare_descriptors = spare_descriptors
        self._block_size = block_size
        self._file: StoredFile | None = None
        self._charged = 0  # bytes taken from the budget
        self._sums = array("I")  # CRC-32 of whole blocks, from block `_first_sum` on
        self._first_sum = 0
        self._checksum = 0  # of the block that is not whole yet, so far
        self._is_window = length is not None and length + ENTRY_BYTES > budget.limit
        self._taken: list[Span] = []  # by S3, and still in the file
        self._failure: StoreError | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        kind = "window" if self._is_window else "failed" if self._failure else "whole"
        return f"<Writing {self.key} {self.size} bytes, {kind}>"

    @property
    def is_whole(self) -> bool:
        """All that was to be written is in the file."""
        return self._failure is None and not self._is_window

    async def write(self, data: bytes) -> None:
        """Append. Raises StoreFull: there is no room now, there may be some once more was `taken`; StoreError: it
        takes no more. Either way nothing of `data` is in it, and what was written before can still be read.
        """
        if self._failure is not None:
            raise self._failure
        await self._finished(self._write(data))

    async def _write(self, data: bytes) -> None:
        try:
            if self._file is None:
                await self._create()
            assert self._file is not None
            await self._make_room(len(data))
            sums = await self._store.write(self._file, self.size, data, self._checksum, self._block_size)
        except StoreFull:
            raise
        except StoreError as error:
            self._failure = error
            raise
        self.size += len(data)
        *whole, last = sums
        self._sums.extend(whole)
        if self.size % self._block_size:
            self._checksum = last
        else:
            self._sums.append(last)
            self._checksum = 0

    async def _create(self) -> None:
        if not self._store.is_usable:
            raise StoreError("the disk failed a moment ago")
        await self._spare_descriptors()
        await self._reserve(ENTRY_BYTES)
        self._charged += ENTRY_BYTES
        self._file = await self._store.create(0)

    async def _make_room(self, count: int) -> None:
        needed = _on_disk(self.size + count) - _on_disk(self.size)
        try:
            await self._reserve(needed)
        except StoreFull:
            # It does not fit as a whole: from here on it is what S3 does not have yet.
            self._is_window = True
            if not self._taken:
                raise
            await self._give_back()
            await self._reserve(needed)
        self._charged += needed

    async def taken(self, start: int, stop: int) -> None:
        """S3 has these bytes: nobody will read them again on the way to it."""
        self._taken.append(Span(start, stop))
        if self._is_window:
            await self._finished(self._give_back())

    async def _give_back(self) -> None:
        taken, self._taken = self._taken, []
        for span in taken:
            assert self._file is not None
            try:
                await self._store.punch(self._file, span)
            except StoreError as error:
                self._failure = error
                return  # charged until the file is gone
            count = _on_disk(span.stop) - _on_disk(span.start)
            self._charged -= count
            self._budget.give_back(count)

    async def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes [start, stop) of the body, in pieces, as they were written. May be asked for again.

        Raises StoreError: the disk failed, or has other bytes than it was given.
        """
        size = self._block_size
        step = max(1, PIECE // size) * size
        for begin in range(start // size * size, stop, step):
            span = Span(begin, min(begin + step, -(-stop // size) * size, self.size))
            assert self._file is not None
            data = await self._finished(self._read(self._file, span))
            yield data[max(0, start - begin) : stop - begin]

    async def _read(self, file: StoredFile, span: Span) -> bytes:
        try:
            data = await self._store.read(file, span)
        except EOFError as error:
            raise StoreError(f"the file of an upload lost its end: {error}") from error
        known = self._known(span)
        if await asyncio.to_thread(_differs, data, self._block_size, known):
            raise StoreError(f"the disk has other bytes of the upload to {self.key} than it was given")
        return data

    def _known(self, span: Span) -> list[int]:
        """The checksums of these blocks; of the last one perhaps none, as long as it grows."""
        first = span.start // self._block_size - self._first_sum
        return list(self._sums[first : first + len(blocks.covering(span, self._block_size))])

    def _finished(self, work: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return asyncio.shield(task)

    def close(self) -> None:
        """The file goes, in the background, unless it was handed over."""
        if self._is_closed:
            return
        self._is_closed = True


def _on_disk(size: int) -> int:
    return -(-size // blocks.ALLOCATION_UNIT) * blocks.ALLOCATION_UNIT


def _differs(data: bytes, block_size: int, known: list[int]) -> bool:
    view = memoryview(data)
    return any(zlib.crc32(view[at * block_size : (at + 1) * block_size]) != crc for at, crc in enumerate(known))
