"""The bytes of uploads that are here and not at S3: in a file for the next part, counted against the cache's space.

Rule 1: space is taken from the budget before it is written, and given back after the file is gone (I17).
Rule 2: files take a share of that space, beyond which what waits for a client that does not come is dropped (I17).
Rule 3: where the disk refuses, bytes wait in memory (I16), MAX_HELD in all; what memory loses, the client sends again.
"""

import logging
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from bucketfront.cache import Budget
from bucketfront.errors import StoreError, StoreFull
from bucketfront.s3.upload.parts import PART_SIZE
from bucketfront.tus.tus_upload import TusUpload
from bucketfront.tus.uninterrupted import settled
from bucketfront.tus.upload_folder import HEAD_SIZE, Gone, UploadFolder

PIECE = 64 << 10  # bytes gathered before they are written, and read at once; what a client that stalls costs (I19)
MAX_HELD = 64 << 20  # bytes of all uploads in memory, where the disk takes none
_BAD = "what waited on the disk is not what was written"
SHARE = 0.5  # of the cache's space, for files: what is cached must not all give way to uploads that nobody ends
_ASIDE = 0  # S3 counts parts from 1
PAGE = 4096  # bytes: the disk's own unit

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StagingSpace:
    """The cache's: `reserve` takes bytes from `budget`, or raises StoreError."""

    reserve: Callable[[int], Awaitable[None]]
    budget: Budget


class ShareTaken(StoreFull):
    """As many bytes of uploads wait in files as may."""


class PartStaging:
    """`make_way` drops what waits of an upload that nobody goes on with; False where there is none."""

    def __init__(self, folder: UploadFolder, space: StagingSpace, make_way: Callable[[], Awaitable[bool]]) -> None:
        self.folder = folder
        self._space = space
        self._make_way = make_way
        self._in_files = 0  # bytes taken from the budget
        self._held = 0  # bytes of all uploads in memory
        self._left: list[tuple[TusUpload, int, int]] = []  # as `remove` was told

    async def keep(self, upload: TusUpload, gathered: bytearray) -> None:
        """Move what fits into the next part from `gathered` to where it waits. Raises StoreFull: it is nowhere. Gone:
        nor is what waited before.
        """
        data = bytes(gathered[: upload.room])
        if upload.held:
            self._hold(upload, data)
        else:
            try:
                await self._write(upload, data)
                upload.came(data, in_file=True)
            except Gone:
                await self.clear(upload)
                raise
            except ShareTaken:
                raise
            except StoreError as error:
                log.warning("bytes of %r wait in memory: %s", upload, error)
                self._hold(upload, data)
        del gathered[: len(data)]

    def _hold(self, upload: TusUpload, data: bytes) -> None:
        self.hold(len(data))
        upload.came(data, in_file=False)

    def hold(self, count: int) -> None:
        """Take so many bytes of memory. Raises StoreFull."""
        if self._held + count > MAX_HELD:
            raise StoreFull("too many bytes of uploads wait in memory, for the disk takes none")
        self._held += count

    def release(self, count: int) -> None:
        self._held -= count

    async def _write(self, upload: TusUpload, data: bytes) -> None:
        size, checksum = upload.in_file + len(data), zlib.crc32(data, upload.checksum)
        grows = file_pages(size) - file_pages(upload.in_file)
        await self.reserve(grows)
        try:
            await self.folder.write(upload.id, upload.record.next_part, upload.in_file, data, checksum)
        except BaseException:
            self._give_back(grows)
            raise

    async def reserve(self, count: int) -> None:
        """Take so many bytes for a file. Raises ShareTaken, StoreError."""
        # One part has its place in a small cache, too.
        while self._in_files + count > max(self._space.budget.limit * SHARE, PART_SIZE):
            if not await self._make_way():
                raise ShareTaken("as many bytes of uploads wait on the disk as may")
        self._in_files += count
        try:
            await self._space.reserve(count)
        except BaseException:
            self._in_files -= count
            raise

    def restored(self, upload: TusUpload) -> None:
        """What is there is counted, even where it is more than there may be: the cache makes room (I17)."""
        self._in_files += file_pages(upload.in_file)
        self._space.budget.take(file_pages(upload.in_file))

    def _give_back(self, count: int) -> None:
        self._in_files -= count
        self._space.budget.give_back(count)

    async def read(self, upload: TusUpload) -> AsyncIterator[bytes]:
        """All that waits. Bytes that are not what was written are never given as a whole (I15): the client sends them
        again. Raises StoreError.
        """
        held = bytes(upload.held)
        try:
            async for piece in self._read_file(upload):
                yield piece
        except StoreError:
            await settled(self.clear(upload))
            raise
        if held:
            yield held

    async def _read_file(self, upload: TusUpload) -> AsyncIterator[bytes]:
        """The last piece only if the CRC-32 is right. Raises StoreError."""
        at, found, size, checksum = 0, 0, upload.in_file, upload.checksum
        while at < size:
            piece = await self.folder.read(upload.id, upload.record.next_part, at, min(PIECE, size - at))
            at += len(piece)
            found = zlib.crc32(piece, found)
            if not piece or (at == size and found != checksum):
                raise StoreError(_BAD)
            yield piece

    async def clear(self, upload: TusUpload) -> None:
        """What waited is lost."""
        part = upload.record.next_part
        await self.remove(upload, part, self.left(upload))

    def left(self, upload: TusUpload) -> int:
        """Nothing waits any more. Returns the size of the file that is to be removed."""
        size = upload.in_file
        self.release(len(upload.held))
        upload.left()
        return size

    async def remove(self, upload: TusUpload, part: int, size: int) -> None:
        """The file of `size` bytes that waited for a part."""
        if not size:
            return
        try:
            await self.folder.remove(upload.id, part)
        except StoreError as error:
            log.warning("a file of %r could not be removed: %s", upload, error)
            self._left.append((upload, part, size))
            return
        self._give_back(file_pages(size))

    async def sweep(self) -> None:
        """What could not be removed, once more; later, where its upload is at work."""
        left, self._left = self._left, []
        for upload, part, size in left:
            if upload.is_busy:
                self._left.append((upload, part, size))
            elif upload.in_file and part == upload.record.next_part:
                self._give_back(file_pages(size))  # a new one took its place
            else:
                await self.remove(upload, part, size)

    def aside(self, upload: TusUpload) -> "Aside":
        """For bytes that do not count yet. `clear` it."""
        return Aside(self, upload)


class Aside:
    """Bytes of one request until more is known of them: in a file of their own, that of part 0, and in memory where
    the disk takes no more.
    """

    def __init__(self, waiting: PartStaging, upload: TusUpload) -> None:
        self._waiting = waiting
        self._upload = upload
        self._size = 0
        self._sums: list[tuple[int, int]] = []  # of each piece in the file: its size, its CRC-32
        self._held = deque[bytes]()

    async def write(self, data: bytes) -> None:
        """Raises StoreFull."""
        if not self._held:
            try:
                await self._write(data)
                return
            except ShareTaken:
                raise
            except StoreError as error:
                log.warning("a body for %r waits in memory: %s", self._upload, error)
        self._waiting.hold(len(data))
        self._held.append(data)

    async def _write(self, data: bytes) -> None:
        at, checksum = self._size, zlib.crc32(data)
        # Counted before it is written, and given back as one.
        await self._waiting.reserve(file_pages(at + len(data)) - file_pages(at))
        self._size += len(data)
        await settled(self._waiting.folder.write(self._upload.id, _ASIDE, at, data, checksum))
        self._sums.append((len(data), checksum))

    async def read(self) -> AsyncIterator[bytes]:
        """All of them, each piece only if it is what was written (I15): it counts from then on. Raises StoreError."""
        at = 0
        for size, checksum in self._sums:
            piece = await self._waiting.folder.read(self._upload.id, _ASIDE, at, size)
            if len(piece) != size or zlib.crc32(piece) != checksum:
                raise StoreError(_BAD)
            yield piece
            at += size
        while self._held:
            piece = self._held.popleft()
            self._waiting.release(len(piece))
            yield piece

    async def clear(self) -> None:
        self._waiting.release(sum(map(len, self._held)))
        self._held.clear()
        await self._waiting.remove(self._upload, _ASIDE, self._size)


def pages(count: int) -> int:
    """Bytes that a file of `count` bytes takes on the disk."""
    return -(-count // PAGE) * PAGE


def file_pages(waiting: int) -> int:
    """The same of a file in which `waiting` bytes wait; 0 where none do: there is no file then."""
    return pages(HEAD_SIZE + waiting) if waiting else 0
