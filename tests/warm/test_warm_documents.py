"""What playlists and sitemaps refer to, by pure parsers (RFC 8216, ISO/IEC 23009-1, sitemaps.org)."""

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.config.mount_settings import MountSettings
from bucketfront.keys import ObjectKey
from bucketfront.warm import dash, hls, sitemap
from bucketfront.warm.following import MAX_LINKS, Kind, follow, kind_of
from bucketfront.warm.item import Item
from bucketfront.warm.link import Link, NotFollowed
from bucketfront.warm.places import Places

MASTER = """\ufeff#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="English, first",URI="audio/en.m3u8"
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=86000,URI="iframe.m3u8"
#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES,URI="skd://key"

#EXT-X-STREAM-INF:BANDWIDTH=1280000,CODECS="avc1,mp4a",AUDIO="a"
low/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=7680000
hi/index.m3u8?token=secret
"""
MEDIA = """#EXTM3U
#EXT-X-TARGETDURATION:4
#EXT-X-MAP:URI="all.mp4",BYTERANGE="720@0"
#EXT-X-KEY:METHOD=AES-128,URI="../keys/1.key"
#EXTINF:4,
#EXT-X-BYTERANGE:1000@720
all.mp4
#EXTINF:4,
#EXT-X-BYTERANGE:500
all.mp4
#EXTINF:4,a title, with a comma
seg 3.ts
"""
TIMELINE = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT10S">
 <BaseURL>video/</BaseURL>
 <Period><AdaptationSet>
  <SegmentTemplate timescale="10" initialization="$RepresentationID$/init.mp4" media="$RepresentationID$/$Time$.m4s">
   <SegmentTimeline><S t="5" d="20" r="1"/><S d="10"/><S d="25" r="-1"/></SegmentTimeline>
  </SegmentTemplate>
  <Representation id="v1" bandwidth="5"/><Representation id="v2"><BaseURL>alt/</BaseURL></Representation>
 </AdaptationSet></Period>
</MPD>"""
NUMBERS = """<MPD mediaPresentationDuration="PT0H0M9.5S"{kind}>
 <Period><AdaptationSet><Representation id="a" bandwidth="64">
  <SegmentTemplate duration="4000" timescale="1000" startNumber="3" media="s-$Bandwidth$-$Number%05d$-$$.m4s"/>
 </Representation></AdaptationSet></Period></MPD>"""
LISTS = """<d:MPD xmlns:d="urn:mpeg:dash:schema:mpd:2011"><d:Period><d:AdaptationSet>
 <d:Representation><d:BaseURL>one.mp4</d:BaseURL><d:SegmentBase indexRange="0-99"/></d:Representation>
 <d:Representation><d:BaseURL>two.mp4</d:BaseURL><d:SegmentList><d:Initialization range="0-99"/>
  <d:SegmentURL mediaRange="100-299"/><d:SegmentURL media="b.m4s"/></d:SegmentList></d:Representation>
</d:AdaptationSet></d:Period></d:MPD>"""
SITEMAP = """<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:i="http://www.google.com/schemas/sitemap-image/1.1">
 <url><loc> https://example.com/a?x=1&amp;y </loc>
  <lastmod>2026-11-30</lastmod><i:image><i:loc>/i.png</i:loc></i:image></url>
 <url><loc>/b</loc></url></urlset>"""


def uris(links: Iterable[Link]) -> list[str]:
    return [link.uri for link in links]


def test_a_master_playlist() -> None:
    """Variants, renditions and keys of a master playlist are found in order, with commas in quoted attributes."""
    assert uris(hls.links(MASTER)) == [
        "audio/en.m3u8", "iframe.m3u8", "skd://key", "low/index.m3u8", "hi/index.m3u8?token=secret",
    ]  # fmt: skip


def test_a_media_playlist() -> None:
    """Segments have their ranges; one without an offset begins where the one before of its URI ended."""
    assert list(hls.links(MEDIA)) == [
        Link("all.mp4", first=0, last=719),
        Link("../keys/1.key"),
        Link("all.mp4", first=720, last=1719),
        Link("all.mp4", first=1720, last=2219),
        Link("seg 3.ts"),
    ]


@each_row("text", ["", "#EXTINF:4,\na.ts", "<html>", "EXTM3U"])
def test_no_playlist(text: str) -> None:
    """A text without #EXTM3U in its first line is no playlist, whatever its name is (RFC 8216 section 4.1)."""
    with pytest.raises(NotFollowed, match="EXTM3U"):
        list(hls.links(text))


def test_a_timeline() -> None:
    """A timeline gives each segment its time, also for repeats, and for those up to the end of the period."""
    found = list(dash.links(TIMELINE.encode()))
    times = ["5", "25", "45", "55", "80"]
    names = ["init.mp4", *(f"{time}.m4s" for time in times)]
    assert uris(found) == [f"{representation}/{name}" for representation in ("v1", "v2") for name in names]
    assert {link.bases for link in found} == {("video/",), ("video/", "alt/")}


def test_numbered_segments() -> None:
    """A template with a duration has as many segments as fit the period, and `%05d` and `$$` count."""
    found = dash.links(NUMBERS.format(kind="").encode())
    assert uris(found) == ["s-64-00003-$.m4s", "s-64-00004-$.m4s", "s-64-00005-$.m4s"]
    assert uris(dash.links(NUMBERS.format(kind=' type="dynamic"').encode())) == []


def test_lists_and_whole_files() -> None:
    """A segment list has ranges and files, and a representation of one file is that file."""
    assert list(dash.links(LISTS.encode())) == [
        Link("", ("one.mp4",)),
        Link("", ("two.mp4",), 0, 99),
        Link("", ("two.mp4",), 100, 299),
        Link("b.m4s", ("two.mp4",)),
    ]


def test_a_timeline_without_end() -> None:
    """A manifest that names 10**15 segments costs only those that are taken (I19, I22)."""
    text = TIMELINE.replace('r="1"', f'r="{10**15}"')
    assert len(list(islice(dash.links(text.encode()), 1000))) == 1000


def test_sitemaps() -> None:
    """Locations of pages and of further sitemaps are found, and images are not."""
    assert uris(sitemap.links(SITEMAP.encode())) == ["https://example.com/a?x=1&y", "/b"]
    index = "<sitemapindex><sitemap><loc>/s1.xml</loc></sitemap></sitemapindex>"
    assert uris(sitemap.links(index.encode())) == ["/s1.xml"]


@each_row(
    "document",
    [
        b"", b"<", b"<a/>", b"<urlset>", b"\xff\xfe", b'<?xml version="1.0" encoding="klingon"?><urlset/>',
        b'<!DOCTYPE urlset [<!ENTITY a "b">]><urlset><url><loc>&a;</loc></url></urlset>',
        b"<urlset>" + b"<url>" * 40, b"<urlset>" + b"<url/>" * 130_000,
    ],
)  # fmt: skip
def test_no_sitemap(document: bytes) -> None:
    """Malformed XML, entities, and documents too deep or too large are refused (I19)."""
    with pytest.raises(NotFollowed):
        list(sitemap.links(document))


PLACES = Places([MountSettings(path="/v/", bucket="b", prefix="media/"), MountSettings(path="/w/", bucket="c")])


def item(path: str) -> Item:
    return Item(PLACES.key(path), path)


def test_relative_references() -> None:
    """References are resolved as clients do it, queries are dropped, and ranges of one object are joined."""
    found = follow(Kind.HLS, MEDIA.encode(), item("/v/a%20b/x/list.m3u8"), PLACES, frozenset())
    assert [(one.path, one.range, one.depth) for one in found.items] == [
        ("/v/a%20b/x/all.mp4", "bytes=0-2219", 1),
        ("/v/a%20b/keys/1.key", None, 1),
        ("/v/a%20b/x/seg 3.ts", None, 1),
    ]
    assert found.items[0].key == ObjectKey("b", "media/a b/x/all.mp4")
    assert (found.outside, found.is_cut) == (0, False)


@each_row(
    "uri",
    [
        "https://evil.example/x.ts", "//evil.example/v/x.ts", "http://169.254.169.254/latest", "skd://key", "data:,x",
        "/other/x.ts", "../../../../etc/passwd", "file:///v/x", "http://self.invalid.evil.example/v/x", "http://[/v/x",
        "/v/", "/v/%zz", "/v/%00", "http://self.invalid:80/v/x", "http://self.invalid@evil.example/v/x",
    ],
)  # fmt: skip
def test_references_that_lead_outside(uri: str) -> None:
    """A URI of another host, of another scheme or of no mount is counted, and becomes no item (I29)."""
    found = follow(Kind.HLS, f"#EXTM3U\n{uri}\nok.ts".encode(), item("/v/list.m3u8"), PLACES, frozenset({"me.example"}))
    assert [one.path for one in found.items] == ["/v/ok.ts"]
    assert found.outside == 1


def test_our_own_names() -> None:
    """An absolute URL with a name of this proxy is one of its paths, and other names are shown."""
    text = "<urlset><url><loc>https://ME.example/v/a</loc></url><url><loc>https://www.example/b</loc></url></urlset>"
    found = follow(Kind.SITEMAP, text.encode(), item("/w/sitemap.xml"), PLACES, frozenset({"me.example"}))
    assert [one.key for one in found.items] == [ObjectKey("b", "media/a")]
    assert (found.outside, found.example) == (1, "www.example")


def test_a_document_with_too_many_references() -> None:
    """A document gives a bounded number of items, and what is left out is noted (I19)."""
    text = "#EXTM3U\n" + "".join(f"{number}.ts\n" for number in range(MAX_LINKS + 1))
    found = follow(Kind.HLS, text.encode(), item("/v/list.m3u8"), PLACES, frozenset())
    assert len(found.items) == MAX_LINKS
    assert found.is_cut


def test_kinds() -> None:
    """Names and types show what to follow. An XML file of a bucket's list is no sitemap."""
    assert kind_of(item("/v/a.M3U8"), "") is Kind.HLS
    assert kind_of(item("/v/a"), "Application/vnd.apple.mpegurl; charset=utf-8") is Kind.HLS
    assert kind_of(item("/v/a.mpd"), "text/plain") is Kind.DASH
    assert kind_of(item("/v/sitemap.xml"), "") is Kind.SITEMAP
    assert kind_of(Item(ObjectKey("b", "x.xml"), "/v/x.xml", is_listed=True), "application/xml") is None
    assert kind_of(item("/v/a.mp4"), "video/mp4") is None


@given(st.text() | st.text(alphabet='#EXTM3U-MAPKY:URI="\n,@0123456789a/'))
def test_any_text(text: str) -> None:
    """Any text is parsed, or refused with a reason."""
    for kind in Kind:
        with suppress(NotFollowed):
            follow(kind, f"#EXTM3U\n{text}".encode(), item("/v/x"), PLACES, frozenset())
