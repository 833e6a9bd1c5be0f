"""Keys made for uploads, and from the file names that clients send (I23)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import key_template
from bucketfront.http.key_template import BadTemplate, KeyTemplate

NOW = 1_793_000_000.0  # 2026-10-26 in UTC


@each_row(
    ("template", "filename", "key"),
    [
        ("{ulid}", None, "U"),
        ("{ulid}", "a.jpg", "U"),
        ("{ulid}{ext}", "a.JPG", "U.JPG"),
        ("{ulid}{ext}", "archive.tar.gz", "U.gz"),
        ("{ulid}{ext}", "README", "U"),
        ("{ulid}{ext}", ".profile", "U"),
        ("{ulid}{ext}", "a.b c", "U"),
        ("{date}/{ulid}", None, "2026/10/26/U"),
        ("in/{filename}", "a b.txt", "in/a b.txt"),
        ("{filename}", None, "U"),
        ("{filename}", "", "U"),
        ("{filename}", "..", "U"),
        ("{filename}", "{ulid}", "{ulid}"),  # a name is text, no template
    ],
)
def test_keys(template: str, filename: str | None, key: str) -> None:
    """Each placeholder, with a file's name and without."""
    assert KeyTemplate(template).key(NOW, "U", filename) == key


@each_row(
    "template",
    ["", "x", "{date}", "{ext}", "{ulid", "ulid}", "{ULID}", "{ulid}{}", "{{ulid}}", "/{ulid}", "../{ulid}",
     "a/./{ulid}", "{ulid}/..", "{ulid}/{ext}.", "{ulid}\n", "{ulid}\0", "\u202e{ulid}"],
)  # fmt: skip
def test_templates_that_make_no_key(template: str) -> None:
    """One key for all, an unknown placeholder, or a way out of the folder: refused when it is configured (I30)."""
    with pytest.raises(BadTemplate, match=r"^must "):
        KeyTemplate(template)


@each_row(
    ("filename", "cleaned"),
    [
        ("photo.jpg", "photo.jpg"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("a/..", None),
        ("...", None),
        ("a\r\nb\x00\x7f\x85.txt", "ab.txt"),
        ("gpj.\u202eexe", "gpj.exe"),  # an override of the direction shows another extension
        ("  a.txt ", "a.txt"),
        ("ü日本.txt", "ü日本.txt"),
        ("\udcff", None),
        ("x" * 300 + ".jpeg", "x" * 250 + ".jpeg"),
        ("ü" * 200, "ü" * 127),
    ],
)
def test_names(filename: str, cleaned: str | None) -> None:
    """A name becomes its last segment, without invisible characters, and no longer than file systems take."""
    assert key_template.clean(filename) == cleaned


@given(st.text(max_size=400), st.sampled_from(["{filename}", "a/{filename}", "{date}/{ulid}-{filename}{ext}"]))
def test_no_name_leads_out_of_the_folder(filename: str, template: str) -> None:
    """I23: whatever the name, the key has the template's folders, no segment that means another one, and is UTF-8."""
    key = KeyTemplate(template).key(NOW, "U", filename)
    assert key.count("/") == KeyTemplate(template).key(NOW, "U", "x").count("/")
    assert not key_template.has_dot_segment(key)
    assert len(key.encode()) < 700
    assert not any(ord(character) < 32 for character in key)


@each_row(
    ("path", "resolved"),
    [
        ("/a/b/c/./../../g", "/a/g"),  # RFC 3986 section 5.2.4
        ("/", "/"),
        ("/.", "/"),
        ("/..", "/"),
        ("/./a", "/a"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/../../a", "/a"),
        ("/a//../b", "/a/b"),
        ("/.//a", "//a"),
        ("/...", "/..."),
        ("/.a/a.", "/.a/a."),
    ],
)
def test_without_dot_segments(path: str, resolved: str) -> None:
    """They are removed as the RFC does it, and the result has none."""
    assert key_template.without_dot_segments(path) == resolved
    assert not key_template.has_dot_segment(resolved)
