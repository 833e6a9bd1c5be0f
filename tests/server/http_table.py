"""Requests with the responses that RFC 9110 requires, for an object of `SIZE` bytes, and a strict client's parser.

Each row names its section. `{etag}`, `{modified}`, `{later}` and `{earlier}` stand for the object's own values.
"""

import email.parser
import email.policy
from dataclasses import dataclass

from proxy_under_test import BLOCK
from wire import Response

SIZE = 5 * BLOCK + 7
WHOLE = ((0, SIZE),)


@dataclass(frozen=True, slots=True)
class Row:
    """One request and its response.

    `spans` are the object's bytes in the response, in their order. None means a response without bytes of the object.
    """

    section: str
    headers: dict[str, str]
    status: int
    spans: tuple[tuple[int, int], ...] | None = None


def _range(section: str, value: str, status: int, *spans: tuple[int, int]) -> Row:
    return Row(section, {"Range": value}, status, spans or (WHOLE if status == 200 else None))


def _if(section: str, status: int, **headers: str) -> Row:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    spans = WHOLE if status == 200 else ((5, 10),) if status == 206 else None
    return Row(section, named, status, spans)


RANGES = (
    _range("14.1.2 first byte", "bytes=0-0", 206, (0, 1)),
    _range("14.1.2 across a block's edge", f"bytes={BLOCK - 1}-{BLOCK}", 206, (BLOCK - 1, BLOCK + 1)),
    _range("14.1.2 a block", f"bytes={BLOCK}-{2 * BLOCK - 1}", 206, (BLOCK, 2 * BLOCK)),
    _range("14.1.2 open", f"bytes={2 * BLOCK}-", 206, (2 * BLOCK, SIZE)),
    _range("14.1.2 open from the start: a part, all the same", "bytes=0-", 206, (0, SIZE)),
    _range("14.1.2 last byte", f"bytes={SIZE - 1}-", 206, (SIZE - 1, SIZE)),
    _range("14.1.2 beyond the end", f"bytes=10-{SIZE * 2}", 206, (10, SIZE)),
    _range("14.1.2 far beyond", f"bytes=10-{'9' * 40}", 206, (10, SIZE)),
    _range("14.1.2 suffix", "bytes=-1", 206, (SIZE - 1, SIZE)),
    _range("14.1.2 suffix across blocks", f"bytes=-{BLOCK + 9}", 206, (SIZE - BLOCK - 9, SIZE)),
    _range("14.1.2 suffix longer than all", f"bytes=-{SIZE * 2}", 206, (0, SIZE)),
    _range("14.1 unit of any case", "Bytes=0-4", 206, (0, 5)),
    _range("5.6.1.2 empty elements", "bytes=,0-4, ,", 206, (0, 5)),
    _range("15.5.17 beyond", f"bytes={SIZE}-", 416),
    _range("15.5.17 last no bytes", "bytes=-0", 416),
    _range("15.5.17 none of several", f"bytes={SIZE}-,-0", 416),
    _range("15.5.17 2^63-1", f"bytes={2**63 - 1}-", 416),
    _range("14.1.1 last before first: invalid, ignored", "bytes=5-3", 200),
    _range("14.1.1 one invalid spoils the set", "bytes=0-4,5-3", 200),
    _range("14.2 no range at all", "bytes=", 200),
    _range("14.2 garbage", "bytes=a-b", 200),
    _range("14.2 unknown unit", "lines=0-5", 200),
    _range("14.2 no unit", "0-5", 200),
    _range("14.2 sign", "bytes=+1-5", 200),
    _range("14.2 fraction", "bytes=1.0-5", 200),
    _range("14.2 hexadecimal", "bytes=0x1-5", 200),
    _range("14.2 space inside", "bytes=1 - 5", 200),
    _range("17.15 too long", f"bytes={'0' * 2000}-5", 200),
    _range("17.15 too many", "bytes=" + ",".join(f"{n * 200}-{n * 200}" for n in range(101)), 200),
    # Several ranges
    _range("15.3.7.2 two", f"bytes=0-9,{3 * BLOCK}-{3 * BLOCK + 9}", 206, (0, 10), (3 * BLOCK, 3 * BLOCK + 10)),
    _range("15.3.7.2 in the order asked", f"bytes={4 * BLOCK}-{4 * BLOCK},0-0,-1", 206,
           (4 * BLOCK, 4 * BLOCK + 1), (0, 1), (SIZE - 1, SIZE)),
    _range("15.3.7.2 three blocks", f"bytes=0-{BLOCK - 1},{2 * BLOCK}-{3 * BLOCK - 1},{4 * BLOCK}-", 206,
           (0, BLOCK), (2 * BLOCK, 3 * BLOCK), (4 * BLOCK, SIZE)),
    _range("14.2 touching ones are one", "bytes=0-9,10-19", 206, (0, 20)),
    _range("14.2 overlapping ones are one", "bytes=0-99,50-149", 206, (0, 150)),
    _range("14.2 a small gap is sent", "bytes=0-9,20-29", 206, (0, 30)),
    _range("15.3.7.2 one that can be satisfied", f"bytes=0-4,{SIZE}-", 206, (0, 5)),
    _range("17.15 more than the object", "bytes=0-,0-", 200),
    _range("17.15 more than the object, by overlaps", f"bytes=0-{SIZE - 2},1-", 200),
)  # fmt: skip

PART = {"Range": "bytes=5-9"}

CONDITIONS = (
    _if("13.1.1 equal", 200, If_Match="{etag}"),
    _if("13.1.1 one of several", 200, If_Match='"a", {etag}'),
    _if("13.1.1 any", 200, If_Match="*"),
    _if("13.1.1 another", 412, If_Match='"a"'),
    _if("13.1.1 weak never matches", 412, If_Match="W/{etag}"),
    _if("13.1.1 malformed", 412, If_Match="a"),
    _if("13.1.2 equal", 304, If_None_Match="{etag}"),
    _if("13.1.2 weak comparison", 304, If_None_Match="W/{etag}"),
    _if("13.1.2 one of several", 304, If_None_Match='"a", "b,c", {etag}'),
    _if("13.1.2 any", 304, If_None_Match="*"),
    _if("13.1.2 another", 200, If_None_Match='"a"'),
    _if("13.1.2 malformed", 200, If_None_Match="a"),
    _if("13.1.3 equal", 304, If_Modified_Since="{modified}"),
    _if("13.1.3 later", 304, If_Modified_Since="{later}"),
    _if("13.1.3 earlier", 200, If_Modified_Since="{earlier}"),
    _if("5.6.7 RFC 850 date", 200, If_Modified_Since="Sunday, 06-Nov-94 08:49:37 GMT"),
    _if("5.6.7 asctime date", 200, If_Modified_Since="Sun Nov  6 08:49:37 1994"),
    _if("13.1.3 no date: ignored", 200, If_Modified_Since="yesterday"),
    _if("13.1.3 no such day: ignored", 200, If_Modified_Since="Sun, 31 Feb 2094 08:49:37 GMT"),
    _if("13.1.3 two dates: ignored", 200, If_Modified_Since="{modified}, {modified}"),
    _if("13.1.3 If-None-Match comes first", 200, If_None_Match='"a"', If_Modified_Since="{later}"),
    _if("13.1.4 equal", 200, If_Unmodified_Since="{modified}"),
    _if("13.1.4 earlier", 412, If_Unmodified_Since="{earlier}"),
    _if("13.1.4 no date: ignored", 200, If_Unmodified_Since="0"),
    _if("13.2.2 If-Match comes first", 200, If_Match="{etag}", If_Unmodified_Since="{earlier}"),
    _if("13.2.2 412 before 304", 412, If_Match='"a"', If_None_Match="{etag}"),
    _if("13.2.2 412 before 206", 412, If_Match='"a"', **PART),
    _if("13.2.2 304 before 416", 304, If_None_Match="{etag}", Range=f"bytes={SIZE}-"),
    _if("13.2.2 304 before 206", 304, If_None_Match="{etag}", **PART),
    _if("13.1.5 the tag", 206, If_Range="{etag}", **PART),
    _if("13.1.5 another tag", 200, If_Range='"a"', **PART),
    _if("13.1.5 weak never", 200, If_Range="W/{etag}", **PART),
    _if("13.1.5 a list is none", 200, If_Range="{etag}, {etag}", **PART),
    _if("13.1.5 the date", 206, If_Range="{modified}", **PART),
    _if("13.1.5 a later date", 200, If_Range="{later}", **PART),
    _if("13.1.5 nonsense", 200, If_Range="x", **PART),
    _if("13.1.5 false: no 416", 200, If_Range='"a"', Range=f"bytes={SIZE}-"),
    _if("13.1.5 without a range", 200, If_Range='"a"'),
    _if("13.1 unknown precondition: ignored", 200, If_Something='"a"'),
)  # fmt: skip

ROWS = RANGES + CONDITIONS


def spans_of(response: Response, size: int) -> list[tuple[int, int, bytes]]:
    """Return (start, stop, bytes) of each part of a 200 or 206, in order. The parser is strict."""
    assert response.is_complete
    assert response.headers["Content-Length"] == str(len(response.body))
    kind = response.headers["Content-Type"]
    if response.status == 200:
        assert "Content-Range" not in response.headers
        return [(0, size, response.body)]
    assert response.status == 206
    if not kind.startswith("multipart/byteranges"):
        start, stop = _content_range(response.headers["Content-Range"], size)
        assert stop - start == len(response.body)
        return [(start, stop, response.body)]
    assert "Content-Range" not in response.headers  # section 15.3.7.2
    # latin-1 gives each byte a character, so that the standard library's parser can be the client.
    head = f"Content-Type: {kind}\r\n\r\n"
    parser = email.parser.Parser(policy=email.policy.HTTP)
    message = parser.parsestr(head + "".join(map(chr, response.body)))
    assert not message.defects
    found = []
    boundary = message.get_boundary()
    assert boundary is not None
    assert response.body.endswith(f"\r\n--{boundary}--\r\n".encode())
    for raw in response.body.split(f"--{boundary}\r\n".encode())[1:]:
        fields, _, content = raw.partition(b"\r\n\r\n")
        part = dict(line.split(": ", 1) for line in fields.decode().split("\r\n"))
        start, stop = _content_range(part["Content-Range"], size)
        body = content[: stop - start]
        assert content[stop - start :] in (b"\r\n", f"\r\n--{boundary}--\r\n".encode())
        found.append((start, stop, body))
    assert len(found) == len(message.get_payload()) > 1
    return found


def _content_range(value: str, size: int) -> tuple[int, int]:
    unit, _, rest = value.partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    assert (unit, total) == ("bytes", str(size))
    return int(first), int(last) + 1
