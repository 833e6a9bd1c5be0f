"""Who may have a connection to the origin: `count` of them in all, half of them for one key.

Whoever asks for a key that has its half waits for one of that key's own before it queues for the others: an object
that drips to many readers holds up its own readers and nobody else's.
"""

import asyncio
from dataclasses import dataclass

from bucketfront.keys import ObjectKey


@dataclass(eq=False, slots=True)
class _Share:
    """One key's half. `users` have a slot of it or wait for one."""

    slots: asyncio.Semaphore
    users: int = 0


class ConnectionSlots:
    def __init__(self, count: int) -> None:
        self._pool = asyncio.Semaphore(count)
        self._share = max(1, count // 2)
        self._keys: dict[ObjectKey, _Share] = {}
        self.free = count

    async def take(self, key: ObjectKey | None) -> None:
        """Wait for a slot. None: on behalf of no object that is read. Give it back with the same key."""
        if key is None:
            await self._pool.acquire()
        else:
            await self._take_of(key._replace(version=None))
        self.free -= 1

    async def _take_of(self, name: ObjectKey) -> None:
        share = self._keys.setdefault(name, _Share(asyncio.Semaphore(self._share)))
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

    def give_back(self, key: ObjectKey | None) -> None:
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
