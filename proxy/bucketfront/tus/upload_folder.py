"""The files of resumable uploads: the record `uploads/<id>.json`, and `uploads/<id>.<n>` with bytes for part n.

A file of bytes begins with their number and their CRC-32, which are written after the bytes. So bytes that a kill left
behind that number do not count, and bytes that the disk changed are found.

All I/O runs in threads of this module. Every failure of the disk becomes StoreError. File names are made only of ids
that were checked.
"""

import asyncio
import os
import re
import struct
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, TypeVarTuple, Unpack

from bucketfront.cache import Folder
from bucketfront.errors import StoreError

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

THREADS = 2  # for all uploads: clients send more slowly than a disk writes
DISK_TIMEOUT_S = 30.0  # for one call, as for those of the cache: no request waits longer for a disk that hangs
ID = re.compile(r"[0-9a-f]{32}")
_RECORD, _NEW = "json", "new"
_HEAD = struct.Struct("<QQ")  # number of bytes, their CRC-32
HEAD_BYTES = _HEAD.size
# A symbolic link is not followed. Without O_NONBLOCK, a named pipe would hold a thread for ever: fifo(7).
_AT_ONCE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class StagedBytesLost(StoreError):
    """The bytes that were written before are gone from the disk."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """How many bytes a file has for its part, and their CRC-32."""

    size: int = 0
    checksum: int = 0


@dataclass(slots=True)
class UploadFiles:
    """The files of one upload. `staged` has those with bytes, by the number of their part."""

    record: bytes | None = None
    staged: dict[int, StagedFile] = field(default_factory=dict)


class UploadFolder:
    """The folder `uploads` in `folder`, which has to be open."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS, "uploads")
        self._hanging: set[Future[Any]] = set()  # calls that outlived their timeout

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    async def load(self) -> dict[str, UploadFiles]:
        """Return all files, by upload id. Files with other names, and unfinished ones, are removed."""
        return await self._run(self._load)

    def _load(self) -> dict[str, UploadFiles]:
        found: dict[str, UploadFiles] = {}
        with self._folder.uploads() as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - pathlib knows no descriptors
                upload, _, suffix = name.partition(".")
                if ID.fullmatch(upload) is None or not (suffix == _RECORD or suffix.isdecimal()):
                    os.unlink(name, dir_fd=folder)
                elif suffix == _RECORD:
                    with open(name, "rb", opener=_opener(folder)) as file:
                        found.setdefault(upload, UploadFiles()).record = file.read()
                else:
                    found.setdefault(upload, UploadFiles()).staged[int(suffix)] = _staged_file(folder, name)
        return found

    async def save(self, name: str, text: bytes) -> None:
        """Replace a record as a whole. It is synced to the disk when this returns."""
        await self._run(self._save, name, text)

    def _save(self, name: str, text: bytes) -> None:
        with self._folder.uploads() as folder:
            new, final = f"{_checked(name)}.{_NEW}", f"{name}.{_RECORD}"
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _AT_ONCE, 0o600, dir_fd=folder)
            try:
                _write_all(fd, text, 0)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(new, final, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    async def write(self, name: str, part: int, offset: int, data: bytes, checksum: int) -> None:
        """Write `data` at `offset` of the bytes for a part. `checksum` is the CRC-32 of all bytes up to its end.

        Raises StagedBytesLost if the bytes before `offset` are gone.
        """
        await self._run(self._write, name, part, offset, data, checksum)

    def _write(self, name: str, part: int, offset: int, data: bytes, checksum: int) -> None:
        try:
            with self._folder.uploads() as folder:
                fd = _open_to_write(folder, f"{_checked(name)}.{part}", is_new=not offset)
        except FileNotFoundError as error:
            if not offset:
                raise
            raise StagedBytesLost("what waited on the disk is gone") from error
        try:
            if offset and os.fstat(fd).st_size < HEAD_BYTES + offset:
                raise StagedBytesLost("what waited on the disk is shorter than it was")
            _write_all(fd, data, HEAD_BYTES + offset)
            _write_all(fd, _HEAD.pack(offset + len(data), checksum), 0)
        finally:
            os.close(fd)

    async def read(self, name: str, part: int, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on, or fewer at the end of the file."""
        return await self._run(self._read, name, part, offset, count)

    def _read(self, name: str, part: int, offset: int, count: int) -> bytes:
        with self._folder.uploads() as folder:
            fd = os.open(f"{_checked(name)}.{part}", os.O_RDONLY | _AT_ONCE, dir_fd=folder)
            try:
                return os.pread(fd, count, HEAD_BYTES + offset)
            finally:
                os.close(fd)

    async def remove(self, name: str, *parts: int, record: bool = False) -> None:
        """Remove the bytes for `parts`, then the record. Files that are gone already are fine."""
        await self._run(self._remove, name, [*map(str, parts), *([_RECORD] if record else [])])

    def _remove(self, name: str, suffixes: list[str]) -> None:
        with self._folder.uploads() as folder:
            for suffix in suffixes:
                with suppress(FileNotFoundError):
                    os.unlink(f"{_checked(name)}.{suffix}", dir_fd=folder)

    async def _run(self, call: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        if self._hanging:
            raise StoreError("the disk does not answer")  # each further call would lose a thread
        work = self._threads.submit(call, *args)
        try:
            async with asyncio.timeout(DISK_TIMEOUT_S) as deadline:
                return await asyncio.wrap_future(work)
        except OSError as error:
            if deadline.expired():
                if not work.cancel():
                    self._hanging.add(work)
                    work.add_done_callback(self._hanging.discard)
                raise StoreError(f"the disk did not answer within {DISK_TIMEOUT_S:g} s ({call.__name__})") from error
            raise StoreError(f"the cache folder failed: {error.strerror} ({call.__name__})") from error


def _checked(name: str) -> str:
    if ID.fullmatch(name) is None:
        raise StoreError(f"{name[:40]!r} is no upload's id")
    return name


def _staged_file(folder: int, name: str) -> StagedFile:
    """Return what the file has, or an empty value if the file is shorter than its head declares."""
    fd = os.open(name, os.O_RDONLY | _AT_ONCE, dir_fd=folder)
    try:
        head = os.pread(fd, HEAD_BYTES, 0)
        staged = StagedFile(*_HEAD.unpack(head)) if len(head) == HEAD_BYTES else StagedFile()
        return staged if os.fstat(fd).st_size >= HEAD_BYTES + staged.size else StagedFile()
    finally:
        os.close(fd)


def _open_to_write(folder: int, name: str, *, is_new: bool) -> int:
    flags = os.O_WRONLY | _AT_ONCE
    if is_new:
        # Never reuse a file, because a write that hangs may still end in it.
        flags |= os.O_CREAT | os.O_EXCL
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
    return os.open(name, flags, 0o600, dir_fd=folder)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _opener(folder: int) -> Callable[[str, int], int]:
    return lambda name, flags: os.open(name, flags | _AT_ONCE, dir_fd=folder)
