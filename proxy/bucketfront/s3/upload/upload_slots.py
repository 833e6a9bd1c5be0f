"""Who may send a body to the origin: half of `max_connections` at once, so that uploads leave the other half to reads.

Many large uploads queue here for longer than any deadline that is right for one of them: they wait as long as bodies
move, whoever's they are.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bucketfront.errors import OriginBusy
from bucketfront.s3.connection_slots import ConnectionSlots


class UploadSlots:
    """Of `slots`, which are `count` in all."""

    def __init__(self, slots: ConnectionSlots, count: int) -> None:
        self._slots = slots
        self._share = asyncio.Semaphore(max(1, count // 2))
        self.moved = 0  # bytes of all bodies that the origin has taken

    @asynccontextmanager
    async def one(self, patience: float) -> AsyncIterator[None]:
        """A connection inside the block. Raises OriginBusy when none came free while nothing moved for `patience`
        seconds.
        """
        await self._wait(patience)
        try:
            yield
        finally:
            self._give_back()

    async def _wait(self, patience: float) -> None:
        # Waited for in pieces, without losing its place in the queue.
        taking = asyncio.create_task(self._take())
        try:
            await self._while_bodies_move(taking, patience)
        except BaseException:
            if not taking.cancel() and not taking.cancelled():
                self._give_back()
            raise

    async def _while_bodies_move(self, taking: asyncio.Task[None], patience: float) -> None:
        while not taking.done():
            before = self.moved
            await asyncio.wait([taking], timeout=patience)
            if not taking.done() and self.moved == before:
                raise OriginBusy(
                    f"no origin connection came free for an upload within {patience:g} s, and none took a byte; see"
                    " origin.max_connections"
                )

    async def _take(self) -> None:
        await self._share.acquire()
        try:
            await self._slots.acquire(None)
        except BaseException:
            self._share.release()
            raise

    def _give_back(self) -> None:
        self._slots.release(None)
        self._share.release()
