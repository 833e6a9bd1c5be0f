"""Messages with descriptors between processes: unix(7)."""

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rows import each_row

from bucketfront import descriptor_channel
from bucketfront.descriptor_channel import (
    MAX_MESSAGE_BYTES,
    BadMessage,
    ChannelClosed,
    ChannelListener,
    DescriptorChannel,
    Peer,
    connect,
)

NAME = "x.sock"


def descriptors_open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A folder whose path is longer than that of a Unix socket may be."""
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    fd = os.open(deep, os.O_DIRECTORY)
    yield fd
    os.close(fd)


def pair() -> tuple[DescriptorChannel, DescriptorChannel]:
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return DescriptorChannel(first), DescriptorChannel(second)


async def test_messages_keep_their_bounds_and_descriptors() -> None:
    """Each message comes alone, in order, with copies of its own descriptors, which no child inherits."""
    first, second = pair()
    with closing(first), closing(second), socket.create_server(("127.0.0.1", 0)) as own:
        await first.send({"number": 1})
        await first.send({"number": 2}, [own.fileno(), own.fileno()])
        assert await second.receive() == descriptor_channel.Message({"number": 1})
        message = await second.receive()
        assert message.fields == {"number": 2}
        assert len(message.descriptors) == 2
        for fd in message.descriptors:
            assert not os.get_inheritable(fd)
            with socket.socket(fileno=fd) as copy:
                assert copy.getsockname() == own.getsockname()


async def test_a_reader_waits_for_the_writer_and_a_writer_for_the_reader() -> None:
    """Many large messages pass one by one, although the kernel holds few of them."""
    first, second = pair()
    with closing(first), closing(second):

        async def send_all() -> None:
            for number in range(50):
                await first.send({"number": number, "text": "x" * (MAX_MESSAGE_BYTES // 2)})

        sending = asyncio.create_task(send_all())
        assert [(await second.receive()).fields["number"] for _ in range(50)] == list(range(50))
        await sending


@each_row("data", [b"x", b"[]", b"1", b"\xff", b" " * (MAX_MESSAGE_BYTES + 1)])
async def test_no_message(data: bytes) -> None:
    """What is no JSON object, or is too long, is refused, and its descriptors are closed."""
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with first, closing(DescriptorChannel(second)) as channel:
        before = descriptors_open()
        socket.send_fds(first, [data], [first.fileno()])
        with pytest.raises(BadMessage):
            await channel.receive()
        assert descriptors_open() == before


async def test_the_other_end_is_gone() -> None:
    """Both directions report a closed end."""
    first, second = pair()
    second.close()
    with closing(first):
        with pytest.raises(ChannelClosed):
            await first.receive()
        with pytest.raises(ChannelClosed):
            await first.send({})


async def test_a_name_in_a_folder(folder: int) -> None:
    """A listener has a name of mode 0600, replaces one that a kill left, and removes it at its end."""
    arrived: asyncio.Queue[DescriptorChannel] = asyncio.Queue()
    assert connect(folder, NAME) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(f"/proc/self/fd/{folder}/{NAME}")
    assert connect(folder, NAME) is None
    listener = ChannelListener(folder, NAME, arrived.put_nowait)
    assert stat.S_IMODE(os.stat(NAME, dir_fd=folder).st_mode) == 0o600
    channel = connect(folder, NAME)
    assert channel is not None
    accepted = await arrived.get()
    assert accepted.peer == channel.peer == Peer(os.getpid(), os.geteuid())
    listener.close()
    listener.close()
    assert os.listdir(folder) == []
    await accepted.send({"is": "open"})
    assert (await channel.receive()).fields == {"is": "open"}
    channel.close()
    accepted.close()


@pytest.mark.parametrize("is_server", [True, False])
async def test_another_user(folder: int, monkeypatch: pytest.MonkeyPatch, *, is_server: bool) -> None:
    """Neither end talks to a process of another user."""
    arrived: list[DescriptorChannel] = []
    listener = ChannelListener(folder, NAME, arrived.append)
    own = descriptor_channel._peer_of
    other = Peer(1, os.geteuid() + 1)
    seen: list[int] = []

    def peer_of(connected: socket.socket) -> Peer:
        seen.append(1)
        return other if (len(seen) == 2) is is_server else own(connected)

    monkeypatch.setattr(descriptor_channel, "_peer_of", peer_of)
    with closing(listener):
        if is_server:
            channel = connect(folder, NAME)
            assert channel is not None
            with closing(channel), pytest.raises(ChannelClosed):
                await channel.receive()
        else:
            with pytest.raises(PermissionError):
                connect(folder, NAME)
    for one in arrived:
        one.close()
    assert len(arrived) <= (not is_server)
