"""Which parts of an object to fetch next for a reader. Pure.

Theory of operation
-------------------
`Claims` has the blocks that need no part fetch: those that are present or being fetched. `wanted_parts` divides the
others that a reader needs soon into parts, in the order in which the reader needs them: first those that begin within
its window, then those behind its range, for the walk that it is part of. `admitted_parts` leaves out what read-ahead
has no `Room` for. The part that the reader waits for is no read-ahead, and needs no room.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bucketfront.cache.fetch.read_ahead import Window
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

    def missing_parts(self, span: Span, length: int, *, takes_rest: bool) -> Iterator[range]:
        """Yield the blocks of `span` that are not claimed, as runs of at most `length` bytes.

        `takes_rest`: the last part of a run may be half longer, in place of a short one behind it.
        """
        count = max(1, length // self.block_size)
        longest = count + count // 2 if takes_rest else count
        for run in self.missing(span):
            start = run.start
            while start < run.stop:
                stop = run.stop if run.stop - start <= longest else start + count
                yield range(start, stop)
                start = stop

    def allocated(self, run: range) -> int:
        """Return the bytes that these blocks will take on the disk beyond those charged."""
        return blocks.allocated(blocks.mask(run) & ~self.charged, self.size, self.block_size)

    def span_of(self, run: range) -> Span:
        """Return the bytes of these blocks."""
        return blocks.span_of(run, self.size, self.block_size)

    def with_run(self, run: range) -> "Claims":
        """Return the claims once these blocks are being fetched as well."""
        return Claims(self.size, self.block_size, self.claimed | blocks.mask(run), self.charged)


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
    ahead = cursor.ahead
    reaches_end = ahead.stop == cursor.stop
    found, is_all = _within(cursor.window, ahead, claims, takes_rest=reaches_end)
    if not is_all or not reaches_end or not cursor.walk_window.part:
        return found
    for run in found:
        claims = claims.with_run(run)
    walk = cursor.ahead_of_walk
    behind, _ = _within(cursor.walk_window, Span(walk.start, min(walk.stop, claims.size)), claims, takes_rest=False)
    return found + behind


def admitted_parts(wanted: list[range], cursor: ReaderCursor, claims: Claims, room: Room) -> list[range]:
    """Return the wanted parts up to the first one that read-ahead has no room for."""
    awaited = cursor.offset // claims.block_size if cursor.is_waiting else None
    for number, run in enumerate(wanted):
        if run.start != awaited and not room.admits(claims.allocated(run)):
            return wanted[:number]
        room = room.without(claims.span_of(run))
    return wanted


def _within(window: Window, span: Span, claims: Claims, *, takes_rest: bool) -> tuple[list[range], bool]:
    """Return the parts of `span` that begin within the window, and whether no others are left."""
    found: list[range] = []
    for run in claims.missing_parts(span, window.part, takes_rest=takes_rest):
        if run.start * claims.block_size >= span.start + window.size:
            return found, False
        found.append(run)
    return found, True
