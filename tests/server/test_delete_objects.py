"""S3's DeleteObjects, `POST {mount}?delete`.

A deleted object is never served again (I5), and no key outside the mount is deleted.
"""

import asyncio
import base64
import hashlib
import zlib
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from proxy_under_test import S3, Proxy, StartProxy
from relay import Cut, Seen, canned
from stopwatch import HANG_S
from wire import Response, message

from bucketfront.http.delete_objects import MAX_BODY_BYTES, NAMESPACE
from bucketfront.server.handlers import uploads


def document(*keys: str, quiet: bool = False) -> bytes:
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    told = "<Quiet>true</Quiet>" if quiet else ""
    return f'<?xml version="1.0"?><Delete xmlns="{NAMESPACE}">{objects}{told}</Delete>'.encode()


def result(response: Response) -> tuple[list[str], dict[str, str]]:
    """Return the deleted keys, and the error codes by key."""
    assert (response.status, response.headers["Content-Type"]) == (200, "application/xml")
    root, name = ET.fromstring(response.body), f"{{{NAMESPACE}}}"
    deleted = [one.findtext(f"{name}Key", "") for one in root.iter(f"{name}Deleted")]
    return deleted, {
        one.findtext(f"{name}Key", ""): one.findtext(f"{name}Code", "") for one in root.iter(f"{name}Error")
    }


async def test_deleted_objects_are_gone(proxy: Proxy, s3: S3) -> None:
    """Cached objects are not served after their deletion.

    A key without an object counts as deleted, and other objects stay (I5).
    """
    keys = ["a b", "ü/x", "<&>", "never"]
    for key in (*keys[:3], "stays"):
        s3.put(key, b"data")
    for target in ("/a%20b", "/%C3%BC/x", "/%3C&%3E", "/stays"):
        assert (await proxy.get(target)).status == 200
    response = await proxy.request("POST", "/?delete", body=document(*keys))
    assert result(response) == (keys, {})
    assert s3.keys() == ["stays"]
    for target in ("/a%20b", "/%C3%BC/x", "/%3C&%3E"):
        assert (await proxy.get(target)).status == 404
    assert (await proxy.get("/stays")).body == b"data"


@pytest.mark.parametrize("above", [True, False])
async def test_a_mount_without_its_slash(start: StartProxy, s3: S3, *, above: bool) -> None:
    """S3 clients send DeleteObjects and forms to a bucket's URL, which has no slash, and OPTIONS names the method."""
    mounts = [{"path": "/b/", "bucket": s3.bucket, "prefix": "in/", "methods": ["GET", "POST", "DELETE"]}]
    if above:
        mounts.append({"path": "/", "bucket": s3.bucket, "methods": ["GET", "PUT"]})
    proxy = await start(mounts=mounts, uploads=None)
    for key in ("x", "in/x"):
        s3.put(key, b"data")
    assert result(await proxy.request("POST", "/b?delete", body=document("x"))) == (["x"], {})
    assert s3.keys() == ["x"]
    kind = {"Content-Type": "multipart/form-data; boundary=a"}
    fields = (("key", "", "k/${filename}"), ("policy", "", "e30="), ("file", '; filename="f"', "new"))
    heads = (f'--a\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n' for name, more, _ in fields)
    parts = (f"{head}{text}\r\n" for head, (_, _, text) in zip(heads, fields, strict=True))
    response = await proxy.request("POST", "/b", kind, "".join((*parts, "--a--\r\n")).encode())
    assert (response.status, response.json(), s3.get("in/k/f")) == (201, {"key": "k/f"}, b"new")
    assert response.headers["Location"] == "/b/k/f"
    allowed = (await proxy.request("OPTIONS", "/b?delete")).headers["Allow"].split(", ")
    assert ("POST" in allowed, "DELETE" in allowed, "PUT" in allowed) == (True, False, above)


async def test_a_mount_without_its_slash_that_takes_no_posts(start: StartProxy, s3: S3) -> None:
    """Such a POST is a 404, as of a path below no mount, and the upload route has precedence."""
    mounts = [{"path": "/b/", "bucket": s3.bucket}, {"path": "/upload/", "bucket": s3.bucket, "methods": ["PUT"]}]
    proxy = await start(mounts=mounts, uploads={"mount": "/b/"})
    for target, status in (("/b", 404), ("/b/", 405), ("/b?delete", 404), ("/b/?delete", 405)):
        assert (await proxy.request("POST", target, {}, document("x"))).status == status
    assert (await proxy.request("POST", "/upload", {}, b"data")).status == 201
    assert (await proxy.request("POST", "/none", {}, b"data")).status == 404
    assert (await proxy.request("PUT", "/b", {}, b"data")).status == 404


async def test_keys_are_below_the_mount(start: StartProxy, s3: S3) -> None:
    """Keys are relative to the mount, and no key outside its prefix is reached (I23)."""
    mount = {"path": "/m/", "bucket": s3.bucket, "prefix": "root/", "methods": ["DELETE"]}
    proxy = await start(mounts=[mount], uploads=None)
    for key in ("root/x", "x", "root/../x"):
        s3.put(key, b"data")
    assert result(await proxy.request("POST", "/m/?delete=", body=document("x", "../x"))) == (["x", "../x"], {})
    assert s3.keys() == ["x"]


async def test_quiet_and_what_is_not_taken(proxy: Proxy, s3: S3) -> None:
    """With Quiet the response has failures only. Versions, conditions and long keys are refused one by one."""
    s3.put("a", b"1")
    s3.put("b", b"2")
    plain = document("a", "x" * 1025, quiet=True).decode()
    more = "<Object><Key>b</Key><VersionId>1</VersionId></Object><Object><Key>c</Key><ETag>x</ETag></Object></Delete>"
    s3.put("c", b"3")
    response = await proxy.request("POST", "/?delete", body=plain.replace("</Delete>", more).encode())
    assert result(response) == ([], {"x" * 1025: "KeyTooLongError", "b": "NotImplemented", "c": "NotImplemented"})
    assert s3.keys() == ["b", "c"]


async def test_a_key_with_a_version_and_without(proxy: Proxy, s3: S3) -> None:
    """A version of a key that is refused changes nothing for the key itself in the same document."""
    s3.put("a", b"data")
    body = document("a").decode()
    for versioned in ("<VersionId>null</VersionId>", "<VersionId></VersionId>"):
        s3.put("a", b"data")
        both = body.replace("<Object>", f"<Object><Key>a</Key>{versioned}</Object><Object>")
        response = await proxy.request("POST", "/?delete", body=both.encode())
        assert result(response) == (["a"], {"a": "NotImplemented"})
        assert s3.keys() == []


async def test_a_thousand(proxy: Proxy, s3: S3) -> None:
    """S3's limit of keys, each of them cached before."""
    keys = [f"k{number}" for number in range(1000)]
    for key in keys[::100]:
        s3.put(key, b"data")
        assert (await proxy.get(f"/{key}")).status == 200
    assert result(await proxy.request("POST", "/?delete", body=document(*keys))) == (keys, {})
    for key in keys[::100]:
        assert (await proxy.get(f"/{key}")).status == 404
    assert (await proxy.request("POST", "/?delete", body=document(*keys, "one more"))).status == 400


async def test_reads_during_a_delete(proxy: Proxy, s3: S3) -> None:
    """Entries that a read stores while S3 deletes are not served afterwards (I5, I6)."""

    async def read_meanwhile(seen: Seen) -> bytes | None:
        if seen.method == "POST":
            assert [(await proxy.get(f"/{key}")).body for key in keys] == [b"data"] * len(keys)
        return None

    keys = [f"k{number}" for number in range(40)]
    for key in keys:
        s3.put(key, b"data")
    proxy.relay.on_request = read_meanwhile
    assert result(await proxy.request("POST", "/?delete", body=document(*keys))) == (keys, {})
    assert {(await proxy.get(f"/{key}")).status for key in keys} == {404}


@pytest.mark.parametrize("fault", ["lost", "failed"])
async def test_unknown_outcome(proxy: Proxy, s3: S3, fault: str) -> None:
    """S3 may or may not have deleted. The client gets a 502, and each key is looked up anew (I9)."""

    async def lose(seen: Seen) -> bytes | None:
        if seen.method != "POST":
            return None
        s3.delete("a")
        if fault == "lost":
            raise Cut
        return canned(500, "InternalError")

    for key in ("a", "b"):
        s3.put(key, b"old")
        assert (await proxy.get(f"/{key}")).body == b"old"
    proxy.relay.on_request = lose
    assert (await proxy.request("POST", "/?delete", body=document("a", "b"))).status == 502
    assert (await proxy.get("/a")).status == 404
    s3.put("b", b"new")
    assert (await proxy.get("/b")).body == b"new"


@pytest.mark.parametrize(
    ("target", "headers", "body", "status"),
    [
        ("/?delete", {}, b"", 400),
        ("/?delete", {}, b"<Delete/>", 400),
        ("/?delete", {}, b'<!DOCTYPE d [<!ENTITY k "a">]><Delete><Object><Key>&k;</Key></Object></Delete>', 400),
        ("/?delete", {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, document("a"), 400),
        ("/?delete", {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}, document("a"), 400),
        ("/?delete", {"x-amz-content-sha256": "STREAMING-OTHER"}, document("a"), 501),
        ("/?delete", {"Content-Length": str(MAX_BODY_BYTES + 1)}, b"", 413),
        ("/?delete&versionId=1", {}, document("a"), 501),
        ("/folder/?delete", {}, document("a"), 501),
        ("/upload?delete", {}, document("a"), 501),
        ("/ro/?delete", {}, document("a"), 405),
    ],
)
async def test_refused(
    start: StartProxy, s3: S3, target: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    """Malformed or disallowed requests delete nothing, and send no request to S3."""
    methods = ["GET", "POST", "DELETE"]
    proxy = await start(
        mounts=[
            {"path": "/", "bucket": s3.bucket, "methods": methods},
            {"path": "/ro/", "bucket": s3.bucket, "methods": ["GET", "POST"]},
        ]
    )
    s3.put("a", b"data")
    async with proxy.connection() as connection:
        await connection.send(message("POST", target, headers, body))
        assert (await connection.response("POST")).status == status
    assert proxy.relay.seen == []
    assert s3.get("a") == b"data"


async def test_a_large_document(proxy: Proxy, s3: S3) -> None:
    """A document is parsed as it arrives and its checksum verified, whatever stands between its keys."""
    s3.put("a", b"data")
    body = document("a").replace(b"<Object>", b"\n" * 1_000_000 + b"<Object>")
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    assert result(await proxy.request("POST", "/?delete", {"Content-MD5": md5}, body)) == (["a"], {})
    assert s3.keys() == []


async def test_only_so_many_at_once(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few documents are in memory at a time. Others wait, and get a 503 after a while (I19, I20)."""
    monkeypatch.setattr(uploads, "MAX_DELETES_AT_ONCE", 1)
    monkeypatch.setattr(uploads, "DELETE_SLOT_TIMEOUT_S", 0.2)
    proxy = await start()
    body = document("a")
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    head = {"Content-Length": str(len(body)), "Expect": "100-continue", "Content-MD5": md5}
    async with proxy.connection() as first:
        await first.send(message("POST", "/?delete", head))
        assert (await first.head()).status == 100
        refused = await proxy.request("POST", "/?delete", body=body)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        monkeypatch.setattr(uploads, "DELETE_SLOT_TIMEOUT_S", HANG_S)
        waiting = asyncio.create_task(proxy.request("POST", "/?delete", body=body))
        await first.send(body)
        assert result(await first.response("POST")) == (["a"], {})
        assert result(await waiting) == (["a"], {})


async def test_a_document_that_takes_too_long(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow document gets a 408 and makes room for others, and nothing is deleted (I20)."""
    monkeypatch.setattr(uploads, "DELETE_DEADLINE_S", 0.2)
    s3.put("a", b"data")
    body = document("a")
    async with proxy.connection() as connection:
        await connection.send(message("POST", "/?delete", {"Content-Length": str(len(body))}, body[:-1]))
        assert (await connection.response("POST")).status == 408
    assert s3.get("a") == b"data"


async def test_a_checksum_that_holds(proxy: Proxy, s3: S3) -> None:
    """Content-MD5 is accepted, because S3's older clients send it."""
    body = document("a")
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    assert result(await proxy.request("POST", "/?delete", {"Content-MD5": md5}, body)) == (["a"], {})


async def test_options(proxy: Proxy) -> None:
    """OPTIONS lists POST for paths that accept DELETE."""
    response = await proxy.request("OPTIONS", "/?delete")
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Content-Type: application/xml\r\nContent-MD5: {md5}\r\n", 200),
        ("Content-Type: text/xml; charset=UTF-8\r\nContent-MD5: {md5}\r\n", 200),
        ("x-amz-sdk-checksum-algorithm: CRC32\r\nx-amz-checksum-crc32: {crc}\r\n", 200),  # boto3
        ("Content-MD5: {md5}\r\n", 200),  # minio-py
        ("Content-Type: application/xml\r\n", 400),
        ("Content-Type: application/xml\r\nx-amz-sdk-checksum-algorithm: CRC32\r\n", 400),
        ("", 400),
        ("Content-Type: text/plain\r\nContent-MD5: {md5}\r\n", 415),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/x-www-form-urlencoded\r\nContent-MD5: {md5}\r\n", 415),
        ("Content-Type: text/html+xml\r\nContent-MD5: {md5}\r\n", 415),
    ],
)
async def test_the_head_of_a_client_of_s3(proxy: Proxy, s3: S3, fields: str, status: int) -> None:
    """A DeleteObjects has a checksum and no type but XML, as clients of S3 send it. Else nothing is deleted (I33)."""
    s3.put("a", b"data")
    body = document("a")
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    head = f"POST /?delete HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
    async with proxy.connection() as client:
        await client.send(head.format(md5=md5, crc=crc).encode() + body)
        response = await client.response()
        assert response.status == status
    assert s3.keys() == ([] if status == 200 else ["a"])
