"""The cache folder, held by descriptors, so that another folder which takes its name is never touched.

Files are named by a ULID and lie in `objects/XX/`, where XX are the last two characters of the name. Call everything in
a thread. Each call raises OSError.
"""

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ulid import ULID

from bucketfront.cache.storage.storage import DiskSpace
from bucketfront.errors import CacheInUse, StoreError

ULID_LENGTH = 26
PROBE_BYTES = 64 << 10  # about the space that a new index needs
FEW_INODES = 16 << 10  # of a file system, of which the 1024 folders of files would take a sixteenth or more
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})  # of a disk that is full, or a quota that is used up
_CLOCK_OF_FILES = 5  # linux/time.h: CLOCK_REALTIME_COARSE
_PROBE = ".probe"
_ONLY_SHARD = "00"
_NAME_CHARS = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
_PRIVATE_FOLDER = 0o700  # whatever the umask of the process is
_PRIVATE_FILE = 0o600
_ABOVE = 0o755  # of missing folders above the cache folder
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# Errors of an open that finds a symbolic link, a folder or a socket in place of a file.
_NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})
_NO_FOLDER = frozenset({errno.ENOTDIR, errno.ELOOP})
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of the folder. `changed_at` is in seconds since the epoch, by the clock of the file system.

    `allocated` are its bytes on the disk.
    """

    name: str
    changed_at: float
    allocated: int


class Folder:
    """The folder `root`. A symbolic link to it, or above it, is followed only when the folder is opened."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = self._objects = self._lock = -1
        self.is_full = False  # as of the last `open` or `renew`
        self.opened_at = 0.0  # or renewed, in seconds since the epoch, by the clock of the file system
        self._shards: tuple[str, ...] = ()  # the folders for new files; if empty, all 1024 that names can have

    @property
    def is_open(self) -> bool:
        return self._root >= 0

    @property
    def fd(self) -> int:
        """Return the descriptor of the folder. The number stays the same over `renew`."""
        return self._root

    def open(self) -> None:
        """Create the folder if it is missing, lock it, and write a probe.

        Raises CacheInUse; raises StoreError if another user may write to it.
        """
        _make(self.root)
        self.root = self.root.resolve()
        self._root, self._objects, self._lock = _hold(self.root)
        try:
            self._probe()
        except OSError:
            self.close()
            raise

    def open_to_read(self) -> None:
        """Open a folder that another process may have locked, to read it."""
        self.root = self.root.resolve()
        self._root = os.open(self.root, _FOLDER)
        self._objects = os.open("objects", _FOLDER, dir_fd=self._root)

    @property
    def lock_fd(self) -> int:
        """Return the descriptor of the lock. The lock holds as long as any process has a copy of it."""
        return self._lock

    def unlock(self) -> None:
        """Let another process lock the folder, also while other processes have copies of the lock's descriptor."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        for fd in (self._objects, self._lock, self._root):
            if fd >= 0:
                os.close(fd)
        self._root = self._objects = self._lock = -1

    @property
    def is_deleted(self) -> bool:
        """Return whether the folder, or that of the objects, was deleted and not just renamed."""
        return any(os.fstat(fd).st_nlink == 0 for fd in (self._root, self._objects))

    def renew(self) -> None:
        """Create deleted folders again. Raises CacheInUse; raises StoreError if the path leads to another place now."""
        if self.root.resolve() != self.root:
            raise StoreError(f"the cache folder {self.root} was deleted, and its name leads elsewhere now")
        if os.fstat(self._root).st_nlink == 0:
            _make(self.root)
            held = _hold(self.root)
        else:
            held = (-1, _objects_of(self._root), -1)
        for fd, old in zip(held, (self._root, self._objects, self._lock), strict=True):
            if fd >= 0:
                # `dup2` keeps the number, so that a thread which has just read it uses no descriptor of another file.
                os.dup2(fd, old, inheritable=False)
                os.close(fd)
        self._probe()

    def identity(self, name: str) -> tuple[int, int] | None:
        """Return the device and inode of a file directly in the folder, or None if there is no such file."""
        try:
            found = os.stat(name, dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def space(self) -> DiskSpace:
        """Return the space of the file system, as far as this process may use it."""
        found = os.fstatvfs(self._root)
        return DiskSpace(
            found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, max(0, found.f_favail), found.f_files
        )

    def new_name(self) -> str:
        """Return the name of a new file, which also decides its folder."""
        name = str(ULID())
        # Of a ULID the first two characters stay the same for 34 years, and the last ones may be a counter.
        return name[2:] + secrets.choice(self._shards) if self._shards else name

    def spare_inodes(self) -> None:
        """Make no further folder for new files, because each takes an inode that a file could have."""
        self._shards = tuple(name for name in self.shards() if len(name) == 2 and _NAME_CHARS.issuperset(name))

    def open_file(self, name: str, flags: int) -> int:
        """Open a file, and create its folder if `flags` has O_CREAT.

        Raises FileNotFoundError, also if the name leads to something that is no file of this cache: a symbolic link, a
        named pipe, a folder, a file of another user, or one that has another name as well. A write to such a file, or
        a hole in it, could change what others have.
        """
        create = bool(flags & os.O_CREAT)
        # Without O_NONBLOCK, a named pipe would hold the thread for ever: fifo(7).
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with self._shard_of(name, create=create) as shard:
            try:
                fd = os.open(name, flags, _PRIVATE_FILE, dir_fd=shard)
            except OSError as error:
                if not create and _is_of_others(error, name, shard):
                    raise _not_ours() from error
                raise
        if create:
            return fd
        try:
            _require_own(fd, flags)
        except OSError:
            os.close(fd)
            raise
        return fd

    def unlink(self, name: str) -> None:
        """Remove the name of a file if it is still there. A folder of that name stays, as the cache made none."""
        with suppress(FileNotFoundError, IsADirectoryError), self._shard_of(name) as shard:
            os.unlink(name, dir_fd=shard)

    @contextmanager
    def uploads(self) -> Iterator[int]:
        """Open the folder of unfinished uploads for the block, and create it if it is missing."""
        with suppress(FileExistsError):
            os.mkdir("uploads", _PRIVATE_FOLDER, dir_fd=self._root)
        fd = os.open("uploads", _FOLDER, dir_fd=self._root)
        try:
            yield fd
        finally:
            os.close(fd)

    def shards(self) -> list[str]:
        """Return the names of the folders below `objects`."""
        return sorted(set(os.listdir(self._objects)) - {_PROBE})  # noqa: PTH208 - pathlib knows no descriptors

    def files(self, shard: str) -> list[FoundFile]:
        """Return the cache's own files of one of the `shards`, and no others that may lie there."""
        try:
            fd = os.open(shard, _FOLDER, dir_fd=self._objects)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            with os.scandir(fd) as names:
                ours = (item for item in names if _is_name(item.name) and item.name.endswith(shard))
                return [file for item in ours if (file := _found(item)) is not None]
        finally:
            os.close(fd)

    def _probe(self) -> None:
        """Note the time, whether the disk is full, and how many folders new files may have."""
        self.opened_at = time.clock_gettime(_CLOCK_OF_FILES)
        self._shards = (_ONLY_SHARD,) if 0 < self.space().inodes < FEW_INODES else ()
        self.is_full = self.lacks_space(self._note_time)

    def _note_time(self, fd: int) -> None:
        self.opened_at = os.fstat(fd).st_mtime

    def lacks_space(self, on_created: Callable[[int], None] = lambda _: None) -> bool:
        """Create a file, remove it, and write to it. Returns whether the disk is full. `on_created` gets the file.

        A full disk is no error, because eviction may free space. The file is removed before it is written, so that one
        which cannot be removed takes no space.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(_PROBE, flags, _PRIVATE_FILE, dir_fd=self._objects)
            try:
                on_created(fd)
                os.unlink(_PROBE, dir_fd=self._objects)
                return os.write(fd, bytes(PROBE_BYTES)) < PROBE_BYTES
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
            return True

    @contextmanager
    def _shard_of(self, name: str, *, create: bool = False) -> Iterator[int]:
        # The name comes from a database that may be corrupt: it must not lead out of the folder.
        if not _is_name(name):
            raise FileNotFoundError(errno.ENOENT, "no file of this cache has such a name", name[:40])
        shard = name[-2:]
        try:
            fd = os.open(shard, _FOLDER, dir_fd=self._objects)
        except OSError as error:
            if error.errno not in (errno.ENOENT, *_NO_FOLDER):
                raise
            if not create:
                raise _not_ours() from error
            if error.errno in _NO_FOLDER:
                os.unlink(shard, dir_fd=self._objects)  # a link or a file stands in the place of the cache's folder
            with suppress(FileExistsError):
                os.mkdir(shard, _PRIVATE_FOLDER, dir_fd=self._objects)
            fd = os.open(shard, _FOLDER, dir_fd=self._objects)
        try:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid():
                raise _not_ours()
            if found.st_mode & _WRITABLE_BY_OTHERS:
                os.fchmod(fd, _PRIVATE_FOLDER)
            yield fd
        finally:
            os.close(fd)


def _make(root: Path) -> None:
    """Make the folder and those above it that are missing."""
    for above in reversed(root.absolute().parents):
        if not above.exists():
            above.mkdir(_ABOVE, exist_ok=True)
    root.mkdir(_PRIVATE_FOLDER, exist_ok=True)


def _not_ours() -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no file of this cache has this name")


def _is_of_others(error: OSError, name: str, shard: int) -> bool:
    """Return whether an open failed because the name has something that the cache did not make."""
    if error.errno == errno.EACCES:
        with suppress(OSError):
            return os.stat(name, dir_fd=shard, follow_symlinks=False).st_uid != os.geteuid()
    return error.errno in _NO_FILE


def _require_own(fd: int, flags: int) -> None:
    """Raise FileNotFoundError unless the file is one that only this cache has. Take it from others to read."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_uid != os.geteuid():
        raise _not_ours()
    if found.st_mode & _OPEN_TO_OTHERS and flags & os.O_RDWR:
        os.fchmod(fd, _PRIVATE_FILE)


def _hold(root: Path) -> tuple[int, int, int]:
    """Open the folder, its objects and the lock, and take the lock. Raises CacheInUse."""
    opened: list[int] = []
    try:
        opened.append(os.open(root, _FOLDER))
        refuse_foreign(root, os.fstat(opened[0]))
        opened.append(_objects_of(opened[0]))
        refuse_foreign(root / "objects", os.fstat(opened[1]))
        opened.append(
            os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE_FILE, dir_fd=opened[0])
        )
        try:
            fcntl.flock(opened[2], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CacheInUse(f"the cache folder {root} is in use by another bucketfront") from error
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    return opened[0], opened[1], opened[2]


def refuse_foreign(path: Path, found: os.stat_result) -> None:
    """Raise StoreError with the remedy if another user may have put files into a folder. They would be served."""
    shown, own = ascii(str(path)), os.geteuid()
    if found.st_uid != own:
        raise StoreError(
            f"the cache folder {shown} belongs to uid {found.st_uid}, which could put files there that would be served."
            f" Set cache.dir to a new folder, or delete this one, or give it and all in it to uid {own} (chown -R)"
        )
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise StoreError(
            f"other users may write to the cache folder {shown} (mode {stat.S_IMODE(found.st_mode):04o}), and what they"
            f" put there would be served. Set cache.dir to a new folder, for example one inside of it. Or run"
            f" `chmod -R go-w` on it if no other user has"
        )


def _found(item: os.DirEntry[str]) -> FoundFile | None:
    """Return what `item` is. Returns None for a folder, and for a file that is gone meanwhile."""
    try:
        seen = item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return None if stat.S_ISDIR(seen.st_mode) else FoundFile(item.name, seen.st_mtime, seen.st_blocks * 512)


def _is_name(name: str) -> bool:
    return len(name) == ULID_LENGTH and _NAME_CHARS.issuperset(name)


def _objects_of(root: int) -> int:
    with suppress(FileExistsError):
        os.mkdir("objects", _PRIVATE_FOLDER, dir_fd=root)
    return os.open("objects", _FOLDER, dir_fd=root)
