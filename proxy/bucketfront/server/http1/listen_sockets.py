"""The listening sockets of a place of each kind, and how people and programs reach them."""

import socket
from collections.abc import Callable, Sequence
from typing import assert_never

from bucketfront.config.listen_host import in_url, is_any, reachable
from bucketfront.server.http1.binding import TcpPlace, bind, cannot_listen, require_token
from bucketfront.server.http1.passed_sockets import PassedPlace, sockets_of
from bucketfront.server.http1.unix_socket import UnixPlace, adopt_unix, bind_unix

MAX_UNSENT_BYTES = 128 << 10  # that a connection's socket takes beyond what the client's window lets it send

ListenPlace = TcpPlace | UnixPlace | PassedPlace
"""Where a listener is to be."""
IsTls = Callable[[socket.socket], bool]
"""Whether connections of a socket begin with TLS."""


class ListenSockets:
    """The bound sockets of a place. Raises CannotListen. Finding the addresses of a name may take seconds.

    `inherited` are those that another process has bound for the same place.
    """

    def __init__(self, place: ListenPlace, inherited: Sequence[socket.socket] = ()) -> None:
        self._place = place
        self._remove: Callable[[], None] | None = None
        if inherited:
            self.sockets = list(inherited)
            self._adopt(place)
            return
        match place:
            case TcpPlace():
                self.sockets = bind(place)
            case UnixPlace():
                bound = bind_unix(place)
                self.sockets, self._remove = [bound.socket], bound.remove
            case PassedPlace():
                self.sockets = sockets_of(place)
            case _:
                assert_never(place)

    def _adopt(self, place: ListenPlace) -> None:
        """Require of inherited sockets what is required of bound ones."""
        if isinstance(place, TcpPlace):
            require_token(place, [str(one.getsockname()[0]) for one in self.sockets])
        elif isinstance(place, UnixPlace):
            self._remove = adopt_unix(place, self.sockets[0]).remove

    def disown(self) -> None:
        """Leave the file of a Unix socket to another process, which has the socket now."""
        self._remove = None

    def listen(self, backlog: int) -> None:
        """Let all sockets listen. Raises CannotListen."""
        for one in self.sockets:
            one.setblocking(False)
            # Accepted sockets inherit it. Without it each client that reads slowly is given megabytes at once, and
            # others wait meanwhile. Clients that read fast get theirs out of the processor's cache.
            if one.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
            try:
                if not isinstance(self._place, PassedPlace):  # systemd has set the backlog
                    one.listen(backlog)
            except OSError as error:
                assert isinstance(self._place, TcpPlace)
                raise cannot_listen(error, self._place) from error

    def close(self) -> None:
        """Close the sockets, and remove the file of a Unix socket."""
        if self._remove is not None:
            self._remove()
        for one in self.sockets:
            one.close()
        self.sockets.clear()

    @property
    def is_unix(self) -> bool:
        return self.sockets[0].family == socket.AF_UNIX

    def address(self, is_tls: IsTls) -> str:
        """Return the URL for programs on this machine, or `unix:` and the path."""
        return _address(self.sockets[0], is_tls)

    def description(self, is_tls: IsTls) -> str:
        """Return what the start prints."""
        if isinstance(self._place, TcpPlace):
            return _described(self.sockets[0], self._place.host, is_tls)
        return ", ".join(_described(one, str(one.getsockname()[0]), is_tls) for one in self.sockets)


def _address(bound: socket.socket, is_tls: IsTls) -> str:
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return f"unix:{name if isinstance(name, str) else repr(name)}"
    host, port = name[:2]
    return f"{'https' if is_tls(bound) else 'http'}://{in_url(reachable(host), port)}"


def _described(bound: socket.socket, host: str, is_tls: IsTls) -> str:
    address = _address(bound, is_tls)
    if bound.family == socket.AF_UNIX:
        return f"{address} with TLS" if is_tls(bound) else address
    return f"{address} and all other addresses" if is_any(host) else address
