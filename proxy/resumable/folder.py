"""The files of unfinished uploads: `uploads/<id>.json`, and `uploads/<id>.<n>`, what waits for part n of it.

All I/O runs in threads of its own. Whatever the disk says becomes StoreError. Names are made of ids that were checked.
"""

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar, TypeVarTuple, Unpack

from proxy.cache.folder import Folder
from proxy.errors import StoreError

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

THREADS = 2
ID = re.compile(r"[0-9a-f]{32}")
_RECORD, _NEW = "json", "new"


@dataclass(slots=True)
class Found:
    """Of one upload. `waiting`: bytes that wait for a part, by its number."""

    record: bytes | None = None
    waiting: dict[int, int] = field(default_factory=dict)


class UploadFolder:
    """Below `folder`, which has to be open."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS, "uploads")

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
                    size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
                    found.setdefault(upload, Found()).waiting[int(suffix)] = size
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

    async def write(self, name: str, part: int, offset: int, data: bytes) -> None:
        """`data` at `offset` of what waits for that part."""
        await self._run(self._write, name, part, offset, data)

    def _write(self, name: str, part: int, offset: int, data: bytes) -> None:
        with self._folder.uploads() as folder:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(f"{_checked(name)}.{part}", flags, 0o600, dir_fd=folder)
            try:
                _write_all(fd, data, offset)
            finally:
                os.close(fd)

    async def read(self, name: str, part: int, offset: int, count: int) -> bytes:
        """Fewer than `count` bytes where the file ends."""
        return await self._run(self._read, name, part, offset, count)

    def _read(self, name: str, part: int, offset: int, count: int) -> bytes:
        with self._folder.uploads() as folder:
            fd = os.open(f"{_checked(name)}.{part}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                return os.pread(fd, count, offset)
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
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)
        except OSError as error:
            raise StoreError(f"the cache folder failed: {error.strerror} ({call.__name__})") from error


def _checked(name: str) -> str:
    if ID.fullmatch(name) is None:
        raise StoreError(f"{name[:40]!r} is no upload's id")
    return name


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _opener(folder: int) -> Callable[[str, int], int]:
    return lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
