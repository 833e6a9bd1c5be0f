"""The transfer of one part from the origin into the file: reserve, read, write, commit."""

from collections.abc import Callable

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.body_stream import BodyStream
from bucketfront.cache.fetch.integrity import MAX_HELD_BYTES
from bucketfront.cache.fetch.mp4 import HEAD_BYTES
from bucketfront.cache.fetch.part_fetch import FetchContext, PartFetch, PartState
from bucketfront.cache.fetch.traffic import Cause, Waste
from bucketfront.cache.fetch.version import Version
from bucketfront.cache.storage import blocks
from bucketfront.http.ranges import Span

MAX_WRITE_BYTES = 1 << 20  # in one call: readers get none of these bytes before all of them are written


class PartTransfer:
    """Runs one `PartFetch`. `on_head` gets the object's first bytes, and `on_written` is called after each write.

    `on_complete` is called when the file has all of an object that is compared in the background.
    """

    def __init__(
        self,
        fetch: PartFetch,
        entry: Entry,
        version: Version,
        context: FetchContext,
        *,
        on_head: Callable[[bytes], None],
        on_written: Callable[[PartFetch], None],
        on_complete: Callable[[], None],
    ) -> None:
        self._fetch = fetch
        self._entry = entry
        self._version = version
        self._context = context
        self._account = context.traffic.of(entry.key)
        self._on_head = on_head
        self._on_written = on_written
        self._on_complete = on_complete
        self._is_request_ours = True  # and not that of a lookup

    async def run(self) -> None:
        """Fetch until the part is whole. A body that is cut costs only its missing bytes.

        Raises ObjectChanged and the other OriginErrors of `BodyStream.read`, StoreError.
        """
        fetch = self._fetch
        if fetch.state is PartState.RESERVING:
            count = self._context.allocated(self._entry, blocks.covering(fetch.span, self._context.block_size))
            await self._context.space.reserve(count)
            fetch.reserved = count
            fetch.become(PartState.REQUESTING)
        body = BodyStream(
            self._version, self._context, fetch.mark, lambda: fetch.stop, self._note_received, fetch.response,
            on_wasted=self._account.waste,
        )  # fmt: skip
        self._is_request_ours = fetch.response is None
        fetch.response = None
        try:
            while data := await body.read():
                fetch.status = None if fetch.is_supplied else body.status
                await self._store(data)
        finally:
            body.close()
            # What came of a block that is not whole now: the next part fetch begins with that block.
            begun = fetch.mark - max(fetch.start, fetch.mark // self._context.block_size * self._context.block_size)
            if fetch.mark < self._entry.metadata.size and not fetch.is_supplied:
                self._account.waste(Waste.CUT_OFF, begun)

    def _note_received(self, start: int, count: int) -> None:
        """Count bytes from the origin. Those that the fetch's reader has requested are not read ahead."""
        fetch = self._fetch
        if fetch.is_supplied:
            return
        wanted = 0
        if fetch.cursor is not None and not fetch.cursor.request.is_background:
            size = self._context.block_size
            requested = blocks.covering(fetch.cursor.span, size)
            wanted = max(0, min(start + count, requested.stop * size) - max(start, requested.start * size))
        elif not fetch.is_of_object and fetch.cursor is None:
            wanted = count  # of a lookup, which requests what its client does
        self._account.add(Cause.FILL, wanted)
        self._account.add(Cause.READ_AHEAD, count - wanted)

    async def _store(self, data: bytes | memoryview) -> None:
        """Write the bytes at the mark, up to the part's end. Those beyond belong to another part."""
        fetch = self._fetch
        if fetch.state is PartState.REQUESTING:
            fetch.become(PartState.RECEIVING)
            fetch.first_byte_at = self._context.clock()
            if self._is_request_ours:
                fetch.delay = fetch.first_byte_at - fetch.began
        offset = fetch.mark
        if not offset:
            self._on_head(bytes(data[:HEAD_BYTES]))
        data = memoryview(data)
        # `stop` may come nearer while a write runs, but not nearer than where that write ends.
        while fetch.mark < (stop := min(fetch.stop, offset + len(data))):
            await self._write(data[fetch.mark - offset : min(stop, fetch.mark + MAX_WRITE_BYTES) - offset])
        self._account.waste(Waste.CUT_OFF, max(0, offset + len(data) - max(fetch.stop, offset)))

    async def _write(self, data: memoryview) -> None:
        """Write bytes at the mark, then their checksums and bits: no holes (docs/invariants.md#no-holes)."""
        entry, fetch, context = self._entry, self._fetch, self._context
        size = context.block_size
        end = fetch.mark + len(data)
        touched = blocks.covering(Span(fetch.mark, end), size)
        # Charge blocks from their first byte on, even if the part fails: a reader may be sending what it left behind.
        fetch.reserved -= context.entries.charge(entry, touched)
        fetch.writing_to = end
        sums = await context.space.fit(lambda: self._write_to_file(data), len(data))
        is_last = self._completes(Span(fetch.mark, end))
        if is_last and entry.metadata.size <= MAX_HELD_BYTES:
            await context.comparison.check(entry, context.part_size, data=data, is_urgent=True)
        assert len(sums) == len(touched)
        whole = range(touched.start, blocks.whole_below(end, entry.metadata.size, size))
        fetch.mark = end
        context.entries.commit(entry, whole.start, sums[: len(whole)])
        if not fetch.is_supplied:
            entry.unread |= blocks.mask(whole)
        fetch.checksum = sums[-1] if len(whole) < len(touched) else 0
        self._on_written(fetch)
        if is_last and entry.metadata.size > MAX_HELD_BYTES:
            self._on_complete()

    async def _write_to_file(self, data: memoryview) -> list[int]:
        fetch, context = self._fetch, self._context
        assert self._entry.file is not None
        return await context.store.write(self._entry.file, fetch.mark, data, fetch.checksum, context.block_size)

    def _completes(self, written: Span) -> bool:
        """Return whether these bytes complete the object, with every block in the file and none unverified."""
        size, total = self._context.block_size, self._entry.metadata.size
        whole = range(written.start // size, blocks.whole_below(written.stop, total, size))
        known = self._entry.present & ~self._entry.unverified
        return blocks.are_all(known | blocks.mask(whole), total, size)
