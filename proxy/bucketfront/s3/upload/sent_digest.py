"""The MD5 of a body. Threads compute it while the body is on its way, because a GiB takes more than a second."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from bucketfront.http import checksums
from bucketfront.http.checksums import MD5

MAX_INLINE_BYTES = 32 << 10  # of a piece that the event loop computes itself: it takes 50 us, as a thread's start does
# Threads of their own, because a disk that hangs must not delay them. More of them than parts of one upload would only
# compete with the network.
_THREADS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="md5")


class SentDigest:
    """A running MD5. One piece is computed while the caller sends it and fetches the next one."""

    def __init__(self) -> None:
        self._state = checksums.hasher(MD5)
        self._running: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """Begin anew, because the body is sent again."""
        self._state = checksums.hasher(MD5)
        self._running = None

    async def update(self, piece: bytes) -> None:
        """Take the next piece. Returns before its digest is computed, and waits for that of the piece before."""
        await self._settle()
        if len(piece) <= MAX_INLINE_BYTES:
            self._state.update(piece)
        else:
            self._running = asyncio.get_running_loop().run_in_executor(_THREADS, self._state.update, piece)

    async def value(self) -> str:
        """Return the MD5 of all pieces as 32 hex digits."""
        await self._settle()
        return self._state.digest().hex()

    async def _settle(self) -> None:
        if self._running is not None:
            await asyncio.shield(self._running)
            self._running = None
