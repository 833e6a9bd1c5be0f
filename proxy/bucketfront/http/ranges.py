"""Parse byte ranges (RFC 9110 section 14.1.2): resolve a Range header against a size, or before the size is known.

Every function is total, and linear in the header's length except that it sorts at most MAX_RANGES spans
(docs/invariants.md#cost-of-a-request). Offsets saturate at 2^63-1, the largest that an object or a file can have.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

MAX_HEADER_CHARS = 1000  # MAX_RANGES short ranges fit
MAX_RANGES = 100  # players send one, PDF viewers a few
MAX_OFFSET = 2**63 - 1
PART_OVERHEAD_BYTES = 80
"""The bytes that a part of a multipart response costs beyond its content (RFC 9110 section 15.3.7.2).

It is a constant, so that the Range alone decides which bytes are read. The true length of the framing grows with the
type and the boundary.
"""

_OWS = " \t"


class Unsatisfiable(Enum):
    """The result for a well-formed set of ranges that all lie outside the representation. The response is 416."""

    UNSATISFIABLE = "unsatisfiable"


IGNORED: Final = None
UNSATISFIABLE: Final[Literal[Unsatisfiable.UNSATISFIABLE]] = Unsatisfiable.UNSATISFIABLE


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` up to, but not including, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Return the number of bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class FromTo:
    """The range `a-b` or `a-`: from `start` up to, but not including, `stop`, or to the end if `stop` is None.

    `start` is at most 2^63-1, `stop` at most 2^63.
    """

    start: int
    stop: int | None = None

    def within(self, size: int) -> Span | None:
        """Return the span of it within a representation of `size` bytes, or None if they do not overlap."""
        if self.start >= size:
            return None
        return Span(self.start, size if self.stop is None else min(self.stop, size))


@dataclass(frozen=True, slots=True)
class Suffix:
    """The range `-n`: the last `length` bytes, or all of a shorter representation."""

    length: int

    def within(self, size: int) -> Span | None:
        """Return the span of it within a representation of `size` bytes, or None if they do not overlap.

        In the RFC `-n` with n > 0 is satisfiable even if the representation is empty, but no Content-Range can describe
        the last 0 of 0 bytes. S3 responds with 416, and so does bucketfront.
        """
        if self.length == 0 or size == 0:
            return None
        return Span(max(0, size - self.length), size)


Requested = FromTo | Suffix
Ranges = tuple[Span, ...] | Literal[Unsatisfiable.UNSATISFIABLE] | None


def parse(header: str, size: int) -> Ranges:
    """Return the spans that a Range header requests of a representation of `size` bytes, in the requested order.

    They lie within [0, size) and are not empty. Ranges of a set that cannot be satisfied are left out.

    Returns UNSATISFIABLE if the header is valid but no range overlaps the representation. Returns IGNORED (None) if the
    unit is not bytes, or the header is invalid, too long, or has too many ranges. It then counts as absent.
    """
    specs = _range_set(header)
    if specs is None:
        return IGNORED
    spans = tuple(span for one in specs if (span := one.within(size)) is not None)
    return spans or UNSATISFIABLE


def coalesce(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """Return the same bytes in as few spans as pay off (RFC 9110 section 15.3.7.2). The spans do not overlap.

    Spans that overlap, touch, or leave a gap of less than PART_OVERHEAD_BYTES become one, with the gap. It takes the
    place of the first of them in `spans`, so that the requested order is kept.
    """
    merged: list[tuple[int, Span]] = []
    for place, span in sorted(enumerate(spans), key=lambda numbered: numbered[1].start):
        if merged and span.start - merged[-1][1].stop < PART_OVERHEAD_BYTES:
            first, before = merged[-1]
            joined = before if span.stop <= before.stop else Span(before.start, span.stop)
            merged[-1] = min(first, place), joined
        else:
            merged.append((place, span))
    return tuple(span for _, span in sorted(merged, key=lambda part: part[0]))


def requested(header: str | None) -> Requested | None:
    """Return the first range of a Range header before the size is known, to choose the first origin request.

    Returns None if there is no header, or one that counts as absent.
    """
    specs = None if header is None else _range_set(header)
    return None if specs is None else specs[0]


class Demand(Enum):
    """What a client asks for, which shows whether it will read all of it."""

    WHOLE = "whole"  # the object
    BOUNDED = "bounded"  # ranges with an end
    OPEN = "open"  # a range without an end, which players send at every seek and drop after a few MiB


def demand(header: str | None) -> Demand:
    """Return the demand of a response of status 206 to a request with this Range. Without one it is WHOLE."""
    specs = None if header is None else _range_set(header)
    if specs is None:
        return Demand.WHOLE
    is_open = len(specs) == 1 and isinstance(specs[0], FromTo) and specs[0].stop is None
    return Demand.OPEN if is_open else Demand.BOUNDED


def field_value(part: Requested) -> str:
    """Return the value of Range that requests a part."""
    if isinstance(part, Suffix):
        return f"bytes=-{part.length}"
    return f"bytes={part.start}-" if part.stop is None else f"bytes={part.start}-{part.stop - 1}"


def _range_set(header: str) -> tuple[Requested, ...] | None:
    """Return the ranges of a set, or None if it is invalid.

    One invalid range-spec makes the whole set invalid (RFC 9110 section 14.1.1).
    """
    if len(header) > MAX_HEADER_CHARS:
        return None
    unit, _, specs = header.strip(_OWS).partition("=")
    if unit.lower() != "bytes":
        return None
    found: list[Requested] = []
    for spec in _elements(specs):
        one = _range_spec(spec)
        if one is None or len(found) == MAX_RANGES:
            return None
        found.append(one)
    return tuple(found) or None


def _elements(specs: str) -> Iterator[str]:
    """Yield the elements of a list, without whitespace around commas and empty elements (RFC 9110 section 5.6.1.2)."""
    first, *others = specs.split(",")
    # Whitespace between the "=" and the first range is an error.
    for spec in (first.rstrip(_OWS), *(other.strip(_OWS) for other in others)):
        if spec:
            yield spec


def _range_spec(spec: str) -> Requested | None:
    """Return the range `a-b`, `a-` or `-n`, or None if it is invalid."""
    first, dash, last = spec.partition("-")
    digits = first + last
    if not dash or not digits.isascii() or not digits.isdigit():
        return None
    # A number has at most MAX_HEADER_CHARS digits, so exact arithmetic is cheap. Only the result saturates.
    if not first:
        return Suffix(min(int(last), MAX_OFFSET))
    start = int(first)
    if not last:
        return FromTo(min(start, MAX_OFFSET))
    stop = int(last) + 1
    return FromTo(min(start, MAX_OFFSET), min(stop, MAX_OFFSET + 1)) if start < stop else None
