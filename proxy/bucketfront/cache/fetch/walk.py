"""Ranges that continue each other. Pure.

A download tool requests an object in ranges of its own, side by side or one after the other, and so do readers of file
formats. Each request alone looks like the only one. Together they walk through the object, and the length of the walk
shows how much of the rest it will want.
"""

from dataclasses import dataclass, field

from bucketfront.http.ranges import Span

MAX_STRETCHES = 64  # remembered, of one object
GAP_SHARE = 5  # one byte in so many is not requested yet, because ranges that are read side by side come in any order


@dataclass(frozen=True, slots=True)
class Walk:
    """The place of a range in its walk: `length` bytes were requested without a gap up to it, and it ends at `stop`."""

    length: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Ranges that are neighbours. `requested` is less than the length if there are bytes between them."""

    start: int
    stop: int
    requested: int


@dataclass(slots=True)
class Walks:
    """Which bytes of one object were requested by ranges with an end. Ranges less than `gap` apart are neighbours."""

    gap: int
    _stretches: list[_Stretch] = field(default_factory=list)  # they have no neighbours; the latest one last

    def add(self, span: Span) -> None:
        """Note a range."""
        joined = [one for one in self._stretches if self._touch(span, one)]
        known = sum(max(0, min(span.stop, one.stop) - max(span.start, one.start)) for one in joined)
        whole = _Stretch(
            min([span.start, *(one.start for one in joined)]),
            max([span.stop, *(one.stop for one in joined)]),
            sum(one.requested for one in joined) + span.length - known,
        )
        self._stretches = [one for one in self._stretches if one not in joined][1 - MAX_STRETCHES :]
        self._stretches.append(whole)

    def of(self, span: Span) -> Walk:
        """Return the place of a range that was added. One that was forgotten is a walk of its own."""
        for one in reversed(self._stretches):
            if one.start <= span.start and span.stop <= one.stop:
                before = min(span.start - one.start, one.requested - span.length)
                return Walk(max(0, before), one.stop)
        return Walk(0, span.stop)

    @property
    def are_of_download(self) -> bool:
        """Return whether the ranges leave hardly a gap from the object's start on, as those of a download do.

        Readers that an index leads to their places request ranges that lie apart.
        """
        stop = max((one.stop for one in self._stretches), default=0)
        gaps = stop - sum(one.requested for one in self._stretches)
        return any(not one.start for one in self._stretches) and gaps <= stop // GAP_SHARE

    def are_neighbours(self, one: Span, other: Span) -> bool:
        """Return whether one range begins where the other ends."""
        return 0 <= one.start - other.stop < self.gap or 0 <= other.start - one.stop < self.gap

    def _touch(self, span: Span, stretch: _Stretch) -> bool:
        return span.start < stretch.stop + self.gap and stretch.start < span.stop + self.gap
