"""The selector that lets the owner of a descriptor handle an event at once."""

import asyncio
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from bucketfront.server.http1.event_loop import (
    MAX_EVENTS_ALONE,
    MAX_EVENTS_PER_TURN,
    MAX_OTHER_EVENTS,
    InlineEventLoop,
    new_event_loop,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def offering() -> InlineEventLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, InlineEventLoop)
    return loop


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_taken(pair: Pair) -> None:
    """An event that its inline reader handles does not reach the loop."""
    ours, theirs = pair
    loop, taken, seen = offering(), [], []

    def take() -> bool:
        taken.append(ours.recv(100))
        return True

    loop.add_reader(ours, lambda: seen.append(ours.recv(100)))
    loop.selector.inline_readers[ours.fileno()] = take
    for word in (b"one", b"two"):
        theirs.send(word)
        await turns()
    del loop.selector.inline_readers[ours.fileno()]
    theirs.send(b"three")
    await turns()
    loop.remove_reader(ours)
    assert (taken, seen) == ([b"one", b"two"], [b"three"])


async def test_declined(pair: Pair) -> None:
    """An event that its inline reader declines reaches the loop in the same turn.

    So does every event except "readable".
    """
    ours, theirs = pair
    loop, offered, seen = offering(), [], []

    def decline() -> bool:
        offered.append(True)
        return False

    loop.add_reader(ours, lambda: seen.append(ours.recv(100)))
    loop.selector.inline_readers[ours.fileno()] = decline
    theirs.send(b"one")
    await turns()
    assert (offered, seen) == ([True], [b"one"])

    def on_writable() -> None:
        seen.append(b"writable")
        loop.remove_writer(ours)

    loop.add_writer(ours, on_writable)
    theirs.send(b"two")
    await turns()
    assert offered == [True], "readable and writable at once"
    assert seen == [b"one", b"two", b"writable"]
    theirs.close()
    await turns()
    del loop.selector.inline_readers[ours.fileno()]
    loop.remove_reader(ours)
    assert offered == [True], "hung up"
    assert seen[-1] == b""


async def test_taker_that_closes_others() -> None:
    """An inline reader may close descriptors that have an event in the same turn."""
    loop = offering()
    pairs = [socket.socketpair() for _ in range(4)]
    called = []

    def close_all() -> bool:
        called.append(True)
        for ours, _ in pairs:
            loop.selector.inline_readers.pop(ours.fileno(), None)
            loop.remove_reader(ours)
            ours.close()
        return True

    for ours, theirs in pairs:
        loop.add_reader(ours, called.append, False)
        loop.selector.inline_readers[ours.fileno()] = close_all
        theirs.send(b"x")
    await turns()
    for _, theirs in pairs:
        theirs.close()
    assert called == [True]


async def test_many_at_once() -> None:
    """More events than one turn takes are all handled in the following turns, and a timer runs between them."""
    loop = offering()
    pairs = [socket.socketpair() for _ in range(3 * MAX_EVENTS_PER_TURN)]
    taken: list[int] = []

    def taker_of(ours: socket.socket) -> None:
        def take() -> bool:
            taken.append(len(ours.recv(1)))
            return True

        loop.add_reader(ours, lambda: None)
        loop.selector.inline_readers[ours.fileno()] = take

    for ours, _ in pairs:
        taker_of(ours)
    for _, theirs in pairs:
        theirs.send(b"x")
    await asyncio.sleep(0)
    assert len(taken) <= MAX_EVENTS_PER_TURN
    await turns(8)
    for ours, theirs in pairs:
        del loop.selector.inline_readers[ours.fileno()]
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
    assert len(taken) == 3 * MAX_EVENTS_PER_TURN


async def test_what_is_taken_comes_first(pair: Pair) -> None:
    """While inline readers are busy, the loop gets few other events a turn.

    The oldest comes first, and each once before any comes twice. A descriptor that is unregistered meanwhile gets none.
    """
    loop = offering()
    ours, theirs = pair
    others = [socket.socketpair() for _ in range(4 * MAX_OTHER_EVENTS)]
    turn, seen = 0, []

    def take() -> bool:
        nonlocal turn
        turn += 1
        return True  # without reading: there is always something to take

    def on_readable(number: int) -> None:
        seen.append((turn, number))  # without reading: it will be readable again

    loop.add_reader(ours, lambda: None)
    loop.selector.inline_readers[ours.fileno()] = take
    theirs.send(b"x")
    for number, (one, other) in enumerate(others):
        loop.add_reader(one, on_readable, number)
        other.send(b"x")
    await turns(3)
    loop.remove_reader(others[-1][0])
    await turns(12)
    del loop.selector.inline_readers[ours.fileno()]
    loop.remove_reader(ours)
    for one, other in others:
        loop.remove_reader(one)
        one.close()
        other.close()
    order = [number for _, number in seen[: len(others) - 1]]
    assert sorted(order) == list(range(len(others) - 1))
    assert all(number != len(others) - 1 for _, number in seen)
    assert max(Counter(turn for turn, _ in seen).values()) == MAX_OTHER_EVENTS


async def test_a_wave_comes_in_turns() -> None:
    """Of many events at once, the loop gets a few in each turn, the oldest first, and all of them in the end (I22)."""
    loop = offering()
    pairs = [socket.socketpair() for _ in range(3 * MAX_EVENTS_ALONE)]
    turn, seen = 0, []

    def on_readable(number: int) -> None:
        pairs[number][0].recv(1)
        seen.append((turn, number))

    for number, (one, other) in enumerate(pairs):
        loop.add_reader(one, on_readable, number)
        other.send(b"x")
    while len(seen) < len(pairs):
        await asyncio.sleep(0)
        turn += 1
    for one, other in pairs:
        loop.remove_reader(one)
        one.close()
        other.close()
    assert sorted(number for _, number in seen) == list(range(len(pairs)))
    assert max(Counter(turn for turn, _ in seen).values()) == MAX_EVENTS_ALONE


async def test_an_event_of_a_closed_descriptor(pair: Pair) -> None:
    """An event that waits for its turn is dropped with its descriptor.

    A new descriptor of that number does not get it.
    """
    loop = offering()
    ours, theirs = pair
    others = [socket.socketpair() for _ in range(4 * MAX_OTHER_EVENTS)]
    loop.add_reader(ours, lambda: None)
    loop.selector.inline_readers[ours.fileno()] = lambda: True  # without reading: there is always something to take
    theirs.send(b"x")
    for one, other in others:
        loop.add_reader(one, lambda: None)
        other.send(b"x")
    await turns(2)
    last, _ = others[-1]
    number = last.fileno()
    loop.remove_reader(last)
    last.close()
    again = os.dup(theirs.fileno())  # nothing to be read there
    assert again == number
    called: list[bool] = []
    loop.add_reader(again, called.append, True)
    await turns(4 * MAX_OTHER_EVENTS)
    del loop.selector.inline_readers[ours.fileno()]
    loop.remove_reader(ours)
    loop.remove_reader(again)
    os.close(again)
    for one, other in others:
        if one is not last:
            loop.remove_reader(one)
        one.close()
        other.close()
    assert called == []


async def test_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer is never early, and waiting without descriptors does not spin."""
    loop = offering()
    waits: list[float | None] = []
    select = loop.selector.select

    def counted(timeout: float | None = None) -> object:
        waits.append(timeout)
        return select(timeout)

    monkeypatch.setattr(loop.selector, "select", counted)
    began = loop.time()
    await asyncio.sleep(0.0504)
    assert loop.time() - began >= 0.0504
    assert len(waits) < 10


async def test_descriptor_numbers_come_again(pair: Pair) -> None:
    """A descriptor with the number of a closed one is not offered to the old one's inline reader."""
    loop, offered, seen = offering(), [], []
    gone, other = socket.socketpair()
    number = gone.fileno()
    loop.add_reader(gone, lambda: None)

    def take() -> bool:
        offered.append(True)
        return True

    loop.selector.inline_readers[number] = take
    loop.selector.inline_readers.pop(number)
    loop.remove_reader(gone)
    gone.close()
    other.close()
    ours, theirs = pair
    again = os.dup(ours.fileno())
    assert again == number
    loop.add_reader(again, lambda: seen.append(os.read(again, 10)))
    theirs.send(b"x")
    await turns()
    loop.remove_reader(again)
    os.close(again)
    assert (offered, seen) == ([], [b"x"])


def test_new_event_loop() -> None:
    """It has the inline selector, and runs tasks, threads and signals like any loop."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert isinstance(runner.get_loop(), InlineEventLoop)

        async def main() -> int:
            return await asyncio.to_thread(sum, (1, 2))

        assert runner.run(main()) == 3
