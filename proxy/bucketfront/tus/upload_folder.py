"""The files of unfinished uploads: `uploads/<id>.json`, and `uploads/<id>.<n>`, what waits for part n of it.

The latter begin with how many bytes count and their CRC-32, which are written after the bytes themselves: what a kill
leaves behind them does not count, and what went bad since is found.

All I/O runs in threads of its own. Whatever the disk says becomes StoreError. Names are made of ids that were checked.
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

THREADS = 2
PATIENCE = 30.0  # seconds for a call (I20)
ID = re.compile(r"[0-9a-f]{32}")
_RECORD, _NEW = "json", "new"
_HEAD = struct.Struct("<QQ")  # bytes that count, their CRC-32
HEAD_SIZE = _HEAD.size


class Gone(StoreError):
    """What was written before is not there any more."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What waits in a file, in bytes, and its CRC-32."""

    size: int = 0
    checksum: int = 0


@dataclass(slots=True)
class Found:
    """Of one upload. `waiting`: what waits for a part, by its number."""

    record: bytes | None = None
    waiting: dict[int, Kept] = field(default_factory=dict)


class UploadFolder:
    """Below `folder`, which has to be open."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS, "uploads")
        self._hanging: set[Future[Any]] = set()  # calls that nobody waits for any more

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    async def load(self) -> dict[str, Found]:
        """All there is, by id. What has no such name, or was not finished, is removed."""
        return await self._run(self._load)

    def _load(self) -> dict[str, Found]:
        found: dict[str, Found] = {}
        with self._folder.uploads() as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - pathlib knows no descriptors
                upload, _, suffix = name.partition(".")
                if ID.fullmatch(upload) is None or not (suffix == _RECORD or suffix.isdecimal()):
                    os.unlink(name, dir_fd=folder)
                elif suffix == _RECORD:
                    with open(name, "rb", opener=_opener(folder)) as file:
                        found.setdefault(upload, Found()).record = file.read()
                else:
                    found.setdefault(upload, Found()).waiting[int(suffix)] = _kept(folder, name)
        return found

    async def save(self, name: str, text: bytes) -> None:
        """A record, whole or not at all, and on the disk when this returns."""
        await self._run(self._save, name, text)

    def _save(self, name: str, text: bytes) -> None:
        with self._folder.uploads() as folder:
            new, final = f"{_checked(name)}.{_NEW}", f"{name}.{_RECORD}"
            fd = os.open(
                new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
            try:
                _write_all(fd, text, 0)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(new, final, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    async def write(self, name: str, part: int, offset: int, data: bytes, checksum: int) -> None:
        """`data` at `offset` of what waits for that part; `checksum` is the CRC-32 of all up to its end.

        Raises Gone where what comes before `offset` is not there.
        """
        await self._run(self._write, name, part, offset, data, checksum)

    def _write(self, name: str, part: int, offset: int, data: bytes, checksum: int) -> None:
        try:
            with self._folder.uploads() as folder:
                fd = _open_to_write(folder, f"{_checked(name)}.{part}", is_new=not offset)
        except FileNotFoundError as error:
            if not offset:
                raise
            raise Gone("what waited on the disk is gone") from error
        try:
            if offset and os.fstat(fd).st_size < HEAD_SIZE + offset:
                raise Gone("what waited on the disk is shorter than it was")
            _write_all(fd, data, HEAD_SIZE + offset)
            _write_all(fd, _HEAD.pack(offset + len(data), checksum), 0)
        finally:
            os.close(fd)

    async def read(self, name: str, part: int, offset: int, count: int) -> bytes:
        """Fewer than `count` bytes where the file ends."""
        return await self._run(self._read, name, part, offset, count)

    def _read(self, name: str, part: int, offset: int, count: int) -> bytes:
        with self._folder.uploads() as folder:
            fd = os.open(f"{_checked(name)}.{part}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                return os.pread(fd, count, HEAD_SIZE + offset)
            finally:
                os.close(fd)

    async def remove(self, name: str, *parts: int, record: bool = False) -> None:
        """What waits for these parts, and then the record. What is gone already is fine."""
        await self._run(self._remove, name, [*map(str, parts), *([_RECORD] if record else [])])

    def _remove(self, name: str, suffixes: list[str]) -> None:
        with self._folder.uploads() as folder:
            for suffix in suffixes:
                with suppress(FileNotFoundError):
                    os.unlink(f"{_checked(name)}.{suffix}", dir_fd=folder)

    async def _run(self, call: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        if self._hanging:
            raise StoreError("the disk does not answer")  # and a thread is lost to each call that asks it
        work = self._threads.submit(call, *args)
        try:
            async with asyncio.timeout(PATIENCE) as deadline:
                return await asyncio.wrap_future(work)
        except OSError as error:
            if deadline.expired():
                if not work.cancel():
                    self._hanging.add(work)
                    work.add_done_callback(self._hanging.discard)
                raise StoreError(f"the disk did not answer within {PATIENCE:g} s ({call.__name__})") from error
            raise StoreError(f"the cache folder failed: {error.strerror} ({call.__name__})") from error


def _checked(name: str) -> str:
    if ID.fullmatch(name) is None:
        raise StoreError(f"{name[:40]!r} is no upload's id")
    return name


def _kept(folder: int, name: str) -> Kept:
    """Nothing where the file lacks some of it."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        head = os.pread(fd, HEAD_SIZE, 0)
        kept = Kept(*_HEAD.unpack(head)) if len(head) == HEAD_SIZE else Kept()
        return kept if os.fstat(fd).st_size >= HEAD_SIZE + kept.size else Kept()
    finally:
        os.close(fd)


def _open_to_write(folder: int, name: str, *, is_new: bool) -> int:
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    if is_new:
        # Never one that was there: a write that still hangs may come to its end in that.
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
    return lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
