"""Listening sockets of another process, whose place this process takes.

Connections that wait in them are served by the process that accepts them first, so none is refused.
"""

import os
import socket
from collections.abc import Iterable
from contextlib import suppress

from bucketfront.server.http1.listen_sockets import ListenPlace


def name_of(place: ListenPlace) -> str:
    """Return the name of a place in both processes. It does not depend on the order of the listeners."""
    return f"{place.at[0]} {place}"


class InheritedSockets:
    """Sockets by the names of their places. Several places may have one name, such as two with port 0."""

    def __init__(self, found: Iterable[tuple[str, tuple[int, ...]]] = ()) -> None:
        """`found` are names and descriptors, which belong to this object from now on."""
        self._found: dict[str, list[tuple[socket.socket, ...]]] = {}
        for name, descriptors in found:
            self._found.setdefault(name, []).append(tuple(socket.socket(fileno=fd) for fd in descriptors))

    def take(self, place: ListenPlace) -> tuple[socket.socket, ...]:
        """Return the sockets of a place, which the caller owns then. Returns an empty tuple without any."""
        left = self._found.get(name_of(place))
        return left.pop(0) if left else ()

    def has(self, place: ListenPlace) -> bool:
        return bool(self._found.get(name_of(place)))

    def close(self, *, removes_files: bool) -> None:
        """Close the sockets that were not taken. `removes_files`: no process listens at their places any more."""
        for one in [one for left in self._found.values() for sockets in left for one in sockets]:
            name = one.getsockname() if one.family == socket.AF_UNIX else ""
            one.close()
            if name and removes_files:
                with suppress(OSError):
                    os.unlink(name)  # noqa: PTH108 - it may be bytes
        self._found.clear()
