"""Whether bytes of a file are in memory, so that nobody has to wait for a disk in the event loop."""

import errno
import os

from proxy.http.ranges import Span

PEEK = 64 << 10  # bytes: above, sendfile is cheaper than a copy
SAMPLE = 128 << 10  # bytes: what the kernel reads ahead by default

_peeked = memoryview(bytearray(PEEK))


def is_resident(fd: int, span: Span) -> bool:
    """Never blocks. A sample: one byte of each SAMPLE."""
    return all(peek(fd, at, 1) is not None for at in range(span.start, span.stop, SAMPLE))


def peek(fd: int, offset: int, length: int) -> memoryview | None:
    """So many bytes of a file, PEEK at most, if all of them are in memory; None rather than waiting for the disk.

    Good until the next call. Raises OSError.
    """
    view = _peeked[:length]
    try:
        got = os.preadv(fd, (view,), offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise
    return view if got == length else None
