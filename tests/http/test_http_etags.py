"""Entity tags: RFC 9110 section 8.8.3."""

from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import etags
from bucketfront.http.etags import ANY, ETag

OPAQUE = st.text("!#[]\\,*/ab\x7e\x80\u00e9\udcff", max_size=6).map('"{}"'.format)
TAG = st.builds(ETag, OPAQUE, weak=st.booleans())


@each_row(
    ("text", "tag"),
    [
        ('"xyzzy"', ETag('"xyzzy"')),
        ('W/"xyzzy"', ETag('"xyzzy"', weak=True)),
        ('""', ETag('""')),
        ('"d41d8cd98f00b204e9800998ecf8427e-38"', ETag('"d41d8cd98f00b204e9800998ecf8427e-38"')),
        ('"a,b"', ETag('"a,b"')),
        ('"a\\"', ETag('"a\\"')),
        ('"\u00e9\udcff"', ETag('"\u00e9\udcff"')),
        ("xyzzy", None),
        ('w/"xyzzy"', None),
        ('W/ "xyzzy"', None),
        ('"xyzzy', None),
        ('xyzzy"', None),
        ('"a b"', None),
        ('"a\x7f"', None),
        ('"a"b"', None),
        ("*", None),
        ("", None),
        ('"a"\n', None),
    ],
)
def test_parses_one_tag(text: str, tag: ETag | None) -> None:
    """RFC 9110 section 8.8.3: a quoted opaque tag, with a case-sensitive `W/` where it is weak."""
    assert etags.parse(text) == tag


@each_row(
    ("header", "expected"),
    [
        ("*", ANY),
        (" * ", ANY),
        ('"a"', (ETag('"a"'),)),
        ('"a", W/"b"', (ETag('"a"'), ETag('"b"', weak=True))),
        ('"a","b"', (ETag('"a"'), ETag('"b"'))),
        ('"a"\t,\t"b"', (ETag('"a"'), ETag('"b"'))),
        ('"a,b", "c"', (ETag('"a,b"'), ETag('"c"'))),
        (', "a",, ,"b" ,', (ETag('"a"'), ETag('"b"'))),
        ("", ()),
        (" , ", ()),
        ('"a" "b"', None),
        ('"a""b"', None),
        ('"a", b', None),
        ('"a", *', None),
        ("*, *", None),
        ('"a", "b', None),
        ("abc", None),
        ('"a"; "b"', None),
    ],
)
def test_parses_a_list(header: str, expected: object) -> None:
    """RFC 9110 sections 5.6.1.2 and 13.1.1: empty elements are skipped, a malformed list is None."""
    assert etags.parse_list(header) == expected


@each_row(
    ("one", "other", "strong", "weak"),
    [
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', '"1"', True, True),
    ],
)
def test_comparison(one: str, other: str, *, strong: bool, weak: bool) -> None:
    """The table of RFC 9110 section 8.8.3.2, in both directions."""
    left, right = etags.parse(one), etags.parse(other)
    assert left is not None
    assert right is not None
    assert etags.strong_match(left, right) is etags.strong_match(right, left) is strong
    assert etags.weak_match(left, right) is etags.weak_match(right, left) is weak


@given(st.lists(TAG), st.sampled_from([",", ", ", " ,\t", ",,", " , , "]))
def test_a_written_list_parses_back(tags: list[ETag], separator: str) -> None:
    """Whatever the tags hold, commas included, a list of them is read as it was written."""
    assert etags.parse_list(separator.join(map(str, tags))) == tuple(tags)


@given(st.text('W/"*, \tab\x80') | st.text())
def test_parse_list_is_total(header: str) -> None:
    """Any text is a list, the wildcard or malformed, and the tags of a list are tags on their own."""
    found = etags.parse_list(header)
    assert found is None or found is ANY or all(etags.parse(str(tag)) == tag for tag in found)
