"""A queue in memory that fails, repeats and reorders as a test decides."""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence

from bucketfront.s3_events.event_queue import QueuedMessage, QueueError, QueueFacts, QueueFault

BATCH = 10
PERMANENT = 1_000_000


class FakeQueue:
    """It implements `EventQueue`. `clock` is wall time.

    A message that was received comes again after `return_unseen`, which stands for the visibility timeout. `errors`
    are raised by the next calls, one each; None lets one through. With `chance` messages come in any order, and some
    come twice although they are not deleted.
    """

    def __init__(self, clock: Callable[[], float], chance: random.Random | None = None) -> None:
        self.clock = clock
        self.chance = chance
        self.waiting: list[QueuedMessage] = []
        self.in_flight: dict[str, QueuedMessage] = {}
        self.errors: deque[Exception | None] = deque()
        self.retention: float | None = 345_600.0
        self.has_dead_letters = False
        self.came = asyncio.Event()
        self.calls: list[str] = []
        self.deleted = 0
        self.renewals = 0
        self.exists = True
        self._numbers = itertools.count()

    def send(self, *bodies: str, sent_at: float | None = None) -> None:
        at = self.clock() if sent_at is None else sent_at
        self.waiting += [QueuedMessage(f"r{next(self._numbers)}", body, at) for body in bodies]
        self.came.set()

    def return_unseen(self) -> None:
        """Let all received messages come again."""
        self.waiting += self.in_flight.values()
        self.in_flight.clear()
        self.came.set()

    @property
    def is_empty(self) -> bool:
        return not self.waiting and not self.in_flight

    async def receive(self) -> Sequence[QueuedMessage]:
        await self._call("receive")
        if not self.waiting:
            self.came.clear()
            await self.came.wait()
            await self._call("woken")
        if self.chance is not None:
            self.chance.shuffle(self.waiting)
        found, self.waiting = self.waiting[:BATCH], self.waiting[BATCH:]
        if self.chance is not None:
            twice = [each for each in found if self.chance.random() < 0.3]
            self.waiting += [QueuedMessage(f"{each.receipt}'", each.body, each.sent_at) for each in twice]
        self.in_flight |= {each.receipt: each for each in found}
        return found

    async def delete(self, messages: Sequence[QueuedMessage]) -> None:
        await self._call("delete")
        for each in messages:
            self.deleted += self.in_flight.pop(each.receipt, None) is not None

    async def release(self, messages: Sequence[QueuedMessage]) -> None:
        await self._call("release")
        self.waiting += [each for each in messages if self.in_flight.pop(each.receipt, None) is not None]

    async def facts(self) -> QueueFacts:
        await self._call("facts")
        return QueueFacts(self.retention, self.has_dead_letters, len(self.waiting))

    async def renew_credentials(self) -> None:
        self.renewals += 1

    async def _call(self, name: str) -> None:
        self.calls.append(name)
        await asyncio.sleep(0)
        if not self.exists:
            raise QueueError(QueueFault.MISSING, "there is no such queue")
        error = self.errors.popleft() if self.errors else None
        if error is not None:
            raise error
