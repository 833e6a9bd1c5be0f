"""Messages between the owner and a front end, with their descriptors."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront import descriptor_channel
from bucketfront.front_end.channel import MAX_MESSAGE_BYTES, Channel, channel_pair
from bucketfront.front_end.message import Kind, Message

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(), lambda inner: st.lists(inner, max_size=3)
)


def descriptors_open() -> set[str]:
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists the others
            found.add(str(one.readlink()))
    return found


class End:
    """One end of a channel, with what it has received."""

    def __init__(self, end: socket.socket) -> None:
        self.messages: list[Message] = []
        self.texts: list[bytes] = []
        self.losses = 0
        self.arrived = asyncio.Event()
        self.channel = Channel(end, self._take, self._lose)

    def _take(self, message: Message, descriptors: tuple[int, ...]) -> None:
        self.messages.append(message)
        for descriptor in descriptors:
            self.texts.append(os.pread(descriptor, 100, 0))
            os.close(descriptor)
        self.arrived.set()

    def _lose(self) -> None:
        self.losses += 1
        self.arrived.set()

    async def received(self, count: int) -> list[Message]:
        while len(self.messages) < count and not self.losses:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 60)
        return self.messages


@contextmanager
def two_ends() -> Iterator[tuple[End, End]]:
    ours, theirs = channel_pair()
    ends = End(ours), End(theirs)
    try:
        yield ends
    finally:
        for end in ends:
            end.channel.close()


@given(st.sampled_from(Kind), st.dictionaries(st.text(), json_values, max_size=4), st.binary(max_size=200))
def test_a_message_is_read_as_it_was_written(kind: Kind, facts: dict[str, object], data: bytes) -> None:
    """Kind, facts and bytes of a message survive its encoding."""
    assert Message.decoded(Message(kind, facts, data).encoded()) == Message(kind, facts, data)


@given(st.binary(max_size=40))
def test_garbage_is_no_message(octets: bytes) -> None:
    """Any octets are a message, or raise ValueError or IndexError, which the channel handles."""
    try:
        message = Message.decoded(octets)
    except (ValueError, IndexError):
        return
    assert isinstance(message.kind, Kind)


async def test_messages_keep_their_order_and_descriptors(tmp_path: Path) -> None:
    """More messages than the socket takes at once arrive in order, each with a copy of its own descriptor."""
    with two_ends() as (first, second):
        count = 500
        for number in range(count):
            (tmp_path / f"{number}").write_bytes(b"%d" % number)
            with (tmp_path / f"{number}").open("rb") as file:
                first.channel.send(Message(Kind.GRANT, {"number": number}, bytes(2000)), (file.fileno(),))
        received = await second.received(count)
        assert [one.facts["number"] for one in received] == list(range(count))
        assert second.texts == [b"%d" % number for number in range(count)]


async def test_the_largest_message_arrives() -> None:
    """A message of the greatest length that a sender may use arrives whole."""
    with two_ends() as (first, second):
        data = os.urandom(MAX_MESSAGE_BYTES - 100)
        first.channel.send(Message(Kind.GRANT, {}, data))
        (message,) = await second.received(1)
        assert message.data == data


async def test_the_loss_of_an_end_is_noticed_once() -> None:
    """The end that is left learns once that the other one is gone, and what it sends then goes nowhere."""
    with two_ends() as (first, second):
        second.channel.close()
        await first.received(1)
        first.channel.send(Message(Kind.FLUSH))
        await asyncio.sleep(0)
        assert (first.losses, first.messages, first.channel.is_open) == (1, [], False)


@each_row("octets", [b"\xff", b"\x01", b"\x01\x00\x00\x00\x04oops", bytes(9)])
async def test_nonsense_ends_the_channel(octets: bytes) -> None:
    """A datagram that is no message ends the channel, as if the other end were gone."""
    ours, theirs = channel_pair()
    with theirs:
        end = End(ours)
        theirs.send(octets)
        await end.received(1)
        assert (end.losses, end.messages) == (1, [])


async def test_descriptors_that_wait_are_closed(tmp_path: Path) -> None:
    """A channel that closes with messages unsent leaves no copy of a descriptor open."""
    file = tmp_path / "one"
    file.write_bytes(b"x")
    with two_ends() as (first, _), file.open("rb") as opened:
        for _number in range(300):
            first.channel.send(Message(Kind.GRANT, {}, bytes(2000)), (opened.fileno(),))
    assert str(file) not in descriptors_open()


async def test_a_message_without_its_descriptors_ends_the_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel could not hand all descriptors over, the message counts for nothing and the channel ends."""
    monkeypatch.setattr(descriptor_channel, "MAX_DESCRIPTORS", 1)
    (tmp_path / "one").write_bytes(b"x")
    with two_ends() as (first, second), (tmp_path / "one").open("rb") as opened:
        first.channel.send(Message(Kind.GRANT), [opened.fileno()] * 9)
        await second.received(1)
        assert (second.losses, second.messages) == (1, [])
