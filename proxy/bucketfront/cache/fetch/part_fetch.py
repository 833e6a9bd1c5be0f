"""One flight's way from the origin into the file: reserve, read, write, commit."""

from collections.abc import Callable

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.body_stream import BodyStream
from bucketfront.cache.fetch.integrity import HELD
from bucketfront.cache.fetch.mp4 import HEAD
from bucketfront.cache.fetch.part import FetchContext, PartFetch
from bucketfront.cache.fetch.version import Version
from bucketfront.cache.storage import blocks
from bucketfront.http.ranges import Span

MAX_WRITE = 1 << 20  # bytes handed to the disk at once: readers see none of them before all are written


class PartTransfer:
    """`on_head` is told the object's first bytes when they come, `on_written` that the flight's mark moved."""

    def __init__(
        self,
        flight: PartFetch,
        entry: Entry,
        version: Version,
        supply: FetchContext,
        *,
        on_head: Callable[[bytes], None],
        on_written: Callable[[PartFetch], None],
    ) -> None:
        self._flight = flight
        self._entry = entry
        self._version = version
        self._supply = supply
        self._on_head = on_head
        self._on_written = on_written

    async def run(self) -> None:
        """Until the part is whole: a body that was cut costs only its missing bytes (I11).

        Raises ObjectChanged and the other OriginErrors of `BodyStream.read`, StoreError.
        """
        flight = self._flight
        if not flight.reserved:
            count = self._supply.allocated(self._entry, blocks.covering(flight.span, self._supply.block_size))
            await self._supply.reserve(count)
            flight.reserved = count
        source = BodyStream(self._version, self._supply, flight.mark, lambda: flight.stop, flight.answer)
        flight.answer = None
        try:
            while data := await source.read():
                await self._pour(data)
        finally:
            source.close()

    async def _pour(self, data: bytes) -> None:
        """The bytes at the mark; beyond the flight's end they are somebody else's."""
        flight = self._flight
        if flight.first_byte_at is None:
            flight.first_byte_at = self._supply.clock()
        offset = flight.mark
        if not offset:
            self._on_head(data[:HEAD])
        # `stop` may come nearer while a write runs, but not nearer than where that write ends.
        while flight.mark < (stop := min(flight.stop, offset + len(data))):
            await self._write(data[flight.mark - offset : min(stop, flight.mark + MAX_WRITE) - offset])

    async def _write(self, data: bytes) -> None:
        """Bytes at the mark: data first, then checksums and bits (I2)."""
        entry, flight, supply = self._entry, self._flight, self._supply
        assert entry.file is not None
        size = supply.block_size
        end = flight.mark + len(data)
        touched = blocks.covering(Span(flight.mark, end), size)
        # Charged from its first byte on, whatever comes of it: a reader may be sending what a dead flight left (I17).
        for block in touched:
            flight.reserved -= supply.entries.charge(entry, block)
        flight.writing_to = end
        sums = await supply.store.write(entry.file, flight.mark, data, flight.checksum, size)
        is_last = self._completes(Span(flight.mark, end))
        if is_last and entry.metadata.size <= HELD:
            await supply.comparison.check(entry, supply.part_size, data=data, is_urgent=True)
        flight.mark = end
        flight.checksum = 0
        for block, checksum in zip(touched, sums, strict=True):
            if min((block + 1) * size, entry.metadata.size) <= end:
                supply.entries.commit(entry, block, checksum)
            else:
                flight.checksum = checksum
        self._on_written(flight)
        if is_last and entry.metadata.size > HELD:
            supply.completed(entry)

    def _completes(self, written: Span) -> bool:
        """Whether with these bytes every block of the object is in the file, and none is doubted."""
        size, total = self._supply.block_size, self._entry.metadata.size
        whole = range(written.start // size, -(-total // size) if written.stop == total else written.stop // size)
        known = self._entry.present & ~self._entry.unverified
        return known | blocks.mask(whole) == blocks.all_blocks(total, size)
