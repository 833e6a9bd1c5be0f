"""A body on its way to S3, in a file of the cache. After S3 has the body, the file becomes the entry of its key.

Rule 1: space is taken from the budget before bytes are written: space bound (docs/invariants.md#space-bound).
Rule 2: if the whole body does not fit, the file is a window: blocks that S3 has acknowledged are punched out.
The same holds if the client's uploads have used up their share of the cache (docs/invariants.md#fair-share).
Rule 3: if the disk refuses bytes, only the file ends. The upload continues without it
(docs/invariants.md#disk-faults-degrade).
Rule 4: bytes are compared with their checksums when they are read, so that S3 never gets bytes that the disk damaged.

A call on the file that has begun runs to its end even if its caller is cancelled. The file is closed after that.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from itertools import groupby
from typing import Any, TypeVar

from bucketfront.cache.entries.budget import Budget
from bucketfront.cache.entries.entry import ENTRY_BYTES, Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.fetch.part_fetch import Space
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.file_storage import DISK_TIMEOUT_S
from bucketfront.cache.storage.storage import Storage, StoredFile
from bucketfront.cache.upkeep.disposal import Disposal
from bucketfront.errors import StoreError, StoreFull
from bucketfront.fair_share import Shares, UsedUp, current_client
from bucketfront.http.ranges import Span
from bucketfront.keys import ObjectKey
from bucketfront.task_set import TaskSet

T = TypeVar("T")

READ_BYTES = 256 << 10  # in one read, rounded down to whole blocks

log = logging.getLogger(__name__)


class Upload:
    """One body in a file. Close it; after it was published, `close` does nothing. Lives in the event loop.

    `length` is in bytes, None if the client did not declare it. `space` takes bytes from `budget` or raises
    StoreError. `shares` are what clients may have of it. `spare_descriptors` makes room for one more descriptor.
    """

    def __init__(
        self,
        key: ObjectKey,
        length: int | None,
        *,
        store: Storage,
        budget: Budget,
        disposal: Disposal,
        space: Space,
        spare_descriptors: Callable[[], Awaitable[None]],
        block_size: int,
        shares: Shares,
    ) -> None:
        self.key = key
        self.size = 0  # bytes of the body that were written to the file, also those punched out since
        self._store = store
        self._budget = budget
        self._disposal = disposal
        self._space = space
        self._spare_descriptors = spare_descriptors
        self._block_size = block_size
        self._file: StoredFile | None = None
        self._charged = 0  # bytes taken from the budget
        self._shares = shares
        self._client = current_client()
        self._sums: dict[int, int] = {}  # CRC-32 of each block as far as it is in the file
        self._checksum = 0  # of the last block so far, if that is not whole yet
        self._is_window = length is not None and length + ENTRY_BYTES > budget.limit
        self._acknowledged: dict[int, int] = {}  # bytes that S3 has of each block that is still in the file
        self._failure: StoreError | None = None
        self._calls = TaskSet()
        self._is_kept = False  # `publish` decides about the file, and `close` does nothing
        self._is_over = False  # handed over, or discarded

    def __repr__(self) -> str:
        kind = "window" if self._is_window else "failed" if self._failure else "whole"
        return f"<Upload {self.key} {self.size} bytes, {kind}>"

    @property
    def is_whole(self) -> bool:
        """Return whether the file has all bytes that were written, and no call on it runs."""
        return self._failure is None and not self._is_window and not self._calls

    async def write(self, data: bytes) -> None:
        """Append `data`, or none of it. What was written before stays readable in any case.

        Raises StoreFull if there is no space until S3 acknowledges more. Raises StoreError if the file takes no more.
        """
        if self._failure is not None:
            raise self._failure
        await self._shielded(self._write(data))

    async def _write(self, data: bytes) -> None:
        try:
            if self._file is None:
                await self._create()
            await self._reserve_for(len(data))
            sums = await self._space.fit(lambda: self._append(data), len(data))
        except StoreFull:
            # The whole body does not fit. From now on the file has only the bytes that S3 does not have.
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
        await self._space.reserve(ENTRY_BYTES, files=1)
        self._charge(ENTRY_BYTES)
        self._file = await self._space.fit(lambda: self._store.create(0), ENTRY_BYTES)

    async def _append(self, data: bytes) -> list[int]:
        assert self._file is not None
        return await self._store.write(self._file, self.size, data, self._checksum, self._block_size)

    async def _reserve_for(self, count: int) -> None:
        needed = _on_disk(self.size + count) - _on_disk(self.size)
        try:
            await self._reserve(needed)
        except StoreFull:
            self._is_window = True
            await self._punch_acknowledged()
            await self._reserve(needed)

    async def _reserve(self, count: int) -> None:
        """Take bytes from the budget. Raises StoreFull, also if the client has used up its share."""
        if self._shares.refusal(self._client, count) is UsedUp.SHARE:
            raise StoreFull("uploads of one client have their share of the cache")
        await self._space.reserve(count)
        self._charge(count)

    def _charge(self, count: int) -> None:
        self._charged += count
        self._shares.take(self._client, count)

    def _discharge(self, count: int) -> None:
        self._charged -= count
        self._shares.give_back(self._client, count)

    async def acknowledge(self, start: int, stop: int) -> None:
        """Note that S3 has these bytes, so that they are not read again for S3."""
        for block in blocks.covering(Span(start, stop), self._block_size):
            begin = block * self._block_size
            count = min(stop, begin + self._block_size) - max(start, begin)
            self._acknowledged[block] = self._acknowledged.get(block, 0) + count
        if self._is_window:
            await self._shielded(self._punch_acknowledged())

    async def _punch_acknowledged(self) -> None:
        """Punch out the whole blocks that S3 has."""
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
            self._failure = error  # the bytes stay charged until the file is removed
        else:
            self._discharge(span.length)
            self._budget.give_back(span.length)

    async def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes [start, stop) of the body, in pieces. The same bytes can be read several times.

        Raises StoreError if the disk failed, or returned other bytes than were written.
        """
        size = self._block_size
        step = max(1, READ_BYTES // size) * size
        for begin in range(start // size * size, stop, step):
            # Read whole blocks, the last one as far as it was written, because these have checksums.
            span = Span(begin, min(begin + step, -(-stop // size) * size, self.size))
            sums = [self._sums[block] for block in blocks.covering(span, size)]
            assert self._file is not None
            data = await self._shielded(self._read(self._file, span, sums))
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
        """Make `close` do nothing, so that the file stays until `hand_over` or `discard`."""
        self._is_kept = True

    def hand_over(self, entries: EntryTable, entry: Entry) -> None:
        """Give the file to the entry, with all blocks present."""
        assert self.is_whole
        self._is_over = True
        if self._file is not None:
            entries.attach_complete(entry, self._file, self._sums, self._charged)
        self._shares.give_back(self._client, self._charged)

    def close(self) -> None:
        """Remove the file in the background, unless the upload is being published."""
        if not self._is_kept:
            self.discard()

    def discard(self) -> None:
        """Remove the file in the background, unless an entry has it."""
        if not self._is_over:
            self._is_over = True
            self._disposal.in_background(self._remove())

    async def _remove(self) -> None:
        await self._calls.wait()
        try:
            if self._file is not None:
                try:
                    await self._store.remove(self._file.name)
                finally:
                    await self._store.close_file(self._file)
        except StoreError as error:
            # Its bytes stay charged, and the next start removes it.
            log.warning("the file of an upload to %s is left behind: %s", self.key, error)
        else:
            self._budget.give_back(self._charged)
        self._shares.give_back(self._client, self._charged)

    async def _shielded(self, call: Coroutine[Any, Any, T]) -> T:
        """Return the result of `call`, which runs to its end even if the caller is cancelled, or the disk hangs.

        Raises StoreError after the disk's timeout: deadlines everywhere (docs/invariants.md#deadlines-everywhere).
        """
        try:
            async with asyncio.timeout(DISK_TIMEOUT_S):
                return await self._calls.run(call)
        except TimeoutError as error:
            self._store.note_failure("it does not answer")
            self._failure = StoreError(f"the disk did not answer within {DISK_TIMEOUT_S:g} s")
            raise self._failure from error


def _on_disk(size: int) -> int:
    return -(-size // blocks.ALLOCATION_UNIT) * blocks.ALLOCATION_UNIT
