"""Whether a file of the cache has the bytes that the index claims. Call it in threads: it only reads the disk."""

import errno
import os
from collections.abc import Sequence

from zlib_ng import zlib_ng

from bucketfront.cache.storage import page_cache
from bucketfront.cache.storage.folder import Folder
from bucketfront.http.ranges import Span


def damaged(folder: Folder, name: str, size: int, claims: Sequence[tuple[int, int]], block_size: int) -> int | None:
    """Return the set of claimed blocks (see `blocks.py`) whose bytes have another CRC-32.

    `claims` are pairs of a block and its CRC-32. Returns None if there is no such file of `size` bytes. Raises OSError.
    """
    try:
        fd = folder.open_file(name, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(fd).st_size != size:
            return None
        found = 0
        for block, checksum in claims:
            span = Span(block * block_size, min(size, (block + 1) * block_size))
            if _checksum(fd, span) != checksum:
                found |= 1 << block
        return found
    finally:
        os.close(fd)


def _checksum(fd: int, span: Span) -> int | None:
    was_resident = page_cache.is_resident(fd, span)
    found = checksum(fd, span)
    if not was_resident and hasattr(os, "posix_fadvise"):  # macOS has none
        # Bytes that no request wanted must not push others out of memory.
        os.posix_fadvise(fd, span.start, span.length, os.POSIX_FADV_DONTNEED)
    return found


def checksums(fd: int, span: Span, block_size: int) -> list[int | None]:
    """Return what `checksum` returns, for each block of a span that begins with one."""
    starts = range(span.start, span.stop, block_size)
    return [checksum(fd, Span(start, min(start + block_size, span.stop))) for start in starts]


def checksum(fd: int, span: Span) -> int | None:
    """Return the CRC-32 of these bytes. Returns None if the file ends early or a sector is unreadable."""
    try:
        data = os.pread(fd, span.length, span.start)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
    return zlib_ng.crc32(data) if len(data) == span.length else None
