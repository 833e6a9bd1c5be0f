"""Which parts of an object to fetch next for a reader. Pure.

Theory of operation
-------------------
`Claims` has the blocks that need no part fetch: those that are present or being fetched. `wanted_parts` divides the
others that a reader needs soon into parts, in the order in which the reader needs them: first those that begin within
its window, then those behind its range, for the walk that it is part of. A part of the range may continue behind the
range's end, so that ranges shorter than a part still cost one request a part. `admitted_parts` leaves out what
read-ahead has no `Room` for. The part that the reader waits for is no read-ahead, and needs no room.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bucketfront.cache.fetch.reader_cursor import ReaderCursor
from bucketfront.cache.storage import blocks
from bucketfront.http.ranges import Span


@dataclass(frozen=True, slots=True)
class Claims:
    """The blocks of one object that are `claimed`: present or being fetched. `charged` ones have their space."""

    size: int
    block_size: int
    claimed: int
    charged: int

    def missing(self, span: Span) -> Iterator[range]:
        """Yield the runs of blocks of `span` that are not claimed."""
        return blocks.missing(self.claimed, blocks.covering(span, self.block_size))

    def missing_parts(self, span: Span, length: int) -> Iterator[range]:
        """Yield the blocks of `span` that are not claimed, as parts of `length` bytes. The last may be half longer."""
        for run in self.missing(span):
            yield from _parts(run, length // self.block_size, takes_rest=True)

    def allocated(self, run: range) -> int:
        """Return the bytes that these blocks will take on the disk beyond those charged."""
        return blocks.allocated(blocks.mask(run) & ~self.charged, self.size, self.block_size)

    def span_of(self, run: range) -> Span:
        """Return the bytes of these blocks."""
        return blocks.span_of(run, self.size, self.block_size)


@dataclass(frozen=True, slots=True)
class Room:
    """How many more part fetches read-ahead may start now, and how many bytes they may take."""

    parts: int
    count: int

    def admits(self, count: int) -> bool:
        """Return whether read-ahead may start a part that takes so many bytes."""
        return self.parts > 0 and count <= self.count

    def without(self, span: Span) -> "Room":
        """Return the room that is left beside a part fetch of this span."""
        return Room(self.parts - 1, self.count - blocks.rounded(span.length))


def wanted_parts(cursor: ReaderCursor, claims: Claims) -> list[range]:
    """Return the parts that may be fetched for this reader now, in the order in which it needs them."""
    window, ahead = cursor.window, cursor.ahead
    reaches_end = ahead.stop == cursor.stop
    stop = min(claims.size, max(ahead.stop, cursor.ahead_of_walk.stop)) if reaches_end else ahead.stop
    found: list[range] = []
    for run in claims.missing(Span(ahead.start, stop)):
        for part in _parts(run, window.part // claims.block_size, takes_rest=reaches_end):
            begin = part.start * claims.block_size
            if begin >= cursor.stop:
                return found + _parts_of_walk(cursor, claims, Span(begin, stop))
            if begin >= ahead.start + window.size:
                return found
            found.append(part)
    return found


def _parts_of_walk(cursor: ReaderCursor, claims: Claims, span: Span) -> list[range]:
    """Return the parts behind the reader's range, each of full length, that begin within the window of its walk."""
    count = cursor.walk_window.part // claims.block_size
    found: list[range] = []
    if not count:
        return found
    for run in claims.missing(span):
        for part in _parts(run, count, takes_rest=False):
            if part.start * claims.block_size >= cursor.stop + cursor.walk_window.size:
                return found
            if len(part) == count or part.stop * claims.block_size >= claims.size:
                found.append(part)
    return found


def admitted_parts(wanted: list[range], cursor: ReaderCursor, claims: Claims, room: Room) -> list[range]:
    """Return the wanted parts up to the first one that read-ahead has no room for."""
    awaited = cursor.offset // claims.block_size if cursor.is_waiting else None
    for number, run in enumerate(wanted):
        if run.start != awaited and not room.admits(claims.allocated(run)):
            return wanted[:number]
        room = room.without(claims.span_of(run))
    return wanted


def _parts(run: range, count: int, *, takes_rest: bool) -> Iterator[range]:
    """Yield a run of blocks as parts of `count` blocks.

    `takes_rest`: the last part may be half longer, in place of a short one behind it.
    """
    count = max(1, count)
    longest = count + count // 2 if takes_rest else count
    start = run.start
    while start < run.stop:
        stop = run.stop if run.stop - start <= longest else start + count
        yield range(start, stop)
        start = stop
