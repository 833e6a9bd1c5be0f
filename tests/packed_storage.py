"""A storage in memory that packs all versions into one file, so that no version begins at the file's first byte."""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from bucketfront.cache.storage import digests
from bucketfront.cache.storage.storage import DiskSpace, Region, StoredFile
from bucketfront.http.ranges import Span

FIRST_OFFSET = 5000  # of the first version: no multiple of a page or a block
SLOT_BYTES = (64 << 20) + 1000  # from one version to the next; only what is written takes memory


@dataclass
class Slot:
    offset: int
    size: int
    opened: int = 0
    is_removed: bool = False


class PackedStorage:
    """A `Storage` in an anonymous file of the kernel. It never fails, and it ends with `close`."""

    def __init__(self) -> None:
        self.failures = 0
        self._fd = os.memfd_create("packed")
        self._slots: dict[str, Slot] = {}

    def close(self) -> None:
        os.close(self._fd)

    @property
    def is_usable(self) -> bool:
        return True

    @property
    def opened(self) -> list[str]:
        """Return the versions that are open, once for each `create` or `open_file`."""
        return [name for name, slot in self._slots.items() for _ in range(slot.opened)]

    def note_failure(self, reason: str) -> None:
        raise AssertionError(reason)

    async def create(self, size: int) -> StoredFile:
        name = f"{len(self._slots):026d}"
        slot = self._slots[name] = Slot(FIRST_OFFSET + len(self._slots) * SLOT_BYTES, size)
        return self._open(name, slot)

    def _open(self, name: str, slot: Slot) -> StoredFile:
        slot.opened += 1
        return StoredFile(name, Region(self._fd, slot.offset, slot.size))

    async def open_file(self, name: str, size: int, present: list[Span] | None) -> StoredFile | None:
        slot = self._slots.get(name)
        if slot is None or slot.is_removed or slot.size != size:
            return None
        file = self._open(name, slot)
        at = 0
        for span in [*(present or [Span(0, size)]), Span(size, size)]:
            await self.punch(file, Span(at, span.start))
            at = span.stop
        return file

    async def write(
        self, file: StoredFile, offset: int, data: bytes | memoryview, checksum: int, block_size: int
    ) -> list[int]:
        slot = self._slots[file.name]
        slot.size = max(slot.size, offset + len(data))
        assert slot.size <= SLOT_BYTES
        assert os.pwrite(self._fd, data, slot.offset + offset) == len(data)
        return _checksums(data, offset, checksum, block_size)

    async def read(self, file: StoredFile, span: Span) -> bytes:
        slot = self._slots[file.name]
        if span.stop > slot.size:
            raise EOFError(f"the version ended {span.stop - slot.size} bytes early")
        data = os.pread(self._fd, span.length, slot.offset + span.start)
        return data + bytes(span.length - len(data))  # no version has bytes beyond

    async def read_known(self, file: StoredFile, span: Span, sums: Sequence[int], block_size: int) -> bytes | None:
        data = await self.read(file, span)
        return data if _checksums(data, span.start, 0, block_size) == list(sums) else None

    async def read_in(self, file: StoredFile, span: Span) -> None:
        """Do nothing, because all of it is in memory."""

    async def checksums(self, file: StoredFile, span: Span, block_size: int) -> list[int | None]:
        starts = range(span.start, span.stop, block_size)
        return [await self._checksum(file, Span(start, min(start + block_size, span.stop))) for start in starts]

    async def _checksum(self, file: StoredFile, span: Span) -> int | None:
        return zlib.crc32(await self.read(file, span)) if span.stop <= self._slots[file.name].size else None

    async def digest(self, file: StoredFile, size: int, algorithm: str, *, is_urgent: bool = True) -> bytes | None:
        del is_urgent
        if size > self._slots[file.name].size:
            return None
        return digests.of_bytes(await self.read(file, Span(0, size)), algorithm)

    async def audit(self, name: str, size: int, claims: Sequence[tuple[int, int]], block_size: int) -> int | None:
        file = await self.open_file(name, size, None)
        if file is None:
            return None
        corrupt = 0
        for block, checksum in claims:
            span = Span(block * block_size, min(size, (block + 1) * block_size))
            corrupt |= (await self._checksum(file, span) != checksum) << block
        await self.close_file(file)
        return corrupt

    async def punch(self, file: StoredFile, span: Span) -> None:
        """Overwrite with zeros. The memory is freed with the whole storage."""
        offset = self._slots[file.name].offset + span.start
        end = os.fstat(self._fd).st_size
        os.pwrite(self._fd, bytes(max(0, min(span.length, end - offset))), offset)

    async def sync(self, file: StoredFile) -> None:
        """Do nothing, because memory has no safer place."""

    async def remove(self, name: str) -> None:
        if name in self._slots:
            self._slots[name].is_removed = True

    async def remove_all(self, names: Sequence[str]) -> None:
        for name in names:
            await self.remove(name)

    async def close_file(self, file: StoredFile) -> None:
        slot = self._slots[file.name]
        assert slot.opened, f"{file.name} was closed more often than it was opened"
        slot.opened -= 1

    async def disk_space(self) -> DiskSpace:
        return DiskSpace(1 << 40, 1 << 41)

    async def has_lost(self, index: str, identity: tuple[int, int] | None) -> bool:
        del index, identity
        return False

    async def renew(self) -> None:
        self._slots.clear()


def _checksums(data: bytes | memoryview, offset: int, checksum: int, block_size: int) -> list[int]:
    found = []
    while data:
        in_block = block_size - offset % block_size
        found.append(zlib.crc32(data[:in_block], checksum))
        data, offset, checksum = data[in_block:], offset + in_block, 0
    return found
