"""Binds a Unix socket with its mode and owner, and removes the ones that a kill left behind."""

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bucketfront.config.problems import Loc
from bucketfront.errors import CannotListen
from bucketfront.server.http1.binding import listener_at

_KEEP = -1  # chown(2): do not change it


@dataclass(frozen=True, slots=True)
class UnixPlace:
    """The path of a Unix socket, and which users may connect.

    `number` is the listener's position in `server.listeners`.
    """

    path: Path
    mode: int
    owner: str | None
    group: str | None
    number: int

    @property
    def at(self) -> Loc:
        """Return the place of its settings."""
        return listener_at(self.number)

    def __str__(self) -> str:
        return f"unix:{self.path}"


class UnixSocket:
    """A bound Unix socket, whose file `remove` removes unless another process has replaced it."""

    def __init__(self, bound: socket.socket, path: Path) -> None:
        self.socket = bound
        self._path = path
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove the file of the socket. Do nothing if it is another one by now."""
        if self._identity is not None and _identity(self._path) == self._identity:
            self._path.unlink(missing_ok=True)


def bind_unix(place: UnixPlace) -> UnixSocket:
    """Return a bound socket with its mode and owner. It does not listen yet, so that no client can connect before.

    Replaces a socket that no process serves, such as one that a kill left behind. Raises CannotListen.
    """
    owner, group = _owner_of(place), _group_of(place)
    _make_room(place)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file has this mode from its first moment, without the umask, which all threads share.
        os.fchmod(bound.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        bound.bind(os.fspath(place.path))
    except OSError as error:
        bound.close()
        raise _cannot_listen(error, place) from error
    found = UnixSocket(bound, place.path)
    try:
        _give(place, owner, group)
    except CannotListen:
        found.remove()
        bound.close()
        raise
    return found


def adopt_unix(place: UnixPlace, bound: socket.socket) -> UnixSocket:
    """Return a socket that another process has bound, with its mode and owner. Raises CannotListen."""
    owner, group = _owner_of(place), _group_of(place)
    _give(place, owner, group)
    return UnixSocket(bound, place.path)


def _give(place: UnixPlace, owner: int, group: int) -> None:
    """Give the file of a socket its mode and owner. Raises CannotListen."""
    try:
        if (owner, group) != (_KEEP, _KEEP):
            os.chown(place.path, owner, group, follow_symlinks=False)
        place.path.chmod(place.mode)
    except OSError as error:
        raise _cannot_give(error, place) from error


def _owner_of(place: UnixPlace) -> int:
    return _number(place.owner, lambda name: pwd.getpwnam(name).pw_uid, "user", (*place.at, "owner"))


def _group_of(place: UnixPlace) -> int:
    return _number(place.group, lambda name: grp.getgrnam(name).gr_gid, "group", (*place.at, "group"))


def _make_room(place: UnixPlace) -> None:
    """Remove a socket at the path that no process serves. Raises CannotListen if anything else is there."""
    at = (*place.at, "unix")
    try:
        kind = place.path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_listen(error, place) from error
    if not stat.S_ISSOCK(kind):
        raise CannotListen(f"cannot listen on {place}: the path is no socket, so it is kept. Set another path", at)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(place.path))
        except ConnectionRefusedError:
            if not _is_bound(place.path):
                place.path.unlink(missing_ok=True)
                return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its backlog is full
        except OSError as error:
            raise _cannot_listen(error, place) from error
    raise CannotListen(f"cannot listen on {place}: in use by another process. Stop it, or set another path", at)


def _is_bound(path: Path) -> bool:
    """Return whether a process has the socket, and perhaps does not listen yet, as in the middle of a start.

    Returns False if the kernel does not show it: unix(7), /proc/net/unix.
    """
    try:
        lines = Path("/proc/net/unix").read_bytes().split(b"\n")
    except OSError:
        return False
    return any(line.endswith(b" " + os.fsencode(path)) for line in lines)


def _number(name: str | None, find: Callable[[str], int], kind: str, at: Loc) -> int:
    """Return the number of a user or group, which `find` finds by its name. Raises CannotListen."""
    if name is None:
        return _KEEP
    if name.isdecimal():
        return int(name)
    try:
        return find(name)
    except KeyError as error:
        raise CannotListen(f"this machine has no {kind} of this name", at) from error


def _cannot_listen(error: OSError, place: UnixPlace) -> CannotListen:
    match error.errno:
        case errno.ENOENT:
            cause = "its folder does not exist. Make it, or let systemd do so with RuntimeDirectory="
        case errno.EACCES | errno.EPERM | errno.EROFS:
            cause = f"{error.strerror}. The process needs the right to write in the folder"
        case errno.EADDRINUSE:
            cause = "another process has just made it"
        case _:
            cause = error.strerror or str(error)
    return CannotListen(f"cannot listen on {place}: {cause}", (*place.at, "unix"))


def _cannot_give(error: OSError, place: UnixPlace) -> CannotListen:
    if (place.owner, place.group) == (None, None):
        return CannotListen(f"cannot set the mode of {place}: {error.strerror}", (*place.at, "mode"))
    return CannotListen(
        f"cannot set the owner of {place}: {error.strerror}. Another owner needs root, and a group must be one of the"
        " process",
        (*place.at, "group" if place.owner is None else "owner"),
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
