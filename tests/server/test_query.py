"""A query string may select a version of an object or override headers of the response.

Everything else has no effect.
"""

from typing import Any

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until

OVERRIDES = [
    ("response-content-type=text%2Fplain%3B+charset%3Dutf-8", "Content-Type", "text/plain; charset=utf-8"),
    ("response-content-disposition=attachment%3B%20filename%3D%22a.txt%22", "Content-Disposition",
     'attachment; filename="a.txt"'),
    ("response-content-language=de", "Content-Language", "de"),
    ("response-content-encoding=identity", "Content-Encoding", "identity"),
    ("response-cache-control=no-store", "Cache-Control", "no-store"),
    ("response-expires=Thu%2C%2001%20Dec%201994%2016%3A00%3A00%20GMT", "Expires", "Thu, 01 Dec 1994 16:00:00 GMT"),
]  # fmt: skip


@pytest.fixture
def versioned(s3: S3) -> S3:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    return s3


@pytest.fixture
async def with_versions(start: StartProxy, versioned: S3) -> Proxy:
    return await start(mounts=[mount_of(versioned)])


def mount_of(s3: S3) -> dict[str, Any]:
    """Return the settings of a mount that serves versions."""
    return {"path": "/", "bucket": s3.bucket, "methods": ["GET", "PUT", "DELETE"], "versions": True}


def put(s3: S3, key: str, body: bytes, **parameters: Any) -> str:
    """Store an object. Returns the version id."""
    return str(s3.client.put_object(Bucket=s3.bucket, Key=key, Body=body, **parameters)["VersionId"])


async def test_versions(with_versions: Proxy, versioned: S3) -> None:
    """Each version is an entry of its own, with its own bytes and ETag, also for ranges.

    Without an id the current version is served.
    """
    bodies = [pattern(2 * BLOCK + 9, seed) for seed in (1, 2, 3)]
    ids = [put(versioned, "x", body) for body in bodies]
    for _ in range(2):
        for name, body in zip(ids, bodies, strict=True):
            response = await with_versions.get(f"/x?versionId={name}")
            assert (response.status, response.body) == (200, body)
            part = await with_versions.get(f"/x?versionId={name}", Range="bytes=70000-70009")
            assert (part.status, part.body) == (206, body[70000:70010])
        assert (await with_versions.get("/x")).body == bodies[-1]
    assert with_versions.figures["entries"] == 4


async def test_versions_are_immutable(with_versions: Proxy, versioned: S3) -> None:
    """A pinned version is never revalidated, neither after a time nor after a write to its key."""
    old = put(versioned, "x", b"old")
    put(versioned, "x", b"new")
    assert (await with_versions.get(f"/x?versionId={old}")).body == b"old"
    with_versions.relay.reset()
    with_versions.clock.advance(10 * 365 * 86400)
    assert (await with_versions.request("PUT", "/x", body=b"newer")).status == 201
    assert (await with_versions.request("DELETE", "/x")).status == 204
    response = await with_versions.get(f"/x?versionId={old}")
    assert (response.body, response.cache_status.partition(";")[0]) == (b"old", "hit")
    assert not [seen for seen in with_versions.relay.seen if "versionId" in seen.target]


async def test_version_that_is_not_there(with_versions: Proxy, versioned: S3) -> None:
    """S3's 404 stays a 404, and a malformed id is a 400. A delete marker has S3's status, 404 or 405."""
    put(versioned, "x", b"data")
    response = await with_versions.get("/x?versionId=")
    assert response.status == 400
    assert (await with_versions.get("/x?versionId=a&versionId=b")).status == 400
    marker = versioned.client.delete_object(Bucket=versioned.bucket, Key="x")["VersionId"]
    assert (await with_versions.get(f"/x?versionId={marker}")).status in (404, 405)
    assert (await with_versions.request("HEAD", f"/x?versionId={marker}")).status in (404, 405)
    missing = "3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo"
    assert (await with_versions.get(f"/x?versionId={missing.replace('+', '%2B')}")).status in (400, 404)
    assert (await with_versions.get("/x")).status == 404


async def test_origin_without_versions(with_versions: Proxy, s3: S3) -> None:
    """If the origin ignores the id, its current object does not count as that version (I1)."""
    s3.put("x", b"data")
    response = await with_versions.get("/x?versionId=abc")
    assert response.status in (400, 404, 502)
    assert (await with_versions.get("/x")).body == b"data"


async def test_purge_takes_versions_along(with_versions: Proxy, versioned: S3) -> None:
    """A purge of a path includes all its versions, also after a restart (I27)."""
    name = put(versioned, "x", b"data")
    await with_versions.get(f"/x?versionId={name}")
    await with_versions.get("/x")
    assert with_versions.figures["entries"] == 2
    response = await with_versions.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')
    assert response.json() == {"purged": 2}
    await until(lambda: not with_versions.files)


async def test_versions_survive_a_restart(start: StartProxy, versioned: S3) -> None:
    """The index keeps versions apart."""
    proxy = await start(mounts=[mount_of(versioned)])
    name = put(versioned, "x", b"old")
    put(versioned, "x", b"new")
    for target in ("/x", f"/x?versionId={name}"):
        await proxy.get(target)
    await proxy.stop()
    proxy = await start(mounts=[mount_of(versioned)])
    proxy.relay.reset()
    assert (await proxy.get("/x")).body == b"new"
    assert (await proxy.get(f"/x?versionId={name}")).body == b"old"
    assert proxy.relay.seen == []


async def test_versions_are_off_by_default(start: StartProxy, versioned: S3) -> None:
    """Without `versions` the id is like any other parameter, because an old version may hold what was deleted."""
    mount = {"path": "/", "bucket": versioned.bucket}
    name = put(versioned, "x", b"old")
    put(versioned, "x", b"new")
    proxy = await start(mounts=[mount])
    assert (await proxy.get(f"/x?versionId={name}")).body == b"new"
    await proxy.stop()
    assert proxy.figures["entries"] == 1
    await proxy.stop()
    proxy = await start(mounts=[{**mount, "query": "refuse"}])
    assert (await proxy.get(f"/x?versionId={name}")).status == 400


async def test_versions_of_an_inner_mount(start: StartProxy, versioned: S3) -> None:
    """A mount whose `versions` are off keeps them from a mount above it with the same bucket (I32)."""
    outer = {"path": "/", "bucket": versioned.bucket, "versions": True, "response_overrides": True}
    inner = {"path": "/other/", "bucket": versioned.bucket, "prefix": "kept/"}
    proxy = await start(mounts=[outer, inner])
    for key, served in (("x", b"old"), ("kept/x", b"new")):
        name = put(versioned, key, b"old")
        put(versioned, key, b"new")
        assert (await proxy.get(f"/{key}?versionId={name}")).body == served
        response = await proxy.get(f"/{key}?response-content-language=de")
        assert response.headers.get("Content-Language") == ("de" if served == b"old" else None)


@pytest.mark.parametrize(("query", "header", "value"), OVERRIDES)
async def test_overrides(start: StartProxy, s3: S3, query: str, header: str, value: str) -> None:
    """S3 GetObject's `response-*` change the headers of this response, also of HEAD and of a range, and of no other
    response.
    """
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "response_overrides": True}])
    s3.put("x", b"data", ContentType="text/html")
    for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=0-1"})):
        plain = (await proxy.request(method, "/x", headers)).headers.get(header)
        assert (await proxy.request(method, f"/x?{query}", headers)).headers[header] == value
        assert (await proxy.request(method, "/x", headers)).headers.get(header) == plain != value
    assert proxy.figures["entries"] == 1


async def test_overrides_are_opt_in(proxy: Proxy, s3: S3) -> None:
    """By default a link cannot change the type of an object."""
    s3.put("x", b"data", ContentType="text/plain")
    response = await proxy.get("/x?response-content-type=text%2Fhtml")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/plain")


@pytest.mark.parametrize("value", ["a%0d%0aSet-Cookie:%20x", "%00", "%c3%a4", "", "%zz", "x" * 3000])
async def test_no_header_injection(start: StartProxy, s3: S3, value: str) -> None:
    """A value that no header may have is a 400, which does not repeat it (I28; RFC 9110 section 5.5)."""
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "response_overrides": True}])
    response = await proxy.get(f"/x?response-content-type={value}")
    assert response.status == 400
    assert "Cookie" not in str(response.headers) + str(response.body)
    assert proxy.relay.seen == []


async def test_others_are_ignored(proxy: Proxy, s3: S3) -> None:
    """Any other parameter is no part of the key (I25): one entry, one request to the origin."""
    s3.put("x", b"data")
    for query in ("?v=1", "?v=2&utm_source=x", "?X-Amz-Signature=abc", "?ACL", "?"):
        assert (await proxy.get(f"/x{query}")).body == b"data"
    assert len(proxy.relay.seen) == 1


async def test_others_may_be_refused(start: StartProxy, s3: S3) -> None:
    """A setting refuses made-up parameters, so that they cannot fill a CDN's cache with copies."""
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "query": "refuse"}])
    s3.put("x", b"data")
    assert (await proxy.get("/x?v=1")).status == 400
    assert (await proxy.get("/x")).body == b"data"
    assert (await proxy.get("/x?")).body == b"data"


@pytest.mark.parametrize("query", ["tagging", "acl", "uploads", "partNumber=1&uploadId=x", "delete", "versionId=abc"])
async def test_writes_that_mean_something_else(proxy: Proxy, s3: S3, query: str) -> None:
    """An S3 client's `PUT /x?tagging` is no PUT of the object. It is a 501, and the object stays unchanged."""
    s3.put("x", b"data")
    assert (await proxy.request("PUT", f"/x?{query}", body=b"<Tagging/>")).status == 501
    assert (await proxy.request("DELETE", f"/x?{query}")).status == 501
    assert s3.get("x") == b"data"
    assert proxy.relay.seen == []
