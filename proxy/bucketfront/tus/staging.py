"""The bytes of resumable uploads that are here and not at S3. They count against the cache's space.

Three rules hold (docs/invariants.md#space-bound, docs/invariants.md#disk-faults-degrade):

- Space is taken from the budget before it is written, and given back after its file is gone.
- The files have a share of that space. Beyond it the bytes of an idle upload are dropped. Its client sends them again.
  Each client has its share of that (docs/invariants.md#fair-share).
- If the disk refuses bytes they wait in memory, MAX_MEMORY_BYTES in all. A client sends again what memory loses.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from zlib_ng import zlib_ng

from bucketfront.cache import Budget
from bucketfront.errors import StoreError, StoreFull
from bucketfront.fair_share import FairShares, Resource, Shares, UsedUp
from bucketfront.s3.upload.parts import PART_SIZE
from bucketfront.tus.tus_upload import TusUpload
from bucketfront.tus.uninterrupted import run_uninterrupted
from bucketfront.tus.upload_folder import HEAD_BYTES, StagedBytesLost, UploadFolder

GATHER_BYTES = 64 << 10  # gathered before they are written, and read at once: memory of each client that stalls
MAX_MEMORY_BYTES = 64 << 20  # of all uploads, while the disk refuses bytes: eight parts
FILE_SHARE = 0.5  # of the cache's space, for files: the cached objects must not all give way to abandoned uploads
PAGE_BYTES = 4096  # the unit in which the file system allocates

_UNVERIFIED_PART = 0  # the number of its file; S3 counts parts from 1
_CORRUPT = "what waited on the disk is not what was written"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StagingSpace:
    """The cache's space. `reserve` takes bytes from `budget`, or raises StoreError."""

    reserve: Callable[[int], Awaitable[None]]
    budget: Budget


class StagingFull(StoreFull):
    """The files of uploads have used their share of the cache's space."""


class PartStaging:
    """The bytes for the next part of each upload.

    `drop_idle` drops the staged bytes of an upload that is idle. It returns False if no upload is.
    """

    def __init__(
        self,
        folder: UploadFolder,
        space: StagingSpace,
        drop_idle: Callable[[], Awaitable[bool]],
        shares: FairShares,
        share_of_one: float,
    ) -> None:
        self.folder = folder
        self._shares = shares
        # A small cache has space for one part as well.
        self.files = Shares(max(int(space.budget.limit * FILE_SHARE), PART_SIZE), share_of_one)
        self._space = space
        self._drop_idle = drop_idle
        self.memory_bytes = 0  # bytes of all uploads
        self._unremoved: list[tuple[TusUpload, int, int]] = []  # arguments of `remove`

    async def add(self, upload: TusUpload, gathered: bytearray) -> None:
        """Move as many bytes from `gathered` to the next part as it takes.

        Raises StoreFull if no place takes them, StagedBytesLost if the bytes before them are gone as well.
        """
        data = bytes(gathered[: upload.room])
        if upload.in_memory:
            self._add_to_memory(upload, data)
        else:
            try:
                await self._write(upload, data)
                upload.add(data, in_file=True)
            except StagedBytesLost:
                await self.clear(upload)
                raise
            except StagingFull:
                raise
            except StoreError as error:
                log.warning("bytes of %r wait in memory: %s", upload, error)
                self._add_to_memory(upload, data)
        del gathered[: len(data)]

    def _add_to_memory(self, upload: TusUpload, data: bytes) -> None:
        self.reserve_memory(len(data))
        upload.add(data, in_file=False)

    def reserve_memory(self, count: int) -> None:
        """Count `count` bytes in memory, until `release_memory`. Raises StoreFull."""
        if self.memory_bytes + count > MAX_MEMORY_BYTES:
            raise StoreFull("too many bytes of uploads wait in memory, for the disk takes none")
        self.memory_bytes += count

    def release_memory(self, count: int) -> None:
        self.memory_bytes -= count

    async def _write(self, upload: TusUpload, data: bytes) -> None:
        size, checksum = upload.in_file + len(data), zlib_ng.crc32(data, upload.checksum)
        growth = file_pages(size) - file_pages(upload.in_file)
        await self.reserve(upload, growth)
        try:
            await self.folder.write(upload.id, upload.record.next_part, upload.in_file, data, checksum)
        except BaseException:
            self._give_back(upload, growth)
            raise

    async def reserve(self, upload: TusUpload, count: int) -> None:
        """Take `count` bytes for a file of an upload from the budget. Raises ShareUsedUp, StagingFull, StoreError.

        Each client may have the bytes of one part, because it could not go on otherwise.
        """
        client = upload.record.client
        while (refusal := self.files.refusal(client, count)) is not None:
            is_first_part = self.files.of(client) + count <= file_pages(PART_SIZE)
            if refusal is UsedUp.SHARE and not is_first_part:
                self._shares.refuse(Resource.UPLOAD_SPACE, client, refusal)
            if is_first_part and self.files.used + count <= self.files.capacity:
                break
            if not await self._drop_idle():
                raise StagingFull("as many bytes of uploads wait on the disk as may")
        self.files.take(client, count)
        try:
            await self._space.reserve(count)
        except BaseException:
            self.files.give_back(client, count)
            raise

    def count_restored(self, upload: TusUpload) -> None:
        """Count the file of an upload from an earlier run, also beyond the limits. The cache makes room for it."""
        self.files.take(upload.record.client, file_pages(upload.in_file))
        self._space.budget.take(file_pages(upload.in_file))

    def forget(self, upload: TusUpload) -> None:
        """Count the staged bytes as those of another process. Its file stays."""
        self._give_back(upload, file_pages(self.detach(upload)))

    def _give_back(self, upload: TusUpload, count: int) -> None:
        self.files.give_back(upload.record.client, count)
        self._space.budget.give_back(count)

    async def read(self, upload: TusUpload) -> AsyncIterator[bytes]:
        """Yield all staged bytes of `upload`.

        Raises StoreError, and drops the bytes, so that the client sends them again. The last piece comes only if the
        disk returns what was written (docs/invariants.md#self-healing).
        """
        in_memory = bytes(upload.in_memory)
        try:
            async for piece in self._read_file(upload):
                yield piece
        except StoreError:
            await run_uninterrupted(self.clear(upload))
            raise
        if in_memory:
            yield in_memory

    async def _read_file(self, upload: TusUpload) -> AsyncIterator[bytes]:
        """Yield the bytes of the file, the last piece only if the CRC-32 is right. Raises StoreError."""
        at, found, size, checksum = 0, 0, upload.in_file, upload.checksum
        while at < size:
            piece = await self.folder.read(upload.id, upload.record.next_part, at, min(GATHER_BYTES, size - at))
            at += len(piece)
            found = zlib_ng.crc32(piece, found)
            if not piece or (at == size and found != checksum):
                raise StoreError(_CORRUPT)
            yield piece

    async def clear(self, upload: TusUpload) -> None:
        """Drop the staged bytes of `upload`."""
        part = upload.record.next_part
        await self.remove(upload, part, self.detach(upload))

    def detach(self, upload: TusUpload) -> int:
        """Count the staged bytes of `upload` as gone. Return the size of the file, which the caller has to remove."""
        size = upload.in_file
        self.release_memory(len(upload.in_memory))
        upload.clear()
        return size

    async def remove(self, upload: TusUpload, part: int, size: int) -> None:
        """Remove the file of `size` bytes for a part, now or in a later `sweep`."""
        if not size:
            return
        try:
            await self.folder.remove(upload.id, part)
        except StoreError as error:
            log.warning("a file of %r could not be removed: %s", upload, error)
            self._unremoved.append((upload, part, size))
            return
        self._give_back(upload, file_pages(size))

    async def sweep(self) -> None:
        """Try again to remove files, except those of uploads that a request holds."""
        unremoved, self._unremoved = self._unremoved, []
        for upload, part, size in unremoved:
            if upload.is_busy:
                self._unremoved.append((upload, part, size))
            elif upload.in_file and part == upload.record.next_part:
                self._give_back(upload, file_pages(size))  # a new file has replaced it
            else:
                await self.remove(upload, part, size)

    def unverified(self, upload: TusUpload) -> "UnverifiedBytes":
        """Return a place for bytes that do not count yet. The caller has to `clear` it."""
        return UnverifiedBytes(self, upload)


class UnverifiedBytes:
    """The bytes of one request until their checksum is known to be right.

    They are in a file of their own, and in memory if the disk refuses them.
    """

    def __init__(self, staging: PartStaging, upload: TusUpload) -> None:
        self._staging = staging
        self._upload = upload
        self._size = 0
        self._pieces: list[tuple[int, int]] = []  # size and CRC-32 of each piece in the file
        self._in_memory = deque[bytes]()

    async def write(self, data: bytes) -> None:
        """Append `data`. Raises StoreFull if no place takes it."""
        if not self._in_memory:
            try:
                await self._write(data)
                return
            except StagingFull:
                raise
            except StoreError as error:
                log.warning("a body for %r waits in memory: %s", self._upload, error)
        self._staging.reserve_memory(len(data))
        self._in_memory.append(data)

    async def _write(self, data: bytes) -> None:
        at, checksum = self._size, zlib_ng.crc32(data)
        # `clear` gives back the space of the whole file, so it is counted before the write, which may fail.
        await self._staging.reserve(self._upload, file_pages(at + len(data)) - file_pages(at))
        self._size += len(data)
        await run_uninterrupted(self._staging.folder.write(self._upload.id, _UNVERIFIED_PART, at, data, checksum))
        self._pieces.append((len(data), checksum))

    async def read(self) -> AsyncIterator[bytes]:
        """Yield all bytes. Each piece is compared with what was written, because it counts from then on.

        Raises StoreError.
        """
        at = 0
        for size, checksum in self._pieces:
            piece = await self._staging.folder.read(self._upload.id, _UNVERIFIED_PART, at, size)
            if len(piece) != size or zlib_ng.crc32(piece) != checksum:
                raise StoreError(_CORRUPT)
            yield piece
            at += size
        while self._in_memory:
            piece = self._in_memory.popleft()
            self._staging.release_memory(len(piece))
            yield piece

    async def clear(self) -> None:
        """Drop all bytes."""
        self._staging.release_memory(sum(map(len, self._in_memory)))
        self._in_memory.clear()
        await self._staging.remove(self._upload, _UNVERIFIED_PART, self._size)


def pages(count: int) -> int:
    """Return how many bytes a file of `count` bytes has on the disk."""
    return -(-count // PAGE_BYTES) * PAGE_BYTES


def file_pages(staged: int) -> int:
    """Return how many bytes a file with `staged` bytes has on the disk. Without bytes there is no file."""
    return pages(HEAD_BYTES + staged) if staged else 0
