"""Query strings: S3 API, GetObject and the sub-resources; the form encoding of the URL standard."""

import re
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import query
from bucketfront.http.query import NOTHING, BadQuery, Query, QueryTooLong


def test_no_query_costs_nothing() -> None:
    """The empty query is the one constant."""
    assert query.parse("") is NOTHING
    assert Query() == NOTHING
    assert query.subresource("") is None


@each_row(
    ("text", "expected"),
    [
        # GetObject: versionId
        ("versionId=abc", Query(version="abc")),
        ("versionId=null", Query(version="null")),
        ("versionId=a%2Bb%3d", Query(version="a+b=")),
        ("versionId=a=b", Query(version="a=b")),
        ("%76ersionId=abc", Query(version="abc")),
        ("versionId=" + "v" * 1024, Query(version="v" * 1024)),
        ("versionid=abc", Query(others=("versionid",))),
        # GetObject: response-*
        ("response-content-type=text/plain", Query(overrides=(("Content-Type", "text/plain"),))),
        ("response-content-language=de", Query(overrides=(("Content-Language", "de"),))),
        ("response-content-encoding=gzip", Query(overrides=(("Content-Encoding", "gzip"),))),
        ("response-cache-control=no-cache", Query(overrides=(("Cache-Control", "no-cache"),))),
        (
            "response-expires=Thu,+01+Dec+1994+16:00:00+GMT",
            Query(overrides=(("Expires", "Thu, 01 Dec 1994 16:00:00 GMT"),)),
        ),
        (
            "response-content-disposition=attachment%3B%20filename%3D%22a%09b.mp4%22",
            Query(overrides=(("Content-Disposition", 'attachment; filename="a\tb.mp4"'),)),
        ),
        (
            "response-expires=0&a&response-content-type=a/b&versionId=1",
            Query("1", (("Expires", "0"), ("Content-Type", "a/b")), ("a",)),
        ),
        ("response-content-type=" + "t" * 2048, Query(overrides=(("Content-Type", "t" * 2048),))),
        ("Response-Content-Type=a/b", Query(others=("Response-Content-Type",))),
        ("response-content-length=1", Query(others=("response-content-length",))),
        # Whatever else
        ("_=1&utm_source=x", Query(others=("_", "utm_source"))),
        ("a=1&a=2", Query(others=("a", "a"))),
        ("100", Query(others=("100",))),
        ("a=%zz", Query(others=("a",))),
        ("a=%ff", Query(others=("a",))),
        ("=x", Query(others=("",))),
        ("a+b=1", Query(others=("a b",))),
        ("%C3%A9=1", Query(others=("\u00e9",))),
        ("\u00e9=1", Query(others=("\u00e9",))),
        ("\udcc3\udca9=1", Query(others=("\u00e9",))),  # octets above 0x7F come as surrogate escapes
        ("&&a&", Query(others=("a",))),
        ("&", Query()),
        ("a;versionId=1", Query(others=("a;versionId",))),
    ],
)
def test_what_a_read_asks_for(text: str, expected: Query) -> None:
    """Parameters that S3's GetObject knows mean the same here; the others are listed."""
    assert query.parse(text) == expected


@each_row(
    ("text", "named"),
    [
        # An empty or doubtful version
        ("versionId", "versionId"),
        ("versionId=", "versionId"),
        ("versionId=a&versionId=a", "versionId"),
        ("versionId=a&%76ersionId=b", "versionId"),
        ("versionId=SECRET%20b", "versionId"),
        ("versionId=SECRET+b", "versionId"),
        ("versionId=SECRET%00", "versionId"),
        ("versionId=SECRET%0a", "versionId"),
        ("versionId=SECRET%C3%A9", "versionId"),
        ("versionId=SECRET%", "versionId"),
        ("versionId=SECRET%f", "versionId"),
        ("versionId=SECRET%fg", "versionId"),
        ("versionId=SECRET%ff", "versionId"),
        ("versionId=SECRET%\uff11\uff11", "versionId"),
        ("versionId=" + "v" * 1025, "versionId"),
        # What would not be one header field (RFC 9110 section 5.5)
        ("response-content-type=SECRET%0d%0aSet-Cookie:a", "response-content-type"),
        ("response-content-type=SECRET%0aX:%20y", "response-content-type"),
        ("response-content-type=SECRET%0d", "response-content-type"),
        ("response-content-type=SECRET%0a", "response-content-type"),
        ("response-content-type=SECRET%00", "response-content-type"),
        ("response-content-type=SECRET%7f", "response-content-type"),
        ("response-content-type=SECRET%1b[2J", "response-content-type"),
        ("response-content-disposition=SECRET%C3%A9", "response-content-disposition"),
        ("response-content-disposition=SECRET%ff", "response-content-disposition"),
        ("response-content-disposition=SECRET\ud800", "response-content-disposition"),
        ("response-content-language=+SECRET", "response-content-language"),
        ("response-content-language=SECRET%09", "response-content-language"),
        ("response-content-language=+", "response-content-language"),
        ("response-content-encoding=", "response-content-encoding"),
        ("response-cache-control", "response-cache-control"),
        ("response-expires=0&response-expires=0", "response-expires"),
        ("response-content-type=" + "t" * 2049, "response-content-type"),
        # Names that cannot be read
        ("%zz=SECRET", "name"),
        ("%=SECRET", "name"),
        ("%ff=SECRET", "name"),
        ("%C3=%A9SECRET", "name"),
        ("\ud800=SECRET", "name"),
    ],
)
def test_what_cannot_be_meant(text: str, named: str) -> None:
    """A value that is malformed, repeated or would break a header is refused by name and not quoted (I28)."""
    with pytest.raises(BadQuery, match=named) as raised:
        query.parse(text)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("read", [query.parse, query.subresource])
def test_bounds(read: object) -> None:
    """I22: 8192 characters and 100 parameters are read, one more is refused, of a write's query too."""
    assert callable(read)
    read("a=" + "x" * 8190)
    read("&".join(["a"] * 100))
    with pytest.raises(QueryTooLong, match="8193 characters"):
        read("a=" + "x" * 8191)
    with pytest.raises(BadQuery, match="100 parameters"):
        read("&".join(["a"] * 101))


@each_row(
    ("text", "expected"),
    [
        ("acl", "acl"),
        ("tagging=", "tagging"),
        ("a=1&uploads&acl", "uploads"),
        ("partNumber=1&uploadId=x", "partNumber"),
        ("versionId=x", "versionId"),
        ("select&select-type=2", "select"),
        ("legal-hold", "legal-hold"),
        ("%61cl", "acl"),
        ("acl=%zz", "acl"),
        ("delete", "delete"),
        ("ACL", None),
        ("aclx=1", None),
        ("x=acl", None),
        ("x-id=PutObject", None),  # AWS SDKs name the operation on plain requests
        ("response-content-type=a/b", None),
        ("X-Amz-Signature=0", None),
    ],
)
def test_subresources(text: str, expected: str | None) -> None:
    """The first parameter that S3 would read as something else than the object itself is found."""
    assert query.subresource(text) == expected


@each_row(
    ("text", "of_anybody", "of_s3"),
    [
        ("", None, None),
        ("acl", "acl", "acl"),
        ("acl=", "acl", "acl"),
        ("acl=1", None, "acl"),
        ("v=1&tagging", "tagging", "tagging"),
        ("session=abc&location=here", None, "session"),
        ("list-type=2&prefix=a", "list-type", "list-type"),
        ("partNumber=2", "partNumber", "partNumber"),
        ("uploadId=x", "uploadId", "uploadId"),
        ("versionId=x", None, None),
        ("versionId=", None, None),
        ("prefix=", None, "prefix"),
        ("x-id=GetObject", None, None),
        ("response-expires=0", None, None),
    ],
)
def test_operations_of_reads(text: str, of_anybody: str | None, of_s3: str | None) -> None:
    """A parameter means another operation if S3's clients send it so, and with any value from one of them."""
    assert query.operation_of_read(text, is_s3=False) == of_anybody
    assert query.operation_of_read(text, is_s3=True) == of_s3


OBJECT_WRITES = "acl annotation legal-hold partNumber renameObject restore retention select tagging uploadId uploads"


def test_every_write_of_s3_that_is_not_put_object_is_known() -> None:
    """S3 API: the parameters of the operations that write to a key, or delete some of what is at it."""
    assert {*OBJECT_WRITES.split(), "encryption", "select-type", "versionId"} <= query.SUBRESOURCES


def test_a_write_that_cannot_be_read_is_refused() -> None:
    """A parameter that might be a sub-resource is not passed over."""
    with pytest.raises(BadQuery):
        query.subresource("%61cl%=1")


VALUES = st.from_regex(re.compile(r"[!-~]([ -~\t]{0,40}[!-~])?"), fullmatch=True)
RESPONSE = {
    "response-content-type": "Content-Type",
    "response-content-language": "Content-Language",
    "response-content-disposition": "Content-Disposition",
    "response-content-encoding": "Content-Encoding",
    "response-cache-control": "Cache-Control",
    "response-expires": "Expires",
}


@given(st.dictionaries(st.sampled_from(list(RESPONSE)), VALUES), st.booleans())
def test_every_header_value_gets_through(values: dict[str, str], plus: bool) -> None:
    """What a client encodes, '+' or '%20' for a space, comes back as it was, in its order."""
    text = urlencode(values) if plus else urlencode(values, quote_via=quote)
    assert query.parse(text) == Query(overrides=tuple((RESPONSE[name], value) for name, value in values.items()))


PIECES = st.sampled_from(["versionId", "=", "&", "%", "%0d", "%0A", "%00", "+", " ", "%25", "%zz", "response-expires",
                          "response-content-type", "\r\n", "\udc80", "\ud800", "acl", "a"])  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=3), max_size=20).map("".join) | st.text())
def test_is_total_and_safe(text: str) -> None:
    """Any text is a Query or BadQuery, and what it holds fits into one header (RFC 9110 section 5.5)."""
    try:
        found = query.parse(text)
    except BadQuery:
        return
    for value in [*(value for _, value in found.overrides), *([] if found.version is None else [found.version])]:
        assert value
        assert value == value.strip()
        assert value.isascii()
        assert value.replace("\t", "").isprintable()


@given(st.lists(PIECES | st.text(max_size=3), max_size=20).map("".join) | st.text())
def test_subresource_is_total(text: str) -> None:
    """Any text has a sub-resource, has none, or is refused."""
    try:
        found = query.subresource(text)
    except BadQuery:
        return
    assert found is None or found in query.SUBRESOURCES
