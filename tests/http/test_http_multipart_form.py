"""Forms of browsers and curl, and malformed ones (RFC 7578, RFC 2046 section 5.1)."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import multipart_form
from bucketfront.http.multipart_form import END, BadForm, Event, FormParser, Part

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
LINE = f"--{BOUNDARY}".encode()


def part(name: str, content: bytes, extra: str = "") -> bytes:
    return LINE + f'\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + LINE + b"--\r\n"


def read(body: bytes, step: int = 1 << 20) -> list[Event]:
    """All events, neighbouring pieces of content joined."""
    parser = FormParser(BOUNDARY)
    events: list[Event] = []
    for at in range(0, len(body), step):
        events += parser.feed(body[at : at + step])
    parser.close()
    joined: list[Event] = []
    for is_content, group in groupby(events, lambda event: isinstance(event, bytes)):
        found = list(group)
        joined += [b"".join(piece for piece in found if isinstance(piece, bytes))] if is_content else found
    return joined


@each_row("step", [1, 2, 3, 7, 64, 1 << 20])
def test_a_form(step: int) -> None:
    """Fields and files come out as they were, however the bytes arrive; what stands around the parts means nothing."""
    body = b"preamble\r\n" + form(
        part("key", b"a/b"),
        part("file", b"", '; filename="empty.txt"'),
        part("file", b"\r\n--almost\r\n" + LINE[:-1], '; filename="a b.bin"\r\nContent-Type: text/x'),
    )
    assert read(body + b"epilogue " + LINE, step) == [
        Part("key", None),
        b"a/b",
        END,
        Part("file", "empty.txt"),
        END,
        Part("file", "a b.bin", (("content-type", "text/x"),)),
        b"\r\n--almost\r\n" + LINE[:-1],
        END,
    ]


def test_a_part_without_content_and_without_its_line_break() -> None:
    """RFC 2046 `body-part`: the line break before the boundary may be the one that ends the headers."""
    body = LINE + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + LINE + b"--"
    assert read(body) == [Part("a", None), END]


@each_row(
    ("written", "filename"),
    [
        ('"a.txt"', "a.txt"),
        ('"a;b=c.txt"', "a;b=c.txt"),
        ("a.txt", "a.txt"),
        ('"a%22b%0D%0A.txt"', 'a"b\r\n.txt'),  # WHATWG
        ('"a\\"b\\\\c.txt"', 'a"b\\c.txt'),  # curl before 7.81
        ('"C:\\dir\\x.txt"', "C:\\dir\\x.txt"),
        ('"ü.txt"', "ü.txt"),
        ('""', ""),
        ("\"a.txt\"; filename*=UTF-8''b.txt", "a.txt"),  # RFC 7578 section 4.2: not to be used
    ],
)
def test_file_names(written: str, filename: str) -> None:
    """As the many kinds of clients write them."""
    assert read(form(part("f", b"", f"; filename={written}"))) == [Part("f", filename), END]


HEAD = b'\r\nContent-Disposition: form-data; name="a"'


@each_row(
    "body",
    [
        b"",
        b"no form at all",
        LINE + b"\r\n",
        form(part("a", b"x"))[: -len(LINE) - 4],  # no last boundary
        form(part("a", b"x"))[:-4],  # an incomplete last boundary
        LINE + b"x" + HEAD + b"\r\n\r\nx\r\n" + LINE + b"--",
        LINE + b" " * 70 + HEAD + b"\r\n\r\nx\r\n" + LINE + b"--",
        form(LINE + b"\r\n\r\nx\r\n"),
        form(LINE + b"\r\nContent-Type: text/plain\r\n\r\nx\r\n"),
        form(LINE + b"\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n"),
        form(LINE + b"\r\nContent-Disposition: form-data; filename=a\r\n\r\nx\r\n"),
        form(LINE + HEAD + b'; name="b"\r\n\r\nx\r\n'),
        form(LINE + HEAD + b'; filename="b\r\n\r\nx\r\n'),
        form(LINE + HEAD + b" x\r\n\r\nx\r\n"),
        form(LINE + HEAD + b"\r\n folded: x\r\n\r\nx\r\n"),
        form(LINE + HEAD + b"\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n"),
        form(LINE + HEAD + b"\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\nx\r\n"),
        form(LINE + HEAD + b"\r\nx: " + b"x" * 9000 + b"\r\n\r\nx\r\n"),
        form(*[part("a", b"")] * 1001),
    ],
)
@each_row("step", [1, 1 << 20])
def test_no_form(body: bytes, step: int) -> None:
    """What is malformed or ends in the middle is refused, at the latest at its end (I8)."""
    with pytest.raises(BadForm):
        read(body, step)


@each_row(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", "abc"),
        ('Multipart/Form-Data;charset=utf-8; Boundary="a b:c"', "a b:c"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary=a; boundary=b", None),
        (f"multipart/form-data; boundary={'x' * 71}", None),
        ('multipart/form-data; boundary="a\u00fc"', None),
    ],
)
def test_boundaries(content_type: str, boundary: str | None) -> None:
    """RFC 2046 section 5.1.1."""
    assert multipart_form.is_form(content_type)
    if boundary is None:
        with pytest.raises(BadForm):
            multipart_form.boundary_of(content_type)
    else:
        assert multipart_form.boundary_of(content_type) == boundary


def test_other_types_are_no_form() -> None:
    """Neither are the absence of one, nor a form without files."""
    for content_type in (None, "", "multipart/mixed; boundary=a", "application/x-www-form-urlencoded"):
        assert not multipart_form.is_form(content_type)


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([LINE[:9], b"\r", b"\r\n", b"\r\n--", b"\r\n" + LINE[:-1]])),
    st.integers(1, 50),
)
def test_any_content_and_any_pieces(contents: list[bytes], step: int) -> None:
    """Content comes out as it went in, whatever it holds and wherever the pieces are cut."""
    body = form(*(part("f", content, '; filename="x"') for content in contents))
    found = read(body, step)
    expected: list[Event] = []
    for content in contents:
        expected += [Part("f", "x"), *([content] if content else []), END]
    assert found == expected


@given(st.binary(max_size=300), st.integers(1, 20))
def test_any_bytes(body: bytes, step: int) -> None:
    """Nonsense is refused, and never with anything but BadForm."""
    with pytest.raises(BadForm):
        read(LINE + b"\r\n" + body, step)


def test_memory_is_bounded() -> None:
    """What is kept between two pieces is less than a boundary (I19)."""
    parser = FormParser(BOUNDARY)
    list(parser.feed(part("f", b"", '; filename="x"')[:-2]))
    for _ in range(100):
        assert sum(len(piece) for piece in parser.feed(b"\r\n-" * 1000) if isinstance(piece, bytes)) > 2900
        assert len(parser._buffer) < len(LINE) + 2


COLONS = "".join(f"a{number}: b\r\n" for number in range(multipart_form.MAX_HEAD_LINES + 1))
PARAMETERS = "".join(f"; a{number}=b" for number in range(multipart_form.MAX_PARAMETERS + 1))


@each_row("step", [1, 7, 1 << 20])
@each_row("head", ["; filename=x\r\n" + COLONS[:-2], PARAMETERS])
def test_the_head_of_a_part_has_a_bound(head: str, step: int) -> None:
    """A part with many headers or parameters is refused, however the bytes arrive (I22)."""
    with pytest.raises(BadForm):
        read(form(part("f", b"x", head)), step)


def test_as_many_headers_as_a_part_may_have() -> None:
    """MAX_HEAD_LINES headers are taken, Content-Disposition among them."""
    found = COLONS.split("\r\n")[: multipart_form.MAX_HEAD_LINES - 1]
    head, *_ = read(form(part("f", b"x", "\r\n" + "\r\n".join(found))))
    assert isinstance(head, Part)
    assert len(head.headers) == len(found)


@pytest.mark.parametrize("step", [1 << 10, 64 << 10])
def test_all_heads_of_a_form_have_a_bound(step: int) -> None:
    """Of a form with megabytes of heads, only about MAX_HEADS_BYTES are parsed (I22)."""
    one = part("f", b"", "\r\nX: " + "x" * 7000)
    enough = int(1.1 * multipart_form.MAX_HEADS_BYTES) + step
    with pytest.raises(BadForm, match="all parts"):
        read((one * multipart_form.MAX_PARTS)[:enough], step)


def test_a_head_in_small_pieces_is_searched_once() -> None:
    """The search for the end of a head begins where the last one ended (I22)."""
    searched = 0

    class Counted(bytearray):
        def find(self, what: bytes, start: int = 0, stop: int | None = None) -> int:  # type: ignore[override]
            nonlocal searched
            searched += min(len(self), len(self) if stop is None else stop) - start
            return super().find(what, start, len(self) if stop is None else stop)

    parser = FormParser(BOUNDARY)
    list(parser.feed(LINE))
    parser._buffer = Counted(parser._buffer)
    head = b'\r\nContent-Disposition: form-data; name="f"; filename="' + b"x" * 7000
    for at in range(len(head)):
        list(parser.feed(head[at : at + 1]))
    assert searched < 10 * len(head)


def test_a_folder_of_files_with_long_paths() -> None:
    """A browser may send MAX_PARTS files with paths of 300 characters."""
    body = form(*[part("f", b"x", f'; filename="{"p" * 300}"\r\nContent-Type: image/png')] * multipart_form.MAX_PARTS)
    assert sum(isinstance(event, Part) for event in read(body)) == multipart_form.MAX_PARTS
