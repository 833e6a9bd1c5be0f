"""Warm jobs that follow playlists and sitemaps, over real sockets."""

from proxy_under_test import S3, Proxy, StartProxy, pattern
from test_warm import is_hit, warmed

SEGMENT = pattern(3000)
HLS = {"ContentType": "application/vnd.apple.mpegurl"}
ALL = ("/live/low/seg1.ts", "/live/low/init.mp4", "/live/hi/seg1.ts", "/live/audio/a.aac")


def put_stream(s3: S3) -> None:
    s3.put(
        "live/master.m3u8",
        b'#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="audio/a.m3u8"\n'
        b"#EXT-X-STREAM-INF:BANDWIDTH=1\nlow/list.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nhi/list?signature=secret\n",
        **HLS,
    )
    s3.put("live/low/list.m3u8", b'#EXTM3U\n#EXT-X-MAP:URI="init.mp4"\nseg1.ts\nhttps://evil.example/seg2.ts\n', **HLS)
    s3.put("live/hi/list", b"#EXTM3U\n/live/hi/seg1.ts\n../master.m3u8\n", **HLS)
    s3.put("live/audio/a.m3u8", b"#EXTM3U\na.aac\n", **HLS)
    for path in ALL:
        s3.put(path[1:], SEGMENT)


async def test_an_hls_stream(proxy: Proxy, s3: S3) -> None:
    """A master playlist leads to all segments of its variants. A circle ends, and other hosts get nothing (I29)."""
    put_stream(s3)
    report = await warmed(proxy, paths=["/live/master.m3u8"])
    assert (report["state"], report["failed"], report["documents"]) == ("done", 0, 4)
    assert (report["outside"], report["outside_example"]) == (1, "evil.example")
    assert all([await is_hit(proxy, path) for path in ALL])
    assert "secret" not in str(report)  # (I28)
    again = await warmed(proxy, paths=["/live/master.m3u8"])
    assert (again["filled"], again["documents"]) == (0, 4)


async def test_without_following(proxy: Proxy, s3: S3) -> None:
    """With `follow` off, a playlist is an object as any other."""
    put_stream(s3)
    report = await warmed(proxy, paths=["/live/master.m3u8"], follow=False)
    assert (report["filled"], report["documents"]) == (1, 0)
    assert not await is_hit(proxy, ALL[0])


async def test_a_dash_manifest(proxy: Proxy, s3: S3) -> None:
    """A static DASH manifest leads to its segments."""
    s3.put(
        "d/manifest.mpd",
        b'<MPD mediaPresentationDuration="PT4S"><Period><AdaptationSet>'
        b'<SegmentTemplate duration="2" initialization="$RepresentationID$-init.mp4" '
        b'media="$RepresentationID$-$Number$.m4s"/>'
        b'<Representation id="v"/></AdaptationSet></Period></MPD>',
    )
    for name in ("v-init.mp4", "v-1.m4s", "v-2.m4s"):
        s3.put(f"d/{name}", SEGMENT)
    report = await warmed(proxy, paths=["/d/manifest.mpd"])
    assert (report["filled"], report["failed"]) == (4, 0)
    assert await is_hit(proxy, "/d/v-2.m4s")


async def test_sitemaps(start: StartProxy, s3: S3) -> None:
    """An index of sitemaps leads to pages. The names of the proxy are those of its configuration and of the request."""
    proxy = await start(server={"hosts": ["www.example", "localhost"]})
    s3.put("sitemap.xml", b"<sitemapindex><sitemap><loc>https://www.example/s1.xml</loc></sitemap></sitemapindex>")
    s3.put(
        "s1.xml",
        b"<urlset><url><loc>https://www.example/a.html</loc></url><url><loc>https://cdn.example/b.html</loc></url>"
        b"<url><loc>https://other.example/c.html</loc></url></urlset>",
    )
    for name in ("a", "b", "c"):
        s3.put(f"{name}.html", SEGMENT)
    report = await warmed(proxy, paths=["/sitemap.xml"], hosts=["CDN.example"])
    assert (report["filled"], report["documents"], report["outside"]) == (4, 2, 1)
    assert await is_hit(proxy, "/b.html")
    assert not await is_hit(proxy, "/c.html")


async def test_documents_that_cannot_be_followed(proxy: Proxy, s3: S3) -> None:
    """A playlist that is malformed or compressed is in the cache and counts as failed, with the reason."""
    s3.put("bad.m3u8", b"no playlist")
    s3.put("zipped.m3u8", b"\x1f\x8b", ContentEncoding="gzip")
    s3.put("entities.mpd", b'<!DOCTYPE MPD [<!ENTITY a "b">]><MPD/>')
    s3.put("feed.xml", b"<rss/>")
    paths = ["/bad.m3u8", "/zipped.m3u8", "/entities.mpd", "/feed.xml"]
    report = await warmed(proxy, paths=paths)
    assert (report["failed"], report["objects_done"]) == (3, 4)
    reasons = {failure["path"]: failure["reason"] for failure in report["failures"]}
    assert "#EXTM3U" in reasons["/bad.m3u8"]
    assert "Content-Encoding" in reasons["/zipped.m3u8"]
    assert "document type" in reasons["/entities.mpd"]
    assert all([await is_hit(proxy, path) for path in paths])
