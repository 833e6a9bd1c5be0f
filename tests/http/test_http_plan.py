"""The plan of a response (RFC 9110)."""

import email.parser
import email.policy
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import range_model
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import each_row, examples

from bucketfront.http import dates
from bucketfront.http.metadata import Metadata
from bucketfront.http.plan import Plan, RequestHead, plan
from bucketfront.http.ranges import Demand, Span

MODIFIED = 1_700_000_000.0
NOW = MODIFIED + 3600
AT, BEFORE, AFTER = (dates.format(MODIFIED + shift) for shift in (0, -1, 1))
OBJECT = Metadata(etag='"v1"', size=11, last_modified=AT)
EMPTY = Metadata(etag='"v1"', size=0, last_modified=AT)
ONE_BYTE = Metadata(etag='"v1"', size=1, last_modified=AT)
WEAK = Metadata(etag='W/"v1"', size=11, last_modified=AT)
LARGE = Metadata(etag='"v1"', size=10000, last_modified=AT)
HUGE = "9" * 30
BOUNDARY = "0123456789abcdef" * 2
Pieces = tuple[bytes | Span, ...]


def get(**fields: str) -> RequestHead:
    return RequestHead("GET", **fields)


def head(**fields: str) -> RequestHead:
    return RequestHead("HEAD", **fields)


def whole(size: int = 11) -> tuple[int, str, None, Pieces]:
    return 200, str(size), None, (Span(0, size),)


def part(start: int, stop: int, size: int = 11) -> tuple[int, str, str, Pieces]:
    return 206, str(stop - start), f"bytes {start}-{stop - 1}/{size}", (Span(start, stop),)


def unsatisfiable(size: int = 11) -> tuple[int, str, str, None]:
    return 416, "0", f"bytes */{size}", None


NOT_MODIFIED = (304, None, None, None)
FAILED = (412, "0", None, None)
HEAD_OF_ALL = (200, "11", None, None)


def header(planned: Plan, name: str) -> str | None:
    """The one value of a header; two of them are a defect."""
    values = [value for sent, value in planned.headers if sent.lower() == name.lower()]
    assert len(values) <= 1, f"{name} twice"
    return values[0] if values else None


@each_row(
    ("request_head", "metadata", "expected"),
    [
        # No Range
        pytest.param(get(), OBJECT, whole(), id="9.3.1: GET"),
        pytest.param(get(), EMPTY, whole(0), id="9.3.1: GET of nothing"),
        pytest.param(head(), OBJECT, HEAD_OF_ALL, id="9.3.2: HEAD has GET's length and no body"),
        pytest.param(head(), EMPTY, (200, "0", None, None), id="9.3.2: HEAD of nothing"),
        # One range
        pytest.param(get(range="bytes=0-"), OBJECT, part(0, 11), id="15.3.7: all of it is a part too"),
        pytest.param(get(range="bytes=0-4"), OBJECT, part(0, 5), id="14.1.2: a-b"),
        pytest.param(get(range="bytes=5-"), OBJECT, part(5, 11), id="14.1.2: a-"),
        pytest.param(get(range="bytes=-3"), OBJECT, part(8, 11), id="14.1.2: -n"),
        pytest.param(get(range="bytes=-1000"), OBJECT, part(0, 11), id="14.1.2: a suffix longer than all"),
        pytest.param(get(range="bytes=10-10"), OBJECT, part(10, 11), id="14.1.2: the last byte"),
        pytest.param(get(range="bytes=5-100"), OBJECT, part(5, 11), id="14.1.2: past the end"),
        pytest.param(get(range=f"bytes=5-{HUGE}"), OBJECT, part(5, 11), id="14.1.2: far past the end"),
        pytest.param(get(range="Bytes=0-4"), OBJECT, part(0, 5), id="14.1: any case of the unit"),
        pytest.param(get(range="bytes=0-0"), ONE_BYTE, part(0, 1, 1), id="14.1.2: one byte of one"),
        # 416
        pytest.param(get(range="bytes=11-"), OBJECT, unsatisfiable(), id="15.5.17: beyond the end"),
        pytest.param(get(range="bytes=11-20"), OBJECT, unsatisfiable(), id="15.5.17: both beyond the end"),
        pytest.param(get(range=f"bytes={HUGE}-"), OBJECT, unsatisfiable(), id="15.5.17: far beyond the end"),
        pytest.param(get(range="bytes=-0"), OBJECT, unsatisfiable(), id="14.1.2: the last no bytes"),
        pytest.param(get(range="bytes=0-"), EMPTY, unsatisfiable(0), id="14.1.2: nothing has no first byte"),
        pytest.param(get(range="bytes=0-0"), EMPTY, unsatisfiable(0), id="14.1.2: nothing, a-b"),
        pytest.param(get(range="bytes=-5"), EMPTY, unsatisfiable(0), id="14.4: no Content-Range for nothing"),
        pytest.param(get(range="bytes=11-,-0"), OBJECT, unsatisfiable(), id="14.2: none of several"),
        # Ignored
        pytest.param(get(range="bytes=5-3"), OBJECT, whole(), id="14.1.1: last before first"),
        pytest.param(get(range="bytes=abc"), OBJECT, whole(), id="14.2: malformed"),
        pytest.param(get(range="items=0-4"), OBJECT, whole(), id="14.2: an unknown unit"),
        pytest.param(get(range="bytes=0-4,5-3"), OBJECT, whole(), id="14.1.1: one invalid spoils the set"),
        pytest.param(get(range="bytes=5-3"), EMPTY, whole(0), id="14.1.1: invalid on nothing"),
        pytest.param(get(range=f"bytes={'0-0,' * 101}"), OBJECT, whole(), id="17.15: 101 ranges"),
        pytest.param(head(range="bytes=0-4"), OBJECT, HEAD_OF_ALL, id="14.2: Range is for GET"),
        pytest.param(head(range="bytes=11-"), OBJECT, HEAD_OF_ALL, id="14.2: for GET, if unsatisfiable too"),
        # Several ranges
        pytest.param(get(range="bytes=0-0,-1"), OBJECT, part(0, 11), id="15.3.7.2: two and a small gap are one"),
        pytest.param(get(range="bytes=0-4,0-4"), OBJECT, part(0, 5), id="15.3.7.2: the same twice, once"),
        pytest.param(get(range="bytes=0-4,5-10"), OBJECT, part(0, 11), id="15.3.7.2: two that touch"),
        pytest.param(get(range="bytes=0-,-1"), OBJECT, whole(), id="17.15: more than there is"),
        pytest.param(get(range="bytes=0-4,11-"), OBJECT, part(0, 5), id="14.2: one satisfiable of two"),
        pytest.param(get(range="bytes=,0-4,"), OBJECT, part(0, 5), id="5.6.1.2: one among empty elements"),
        # If-Range
        pytest.param(get(range="bytes=0-4", if_range='"v1"'), OBJECT, part(0, 5), id="13.1.5: the tag"),
        pytest.param(get(range="bytes=0-4", if_range='"v0"'), OBJECT, whole(), id="13.1.5: another tag"),
        pytest.param(get(range="bytes=0-4", if_range='W/"v1"'), OBJECT, whole(), id="13.1.5: a weak tag"),
        pytest.param(get(range="bytes=0-4", if_range='W/"v1"'), WEAK, whole(), id="13.1.5: a weak object"),
        pytest.param(get(range="bytes=0-4", if_range=AT), OBJECT, part(0, 5), id="13.1.5: the date"),
        pytest.param(get(range="bytes=0-4", if_range=AFTER), OBJECT, whole(), id="13.1.5: a later date"),
        pytest.param(get(range="bytes=0-4", if_range="v1"), OBJECT, whole(), id="13.1.5: neither"),
        pytest.param(get(range="bytes=11-", if_range='"v1"'), OBJECT, unsatisfiable(), id="13.1.5: true, 416"),
        pytest.param(get(range="bytes=11-", if_range='"v0"'), OBJECT, whole(), id="13.1.5: false, no 416"),
        pytest.param(get(if_range='"v0"'), OBJECT, whole(), id="13.1.5: ignored without a Range"),
        # Preconditions
        pytest.param(get(if_none_match='"v1"'), OBJECT, NOT_MODIFIED, id="13.1.2: GET"),
        pytest.param(head(if_none_match='"v1"'), OBJECT, NOT_MODIFIED, id="13.1.2: HEAD"),
        pytest.param(get(if_none_match='W/"v1"'), OBJECT, NOT_MODIFIED, id="13.1.2: weak comparison"),
        pytest.param(get(if_none_match="*"), OBJECT, NOT_MODIFIED, id="13.1.2: any"),
        pytest.param(get(if_none_match='"v0"'), OBJECT, whole(), id="13.1.2: none"),
        pytest.param(get(if_none_match="v1"), OBJECT, whole(), id="13.1.2: malformed"),
        pytest.param(get(if_modified_since=AT), OBJECT, NOT_MODIFIED, id="13.1.3: not modified"),
        pytest.param(get(if_modified_since=BEFORE), OBJECT, whole(), id="13.1.3: modified"),
        pytest.param(get(if_none_match='"v0"', if_modified_since=AT), OBJECT, whole(), id="13.1.3: tags win"),
        pytest.param(get(if_match='"v0"'), OBJECT, FAILED, id="13.1.1: GET"),
        pytest.param(head(if_match='"v0"'), OBJECT, FAILED, id="13.1.1: HEAD"),
        pytest.param(get(if_match='"v1"'), OBJECT, whole(), id="13.1.1: match"),
        pytest.param(get(if_unmodified_since=BEFORE), OBJECT, FAILED, id="13.1.4: modified"),
        pytest.param(get(if_unmodified_since=AT), OBJECT, whole(), id="13.1.4: not modified"),
        # Their order
        pytest.param(get(if_match='"v0"', if_none_match='"v1"'), OBJECT, FAILED, id="13.2.2: 412 before 304"),
        pytest.param(get(range="bytes=0-4", if_match='"v0"'), OBJECT, FAILED, id="13.2.2: 412 before 206"),
        pytest.param(get(range="bytes=11-", if_match='"v0"'), OBJECT, FAILED, id="13.2.2: 412 before 416"),
        pytest.param(get(range="bytes=11-", if_none_match='"v1"'), OBJECT, NOT_MODIFIED, id="13.2.2: 304 first"),
        pytest.param(get(range="bytes=0-4", if_match='"v1"'), OBJECT, part(0, 5), id="13.2.2: true, then 206"),
        pytest.param(
            get(range="bytes=0-4", if_range='"v0"', if_none_match='"v1"'),
            OBJECT,
            NOT_MODIFIED,
            id="13.2.2: step 3 before step 5",
        ),
    ],
)
def test_table(
    request_head: RequestHead,
    metadata: Metadata,
    expected: tuple[int, str | None, str | None, Pieces | None],
) -> None:
    """I1, I3: status, Content-Length, Content-Range and body are those of RFC 9110, with no boundary needed."""
    planned = plan(request_head, metadata, NOW)
    length, content_range = header(planned, "Content-Length"), header(planned, "Content-Range")
    assert (planned.status, length, content_range, planned.pieces) == expected


@each_row(
    ("request_head", "expected"),
    [
        # The parts of a multipart response, by their Content-Range; or the status and Content-Range of another
        pytest.param(get(range="bytes=0-0,-1"), [(0, 0), (9999, 9999)], id="14.1.2: first and last byte"),
        pytest.param(get(range="bytes=0-99,5000-"), [(0, 99), (5000, 9999)], id="14.1.2: a-b and a-"),
        pytest.param(get(range="bytes=9000-9099,0-99"), [(9000, 9099), (0, 99)], id="15.3.7.2: the requested order"),
        pytest.param(get(range="bytes=-9,200-209,0-9"), [(9991, 9999), (200, 209), (0, 9)], id="15.3.7.2: backwards"),
        pytest.param(get(range="bytes=500-600,601-999"), (206, "500-999"), id="15.3.7.2: touching"),
        pytest.param(get(range="bytes=500-700,601-999"), (206, "500-999"), id="15.3.7.2: overlapping"),
        pytest.param(get(range="bytes=500-700,500-700"), (206, "500-700"), id="15.3.7.2: the same"),
        pytest.param(get(range="bytes=0-99,179-200"), (206, "0-200"), id="15.3.7.2: a gap below 80"),
        pytest.param(get(range="bytes=0-99,180-200"), [(0, 99), (180, 200)], id="15.3.7.2: a gap of 80"),
        pytest.param(
            get(range="bytes=5050-5200,0-99,5000-5099"),
            [(5000, 5200), (0, 99)],
            id="15.3.7.2: coalesced, at the first one's place",
        ),
        pytest.param(get(range="bytes=0-9,20000-,-10"), [(0, 9), (9990, 9999)], id="14.2: satisfiable ones only"),
        pytest.param(get(range="bytes=0-9,20000-,-0"), (206, "0-9"), id="15.3.7.2: one of several, no multipart"),
        pytest.param(get(range="bytes=10000-,-0,10001-10002"), (416, "*"), id="15.5.17: none of several"),
        pytest.param(get(range="bytes=0-9,x,-10"), (200, None), id="14.1.1: one invalid spoils the set"),
        pytest.param(get(range="bytes=0-4999,5000-"), (206, "0-9999"), id="17.15: exactly as much as there is"),
        pytest.param(get(range="bytes=0-5000,5000-"), (200, None), id="17.15: one byte more than there is"),
        pytest.param(get(range="bytes=0-,-1"), (200, None), id="17.15: all, and the last byte again"),
        pytest.param(get(range="bytes=" + "0-5000," * 2), (200, None), id="17.15: a part again and again"),
        pytest.param(get(range="bytes=0-5000," + "20000-," * 9), (206, "0-5000"), id="17.15: these add nothing"),
        pytest.param(get(range=f"bytes={'0-0,' * 101}"), (200, None), id="17.15: 101 ranges"),
        pytest.param(get(range="bytes=0-4900,5000-"), (200, None), id="15.3.7.2: the framing eats the gap"),
        pytest.param(get(range="bytes=0-9,-9", if_range='"v1"'), [(0, 9), (9991, 9999)], id="13.1.5: the tag"),
        pytest.param(get(range="bytes=0-9,-9", if_range='"v0"'), (200, None), id="13.1.5: another tag"),
        pytest.param(get(range="bytes=0-9,-9", if_match='"v0"'), (412, None), id="13.2.2: 412 before 206"),
        pytest.param(get(range="bytes=0-9,-9", if_none_match="*"), (304, None), id="13.2.2: 304 before 206"),
        pytest.param(head(range="bytes=0-9,-9"), (200, None), id="14.2: Range is for GET"),
    ],
)
def test_several_ranges(request_head: RequestHead, expected: list[tuple[int, int]] | tuple[int, str | None]) -> None:
    """I1, I3: several ranges yield a multipart body, one part, or the whole, as RFC 9110 requires."""
    planned = plan(request_head, LARGE, NOW, BOUNDARY)
    content_range = header(planned, "Content-Range")
    if isinstance(expected, tuple):
        assert (planned.status, content_range) == (expected[0], expected[1] and f"bytes {expected[1]}/10000")
        assert planned.pieces is None or planned.pieces == planned.spans
        return
    assert (planned.status, content_range) == (206, None)
    assert planned.spans == tuple(Span(first, last + 1) for first, last in expected)
    parts = range_model.read_multipart(header(planned, "Content-Type") or "", sent(planned, CONTENT))
    assert [fields["Content-Range"] for fields, _ in parts] == [f"bytes {a}-{b}/10000" for a, b in expected]


CONTENT = bytes(at % 251 for at in range(10000))


def sent(planned: Plan, content: bytes) -> bytes:
    """Return the body that `planned` sends of the object `content`."""
    pieces = planned.pieces
    assert pieces is not None
    return b"".join(piece if isinstance(piece, bytes) else content[piece.start : piece.stop] for piece in pieces)


DESCRIBED = Metadata(
    etag='"v1"',
    size=11,
    last_modified=AT,
    headers=(
        ("content-type", "video/mp4; charset=x"),
        ("Content-Encoding", "gzip"),
        ("cache-control", "max-age=60"),
        ("Expires", "0"),
        ("x-amz-meta-a", "b"),
    ),
    age=7,
)


def test_headers_of_200_come_in_order_and_as_the_origin_sent_them() -> None:
    """I4: a 200 has framing, validators and then the object's own headers, none of them touched or added."""
    assert plan(get(), DESCRIBED, NOW).headers == (
        ("Content-Length", "11"),
        ("Accept-Ranges", "bytes"),
        ("ETag", '"v1"'),
        ("Last-Modified", AT),
        *DESCRIBED.headers,
    )


def test_headers_of_206_are_those_of_200_and_the_range() -> None:
    """RFC 9110 section 15.3.7: a 206 describes the whole object as the 200 would."""
    assert plan(get(range="bytes=2-4"), DESCRIBED, NOW).headers == (
        ("Content-Length", "3"),
        ("Content-Range", "bytes 2-4/11"),
        *plan(get(), DESCRIBED, NOW).headers[1:],
    )


def test_multipart_is_sent_as_the_rfc_shows_it() -> None:
    """RFC 9110 section 15.3.7.2: the object's type and each range in the parts, all else at the top (I4)."""
    film = replace(DESCRIBED, size=8000)
    planned = plan(get(range="bytes=500-509,7000-7004"), film, NOW, "THIS0STRING0SEPARATES")
    assert sent(planned, b"0123456789" * 800) == (
        b"--THIS0STRING0SEPARATES\r\n"
        b"Content-Type: video/mp4; charset=x\r\n"
        b"Content-Range: bytes 500-509/8000\r\n"
        b"\r\n"
        b"0123456789\r\n"
        b"--THIS0STRING0SEPARATES\r\n"
        b"Content-Type: video/mp4; charset=x\r\n"
        b"Content-Range: bytes 7000-7004/8000\r\n"
        b"\r\n"
        b"01234\r\n"
        b"--THIS0STRING0SEPARATES--\r\n"
    )
    assert planned.status == 206
    assert planned.headers == (
        ("Content-Length", "244"),
        *plan(get(), film, NOW).headers[1:4],
        ("Content-Encoding", "gzip"),
        ("cache-control", "max-age=60"),
        ("Expires", "0"),
        ("x-amz-meta-a", "b"),
        ("Content-Type", "multipart/byteranges; boundary=THIS0STRING0SEPARATES"),
    )
    assert planned.length == 244


@each_row("ending", [b"", b"\r", b"\n", b"\r\n", b"--", b"\r\n--", b"\r\n--" + BOUNDARY[:-1].encode()])
def test_multipart_is_read_by_a_mime_parser(ending: bytes) -> None:
    """RFC 2046 section 5.1.1: an independent parser finds the bytes, whatever they are."""
    content = (b"a" * 90 + ending)[-90:] + b"b" * 5000 + ending
    metadata = Metadata(etag='"v1"', size=len(content))
    planned = plan(get(range="bytes=0-89,-80"), metadata, NOW, BOUNDARY)
    head_lines = "".join(f"{name}: {value}\r\n" for name, value in planned.headers).encode()
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(head_lines + b"\r\n" + sent(planned, content))
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    parts = list(message.iter_parts())
    assert [part.get_payload(decode=True) for part in parts] == [content[:90], content[-80:]]
    assert {part.get_content_type() for part in parts} == {"application/octet-stream"}


@each_row("value", ["text/plain; charset=utf-8", "text/pl\u00e4in", "text/pl\udce4in"])
def test_a_type_is_in_a_part_as_the_origin_sent_it(value: str) -> None:
    """I3, I4: what is no ASCII, or no UTF-8 either, is sent as it came and counted in bytes."""
    metadata = replace(LARGE, headers=(("content-type", value),))
    planned = plan(get(range="bytes=0-0,-1"), metadata, NOW, BOUNDARY)
    body = sent(planned, CONTENT)
    assert body.count(b"\r\nContent-Type: " + value.encode("utf-8", "surrogateescape") + b"\r\n") == 2
    assert header(planned, "Content-Length") == str(len(body))


def test_multipart_is_sent_only_where_it_is_shorter_than_the_whole() -> None:
    """RFC 9110 section 15.3.7.2: framing that costs as much as it leaves out is for nothing."""
    requested = [[0], [199]]
    length = range_model.multipart_length(requested, 300, BOUNDARY, "application/octet-stream")
    assert 200 < length < 998  # so that a size's digits are as many throughout
    sizes = {size: Metadata(etag='"v1"', size=size) for size in (length - 1, length, length + 1)}
    plans = {size: plan(get(range="bytes=0-0,199-199"), what, NOW, BOUNDARY) for size, what in sizes.items()}
    assert [planned.status for planned in plans.values()] == [200, 200, 206]
    assert plans[length + 1].length == length


def test_only_multipart_needs_a_boundary() -> None:
    """A missing boundary is an error for multipart responses, and only for them."""
    with pytest.raises(ValueError, match="boundary"):
        plan(get(range="bytes=0-0,-1"), LARGE, NOW)
    for several in ("bytes=0-0,1-1", "bytes=0-4900,5000-", "bytes=0-,0-", "bytes=10000-,-0"):
        assert plan(get(range=several), LARGE, NOW) == plan(get(range=several), LARGE, NOW, BOUNDARY)


def test_head_has_the_headers_of_get() -> None:
    """RFC 9110 section 9.3.2: the response to HEAD is that to GET without the body."""
    assert plan(head(), DESCRIBED, NOW) == Plan(200, plan(get(), DESCRIBED, NOW).headers)


def test_headers_of_304_are_those_that_a_cache_needs() -> None:
    """RFC 9110 section 15.4.5: validators and freshness, nothing that describes a body."""
    assert plan(get(if_none_match="*"), DESCRIBED, NOW).headers == (
        ("ETag", '"v1"'),
        ("Last-Modified", AT),
        ("cache-control", "max-age=60"),
        ("Expires", "0"),
    )


@pytest.mark.parametrize("request_head", [get(range="bytes=11-"), get(if_match='"v0"')])
def test_failures_do_not_describe_the_object(request_head: RequestHead) -> None:
    """A 416 and a 412 carry none of the object's headers: their body, if any, is another one."""
    names = {name for name, _ in plan(request_head, DESCRIBED, NOW).headers}
    assert names <= {"Content-Length", "Content-Range"}


def test_an_object_without_a_type_is_an_octet_stream() -> None:
    """RFC 9110 section 8.3: no type is guessed, so that nothing is sniffed."""
    assert header(plan(get(), OBJECT, NOW), "Content-Type") == "application/octet-stream"


def test_absent_validators_are_not_made_up() -> None:
    """I4: what the origin did not send is not sent."""
    bare = Metadata(etag="", size=11)
    for planned in (plan(get(), bare, NOW), plan(get(if_none_match="*"), bare, NOW)):
        assert header(planned, "ETag") is None
        assert header(planned, "Last-Modified") is None


@each_row("method", ["PUT", "POST", "DELETE", "get", ""])
def test_other_methods_are_refused(method: str) -> None:
    """A plan for a write is misuse, and the message names the fix."""
    with pytest.raises(ValueError, match=r"preconditions\.evaluate"):
        plan(RequestHead(method), OBJECT, NOW)


TAG = st.sampled_from(["*", '"v1"', '"v0"', 'W/"v1"', "v1"])
DATE = st.sampled_from([AT, BEFORE, AFTER, "0"])
RANGE = st.text("bytes=0123456789-, ") | st.text("0123456789-,", max_size=12).map("bytes={}".format)
REQUEST = st.builds(
    RequestHead,
    st.sampled_from(["GET", "GET", "HEAD"]),
    range=st.none() | RANGE,
    if_range=st.none() | TAG | DATE,
    if_match=st.none() | TAG,
    if_none_match=st.none() | TAG,
    if_modified_since=st.none() | DATE,
    if_unmodified_since=st.none() | DATE,
)
METADATA = st.builds(
    Metadata,
    etag=st.sampled_from(['"v1"', 'W/"v1"', ""]),
    size=st.integers(0, 20) | st.integers(0, 2**63 - 1),
    last_modified=st.sampled_from([AT, None]),
)


@given(REQUEST, METADATA)
def test_pieces_and_length_agree(request: RequestHead, metadata: Metadata) -> None:
    """I3: for any request the spans lie within the object, and Content-Length is the length of the body."""
    planned = plan(request, metadata, NOW, BOUNDARY)
    assert planned.status in {200, 206, 304, 412, 416}
    if planned.pieces is None:
        assert request.method == "HEAD" or planned.status in {304, 412, 416}
        assert (planned.spans, planned.length) == ((), 0)
        return
    assert planned.status in {200, 206}
    assert all(0 <= span.start <= span.stop <= metadata.size for span in planned.spans)
    literal = [piece for piece in planned.pieces if isinstance(piece, bytes)]
    assert planned.length == sum(map(len, literal)) + sum(span.stop - span.start for span in planned.spans)
    assert header(planned, "Content-Length") == str(planned.length)
    if planned.status == 200:
        assert planned.pieces == (Span(0, metadata.size),)
        assert header(planned, "Content-Range") is None
    elif len(planned.spans) == 1:
        (span,) = planned.spans
        assert not literal
        assert header(planned, "Content-Range") == f"bytes {span.start}-{span.stop - 1}/{metadata.size}"
    else:
        assert len(literal) == len(planned.spans) + 1
        assert header(planned, "Content-Range") is None
        assert planned.length < metadata.size


@given(REQUEST, METADATA)
def test_head_differs_from_get_by_the_range_and_the_body_only(request: RequestHead, metadata: Metadata) -> None:
    """RFC 9110 section 9.3.2: HEAD gives the status and headers that GET gives without a Range."""
    fields = {name: getattr(request, name) for name in RequestHead.__slots__ if name not in {"method", "range"}}
    planned = plan(RequestHead("GET", **fields), metadata, NOW)
    expected = Plan(planned.status, planned.headers)
    assert plan(RequestHead("HEAD", range=request.range, **fields), metadata, NOW) == expected


def range_sets(size: int) -> st.SearchStrategy[str]:
    """Range headers of valid and invalid specs, near the object's bytes."""
    offset = st.integers(0, size + 3)
    short = st.builds(lambda first, more: f"{first}-{first + more}", offset, st.integers(0, 30))
    any_two = st.builds("{}-{}".format, offset, offset)
    open_ended = st.builds("{}-".format, offset) | st.builds("-{}".format, offset) | st.builds("-{}".format, short)
    odd = st.sampled_from(
        ["", " ", "\t", "-", "-0", "x", "1 -2", "+1-2", "0x1-2", "9-8", f"0-{HUGE}", f"-{HUGE}", HUGE]
    )
    several = st.lists(short, min_size=2, max_size=8)
    anything = st.lists(short | any_two | open_ended | odd, max_size=6)
    comma = st.sampled_from([",", ", ", " ,\t", ",,"])
    joined = st.builds(str.join, comma, st.one_of(several, several, several, anything))
    return st.builds("{}{}".format, st.sampled_from([*["bytes="] * 7, "BYTES=", " bytes=", "items="]), joined)


SIZE = st.one_of(st.integers(0, 60), st.integers(61, 500), st.integers(501, 4000), st.integers(501, 4000))
REQUESTED = SIZE.flatmap(lambda size: st.tuples(range_sets(size), st.just(size)))
TYPE = st.sampled_from([None, "a/b", "text/html; charset=utf-8", "x/" + "y" * 200])


@settings(max_examples=examples(80, 300))  # one response in eight is multipart
@given(REQUESTED, TYPE)
def test_agrees_with_a_model_of_the_rfc(requested: tuple[str, int], object_type: str | None) -> None:
    """I1, I3: for any Range and size, status and body are what RFC 9110's prose gives, byte by byte."""
    field, size = requested
    content = bytes(at % 251 for at in range(size))
    own = () if object_type is None else (("Content-Type", object_type),)
    planned = plan(get(range=field), Metadata(etag='"v1"', size=size, headers=own), NOW, BOUNDARY)
    sets = range_model.requested(field, size)
    if sets is not None and not any(sets):
        assert (planned.status, planned.pieces) == (416, None)
        assert header(planned, "Content-Range") == f"bytes */{size}"
        return
    body = sent(planned, content)
    assert header(planned, "Content-Length") == str(len(body))
    part_type = object_type or "application/octet-stream"
    expected = expected_parts(sets, size, part_type)
    if not expected:
        assert (planned.status, body) == (200, content)
        return
    assert planned.status == 206
    if len(expected) == 1:
        first, last = expected[0][0], expected[0][-1]
        assert header(planned, "Content-Range") == f"bytes {first}-{last}/{size}"
        assert body == content[first : last + 1]
        return
    assert header(planned, "Content-Range") is None
    assert range_model.read_multipart(header(planned, "Content-Type") or "", body) == [
        (
            {"Content-Type": part_type, "Content-Range": f"bytes {part[0]}-{part[-1]}/{size}"},
            bytes(content[at] for at in part),
        )
        for part in expected
    ]


def expected_parts(sets: list[set[int]] | None, size: int, part_type: str) -> list[list[int]]:
    """What of the object is sent as 206, as lists of positions; none where all of it is, as 200."""
    if sets is None or sum(map(len, sets)) > size:
        return []
    parts = range_model.parts(sets)
    if len(parts) > 1 and range_model.multipart_length(parts, size, BOUNDARY, part_type) >= size:
        return []
    return parts


HOSTILE = [
    "bytes=" + "0-0," * 248,
    "bytes=" + "0-0," * 100,
    "bytes=" + "," * 994,
    "bytes=" + "-" * 994,
    "bytes=" + "9" * 993 + "-",
    "bytes=-" + "9" * 993,
    "bytes=" + "1" * 496 + "-" + "9" * 496,
    "bytes=" + ",".join(f"{at}-" for at in range(10**7, 10**7 + 99)),
    "bytes=" + ",".join(f"{at * 90}-" for at in range(100)),
    "bytes=" + ",".join(f"{at * 81}-{at * 81}" for at in range(100)),
    "bytes=" + ",".join(f"{at * 81}-{at * 81}" for at in reversed(range(100))),
    "bytes=" + ",".join(f"-{at + 1}" for at in range(100)),
    "bytes=" + "0-0," * 4096,
    "bytes=" * 2730,
    "\x00\xff,-" * 4096,
]


@each_row("field", HOSTILE)
def test_a_hostile_range_is_cheap(field: str) -> None:
    """I22: no Range header costs as much CPU as 200,000 additions, about a millisecond, on a machine of any speed."""
    metadata, request = Metadata(etag='"v1"', size=2**62), get(range=field, if_range='"v1"')
    costs, bounds = [], []
    for _ in range(30):
        costs.append(cpu_time(lambda: plan(request, metadata, NOW, BOUNDARY)))
        bounds.append(cpu_time(lambda: sum(range(200_000))))
    assert min(costs) < min(bounds)


def cpu_time(function: Callable[[], object]) -> float:
    """Return how many seconds of CPU a function takes of this thread."""
    begun = time.thread_time()
    function()
    return time.thread_time() - begun


@each_row(
    ("header", "demand"),
    [
        (None, Demand.WHOLE),
        ("bytes=0-9", Demand.BOUNDED),
        ("bytes=5-", Demand.OPEN),
        ("bytes=0-", Demand.OPEN),
        ("bytes=-5", Demand.BOUNDED),
        ("bytes=0-1,9-", Demand.BOUNDED),
        ("bytes=0-0,-1", Demand.BOUNDED),
        ("lines=0-", Demand.WHOLE),
        ("bytes=0-8999,0-8999", Demand.WHOLE),  # the whole representation serves better
    ],
)
def test_a_plan_shows_what_the_client_asks_for(header: str | None, demand: Demand) -> None:
    """Of ranges, only a single one without an end is open."""
    assert plan(RequestHead("GET", range=header), LARGE, NOW, BOUNDARY).demand is demand
