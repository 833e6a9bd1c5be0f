"""Whether bytes of a file are in the kernel's page cache, so that the event loop never waits for the disk.

`preadv2` with RWF_NOWAIT reads bytes that are in memory, and fails if it would have to wait for others. A span is
sampled: one byte of each SAMPLE_BYTES costs 7 us a MiB, which is 3 % of sending it. Reading all of it costs 40 us. The
kernel drops pages in larger runs than that. If a file system does not support the flag, as tmpfs, `cachestat` counts
the pages.
"""

import ctypes
import errno
import os

from bucketfront.http.ranges import Span

MAX_PEEK_BYTES = 16 << 10  # above it, sendfile is cheaper than a copy
MAX_COPY_BYTES = 64 << 10  # that `peek` returns; TLS has no sendfile
SAMPLE_BYTES = 128 << 10  # what the kernel reads ahead by default
READ_BYTES = 256 << 10  # at once: few calls, and little memory for each thread

_SYS_CACHESTAT = 451  # the same on all architectures; Linux 6.5
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)  # macOS has none: what is asked here may wait for its disk
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_libc = ctypes.CDLL(None, use_errno=True)
_peeked = memoryview(bytearray(MAX_COPY_BYTES))
_into_one = (bytearray(1),)  # a buffer of its own, because threads write to it while peeked bytes are sent


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def is_resident(fd: int, span: Span) -> bool:
    """Return whether a sample of the span is in the page cache. Never blocks.

    Returns True if the kernel does not support the call, and False on a disk error, which the later read reports.
    """
    if _NOWAIT is None:
        return True
    start, stop = span.start, span.stop
    try:
        os.preadv(fd, _into_one, start, _NOWAIT)
        if stop - start > SAMPLE_BYTES:
            for at in range(start + SAMPLE_BYTES, stop, SAMPLE_BYTES):
                os.preadv(fd, _into_one, at, _NOWAIT)
        os.preadv(fd, _into_one, max(start, stop - 1), _NOWAIT)
    except OSError as error:
        return error.errno == errno.EOPNOTSUPP and _counted(fd, span)
    return True


def peek(fd: int, offset: int, length: int) -> memoryview | None:
    """Return `length` bytes of a file, at most MAX_COPY_BYTES, if all of them are in memory. Never blocks.

    The result is valid until the next call. Returns None if a byte is on disk, and on a disk error.
    """
    view = _peeked[:length]
    try:
        got = os.preadv(fd, (view,), offset) if _NOWAIT is None else os.preadv(fd, (view,), offset, _NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP or not _counted(fd, Span(offset, offset + length)):
            return None
        try:
            got = os.preadv(fd, (view,), offset)
        except OSError:
            return None
    return view if got == length else None


def read_in(fd: int, span: Span) -> None:
    """Bring these bytes into memory, as far as the file has them. Call it in a thread. Raises OSError."""
    piece = bytearray(READ_BYTES)
    at = span.start
    while at < span.stop and (got := os.preadv(fd, (memoryview(piece)[: span.stop - at],), at)):
        at += got


def _counted(fd: int, span: Span) -> bool:
    """Return whether each page of the span is in memory. Returns True if the kernel does not support the call."""
    first, last = span.start // _PAGE_BYTES, -(-span.stop // _PAGE_BYTES)
    asked, counts = _Range(first * _PAGE_BYTES, (last - first) * _PAGE_BYTES), _Counts()
    if _libc.syscall(_SYS_CACHESTAT, fd, ctypes.byref(asked), ctypes.byref(counts), 0):
        return True
    return bool(counts.cached >= last - first)
