"""asyncio's own event loop, with a selector that lets the owner of a descriptor act on an event there and then.

What asyncio does for each event - a selector's key, a handle, a context, a transport - takes longer than to answer a
hit. An owner that takes an event leaves nothing of it to the loop; one that does not take it has changed nothing.

What is taken comes first: while there is something to take, the loop gets few of the other events in each of its
turns, oldest first. So hits wait for two pieces of a running fill at most, not for a piece of each of its parts.
"""

import asyncio
import math
import select
import selectors
import sys
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from bucketfront.server.http1.aiohttp_private import PolledSelector

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

AT_ONCE = 64  # events of a turn: what takers do for them holds the loop (I22). epoll names the others first next time.
FEW = 2  # of the other events, in a turn in which something was taken

Taker = Callable[[], bool]
"""Called when a descriptor can be read; whether that is dealt with. Never waits, never raises."""


class InlineSelector(PolledSelector):
    """`takers` by descriptor. Whoever adds one takes it away before the descriptor is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.takers: dict[int, Taker] = {}
        self._waiting: dict[int, int] = {}  # events by descriptor that the loop has not got yet

    def unregister(self, fileobj: "FileDescriptorLike") -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self._waiting.pop(key.fd, None)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        waiting = self._waiting
        # epoll counts in milliseconds: never return before the time.
        seconds = 0.0 if waiting else None if timeout is None else max(0.0, math.ceil(timeout * 1e3) * 1e-3)
        try:
            found = self.poll(seconds, AT_ONCE)
        except InterruptedError:
            return []
        has_taken = False
        takers = self.takers
        for descriptor, event in found:
            if event == select.EPOLLIN and (taker := takers.get(descriptor)) is not None and taker():
                has_taken = True
            else:
                waiting[descriptor] = event
        if not waiting:
            return []
        keys = self.key_by_descriptor
        ready = []
        for descriptor in list(islice(waiting, FEW)) if has_taken else list(waiting):
            event = waiting.pop(descriptor)
            if (key := keys.get(descriptor)) is None:
                continue  # a taker closed it
            events = selectors.EVENT_READ if event & ~select.EPOLLOUT else 0
            if event & ~select.EPOLLIN:
                events |= selectors.EVENT_WRITE
            ready.append((key, events & key.events))
        return ready


class InlineEventLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = InlineSelector()
        super().__init__(self.selector)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Where there is no epoll, asyncio's own."""
    return InlineEventLoop() if sys.platform == "linux" else asyncio.new_event_loop()
