"""Binds the sockets of a listener, and explains why an address cannot be bound."""

import errno
import logging
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bucketfront.config.listen_host import addresses, in_url, is_loopback
from bucketfront.config.problems import Loc
from bucketfront.errors import CannotListen

Section = Literal["server", "admin", "s3"]

_PORT_ATTEMPTS = 16  # to find a port that is free in both protocols
# The machine has no such protocol, or none of its interfaces has such an address.
_NO_SUCH_ADDRESS = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
_LISTENING = "0A"  # proc_net_tcp: the state of a socket that listens

_FAMILIES = (socket.AF_INET, socket.AF_INET6)

log = logging.getLogger(__name__)

# The family, and what getaddrinfo(3) returns for it: host, port, and in IPv6 flow and scope.
Address = tuple[socket.AddressFamily, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class TcpPlace:
    """The host and the port of a listener, from its settings in `section`. `host` is normalised.

    `has_token` admits other machines. `number` is the position in `server.listeners`, None for the others.
    """

    host: str
    port: int
    section: Section
    has_token: bool = True
    number: int | None = None

    @property
    def at(self) -> Loc:
        """Return the place of its settings."""
        return (self.section,) if self.number is None else listener_at(self.number)

    def __str__(self) -> str:
        return in_url(self.host, self.port)


def listener_at(number: int) -> Loc:
    """Return the place of the settings of a further listener for clients."""
    return ("server", "listeners", number)


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, by its id, and the name of its program."""

    process: int
    name: str


def bind(place: TcpPlace) -> list[socket.socket]:
    """Return bound sockets, one for each address of the host, all with the same port. They do not listen yet.

    IPv4 and IPv6 have a socket each, so that a client's address is logged in its own form. A host with several
    addresses needs only those that the machine has. Without a token no address may be beyond loopback
    (docs/invariants.md#admin-is-apart). Raises CannotListen.
    """
    found = _resolved(place)
    require_token(place, [str(address[0]) for _, address in found])
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        try:
            return _bind_all(found, place.port)
        except OSError as error:
            # With port 0, another program may have the port in the other protocol.
            if place.port or error.errno != errno.EADDRINUSE or attempt == _PORT_ATTEMPTS:
                raise cannot_listen(error, place) from error
    raise AssertionError("unreachable")


def require_token(place: TcpPlace, found: list[str]) -> None:
    """Raise CannotListen if the place has no token, and one of its addresses is beyond loopback."""
    if not place.has_token and not all(map(is_loopback, found)):
        raise CannotListen(f"needed, because {place.host} is not loopback: set it", (*place.at, "token"))


def cannot_listen(error: OSError, place: TcpPlace) -> CannotListen:
    """Return the error with its cause and the cure."""
    key = "host" if error.errno in _NO_SUCH_ADDRESS else "port"
    owner = owner_of(place.port) if error.errno == errno.EADDRINUSE else None
    found = CannotListen(f"cannot listen on {place}: {_cause(error, place.port, owner)}", (*place.at, key))
    found.process = None if owner is None else owner.process
    return found


def _resolved(place: TcpPlace) -> list[Address]:
    found: list[Address] = []
    for name in addresses(place.host):
        try:
            answers = socket.getaddrinfo(name, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "not a host name"
            raise CannotListen(
                f"the name does not resolve ({reason}): use an address of this machine, or * for all",
                (*place.at, "host"),
            ) from error
        for family, _, _, _, address in answers:
            if family in _FAMILIES and (family, address) not in found:
                found.append((family, address))
    return found


def _bind_all(found: list[Address], port: int) -> list[socket.socket]:
    """Bind to those addresses that the machine has, at least one. Raises OSError."""
    missing: OSError | None = None
    with ExitStack() as stack:
        bound: list[socket.socket] = []
        for family, address in found:
            try:
                one = _bound(family, address, bound[0].getsockname()[1] if bound else port)
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing = error
                log.info("no listener on %s: %s", address[0], error.strerror)
            else:
                bound.append(stack.enter_context(one))
        if missing is not None and not bound:
            raise missing
        stack.pop_all()
        return bound


def _bound(family: socket.AddressFamily, address: tuple[Any, ...], port: int) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind((address[0], port, *address[2:]))
    except BaseException:
        found.close()
        raise
    return found


def _cause(error: OSError, port: int, owner: Owner | None) -> str:
    """Return why the address cannot be had, with the cure."""
    match error.errno:
        case errno.EADDRINUSE if owner is None and port in _outgoing_ports():
            return (
                "in use, and the kernel gives such ports to outgoing connections as well. Set a port below"
                f" {_outgoing_ports().start}; `ss -tanp sport = :{port}` shows what uses this one"
            )
        case errno.EADDRINUSE:
            user = "another program" if owner is None else f"process {owner.process} ({owner.name})"
            return f"in use by {user}. Stop it, or set another port; `ss -ltnp sport = :{port}` shows what listens"
        case errno.EACCES:
            return "a port below 1024 needs the capability CAP_NET_BIND_SERVICE. Give it that, or set a higher port"
        case code if code in _NO_SUCH_ADDRESS:
            return (
                "this machine has no such address. Set one that `ip addr` shows, * for all addresses, or 127.0.0.1 for"
                " this machine alone"
            )
        case _:
            return error.strerror or str(error)


def _outgoing_ports() -> range:
    """Return the ports from which the kernel takes those of outgoing connections: ip(7), ip_local_port_range."""
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        return range(0)
    return range(first, last + 1)


def owner_of(port: int) -> Owner | None:
    """Return the process that listens on the port. Returns None if it cannot be found out.

    Only root sees the sockets of other users' processes: proc(5).
    """
    sockets: set[str] = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            rows = [line.split() for line in Path("/proc/net", table).read_text().splitlines()[1:]]
            listening = [row for row in rows if row[3] == _LISTENING]
            sockets |= {f"socket:[{row[9]}]" for row in listening if int(row[1].rpartition(":")[2], 16) == port}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(str(fd.readlink()) in sockets for fd in (process / "fd").iterdir()):
                name = (process / "comm").read_text().strip()
                return Owner(int(process.name), ascii(name)[1:-1])
    return None
