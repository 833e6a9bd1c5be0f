"""What a fill is made of: readers' demands, flights, and what all fills share."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.fetch.integrity import Comparison
from bucketfront.cache.fetch.read_ahead import Window
from bucketfront.cache.origin import Origin, OriginResponse
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.storage import Storage
from bucketfront.http.ranges import Span
from bucketfront.retry import RetryBudget

READ_AHEAD_SHARE = 4  # read-ahead of all fills takes at most this part of the cache's limit


class PartOutcome(Enum):
    """How a flight can end."""

    FILLED = auto()
    CHANGED = auto()  # the origin has another version now
    FAILED = auto()  # the origin did not deliver, after retries
    UNSTORED = auto()  # the disk, or the budget, did not take the bytes
    ABANDONED = auto()  # nobody wanted it any more, or the process stops


@dataclass(eq=False, slots=True)
class ReaderCursor:
    """One reader: is at `offset`, wants all up to `stop`, and soon what `pace` says. Moves as it reads."""

    offset: int
    stop: int
    pace: Window
    start: int  # where it began
    is_eager: bool = True  # see `ReadAhead.pace`
    read: int = 0
    is_waiting: bool = False
    parts: int = 1  # flights of the entry up to which this reader's read-ahead may start more
    is_background: bool = False  # no reader: a fill that goes on alone

    @property
    def soon(self) -> Span:
        """What may be fetched for it now. A part begins within the window and may end beyond it: else the window's
        edge would cut small ones.
        """
        return Span(self.offset, min(self.stop, self.offset + self.pace.window + self.pace.part))


@dataclass(eq=False, slots=True)
class PartFetch:
    """The part [start, stop), whole blocks; bytes below `mark` are in the file, those up to `writing_to` are being
    written. `stop` comes nearer when a reader splits the flight, or nobody wants the rest.
    """

    start: int
    stop: int
    mark: int
    writing_to: int
    reserved: int = 0  # bytes taken from the budget and not yet an entry's
    checksum: int = 0  # CRC-32 so far of the block that `mark` lies in
    began: float = 0.0  # of the monotonic clock, as `first_byte_at`
    first_byte_at: float | None = None
    answer: OriginResponse | None = None  # open, and not yet taken over by its task
    demand: ReaderCursor | None = None  # the reader that it was started for
    task: "asyncio.Task[None] | None" = None

    @property
    def span(self) -> Span:
        return Span(self.start, self.stop)

    @property
    def outstanding(self) -> int:
        """Bytes still to come, as the file system counts them."""
        return -(-(self.stop - self.mark) // blocks.ALLOCATION_UNIT) * blocks.ALLOCATION_UNIT

    def cut(self, stop: int) -> None:
        """End at `stop`, a block's end; never within a running write, nor below it (I10)."""
        assert self.writing_to <= stop <= self.stop
        self.stop = stop

    def cancel(self) -> None:
        assert self.task is not None
        self.task.cancel()


@dataclass(frozen=True, slots=True)
class Waiter:
    """A reader waits for the byte at `offset`, since a time of the monotonic clock."""

    offset: int
    since: float


@dataclass(slots=True)
class FetchStats:
    """Flights of all fills together. Read-ahead stops short of the origin's connections: a waiting reader's part
    must not queue behind it.
    """

    read_ahead_limit: int
    started: int = 0
    split: int = 0
    hedges: int = 0  # second requests for what is late
    hedges_won: int = 0
    hedging: int = 0  # of them now
    flights: set[PartFetch] = field(default_factory=set)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    endings: dict[PartOutcome, int] = field(default_factory=lambda: dict.fromkeys(PartOutcome, 0))

    @property
    def running(self) -> int:
        return len(self.flights)

    @property
    def has_room(self) -> bool:
        return self.running < self.read_ahead_limit

    @property
    def reserved(self) -> int:
        """Bytes taken from the budget and not yet an entry's."""
        return sum(flight.reserved for flight in self.flights)

    @property
    def outstanding(self) -> int:
        """Bytes still to come of all flights."""
        return sum(flight.outstanding for flight in self.flights)


@dataclass(frozen=True, slots=True)
class FetchContext:
    """What every fill works with. `reserve` takes bytes for an entry or raises StoreError; `release` is told when
    a removed entry lost its last user; `changed` that the origin has another version; `completed` that all of a large
    object is in its file. `clock` is monotonic. `retries` pays for what is asked again, `hedges` for second requests.
    """

    origin: Origin
    store: Storage
    entries: EntryTable
    traffic: FetchStats
    reserve: Callable[[int], Awaitable[None]]
    release: Callable[[Entry], None]
    changed: Callable[[Entry], None]
    completed: Callable[[Entry], None]
    comparison: Comparison
    clock: Callable[[], float]
    block_size: int
    part_size: int
    parallel_parts: int
    after_disconnect: Literal["finish", "stop", "auto"]
    patience: float  # seconds that a reader waits for a byte before it gives up
    retries: RetryBudget = field(default_factory=RetryBudget)
    hedges: RetryBudget = field(default_factory=RetryBudget)
    split_distance: int = 0  # bytes that a reader has to be ahead of a flight to get one of its own

    def allocated(self, entry: Entry, run: range) -> int:
        """Bytes that these blocks will take beyond what the entry is charged for already."""
        wanted = blocks.mask(run) & ~entry.charged
        return blocks.allocated(wanted, entry.metadata.size, self.block_size)

    def allows_ahead(self, count: int) -> bool:
        """`count` more bytes of read-ahead leave it within its share. What readers wait for counts as well: they will
        have moved on before it has come in whole.
        """
        return self.traffic.outstanding + count <= self.entries.budget.limit // READ_AHEAD_SHARE
