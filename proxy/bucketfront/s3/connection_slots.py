"""Connections to the origin: a bounded number in all, a share for each client, and at most half of them for one key.

A client that wants more than its share waits, and delays no other client (`FairSlots`).

A read of a key that has its half first waits for one of that key's own slots, and only then for one of all. So an
object that comes slowly to many readers delays its own readers, and no other reads. Among these the clients take turns.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from bucketfront.errors import OriginBusy
from bucketfront.fair_share import Client, Shares, current_client
from bucketfront.fair_slots import FairSlots, Wait
from bucketfront.keys import ObjectKey

WANTED_PER_SLOT = 16  # reads that use or await a slot, for each of the slots: a few seconds of work
MIN_WANTED = 256  # of them in all, because one page may want many objects


@dataclass(eq=False, slots=True)
class _KeyShare:
    """One key's half. `users` counts the reads that have one of its slots or wait for one. `waits` are the latter."""

    slots: FairSlots
    users: int = 0
    waits: dict[Wait, None] = field(default_factory=dict)


class ConnectionSlots:
    """`count` slots, of which one client has the share `share_of_one`, from 0 to 1. `free` are not in use.

    A slot is for the client that the task works for. Waiting reads queue by client, as in `FairSlots`. `wanted` counts
    the reads and other calls that use or await a slot. It leaves out those of a client that may not add more, such as
    reads of further parts of an object, because the rest of the room is for other clients.
    """

    def __init__(self, count: int, share_of_one: float = 1.0) -> None:
        self._count = count
        self._pool = FairSlots(Shares(count, share_of_one))
        self.wanted = Shares(max(MIN_WANTED, WANTED_PER_SLOT * count), share_of_one)
        self._key_share = max(1, count // 2)
        self._keys: dict[ObjectKey, _KeyShare] = {}

    @property
    def free(self) -> int:
        return self._count - self._pool.shares.used

    async def acquire(self, key: ObjectKey | None) -> "Slot":
        """Wait for a slot to read `key`, or with None for a call that reads no object."""
        client = current_client()
        wanted = int(self.wanted.refusal(client) is None)
        slot = Slot(self, None if key is None else key._replace(version=None), client, wanted)
        self.wanted.take(slot.wanted_by, slot.wanted)
        try:
            if slot.key is None:
                await self._pool.acquire(slot.wait)
            else:
                await self._acquire_for(slot.key, slot)
        except BaseException:
            self.wanted.give_back(slot.wanted_by, slot.wanted)
            raise
        return slot

    def hurry(self, key: ObjectKey) -> None:
        """Let the reads of `key` that wait do so for the task's client, if only that client has a share left."""
        share = self._keys.get(key._replace(version=None))
        for wait in () if share is None else list(share.waits):
            self._pool.hurry(wait, current_client())

    async def _acquire_for(self, name: ObjectKey, slot: "Slot") -> None:
        share = self._keys.setdefault(name, _KeyShare(FairSlots(Shares(self._key_share))))
        share.users += 1
        share.waits[slot.wait] = None
        try:
            await share.slots.acquire(slot.key_wait)
            try:
                await self._pool.acquire(slot.wait)
            except BaseException:
                share.slots.release(slot.key_wait.client)
                raise
        except BaseException:
            self._leave(name)
            raise
        finally:
            share.waits.pop(slot.wait, None)

    def release(self, slot: "Slot") -> None:
        """Return a slot."""
        self.wanted.give_back(slot.wanted_by, slot.wanted)
        self._pool.release(slot.wait.client)
        if slot.key is not None:
            self._keys[slot.key].slots.release(slot.key_wait.client)
            self._leave(slot.key)

    def _leave(self, name: ObjectKey) -> None:
        share = self._keys[name]
        share.users -= 1
        if not share.users:
            del self._keys[name]


class Slot:
    """One slot, for a read of `key` or for another call.

    `wanted_by` is the client that it was acquired for first, and `wanted` is 1 if it counts there, else 0. `key_wait`
    is the wait for one of the key's slots, and `wait` that for one of all.
    """

    __slots__ = ("_slots", "key", "key_wait", "wait", "wanted", "wanted_by")

    def __init__(self, slots: ConnectionSlots, key: ObjectKey | None, client: Client, wanted: int) -> None:
        self._slots = slots
        self.key = key
        self.key_wait = Wait(client)
        self.wait = Wait(client)
        self.wanted_by = client
        self.wanted = wanted

    def release(self) -> None:
        self._slots.release(self)


class HeldSlot:
    """A slot of `slots`, which is released at the end of the block unless a body keeps it until the body is closed.

    `key` is the one that is read, or None for a call that reads no object. Entering the block raises OriginBusy if no
    slot comes free within `timeout` seconds.
    """

    def __init__(self, slots: ConnectionSlots, key: ObjectKey | None, timeout: float) -> None:
        self._slots = slots
        self._key = key
        self._timeout = timeout
        self._slot: Slot | None = None
        self._is_kept = False

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._timeout):
                self._slot = await self._slots.acquire(self._key)
        except TimeoutError:
            raise OriginBusy(
                f"no origin connection came free within {self._timeout:g} s; see origin.max_connections"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_kept:
            self.release()

    def keep(self) -> Callable[[], None]:
        """Keep the slot beyond the block. Return the function that releases it."""
        self._is_kept = True
        return self.release

    def release(self) -> None:
        """Release the slot, also before the end of the block. Does nothing the second time."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release()
