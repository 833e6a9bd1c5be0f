"""Whether bytes of a file are in memory, so that nobody has to wait for a disk in the event loop."""

import errno
import os

from proxy.http.ranges import Span

PEEK = 64 << 10  # bytes
SAMPLE = 128 << 10  # bytes: what the kernel reads ahead by default

_peeked = memoryview(bytearray(PEEK))


def is_resident(fd: int, span: Span) -> bool:
    """Never blocks. A sample: one byte of each SAMPLE."""
    return all(peek(fd, Span(at, at + 1)) is not None for at in range(span.start, span.stop, SAMPLE))


def peek(fd: int, span: Span) -> memoryview | None:
    """These bytes of a file, PEEK at most, if all of them are in memory; None rather than waiting for the disk.

    Good until the next call. Raises OSError.
    """
    view = _peeked[: span.length]
    try:
        got = os.preadv(fd, [view], span.start, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise
    return view if got == span.length else None
