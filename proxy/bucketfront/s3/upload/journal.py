"""The multipart uploads that were created and are neither completed nor aborted, in a file that outlives a kill.

The next start aborts the uploads of the file, because parts that stay at S3 cost money. This process aborts them as
well, if it could not abort them at their end. A file that cannot be read or written is no reason to refuse an upload,
because the bucket's lifecycle rule for incomplete uploads removes the parts.
"""

import asyncio
import json
import logging
import os
from pathlib import Path

from bucketfront.errors import OriginError
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.multipart import Multipart

FIRST_ABORT_PAUSE_S = 60.0  # until an abort that failed is repeated, doubled each time: an outage of S3 takes minutes
MAX_ABORT_PAUSE_S = 3600.0  # S3 charges for parts by the hour

log = logging.getLogger(__name__)


class UploadJournal:
    """The file at `path`, which implements `multipart.Journal`.

    `folder` is the descriptor of its folder, if the file is opened relative to one. `endpoint` names the S3 of this
    process. Uploads of other endpoints stay in the file.
    """

    def __init__(self, path: Path, endpoint: str, folder: int | None = None) -> None:
        self._path = path
        self._folder = folder
        self._endpoint = endpoint
        self._uploads: dict[str, tuple[str, ObjectKey]] = {}  # endpoint and key, by id
        self._abandoned: dict[str, None] = {}
        self._write_lock = asyncio.Lock()

    def open(self) -> None:
        """Read the uploads of earlier runs. A file that cannot be read counts as empty."""
        try:
            found = json.loads(_read(self._path, self._folder))
            self._uploads = {str(upload): (str(at), ObjectKey(str(b), str(k))) for upload, at, b, k in found}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is of no use, and begun anew: %s", self._path, error)
        self._abandoned = {upload: None for upload, (at, _) in self._uploads.items() if at == self._endpoint}

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
            for key, upload in self.abandoned:
                try:
                    await Multipart.resumed(origin, key, upload, journal=self).abort()
                    log.info("an upload to %s that was left behind is aborted", key)
                except OriginError as error:
                    log.warning("an upload to %s that was left behind is not aborted yet: %s", key, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_ABORT_PAUSE_S) if self._abandoned else FIRST_ABORT_PAUSE_S

    async def _write(self) -> None:
        async with self._write_lock:
            rows = [[upload, at, key.bucket, key.key] for upload, (at, key) in self._uploads.items()]
            try:
                await asyncio.to_thread(_replace, self._path, self._folder, json.dumps(rows).encode())
            except OSError as error:
                log.warning("uploads that were begun could not be noted: %s", error)


def _read(path: Path, folder: int | None) -> bytes:
    # Without O_NONBLOCK, a named pipe in the place of the file would hold the start for ever: fifo(7).
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(_place(path, folder), flags, dir_fd=folder)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _replace(path: Path, folder: int | None, data: bytes) -> None:
    """Replace the file as a whole, also across a loss of power (docs/invariants.md#crash-only)."""
    place = _place(path, folder)
    fresh = f"{place}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]  # a disk that is nearly full writes less, and fails the next time
        getattr(os, "fdatasync", os.fsync)(fd)
    finally:
        os.close(fd)
    os.replace(fresh, place, src_dir_fd=folder, dst_dir_fd=folder)


def _place(path: Path, folder: int | None) -> str:
    return str(path) if folder is None else path.name
