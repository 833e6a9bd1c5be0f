"""The storage of files: one sparse file per version, under a random name.

All I/O runs in threads of its own, so that a slow disk holds up neither the event loop nor the resolver. Disk errors
become StoreError here, and callers go on without the cache (docs/invariants.md#disk-faults-degrade).
"""

import asyncio
import ctypes
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, Unpack

from zlib_ng import zlib_ng

from bucketfront.cache.storage import audit, digests, page_cache
from bucketfront.cache.storage.folder import FULL_ERRNOS, Folder, FoundFile
from bucketfront.cache.storage.ownership import Ownership
from bucketfront.cache.storage.storage import DiskSpace, Region, StoredFile
from bucketfront.errors import DiskFull, StoreError
from bucketfront.http.ranges import Span

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

IO_THREADS = 8  # for reads, and as many for calls that are neither reads nor writes
WRITE_THREADS = 4  # so many files are written at the same time
DISK_TIMEOUT_S = 30.0  # for one call, so that a disk that hangs holds up no request for longer
FAILURE_PAUSE_S = 5.0  # without new files after a failure, so that requests do not wait for a failing disk

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_libc = ctypes.CDLL(None, use_errno=True)


class FileStorage:
    """The `Storage` in the folder `root`: `objects/XX/<ULID>` and the lock; the index lies beside them.

    `Storage` has the contracts of its methods. The others serve the start and the sweep of files without a row. `open`
    and `close` may block. `clock` is monotonic, in seconds.
    """

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self.folder = Folder(root)
        self.ownership = Ownership()
        self._clock = clock
        self._threads = ThreadPoolExecutor(IO_THREADS, "disk")
        # Separate threads, so that many reads of cold files do not keep fills from writing.
        self._reading = ThreadPoolExecutor(IO_THREADS, "disk-read")
        # The kernel lets one thread at a time write a file. A second one would spin and slow the event loop down.
        self._writing = [ThreadPoolExecutor(1, "disk-write") for _ in range(WRITE_THREADS)]
        # For work without a waiter, with the processor time that the others leave.
        self._scrubbing = ThreadPoolExecutor(1, "disk-scrub", initializer=_yield_to_others)
        self._failed_at: float | None = None
        self._hanging: set[asyncio.Future[Any]] = set()  # calls past their timeout
        self._to_close: set[int] = set()  # descriptors to close after their last call
        self._pending: dict[int, set[asyncio.Future[Any]]] = {}  # calls that use a file, by its descriptor
        self._calls: set[asyncio.Future[Any]] = set()  # all that run
        self.failures = 0
        self.last_failure = ""  # the reason of the last one

    @property
    def root(self) -> Path:
        return self.folder.root

    @property
    def opened_at(self) -> float:
        """Return when the folder was opened, by the clock of its file system. This run has made no older file."""
        return self.folder.opened_at

    @property
    def is_full(self) -> bool:
        """Return whether the disk was full when the folder was opened."""
        return self.folder.is_full

    def open(self) -> None:
        """Create the folder if it is missing, and lock it. Raises StoreError with the remedy, CacheInUse."""
        try:
            self.folder.open()
        except OSError as error:
            raise StoreError(
                f"cannot write to the cache folder {self.root}: {error.strerror}. Make it writable for uid"
                f" {os.geteuid()}, or set cache.dir to a folder that is"
            ) from error

    def close(self) -> None:
        """Wait for the threads, close what waited for one of them, and release the lock."""
        for threads in (self._threads, self._reading, self._scrubbing, *self._writing):
            threads.shutdown(wait=True)
        while self._to_close:
            os.close(self._to_close.pop())
        self.folder.close()

    async def settle(self) -> None:
        """Wait until the calls have ended that run now. Raises StoreError after DISK_TIMEOUT_S."""
        if self._calls and (await asyncio.wait(self._calls, timeout=DISK_TIMEOUT_S))[1]:
            raise StoreError(f"the disk did not answer within {DISK_TIMEOUT_S:g} s")

    @property
    def is_usable(self) -> bool:
        """Return False for FAILURE_PAUSE_S after a failure, and while a call hangs, to spare a disk that fails.

        Returns False as well while another process owns the folder.
        """
        is_rested = self._failed_at is None or self._clock() - self._failed_at >= FAILURE_PAUSE_S
        return is_rested and not self._hanging and self.ownership.is_held

    async def create(self, size: int) -> StoredFile:
        self.ownership.require()
        if not self.is_usable:
            raise StoreError("the disk failed a moment ago")
        has_left = threading.Event()
        try:
            return await self._run(self._create, size, has_left, may_be_full=True)
        except BaseException:
            has_left.set()
            raise

    def _create(self, size: int, has_left: threading.Event) -> StoredFile:
        name = self.folder.new_name()
        try:
            fd = self.folder.open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            if error.errno in FULL_ERRNOS:
                self.folder.spare_inodes()
            raise
        try:
            os.ftruncate(fd, size)
            if has_left.is_set():
                raise InterruptedError(errno.EINTR, "the caller has left")
        except OSError:
            os.close(fd)
            self.folder.unlink(name)
            raise
        self._failed_at = None
        return StoredFile(name, Region(fd, 0, size))

    async def open_file(self, name: str, size: int, present: list[Span] | None) -> StoredFile | None:
        self.ownership.require()
        return await self._run(self._open_file, name, size, present)

    def _open_file(self, name: str, size: int, present: list[Span] | None) -> StoredFile | None:
        try:
            fd = self.folder.open_file(name, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(fd).st_size != size:
                os.close(fd)
                return None
            if present is not None:
                at = 0
                for span in [*present, Span(size, size)]:
                    punch(fd, Span(at, span.start))
                    at = span.stop
        except OSError:
            os.close(fd)
            raise
        return StoredFile(name, Region(fd, 0, size))

    async def write(
        self, file: StoredFile, offset: int, data: bytes | memoryview, checksum: int, block_size: int
    ) -> list[int]:
        self.ownership.require()
        if self._hanging:
            raise StoreError("the disk does not answer")
        thread = self._writing[file.region.fd % len(self._writing)]
        return await self._run(
            _write, file.region.fd, offset, data, checksum, block_size, threads=thread, file=file, may_be_full=True
        )

    async def read_in(self, file: StoredFile, span: Span) -> None:
        await self._run(page_cache.read_in, file.region.fd, span, threads=self._reading)

    async def read(self, file: StoredFile, span: Span) -> bytes:
        data = await self._run(os.pread, file.region.fd, span.length, span.start, threads=self._reading)
        if len(data) != span.length:
            raise EOFError(f"the cached file ended {span.length - len(data)} bytes early")
        return data

    async def read_known(self, file: StoredFile, span: Span, sums: Sequence[int], block_size: int) -> bytes | None:
        data = await self._run(_read_known, file.region.fd, span, sums, block_size, threads=self._reading, file=file)
        if data is not None and len(data) != span.length:
            raise EOFError(f"the cached file ended {span.length - len(data)} bytes early")
        return data

    async def checksums(self, file: StoredFile, span: Span, block_size: int) -> list[int | None]:
        return await self._run(audit.checksums, file.region.fd, span, block_size)

    async def digest(self, file: StoredFile, size: int, algorithm: str, *, is_urgent: bool = True) -> bytes | None:
        threads = self._reading if is_urgent else self._scrubbing
        return await self._run(digests.of_file, file.region.fd, size, algorithm, threads=threads, is_bounded=False)

    async def audit(self, name: str, size: int, claims: Sequence[tuple[int, int]], block_size: int) -> int | None:
        return await self._run(
            audit.damaged, self.folder, name, size, claims, block_size, threads=self._scrubbing, is_bounded=False
        )

    async def punch(self, file: StoredFile, span: Span) -> None:
        self.ownership.require()
        await self._run(punch, file.region.fd, span, file=file)

    async def sync(self, file: StoredFile) -> None:
        await self._run(getattr(os, "fdatasync", os.fsync), file.region.fd, file=file)

    async def remove(self, name: str) -> None:
        if not self.ownership.is_held:
            return  # the sweep of the owner removes files without a row
        await self._run(self._remove, name)

    def _remove(self, name: str) -> None:
        self.folder.unlink(name)

    async def remove_all(self, names: Sequence[str]) -> None:
        self.ownership.require()
        await self._run(self._remove_all, names)

    def _remove_all(self, names: Sequence[str]) -> None:
        failure: OSError | None = None
        for name in names:
            try:
                self.folder.unlink(name)
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure

    async def close_file(self, file: StoredFile) -> None:
        """Close the file once all pending calls on it have finished.

        Raises StoreError after DISK_TIMEOUT_S, and closes it later then.
        """
        try:
            async with asyncio.timeout(DISK_TIMEOUT_S):
                while calls := self._pending.get(file.region.fd):
                    await asyncio.wait(calls)
        except TimeoutError as error:
            self._to_close.add(file.region.fd)
            raise StoreError(f"the disk did not answer within {DISK_TIMEOUT_S:g} s (close)") from error
        # The last close of an unlinked file frees its blocks, which takes long for a large one: it needs a thread.
        await self._run(os.close, file.region.fd)

    async def disk_space(self) -> DiskSpace:
        self.ownership.require()
        return await self._run(self.folder.space)

    async def is_out_of_space(self) -> bool:
        """Return whether the disk refuses a few more bytes because it is full, or a quota is used up."""
        return await self._run(self.folder.lacks_space)

    async def files(self, shard: str) -> list[FoundFile]:
        """Return the files of one of `shards()`."""
        return await self._run(self.folder.files, shard)

    async def has_lost(self, index: str, identity: tuple[int, int] | None) -> bool:
        return await self._run(lambda: self.folder.is_deleted or self.folder.identity(index) != identity)

    async def renew(self) -> None:
        """Create the folder again as far as it was deleted. Raises StoreError, CacheInUse."""
        await self._run(self.folder.renew)

    async def shards(self) -> list[str]:
        """Return the names of the folders that the files lie in."""
        return await self._run(self.folder.shards)

    async def _run(
        self,
        call: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        threads: Executor | None = None,
        is_bounded: bool = True,
        file: StoredFile | None = None,
        may_be_full: bool = False,
    ) -> T:
        """Run a call in a thread. Raises StoreError, also after DISK_TIMEOUT_S if the call is bounded.

        `file` is not closed during the call, because another file might get the number of its descriptor. With
        `may_be_full`, a full disk raises DiskFull and does not count as a failure.
        """
        work = asyncio.get_running_loop().run_in_executor(threads or self._threads, call, *args)
        self._calls.add(work)
        work.add_done_callback(self._calls.discard)
        if file is not None:
            self._pending.setdefault(file.region.fd, set()).add(work)
            work.add_done_callback(lambda ended: self._ended(file.region.fd, ended))
        try:
            async with asyncio.timeout(DISK_TIMEOUT_S if is_bounded else None) as deadline:
                # Shielded, because the thread cannot be stopped, and a descriptor that it opens must not leak.
                return await asyncio.shield(work)
        except OSError as error:
            if deadline.expired():
                self._hanging.add(work)
                work.add_done_callback(self._hanging.discard)
                work.add_done_callback(_close_late)
                self.note_failure("it does not answer")
                raise StoreError(f"the disk did not answer within {DISK_TIMEOUT_S:g} s ({call.__name__})") from error
            message = f"the cache folder failed: {error.strerror} ({call.__name__})"
            if may_be_full and error.errno in FULL_ERRNOS:
                raise DiskFull(message) from error
            self.note_failure(str(error))
            raise StoreError(message) from error
        except asyncio.CancelledError:
            work.add_done_callback(_close_late)
            raise

    def _ended(self, fd: int, work: asyncio.Future[Any]) -> None:
        calls = self._pending[fd]
        calls.discard(work)
        if calls:
            return
        del self._pending[fd]
        if fd in self._to_close:
            self._to_close.discard(fd)
            self._threads.submit(os.close, fd)

    def note_failure(self, reason: str) -> None:
        self.failures += 1
        self.last_failure = reason
        self._failed_at = self._clock()


def _yield_to_others() -> None:
    if sys.platform == "linux":  # elsewhere a thread's number may be that of another process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _close_late(work: "asyncio.Future[T]") -> None:
    if not work.cancelled() and work.exception() is None and isinstance(result := work.result(), StoredFile):
        os.close(result.region.fd)


def _write(fd: int, offset: int, data: bytes | memoryview, checksum: int, block_size: int) -> list[int]:
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
        yield zlib_ng.crc32(view[:in_block], checksum)
        view = view[in_block:]
        offset += in_block
        checksum = 0


def _read_known(fd: int, span: Span, sums: Sequence[int], block_size: int) -> bytes | None:
    data = os.pread(fd, span.length, span.start)
    found = _checksums(memoryview(data), span.start, 0, block_size)
    return data if len(data) != span.length or list(found) == list(sums) else None


def punch(fd: int, span: Span) -> None:
    """Free the space of these bytes. Raises OSError."""
    if span.start >= span.stop or not hasattr(_libc, "fallocate"):
        return  # without holes, as on macOS, the bytes take space as long as the file, but are never read
    mode = ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE)
    if _libc.fallocate(fd, mode, ctypes.c_long(span.start), ctypes.c_long(span.length)):
        number = ctypes.get_errno()
        # A file system without holes keeps the bytes as long as the file: they take space, but are never read.
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(number, os.strerror(number))
