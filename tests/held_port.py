"""Ports that are free for the servers of a test alone."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def held_port(port: int = 0) -> Iterator[int]:
    """Hold a port of loopback until the end of the block: that one, or for 0 one that the kernel chooses.

    The kernel gives it to no other socket, because one is bound to it. That socket never listens, so that connections
    are refused until a server listens there. Two sockets with SO_REUSEADDR can share a port if only one of them
    listens, and servers set that option (socket(7)). Raises OSError if the port is in use.
    """
    with socket.socket() as held:
        held.bind(("127.0.0.1", port))
        # After the bind, which would else share the port of another one.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield int(held.getsockname()[1])
