"""One flight's way from the origin into the file: reserve, ask, write, commit, and ask again where a body broke off."""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.cache import blocks
from proxy.cache.flights import Flight, Supply
from proxy.cache.integrity import HELD
from proxy.cache.mp4 import HEAD
from proxy.cache.origin import Answer, NotModified
from proxy.errors import (
    ObjectChanged,
    ObjectNotFound,
    OriginResting,
    OriginUnavailable,
    RangeUnsatisfiable,
)
from proxy.http.ranges import FromTo, Span

if TYPE_CHECKING:
    from proxy.cache.entry import Entry

MAX_FAILURES = 3  # in a row without a byte: the flight is given up
BACKOFF = 0.1  # seconds, doubled for each failure, with full jitter; well inside the 2 s of I11
MAX_WRITE = 1 << 20  # bytes handed to the disk at once: readers see none of them before all are written


class Delivery:
    """`on_head` is told the object's first bytes when they come, `on_written` that the flight's mark moved."""

    def __init__(
        self,
        flight: Flight,
        entry: "Entry",
        supply: Supply,
        *,
        on_head: Callable[[bytes], None],
        on_written: Callable[[Flight], None],
    ) -> None:
        self._flight = flight
        self._entry = entry
        self._supply = supply
        self._on_head = on_head
        self._on_written = on_written

    async def run(self) -> None:
        """Until the part is whole: a body that was cut costs only its missing bytes (I11).

        Raises ObjectChanged and the other OriginErrors of a ranged GET, StoreError.
        """
        flight = self._flight
        if not flight.reserved:
            count = self._supply.allocated(self._entry, blocks.covering(flight.span, self._supply.block_size))
            await self._supply.reserve(count)
            flight.reserved = count
        failures = 0
        while flight.mark < flight.stop:
            before = flight.mark
            try:
                if flight.answer is None:
                    flight.answer = await self._ask()
                await self._pour(flight.answer)
            except OriginResting:
                raise
            except OriginUnavailable:
                failures = failures + 1 if flight.mark == before else 1
                if failures == MAX_FAILURES:
                    raise
                await asyncio.sleep(random.uniform(0, BACKOFF * 2**failures))  # noqa: S311 - jitter, no secret
            finally:
                close(flight)

    async def _ask(self) -> Answer:
        entry, flight = self._entry, self._flight
        try:
            answer = await self._supply.origin.get(
                entry.key, FromTo(flight.mark, flight.stop), if_match=entry.metadata.etag
            )
        except (ObjectNotFound, RangeUnsatisfiable) as error:
            # A part of this version exists: who has no such object or range now has another version, or none.
            raise ObjectChanged(str(error)) from error
        assert not isinstance(answer, NotModified)
        if answer.metadata.etag != entry.metadata.etag or answer.metadata.size != entry.metadata.size:
            answer.body.close()
            raise ObjectChanged(
                f"{entry.key} was {entry.metadata.etag} of {entry.metadata.size} bytes, is"
                f" {answer.metadata.etag} of {answer.metadata.size}"
            )
        return answer

    async def _pour(self, answer: Answer) -> None:
        flight = self._flight
        offset = answer.start
        while flight.mark < flight.stop:
            data = await answer.body.read()
            if not data:
                return
            if flight.first_byte_at is None:
                flight.first_byte_at = self._supply.clock()
            assert offset <= flight.mark, "an answer that begins too late"
            if not offset:
                self._on_head(data[:HEAD])
            end = offset + len(data)
            # `stop` may come nearer while a write runs, but not nearer than where that write ends.
            while flight.mark < (stop := min(flight.stop, end)):
                await self._write(data[flight.mark - offset : min(stop, flight.mark + MAX_WRITE) - offset])
            offset = end

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
        """Whether with these bytes every block of the object is in the file."""
        size, total = self._supply.block_size, self._entry.metadata.size
        whole = range(written.start // size, -(-total // size) if written.stop == total else written.stop // size)
        return self._entry.present | blocks.mask(whole) == blocks.all_blocks(total, size)


def close(flight: Flight) -> None:
    """Give back the connection of an answer that is open."""
    if flight.answer is not None:
        flight.answer.body.close()
        flight.answer = None
