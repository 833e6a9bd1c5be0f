"""The multipart uploads that were created and are neither completed nor aborted, in a file that outlives a kill.

The next start aborts the uploads of the file, because parts that stay at S3 cost money. This process aborts them as
well, if it could not abort them at their end. A file that cannot be read or written is no reason to refuse an upload,
because the bucket's lifecycle rule for incomplete uploads removes the parts.

A process from which another one has taken the folder over keeps its running uploads in a file of its own, `<stem>-<id>`
with the same suffix. It holds a lock on that as long as it lives. The owner of the folder aborts the uploads of such
files that are not locked.
"""

import asyncio
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bucketfront.errors import OriginError
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.multipart import Multipart

FIRST_ABORT_PAUSE_S = 60.0  # until an abort that failed is repeated, doubled each time: an outage of S3 takes minutes
MAX_ABORT_PAUSE_S = 3600.0  # S3 charges for parts by the hour

Uploads = dict[str, tuple[str, ObjectKey]]
"""Endpoint and key, by the id of the upload."""

log = logging.getLogger(__name__)


class UploadJournal:
    """The file at `path`, which implements `multipart.Journal`.

    `folder` is the descriptor of its folder, if the file is opened relative to one. `endpoint` names the S3 of this
    process. Uploads of other endpoints stay in the file.
    """

    def __init__(self, path: Path, endpoint: str, folder: int | None = None) -> None:
        self._path = self._shared_path = path
        self._folder = folder
        self._endpoint = endpoint
        self._uploads: Uploads = {}
        self._abandoned: dict[str, None] = {}
        self._write_lock = asyncio.Lock()
        self._lock = -1  # the locked file of this process, while another one owns the folder

    def open(self) -> None:
        """Read the uploads of earlier runs. A file that cannot be read counts as empty."""
        try:
            found = _decoded(_read(_place(self._path, self._folder), self._folder))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is of no use, and begun anew: %s", self._path, error)
            return
        self._adopt(found)

    def _adopt(self, found: Uploads) -> None:
        """Take over uploads that no request continues."""
        self._uploads |= found
        self._abandoned |= {upload: None for upload, (at, _) in found.items() if at == self._endpoint}

    @property
    def abandoned(self) -> list[tuple[ObjectKey, str]]:
        """Return the uploads that no request of this process continues."""
        return [(self._uploads[upload][1], upload) for upload in self._abandoned]

    async def add(self, key: ObjectKey, upload_id: str) -> None:
        self._uploads[upload_id] = self._endpoint, key
        await self._write()

    async def remove(self, upload_id: str) -> None:
        self._abandoned.pop(upload_id, None)
        if self._uploads.pop(upload_id, None) is not None:
            await self._write()

    def abandon(self, upload_id: str) -> None:
        if upload_id in self._uploads:
            self._abandoned[upload_id] = None

    async def abort_abandoned(self, origin: S3Origin) -> None:
        """Abort the abandoned uploads, now and later ones, for ever. Failures are repeated after growing pauses."""
        pause = FIRST_ABORT_PAUSE_S
        while True:
            await self._adopt_left()
            for key, upload in self.abandoned:
                try:
                    await Multipart.resumed(origin, key, upload, journal=self).abort()
                    log.info("an upload to %s that was left behind is aborted", key)
                except OriginError as error:
                    log.warning("an upload to %s that was left behind is not aborted yet: %s", key, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_ABORT_PAUSE_S) if self._abandoned else FIRST_ABORT_PAUSE_S

    # --- two processes -------------------------------------------------------------------------------------

    async def hand_over(self) -> None:
        """Leave the abandoned uploads in the file to another process, and note the running ones in a file apart."""
        async with self._write_lock:
            left = {upload: about for upload, about in self._uploads.items() if self._is_left(upload)}
            for upload in left:
                del self._uploads[upload]
            self._abandoned.clear()
            shared, self._path = self._path, self._path.with_stem(f"{self._path.stem}-{secrets.token_hex(8)}")
            if self._folder is not None:
                self._folder = os.dup(self._folder)  # the owner's descriptor is closed
            if self._uploads:
                await self._save()
                await self._save_to(shared, left)

    def _is_left(self, upload: str) -> bool:
        return upload in self._abandoned or self._uploads[upload][0] != self._endpoint

    async def take_back(self, folder: int | None = None) -> None:
        """Own the file again, unless this process does. `folder` is as in the constructor."""
        if self._path is self._shared_path:
            return
        async with self._write_lock:
            own, before = self._path, self._folder
            self._path, self._folder = self._shared_path, folder
            running = dict(self._uploads)
            self.open()
            for upload in running:
                self._abandoned.pop(upload, None)
            self._uploads |= running
            if running:
                await self._save()
            self._unlock()
            with suppress(OSError):
                os.unlink(_place(own, before), dir_fd=before)
            if before is not None:
                os.close(before)

    async def _adopt_left(self) -> None:
        """Take over the uploads of files that ended processes have left, unless this process owns no folder."""
        if self._path is not self._shared_path or self._folder is None:
            return
        async with self._write_lock:
            for name, found in await asyncio.to_thread(lambda: list(self._left_files())):
                self._adopt(found)
                if await self._save():
                    with suppress(OSError):
                        os.unlink(name, dir_fd=self._folder)

    def _left_files(self) -> Iterator[tuple[str, Uploads]]:
        stem, suffix = self._path.stem, self._path.suffix
        assert self._folder is not None
        for name in os.listdir(self._folder):  # noqa: PTH208 - pathlib knows no descriptors
            if not (name.startswith(f"{stem}-") and name.endswith(suffix)):
                continue
            with suppress(OSError, ValueError, TypeError):
                data = _read(name, self._folder, is_unlocked=True)
                if data is not None:
                    yield name, _decoded(data)

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    # --- the file ------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        async with self._write_lock:
            await self._save()

    async def _save(self) -> bool:
        """Write the file. Returns False if the disk refuses it."""
        return await self._save_to(self._path, self._uploads)

    async def _save_to(self, path: Path, uploads: Uploads) -> bool:
        is_own = path is not self._shared_path
        rows = [[upload, at, key.bucket, key.key] for upload, (at, key) in uploads.items()]
        place = _place(path, self._folder)
        try:
            if is_own and not rows:
                with suppress(FileNotFoundError):
                    await asyncio.to_thread(os.unlink, place, dir_fd=self._folder)
                return True
            lock = await asyncio.to_thread(_replace, place, self._folder, json.dumps(rows).encode())
        except OSError as error:
            log.warning("uploads that were begun could not be noted: %s", error)
            return False
        if is_own:
            self._unlock()
            self._lock = lock
        else:
            os.close(lock)
        return True


def _decoded(data: bytes | None) -> Uploads:
    return {str(upload): (str(at), ObjectKey(str(b), str(k))) for upload, at, b, k in json.loads(data or b"[]")}


def _read(place: str, folder: int | None, *, is_unlocked: bool = False) -> bytes | None:
    """Return the content of a file. With `is_unlocked`, returns None if a process has locked it."""
    # Without O_NONBLOCK, a named pipe in the place of the file would hold the start for ever: fifo(7).
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with os.fdopen(os.open(place, flags, dir_fd=folder), "rb") as file:
        if is_unlocked:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
        return file.read()


def _replace(place: str, folder: int | None, data: bytes) -> int:
    """Replace the file as a whole, also across a loss of power (docs/invariants.md#crash-only).

    Returns the descriptor of the new file. It has the file's lock, from before the file gets its name.
    """
    fresh = f"{place}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]  # a disk that is nearly full writes less, and fails the next time
        getattr(os, "fdatasync", os.fsync)(fd)
        os.replace(fresh, place, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _place(path: Path, folder: int | None) -> str:
    return str(path) if folder is None else path.name
