"""Single flight: the bytes of one entry are fetched once, in parts, as its readers need them (I10).

A part is one ranged GET; a flight is a part being fetched, a task that belongs to the fill and to no client (I12). A
flight claims whole blocks, and no block is claimed twice. Readers say where they are with a `ReaderCursor` and wait
until bytes at their offset are in the file: a block's bit is set, or a live flight has written beyond it (I2).
"""

import asyncio
import logging
from collections.abc import Iterator

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.mp4 import index_span
from bucketfront.cache.fetch.part import FetchContext, PartFetch, PartOutcome, ReaderCursor, Waiter
from bucketfront.cache.fetch.part_fetch import PartTransfer
from bucketfront.cache.fetch.read_ahead import ReadAhead, Window
from bucketfront.cache.fetch.version import Version
from bucketfront.cache.origin import OriginResponse
from bucketfront.cache.storage import blocks
from bucketfront.errors import (
    ContentMismatch,
    ObjectChanged,
    OriginError,
    OriginTimeout,
    OriginUnavailable,
    ProxyError,
    StoreError,
)
from bucketfront.http.ranges import Span

log = logging.getLogger(__name__)

SPLIT_AFTER = 0.05  # seconds that a reader waits inside somebody else's part before it gets one of its own
REFUSED_PAUSE = 1.0  # seconds without read-ahead after there was no room
BACKGROUND_PARTS = 2  # flights of a fill that nobody waits for


class Fill:
    def __init__(self, entry: Entry, supply: FetchContext) -> None:
        self._entry = entry
        self._supply = supply
        self._version = Version(entry, supply.origin, supply.changed)
        self._ramp = ReadAhead(supply.block_size, supply.part_size, supply.parallel_parts)
        self._flights: list[PartFetch] = []
        self._demands: list[ReaderCursor] = []
        self._waiters: dict[asyncio.Future[None], Waiter] = {}
        self._verifying: dict[int, asyncio.Task[None]] = {}
        self._rate: float | None = None  # bytes a second of the latest flight that delivered
        self._changed: ObjectChanged | None = None
        self.mismatch: ContentMismatch | None = None
        self._refused_at: float | None = None  # when the disk or the budget last took no more
        self._index: Span | None = None  # of an MP4, behind its media data, and not asked for yet
        self._is_head_seen = False

    def __repr__(self) -> str:
        flights = ", ".join(f"{f.start}-{f.mark}-{f.stop}" for f in self._flights)
        return f"<Fill {self._entry.key} flights [{flights}] {len(self._demands)} readers>"

    @property
    def is_idle(self) -> bool:
        return not self._flights and not self._demands

    # --- readers -------------------------------------------------------------------------------------------

    def join(self, span: Span, *, whole: bool) -> ReaderCursor:
        """`whole`: the client takes the object as a whole, and not a range of it."""
        is_eager = whole or self._ramp.is_short(span, self._entry.metadata.size)
        pace = self._ramp.pace(0, is_eager=is_eager)
        demand = ReaderCursor(span.start, span.stop, pace, span.start, is_eager, parts=self._supply.parallel_parts)
        self._demands.append(demand)
        return demand

    def leave(self, demand: ReaderCursor) -> None:
        """The reader is gone, content or not. What becomes of bytes that nobody waits for is a setting.

        `stop`: flights end at once. `finish`: what the last reader had asked for is fetched. `auto`: flights that
        none of the other readers needs soon end with the block they are in, but an object of which half is present
        is fetched whole.
        """
        self._demands.remove(demand)
        entry, policy = self._entry, self._supply.after_disconnect
        size = entry.metadata.size
        if policy == "auto" and (entry.is_removed or entry.present.bit_count() * self._supply.block_size * 2 < size):
            self._trim()
        elif self._demands or entry.is_removed:
            pass
        elif policy == "stop":
            for flight in self._flights:
                flight.cancel()
        elif policy == "auto":
            self._go_on(Span(0, size))
        elif demand.offset < demand.stop:
            self._go_on(Span(demand.offset, demand.stop))

    def _go_on(self, span: Span) -> None:
        if self.covers(span):
            return
        pace = Window(span.length, self._supply.part_size)
        demand = ReaderCursor(span.start, span.stop, pace, span.start, parts=BACKGROUND_PARTS, is_background=True)
        self._demands.append(demand)
        self._launch_for(demand)
        self._drop_background()

    def _drop_background(self) -> None:
        """A fill that goes on alone has done its work once its last flight is under way. One that may not even have
        one flight is given up: nothing would ever start the next.
        """
        self._demands = [
            demand
            for demand in self._demands
            if not demand.is_background or (self._flights and not self.covers(Span(demand.offset, demand.stop)))
        ]

    def _trim(self) -> None:
        """End flights that no reader needs soon, each with the block it is in; at once where it has none begun."""
        size = self._supply.block_size
        for flight in self._flights:
            if flight.demand in self._demands or any(_overlap(demand.soon, flight) for demand in self._demands):
                continue
            stop = min(flight.stop, -(-flight.writing_to // size) * size)
            if flight.first_byte_at is None or stop == flight.mark:
                flight.cancel()
            elif stop < flight.stop:
                self._supply.entries.budget.give_back(self._cut(flight, stop))

    def _cut(self, flight: PartFetch, stop: int) -> int:
        """End a flight at this end of a block. Returns the reserved bytes that it needs no more."""
        size = self._supply.block_size
        tail = range(stop // size, blocks.block_count(flight.stop, size))
        # Nothing of it is reserved while the flight still waits for room.
        spare = min(flight.reserved, self._supply.allocated(self._entry, tail))
        flight.cut(stop)
        flight.reserved -= spare
        return spare

    def covers(self, span: Span) -> bool:
        """Every byte is present or on its way."""
        return next(self._missing(span), None) is None

    def readable(self, offset: int, stop: int) -> int:
        """How far, up to `stop`, the bytes from `offset` on are in the file."""
        usable = self._entry.present & ~self._entry.unverified
        size = self._supply.block_size
        last = blocks.block_count(stop, size)
        at = offset
        while at < stop:
            block = at // size
            absent = blocks.first_absent(usable, block, last)
            if absent > block:
                at = absent * size
                continue
            flight = self._flight_at(at)
            if flight is None or flight.mark <= at:
                break
            at = flight.mark
        return min(at, stop)

    async def wait_readable(self, demand: ReaderCursor, offset: int) -> int:
        """The first byte after `offset` that is not in the file yet; more than `offset`, unless that is the end.

        Raises ObjectChanged, OriginTimeout, OriginUnavailable and the other OriginErrors of a ranged GET;
        StoreError where the bytes can be had from the origin only.
        """
        demand.read += offset - demand.offset
        demand.offset = offset
        demand.pace = self._ramp.pace(demand.read, is_eager=demand.is_eager)
        if self.mismatch is not None:
            raise self.mismatch
        wait = Waiter(offset, self._supply.clock())
        try:
            async with asyncio.timeout(self._supply.patience):
                while (upto := self.readable(offset, demand.stop)) == offset < demand.stop:
                    await self._wait(demand, wait)
        except TimeoutError:
            raise OriginTimeout(f"no byte {offset} of {self._entry.key} in {self._supply.patience:g} s") from None
        self._launch_for(demand)
        return upto

    async def _wait(self, demand: ReaderCursor, wait: Waiter) -> None:
        block = demand.offset // self._supply.block_size
        if self._entry.unverified >> block & 1:
            await self.verify(block)
            return
        if self._changed is not None:
            raise self._changed
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = wait
        demand.is_waiting = True
        try:
            self._launch_for(demand)
            self._split_for(demand.offset)
            await waiter
        finally:
            demand.is_waiting = False
            self._waiters.pop(waiter, None)

    # --- starting flights: all synchronous -----------------------------------------------------------------

    def adopt(self, answer: OriginResponse) -> None:
        """Make a flight of an answer that a lookup got: the first GET of an object brings its first part."""
        size, total = self._supply.block_size, self._entry.metadata.size
        first = -(-answer.start // size)
        last = blocks.block_count(total, size) if answer.stop == total else answer.stop // size
        # Another flight may have claimed some of it meanwhile: the answer serves the first run that is left.
        left = list(self._missing(blocks.span_of(range(first, last), total, size))) if first < last else []
        if not left:
            answer.body.close()
            return
        for number, run in enumerate(left):
            self._launch(run, answer if number == 0 else None)

    def _missing(self, span: Span) -> Iterator[range]:
        """Runs of blocks that are neither present nor on their way."""
        claimed = self._entry.present
        for flight in self._flights:
            claimed |= blocks.mask(blocks.covering(flight.span, self._supply.block_size))
        return blocks.missing(claimed, blocks.covering(span, self._supply.block_size))

    def _launch_for(self, demand: ReaderCursor) -> None:
        """Start what this reader needs: the part it waits for at once, its window as far as there is room."""
        if self._changed is not None or (self._entry.is_removed and not self._entry.pins):
            return
        self._launch_index_for(demand)
        size, pace = self._supply.block_size, demand.pace
        edge = demand.offset + pace.window
        for run in self._parts(demand.soon, pace.part):
            if run.start * size >= edge:
                return
            is_urgent = demand.is_waiting and run.start == demand.offset // size
            if not is_urgent and not self._may_read_ahead(demand, run):
                return
            self._launch(run, None, demand=demand)

    def _launch_index_for(self, demand: ReaderCursor) -> None:
        """A player that begins an MP4 wants the index next, before all that lies between: see `mp4`."""
        size = self._entry.metadata.size
        if self._index is None or demand.start or demand.stop < size:
            return
        span, self._index = self._index, None
        for run in self._parts(span, self._supply.part_size):
            if self._has_room_for(run) and self._supply.traffic.has_room:
                self._launch(run, None, demand=demand)

    def _head_came(self, head: bytes) -> None:
        if self._is_head_seen:
            return
        self._is_head_seen = True
        self._index = index_span(head, self._entry.metadata.size)
        for demand in self._demands:
            self._launch_index_for(demand)

    def _parts(self, span: Span, length: int) -> list[range]:
        """What is missing of `span`, as runs of blocks of at most `length` bytes."""
        count = max(1, length // self._supply.block_size)
        return [
            range(start, min(start + count, run.stop))
            for run in self._missing(span)
            for start in range(run.start, run.stop, count)
        ]

    def _may_read_ahead(self, demand: ReaderCursor, run: range) -> bool:
        """The first flight of an entry needs no free connection: it is what starts the next ones."""
        if not self._has_room_for(run):
            return False
        return not self._flights or (len(self._flights) < demand.parts and self._supply.traffic.has_room)

    def _has_room_for(self, run: range) -> bool:
        """The budget may be asked for these blocks, although no reader waits for them."""
        if self._refused_at is not None and self._supply.clock() - self._refused_at < REFUSED_PAUSE:
            return False
        return self._supply.allows_ahead(self._supply.allocated(self._entry, run))

    def _launch(
        self, run: range, answer: OriginResponse | None, *, reserved: int = 0, demand: ReaderCursor | None = None
    ) -> None:
        entry = self._entry
        span = blocks.span_of(run, entry.metadata.size, self._supply.block_size)
        began = self._supply.clock()
        flight = PartFetch(
            span.start, span.stop, span.start, span.start, reserved, began=began, answer=answer, demand=demand
        )
        self._flights.append(flight)
        self._supply.entries.pin(entry)
        traffic = self._supply.traffic
        traffic.flights.add(flight)
        traffic.started += 1
        delivery = PartTransfer(
            flight, entry, self._version, self._supply, on_head=self._head_came, on_written=self._wake
        )
        flight.task = asyncio.create_task(delivery.run(), name=f"flight {entry.key} {span.start}")
        traffic.tasks.add(flight.task)
        # A callback, because a task that is cancelled before its first step never runs any of its own code.
        flight.task.add_done_callback(lambda task: self._land(flight, task))

    def _split_for(self, offset: int) -> None:
        """Give a reader a part of its own where the flight that will get there is too far behind (I10 holds: the
        older flight's claim ends where the new one's begins).
        """
        flight = self._flight_at(offset)
        size = self._supply.block_size
        cut = offset // size * size
        if flight is None or cut < max(flight.mark + max(size, self._supply.split_distance), flight.writing_to):
            return
        rate = self._rate_of(flight)
        if rate is None or offset - flight.mark < rate * SPLIT_AFTER:
            return
        tail = range(cut // size, blocks.block_count(flight.stop, size))
        moved = self._cut(flight, cut)
        self._supply.traffic.split += 1
        self._launch(tail, None, reserved=moved, demand=flight.demand)

    def _rate_of(self, flight: PartFetch) -> float | None:
        if flight.first_byte_at is None:
            return self._rate
        elapsed = self._supply.clock() - flight.first_byte_at
        return (flight.mark - flight.start) / elapsed if elapsed > SPLIT_AFTER else self._rate

    def _flight_at(self, offset: int) -> PartFetch | None:
        return next((flight for flight in self._flights if flight.start <= offset < flight.stop), None)

    # --- the end of a flight -------------------------------------------------------------------------------

    def _land(self, flight: PartFetch, task: "asyncio.Task[None]") -> None:
        supply, entry = self._supply, self._entry
        ending, error = _outcome(task)
        if flight.answer is not None:  # cancelled before it began
            flight.answer.body.close()
        self._flights.remove(flight)
        supply.traffic.tasks.discard(task)
        supply.traffic.flights.discard(flight)
        supply.traffic.endings[ending] += 1
        if ending is PartOutcome.UNSTORED:
            self._refused_at = supply.clock()
        supply.entries.budget.give_back(flight.reserved)
        if flight.first_byte_at is not None and (elapsed := supply.clock() - flight.first_byte_at) > 0:
            self._rate = (flight.mark - flight.start) / elapsed
        if isinstance(error, ObjectChanged):
            self._changed = error
            supply.changed(entry)
        if ending is PartOutcome.FILLED:
            self._launch_next()
        elif error is None:
            self._release(flight)
        else:
            self._fail(flight, error)
        if supply.entries.unpin(entry):
            supply.release(entry)

    def _launch_next(self) -> None:
        for demand in sorted(self._demands, key=lambda demand: not demand.is_waiting):
            self._launch_for(demand)
        self._drop_background()

    def _wake(self, flight: PartFetch) -> None:
        for waiter, wait in list(self._waiters.items()):
            if flight.start <= wait.offset < flight.mark:
                if not waiter.done():
                    waiter.set_result(None)
            elif flight.mark <= wait.offset < flight.stop:
                self._split_for(wait.offset)

    def _release(self, flight: PartFetch) -> None:
        """Readers that came while the flight was being given up start another one."""
        for waiter, wait in self._waiters.items():
            if flight.start <= wait.offset < flight.stop and not waiter.done():
                waiter.set_result(None)

    def _fail(self, flight: PartFetch, error: ProxyError) -> None:
        self._demands = [demand for demand in self._demands if not demand.is_background]
        for waiter, wait in list(self._waiters.items()):
            if waiter.done() or not (flight.start <= wait.offset < flight.stop or self._changed is not None):
                continue
            if isinstance(error, OriginUnavailable) and flight.began < wait.since:
                # It came to a flight that was dying already: it gets one of its own time (I11).
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    def give_up(self, error: ContentMismatch) -> None:
        """None of the complete object's bytes may be served any more: its readers are told when they ask for more."""
        self._changed = self.mismatch = error
        self._supply.changed(self._entry)
        for flight in self._flights:  # of a block that was lost meanwhile
            flight.cancel()

    # --- verifying -----------------------------------------------------------------------------------------

    async def verified(self) -> None:
        """Returns once no block of the file is being looked at."""
        await asyncio.gather(*self._verifying.values(), return_exceptions=True)

    async def verify(self, block: int) -> None:
        """Compare a block from before an unclean stop with its checksum, before a byte of it is sent (I15)."""
        task = self._verifying.get(block)
        if task is None:
            task = self._verifying[block] = asyncio.create_task(self._check(block))
            task.add_done_callback(lambda _: self._verifying.pop(block))
        await asyncio.shield(task)

    async def _check(self, block: int) -> None:
        supply, entry = self._supply, self._entry
        supply.entries.pin(entry)
        try:
            assert entry.file is not None
            span = blocks.span_of(range(block, block + 1), entry.metadata.size, supply.block_size)
            if await supply.store.checksum(entry.file, span) == supply.entries.checksum(entry, block):
                supply.entries.verified(entry, block)
            else:
                await supply.store.punch(entry.file, span)
                supply.entries.lose(entry, block)
        finally:
            if supply.entries.unpin(entry):
                supply.release(entry)


def _overlap(span: Span, flight: PartFetch) -> bool:
    return span.start < flight.stop and flight.mark < span.stop


def _outcome(task: "asyncio.Task[None]") -> tuple[PartOutcome, ProxyError | None]:
    if task.cancelled():
        return PartOutcome.ABANDONED, None
    match task.exception():
        case None:
            return PartOutcome.FILLED, None
        case ObjectChanged() as error:
            return PartOutcome.CHANGED, error
        case OriginError() as error:
            return PartOutcome.FAILED, error
        case StoreError() as error:
            return PartOutcome.UNSTORED, error
        case bug:
            log.error("a flight broke down", exc_info=bug)
            return PartOutcome.FAILED, OriginUnavailable("a flight broke down")
