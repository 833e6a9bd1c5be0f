"""Where the index of an MP4 is, by its first bytes, for layouts that writers make (ISO/IEC 14496-12 section 4.2)."""

from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.cache.fetch.mp4 import HEAD_BYTES, MAX_INDEX_BYTES, index_span
from bucketfront.http.ranges import Span

GIB = 1 << 30


def box(kind: bytes, length: int, *, stated: int | None = None) -> bytes:
    """Return the beginning of a box of `length` bytes, with a 32-bit size. A small one is whole."""
    size = length if stated is None else stated
    return (size.to_bytes(4) + kind).ljust(min(length, 64), b"\1")


def large(kind: bytes, length: int) -> bytes:
    """Return such a beginning with a 64-bit size."""
    return (1).to_bytes(4) + kind + length.to_bytes(8)


FTYP = box(b"ftyp", 32)
FREE = box(b"free", 8)


@each_row(
    ("head", "size", "span"),
    [
        # ffmpeg without faststart: ftyp, free, mdat, moov
        (FTYP + FREE + box(b"mdat", 1000), 1500, Span(1040, 1500)),
        # ffmpeg beyond 4 GiB: mdat takes the place of free and has 64 bits
        (FTYP + large(b"mdat", 5 * GIB), 5 * GIB + 900, Span(5 * GIB + 32, 5 * GIB + 900)),
        # QuickTime: wide before mdat
        (box(b"ftyp", 20) + box(b"wide", 8) + box(b"mdat", 100), 200, Span(128, 200)),
        # an index larger than anybody's: the beginning of it
        (FTYP + box(b"mdat", 1000), GIB, Span(1032, 1032 + MAX_INDEX_BYTES)),
        # a box before mdat that is longer than the head, but for its end: not to be known
        (FTYP + box(b"uuid", 4000), GIB, None),
        # faststart
        (FTYP + box(b"moov", 4000), GIB, None),
        (FTYP + FREE + box(b"moov", 40) + box(b"mdat", 1000), 2000, None),
        # fragmented: the index came first, whatever it is called
        (FTYP + box(b"moof", 40) + box(b"mdat", 1000), 2000, None),
        # mdat up to the end of the file: nothing behind it
        (FTYP + box(b"mdat", 1000, stated=0), 2000, None),
        (FTYP + box(b"mdat", 968), 1000, None),
        # lies
        (FTYP + box(b"mdat", 2000), 1000, None),
        (FTYP + large(b"mdat", 1 << 63), 1000, None),
        (FTYP + large(b"mdat", 15), 1000, None),
        (FTYP + box(b"mdat", 64, stated=7), 1000, None),
        (FTYP + box(b"free", 64, stated=0) + box(b"mdat", 100), 1000, None),
        # truncated heads
        (FTYP + b"\0\0\1\0mda", 1000, None),
        (FTYP + large(b"mdat", 500)[:12], 1000, None),
        (FTYP, 1000, None),
        (b"", 1000, None),
        # no MP4
        (box(b"mdat", 100), 1000, None),
        (b"\x1aE\xdf\xa3" + bytes(100), 1000, None),
    ],
)
def test_layouts(head: bytes, size: int, span: Span | None) -> None:
    """The span behind `mdat` is returned if the index can only be there. Otherwise the result is None."""
    assert index_span(head[:HEAD_BYTES], size) == span


pieces = st.one_of(
    st.binary(max_size=24),
    st.builds(
        lambda kind, size: size.to_bytes(4) + kind,
        st.sampled_from([b"ftyp", b"free", b"mdat", b"moov", b"wide"]),
        st.integers(0, 64) | st.integers(0, 2**32 - 1),
    ),
    st.builds(large, st.sampled_from([b"mdat", b"free"]), st.integers(0, 2**64 - 1)),
)


@given(st.lists(pieces, max_size=12).map(b"".join), st.integers(0, 1 << 62), st.booleans())
def test_total(head: bytes, size: int, has_type: bool) -> None:
    """Any bytes give None, or a non-empty span of bounded length within the object."""
    span = index_span(FTYP + head if has_type else head, size)
    if span is not None:
        assert 0 < span.start < span.stop <= size
        assert span.length <= MAX_INDEX_BYTES


@given(st.integers(8, 1 << 31), st.integers(1, 1 << 30))
def test_what_is_behind_the_media_data(media: int, index: int) -> None:
    """For every sound file the span begins where `mdat` ends, and reaches to the end or its limit."""
    head = FTYP + box(b"mdat", media)
    end = len(FTYP) + media
    assert index_span(head, end + index) == Span(end, min(end + index, end + MAX_INDEX_BYTES))
