"""Whether bytes of a file are in memory, so that nobody has to wait for a disk in the event loop.

`preadv2` with RWF_NOWAIT reads what is in memory and says of the rest that it would have to wait. A stretch is sampled:
one byte of each SAMPLE costs 7 us a MiB, 3 % of sending it, where reading all of it would cost 40. What the kernel
drops, it drops in larger runs. Where a file system does not know the flag (tmpfs does not), `cachestat` counts pages.
"""

import ctypes
import errno
import os

from bucketfront.http.ranges import Span

PEEK = 16 << 10  # bytes: above, sendfile is cheaper than a copy
SAMPLE = 128 << 10  # bytes: what the kernel reads ahead by default
_PIECE = 256 << 10  # bytes that are read at once

_SYS_CACHESTAT = 451  # the same on all architectures; Linux 6.5
_PAGE = os.sysconf("SC_PAGE_SIZE")
_libc = ctypes.CDLL(None, use_errno=True)
_peeked = memoryview(bytearray(PEEK))
_one = memoryview(bytearray(1))  # of its own: threads write to it, while what was peeked is being sent


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def is_resident(fd: int, span: Span) -> bool:
    """Never blocks. A sample; True where nobody can tell. False where the disk fails: who reads it hears how."""
    try:
        for at in range(span.start, span.stop, SAMPLE):
            os.preadv(fd, (_one,), at, os.RWF_NOWAIT)
        os.preadv(fd, (_one,), max(span.start, span.stop - 1), os.RWF_NOWAIT)
    except OSError as error:
        return error.errno == errno.EOPNOTSUPP and _counted(fd, span)
    return True


def peek(fd: int, offset: int, length: int) -> memoryview | None:
    """So many bytes of a file, PEEK at most, if all of them are in memory; None rather than waiting for the disk, and
    where it fails. Good until the next call.
    """
    view = _peeked[:length]
    try:
        got = os.preadv(fd, (view,), offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP or not _counted(fd, Span(offset, offset + length)):
            return None
        try:
            got = os.preadv(fd, (view,), offset)
        except OSError:
            return None
    return view if got == length else None


def read_in(fd: int, span: Span) -> None:
    """Bring these bytes into memory; for a thread. Where the file ends early, as far as it goes. Raises OSError."""
    piece = bytearray(_PIECE)
    at = span.start
    while at < span.stop and (got := os.preadv(fd, (memoryview(piece)[: span.stop - at],), at)):
        at += got


def _counted(fd: int, span: Span) -> bool:
    """Whether each page of it is in memory. True where the kernel cannot tell."""
    first, last = span.start // _PAGE, -(-span.stop // _PAGE)
    asked, counts = _Range(first * _PAGE, (last - first) * _PAGE), _Counts()
    if _libc.syscall(_SYS_CACHESTAT, fd, ctypes.byref(asked), ctypes.byref(counts), 0):
        return True
    return bool(counts.cached >= last - first)
