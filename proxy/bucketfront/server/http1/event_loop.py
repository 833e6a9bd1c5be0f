"""asyncio's event loop with a selector that lets the owner of a descriptor read it inside the selector.

For each event asyncio uses a selector key, a handle, a context and a transport. Together they take longer than the
response to a hit. An inline reader that handles an event leaves none of that to the loop. One that declines it changes
nothing, and the loop gets the event as usual.

Handled events come first. While there are any, the loop gets few of the other events in each turn, the oldest first.
So a hit waits for at most two pieces of a running fill, not for a piece of each of its parts. In all other turns the
loop gets a few events as well. So a hit does not wait until each request of a sudden wave has begun.
"""

import asyncio
import math
import select
import selectors
import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from bucketfront.server.http1.aiohttp_private import PolledSelector

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

# Inline readers hold the loop (docs/invariants.md#cost-of-a-request). epoll returns the other events first next time.
MAX_EVENTS_PER_TURN = 64
MAX_OTHER_EVENTS = 2  # in a turn in which an inline reader handled an event
MAX_EVENTS_ALONE = 8  # in any other turn, because each may begin a request, which takes a millisecond and more

InlineReader = Callable[[], bool]
"""Called when its descriptor is readable. Returns whether it handled the event. Never waits and never raises."""


class InlineSelector(PolledSelector):
    """`inline_readers` has one for each descriptor. Its owner removes it before it closes the descriptor."""

    def __init__(self) -> None:
        super().__init__()
        self.inline_readers: dict[int, InlineReader] = {}
        self._waiting: dict[int, int] = {}  # events by descriptor that the loop has not received yet

    def unregister(self, fileobj: "FileDescriptorLike") -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self._waiting.pop(key.fd, None)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        waiting = self._waiting
        # epoll counts in milliseconds. Rounding up keeps a timer from being early.
        seconds = 0.0 if waiting else None if timeout is None else max(0.0, math.ceil(timeout * 1e3) * 1e-3)
        try:
            found = self.poll(seconds, MAX_EVENTS_PER_TURN)
        except InterruptedError:
            return []
        has_handled = False
        inline_readers = self.inline_readers
        for descriptor, event in found:
            if event == select.EPOLLIN and (reader := inline_readers.get(descriptor)) is not None and reader():
                has_handled = True
            else:
                waiting[descriptor] = event
        if not waiting:
            return []
        keys = self.key_by_descriptor
        ready = []
        for descriptor in list(islice(waiting, MAX_OTHER_EVENTS if has_handled else MAX_EVENTS_ALONE)):
            event = waiting.pop(descriptor)
            if (key := keys.get(descriptor)) is None:
                continue  # an inline reader closed it
            events = selectors.EVENT_READ if event & ~select.EPOLLOUT else 0
            if event & ~select.EPOLLIN:
                events |= selectors.EVENT_WRITE
            ready.append((key, events & key.events))
        return ready


class InlineEventLoop(asyncio.SelectorEventLoop):
    time = staticmethod(time.monotonic)  # as asyncio's own, without a function around it: each hit calls it twice

    def __init__(self) -> None:
        self.selector = InlineSelector()
        super().__init__(self.selector)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return asyncio's own loop on systems without epoll."""
    return InlineEventLoop() if sys.platform == "linux" else asyncio.new_event_loop()
