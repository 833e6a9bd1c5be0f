"""Connections to the origin: a bounded number in all, and at most half of them for one key.

A read of a key that has its half first waits for one of that key's own slots, and only then for one of all. So an
object that comes slowly to many readers delays its own readers, and no other reads.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from bucketfront.errors import OriginBusy
from bucketfront.keys import ObjectKey


@dataclass(eq=False, slots=True)
class _KeyShare:
    """One key's half. `users` counts the reads that have one of its slots or wait for one."""

    slots: asyncio.Semaphore
    users: int = 0


class ConnectionSlots:
    """`count` slots. `free` counts those that are not in use."""

    def __init__(self, count: int) -> None:
        self._pool = asyncio.Semaphore(count)
        self._share = max(1, count // 2)
        self._keys: dict[ObjectKey, _KeyShare] = {}
        self.free = count

    async def acquire(self, key: ObjectKey | None) -> None:
        """Wait for a slot to read `key`, or with None for a call that reads no object. `release` it with the same."""
        if key is None:
            await self._pool.acquire()
        else:
            await self._acquire_for(key._replace(version=None))
        self.free -= 1

    async def _acquire_for(self, name: ObjectKey) -> None:
        share = self._keys.setdefault(name, _KeyShare(asyncio.Semaphore(self._share)))
        share.users += 1
        try:
            await share.slots.acquire()
            try:
                await self._pool.acquire()
            except BaseException:
                share.slots.release()
                raise
        except BaseException:
            self._leave(name)
            raise

    def release(self, key: ObjectKey | None) -> None:
        """Return a slot that was acquired for `key`."""
        self.free += 1
        self._pool.release()
        if key is not None:
            name = key._replace(version=None)
            self._keys[name].slots.release()
            self._leave(name)

    def _leave(self, name: ObjectKey) -> None:
        share = self._keys[name]
        share.users -= 1
        if not share.users:
            del self._keys[name]


class HeldSlot:
    """A slot of `slots`, which is released at the end of the block unless a body keeps it until the body is closed.

    `key` is the one that is read, or None for a call that reads no object. Entering the block raises OriginBusy if no
    slot comes free within `timeout` seconds.
    """

    def __init__(self, slots: ConnectionSlots, key: ObjectKey | None, timeout: float) -> None:
        self._slots = slots
        self._key = key
        self._timeout = timeout
        self._is_kept = False

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire(self._key)
        except TimeoutError:
            raise OriginBusy(
                f"no origin connection came free within {self._timeout:g} s; see origin.max_connections"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_kept:
            self._release()

    def keep(self) -> Callable[[], None]:
        """Keep the slot beyond the block. Return the function that releases it."""
        self._is_kept = True
        return self._release

    def _release(self) -> None:
        self._slots.release(self._key)
