"""Multipart uploads that were begun and are neither completed nor aborted, in a file that outlives a kill.

The next start aborts what it finds there: nobody else would, and parts cost money. So does this process with what it
could not abort itself. A file that cannot be read or written is no reason to refuse an upload: the bucket's lifecycle
rule for incomplete uploads is the second net.
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

FIRST_PAUSE = 60.0  # seconds until what could not be aborted is tried again, doubled each time
LONGEST_PAUSE = 3600.0

log = logging.getLogger(__name__)


class UploadJournal:
    """The file at `path`, looked for in the folder of the descriptor `folder` where there is one. `endpoint` names the
    S3 that this process talks to: uploads of another one stay noted.

    Fulfils `multipart.Notes`.
    """

    def __init__(self, path: Path, endpoint: str, folder: int | None = None) -> None:
        self._path = path
        self._folder = folder
        self._endpoint = endpoint
        self._uploads: dict[str, tuple[str, ObjectKey]] = {}  # endpoint and key, by id
        self._abandoned: dict[str, None] = {}
        self._writing = asyncio.Lock()

    def open(self) -> None:
        """Read what was left by the run before. What cannot be read is nothing."""
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
        """Those that nobody in this process goes on with."""
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
        """Never returns. What S3 refuses is tried again, less and less often."""
        pause = FIRST_PAUSE
        while True:
            for key, upload in self.abandoned:
                try:
                    await Multipart.resumed(origin, key, upload, notes=self).abort()
                    log.info("an upload to %s that was left behind is aborted", key)
                except OriginError as error:
                    log.warning("an upload to %s that was left behind is not aborted yet: %s", key, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE) if self._abandoned else FIRST_PAUSE

    async def _write(self) -> None:
        async with self._writing:
            rows = [[upload, at, key.bucket, key.key] for upload, (at, key) in self._uploads.items()]
            try:
                await asyncio.to_thread(_replace, self._path, self._folder, json.dumps(rows).encode())
            except OSError as error:
                log.warning("uploads that were begun could not be noted: %s", error)


def _read(path: Path, folder: int | None) -> bytes:
    fd = os.open(_place(path, folder), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _replace(path: Path, folder: int | None, data: bytes) -> None:
    """All of it or none, even where the power fails (I14)."""
    place = _place(path, folder)
    fresh = f"{place}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]  # a disk that is nearly full takes less than all, and fails the next time
        os.fdatasync(fd)
    finally:
        os.close(fd)
    os.replace(fresh, place, src_dir_fd=folder, dst_dir_fd=folder)


def _place(path: Path, folder: int | None) -> str:
    return str(path) if folder is None else path.name
