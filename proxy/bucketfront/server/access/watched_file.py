"""The content of a file with secrets. It is read again when the file has changed, so a rotation needs no restart."""

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

CHECK_INTERVAL_S = 2.0  # between two looks at a file: a removed token counts for so long at most
CHECK_TIMEOUT_S = 1.0  # for a look, so that a disk that hangs holds up no request: the content before counts

log = logging.getLogger(__name__)

Identity = tuple[int, int, int, int, int]


class WatchedFile(Generic[T]):
    """The content of the file at `path`, as `read` returns it. `elapsed` is a clock in seconds.

    `read` runs in a thread. It raises ValueError for a file that is of no use, with a message without secrets. The
    content before is kept then.
    """

    def __init__(self, path: Path, read: Callable[[Path], T], content: T, elapsed: Callable[[], float]) -> None:
        self._path = path
        self._read = read
        self._content = content
        self._elapsed = elapsed
        self._identity: Identity | None = None  # of the file that was read, or that was of no use
        self._trouble = ""  # the last warning, while it holds
        self._checked_at = elapsed()
        self._checking: asyncio.Task[None] | None = None

    @property
    def is_due(self) -> bool:
        """Return whether `content` may have to wait."""
        return self._checking is not None or self._elapsed() - self._checked_at >= CHECK_INTERVAL_S

    async def content(self) -> T:
        """Return the content, after a look at the file if the last one was CHECK_INTERVAL_S ago."""
        passed = self._elapsed() - self._checked_at
        if self._checking is None and passed >= CHECK_INTERVAL_S:
            self._checked_at, passed = self._elapsed(), 0.0
            self._checking = asyncio.create_task(self._check())
            self._checking.add_done_callback(self._end_check)
        if self._checking is not None:
            await asyncio.wait({self._checking}, timeout=max(0.0, CHECK_TIMEOUT_S - passed))
        return self._content

    async def close(self) -> None:
        """End a look at the file."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait({self._checking})

    def _end_check(self, task: asyncio.Task[None]) -> None:
        self._checking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a look at %a broke down", str(self._path), exc_info=error)

    async def _check(self) -> None:
        """Read the file if it is another one than before, or was changed."""
        found = None
        try:
            found = _identity(await asyncio.to_thread(os.stat, self._path))
            if found == self._identity:
                return
            content = await asyncio.to_thread(self._read, self._path)
        except (OSError, ValueError) as error:
            self._warn((error.strerror if isinstance(error, OSError) else None) or str(error))
        else:
            self._content, self._trouble = content, ""
        self._identity = found

    def _warn(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("%a is of no use, so what it had before counts: %s", str(self._path), trouble)


def _identity(found: os.stat_result) -> Identity:
    """Return the identity of a file. Raises ValueError for a named pipe and the like: to open one may block."""
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no regular file")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
