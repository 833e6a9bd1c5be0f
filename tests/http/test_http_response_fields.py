"""Header fields from their lines: lists, contradictions, and octets that are no text."""

from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http.response_fields import ResponseFields, is_text, octets


def fields(*lines: tuple[str, bytes]) -> ResponseFields:
    return ResponseFields((name.encode(), value) for name, value in lines)


@each_row("name", ["Cache-Control", "CDN-Cache-Control", "Content-Encoding", "x-amz-meta-a", "Vary"])
def test_lines_of_a_list_are_one_list(name: str) -> None:
    """RFC 9110 section 5.3: the lines of a list field are one list, in order, whatever the case of its name is."""
    found = fields((name, b"b"), ("ETag", b'"1"'), (name.upper(), b"a"), (name.lower(), b"b"))
    assert found[name.lower()] == "b, a, b"


@each_row("name", ["ETag", "Content-Range", "Content-Length", "Last-Modified", "x-amz-version-id"])
def test_equal_lines_of_another_field_are_one(name: str) -> None:
    """RFC 9110 section 5.5: a line that repeats a field that is no list is a copy, or a contradiction."""
    found = fields((name, b"1"), (name, b"1"))
    assert (found[name.lower()], found.agreed(name.lower())) == ("1", "1")
    found = fields((name, b"1"), (name, b"2"), (name, b"1"))
    assert (found[name.lower()], found.agreed(name.lower())) == ("1, 2", None)
    assert fields().agreed(name.lower()) is None


def test_single_members() -> None:
    """RFC 9111 section 5.1: the first Age counts. RFC 9110 section 8.3: the last Content-Type does."""
    found = fields(("Age", b"400 , 0"), ("Age", b"7"), ("Content-Type", b"text/a"), ("Content-Type", b"text/b; a=b"))
    assert (found.first("age"), found.last("content-type")) == ("400", "text/b; a=b")
    assert (found.first("expires"), found.last("expires")) == (None, None)


@given(st.binary())
def test_octets_survive(value: bytes) -> None:
    """A value has the octets that the origin sent. Control characters except tab are spaces (RFC 9110 section 5.5)."""
    controls = {*range(32), 127} - {9}
    expected = bytes(32 if octet in controls else octet for octet in value).strip(b" \t")
    (found,) = fields(("x-amz-meta-a", value)).values()
    assert octets(found) == expected


def test_text() -> None:
    """A value is text if its octets are UTF-8."""
    assert is_text("schön, 日本")
    assert is_text(fields(("a", "schön".encode()))["a"])
    assert not is_text(fields(("a", "schön".encode("latin-1")))["a"])


@each_row("name", [b"", b"a b", b"a\xff", b"x-amz-meta-\xc3\xb6", b"a:"])
def test_a_name_that_is_no_token_is_dropped(name: bytes) -> None:
    """I28: a name that cannot be sent on is no field (RFC 9110 section 5.1)."""
    assert len(ResponseFields([(name, b"1")])) == 0
