"""Media types by extension: IANA's registry, the HTML and MIME sniffing standards."""

import re

from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import media_types


@each_row(
    ("name", "expected"),
    [
        # Players: RFC 8216 section 10, ISO/IEC 23009-1, ISO/IEC 23000-19, RFC 3555, RFC 4337
        ("live/index.m3u8", "application/vnd.apple.mpegurl"),
        ("a.m3u", "application/vnd.apple.mpegurl"),
        ("a.mpd", "application/dash+xml"),
        ("seg-1.m4s", "video/iso.segment"),
        ("seg-1.ts", "video/mp2t"),
        ("a.mp4", "video/mp4"),
        ("a.m4v", "video/mp4"),
        ("a.m4a", "audio/mp4"),
        ("a.cmfv", "video/mp4"),
        ("a.cmfa", "audio/mp4"),
        ("a.cmft", "application/mp4"),
        ("a.mov", "video/quicktime"),
        ("a.webm", "video/webm"),
        ("a.mkv", "video/x-matroska"),
        ("a.vtt", "text/vtt; charset=utf-8"),
        ("a.srt", "application/x-subrip"),
        ("a.ttml", "application/ttml+xml"),
        # RFC 5334, RFC 7845, RFC 3003, RFC 9639
        ("a.ogg", "audio/ogg"),
        ("a.oga", "audio/ogg"),
        ("a.ogv", "video/ogg"),
        ("a.opus", "audio/ogg"),
        ("a.mp3", "audio/mpeg"),
        ("a.aac", "audio/aac"),
        ("a.flac", "audio/flac"),
        ("a.wav", "audio/wav"),
        # The web: RFC 9239, WebAssembly's web API, HTML, Web App Manifest, RFC 8081
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.wasm", "application/wasm"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.html", "text/html; charset=utf-8"),
        ("a.htm", "text/html; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.js.map", "application/json"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.xml", "application/xml"),
        ("a.svg", "image/svg+xml"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.csv", "text/csv; charset=utf-8"),
        ("a.ico", "image/vnd.microsoft.icon"),
        ("a.png", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.gif", "image/gif"),
        ("a.webp", "image/webp"),
        ("a.avif", "image/avif"),
        ("a.heic", "image/heic"),
        ("a.jxl", "image/jxl"),
        ("a.woff", "font/woff"),
        ("a.woff2", "font/woff2"),
        ("a.ttf", "font/ttf"),
        ("a.otf", "font/otf"),
        ("a.pdf", "application/pdf"),
        ("a.zip", "application/zip"),
        ("a.js.gz", "application/gzip"),
        ("a.js.br", "application/x-brotli"),
        ("a.js.zst", "application/zstd"),
        ("a.tar", "application/x-tar"),
        ("a.glb", "model/gltf-binary"),
        ("a.gltf", "model/gltf+json"),
        ("a.ism", "application/vnd.ms-sstr+xml"),
        # Which part of a name counts
        ("A.MP4", "video/mp4"),
        ("a.b.c.Ts", "video/mp2t"),
        (".config.json", "application/json"),
        ("a.mp4/b", None),
        ("a.mp4/", None),
        ("a.d/b.ts", "video/mp2t"),
        (".ts", None),
        ("a/.ts", None),
        ("..ts", None),
        ("a.", None),
        ("ts", None),
        ("a.ts ", None),
        ("a.nobody-knows", None),
        ("", None),
        ("/", None),
        (".", None),
    ],
)
def test_types(name: str, expected: str | None) -> None:
    """The last extension of the last segment names the type, in any case."""
    assert media_types.of(name) == expected


@each_row(
    ("names", "expected"),
    [
        ("js mjs css html json map xml svg txt md csv webmanifest vtt srt ttml gltf yaml", True),
        ("m3u8 mpd ism wasm ttf otf", True),
        ("woff woff2 mp4 m4s ts cmfv mp3 png jpg webp gz br zst zip pdf glb docx", False),
        ("nobody-knows", False),
    ],
)
def test_what_is_worth_compressing(names: str, expected: bool) -> None:
    """Text under all its names, playlists, wasm and bare fonts are; what is compressed already is not."""
    assert {name: media_types.is_compressible(f"a/b.{name}") for name in names.split()} == dict.fromkeys(
        names.split(), expected
    )
    assert not media_types.is_compressible("a/.js")


def test_every_type_can_be_sent() -> None:
    """Every entry is a media type (RFC 9110 section 8.3.1), text with its charset, and found by its extension."""
    assert len(media_types.BY_EXTENSION) > 80
    for extension, content_type in media_types.BY_EXTENSION.items():
        assert re.fullmatch(r"[a-z0-9]+", extension)
        assert re.fullmatch(r"[a-z]+/[a-z0-9.+-]+(; charset=utf-8)?", content_type), extension
        assert content_type.startswith("text/") == content_type.endswith("; charset=utf-8"), extension
        assert media_types.of(f"a.{extension}") == content_type


def test_a_type_set_on_purpose_is_not_generic() -> None:
    """S3's default type is generic. `application/octet-stream` is not, because a client may have set it."""
    assert frozenset({"binary/octet-stream"}) == media_types.GENERIC


@each_row("content_type", ["text/html", "Text/HTML;charset=utf-8", "text/html ; a=b; c"])
def test_essence(content_type: str) -> None:
    """Types compare without parameters, in any case (MIME sniffing standard, section 2)."""
    assert media_types.essence(content_type) == "text/html"


@given(st.text())
def test_is_total(name: str) -> None:
    """Any name gives a known type or None, and only a name with a type is worth compressing."""
    found = media_types.of(name)
    assert found is None or found in media_types.BY_EXTENSION.values()
    assert found is not None or not media_types.is_compressible(name)


@each_row(
    ("content_type", "is_active"),
    [
        ("text/html", True),
        ("TEXT/HTML ; charset=utf-8", True),
        ("application/xhtml+xml", True),
        ("image/svg+xml", True),
        ("application/rss+xml; a", True),
        ("text/xml", True),
        ("application/xml;;", True),
        ("text/xsl", True),
        ("multipart/related; boundary=a", True),
        ("message/rfc822", True),
        # Malformed
        ("", True),
        (";", True),
        ("*", True),
        ("/", True),
        ("text/", True),
        ("text /plain", True),
        ("text/plain charset=utf-8", True),
        ("text/plain(a)", True),
        ("text/plain,text/html", True),
        ("text/plain; a=b, text/html", True),
        ('text/plain; a="b", text/html', True),
        ('text/plain; a="b\\", text/html', True),
        ('text/plain; a="b', True),
        ("text/plain\x0b", True),
        ("text/plain\udcff", True),
        # Harmless
        ("text/plain", False),
        ("\ttext/plain ;charset = utf-8 ; ", False),
        ('text/plain; a="b, \\" text/html"; c', False),
        ("text/javascript", False),
        ("application/pdf", False),
        ("application/json", False),
        ("application/xmlx", False),
        ("text/htmlx", False),
    ],
)
def test_active_types(content_type: str, is_active: bool) -> None:
    """HTML, XML and containers of them are active, and so is what browsers may understand in different ways."""
    assert media_types.is_active(content_type) is is_active


@given(st.text(alphabet=';,"\\ /ab=') | st.text())
def test_active_or_read_alike(value: str) -> None:
    """A value that is not active has one type, whatever is behind it: no part of it is another member of a list."""
    if not media_types.is_active(value):
        assert re.fullmatch(r"[^\s;,\"]+/[^\s;,\"]+", media_types.essence(value))
        assert "," not in re.sub(r'"(?:[^"\\]|\\.)*"', "", value, flags=re.DOTALL)


@each_row("value", ["a/b" + ";" * 100_000 + ",", 'a/b;"' + "\\" * 100_001, "a/b;" + '""' * 50_000 + '"'])
def test_active_types_cost_linear_time(value: str) -> None:
    """A long value is read once."""
    assert media_types.is_active(value)


@each_row(
    ("content_type", "listed"),
    [("text/html", True), ("Text/HTML;a", True), ("image/svg+xml", True), ("image/png", True), ("text/xml", False)],
)
def test_is_among(content_type: str, listed: bool) -> None:
    """A list has types and families of types."""
    assert media_types.is_among(content_type, ("text/html", "image/*")) is listed
    assert media_types.is_among(content_type, ("*/*",))
    assert not media_types.is_among(content_type, ())
