"""The files of the cache folder: one sparse file per version, under a random name, never rewritten once published.

All I/O runs in threads of its own, so that a slow disk holds up neither the event loop nor the resolver. Whatever
the disk says becomes StoreError here; callers go on without the cache (I16).
"""

import asyncio
import ctypes
import errno
import fcntl
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

from ulid import ULID

from proxy.cache import residency
from proxy.errors import CacheInUse, StoreError
from proxy.http.ranges import Span

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

THREADS = 8
WRITERS = 4
RETRY_AFTER = 5.0  # seconds that a failed disk is left alone

ULID_LENGTH = 26
_NAME_CHARS = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_libc = ctypes.CDLL(None, use_errno=True)

log = logging.getLogger("bucketfront.store")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An open file of the cache. The one who owns the entry closes it."""

    name: str
    fd: int


class Store:
    """The folder `root`: `objects/XX/<ULID>`, the lock, and beside them the index.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self.root = root
        self._objects = root / "objects"
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, "disk")
        # Apart: a crowd that reads what is not in memory must not keep fills from writing.
        self._reading = ThreadPoolExecutor(THREADS, "disk-read")
        # The kernel lets one thread at a time write a file; a second one spins, and is in the event loop's way.
        self._writing = [ThreadPoolExecutor(1, "disk-write") for _ in range(WRITERS)]
        self._lock_fd: int | None = None
        self._failed_at: float | None = None
        self.failures = 0  # calls to the disk that failed
        self.opened_at = 0.0  # by the clock that files' times of change are of

    def open(self) -> None:
        """Make the folder and lock it. Raises StoreError with the cure, CacheInUse."""
        try:
            self._objects.mkdir(parents=True, exist_ok=True)
            probe = self._objects / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            self.opened_at = probe.stat().st_mtime
            probe.unlink()
            fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"cannot write to the cache folder {self.root}: {error.strerror}. Make it writable for uid"
                f" {os.geteuid()}, or set cache.dir to a folder that is"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise CacheInUse(f"the cache folder {self.root} is in use by another bucketfront") from error
        self._lock_fd = fd

    def close(self) -> None:
        for threads in (self._threads, self._reading, *self._writing):
            threads.shutdown(wait=True)
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    @property
    def is_usable(self) -> bool:
        """False for RETRY_AFTER seconds after a failure: a sick disk is not asked on every request."""
        return self._failed_at is None or self._clock() - self._failed_at >= RETRY_AFTER

    async def create(self, size: int) -> StoredFile:
        """A new sparse file of `size` bytes."""
        if not self.is_usable:
            raise StoreError("the disk failed a moment ago")
        return await self._run(self._create, size)

    def _create(self, size: int) -> StoredFile:
        name = str(ULID())
        path = self._path(name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, flags, 0o600)
        try:
            os.ftruncate(fd, size)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        self._failed_at = None
        return StoredFile(name, fd)

    async def open_file(self, name: str, size: int, present: list[Span] | None) -> StoredFile | None:
        """An existing file; None if it is not there or has not `size` bytes.

        `present`, after an unclean stop: the bytes that the index knows of; all others are given back to the disk.
        """
        return await self._run(self._open_file, name, size, present)

    def _open_file(self, name: str, size: int, present: list[Span] | None) -> StoredFile | None:
        try:
            fd = os.open(self._path(name), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(fd).st_size != size:
                os.close(fd)
                return None
            if present is not None:
                at = 0
                for span in [*present, Span(size, size)]:
                    _punch(fd, Span(at, span.start))
                    at = span.stop
        except OSError:
            os.close(fd)
            raise
        return StoredFile(name, fd)

    async def write(self, file: StoredFile, offset: int, data: bytes, checksum: int, block_size: int) -> list[int]:
        """Write `data` at `offset`. Returns the CRC-32 of what it holds of each block it touches, in order.

        `checksum` is that of the first of these blocks up to `offset`; the result goes on from there.
        """
        thread = self._writing[file.fd % len(self._writing)]
        work = asyncio.ensure_future(self._run(_write, file.fd, offset, data, checksum, block_size, threads=thread))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The caller may close the descriptor next, and its number may then be another file's.
            while not work.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([work])
            raise

    async def read_in(self, file: StoredFile, span: Span) -> None:
        """Bring these bytes into memory, as far as the file has them."""
        await self._run(residency.read_in, file.fd, span, threads=self._reading)

    async def read(self, file: StoredFile, span: Span) -> bytes:
        """These bytes. Raises EOFError where the file ends early."""
        data = await self._run(os.pread, file.fd, span.length, span.start, threads=self._reading)
        if len(data) != span.length:
            raise EOFError(f"the cached file ended {span.length - len(data)} bytes early")
        return data

    async def checksum(self, file: StoredFile, span: Span) -> int | None:
        """CRC-32 of these bytes of the file, None if it is shorter."""
        return await self._run(_checksum, file.fd, span)

    async def punch(self, file: StoredFile, span: Span) -> None:
        """Give the space of these bytes back to the disk."""
        await self._run(_punch, file.fd, span)

    async def remove(self, name: str) -> None:
        """Unlink; a file that is gone already is fine. Open descriptors go on reading it (I18)."""
        await self._run(self._remove, name)

    def _remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    async def close_file(self, file: StoredFile) -> None:
        # The last close of an unlinked file frees its blocks, which takes a while for a large one.
        await self._run(os.close, file.fd)

    async def disk_space(self) -> tuple[int, int]:
        """Free and total bytes of the file system."""

        def ask() -> tuple[int, int]:
            found = os.statvfs(self.root)
            return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

        return await self._run(ask)

    async def space_of(self, files: Iterable[Path]) -> int:
        """Bytes that these files take on the disk, as far as they are there."""
        return await self._run(lambda: sum(file.stat().st_blocks * 512 for file in files if file.exists()))

    async def names(self, shard: str) -> list[tuple[str, float]]:
        """The files of one of `shards()`, each with its time of last change, in seconds since the epoch."""

        def listing() -> list[tuple[str, float]]:
            try:
                with os.scandir(self._objects / shard) as found:
                    return [(item.name, item.stat(follow_symlinks=False).st_mtime) for item in found]
            except FileNotFoundError:
                return []

        return await self._run(listing)

    async def shards(self) -> list[str]:
        return await self._run(lambda: sorted(item.name for item in self._objects.iterdir()))

    def _path(self, name: str) -> Path:
        # The name comes out of a database on a disk: it must not lead out of the folder.
        if len(name) != ULID_LENGTH or not _NAME_CHARS.issuperset(name):
            raise StoreError(f"{name[:40]!r} is no file name of this cache")
        return self._objects / name[-2:] / name

    async def _run(self, call: Callable[[Unpack[Ts]], T], *args: *Ts, threads: Executor | None = None) -> T:
        work = asyncio.get_running_loop().run_in_executor(threads or self._threads, call, *args)
        try:
            # Shielded: the thread cannot be stopped, and a descriptor it opened must not get lost.
            return await asyncio.shield(work)
        except OSError as error:
            self.failed(str(error))
            raise StoreError(f"the cache folder failed: {error.strerror} ({call.__name__})") from error
        except asyncio.CancelledError:
            work.add_done_callback(_dispose)
            raise

    def failed(self, why: str) -> None:
        """The disk failed somebody: leave it alone for a while."""
        self.failures += 1
        if self.is_usable:
            log.warning("the cache folder failed, going on uncached: %s", why)
        self._failed_at = self._clock()


def _dispose(work: "asyncio.Future[T]") -> None:
    if not work.cancelled() and work.exception() is None and isinstance(result := work.result(), StoredFile):
        os.close(result.fd)


def _write(fd: int, offset: int, data: bytes, checksum: int, block_size: int) -> list[int]:
    view, at = memoryview(data), offset
    while view:
        written = os.pwrite(fd, view, at)
        if not written:
            raise OSError(errno.EIO, "wrote nothing")
        view = view[written:]
        at += written
    return list(_checksums(memoryview(data), offset, checksum, block_size))


def _checksums(view: memoryview, offset: int, checksum: int, block_size: int) -> Iterator[int]:
    while view:
        in_block = block_size - offset % block_size
        yield zlib.crc32(view[:in_block], checksum)
        view = view[in_block:]
        offset += in_block
        checksum = 0


def _checksum(fd: int, span: Span) -> int | None:
    data = os.pread(fd, span.length, span.start)
    return zlib.crc32(data) if len(data) == span.length else None


def _punch(fd: int, span: Span) -> None:
    if span.start >= span.stop:
        return
    mode = ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE)
    if _libc.fallocate(fd, mode, ctypes.c_long(span.start), ctypes.c_long(span.length)):
        number = ctypes.get_errno()
        # A file system without holes keeps the bytes until the file goes: more space, no wrong byte.
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(number, os.strerror(number))
