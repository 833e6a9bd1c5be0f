"""Messages with open descriptors between two processes of this machine: unix(7), SCM_RIGHTS.

Each message is a JSON object, and a packet of its own, so that no message needs framing. A descriptor that arrives is a
copy: its receiver closes it. `ChannelListener` has a name in a folder, which only the user of the process may connect
to. Both ends also learn from the kernel to whom the other one belongs.

Folders are descriptors here, because the path of a Unix socket has 108 bytes, and that of a folder may have more.
"""

import array
import asyncio
import errno
import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bucketfront.errors import ProxyError

MAX_MESSAGE_BYTES = 64 << 10  # a socket's buffer takes several of them
MAX_DESCRIPTORS = 250  # of one message; Linux passes 253
_MODE = 0o600
_BACKLOG = 16
_CREDENTIALS = struct.Struct("3i")  # unix(7): struct ucred

IS_POSSIBLE = sys.platform == "linux"
"""Whether the system has all of this: packets, credentials, and folders by descriptor."""

log = logging.getLogger(__name__)


class ChannelClosed(ProxyError):
    """The other process has closed its end, or has ended."""


class BadMessage(ProxyError):
    """What came is no message of this module."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel knows it."""

    process: int
    user: int


@dataclass(frozen=True, slots=True)
class Message:
    """The fields of a message, and copies of the descriptors that came with it."""

    fields: Mapping[str, Any]
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the descriptors, because the message is not used."""
        close_all(self.descriptors)


def receive_packet(end: socket.socket, max_bytes: int) -> tuple[bytes, tuple[int, ...]]:
    """Return the next packet with copies of its descriptors, and no bytes once the other end is closed.

    Raises BlockingIOError if none has arrived, another OSError on a failure, and BadMessage if a part of it was lost.
    """
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    data, rights, flags, _ = end.recvmsg(max_bytes, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = tuple(_descriptors(rights))
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(descriptors)
        raise BadMessage("a message is longer than any, or this process may open no more descriptors")
    return data, descriptors


def close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class DescriptorChannel:
    """One end of a connection. One task at a time sends, and one receives. `close` it when neither does."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self.peer = _peer_of(connected)

    async def send(self, fields: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message. The descriptors stay open here. Raises ChannelClosed."""
        data = json.dumps(fields).encode()
        assert len(data) <= MAX_MESSAGE_BYTES
        assert len(descriptors) <= MAX_DESCRIPTORS
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._socket.sendmsg([data], rights)
            except (BlockingIOError, InterruptedError):
                await _ready(self._socket, loop.add_writer, loop.remove_writer)
            except OSError as error:
                raise ChannelClosed(f"the other process is gone: {error.strerror}") from error
            else:
                return

    async def receive(self) -> Message:
        """Return the next message. Raises ChannelClosed, BadMessage."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, descriptors = receive_packet(self._socket, MAX_MESSAGE_BYTES)
            except (BlockingIOError, InterruptedError):
                await _ready(self._socket, loop.add_reader, loop.remove_reader)
            except OSError as error:
                raise ChannelClosed(f"the other process is gone: {error.strerror}") from error
            else:
                return _message(data, descriptors)

    def close(self) -> None:
        self._socket.close()


class ChannelListener:
    """A named socket in a folder. `on_connect` gets the channel of each process of our own user that connects.

    The caller holds a lock on the folder, so that a socket of that name is one that a kill left. Raises OSError.
    """

    def __init__(self, folder: int, name: str, on_connect: Callable[[DescriptorChannel], None]) -> None:
        self._folder = os.dup(folder)
        self._name = name
        self._on_connect = on_connect
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            # The file has this mode from its first moment: it is that of the socket, without the umask.
            os.fchmod(self._socket.fileno(), _MODE)
            self._socket.bind(_path(folder, name))
            self._socket.listen(_BACKLOG)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            os.close(self._folder)
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Remove the name, and accept no more. The channels stay. A second call does nothing."""
        if self._socket.fileno() < 0:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        with suppress(OSError):  # the folder was deleted
            os.unlink(self._name, dir_fd=self._folder)
        os.close(self._folder)

    def _accept(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except OSError:  # the other process left, or no descriptor is free
            return
        channel = DescriptorChannel(accepted)
        if channel.peer.user != os.geteuid():
            log.warning("process %d of uid %d may not connect here", channel.peer.process, channel.peer.user)
            channel.close()
            return
        self._on_connect(channel)


def connect(folder: int, name: str) -> DescriptorChannel | None:
    """Return a channel to the process that listens at `name`, if it belongs to our user. Returns None without one.

    Raises OSError.
    """
    if not IS_POSSIBLE:
        return None
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # A listener whose backlog is full refuses, instead of holding the event loop.
        connected.setblocking(False)
        connected.connect(_path(folder, name))
        channel = DescriptorChannel(connected)
    except (FileNotFoundError, ConnectionRefusedError):
        connected.close()
        return None
    except OSError:
        connected.close()
        raise
    if channel.peer.user != os.geteuid():
        channel.close()
        raise PermissionError(errno.EPERM, f"the socket {name} belongs to a process of uid {channel.peer.user}")
    return channel


def _path(folder: int, name: str) -> str:
    """Return a short path of a name in an open folder: proc(5)."""
    return f"/proc/self/fd/{folder}/{name}"


def _peer_of(connected: socket.socket) -> Peer:
    process, user, _ = _CREDENTIALS.unpack(
        connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(process, user)


async def _ready(
    one: socket.socket,
    add: Callable[[socket.socket, Callable[[], None]], None],
    remove: Callable[[socket.socket], bool],
) -> None:
    """Wait until the socket can go on. `add` and `remove` are those of the event loop."""
    ready = asyncio.get_running_loop().create_future()
    add(one, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(one)


def _descriptors(rights: list[tuple[int, int, bytes]]) -> Iterator[int]:
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found = array.array("i")
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
            yield from found


def _message(data: bytes, descriptors: tuple[int, ...]) -> Message:
    """Return what came as a message. Raises ChannelClosed, BadMessage."""
    message = Message({}, descriptors)
    try:
        if not data:
            raise ChannelClosed("the other process is gone")
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise BadMessage("a message has no fields")
    except ValueError as error:
        message.close()
        raise BadMessage("a message is no JSON") from error
    except ProxyError:
        message.close()
        raise
    return Message(fields, descriptors)
