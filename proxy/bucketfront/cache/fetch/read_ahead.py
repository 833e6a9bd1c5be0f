"""How far ahead of a reader to fetch, and in parts of which size. Pure arithmetic, all in bytes.

A reader is eager if it wants a whole object or a range with an end. It will probably read all of that, so it gets large
parts, which need few requests. An open-ended range is careful: players send `bytes=N-` at every seek and drop it after
a few MiB. What they leave unread must stay small beside what they read. The parts of a careful reader grow with what it
has read: fast while it is starved, which means that it waits for bytes, and slowly while it leaves bytes unread.

Ranges that continue each other are a walk (see `walk`). Bytes behind the end of such a range are fetched as well, in
proportion to the walk. If ranges lie apart, this is a reader of a file format, and an `AheadCredit` limits what it
leaves unused.
"""

from dataclasses import dataclass

from bucketfront.cache.fetch.walk import Walk
from bucketfront.http.ranges import Demand, Span

FIRST_PART_BYTES = 512 << 10  # of a careful reader: one round trip, and most heads and indexes fit in
SMALL_PART_BYTES = 256 << 10  # of a careful reader that has read little
EAGER_SHARE = 4  # an eager reader gets one part in so many of what it has read, because downloads are stopped too
STARVED_SHARE = 4  # so does a careful one that waits for bytes: it has taken all that was fetched ahead
STARVED_PART_SHARE = 4  # as a single part, because a download in smaller ones would be many requests
SATED_SHARE = 8  # a careful reader that does not wait gets one part in so many: players pause, and then seek
SATED_PART_SHARE = 12
REST_SHARE = 8  # an object is fetched whole without a reader if it lacks at most one part in so many of what it has
WALK_SHARE = 10  # a walk gets one part in so many of its length: players may use ranges with ends too, and seek
SHORT_WALK_BYTES = 256 << 10  # so many in any case, once twice as many were read
PARALLEL_WALK_SHARE = 2  # players read nothing side by side, so this is a download
LAST_RANGES = 2  # an open range behind a neighbour is the last one of a download if it is at most so many times as long


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

    def is_eager(self, demand: Demand, span: Span, size: int, walk: Walk, *, keeps_ends: bool) -> bool:
        """Return whether the client will read all of the span.

        `keeps_ends` is false if clients of this object drop ranges up to the object's end although they name it.
        Such a range is as good as open-ended, and so is a long one that begins in the middle and continues no walk:
        both are what players send at a seek. A short one is the index at the end of a file, and is read whole.
        """
        if demand is Demand.WHOLE or span.stop < size:
            return True
        if demand is Demand.OPEN or not keeps_ends:
            return span.length <= self.part_size // 4
        return not span.start or span.length <= self.part_size or span.length <= LAST_RANGES * walk.length

    def is_last(self, open_range: Span, neighbour: Span) -> bool:
        """Return whether a range without an end is the last one of a download in ranges, beside this neighbour."""
        return open_range.length <= LAST_RANGES * neighbour.length

    def walk_window(self, walk: Walk, *, is_parallel: bool) -> Window:
        """Return what to fetch behind the end of a range for the walk that it is part of.

        Ranges that are read side by side come in any order, so that only whole parts are worth a request of their own.
        Small ones would divide the ranges that follow. A window without size only makes the range's last part longer.
        """
        if is_parallel:
            most = self._whole_blocks(min(walk.length // PARALLEL_WALK_SHARE, self.limit))
            return Window(max(0, most - self.part_size), min(most, self.part_size))
        most = min(max(walk.length // WALK_SHARE, min(walk.length // 2, SHORT_WALK_BYTES)), self.limit)
        if most < self.block_size:
            return NOTHING
        part = max(self.block_size, min(self._whole_blocks(most // 2), self.part_size))
        return Window(max(self.block_size, most - part), part)

    def within(self, window: Window, most: int) -> Window:
        """Return a window of a walk, made smaller so that at most so many bytes are fetched behind its range."""
        part = min(window.part, self._whole_blocks(most))
        return Window(min(window.size, self._whole_blocks(most) - part), part) if part else NOTHING

    def window(self, read: int, *, is_eager: bool, is_starved: bool = True) -> Window:
        """Return the window of a reader that has read so many bytes in sequence.

        A reader that leaves has left unread at most a quarter of what it read, or two parts, if it was eager. A careful
        one has left at most 1/SATED_SHARE, or 1/STARVED_SHARE if it was starved, and one or two small parts.
        """
        if is_eager:
            return Window(max(self.part_size, min(read // EAGER_SHARE, self.limit) - self.part_size), self.part_size)
        small = max(self.block_size, self._whole_blocks(min(SMALL_PART_BYTES, self.part_size // 8)))
        if not read:
            return Window(small, self.first)
        share, part_share = (STARVED_SHARE, STARVED_PART_SHARE) if is_starved else (SATED_SHARE, SATED_PART_SHARE)
        most = min(read // share, self.limit)
        part = min(self._whole_blocks(read // part_share), self.part_size)
        if not is_starved:
            part = min(part, self._whole_blocks(most - small))  # the window has at least that much beside it
        part = max(small, part)
        return Window(max(small, most - part), part)

    def is_worth_the_rest(self, present: int, missing: int) -> bool:
        """Return whether to fetch the bytes that an object lacks although no reader wants them."""
        return missing <= min(present // REST_SHARE, self.most)

    def _whole_blocks(self, count: int) -> int:
        return count // self.block_size * self.block_size
