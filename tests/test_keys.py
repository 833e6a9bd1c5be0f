"""The mapping from wire path to key is total, strict and one to one (I23)."""

from urllib.parse import quote_from_bytes
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.errors import BadPath
from bucketfront.keys import (
    MAX_KEY_BYTES,
    ObjectKey,
    check_writable,
    parse_target,
    percent_decode,
    percent_encode,
    spelling_behind,
    to_key,
    url_path,
)

keys = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=300)


@each_row(
    ("raw", "path", "query"),
    [
        ("/", b"/", ""),  # RFC 9112 section 3.2.1: origin form
        ("/a/b.mp4", b"/a/b.mp4", ""),
        ("/a?x=1&y=/z?", b"/a", "x=1&y=/z?"),
        ("/a?", b"/a", ""),
        ("/a?x#y", b"/a", "x#y"),
        ("//host/a", b"//host/a", ""),  # no authority: it begins with a slash, so all of it is the path
        ("/a//b/", b"/a//b/", ""),  # no slash is merged
        ("/a/../b/./c", b"/a/../b/./c", ""),  # no dot segment is removed
        ("/..", b"/..", ""),
        ("/a+b", b"/a+b", ""),  # a plus stays a plus, because a path is no form
        ("/a%20b", b"/a b", ""),
        ("/a%2Fb", b"/a/b", ""),
        ("/a%2fb", b"/a/b", ""),
        ("/a%252Fb", b"/a%2Fb", ""),  # decoded once
        ("/%3Fx%23y", b"/?x#y", ""),
        ("/%00", b"/\0", ""),
        ("/%ff", b"/\xff", ""),
        ("/\udcff", b"/\xff", ""),  # a raw byte above 0x7F, as the parser passes it on
        ("/\udcc3\udcbc", "/ü".encode(), ""),
        ("/ü", "/ü".encode(), ""),
        ("/a\\b", b"/a\\b", ""),
        ("/a;p=1:8,@&=+$!*'()~", b"/a;p=1:8,@&=+$!*'()~", ""),
        ("http://host/a?b", b"/a", "b"),  # section 3.2.2: absolute form; the host has no effect
        ("http://user:pw@host:80/a", b"/a", ""),
        ("HTTPS://host", b"/", ""),
        ("http://host?x", b"/", "x"),
        ("s3+x.y-1://host/%61", b"/a", ""),
        ("http://host//a", b"//a", ""),
    ],
)
def test_targets(raw: str, path: bytes, query: str) -> None:
    """I23: the path is percent-decoded once and otherwise unchanged. The query is not part of it."""
    found = parse_target(raw)
    assert (found.path, found.query) == (path, query)
    assert found.spelling.startswith("/")
    assert found.spelling in (raw.partition("?")[0][-len(found.spelling) :], "/")


@each_row(
    "raw",
    [
        "",  # RFC 9112 section 3.2
        "a",
        "*",  # asterisk form, for OPTIONS alone
        "host:443",  # authority form, for CONNECT alone
        "?x",
        "http:/a",
        "1http://host/a",  # RFC 3986 section 3.1: a scheme begins with a letter
        "://host/a",
        "/a#b",  # section 3.5: a fragment is never sent
        "/%",  # section 2.1: "%" HEXDIG HEXDIG
        "/%4",
        "/%4/a",
        "/%zz",
        "/%4g",
        "/% 41",
        "/%+1",
        "/%-1",
        "/%%41",
        "/%u0041",
        "/%\n1",
        "/%ü",
        "/%\uff14\uff11",  # digits, but not HEXDIG
        "/a%?x",
        "http://host#f",  # RFC 3986 section 3.2: the authority ends at "/", "?" or "#"
        "http://host#/a",
    ],
)
def test_invalid_targets(raw: str) -> None:
    """I23: a target in another form, or with an invalid percent-escape, is BadPath."""
    with pytest.raises(BadPath):
        parse_target(raw)


def test_a_query_is_not_decoded() -> None:
    """A query is not decoded, so an invalid escape in it has no effect."""
    assert parse_target("/a?%zz").query == "%zz"


@each_row(
    "octets",
    [
        b"",
        b"\0",
        b"a\0b",
        b"\xff",
        b"\xc3",  # RFC 3629: cut short,
        b"\xc0\xaf",  # overlong "/",
        b"\xed\xa0\x80",  # a surrogate,
        b"\xf4\x90\x80\x80",  # beyond U+10FFFF
        b"k" * (MAX_KEY_BYTES + 1),  # S3 API: at most 1,024 bytes of UTF-8
        "é".encode() * 512 + b"k",
    ],
)
def test_invalid_key_octets(octets: bytes) -> None:
    """I23: an S3 key is 1 to 1024 bytes of UTF-8; NUL is refused."""
    with pytest.raises(BadPath):
        to_key(octets)


@each_row("octets", [b"k", b"k" * MAX_KEY_BYTES, "é".encode() * 512, b"/", b"..", b"\r\n\x1b\x7f", b"%"])
def test_valid_key_octets(octets: bytes) -> None:
    """I23: any other octets are the key that they encode, up to and with 1024 of them."""
    assert to_key(octets).encode() == octets


def test_normalisation_forms_are_different_keys() -> None:
    """I23: there is no Unicode normalisation, so NFC and NFD of one word are two keys."""
    assert to_key("ü".encode()) != to_key("u\u0308".encode())


@given(st.text() | st.text().map("/".__add__) | st.text(alphabet="/%0123456789abcdefAF.?#:x").map("/".__add__))
def test_parsing_is_total(raw: str) -> None:
    """I23: every string is a key's octets or BadPath, and no other exception is raised."""
    try:
        octets = parse_target(raw).path
        key = to_key(octets)
    except BadPath:
        return
    except UnicodeEncodeError:
        # The wire has bytes only: surrogates outside U+DC80..U+DCFF cannot come from it.
        assert any("\ud800" <= char <= "\udfff" and not "\udc80" <= char <= "\udcff" for char in raw)
        return
    assert key.encode() == octets
    assert 1 <= len(octets) <= MAX_KEY_BYTES


@given(st.binary(max_size=200))
def test_every_wire_target_is_a_path_or_bad(octets: bytes) -> None:
    """I23: bytes from the wire, with surrogate escapes, never raise another exception than BadPath."""
    try:
        parse_target("/" + octets.decode("utf-8", "surrogateescape"))
    except BadPath:
        assert b"%" in octets or b"#" in octets


@given(keys)
def test_encoding_round_trips(key: str) -> None:
    """I23: the encoded path of a key leads to that key and no other."""
    encoded = percent_encode(key)
    assert encoded.isascii()
    assert to_key(parse_target("/" + encoded).path.removeprefix(b"/")) == key


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_equal_keys_mean_equal_octets(one: bytes, other: bytes) -> None:
    """I23: two paths decode to one value only if their octets are equal, in any mix of escapes."""

    def escaped(octets: bytes) -> bytes:
        return "".join(f"%{octet:02x}" for octet in octets).encode()

    assert percent_decode(escaped(one)) == one
    assert percent_decode(quote_from_bytes(one).encode()) == one
    assert (percent_decode(escaped(one)) == percent_decode(quote_from_bytes(other).encode())) == (one == other)


@given(st.binary(max_size=100).filter(lambda octets: b"%" not in octets))
def test_without_escapes_nothing_changes(octets: bytes) -> None:
    """I23: decoding changes escapes only."""
    assert percent_decode(octets) == octets


def test_an_object_key_reads_as_bucket_and_key() -> None:
    """Messages name objects like S3's own tools, and equal keys of two buckets stay apart."""
    assert str(ObjectKey("bucket", "a/b")) == "bucket/a/b"
    assert ObjectKey("one", "a") != ObjectKey("two", "a")
    assert len({ObjectKey("one", "a"), ObjectKey("one", "a")}) == 1


@given(keys)
def test_keys_that_can_be_written(key: str) -> None:
    """Keys that an XML parser gives back can be written, because S3 repeats the key in XML."""
    document = "<a>" + "".join(f"&#{ord(character)};" for character in key) + "</a>"
    try:
        check_writable(key)
    except BadPath:
        with pytest.raises(ET.ParseError):
            ET.fromstring(document)
    else:
        assert ET.fromstring(document).text == key


@each_row("character", ["\x01", "\x0b", "\x1f", "\ufffe", "\uffff"])
def test_keys_that_cannot_be_written(character: str) -> None:
    """All control characters but three, and two noncharacters of Unicode, cannot be written."""
    with pytest.raises(BadPath):
        check_writable(f"a{character}b")


@given(st.binary(min_size=1, max_size=30), st.binary(max_size=30))
def test_the_spelling_of_a_mount(place: bytes, rest: bytes) -> None:
    """I23: the one spelling of a mount leads to it, names no host, and what follows keeps its own spelling."""
    spelling = url_path(b"/" + place)
    assert not spelling.startswith("//")
    assert parse_target(spelling).path == b"/" + place
    assert url_path(parse_target(spelling).path) == spelling
    follows = quote_from_bytes(rest).lower()
    for spelled in (spelling, "/" + "".join(f"%{octet:02x}" for octet in place)):
        assert spelling_behind(spelled + follows, len(place) + 1) == follows


def test_needed_escapes_only() -> None:
    """A character that a path may have is raw, and any other is an escape in upper case (RFC 3986 section 3.3)."""
    assert url_path("/a-b/~!$&'()*+,;=:@/ü [x]/".encode()) == "/a-b/~!$&'()*+,;=:@/%C3%BC%20%5Bx%5D/"
