"""A body on its way to S3, in a file of the cache: when S3 has it, the file becomes the entry of its key.

Rule 1: space is taken from the budget before it is written (I17).
Rule 2: a file that does not have room for all of it is a window: what S3 has taken is given back to the disk.
Rule 3: what the disk refuses ends the file, not the upload: whoever writes goes on without (I16).
Rule 4: what is read is compared with what was written, or S3 would be given what went bad on our disk (I15).

Work on the file that has begun is finished, whoever is cancelled: its descriptor is closed after that (I12).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from itertools import groupby
from typing import Any, TypeVar

from bucketfront.cache.entries.budget import Budget
from bucketfront.cache.entries.entry import ENTRY_BYTES, Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.file_storage import PATIENCE
from bucketfront.cache.storage.storage import Storage, StoredFile
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.errors import StoreError, StoreFull
from bucketfront.http.ranges import Span
from bucketfront.keys import ObjectKey

T = TypeVar("T")

PIECE = 256 << 10  # bytes read at once, in whole blocks

log = logging.getLogger(__name__)


class Upload:
    """`length` in bytes, None where the client did not say. `reserve` takes bytes from `budget` or raises StoreError;
    `spare_descriptors` makes room for one more. Close it; once it was published, that does nothing.
    """

    def __init__(
        self,
        key: ObjectKey,
        length: int | None,
        *,
        store: Storage,
        budget: Budget,
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
        self._sums: dict[int, int] = {}  # CRC-32 of what the file has of each block
        self._checksum = 0  # of the block that is not whole yet, so far
        self._is_window = length is not None and length + ENTRY_BYTES > budget.limit
        self._acknowledged: dict[int, int] = {}  # bytes of each block that S3 has, of those that are still in the file
        self._failure: StoreError | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._is_kept = False  # in the cache's hands
        self._is_over = False  # handed over, or discarded

    def __repr__(self) -> str:
        kind = "window" if self._is_window else "failed" if self._failure else "whole"
        return f"<Writing {self.key} {self.size} bytes, {kind}>"

    @property
    def is_whole(self) -> bool:
        """All that was to be written is in the file, and nobody is at work on it."""
        return self._failure is None and not self._is_window and not self._work

    async def write(self, data: bytes) -> None:
        """Append. Raises StoreFull: there is no room now, there may be some once more was acknowledged; StoreError: it
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
            # It does not fit as a whole: from here on it is what S3 does not have yet.
            self._is_window = True
            raise
        except StoreError as error:
            self._failure = error
            raise
        first = self.size // self._block_size
        self.size += len(data)
        for block, checksum in enumerate(sums, first):
            self._sums[block] = checksum
        self._checksum = sums[-1] if self.size % self._block_size else 0

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
            self._is_window = True
            await self._give_back()
            await self._reserve(needed)
        self._charged += needed

    async def acknowledge(self, start: int, stop: int) -> None:
        """S3 has these bytes: nobody will read them again on the way to it."""
        for block in blocks.covering(Span(start, stop), self._block_size):
            begin = block * self._block_size
            count = min(stop, begin + self._block_size) - max(start, begin)
            self._acknowledged[block] = self._acknowledged.get(block, 0) + count
        if self._is_window:
            await self._finished(self._give_back())

    async def _give_back(self) -> None:
        """Whole blocks that S3 has."""
        spare = sorted(block for block, count in self._acknowledged.items() if count == self._block_size)
        for block in spare:
            del self._acknowledged[block]
            del self._sums[block]
        for _, members in groupby(enumerate(spare), lambda numbered: numbered[1] - numbered[0]):
            run = [block for _, block in members]
            await self._punch(Span(run[0] * self._block_size, (run[-1] + 1) * self._block_size))

    async def _punch(self, span: Span) -> None:
        assert self._file is not None
        try:
            await self._store.punch(self._file, span)
        except StoreError as error:
            self._failure = error  # charged until the file is gone
        else:
            self._charged -= span.length
            self._budget.give_back(span.length)

    async def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes [start, stop) of the body, in pieces, as they were written. May be asked for again.

        Raises StoreError: the disk failed, or has other bytes than it was given.
        """
        size = self._block_size
        step = max(1, PIECE // size) * size
        for begin in range(start // size * size, stop, step):
            # Whole blocks, the last of them as far as it has come: of these the checksums are known.
            span = Span(begin, min(begin + step, -(-stop // size) * size, self.size))
            sums = [self._sums[block] for block in blocks.covering(span, size)]
            assert self._file is not None
            data = await self._finished(self._read(self._file, span, sums))
            yield data[max(0, start - begin) : stop - begin]

    async def _read(self, file: StoredFile, span: Span, sums: list[int]) -> bytes:
        try:
            data = await self._store.read_known(file, span, sums, self._block_size)
        except EOFError as error:
            raise StoreError(f"the file of the upload to {self.key} lost its end: {error}") from error
        if data is None:
            raise StoreError(f"the disk has other bytes of the upload to {self.key} than it was given")
        return data

    def keep(self) -> None:
        """It is in the cache's hands now: `close` does nothing, `discard` does."""
        self._is_kept = True

    def hand_over(self, entries: EntryTable, entry: Entry) -> None:
        """The file becomes the entry's, with all of its blocks present."""
        assert self.is_whole
        self._is_over = True
        if self._file is not None:
            entries.fill_from(entry, self._file, self._sums, self._charged)

    def close(self) -> None:
        """Its writer is done with it. The file goes in the background, unless it was published."""
        if not self._is_kept:
            self.discard()

    def discard(self) -> None:
        """The file goes in the background, unless it is an entry's."""
        if not self._is_over:
            self._is_over = True
            self._disposal.in_background(self._remove())

    async def _remove(self) -> None:
        while self._work:
            await asyncio.wait(self._work)
        try:
            if self._file is not None:
                try:
                    await self._store.remove(self._file.name)
                finally:
                    await self._store.close_file(self._file)
        except StoreError as error:
            # Its bytes stay charged, the next start sweeps it.
            log.warning("the file of an upload to %s is left behind: %s", self.key, error)
        else:
            self._budget.give_back(self._charged)

    async def _finished(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives; cancelled, it goes on all the same, and so it does when the disk does not answer (I20)."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(task)
        except TimeoutError as error:
            self._store.failed("it does not answer")
            self._failure = StoreError(f"the disk did not answer within {PATIENCE:g} s")
            raise self._failure from error

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # told to the one who waits, or of interest to nobody


def _on_disk(size: int) -> int:
    return -(-size // blocks.ALLOCATION_UNIT) * blocks.ALLOCATION_UNIT
