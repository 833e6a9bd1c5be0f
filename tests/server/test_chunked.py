"""The end of a chunked body (RFC 9112 section 7.1)."""

from rows import each_row
from wire import chunked

from bucketfront.server.http1.chunked import MAX_LINE_BYTES, ChunkedFraming

BODY = chunked(b"\r\n0\r\n\r\n", b"a" * 300)


def taken(data: bytes, step: int) -> tuple[int, ChunkedFraming]:
    """Return how many bytes of `data`, which arrives in pieces of `step` bytes, belong to the body."""
    framing, at = ChunkedFraming(), 0
    while at < len(data) and not (framing.is_over or framing.is_broken):
        piece = data[at : at + step]
        at += framing.end_of(piece, 0)
    return at, framing


@each_row("step", [1, 2, 3, 7, 1000])
def test_end(step: int) -> None:
    """The body ends behind its last chunk, however the segments arrive."""
    for body in (BODY, chunked(), b"1;a=b\r\nx\r\n000;z\r\n\r\n", b"00A\r\n0123456789\r\n0\r\n\r\n"):
        end, framing = taken(body + b"GET / HTTP/1.1\r\n\r\n", step)
        assert (end, framing.is_over, framing.has_trailers, framing.is_broken) == (len(body), True, False, False)


@each_row("step", [1, 5, 1000])
def test_trailers(step: int) -> None:
    """Trailers belong to the body."""
    body = b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n"
    end, framing = taken(body + b"GET", step)
    assert (end, framing.is_over, framing.has_trailers) == (len(body), True, True)


@each_row("step", [1, 1000])
@each_row(
    "data",
    [b"5\n", b"\r\n", b"g\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1 \r\n", b" 1\r\n", b"1" * (MAX_LINE_BYTES + 1)],
)
def test_broken(data: bytes, step: int) -> None:
    """A malformed or endless line breaks the body, and no byte behind it counts as a request."""
    _, framing = taken(data + b"0\r\n\r\n", step)
    assert (framing.is_broken, framing.is_over) == (True, False)


def test_an_open_body() -> None:
    """A body without its end takes all bytes."""
    for end in range(len(BODY)):
        assert taken(BODY[:end], 1000)[0] == end
        assert not taken(BODY[:end], 1000)[1].is_over
