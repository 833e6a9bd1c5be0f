"""How far ahead of a reader to fetch, in parts of which size. Pure arithmetic; everything is in bytes.

Whoever takes an object whole, or a short range with a known end, wants all of it: large parts, few requests. An
open-ended range says nothing: players ask for `bytes=N-` at every seek and drop it after a few MiB. What they leave
behind is to stay small beside what they read, yet whoever reads on is to have several parts under way.
"""

from dataclasses import dataclass

from bucketfront.http.ranges import Span

FIRST = 512 << 10  # bytes of a careful reader's first part: one round trip, and most heads and indexes fit in
SHARE = 8  # a careful reader's window is this part of what it has read
AHEAD = 3  # parts in a careful reader's window, beside the one it is in


@dataclass(frozen=True, slots=True)
class Window:
    """Parts of `part` bytes, whole blocks, which begin less than `window` bytes ahead of the reader are fetched."""

    window: int
    part: int


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """`part_size` is a multiple of `block_size`."""

    block_size: int
    part_size: int
    parallel_parts: int

    @property
    def first(self) -> int:
        """Bytes to ask for first where a range may be dropped at any time."""
        return max(self.block_size, self._whole_blocks(min(FIRST, self.part_size // 4)))

    def is_short(self, span: Span, size: int) -> bool:
        """All of it will be read, in one part or two: its end is what the client wants.

        Whether a range up to the object's end was open-ended cannot be told, so it has to be shorter.
        """
        return span.length <= (self.part_size if span.stop < size else self.part_size // 4)

    def pace(self, read: int, *, is_eager: bool) -> Window:
        """Of a reader that has read so many bytes in sequence.

        Eager: a part at once, and twice what was read. Careful: beyond the first blocks, a reader that leaves has
        left behind at most 1/SHARE + 1/(SHARE * AHEAD), a sixth, of what it read.
        """
        limit = self.part_size * self.parallel_parts
        if is_eager:
            return Window(max(self.part_size, min(2 * read, limit)), self.part_size)
        window = max(self.block_size, min(read // SHARE, limit))
        if not read:
            return Window(window, self.first)
        return Window(window, max(self.block_size, min(self._whole_blocks(window // AHEAD), self.part_size)))

    def _whole_blocks(self, count: int) -> int:
        return count // self.block_size * self.block_size
