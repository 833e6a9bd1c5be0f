"""Where the readers of a fill are, and what they wait for. Values without I/O."""

from dataclasses import dataclass

from bucketfront.cache.fetch.read_ahead import NOTHING, Window
from bucketfront.http.ranges import Span


@dataclass(eq=False, slots=True)
class ReaderCursor:
    """The position of one reader: at `offset`, on its way to `stop`. `window` is its read-ahead."""

    offset: int
    stop: int
    window: Window
    start: int  # where it began
    is_eager: bool = True  # see `ReadAhead.window`
    read: int = 0  # bytes
    is_waiting: bool = False
    max_parts: int = 1  # part fetches of the entry up to which this reader's read-ahead may start another
    is_background: bool = False  # stands for a fill that continues without a reader
    is_served: bool = False  # all of its bytes are in the file
    walk_window: Window = NOTHING  # what to fetch behind `stop`, for the walk that the reader is part of
    is_parallel: bool = False  # other ranges of that walk are being read, see `walk`
    names_end: bool = False  # its client sent a range up to the object's end, with that end

    @property
    def ahead(self) -> Span:
        """Return the span of the reader's own range that may be fetched for it now.

        A part begins within the window and may end beyond it. Otherwise the window's edge would make parts small.
        """
        return Span(self.offset, min(self.stop, self.offset + self.window.size + self.window.part))

    @property
    def ahead_of_walk(self) -> Span:
        """Return the span behind `stop` that may be fetched for the reader's walk. It may lie beyond the object."""
        return Span(self.stop, self.stop + self.walk_window.size + self.walk_window.part)


@dataclass(frozen=True, slots=True)
class Waiter:
    """A reader that waits for the byte at `offset`, since a time of the monotonic clock.

    `splits`: it may split the part that will bring the byte.
    """

    offset: int
    since: float
    splits: bool
