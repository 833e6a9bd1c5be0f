"""How far ahead of a reader to fetch, and in parts of which size. Pure arithmetic, all in bytes.

A reader is eager if it wants a whole object or a range with an end. It will probably read all of that, so it gets large
parts, which need few requests. An open-ended range is careful: players send `bytes=N-` at every seek and drop it after
a few MiB. What they leave unread must stay small beside what they read. A careful reader that reads on must still have
several parts under way.

Ranges that continue each other are a walk (see `walk`). Bytes behind the end of such a range are fetched as well, in
proportion to the walk.
"""

from dataclasses import dataclass

from bucketfront.cache.fetch.walk import Walk
from bucketfront.http.ranges import Demand, Span

FIRST_PART_BYTES = 512 << 10  # of a careful reader: one round trip, and most heads and indexes fit in
SMALL_PART_BYTES = 256 << 10  # of a careful reader that has read little
WINDOW_SHARE = 8  # a careful reader's window is one part in so many of what it has read
EAGER_SHARE = 4  # an eager reader gets one part in so many of what it has read, because downloads are stopped too
REST_SHARE = 8  # an object is fetched whole without a reader if it lacks at most one part in so many of what it has
PARTS_AHEAD = 3  # in a careful reader's window, beside the part it is in
WALK_SHARE = 10  # a walk gets one part in so many of its length: players may use ranges with ends too, and seek
SHORT_WALK_BYTES = 256 << 10  # so many in any case, once twice as many were read
PARALLEL_WALK_SHARE = 4  # players read nothing side by side, so this is a download


@dataclass(frozen=True, slots=True)
class Window:
    """What to fetch for a reader: parts of `part` bytes that begin less than `size` bytes ahead of it."""

    size: int
    part: int


NOTHING = Window(0, 0)


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """The rules for one configuration. `part_size` is a multiple of `block_size`.

    `most` is how much is fetched ahead of a reader at most, apart from two parts of an eager one.
    """

    block_size: int
    part_size: int
    parallel_parts: int
    most: int

    @property
    def limit(self) -> int:
        """Return the largest size of a window together with the part that begins at its edge."""
        return max(2 * self.part_size, min(self.most, self.part_size * (self.parallel_parts + 1)))

    @property
    def first(self) -> int:
        """Return the size of the first part of a range that may be dropped at any time."""
        return max(self.block_size, self._whole_blocks(min(FIRST_PART_BYTES, self.part_size // 4)))

    @property
    def longest(self) -> int:
        """Return the size up to which a range with an end is one part. A short rest would cost a round trip."""
        return self.part_size + self._whole_blocks(self.part_size // 2)

    def is_eager(self, demand: Demand, span: Span, size: int, *, keeps_ends: bool) -> bool:
        """Return whether the client will read all of the span.

        `keeps_ends` is false if clients of this object drop ranges up to the object's end although they name it.
        Such a range is as good as open-ended. A short one is the index at the end of a file, and is read whole.
        """
        may_be_dropped = demand is Demand.OPEN or (demand is Demand.BOUNDED and not keeps_ends)
        return not (may_be_dropped and span.stop == size and span.length > self.part_size // 4)

    def walk_window(self, walk: Walk) -> Window:
        """Return what to fetch behind the end of a range for the walk that it is part of.

        Ranges that are read side by side come in any order, so only whole parts are worth it. Small ones would divide
        the ranges that follow.
        """
        if walk.is_parallel:
            size = min(walk.length // PARALLEL_WALK_SHARE, self.limit) - self.part_size
            return Window(size, self.part_size) if size >= self.part_size else NOTHING
        most = min(max(walk.length // WALK_SHARE, min(walk.length // 2, SHORT_WALK_BYTES)), self.limit)
        if most < self.block_size:
            return NOTHING
        part = max(self.block_size, min(self._whole_blocks(most // 2), self.part_size))
        return Window(max(self.block_size, most - part), part)

    def window(self, read: int, *, is_eager: bool) -> Window:
        """Return the window of a reader that has read so many bytes in sequence.

        A reader that leaves has left unread at most a quarter of what it read, or two parts, if it was eager. Beyond
        the first blocks, a careful one has left at most 1/WINDOW_SHARE + 1/(WINDOW_SHARE * PARTS_AHEAD), a sixth.
        """
        if is_eager:
            return Window(max(self.part_size, min(read // EAGER_SHARE, self.limit) - self.part_size), self.part_size)
        small = max(self.block_size, self._whole_blocks(min(SMALL_PART_BYTES, self.part_size // 8)))
        size = max(small, min(read // WINDOW_SHARE, self.limit - self.part_size))
        if not read:
            return Window(size, self.first)
        return Window(size, max(small, min(self._whole_blocks(size // PARTS_AHEAD), self.part_size)))

    def is_worth_the_rest(self, present: int, missing: int) -> bool:
        """Return whether to fetch the bytes that an object lacks although no reader wants them."""
        return missing <= min(present // REST_SHARE, self.most)

    def _whole_blocks(self, count: int) -> int:
        return count // self.block_size * self.block_size
