"""Where an MP4 keeps its index: ISO/IEC 14496-12 section 4.2, boxes; section 8.2.1, `moov`.

A player can show nothing before it has the `moov` box. Many writers put it behind the media data (`mdat`), so that a
player reads the head, then the tail, and only then what lies between.
"""

from bucketfront.http.ranges import Span

HEAD = 128  # bytes of the head that are enough: `mdat` comes after `ftyp` and little else
MAX_INDEX = 16 << 20  # bytes

_TYPE = 8  # bytes of a box's size and type
_LARGE = 16  # of a header with a 64-bit size


def index_span(head: bytes, size: int) -> Span | None:
    """What lies behind the media data of an object of `size` bytes that begins with `head`; MAX_INDEX bytes of it.

    None where the index comes first, where the head is too short to tell, and where this is no sound MP4. Total: any
    bytes give an answer, and the span lies within the object.
    """
    if head[4:_TYPE] != b"ftyp":
        return None
    at = 0
    while (box := _box(head, at, size)) is not None:
        kind, stop = box
        if kind in (b"moov", b"moof"):
            return None
        if kind == b"mdat":
            return Span(stop, min(size, stop + MAX_INDEX)) if stop < size else None
        at = stop
    return None


def _box(head: bytes, at: int, size: int) -> tuple[bytes, int] | None:
    """Type and end of the box at `at`; None where its header is not in `head`, or lies."""
    header = head[at : at + _LARGE]
    if len(header) < _TYPE:
        return None
    length, smallest = int.from_bytes(header[:4]), _TYPE
    if length == 1:
        if len(header) < _LARGE:
            return None
        length, smallest = int.from_bytes(header[_TYPE:]), _LARGE
    elif length == 0:
        length = size - at  # to the end of the file
    if length < smallest or at + length > size:
        return None
    return header[4:_TYPE], at + length
