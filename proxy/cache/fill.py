"""Single flight: the bytes of one entry are fetched once, in parts, as its readers need them (I10).

A part is one ranged GET; a flight is a part being fetched, a task that belongs to the fill and to no client (I12). A
flight claims whole blocks, and no block is claimed twice. Readers say where they are with a `Demand` and wait
until bytes at their offset are in the file: a block's bit is set, or a live flight has written beyond it (I2).
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal

from proxy.cache import blocks
from proxy.cache.origin import Answer, NotModified, Origin
from proxy.cache.store import Store
from proxy.errors import (
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    OriginTimeout,
    OriginUnavailable,
    ProxyError,
    RangeUnsatisfiable,
    StoreError,
)
from proxy.http.ranges import FromTo, Span

if TYPE_CHECKING:
    from proxy.cache.entries import Entries
    from proxy.cache.entry import Entry

log = logging.getLogger("bucketfront.fill")

MAX_FAILURES = 3  # in a row without a byte: the flight is given up
BACKOFF = 0.1  # seconds, doubled for each failure, with full jitter; well inside the 2 s of I11
SPLIT_AFTER = 0.05  # seconds that a reader waits inside somebody else's part before it gets one of its own
REFUSED_PAUSE = 1.0  # seconds without read-ahead after there was no room
BACKGROUND_PARTS = 2  # flights of a fill that nobody waits for


class Ending(Enum):
    """How a flight can end."""

    FILLED = auto()
    CHANGED = auto()  # the origin has another version now
    FAILED = auto()  # the origin did not deliver, after retries
    UNSTORED = auto()  # the disk, or the budget, did not take the bytes
    ABANDONED = auto()  # nobody wanted it any more, or the process stops


@dataclass(eq=False, slots=True)
class Demand:
    """One reader: wants [offset, stop), and `window` bytes from `offset` on soon. Moves as it reads."""

    offset: int
    stop: int
    window: int
    read: int = 0
    is_waiting: bool = False
    parts: int = 1  # flights of the entry up to which this reader's read-ahead may start more
    is_background: bool = False  # no reader: a fill that goes on alone


@dataclass(eq=False, slots=True)
class Flight:
    """The part [start, stop); bytes below `mark` are in the file. `stop` shrinks when a reader splits it."""

    start: int
    stop: int
    mark: int
    reserved: int = 0  # bytes taken from the budget and not yet an entry's
    checksum: int = 0  # CRC-32 so far of the block that `mark` lies in
    began: float = 0.0  # of the monotonic clock, as `first_byte_at`
    first_byte_at: float | None = None
    answer: Answer | None = None  # open, and not yet poured out
    task: "asyncio.Task[None] | None" = None


@dataclass(frozen=True, slots=True)
class Wait:
    """A reader waits for the byte at `offset`, since a time of the monotonic clock."""

    offset: int
    since: float


@dataclass(slots=True)
class Traffic:
    """Flights of all fills together. Read-ahead stops short of the origin's connections: a waiting reader's part
    must not queue behind it.
    """

    read_ahead_limit: int
    running: int = 0
    started: int = 0
    split: int = 0
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    endings: dict[Ending, int] = field(default_factory=lambda: dict.fromkeys(Ending, 0))

    @property
    def has_room(self) -> bool:
        return self.running < self.read_ahead_limit


@dataclass(frozen=True, slots=True)
class Supply:
    """What every fill works with. `reserve` takes bytes for an entry or raises StoreError; `release` is told when
    a removed entry lost its last user; `changed` that the origin has another version. `clock` is monotonic.
    """

    origin: Origin
    store: Store
    entries: "Entries"
    traffic: Traffic
    reserve: Callable[[int], Awaitable[None]]
    release: Callable[["Entry"], None]
    changed: Callable[["Entry"], None]
    clock: Callable[[], float]
    block_size: int
    part_size: int
    parallel_parts: int
    after_disconnect: Literal["finish", "stop", "auto"]
    patience: float  # seconds that a reader waits for a byte before it gives up
    split_distance: int = 0  # bytes that a reader has to be ahead of a flight to get one of its own


class Fill:
    def __init__(self, entry: "Entry", supply: Supply) -> None:
        self._entry = entry
        self._supply = supply
        self._flights: list[Flight] = []
        self._demands: list[Demand] = []
        self._waiters: dict[asyncio.Future[None], Wait] = {}
        self._verifying: dict[int, asyncio.Task[None]] = {}
        self._rate: float | None = None  # bytes a second of the latest flight that delivered
        self._changed: ObjectChanged | None = None
        self._refused_at: float | None = None  # when the disk or the budget last took no more

    def __repr__(self) -> str:
        flights = ", ".join(f"{f.start}-{f.mark}-{f.stop}" for f in self._flights)
        return f"<Fill {self._entry.key} flights [{flights}] {len(self._demands)} readers>"

    @property
    def is_idle(self) -> bool:
        return not self._flights and not self._demands

    # --- readers -------------------------------------------------------------------------------------------

    def join(self, span: Span) -> Demand:
        demand = Demand(span.start, span.stop, self._supply.part_size, parts=self._supply.parallel_parts)
        self._demands.append(demand)
        return demand

    def leave(self, demand: Demand) -> None:
        """The reader is gone, content or not. What becomes of bytes that nobody waits for is a setting."""
        self._demands.remove(demand)
        if self._demands or self._entry.removed:
            return
        policy = self._supply.after_disconnect
        size = self._entry.metadata.size
        if policy == "stop":
            for flight in self._flights:
                assert flight.task is not None
                flight.task.cancel()
        elif policy == "finish" and demand.offset < demand.stop:
            self._go_on(Span(demand.offset, demand.stop))
        elif policy == "auto" and self._entry.present.bit_count() * self._supply.block_size * 2 >= size:
            self._go_on(Span(0, size))

    def _go_on(self, span: Span) -> None:
        if next(self._missing(span), None) is None:
            return
        demand = Demand(span.start, span.stop, span.length, parts=BACKGROUND_PARTS, is_background=True)
        self._demands.append(demand)
        self._launch_for(demand)

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

    async def wait_readable(self, demand: Demand, offset: int) -> int:
        """The first byte after `offset` that is not in the file yet; more than `offset`, unless that is the end.

        Raises ObjectChanged, OriginTimeout, OriginUnavailable and the other OriginErrors of a ranged GET;
        StoreError where the bytes can be had from the origin only.
        """
        demand.read += offset - demand.offset
        demand.offset = offset
        demand.window = max(self._supply.part_size, min(2 * demand.read, self._window_limit))
        wait = Wait(offset, self._supply.clock())
        try:
            async with asyncio.timeout(self._supply.patience):
                while (upto := self.readable(offset, demand.stop)) == offset < demand.stop:
                    await self._wait(demand, wait)
        except TimeoutError:
            raise OriginTimeout(f"no byte {offset} of {self._entry.key} in {self._supply.patience:g} s") from None
        self._launch_for(demand)
        return upto

    @property
    def _window_limit(self) -> int:
        return self._supply.part_size * self._supply.parallel_parts

    async def _wait(self, demand: Demand, wait: Wait) -> None:
        block = demand.offset // self._supply.block_size
        if self._entry.unverified >> block & 1:
            await self._verify(block)
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

    def adopt(self, answer: Answer) -> None:
        """Make a flight of an answer that a lookup got: the first GET of an object brings its first part."""
        size, total = self._supply.block_size, self._entry.metadata.size
        first = -(-answer.start // size)
        last = blocks.block_count(total, size) if answer.stop == total else answer.stop // size
        if first >= last or next(self._missing(blocks.span_of(range(first, last), total, size)), None) is None:
            answer.body.close()
            return
        self._launch(range(first, last), answer)

    def _missing(self, span: Span) -> Iterator[range]:
        """Runs of blocks that are neither present nor on their way."""
        claimed = self._entry.present
        for flight in self._flights:
            claimed |= blocks.mask(blocks.covering(Span(flight.start, flight.stop), self._supply.block_size))
        return blocks.missing(claimed, blocks.covering(span, self._supply.block_size))

    def _launch_for(self, demand: Demand) -> None:
        """Start what this reader needs: the part it waits for at once, its window as far as there is room."""
        if self._changed is not None or (self._entry.removed and not self._entry.pins):
            return
        size = self._supply.block_size
        # A part begins within the window and may end beyond it: else the window's edge would cut small ones.
        edge = demand.offset + demand.window
        ahead = Span(demand.offset, min(demand.stop, edge + self._supply.part_size))
        part_blocks = max(1, self._supply.part_size // size)
        for run in list(self._missing(ahead)):
            for start in range(run.start, run.stop, part_blocks):
                if start * size >= edge:
                    return
                is_urgent = demand.is_waiting and start == demand.offset // size
                if not is_urgent and not self._may_read_ahead(demand):
                    return
                self._launch(range(start, min(start + part_blocks, run.stop)), None)

    def _may_read_ahead(self, demand: Demand) -> bool:
        """The first flight of an entry always may: it is what starts the next ones."""
        if self._refused_at is not None and self._supply.clock() - self._refused_at < REFUSED_PAUSE:
            return False
        return not self._flights or (len(self._flights) < demand.parts and self._supply.traffic.has_room)

    def _launch(self, run: range, answer: Answer | None, reserved: int = 0) -> Flight:
        entry = self._entry
        span = blocks.span_of(run, entry.metadata.size, self._supply.block_size)
        flight = Flight(span.start, span.stop, span.start, reserved, began=self._supply.clock(), answer=answer)
        self._flights.append(flight)
        self._supply.entries.pin(entry)
        traffic = self._supply.traffic
        traffic.running += 1
        traffic.started += 1
        flight.task = asyncio.create_task(self._fly(flight), name=f"flight {entry.key} {span.start}")
        traffic.tasks.add(flight.task)
        # A callback, because a task that is cancelled before its first step never runs any of its own code.
        flight.task.add_done_callback(lambda task: self._land(flight, task))
        return flight

    def _split_for(self, offset: int) -> None:
        """Give a reader a part of its own where the flight that will get there is too far behind (I10 holds: the
        older flight's claim ends where the new one's begins).
        """
        flight = self._flight_at(offset)
        size = self._supply.block_size
        cut = offset // size * size
        if flight is None or cut < flight.mark + max(size, self._supply.split_distance):
            return
        rate = self._rate_of(flight)
        if rate is None or offset - flight.mark < rate * SPLIT_AFTER:
            return
        tail = range(cut // size, blocks.block_count(flight.stop, size))
        # Nothing of it is reserved while the older flight still waits for room.
        moved = min(flight.reserved, self._allocated(tail))
        flight.stop = cut
        flight.reserved -= moved
        self._supply.traffic.split += 1
        self._launch(tail, None, reserved=moved)

    def _rate_of(self, flight: Flight) -> float | None:
        if flight.first_byte_at is None:
            return self._rate
        elapsed = self._supply.clock() - flight.first_byte_at
        return (flight.mark - flight.start) / elapsed if elapsed > SPLIT_AFTER else self._rate

    def _flight_at(self, offset: int) -> Flight | None:
        return next((flight for flight in self._flights if flight.start <= offset < flight.stop), None)

    def _allocated(self, run: range) -> int:
        """Bytes that these blocks will take beyond what the entry is charged for already."""
        wanted = blocks.mask(run) & ~self._entry.charged
        return blocks.allocated(wanted, self._entry.metadata.size, self._supply.block_size)

    # --- a flight ------------------------------------------------------------------------------------------

    async def _fly(self, flight: Flight) -> None:
        if not flight.reserved:
            count = self._allocated(self._blocks_of(flight))
            await self._supply.reserve(count)
            flight.reserved = count
        await self._fetch(flight)

    def _blocks_of(self, flight: Flight) -> range:
        return blocks.covering(Span(flight.start, flight.stop), self._supply.block_size)

    async def _fetch(self, flight: Flight) -> None:
        """Until the part is whole: a body that was cut costs only its missing bytes (I11)."""
        failures = 0
        while flight.mark < flight.stop:
            before = flight.mark
            try:
                if flight.answer is None:
                    flight.answer = await self._ask(flight)
                await self._pour(flight, flight.answer)
            except OriginUnavailable:
                failures = failures + 1 if flight.mark == before else 1
                if failures == MAX_FAILURES:
                    raise
                await asyncio.sleep(random.uniform(0, BACKOFF * 2**failures))  # noqa: S311 - jitter, no secret
            finally:
                _close(flight)

    async def _ask(self, flight: Flight) -> Answer:
        entry = self._entry
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

    async def _pour(self, flight: Flight, answer: Answer) -> None:
        offset = answer.start
        while flight.mark < flight.stop:
            data = await answer.body.read()
            if not data:
                return
            if flight.first_byte_at is None:
                flight.first_byte_at = self._supply.clock()
            # Block by block: a flight may be split between two writes, never within one.
            while flight.mark < min(flight.stop, offset + len(data)):
                block = flight.mark // self._supply.block_size
                end = min((block + 1) * self._supply.block_size, self._entry.metadata.size)
                await self._write(flight, block, end, data[max(0, flight.mark - offset) : end - offset])
            offset += len(data)

    async def _write(self, flight: Flight, block: int, end: int, data: bytes) -> None:
        """Bytes of one block, which ends at `end`: data first, then checksum and bit (I2)."""
        entry = self._entry
        assert entry.file is not None
        # Charged from its first byte on, whatever comes of it: a reader may be sending what a dead flight left (I17).
        flight.reserved -= self._supply.entries.charge(entry, block)
        flight.checksum = await self._supply.store.write(entry.file, flight.mark, data, flight.checksum)
        flight.mark += len(data)
        if flight.mark == end:
            self._supply.entries.commit(entry, block, flight.checksum)
            flight.checksum = 0
        self._wake(flight)

    def _land(self, flight: Flight, task: "asyncio.Task[None]") -> None:
        supply, entry = self._supply, self._entry
        ending, error = _outcome(task)
        _close(flight)
        self._flights.remove(flight)
        supply.traffic.tasks.discard(task)
        supply.traffic.running -= 1
        supply.traffic.endings[ending] += 1
        if ending is Ending.UNSTORED:
            self._refused_at = supply.clock()
        supply.entries.budget.give_back(flight.reserved)
        if flight.first_byte_at is not None and (elapsed := supply.clock() - flight.first_byte_at) > 0:
            self._rate = (flight.mark - flight.start) / elapsed
        if isinstance(error, ObjectChanged):
            self._changed = error
            supply.changed(entry)
        if ending is Ending.FILLED:
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
        # A fill that goes on alone has done its work once its last flight is under way.
        self._demands = [
            demand
            for demand in self._demands
            if not (demand.is_background and self.covers(Span(demand.offset, demand.stop)))
        ]

    def _wake(self, flight: Flight) -> None:
        for waiter, wait in list(self._waiters.items()):
            if flight.start <= wait.offset < flight.mark:
                if not waiter.done():
                    waiter.set_result(None)
            elif flight.mark <= wait.offset < flight.stop:
                self._split_for(wait.offset)

    def _release(self, flight: Flight) -> None:
        """Readers that came while the flight was being given up start another one."""
        for waiter, wait in self._waiters.items():
            if flight.start <= wait.offset < flight.stop and not waiter.done():
                waiter.set_result(None)

    def _fail(self, flight: Flight, error: ProxyError) -> None:
        self._demands = [demand for demand in self._demands if not demand.is_background]
        for waiter, wait in list(self._waiters.items()):
            if waiter.done() or not (flight.start <= wait.offset < flight.stop or self._changed is not None):
                continue
            if isinstance(error, OriginUnavailable) and flight.began < wait.since:
                # It came to a flight that was dying already: it gets one of its own time (I11).
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    # --- verifying -----------------------------------------------------------------------------------------

    async def _verify(self, block: int) -> None:
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


def _close(flight: Flight) -> None:
    if flight.answer is not None:
        flight.answer.body.close()
        flight.answer = None


def _outcome(task: "asyncio.Task[None]") -> tuple[Ending, ProxyError | None]:
    if task.cancelled():
        return Ending.ABANDONED, None
    match task.exception():
        case None:
            return Ending.FILLED, None
        case ObjectChanged() as error:
            return Ending.CHANGED, error
        case OriginError() as error:
            return Ending.FAILED, error
        case StoreError() as error:
            return Ending.UNSTORED, error
        case bug:
            log.error("a flight broke down", exc_info=bug)
            return Ending.FAILED, OriginUnavailable("a flight broke down")
