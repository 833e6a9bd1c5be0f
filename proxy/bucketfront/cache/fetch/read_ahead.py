"""How far ahead of a reader to fetch, and in parts of which size. Pure arithmetic, all in bytes.

A reader is eager if it wants a whole object or a short range with a known end. It will read all of that, so it gets
large parts, which need few requests. An open-ended range is careful: players send `bytes=N-` at every seek and drop it
after a few MiB. What they leave unread must stay small beside what they read. A careful reader that reads on must
still have several parts under way.
"""

from dataclasses import dataclass

from bucketfront.http.ranges import Span

FIRST_PART_BYTES = 512 << 10  # of a careful reader: one round trip, and most heads and indexes fit in
WINDOW_SHARE = 8  # a careful reader's window is one part in so many of what it has read
PARTS_AHEAD = 3  # in a careful reader's window, beside the part it is in


@dataclass(frozen=True, slots=True)
class Window:
    """What to fetch for a reader: parts of `part` bytes that begin less than `size` bytes ahead of it."""

    size: int
    part: int


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """The rules for one configuration. `part_size` is a multiple of `block_size`."""

    block_size: int
    part_size: int
    parallel_parts: int

    @property
    def first(self) -> int:
        """Return the size of the first part of a range that may be dropped at any time."""
        return max(self.block_size, self._whole_blocks(min(FIRST_PART_BYTES, self.part_size // 4)))

    def is_short(self, span: Span, size: int) -> bool:
        """Return whether the span is so short that its client will read all of it, in at most two parts.

        A span up to the object's end may come from an open-ended range, so it has to be shorter.
        """
        return span.length <= (self.part_size if span.stop < size else self.part_size // 4)

    def window(self, read: int, *, is_eager: bool) -> Window:
        """Return the window of a reader that has read so many bytes in sequence.

        Eager: one part at first, then twice what was read. Careful: beyond the first blocks, a reader that leaves has
        left unread at most 1/WINDOW_SHARE + 1/(WINDOW_SHARE * PARTS_AHEAD), a sixth, of what it read.
        """
        limit = self.part_size * self.parallel_parts
        if is_eager:
            return Window(max(self.part_size, min(2 * read, limit)), self.part_size)
        size = max(self.block_size, min(read // WINDOW_SHARE, limit))
        if not read:
            return Window(size, self.first)
        return Window(size, max(self.block_size, min(self._whole_blocks(size // PARTS_AHEAD), self.part_size)))

    def _whole_blocks(self, count: int) -> int:
        return count // self.block_size * self.block_size
