"""Connections for uploads: half of `max_connections`, so that the other half stays for reads.

Many large uploads queue here for longer than any deadline that is right for one of them. So an upload waits as long as
S3 accepts bytes of any upload.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bucketfront.errors import OriginBusy
from bucketfront.s3.connection_slots import ConnectionSlots


class UploadSlots:
    """The share of uploads in `slots`, which are `count` in all."""

    def __init__(self, slots: ConnectionSlots, count: int) -> None:
        self._slots = slots
        self._share = asyncio.Semaphore(max(1, count // 2))
        self.moved_bytes = 0  # of all bodies, that S3 has accepted

    @asynccontextmanager
    async def slot(self, progress_timeout: float) -> AsyncIterator[None]:
        """Hold a connection inside the block.

        Raises OriginBusy if no connection comes free and no body moves for `progress_timeout` seconds.
        """
        await self._wait(progress_timeout)
        try:
            yield
        finally:
            self._release()

    async def _wait(self, progress_timeout: float) -> None:
        # A task keeps the place in the queue while the wait looks at the progress again and again.
        acquiring = asyncio.create_task(self._acquire())
        try:
            await self._while_bodies_move(acquiring, progress_timeout)
        except BaseException:
            if not acquiring.cancel() and not acquiring.cancelled():
                self._release()
            raise

    async def _while_bodies_move(self, acquiring: asyncio.Task[None], progress_timeout: float) -> None:
        while not acquiring.done():
            before = self.moved_bytes
            await asyncio.wait([acquiring], timeout=progress_timeout)
            if not acquiring.done() and self.moved_bytes == before:
                raise OriginBusy(
                    f"no origin connection came free for an upload within {progress_timeout:g} s, and none took a byte;"
                    " see origin.max_connections"
                )

    async def _acquire(self) -> None:
        await self._share.acquire()
        try:
            await self._slots.acquire(None)
        except BaseException:
            self._share.release()
            raise

    def _release(self) -> None:
        self._slots.release(None)
        self._share.release()
