"""The bytes of uploads that are here and not at S3: in a file for the next part, counted against the cache's space.

Rule 1: space is taken from the budget before it is written, and given back after the file is gone (I17).
Rule 2: where the disk refuses, bytes wait in memory (I16), MAX_HELD in all; what memory loses, the client sends again.
"""

import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from proxy.cache.budget import Budget
from proxy.errors import StoreError, StoreFull
from proxy.resumable.folder import UploadFolder
from proxy.resumable.settled import settled
from proxy.resumable.upload import Upload

PIECE = 64 << 10  # bytes gathered before they are written, and read at once; what a client that stalls costs (I19)
MAX_HELD = 64 << 20  # bytes of all uploads in memory, where the disk takes none
_ASIDE = 0  # S3 counts parts from 1
PAGE = 4096  # bytes: the disk's own unit

log = logging.getLogger("bucketfront.uploads")


@dataclass(frozen=True, slots=True)
class Space:
    """The cache's: `reserve` takes bytes from `budget`, or raises StoreError."""

    reserve: Callable[[int], Awaitable[None]]
    budget: Budget


class Waiting:
    def __init__(self, folder: UploadFolder, space: Space) -> None:
        self.folder = folder
        self.space = space
        self._held = 0  # bytes of all uploads in memory

    async def keep(self, upload: Upload, gathered: bytearray) -> None:
        """Move what fits into the next part from `gathered` to where it waits. Raises StoreFull: it is nowhere."""
        data = bytes(gathered[: upload.room])
        if upload.held:
            self._hold(upload, data)
        else:
            try:
                await self._write(upload, data)
                upload.came(data, in_file=True)
            except StoreError as error:
                log.warning("bytes of %r wait in memory: %s", upload, error)
                self._hold(upload, data)
        del gathered[: len(data)]

    def _hold(self, upload: Upload, data: bytes) -> None:
        if self._held + len(data) > MAX_HELD:
            raise StoreFull("too many bytes of uploads wait in memory, for the disk takes none")
        upload.came(data, in_file=False)
        self._held += len(data)

    async def _write(self, upload: Upload, data: bytes) -> None:
        grows = pages(upload.in_file + len(data)) - pages(upload.in_file)
        await self.space.reserve(grows)
        try:
            await self.folder.write(upload.id, upload.record.next_part, upload.in_file, data)
        except BaseException:
            self.space.budget.give_back(grows)
            raise

    async def read(self, upload: Upload) -> AsyncIterator[bytes]:
        """All that waits. Bytes that are not what was written are never given as a whole (I15): the client sends them
        again. Raises StoreError.
        """
        held = bytes(upload.held)
        try:
            async for piece in self.read_file(upload, upload.record.next_part, upload.in_file, upload.checksum):
                yield piece
        except StoreError:
            await settled(self.clear(upload))
            raise
        if held:
            yield held

    async def read_file(self, upload: Upload, part: int, size: int, checksum: int | None) -> AsyncIterator[bytes]:
        """The first `size` bytes of a file; the last piece only if their CRC-32 is `checksum`. Raises StoreError."""
        at, found = 0, 0
        while at < size:
            piece = await self.folder.read(upload.id, part, at, min(PIECE, size - at))
            at += len(piece)
            found = zlib.crc32(piece, found)
            if not piece or (at == size and checksum not in (None, found)):
                raise StoreError("what waited on the disk is not what was written")
            yield piece

    async def clear(self, upload: Upload) -> None:
        """What waited is lost."""
        part = upload.record.next_part
        await self.remove(upload, part, self.left(upload))

    def left(self, upload: Upload) -> int:
        """Nothing waits any more. Returns the size of the file that is to be removed."""
        size = upload.in_file
        self._held -= len(upload.held)
        upload.left()
        return size

    async def remove(self, upload: Upload, part: int, size: int) -> None:
        """The file of `size` bytes that waited for a part."""
        if not size:
            return
        try:
            await self.folder.remove(upload.id, part)
        except StoreError as error:
            log.warning("a file of %r is left until the next start: %s", upload, error)
            return
        self.space.budget.give_back(pages(size))

    def aside(self, upload: Upload) -> "Aside":
        """For bytes that do not count yet. `clear` it."""
        return Aside(self, upload)


class Aside:
    """Bytes of one request in a file of their own, that of part 0, until more is known of them."""

    def __init__(self, waiting: Waiting, upload: Upload) -> None:
        self._waiting = waiting
        self._upload = upload
        self._size = 0
        self._checksum = 0

    async def write(self, data: bytes) -> None:
        """Raises StoreError."""
        at, self._checksum = self._size, zlib.crc32(data, self._checksum)
        # Counted before it is written, and given back as one.
        await self._waiting.space.reserve(pages(at + len(data)) - pages(at))
        self._size += len(data)
        await settled(self._waiting.folder.write(self._upload.id, _ASIDE, at, data))

    def read(self) -> AsyncIterator[bytes]:
        """All of them. Raises StoreError, before the last of them where they are not what was written (I15)."""
        return self._waiting.read_file(self._upload, _ASIDE, self._size, self._checksum)

    async def clear(self) -> None:
        await self._waiting.remove(self._upload, _ASIDE, self._size)


def pages(count: int) -> int:
    """Bytes that a file of `count` bytes takes on the disk."""
    return -(-count // PAGE) * PAGE
