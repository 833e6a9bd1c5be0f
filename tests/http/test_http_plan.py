"""The plan of an answer: RFC 9110."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http import dates
from proxy.http.metadata import Metadata
from proxy.http.plan import Plan, RequestHead, plan
from proxy.http.ranges import Span

MODIFIED = 1_700_000_000.0
NOW = MODIFIED + 3600
AT, BEFORE, AFTER = (dates.format(MODIFIED + shift) for shift in (0, -1, 1))
OBJECT = Metadata(etag='"v1"', size=11, last_modified=AT)
EMPTY = Metadata(etag='"v1"', size=0, last_modified=AT)
ONE_BYTE = Metadata(etag='"v1"', size=1, last_modified=AT)
WEAK = Metadata(etag='W/"v1"', size=11, last_modified=AT)
HUGE = "9" * 30


def get(**fields: str) -> RequestHead:
    return RequestHead("GET", **fields)


def head(**fields: str) -> RequestHead:
    return RequestHead("HEAD", **fields)


def whole(size: int = 11) -> tuple[int, str, None, Span]:
    return 200, str(size), None, Span(0, size)


def part(start: int, stop: int, size: int = 11) -> tuple[int, str, str, Span]:
    return 206, str(stop - start), f"bytes {start}-{stop - 1}/{size}", Span(start, stop)


def unsatisfiable(size: int = 11) -> tuple[int, str, str, None]:
    return 416, "0", f"bytes */{size}", None


NOT_MODIFIED = (304, None, None, None)
FAILED = (412, "0", None, None)
HEAD_OF_ALL = (200, "11", None, None)


def header(answer: Plan, name: str) -> str | None:
    """The one value of a header; two of them are a defect."""
    values = [value for sent, value in answer.headers if sent.lower() == name.lower()]
    assert len(values) <= 1, f"{name} twice"
    return values[0] if values else None


@pytest.mark.parametrize(
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
        pytest.param(get(range="bytes=0-0,-1"), OBJECT, whole(), id="14.2: several may be answered whole"),
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
    expected: tuple[int, str | None, str | None, Span | None],
) -> None:
    """I1, I3: status, Content-Length, Content-Range and span are those of RFC 9110."""
    answer = plan(request_head, metadata, NOW)
    length, content_range = header(answer, "Content-Length"), header(answer, "Content-Range")
    assert (answer.status, length, content_range, answer.span) == expected


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


def test_head_has_the_headers_of_get() -> None:
    """RFC 9110 section 9.3.2: HEAD answers as GET does, less the body."""
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
    for answer in (plan(get(), bare, NOW), plan(get(if_none_match="*"), bare, NOW)):
        assert header(answer, "ETag") is None
        assert header(answer, "Last-Modified") is None


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "get", ""])
def test_other_methods_are_refused(method: str) -> None:
    """A plan for a write is misuse, and the message names the cure."""
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
def test_span_and_length_agree(request: RequestHead, metadata: Metadata) -> None:
    """I3: whatever is asked, the span lies within the object and Content-Length is its length."""
    answer = plan(request, metadata, NOW)
    assert answer.status in {200, 206, 304, 412, 416}
    if answer.span is None:
        assert request.method == "HEAD" or answer.status in {304, 412, 416}
        return
    assert answer.status in {200, 206}
    assert 0 <= answer.span.start <= answer.span.stop <= metadata.size
    assert header(answer, "Content-Length") == str(answer.span.length)
    if answer.status == 200:
        assert answer.span == Span(0, metadata.size)
        assert header(answer, "Content-Range") is None
    else:
        sent = f"bytes {answer.span.start}-{answer.span.stop - 1}/{metadata.size}"
        assert header(answer, "Content-Range") == sent


@given(REQUEST, METADATA)
def test_head_differs_from_get_by_the_range_and_the_body_only(request: RequestHead, metadata: Metadata) -> None:
    """RFC 9110 section 9.3.2: HEAD gives the status and headers that GET gives without a Range."""
    fields = {name: getattr(request, name) for name in RequestHead.__slots__ if name not in {"method", "range"}}
    answer = plan(RequestHead("GET", **fields), metadata, NOW)
    expected = Plan(answer.status, answer.headers)
    assert plan(RequestHead("HEAD", range=request.range, **fields), metadata, NOW) == expected
