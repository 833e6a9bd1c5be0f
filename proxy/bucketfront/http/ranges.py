"""Byte ranges (RFC 9110 section 14.1.2): a Range header, resolved against a size or before it is known.

Every function here is total, and linear in the header's length but for sorting at most MAX_RANGES spans (I22).
Offsets saturate at 2^63-1, the largest that an object or a file can have.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

MAX_HEADER_CHARS = 1000
MAX_RANGES = 100
MAX_OFFSET = 2**63 - 1
PART_OVERHEAD_BYTES = 80
"""Bytes that a part of a multipart answer costs beyond its content, as RFC 9110 section 15.3.7.2 puts it.

A constant and not the framing's true length, which is more with a long type or boundary: which bytes are read then
depends on the Range alone.
"""

_OWS = " \t"


class Unsatisfiable(Enum):
    """A well-formed set of ranges of which none overlaps the representation: 416."""

    UNSATISFIABLE = "unsatisfiable"


IGNORED: Final = None
UNSATISFIABLE: Final[Literal[Unsatisfiable.UNSATISFIABLE]] = Unsatisfiable.UNSATISFIABLE


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """In bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class FromTo:
    """`a-b` or `a-`: from `start` up to, not including, `stop`; to the end where that is None.

    `start` is at most 2^63-1, `stop` at most 2^63.
    """

    start: int
    stop: int | None = None

    def within(self, size: int) -> Span | None:
        """The bytes of it that a representation of `size` bytes has; None if it has none of them."""
        if self.start >= size:
            return None
        return Span(self.start, size if self.stop is None else min(self.stop, size))


@dataclass(frozen=True, slots=True)
class Suffix:
    """`-n`: the last `length` bytes, or all of a shorter representation."""

    length: int

    def within(self, size: int) -> Span | None:
        """The bytes of it that a representation of `size` bytes has; None if it has none of them.

        The RFC calls `-n` with n > 0 satisfiable even where the representation is empty, but no Content-Range
        can say "the last 0 of 0 bytes". S3 answers 416 there, and so do we.
        """
        if self.length == 0 or size == 0:
            return None
        return Span(max(0, size - self.length), size)


Requested = FromTo | Suffix
Ranges = tuple[Span, ...] | Literal[Unsatisfiable.UNSATISFIABLE] | None


def parse(header: str, size: int) -> Ranges:
    """The ranges that a Range header asks of a representation of `size` bytes, in the order asked for.

    IGNORED (None): no bytes ranges, or invalid, or too long, or too many: the header counts as absent.
    UNSATISFIABLE: valid, but nothing of it exists. Else one or more spans within [0, size), none of them
    empty; the ranges of a set that cannot be satisfied are left out.
    """
    asked = _range_set(header)
    if asked is None:
        return IGNORED
    spans = tuple(span for one in asked if (span := one.within(size)) is not None)
    return spans or UNSATISFIABLE


def coalesce(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """The same bytes in as few spans as are worth sending (RFC 9110 section 15.3.7.2): no byte is in two of them.

    Spans that overlap, touch, or leave a gap of less than PART_OVERHEAD_BYTES bytes become one, gap included. It takes
    the place of the first of them in `spans`, so the order asked for is kept.
    """
    merged: list[tuple[int, Span]] = []
    for place, span in sorted(enumerate(spans), key=lambda asked: asked[1].start):
        if merged and span.start - merged[-1][1].stop < PART_OVERHEAD_BYTES:
            first, before = merged[-1]
            joined = before if span.stop <= before.stop else Span(before.start, span.stop)
            merged[-1] = min(first, place), joined
        else:
            merged.append((place, span))
    return tuple(span for _, span in sorted(merged, key=lambda part: part[0]))


def requested(header: str | None) -> Requested | None:
    """What a Range header asks for before the size is known, to decide what to ask the origin for first.

    Of a set of several ranges it is the first one. None: no header, or one that counts as absent.
    """
    asked = None if header is None else _range_set(header)
    return None if asked is None else asked[0]


def _range_set(header: str) -> tuple[Requested, ...] | None:
    """RFC 9110 section 14.1.1: one invalid range-spec makes the whole set invalid."""
    if len(header) > MAX_HEADER_CHARS:
        return None
    unit, _, specs = header.strip(_OWS).partition("=")
    if unit.lower() != "bytes":
        return None
    asked: list[Requested] = []
    for spec in _elements(specs):
        one = _range_spec(spec)
        if one is None or len(asked) == MAX_RANGES:
            return None
        asked.append(one)
    return tuple(asked) or None


def _elements(specs: str) -> Iterator[str]:
    """RFC 9110 section 5.6.1.2: whitespace around commas, and empty elements, which count for nothing."""
    first, *others = specs.split(",")
    # Whitespace between the "=" and the first range is not around a comma.
    for spec in (first.rstrip(_OWS), *(other.strip(_OWS) for other in others)):
        if spec:
            yield spec


def _range_spec(spec: str) -> Requested | None:
    """`a-b`, `a-` or `-n`. None if it is invalid."""
    first, dash, last = spec.partition("-")
    digits = first + last
    if not dash or not digits.isascii() or not digits.isdigit():
        return None
    # A number has at most MAX_HEADER_CHARS digits: exact arithmetic is cheap, only the result saturates.
    if not first:
        return Suffix(min(int(last), MAX_OFFSET))
    start = int(first)
    if not last:
        return FromTo(min(start, MAX_OFFSET))
    stop = int(last) + 1
    return FromTo(min(start, MAX_OFFSET), min(stop, MAX_OFFSET + 1)) if start < stop else None
