"""One end of the Unix socket between the owner and a front end. It sends and receives messages with descriptors.

Messages arrive in the order in which they were sent. A message that the socket does not take at once waits here, and
those behind it do too, so `send` never blocks. All failures of the socket are one event: the other end is lost.
"""

import asyncio
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from bucketfront.descriptor_channel import BadMessage, close_all, receive_packet
from bucketfront.front_end.message import Message

MAX_MESSAGE_BYTES = 160 << 10  # below net.core.wmem_default, which bounds a datagram of a Unix socket
MAX_PER_TURN = 64  # messages that are received in one turn of the event loop

log = logging.getLogger(__name__)

OnMessage = Callable[[Message, tuple[int, ...]], None]
"""Takes a message with its descriptors, which the callee closes."""


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets that keep the bounds of messages."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """`on_message` gets each message, and `on_lost` is called once if the other end is gone or sends nonsense."""

    def __init__(self, end: socket.socket, on_message: OnMessage, on_lost: Callable[[], None]) -> None:
        end.setblocking(False)
        self._socket = end
        self._on_message = on_message
        self._on_lost = on_lost
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end, self._receive)

    @property
    def is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message with copies of the descriptors. Does nothing if the other end is lost."""
        octets = message.encoded()
        assert len(octets) <= MAX_MESSAGE_BYTES, f"{message.kind.name} has {len(octets)} bytes"
        if not self.is_open:
            return
        if self._waiting or not self._is_sent(octets, descriptors):
            self._wait(octets, descriptors)

    def close(self) -> None:
        if not self.is_open:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, descriptors in self._waiting:
            close_all(descriptors)
        self._waiting.clear()

    def _is_sent(self, octets: bytes, descriptors: Sequence[int]) -> bool:
        """Send a datagram. Returns False if the socket does not take it now."""
        try:
            socket.send_fds(self._socket, [octets], descriptors)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # unix(7): too many descriptors are under way, and the other end will take some of them.
            if error.errno in (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM):
                return False
            self._loop.call_soon(self._lose)
        return True

    def _wait(self, octets: bytes, descriptors: Sequence[int]) -> None:
        # The caller may close its descriptors as soon as `send` returns.
        self._waiting.append((octets, tuple(map(os.dup, descriptors))))
        self._loop.add_writer(self._socket, self._send_waiting)

    def _send_waiting(self) -> None:
        while self._waiting:
            octets, descriptors = self._waiting[0]
            if not self._is_sent(octets, descriptors):
                return
            close_all(descriptors)
            self._waiting.popleft()
        if self.is_open:
            self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        for _ in range(MAX_PER_TURN):
            if not self.is_open:
                return
            try:
                octets, descriptors = receive_packet(self._socket, MAX_MESSAGE_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except (OSError, BadMessage):
                self._lose()
                return
            if not octets:
                self._lose()
                return
            try:
                message = Message.decoded(octets)
            except (ValueError, IndexError):
                close_all(descriptors)
                self._lose()
                return
            try:
                self._on_message(message, descriptors)
            except Exception:
                # Without what the message was for, the two ends would not agree any more on what may be served.
                log.exception("a message of another process failed with an unexpected error")
                self._lose()

    def _lose(self) -> None:
        if self.is_open:
            self.close()
            self._on_lost()
