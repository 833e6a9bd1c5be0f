"""Part fetches, and what all fills share.

Theory of operation
-------------------
A part is one ranged GET of at most `part_size` bytes. `PartFetch` is a part that is being fetched: a claim on whole
blocks, and a task that belongs to the fill and to no client. `PartFetch.state` changes only in `become`, by this table:

    RESERVING    REQUESTING, ENDED
    REQUESTING   RECEIVING, ENDED
    RECEIVING    ENDED
    ENDED        -

RESERVING is skipped if the bytes are reserved already, because the part was split from another one. The fill enters
ENDED when the task ends, with a `PartOutcome`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Literal, Protocol, TypeVar

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.entries.removals import Reason, RemovalReason
from bucketfront.cache.fetch.fill_view import FillView
from bucketfront.cache.fetch.integrity import Comparison
from bucketfront.cache.fetch.read_ahead import ReadAhead
from bucketfront.cache.fetch.reader_cursor import ReaderCursor
from bucketfront.cache.fetch.traffic import Traffic
from bucketfront.cache.origin import Origin, OriginResponse
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.ownership import Ownership
from bucketfront.cache.storage.storage import Storage
from bucketfront.http.ranges import Span
from bucketfront.retry import RetryBudget
from bucketfront.task_set import TaskSet

T = TypeVar("T")

FIRST_PART_SHARE = 20  # an object that turns out to be too large for the cache costs a twentieth of its bytes at most
READ_AHEAD_SHARE = 4  # read-ahead of all fills takes at most one part in so many of the cache's limit


class RunningFill(Protocol):
    """A fill that fetches bytes. `cache.fetch.fill.Fill` is the implementation."""

    def view(self) -> FillView:
        """Return the state of this moment."""


class PartState(Enum):
    RESERVING = auto()  # no space was taken from the budget yet
    REQUESTING = auto()  # space is reserved, and no byte has come
    RECEIVING = auto()
    ENDED = auto()


class PartOutcome(Enum):
    """How a part fetch ended. The value is its label in metrics."""

    FILLED = "filled"
    CHANGED = "changed"  # the origin has another version now
    FAILED = "failed"  # the origin did not deliver, after retries
    STORE_FAILED = "unstored"  # the disk or the budget refused the bytes
    ABANDONED = "abandoned"  # no reader needs it any more, or the process stops


TRANSITIONS = {
    PartState.RESERVING: (PartState.REQUESTING, PartState.ENDED),
    PartState.REQUESTING: (PartState.RECEIVING, PartState.ENDED),
    PartState.RECEIVING: (PartState.ENDED,),
    PartState.ENDED: (),
}


@dataclass(eq=False, slots=True)
class PartFetch:
    """The fetch of the part [start, stop), whole blocks.

    Bytes below `mark` are in the file, and those up to `writing_to` are being written. `stop` comes nearer if a reader
    splits the part, or if no reader needs the rest.
    """

    start: int
    stop: int
    mark: int
    writing_to: int
    reserved: int = 0  # bytes taken from the budget and not yet charged to the entry
    checksum: int = 0  # CRC-32 so far of the block that `mark` lies in
    began: float = 0.0  # by the monotonic clock, as `first_byte_at`
    first_byte_at: float = 0.0  # set in RECEIVING
    delay: float | None = None  # seconds to the first byte, if the part fetch has sent the request itself
    response: OriginResponse | None = None  # open, and not yet taken over by the task
    status: int | None = None  # of the response that brought the latest bytes
    cursor: ReaderCursor | None = None  # the reader that the part was started for
    is_of_object: bool = False  # the next reader of the object will need it, whatever becomes of this one
    is_supplied: bool = False  # another cache had the bytes, and none come from the origin
    task: "asyncio.Task[None] | None" = None
    state: PartState = PartState.RESERVING

    @property
    def span(self) -> Span:
        return Span(self.start, self.stop)

    @property
    def outstanding(self) -> int:
        """Return the bytes still to come, as the file system counts them."""
        return blocks.rounded(self.stop - self.mark)

    def become(self, state: PartState) -> None:
        """Change the state, by the table at the head of this module."""
        assert state in TRANSITIONS[self.state], f"{self.state} to {state}"
        self.state = state

    def cut(self, stop: int) -> None:
        """End the part at `stop`, the end of a block. A write that runs is never cut."""
        assert self.writing_to <= stop <= self.stop
        self.stop = stop

    def cancel(self) -> None:
        assert self.task is not None
        self.task.cancel()


@dataclass(slots=True)
class FetchStats:
    """Counters of all part fetches, and the limit of read-ahead.

    Read-ahead leaves some of the origin's connections free, so that the part of a waiting reader does not queue.
    """

    read_ahead_limit: int  # part fetches
    started: int = 0
    split: int = 0
    hedges: int = 0  # second requests for late bytes
    hedges_won: int = 0
    hedging: int = 0  # hedges that run now
    streams: int = 0  # that run without the cache, see `passthrough`
    pauses: int = 0  # of streams, for their clients
    fetches: set[PartFetch] = field(default_factory=set)
    fills: dict[RunningFill, None] = field(default_factory=dict)  # with a part fetch that runs, the oldest first
    outcomes: dict[PartOutcome, int] = field(default_factory=lambda: dict.fromkeys(PartOutcome, 0))

    @property
    def running(self) -> int:
        return len(self.fetches)

    @property
    def object_limit(self) -> int:
        """Return the part fetches up to which the read-ahead of an object with many readers may start another."""
        return self.read_ahead_limit * 2 // 3

    @property
    def has_room(self) -> bool:
        return self.running < self.read_ahead_limit

    @property
    def reserved(self) -> int:
        """Return the bytes taken from the budget and not yet charged to an entry."""
        return sum(fetch.reserved for fetch in self.fetches)

    @property
    def outstanding(self) -> int:
        """Return the bytes still to come of all part fetches."""
        return sum(fetch.outstanding for fetch in self.fetches)


class Space(Protocol):
    """The space of the cache. `cache.upkeep.space_reservation.SpaceReservation` is the implementation."""

    async def reserve(self, count: int, files: int = 0) -> None:
        """Take `count` bytes from the budget, and `files` that will be made. Raises StoreError."""

    async def fit(self, call: Callable[[], Awaitable[T]], count: int) -> T:
        """Return the result of `call`, which takes `count` bytes. Raises StoreError, and what `call` raises."""


@dataclass(frozen=True, slots=True)
class FetchContext:
    """What every fill works with. Sizes are in bytes, times in seconds, and `clock` is monotonic.

    `space` is the cache's. `unpin` ends a pin. `remove` removes an entry. `retries` pays for
    repeated requests, `hedges` for second ones. `tasks` has the part fetches and the comparisons that run. `traffic`
    counts the bytes that come. Without `ownership`, readers get no bytes that are not in their open file.
    """

    origin: Origin
    store: Storage
    entries: EntryTable
    stats: FetchStats
    space: Space
    unpin: Callable[[Entry], None]
    remove: Callable[[Entry, Reason], None]
    comparison: Comparison
    clock: Callable[[], float]
    block_size: int
    part_size: int
    parallel_parts: int
    after_disconnect: Literal["finish", "stop", "auto"]
    read_ahead_max: int  # see `ReadAhead.most`
    reader_timeout: float  # how long a reader waits for one byte
    retries: RetryBudget = field(default_factory=RetryBudget)
    hedges: RetryBudget = field(default_factory=RetryBudget)
    split_distance: int = 0  # how far ahead of a part's mark a reader must be to get a part of its own
    tasks: TaskSet = field(default_factory=TaskSet)
    traffic: Traffic = field(default_factory=lambda: Traffic(lambda _: ""))
    ownership: Ownership = field(default_factory=Ownership)

    @property
    def read_ahead(self) -> ReadAhead:
        return ReadAhead(self.block_size, self.part_size, self.parallel_parts, self.read_ahead_max)

    @property
    def first_read_ahead(self) -> ReadAhead:
        """Return the same for the first part of an object whose size is not known, and that may get no file."""
        blocks_of_part = min(self.part_size, self.entries.budget.limit // FIRST_PART_SHARE) // self.block_size
        return replace(self.read_ahead, part_size=max(1, blocks_of_part) * self.block_size)

    async def end_fetches(self) -> None:
        """End all part fetches, and return once none writes any more. Their readers see whether to start others."""
        while self.stats.fetches:
            for fetch in list(self.stats.fetches):
                fetch.cancel()
            await asyncio.sleep(0)

    def replaced(self, entry: Entry) -> None:
        """Remove an entry whose version the origin has replaced."""
        self.remove(entry, RemovalReason.CHANGED)

    def allocated(self, entry: Entry, run: range) -> int:
        """Return the bytes that these blocks will take beyond those charged to the entry."""
        wanted = blocks.mask(run) & ~entry.charged
        return blocks.allocated(wanted, entry.metadata.size, self.block_size)

    @property
    def left_ahead(self) -> int:
        """Return how many more bytes read-ahead may take within its share of the cache. It may be negative.

        Bytes that readers wait for count as well, because the readers will have moved on before all of them come.
        """
        return self.entries.budget.limit // READ_AHEAD_SHARE - self.stats.outstanding
