"""Find out whether a cache could open a folder now, without a change to it. For `bucketfront check`."""

import errno
import fcntl
import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bucketfront.cache.storage import schema
from bucketfront.cache.storage.folder import FULL_ERRNOS, refuse_foreign
from bucketfront.errors import CacheInUse, StoreError


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """The folder exists or would be made. Of its disk's `total` bytes, `free` are free and `own` are the cache's."""

    exists: bool
    free: int
    total: int
    own: int


def inspect(root: Path) -> FolderFacts:
    """Return the facts of a folder that a cache could open now. It makes nothing.

    Raises StoreError with the remedy, as the start would; raises CacheInUse if a process has the folder open.
    """
    try:
        place = _nearest(root)
        exists = place == root
        place = place.resolve()
        if exists:
            refuse_foreign(place, place.stat())
            if (place / "objects").is_dir():
                refuse_foreign(place / "objects", (place / "objects").stat())
            _check_free(place)
            schema.refuse_newer(place / "index.db")
            _check_files(place)
        _check_writable(place / "objects" if exists and (place / "objects").exists() else place)
        found = os.statvfs(place)
    except OSError as error:
        at = "" if error.filename in (None, str(root)) else f" ({error.filename})"
        raise StoreError(
            f"cannot write to the cache folder {root}{at}: {error.strerror}. Make it writable for uid"
            f" {os.geteuid()}, or set cache.dir to a folder that is"
        ) from error
    own = _noted_bytes(place / "index.db") if exists and (place / "index.db").is_file() else 0
    return FolderFacts(exists, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, own)


def _nearest(path: Path) -> Path:
    """Return the folder, or the nearest one above it that exists. Raises OSError if one of them is no folder."""
    if not os.path.lexists(path):
        return _nearest(path.absolute().parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


def _check_free(root: Path) -> None:
    """Raise CacheInUse if a process holds the lock of the folder."""
    lock = root / "lock"
    try:
        fd = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        process = _holder(fd)
        by = "" if process is None else f", process {process}"
        found = CacheInUse(
            f"the cache folder {root} is in use by another bucketfront{by}. Stop it, or set cache.dir to another folder"
        )
        found.process = process
        raise found from error
    finally:
        os.close(fd)


def _holder(fd: int) -> int | None:
    """Return the process that has locked a file, as proc_locks(5) shows it. Returns None if it does not."""
    inode = f":{os.fstat(fd).st_ino}"
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    # One that waits for a lock has "->" before the rest.
    locks = [row for row in rows if row[1] == "FLOCK" and row[5].endswith(inode)]
    return next((int(row[4]) for row in locks if int(row[4]) > 0), None)


def _check_files(root: Path) -> None:
    """Raise OSError for a file that the start could not use although the folder itself is fine."""
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        path = root / name
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _check_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        # A full disk is no reason to refuse the folder, because eviction may free space.
        if error.errno not in FULL_ERRNOS:
            raise


def _noted_bytes(index: Path) -> int:
    """Return the bytes of all versions that the index has noted. Returns 0 if it cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(index))}?mode=ro&immutable=1", uri=True)) as reader:
            ((noted,),) = reader.execute("SELECT value FROM state WHERE name = 'bytes'")
    except (sqlite3.Error, ValueError):
        return 0
    return noted if isinstance(noted, int) else 0
