"""What the sockets of a listener pass on to each connection."""

import socket

from bucketfront.server.http1.binding import TcpPlace
from bucketfront.server.http1.listen_sockets import MAX_UNSENT_BYTES, ListenSockets

STRETCH = bytes(1 << 16)
WINDOW = 4096  # of the client, as asked for; the kernel makes it some more


def test_a_client_that_reads_nothing_is_given_little() -> None:
    """A socket takes few bytes for a client that does not read, and not the megabytes of a send buffer (I19, I34)."""
    sockets = ListenSockets(TcpPlace("127.0.0.1", 0, "server"))
    sockets.listen(1)
    (listener,) = sockets.sockets
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        client.connect(listener.getsockname())
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            accepted.setblocking(False)
            taken = 0
            try:
                while taken < 16 * MAX_UNSENT_BYTES:
                    taken += accepted.send(STRETCH)
            except BlockingIOError:
                pass
    sockets.close()
    assert MAX_UNSENT_BYTES <= taken <= 2 * MAX_UNSENT_BYTES
