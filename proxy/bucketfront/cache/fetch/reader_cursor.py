"""The positions of a fill's readers, and what they wait for. Values without I/O."""

from dataclasses import dataclass

from bucketfront.cache.fetch.read_ahead import NOTHING, Window
from bucketfront.fair_share import Client
from bucketfront.http.ranges import Demand, Span
from bucketfront.request_trace import RequestTrace


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What a reader was added for. `is_background` means that it stands for a fill that continues without a reader.

    `max_parts` are the part fetches of the entry up to which the reader's read-ahead may start another.
    """

    span: Span
    demand: Demand = Demand.WHOLE
    max_parts: int = 1
    client: Client = None  # for which the part fetches of the reader are
    trace: RequestTrace | None = None  # of the request that causes them
    is_background: bool = False


@dataclass(eq=False, slots=True)
class ReaderCursor:
    """The position of one reader: at `offset`, on its way to the end of its span. `window` is its read-ahead."""

    request: ReadRequest
    offset: int
    window: Window
    is_planned: bool = True  # what follows is decided, see `Fill.join`
    is_eager: bool = True  # see `ReadAhead.window`
    read: int = 0  # bytes
    waited: int = 0  # bytes read when it last waited
    is_waiting: bool = False
    is_served: bool = False  # all of its bytes are in the file
    walk_window: Window = NOTHING  # what to fetch behind `stop`, for the walk that the reader is part of
    walk_stop: int = 0  # where the ranges of that walk end now, if they are read side by side
    is_parallel: bool = False  # other ranges of that walk are being read, see `walk`

    @property
    def span(self) -> Span:
        """Return the reader's range."""
        return self.request.span

    @property
    def stop(self) -> int:
        return self.request.span.stop

    @property
    def is_starved(self) -> bool:
        """Return whether it has waited for bytes within the last window."""
        return self.read - self.waited <= self.window.size + self.window.part

    @property
    def ahead(self) -> Span:
        """Return the span of the reader's own range that may be fetched for it now.

        A part begins within the window and may end beyond it. Otherwise the window's edge would make parts small.
        """
        start = self.stop if self.is_served else self.offset
        return Span(start, min(self.stop, start + self.window.size + self.window.part))

    @property
    def ahead_of_walk(self) -> Span:
        """Return the span behind `stop` that may be fetched for the reader's walk. It may lie beyond the object."""
        return Span(self.stop, max(self.walk_stop, self.stop + self.walk_window.size + self.walk_window.part))


@dataclass(frozen=True, slots=True)
class Waiter:
    """A reader that waits for the byte at `offset`, since a time of the monotonic clock."""

    cursor: ReaderCursor
    offset: int
    since: float
