"""The files of the cache folder: one sparse file per version, under a random name, never rewritten once published.

All I/O runs in threads of its own, so that a slow disk holds up neither the event loop nor the resolver. Whatever
the disk says becomes StoreError here; callers go on without the cache (I16).
"""

import asyncio
import ctypes
import errno
import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, Unpack

from ulid import ULID

from bucketfront.cache.storage import audit, digests, page_cache
from bucketfront.cache.storage.folder import Folder, FoundFile
from bucketfront.cache.storage.storage import Region, StoredFile
from bucketfront.errors import StoreError
from bucketfront.http.ranges import Span

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

THREADS = 8
WRITERS = 4
PATIENCE = 30.0  # seconds for a call that somebody waits for (I20)
RETRY_AFTER = 5.0  # seconds that a failed disk is left alone

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_libc = ctypes.CDLL(None, use_errno=True)

log = logging.getLogger(__name__)


class FileStorage:
    """The folder `root`: `objects/XX/<ULID>`, the lock, and beside them the index.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self.folder = Folder(root)
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, "disk")
        # Apart: a crowd that reads what is not in memory must not keep fills from writing.
        self._reading = ThreadPoolExecutor(THREADS, "disk-read")
        # The kernel lets one thread at a time write a file; a second one spins, and is in the event loop's way.
        self._writing = [ThreadPoolExecutor(1, "disk-write") for _ in range(WRITERS)]
        # For what nobody waits for: it gets what the others leave of a core.
        self._scrubbing = ThreadPoolExecutor(1, "disk-scrub", initializer=_yield_to_others)
        self._failed_at: float | None = None
        self._hanging: set[asyncio.Future[Any]] = set()  # calls that nobody waits for any more
        self._to_close: set[int] = set()  # descriptors, once nothing goes on with them any more
        self._at_work: dict[int, set[asyncio.Future[Any]]] = {}  # calls that change a file, by its descriptor
        self.failures = 0  # calls to the disk that failed

    @property
    def root(self) -> Path:
        return self.folder.root

    @property
    def opened_at(self) -> float:
        """By the clock that files' times of change are of: what is older, no run since has made."""
        return self.folder.opened_at

    @property
    def is_full(self) -> bool:
        """Whether there was no room for anything when the folder was opened."""
        return self.folder.is_full

    def open(self) -> None:
        """Make the folder and lock it. Raises StoreError with the cure, CacheInUse."""
        try:
            self.folder.open()
        except OSError as error:
            raise StoreError(
                f"cannot write to the cache folder {self.root}: {error.strerror}. Make it writable for uid"
                f" {os.geteuid()}, or set cache.dir to a folder that is"
            ) from error

    def close(self) -> None:
        for threads in (self._threads, self._reading, self._scrubbing, *self._writing):
            threads.shutdown(wait=True)
        self.folder.close()

    @property
    def is_usable(self) -> bool:
        """False for RETRY_AFTER seconds after a failure, and while a call hangs: a sick disk is not asked on every
        request.
        """
        is_rested = self._failed_at is None or self._clock() - self._failed_at >= RETRY_AFTER
        return is_rested and not self._hanging

    async def create(self, size: int) -> StoredFile:
        """A new sparse file of `size` bytes."""
        if not self.is_usable:
            raise StoreError("the disk failed a moment ago")
        is_given_up = threading.Event()
        try:
            return await self._run(self._create, size, is_given_up)
        except BaseException:
            is_given_up.set()
            raise

    def _create(self, size: int, is_given_up: threading.Event) -> StoredFile:
        name = str(ULID())
        fd = self.folder.open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            os.ftruncate(fd, size)
            if is_given_up.is_set():
                raise InterruptedError(errno.EINTR, "nobody waits for the file any more")
        except OSError:
            os.close(fd)
            self.folder.unlink(name)
            raise
        self._failed_at = None
        return StoredFile(name, Region(fd, 0, size))

    async def open_file(self, name: str, size: int, present: list[Span] | None) -> StoredFile | None:
        """An existing file; None if it is not there or has not `size` bytes.

        `present`, after an unclean stop: the bytes that the index knows of; all others are given back to the disk.
        """
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

    async def write(self, file: StoredFile, offset: int, data: bytes, checksum: int, block_size: int) -> list[int]:
        """Write `data` at `offset`. Returns the CRC-32 of what it holds of each block it touches, in order.

        `checksum` is that of the first of these blocks up to `offset`; the result goes on from there.
        """
        if self._hanging:
            raise StoreError("the disk does not answer")
        thread = self._writing[file.region.fd % len(self._writing)]
        return await self._run(_write, file.region.fd, offset, data, checksum, block_size, threads=thread, file=file)

    async def read_in(self, file: StoredFile, span: Span) -> None:
        """Bring these bytes into memory, as far as the file has them."""
        await self._run(page_cache.read_in, file.region.fd, span, threads=self._reading)

    async def read(self, file: StoredFile, span: Span) -> bytes:
        """These bytes. Raises EOFError where the file ends early."""
        data = await self._run(os.pread, file.region.fd, span.length, span.start, threads=self._reading)
        if len(data) != span.length:
            raise EOFError(f"the cached file ended {span.length - len(data)} bytes early")
        return data

    async def read_known(self, file: StoredFile, span: Span, sums: Sequence[int], block_size: int) -> bytes | None:
        """As `read`, from the start of a block on; `sums` are the blocks' CRC-32. None where one has another."""
        data = await self._run(_read_known, file.region.fd, span, sums, block_size, threads=self._reading, file=file)
        if data is not None and len(data) != span.length:
            raise EOFError(f"the cached file ended {span.length - len(data)} bytes early")
        return data

    async def checksum(self, file: StoredFile, span: Span) -> int | None:
        """CRC-32 of these bytes of the file, None if it is shorter, or cannot be read there."""
        return await self._run(audit.checksum, file.region.fd, span)

    async def digest(self, file: StoredFile, size: int, algorithm: str, *, is_urgent: bool = True) -> bytes | None:
        """Of the file's first `size` bytes, see `digests.of_file`. Not urgent: with what others leave of a core."""
        threads = self._reading if is_urgent else self._scrubbing
        return await self._run(digests.of_file, file.region.fd, size, algorithm, threads=threads, is_bounded=False)

    async def audit(self, name: str, size: int, claims: Sequence[tuple[int, int]], block_size: int) -> int | None:
        """Which of the blocks claimed to have a CRC-32 have another, as a set of blocks; None where the file is gone,
        or has another size.
        """
        return await self._run(
            audit.damaged, self.folder, name, size, claims, block_size, threads=self._scrubbing, is_bounded=False
        )

    async def punch(self, file: StoredFile, span: Span) -> None:
        """Give the space of these bytes back to the disk."""
        await self._run(punch, file.region.fd, span, file=file)

    async def sync(self, file: StoredFile) -> None:
        """What was written is on the disk. A file for which this fails must not be tried again: the kernel forgets what
        it could not write, and says yes the next time.
        """
        await self._run(os.fdatasync, file.region.fd, file=file)

    async def remove(self, name: str) -> None:
        """Unlink; a file that is gone already is fine. Open descriptors go on reading it (I18)."""
        await self._run(self._remove, name)

    def _remove(self, name: str) -> None:
        self.folder.unlink(name)

    async def close_file(self, file: StoredFile) -> None:
        """After all that goes on with it, whoever waits for that. Where that does not end, it is closed later."""
        try:
            async with asyncio.timeout(PATIENCE):
                while calls := self._at_work.get(file.region.fd):
                    await asyncio.wait(calls)
        except TimeoutError as error:
            self._to_close.add(file.region.fd)
            raise StoreError(f"the disk did not answer within {PATIENCE:g} s (close)") from error
        # The last close of an unlinked file frees its blocks, which takes a while for a large one.
        await self._run(os.close, file.region.fd)

    async def disk_space(self) -> tuple[int, int]:
        """Free and total bytes of the file system."""
        return await self._run(self.folder.space)

    async def files(self, shard: str) -> list[FoundFile]:
        """Those of one of `shards()`."""
        return await self._run(self.folder.files, shard)

    async def has_lost(self, index: str, identity: tuple[int, int] | None) -> bool:
        """Whether the folder, or the file of this name in it, was deleted: by somebody else, it has to be."""
        return await self._run(lambda: self.folder.is_deleted or self.folder.identity(index) != identity)

    async def renew(self) -> None:
        """Make the folder again, as far as it was deleted. Raises StoreError, CacheInUse."""
        await self._run(self.folder.renew)

    async def shards(self) -> list[str]:
        return await self._run(self.folder.shards)

    async def _run(
        self,
        call: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        threads: Executor | None = None,
        is_bounded: bool = True,
        file: StoredFile | None = None,
    ) -> T:
        """Raises StoreError after PATIENCE, unless the call may take long. `file`: what it may change, so that the
        descriptor is not closed meanwhile: its number might be another file's then.
        """
        work = asyncio.get_running_loop().run_in_executor(threads or self._threads, call, *args)
        if file is not None:
            self._at_work.setdefault(file.region.fd, set()).add(work)
            work.add_done_callback(lambda ended: self._ended(file.region.fd, ended))
        try:
            async with asyncio.timeout(PATIENCE if is_bounded else None) as deadline:
                # Shielded: the thread cannot be stopped, and a descriptor it opened must not get lost.
                return await asyncio.shield(work)
        except OSError as error:
            if deadline.expired():
                self._hanging.add(work)
                work.add_done_callback(self._hanging.discard)
                work.add_done_callback(_dispose)
                self.failed("it does not answer")
                raise StoreError(f"the disk did not answer within {PATIENCE:g} s ({call.__name__})") from error
            self.failed(str(error))
            raise StoreError(f"the cache folder failed: {error.strerror} ({call.__name__})") from error
        except asyncio.CancelledError:
            work.add_done_callback(_dispose)
            raise

    def _ended(self, fd: int, work: asyncio.Future[Any]) -> None:
        calls = self._at_work[fd]
        calls.discard(work)
        if calls:
            return
        del self._at_work[fd]
        if fd in self._to_close:
            self._to_close.discard(fd)
            self._threads.submit(os.close, fd)

    def failed(self, why: str) -> None:
        """The disk failed somebody: leave it alone for a while."""
        self.failures += 1
        if self.is_usable:
            log.warning("the cache folder failed, going on uncached: %s", why)
        self._failed_at = self._clock()


def _yield_to_others() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _dispose(work: "asyncio.Future[T]") -> None:
    if not work.cancelled() and work.exception() is None and isinstance(result := work.result(), StoredFile):
        os.close(result.region.fd)


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


def _read_known(fd: int, span: Span, sums: Sequence[int], block_size: int) -> bytes | None:
    data = os.pread(fd, span.length, span.start)
    found = _checksums(memoryview(data), span.start, 0, block_size)
    return data if len(data) != span.length or list(found) == list(sums) else None


def punch(fd: int, span: Span) -> None:
    if span.start >= span.stop:
        return
    mode = ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE)
    if _libc.fallocate(fd, mode, ctypes.c_long(span.start), ctypes.c_long(span.length)):
        number = ctypes.get_errno()
        # A file system without holes keeps the bytes until the file goes: more space, no wrong byte.
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(number, os.strerror(number))
