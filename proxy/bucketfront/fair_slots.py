"""Slots for which clients wait, so that no client makes the others wait longer (docs/invariants.md#fair-share).

Each client has a queue of its own. A slot that comes free goes to the client whose turn it is, among those for which
`Shares` has room. So a client with a thousand waiting requests delays another one by one slot at most.
"""

import asyncio
from collections import OrderedDict

from bucketfront.fair_share import Client, Shares


class Wait:
    """The wait of one request for a slot. `client` is the one that gets the slot. `FairSlots.hurry` may change it."""

    __slots__ = ("client", "granted")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.granted: asyncio.Future[None] | None = None


class FairSlots:
    """The slots that `shares` has room for."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self._queues: OrderedDict[Client, OrderedDict[Wait, None]] = OrderedDict()  # the next client first

    @property
    def waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    async def acquire(self, wait: Wait) -> None:
        """Return when `wait.client` has a slot, to be released for the same client."""
        if self.shares.refusal(wait.client) is None:
            # No waiting client may have the slot, so this overtakes none of them.
            self.shares.take(wait.client)
            return
        wait.granted = asyncio.get_running_loop().create_future()
        self._queues.setdefault(wait.client, OrderedDict())[wait] = None
        try:
            await wait.granted
        except BaseException:
            if wait.granted.done() and not wait.granted.cancelled():
                self.release(wait.client)
            else:
                self._forget(wait)
            raise

    def release(self, client: Client) -> None:
        """Return a slot that the client has."""
        self.shares.give_back(client)
        self._grant()

    def hurry(self, wait: Wait, client: Client) -> None:
        """Give a wait to another client, which waits for the same bytes, if only that client has a share left."""
        if wait not in self._queues.get(wait.client, ()):
            return
        if self.shares.is_beyond(wait.client, 1) and not self.shares.is_beyond(client, 1):
            self._forget(wait)
            wait.client = client
            self._queues.setdefault(client, OrderedDict())[wait] = None
            self._grant()

    def _grant(self) -> None:
        """Give the free slots to waiting clients, one after another."""
        while (queue := self._next()) is not None:
            wait, _ = queue.popitem(last=False)
            client = wait.client
            if queue:
                self._queues.move_to_end(client)  # behind the other clients
            else:
                del self._queues[client]
            granted = wait.granted
            assert granted is not None
            if not granted.done():
                self.shares.take(client)
                granted.set_result(None)

    def _next(self) -> OrderedDict[Wait, None] | None:
        return next((queue for client, queue in self._queues.items() if self.shares.refusal(client) is None), None)

    def _forget(self, wait: Wait) -> None:
        queue = self._queues.get(wait.client)
        if queue is not None:
            queue.pop(wait, None)
            if not queue:
                del self._queues[wait.client]
