"""Sockets that systemd passes to the process at its start: sd_listen_fds(3).

systemd keeps them open across restarts of the process, so connections wait in the kernel meanwhile.
"""

import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from bucketfront.config.problems import Loc
from bucketfront.errors import CannotListen
from bucketfront.server.http1.binding import listener_at

FIRST_DESCRIPTOR = 3
MAX_DESCRIPTORS = 1024  # a larger number is no number of sockets

_PROCESS, _COUNT, _NAMES = "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"
_NAMELESS = "unknown"  # sd_listen_fds_with_names(3): the name of a socket without one
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


@dataclass(frozen=True, slots=True)
class PassedSockets:
    """Descriptors by name. They stay open as long as the process runs."""

    by_name: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def take(cls, environment: MutableMapping[str, str], process: int) -> "PassedSockets":
        """Return the sockets that are meant for `process`, and remove the variables, so that no child sees them."""
        texts = {name: environment.pop(name, "") for name in (_PROCESS, _COUNT, _NAMES)}
        if texts[_PROCESS] != str(process) or not texts[_COUNT].isdecimal():
            return cls()
        count = min(int(texts[_COUNT]), MAX_DESCRIPTORS)
        names = texts[_NAMES].split(":") if texts[_NAMES] else []
        found: dict[str, tuple[int, ...]] = {}
        for number in range(count):
            descriptor = FIRST_DESCRIPTOR + number
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                continue  # there is no such descriptor
            name = (names[number] if number < len(names) else "") or _NAMELESS
            found[name] = (*found.get(name, ()), descriptor)
        return cls(found)


@dataclass(frozen=True, slots=True)
class PassedPlace:
    """Sockets of one name. `number` is the listener's position in `server.listeners`."""

    name: str
    passed: PassedSockets
    number: int

    @property
    def at(self) -> Loc:
        """Return the place of its settings."""
        return listener_at(self.number)

    def __str__(self) -> str:
        return f"systemd:{self.name}"


def sockets_of(place: PassedPlace) -> list[socket.socket]:
    """Return copies of the sockets, which listen already. Raises CannotListen if one does not."""
    at = (*place.at, "systemd")
    descriptors = place.passed.by_name.get(place.name, ())
    if not descriptors:
        passed = ", ".join(place.passed.by_name)
        cause = f"It has passed {passed}" if passed else "It has passed no sockets: start the unit of the socket"
        raise CannotListen(f"systemd has passed no socket of the name {place.name}. {cause}", at)
    found: list[socket.socket] = []
    try:
        for descriptor in descriptors:
            found.append(_copy(descriptor))
            _check(found[-1], place.name, at)
    except OSError as error:
        _close(found)
        raise CannotListen(f"what systemd has passed as {place.name} is no socket: {error.strerror}", at) from error
    except CannotListen:
        _close(found)
        raise
    return found


def _copy(descriptor: int) -> socket.socket:
    """Return a copy of a socket. Raises OSError if the descriptor is no socket."""
    copied = os.dup(descriptor)
    try:
        return socket.socket(fileno=copied)
    except OSError:
        os.close(copied)
        raise


def _check(passed: socket.socket, name: str, at: Loc) -> None:
    if passed.family not in _FAMILIES or passed.type != socket.SOCK_STREAM:
        raise CannotListen(f"the socket {name} must be a stream of TCP or Unix: use ListenStream=", at)
    if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise CannotListen(f"the socket {name} does not listen: use ListenStream=, and Accept=no", at)


def _close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()
