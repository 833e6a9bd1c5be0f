"""The mount that serves a key decides on it, by whatever route the key arrives (I32)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxy_under_test import S3, Proxy, StartProxy
from test_delete_objects import document, result
from test_upload_forms import TYPE as FORM
from test_upload_forms import form, part
from tus_client import TUS, created, metadata, patched

from bucketfront.config.mount_settings import MountSettings
from bucketfront.server.inner_mounts import InnerMounts

ALL = ["GET", "HEAD", "PUT", "POST", "DELETE"]
CREATION = {**TUS, "Upload-Length": "3"}
prefixes = st.text("a/", max_size=4).filter(lambda text: not text.startswith("/"))


@given(st.lists(st.tuples(prefixes, st.sampled_from(["x", "y"])), min_size=1, max_size=6), st.text("a/", max_size=6))
def test_the_longest_prefix_decides(places: list[tuple[str, str]], key: str) -> None:
    """The inner mount is the first with the longest prefix of the key in the bucket, if that is longer than the
    mount's own (I32).
    """
    mounts = [
        MountSettings(path=f"/{number}/", bucket=bucket, prefix=prefix)
        for number, (prefix, bucket) in enumerate(places)
    ]
    inner_mounts = InnerMounts(mounts)
    for mount in mounts:
        inner = inner_mounts.of(mount, key.encode())
        longer = [
            other
            for other in mounts
            if other.bucket == mount.bucket and key.startswith(other.prefix) and len(other.prefix) > len(mount.prefix)
        ]
        assert inner == max(longer, key=lambda other: len(other.prefix), default=None)
        if inner is not None and inner.prefix.startswith(mount.prefix):
            assert inner in inner_mounts.below(mount)
            assert inner_mounts.has_any


@pytest.fixture
async def proxy(start: StartProxy, s3: S3) -> Proxy:
    """`/` takes everything, `/private/` below it only reads, and `/drop/` only small new objects."""
    below = [
        {"path": "/private/", "bucket": s3.bucket, "prefix": "private/", "methods": ["GET", "HEAD"]},
        {
            "path": "/drop/",
            "bucket": s3.bucket,
            "prefix": "drop/",
            "methods": ["PUT"],
            "write_once": True,
            "max_size": 8,
        },
    ]
    return await start(mounts=[{"path": "/", "bucket": s3.bucket, "methods": ALL}, *below])


async def test_writes_to_a_mount_that_only_reads(proxy: Proxy, s3: S3) -> None:
    """No write arrives at a key of a read-only mount: not by the upload route, a form, tus or DeleteObjects (I32)."""
    s3.put("private/a", b"old")
    file = part("file", b"new", "a")
    for target, headers, body in (
        ("/upload/private/a", {}, b"new"),
        ("/upload/private/", {}, b"new"),
        ("/upload", FORM, form(part("key", b"private/a"), file)),
        ("/", FORM, form(part("key", b"private/${filename}"), file)),
        ("/upload/private/a", CREATION, b""),
        ("/upload", {**CREATION, "Upload-Metadata": metadata(key="private/a")}, b""),
    ):
        response = await proxy.request("POST", target, headers, body)
        assert response.status == 403, target
        assert b"/private/" in response.body
    assert (await proxy.request("PUT", "/private/a", body=b"new")).status == 405
    deleted = await proxy.request("POST", "/?delete", body=document("private/a", "b"))
    assert result(deleted) == (["b"], {"private/a": "AccessDenied"})
    assert s3.get("private/a") == b"old"
    assert s3.keys() == ["private/a"]
    assert (await proxy.get("/private/a")).body == b"old"
    assert (await proxy.request("POST", "/upload/public/a", body=b"new")).status == 201


async def test_limits_of_the_inner_mount(proxy: Proxy, s3: S3) -> None:
    """`write_once` and `max_size` of the mount that serves a key hold on the upload route, for forms and tus (I32)."""
    assert (await proxy.request("POST", "/upload/drop/a", body=b"12345678")).status == 201
    assert (await proxy.request("POST", "/upload/drop/a", body=b"again")).status == 412
    assert (await proxy.request("POST", "/upload/drop/b", body=b"123456789")).status == 413
    for content, status in ((b"123456789", 413), (b"12", 412)):
        sent = form(part("key", b"drop/a"), part("file", content, "x"))
        assert (await proxy.request("POST", "/upload", FORM, sent)).status == status
    assert (await proxy.request("POST", "/upload/drop/c", {**TUS, "Upload-Length": "9"})).status == 413
    url = await created(proxy, 2, key="drop/a")
    assert (await patched(proxy, url, 0, b"12")).status == 412
    assert s3.get("drop/a") == b"12345678"
    assert s3.keys() == ["drop/a"]


@pytest.mark.parametrize("is_fast", [True, False])
async def test_reads_of_a_mount_that_takes_none(start: StartProxy, s3: S3, *, is_fast: bool) -> None:
    """A mount above gives no read of keys whose own mount takes only writes, also if they are in the cache (I32)."""
    mounts = [
        {"path": "/all/", "bucket": s3.bucket, "methods": ["GET"]},
        {"path": "/in/", "bucket": s3.bucket, "prefix": "in/", "methods": ["PUT"]},
    ]
    proxy = await start(mounts=mounts, uploads=None, server={"fast_path": is_fast})
    for key in ("in/a", "a"):
        s3.put(key, b"data")
    assert (await proxy.request("PUT", "/in/b", body=b"data")).status == 201
    for _ in range(3):
        for key in ("in/a", "in/b"):
            for method in ("GET", "HEAD"):
                assert (await proxy.request(method, f"/all/{key}")).status == 403
        assert (await proxy.get("/all/a")).status == 200
        await proxy.settled()
