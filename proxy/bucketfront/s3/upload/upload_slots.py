"""Connections for uploads: half of `max_connections`, so that the other half stays for reads.

Many large uploads queue here for longer than any deadline that is right for one of them. So an upload waits as long as
S3 accepts bytes of any upload. Each client has its share of them, as of all connections.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bucketfront.errors import OriginBusy
from bucketfront.fair_share import Shares, current_client
from bucketfront.fair_slots import FairSlots, Wait
from bucketfront.s3.connection_slots import ConnectionSlots, Slot


class UploadSlots:
    """The half of `slots`, which are `count` in all. One client has the share `share_of_one` of it, from 0 to 1."""

    def __init__(self, slots: ConnectionSlots, count: int, share_of_one: float = 1.0) -> None:
        self._slots = slots
        self.half = FairSlots(Shares(max(1, count // 2), share_of_one))
        self.moved_bytes = 0  # of all bodies, that S3 has accepted

    @asynccontextmanager
    async def slot(self, progress_timeout: float) -> AsyncIterator[None]:
        """Hold a connection inside the block.

        Raises OriginBusy if no connection comes free and no body moves for `progress_timeout` seconds.
        """
        held = await self._wait(progress_timeout)
        try:
            yield
        finally:
            held.release()

    async def _wait(self, progress_timeout: float) -> "_HeldUploadSlot":
        # A task keeps the place in the queue while the wait looks at the progress again and again.
        acquiring = asyncio.create_task(self._acquire())
        try:
            await self._while_bodies_move(acquiring, progress_timeout)
        except BaseException:
            if not acquiring.cancel() and not acquiring.cancelled():
                acquiring.result().release()
            raise
        return acquiring.result()

    async def _while_bodies_move(self, acquiring: "asyncio.Task[_HeldUploadSlot]", progress_timeout: float) -> None:
        while not acquiring.done():
            before = self.moved_bytes
            await asyncio.wait([acquiring], timeout=progress_timeout)
            if not acquiring.done() and self.moved_bytes == before:
                raise OriginBusy(
                    f"no origin connection came free for an upload within {progress_timeout:g} s, and none took a byte;"
                    " see origin.max_connections"
                )

    async def _acquire(self) -> "_HeldUploadSlot":
        wait = Wait(current_client())
        await self.half.acquire(wait)
        try:
            slot = await self._slots.acquire(None)
        except BaseException:
            self.half.release(wait.client)
            raise
        return _HeldUploadSlot(self.half, wait, slot)


class _HeldUploadSlot:
    """A slot of the half, and one of all."""

    __slots__ = ("_half", "_slot", "_wait")

    def __init__(self, half: FairSlots, wait: Wait, slot: Slot) -> None:
        self._half = half
        self._wait = wait
        self._slot = slot

    def release(self) -> None:
        self._slot.release()
        self._half.release(self._wait.client)
