"""Where an MP4 keeps its index: ISO/IEC 14496-12 section 4.2, boxes; section 8.2.1, `moov`.

A player can show nothing before it has the `moov` box. Many writers put that box behind the media data (`mdat`), so a
player reads the head, then the tail, and only then the media data.
"""

from bucketfront.http.ranges import Span

HEAD_BYTES = 128  # of the object are enough, because `mdat` comes after `ftyp` and little else
MAX_INDEX_BYTES = 16 << 20  # bounds what one head may cause to be fetched

_TYPE = 8  # bytes of a box's size and type
_LARGE = 16  # bytes of a header with a 64-bit size


def index_span(head: bytes, size: int) -> Span | None:
    """Return the span behind the media data of an object of `size` bytes, at most MAX_INDEX_BYTES of it.

    `head` has the object's first bytes, which may be any. The span lies within the object. Returns None if the index
    comes first, if `head` is too short to decide, or if the object is not a sound MP4.
    """
    if head[4:_TYPE] != b"ftyp":
        return None
    at = 0
    while (box := _box(head, at, size)) is not None:
        kind, stop = box
        if kind in (b"moov", b"moof"):
            return None
        if kind == b"mdat":
            return Span(stop, min(size, stop + MAX_INDEX_BYTES)) if stop < size else None
        at = stop
    return None


def _box(head: bytes, at: int, size: int) -> tuple[bytes, int] | None:
    """Return the type and the end of the box at `at`, or None if its header is not in `head` or is not valid."""
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
