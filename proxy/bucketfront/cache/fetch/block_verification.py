"""Compares blocks of an earlier run with their checksums before a byte of them is sent.

See docs/invariants.md#self-healing.
"""

import asyncio

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.part_fetch import FetchContext
from bucketfront.cache.storage import blocks

VERIFIED_BYTES = 1 << 20  # in one call, whose end a client awaits: about two milliseconds


class BlockVerification:
    """The verification of one entry's blocks. Each runs in a task that belongs to no client."""

    def __init__(self, entry: Entry, context: FetchContext) -> None:
        self._entry = entry
        self._context = context
        self._running: dict[int, asyncio.Task[None]] = {}  # by block
        self.lost_blocks = 0  # found corrupt

    @property
    def is_running(self) -> bool:
        return bool(self._running)

    def is_due(self, block: int) -> bool:
        """Return whether the block is in the file, and must be verified before it is sent."""
        return bool(self._entry.unverified >> block & 1)

    async def wait(self) -> None:
        """Wait until no block is being verified."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def verify_for(self, block: int, stop: int) -> None:
        """Verify a block for a reader of the bytes up to `stop`.

        With it, some blocks are verified that directly follow it, because each call to a thread takes time.
        """
        size = self._context.block_size
        await self._verify(block, min(blocks.block_count(stop, size), block + max(1, VERIFIED_BYTES // size)))

    async def verify(self, block: int) -> None:
        """Compare a block with its checksum. A corrupt one is lost, and then it is absent."""
        await self._verify(block, block + 1)

    async def _verify(self, block: int, stop: int) -> None:
        task = self._running.get(block)
        if task is None:
            run = range(block, self._end_of_unverified(block, stop))
            task = asyncio.create_task(self._check(run))
            self._running |= dict.fromkeys(run, task)
            task.add_done_callback(lambda _: [self._running.pop(one) for one in run])
        await asyncio.shield(task)

    def _end_of_unverified(self, block: int, stop: int) -> int:
        """Return the first block behind `block`, up to `stop`, that is verified or being verified."""
        end = blocks.first_absent(self._entry.unverified, block + 1, stop)
        return next((one for one in range(block + 1, end) if one in self._running), end)

    async def _check(self, run: range) -> None:
        context, entry = self._context, self._entry
        context.entries.pin(entry)
        try:
            assert entry.file is not None
            span = blocks.span_of(run, entry.metadata.size, context.block_size)
            found = await context.store.checksums(entry.file, span, context.block_size)
            for block, checksum in zip(run, found, strict=True):
                if checksum == context.entries.checksum(entry, block):
                    context.entries.verified(entry, block)
                elif block == run.start:
                    await self._lose(block)
                # A corrupt block behind the first stays unverified until its own turn: the first ones may be a hit.
        finally:
            context.unpin(entry)

    async def _lose(self, block: int) -> None:
        """Free the space of a corrupt block, so that it is fetched again."""
        context, entry = self._context, self._entry
        assert entry.file is not None
        span = blocks.span_of(range(block, block + 1), entry.metadata.size, context.block_size)
        await context.store.punch(entry.file, span)
        context.entries.lose(entry, block)
        self.lost_blocks += 1
