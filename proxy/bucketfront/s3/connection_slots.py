"""Connections to the origin: a bounded number in all, and at most half of them for one key.

A read of a key that has its half first waits for one of that key's own slots, and only then for one of all. So an
object that comes slowly to many readers delays its own readers, and no other reads.
"""

import asyncio
from dataclasses import dataclass

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
