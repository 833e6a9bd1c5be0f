"""Whether a file of the cache holds what the index claims of it. For threads: reads the disk, changes nothing."""

import errno
import os
import zlib
from collections.abc import Sequence

from bucketfront.cache.storage import page_cache
from bucketfront.cache.storage.folder import Folder
from bucketfront.http.ranges import Span


def damaged(folder: Folder, name: str, size: int, claims: Sequence[tuple[int, int]], block_size: int) -> int | None:
    """The blocks among the claimed ones whose bytes have another CRC-32, as a set (see `blocks`); None if there is no
    such file of `size` bytes. Raises OSError where it cannot be read.
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
    if not was_resident:
        # What nobody has asked for is not to push out of memory what somebody will.
        os.posix_fadvise(fd, span.start, span.length, os.POSIX_FADV_DONTNEED)
    return found


def checksum(fd: int, span: Span) -> int | None:
    """CRC-32 of these bytes; None where the file ends early, or has a sector there that cannot be read."""
    try:
        data = os.pread(fd, span.length, span.start)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
    return zlib.crc32(data) if len(data) == span.length else None
