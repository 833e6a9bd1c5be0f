"""Uploaded pages do not run with the rights of the origin that serves them: active types become downloads."""

from typing import Any

import pytest
from proxy_under_test import S3, Proxy, StartProxy
from rows import each_row

PAGE = b"<script>alert(document.domain)</script>"
ACTIVE = [
    "text/html",
    "Text/HTML; charset=utf-8",
    " text/html ",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/xml;a=b",
    "multipart/x-mixed-replace; boundary=x",
    "text/html garbage",
    "text/plain, text/html",
    'text/plain; a="b, text/html',
    "html",
]
PASSIVE = ["text/plain", "text/plain; charset", "image/png", "application/pdf", 'audio/ogg; codecs="vorbis, opus"']


def mount(s3: S3, **settings: Any) -> dict[str, Any]:
    return {"path": "/", "bucket": s3.bucket, **settings}


async def disposition(proxy: Proxy, target: str, **fields: str) -> str | None:
    """Return the Content-Disposition of a miss, then of hits, of HEAD and of a range, which all agree."""
    responses = [await proxy.get(target, **fields) for _ in range(4)]
    responses.append(await proxy.request("HEAD", target, fields))
    responses.append(await proxy.get(target, Range="bytes=1-3", **fields))
    assert [response.status for response in responses] == [200] * 5 + [206]
    (found,) = {response.headers.get("Content-Disposition") for response in responses}
    return found


@each_row("kind", ACTIVE)
async def test_active_types_of_uploads(proxy: Proxy, s3: S3, kind: str) -> None:
    """On a mount that takes uploads, active and malformed types are attachments on each path of a response
    (I33).
    """
    s3.put("x", PAGE, ContentType=kind)
    assert await disposition(proxy, "/x") == "attachment"


@each_row("kind", PASSIVE)
async def test_other_types_of_uploads(proxy: Proxy, s3: S3, kind: str) -> None:
    """Media, documents and text are shown."""
    s3.put("x", PAGE, ContentType=kind)
    assert await disposition(proxy, "/x") is None


async def test_guessed_types(proxy: Proxy, s3: S3) -> None:
    """A type that comes from the extension counts like a stored one."""
    for key, wanted in (("a.html", "attachment"), ("a.svg", "attachment"), ("a.txt", None)):
        assert (await proxy.request("PUT", f"/{key}", body=PAGE)).status == 201
        assert await disposition(proxy, f"/{key}") == wanted


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ('inline; filename="a.html"', 'attachment; filename="a.html"'),
        ("INLINE", "attachment"),
        ('filename="a.html"', 'attachment; filename="a.html"'),
        ("attachment, inline; filename=a", "attachment; filename=a"),
        ("Attachment; filename=a", "Attachment; filename=a"),
    ],
)
async def test_stored_dispositions(proxy: Proxy, s3: S3, stored: str, sent: str) -> None:
    """The object's own `inline` does not evade it, and its file name stays."""
    s3.put("x", PAGE, ContentType="text/html", ContentDisposition=stored)
    assert await disposition(proxy, "/x") == sent


async def test_dispositions_of_other_types(proxy: Proxy, s3: S3) -> None:
    """What an object of another type has is sent as it is."""
    s3.put("x", b"data", ContentType="text/plain", ContentDisposition='inline; filename="a"')
    assert await disposition(proxy, "/x") == 'inline; filename="a"'


async def test_queries_and_rules_do_not_evade_it(start: StartProxy, s3: S3) -> None:
    """The type and the disposition count as they are sent, whatever set them."""
    rules = [{"match": "rule/**", "headers": {"Content-Type": "text/html", "Content-Disposition": "inline"}}]
    settings = mount(s3, methods=["GET", "PUT"], response_overrides=True)
    proxy = await start(mounts=[settings], freshness={"rules": rules})
    s3.put("x.html", PAGE, ContentType="text/html")
    s3.put("x.txt", PAGE, ContentType="text/plain")
    s3.put("rule/x", PAGE, ContentType="text/plain")
    assert await disposition(proxy, "/x.html?response-content-disposition=inline") == "attachment"
    assert await disposition(proxy, "/x.txt?response-content-type=text/html") == "attachment"
    assert await disposition(proxy, "/x.html?response-content-type=text/plain") is None
    assert await disposition(proxy, "/rule/x") == "attachment"


@pytest.mark.parametrize(
    ("settings", "uploads", "shown"),
    [
        ({}, None, True),
        ({"methods": ["GET", "DELETE"]}, None, True),
        ({"methods": ["GET", "PUT"]}, None, False),
        ({"methods": ["GET", "POST"]}, None, False),
        ({}, {"mount": "/"}, False),
        ({}, {"mount": "/other/"}, True),
        ({"methods": ["GET", "PUT"], "inline_types": ["text/HTML"]}, None, True),
        ({"methods": ["GET", "PUT"], "inline_types": ["text/*"]}, None, True),
        ({"methods": ["GET", "PUT"], "inline_types": ["*/*"]}, None, True),
        ({"methods": ["GET", "PUT"], "inline_types": ["image/svg+xml"]}, None, False),
        ({"inline_types": []}, None, False),
    ],
)
async def test_which_mounts_show_pages(
    start: StartProxy, s3: S3, settings: dict[str, Any], uploads: dict[str, Any] | None, shown: bool
) -> None:
    """A mount without uploads shows all, one with uploads what it lists."""
    other = {"path": "/other/", "bucket": s3.bucket, "prefix": "other/"}
    proxy = await start(mounts=[mount(s3, **settings), other], uploads=uploads)
    s3.put("x", PAGE, ContentType="text/html; charset=utf-8")
    assert await disposition(proxy, "/x") == (None if shown else "attachment")


async def test_uploads_through_another_mount(start: StartProxy, s3: S3) -> None:
    """A key counts as an upload by whatever mount it is read, and the longest prefix decides (I32, I33)."""
    mounts = [
        mount(s3),
        {"path": "/drop/", "bucket": s3.bucket, "prefix": "drop/", "methods": ["GET", "PUT"]},
        {"path": "/shared/", "bucket": s3.bucket, "prefix": "shared/"},
        {"path": "/in/", "bucket": s3.bucket, "prefix": "shared/", "methods": ["GET", "POST"]},
        {"path": "/all/", "bucket": s3.bucket, "inline_types": ["*/*"]},
    ]
    proxy = await start(mounts=mounts, uploads=None)
    for key in ("x", "drop/x", "shared/x"):
        s3.put(key, PAGE, ContentType="text/html")
    assert await disposition(proxy, "/x") is None
    assert await disposition(proxy, "/shared/x") == "attachment"
    for path in ("/all/drop/x", "/all/shared/x"):
        assert await disposition(proxy, path) == "attachment"


async def test_sites(start: StartProxy, s3: S3) -> None:
    """Pages of a site, its error documents and precompressed siblings count like all other objects."""
    site = {"errors": {"404": "404.html"}}
    settings = mount(s3, methods=["GET", "PUT"], site=site, precompressed=["gzip"])
    s3.put("index.html", PAGE, ContentType="text/html")
    s3.put("404.html", PAGE, ContentType="text/html")
    s3.put("a.svg", PAGE, ContentType="image/svg+xml")
    s3.put("a.svg.gz", PAGE, ContentType="application/gzip")
    for listed, wanted in (([], "attachment"), (["text/html", "image/svg+xml"], None)):
        proxy = await start(mounts=[{**settings, "inline_types": listed}])
        assert await disposition(proxy, "/") == wanted
        assert await disposition(proxy, "/a.svg", **{"Accept-Encoding": "gzip"}) == wanted
        for method in ("GET", "HEAD"):
            missing = await proxy.request(method, "/none")
            assert (missing.status, missing.headers.get("Content-Disposition")) == (404, wanted)
        await proxy.stop()
