"""Resumable uploads (tus 1.0.0): requests, broken connections, restarts and expiry."""

import asyncio
import base64
import hashlib
import os
import shutil
import threading
import zlib
from pathlib import Path

import pytest
from proxy_under_test import S3, Proxy, StartProxy, pattern, until
from relay import Cut, Seen, canned
from tus_client import BODY, TUS, created, metadata, offset_of, patched
from wire import chunked, message

from bucketfront.errors import StoreError
from bucketfront.fair_share import Resource
from bucketfront.http import dates
from bucketfront.s3.upload.parts import PART_SIZE
from bucketfront.server.error_responses import status_of
from bucketfront.tus import manager, staging, upload_folder

pytestmark = pytest.mark.long

MIB = 1 << 20
DAY = 86400.0
PIECE = {"Upload-Offset": "0", "Content-Type": BODY["Content-Type"]}


def names(proxy: Proxy) -> list[str]:
    """Return the names of the files of uploads."""
    return sorted(path.name for path in (proxy.app.settings.cache.dir / "uploads").iterdir())


def file_of(proxy: Proxy, url: str, part: int = 1) -> Path:
    return proxy.app.settings.cache.dir / "uploads" / f"{url.rpartition('/')[2]}.{part}"


def sha1(body: bytes) -> str:
    """Return the value of Upload-Checksum for `data`."""
    return f"sha1 {base64.b64encode(hashlib.sha1(body).digest()).decode()}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("Content-MD5", "jXd/OF09/siBXSD3SWAm3A=="),
    ],
)
async def test_what_is_not_implemented_is_not_passed_over(proxy: Proxy, s3: S3, name: str, value: str) -> None:
    """A field that a PUT may not have is 501 for the creation and for each piece, and so is a checksum that is not
    verified (I8).
    """
    told = {**TUS, "Upload-Length": "4", "Upload-Metadata": metadata(key="x")}
    assert (await proxy.request("POST", "/upload", {**told, name: value})).status == 501
    url = await created(proxy, 4, x_amz_acl="private", x_amz_security_token="secret")
    assert "secret" not in "".join(
        (proxy.app.settings.cache.dir / "uploads" / file).read_text() for file in names(proxy)
    )
    assert (await patched(proxy, url, 0, b"data", {**BODY, name: value})).status == 501
    assert s3.keys() == []
    assert (await patched(proxy, url, 0, b"data")).status == 204


async def test_expires_that_is_no_date(proxy: Proxy) -> None:
    """An invalid Expires is refused when the upload is created, not after all of its bytes have come."""
    told = {**TUS, "Upload-Length": "3", "Upload-Metadata": metadata(key="x")}
    assert (await proxy.request("POST", "/upload", {**told, "Expires": "9" * 20})).status == 400
    assert names(proxy) == []


async def test_in_pieces(proxy: Proxy, s3: S3) -> None:
    """An upload in pieces becomes an object with the headers of its creation, and the next read is a hit (I5)."""
    s3.put("a b/c.bin", b"old")
    assert (await proxy.get("/a%20b/c.bin")).body == b"old"
    body = pattern(300_000)
    told = {
        **TUS,
        "Upload-Length": str(len(body)),
        "Upload-Metadata": metadata(key="a b/c.bin", filetype="text/x-test", empty=""),
        "Cache-Control": "max-age=77",
        "x-amz-meta-who": "me",
    }
    answer = await proxy.request("POST", "/upload", told)
    assert (answer.status, answer.headers["Tus-Resumable"]) == (201, "1.0.0")
    url = answer.headers["Location"]
    at = 0
    for size in (1, 99_999, 100_000, 100_000):
        assert await offset_of(proxy, url) == at
        assert (await proxy.get("/a%20b/c.bin")).body == b"old"
        answer = await patched(proxy, url, at, body[at : at + size])
        at += size
        assert (answer.status, answer.headers["Upload-Offset"]) == (204, str(at))
    stored = s3.head("a b/c.bin")
    assert answer.headers["Location"] == "/a%20b/c.bin"
    assert answer.headers["ETag"] == stored["ETag"]
    assert (stored["ContentType"], stored["CacheControl"], stored["Metadata"]) == (
        "text/x-test", "max-age=77", {"who": "me"},
    )  # fmt: skip
    asked = len(proxy.relay.seen)
    assert (await proxy.get("/a%20b/c.bin")).body == body
    assert len(proxy.relay.seen) == asked
    told_at_the_end = await proxy.request("HEAD", url, TUS)
    assert told_at_the_end.headers["Upload-Offset"] == told_at_the_end.headers["Upload-Length"] == str(len(body))
    assert told_at_the_end.headers["Upload-Metadata"] == told["Upload-Metadata"].strip()
    assert told_at_the_end.headers["Location"] == "/a%20b/c.bin"


@pytest.mark.parametrize("length", [4, PART_SIZE + 4])
async def test_read_while_it_ends(proxy: Proxy, s3: S3, length: int) -> None:
    """A read while S3 makes the object may cache the old version.

    After the response no client gets that version (I5, I6).
    """
    s3.put("x", b"old")
    held, gate = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if (seen.method == "PUT" and "partNumber" not in seen.target) or (
            seen.method == "POST" and "uploadId=" in seen.target
        ):
            held.set()
            await gate.wait()
        return None

    url, body = await created(proxy, length), pattern(length)
    proxy.relay.on_request = hold
    ending = asyncio.create_task(patched(proxy, url, 0, body))
    await held.wait()
    assert (await proxy.get("/x")).body == b"old"
    gate.set()
    assert (await ending).status == 204
    assert (await proxy.get("/x")).body == body


@pytest.mark.parametrize("size", [0, 1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE + 17])
async def test_sizes(proxy: Proxy, s3: S3, size: int) -> None:
    """In one request or with the creation, of any size around a part's end: one object, and no file is left (I8)."""
    body = pattern(size)
    url = await created(proxy, size, "one")
    if size:
        assert (await patched(proxy, url, 0, body)).status == 204
    told = {**BODY, "Upload-Length": str(size), "Upload-Metadata": metadata(key="two")}
    answer = await proxy.request("POST", "/upload", told, body)
    assert answer.status == 201
    assert answer.headers["Upload-Offset"] == str(size)
    assert await offset_of(proxy, url) == await offset_of(proxy, answer.headers["Location"]) == size
    assert s3.get("one") == s3.get("two") == body
    assert s3.unfinished == 0
    assert all(name.endswith(".json") for name in names(proxy))


@pytest.mark.parametrize("length", [0, 4])
async def test_nothing_more(proxy: Proxy, s3: S3, length: int) -> None:
    """A finished upload accepts a body without bytes, and no other one. The object stays as it is (I8)."""
    url = await created(proxy, length)
    if length:
        assert (await patched(proxy, url, 0, b"data")).status == 204
    etag = s3.head("x")["ETag"]
    for told in (BODY, {**BODY, "Upload-Checksum": sha1(b"")}):
        answer = await patched(proxy, url, length, b"", told)
        assert (answer.status, answer.headers["Upload-Offset"], answer.headers["ETag"]) == (204, str(length), etag)
    assert (await patched(proxy, url, length, b"more")).status == 413
    assert (await patched(proxy, url, length, b"", {**BODY, "Upload-Checksum": sha1(b"more")})).status == 460
    assert s3.get("x") == b"data"[:length]


# Of a new upload of 10 bytes: method, target ("": the upload), headers beside Tus-Resumable, body -> status
REQUESTS: list[tuple[str, str, dict[str, str], bytes | None, int]] = [
    ("POST", "/upload", {}, None, 400),
    ("POST", "/upload", {"Upload-Length": "-1"}, None, 400),
    ("POST", "/upload", {"Upload-Length": "1e3"}, None, 400),
    ("POST", "/upload", {"Upload-Length": "\u0661"}, None, 400),
    ("POST", "/upload", {"Upload-Length": "9" * 19}, None, 400),
    ("POST", "/upload", {"Upload-Length": "9" * 30}, None, 400),
    ("POST", "/upload", {"Upload-Length": "1001"}, None, 413),
    ("POST", "/upload", {"Upload-Length": "1000"}, None, 201),
    ("POST", "/upload", {"Upload-Defer-Length": "1"}, None, 400),
    ("POST", "/upload", {"Upload-Length": "1", "Upload-Concat": "partial"}, None, 400),
    ("POST", "/upload", {"Upload-Concat": "final;/upload/a /upload/b"}, None, 400),
    ("POST", "/upload", {"Upload-Length": "1"}, b"x", 415),
    ("POST", "/upload", {"Upload-Length": "1", "Content-Type": BODY["Content-Type"]}, b"xy", 413),
    ("POST", "/upload", {"Upload-Length": "1", "Tus-Resumable": "0.2.2"}, None, 412),
    ("POST", "/upload", {"Upload-Length": "1", "x-amz-meta-a": "\u00fc"}, None, 400),
    ("POST", "/upload", {"Upload-Length": "1", "If-None-Match": '"a"'}, None, 501),
    ("HEAD", "", {"Tus-Resumable": "1.0"}, None, 412),
    ("HEAD", "/upload/" + "0" * 32, {}, None, 404),
    ("HEAD", "/upload/..%2f..%2fetc%2fpasswd", {}, None, 404),
    ("HEAD", "/upload/%ff", {}, None, 404),
    ("HEAD", "/upload/", {}, None, 404),
    ("DELETE", "/upload/" + "0" * 32, {}, None, 404),
    ("PATCH", "/upload/" + "0" * 32, PIECE, b"x", 404),
    ("PATCH", "", {"Upload-Offset": "0"}, b"x", 415),
    ("PATCH", "", {"Upload-Offset": "0", "Content-Type": "text/plain"}, b"x", 415),
    ("PATCH", "", {**PIECE, "Tus-Resumable": "2.0.0"}, b"x", 412),
    ("PATCH", "", {"Content-Type": BODY["Content-Type"]}, b"x", 400),
    ("PATCH", "", {"Upload-Offset": "x", "Content-Type": BODY["Content-Type"]}, b"x", 400),
    ("PATCH", "", {"Upload-Offset": "1", "Content-Type": BODY["Content-Type"]}, b"x", 409),
    ("PATCH", "", {"Upload-Offset": "10", "Content-Type": BODY["Content-Type"]}, None, 409),
    ("PATCH", "", PIECE, bytes(11), 413),
    ("PATCH", "", {**PIECE, "Upload-Checksum": "sha3 AA"}, b"x", 400),
    ("PATCH", "", {**PIECE, "Upload-Checksum": "md5 AA=="}, b"x", 400),
    ("PATCH", "", {**PIECE, "Upload-Checksum": "md5"}, b"x", 400),
]  # fmt: skip


async def test_refusals(start: StartProxy, s3: S3) -> None:
    """Requests that the protocol forbids are refused with its status, and do not move the offset."""
    proxy = await start(uploads={"max_size": 1000})
    url = await created(proxy, 10)
    found = []
    for method, target, headers, body, _ in REQUESTS:
        answer = await proxy.request(method, target or url, {**TUS, **headers}, body)
        found.append((method, target, headers, body, answer.status))
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert (answer.headers.get("Tus-Version") == "1.0.0") is (answer.status == 412)
    assert found == REQUESTS
    assert await offset_of(proxy, url) == 0
    assert s3.keys() == []
    assert proxy.relay.seen == []


@pytest.mark.parametrize(
    "said",
    [
        "key", "key ", ",", "key a", "key YQ==,", "key YQ==,,name YQ==", "key YQ==,key YQ==", " ,", "k\u00e4y YQ==",
        "key YQ== YQ==", "key YQ==\tname YQ==", "key /w==", "key AA==", "filetype AAo=", "key " + "YQ" * 3000,
        metadata(key="../a"), metadata(key="a/./b"), "key " + base64.b64encode(b"x" * 1025).decode(),
    ],
)  # fmt: skip
async def test_garbage_in_the_metadata(proxy: Proxy, said: str) -> None:
    """Invalid Upload-Metadata, or one with an invalid key or type, is 400. An empty key counts as none (I23)."""
    answer = await proxy.request("POST", "/upload", {**TUS, "Upload-Length": "1", "Upload-Metadata": said})
    assert answer.status == (201 if said in ("key", "key ") else 400)
    assert proxy.relay.seen == []


@pytest.mark.parametrize(("size", "status"), [(4000, 201), (4400, 400)])
async def test_a_long_record(proxy: Proxy, size: int, status: int) -> None:
    """The record of an upload is bounded (I19): a creation with more text is 400, and the message has the limit."""
    told = {**TUS, "Upload-Length": "1", "Upload-Metadata": metadata(key="x", more="y" * 2900)}
    answer = await proxy.request("POST", "/upload", {**told, "Content-Disposition": f"inline; filename={'z' * size}"})
    assert answer.status == status
    assert (b"8192" in answer.body) is (status == 400)
    assert len(names(proxy)) == (1 if status == 201 else 0)


async def test_where_the_object_goes(start: StartProxy, s3: S3) -> None:
    """The key is that of the path, or the metadata's in this folder, or a ULID there, below the mount of uploads."""
    proxy = await start(
        mounts=[{"path": "/", "bucket": s3.bucket}, {"path": "/in/", "bucket": s3.bucket, "prefix": "p/"}],
        uploads={"mount": "/in/"},
    )
    for target, said, key in (
        ("/upload/a/b", metadata(key="other"), "a/b"),
        ("/upload/a/", metadata(key="c d"), "a/c d"),
        ("/upload", metadata(key="..e/..."), "..e/..."),
        ("/upload/f/", metadata(filename="name.txt"), None),
    ):
        told = {**BODY, "Upload-Length": "4", "Upload-Metadata": said}
        answer = await proxy.request("POST", target, told, b"data")
        assert answer.status == 201
        where = (await proxy.request("HEAD", answer.headers["Location"], TUS)).headers["Location"]
        assert where.startswith("/in/")
        if key is not None:
            assert s3.get(f"p/{key}") == b"data"
    assert [len(key) for key in sorted(s3.keys())[-1:]] == [len("p/f/") + 26]


async def test_as_the_mount_wants_it(start: StartProxy, s3: S3) -> None:
    """The mount's key template, size and write-once apply as for PUT. An existing object is not overwritten."""
    mount = {
        "bucket": s3.bucket,
        "max_size": 9,
        "write_once": True,
        "key_template": "t/{filename}",
        "guess_types": False,
    }
    proxy = await start(mounts=[{"path": "/", **mount}])
    s3.put("t/old.txt", b"old")
    assert (await proxy.request("POST", "/upload", {**TUS, "Upload-Length": "10"})).status == 413
    for name, status in (("new.txt", 201), ("old.txt", 412)):
        told = {**BODY, "Upload-Length": "4", "Upload-Metadata": metadata(filename=name)}
        assert (await proxy.request("POST", "/upload", told, b"data")).status == status
    assert (await proxy.request("POST", "/upload", {**TUS, "Upload-Length": "4", "If-Match": '"a"'})).status == 412
    assert (s3.get("t/new.txt"), s3.get("t/old.txt")) == (b"data", b"old")
    assert s3.head("t/new.txt")["ContentType"] == "binary/octet-stream"


async def test_without_the_header(proxy: Proxy, s3: S3) -> None:
    """A request without Tus-Resumable is an ordinary one. Of PATCH, the refusal names the version of the protocol."""
    s3.put("upload/x", b"an object below the route's name")
    assert (await proxy.request("POST", "/upload/y", body=b"data")).status == 201
    assert s3.get("y") == b"data"
    for _ in range(2):
        assert (await proxy.request("HEAD", "/upload/x")).headers["Content-Length"] == "32"
        assert (await proxy.get("/upload/x")).status == 200
    assert (await proxy.request("HEAD", "/upload/x", TUS)).status == 404
    assert (await proxy.request("PATCH", "/upload/x", body=b"x")).status == 412
    assert (await proxy.request("PATCH", "/x", BODY, b"x")).status == 405
    assert (await proxy.request("DELETE", "/upload/x")).status == 204
    assert s3.keys() == ["y"]


async def test_override(proxy: Proxy, s3: S3) -> None:
    """A client that can only POST names its method in X-HTTP-Method-Override."""
    url = await created(proxy, 4)
    told = {**BODY, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert (await proxy.request("POST", url, told, b"da")).status == 204
    assert await offset_of(proxy, url) == 2
    assert (await proxy.request("POST", url, {**TUS, "X-HTTP-Method-Override": "DELETE"})).status == 204
    assert (await proxy.request("HEAD", url, TUS)).status == 404
    assert (await proxy.request("POST", url, {**TUS, "X-HTTP-Method-Override": "GET"})).status == 405


async def test_a_page_of_another_origin(start: StartProxy) -> None:
    """OPTIONS lists the extensions. A page of a named origin may send and read the protocol's fields, with any other
    setting of cors.
    """
    allowed = "https://app.example.com"
    proxy = await start(
        cors={"allow_origins": [allowed], "allow_headers": ["Range"], "expose_headers": ["Age"]},
        uploads={"max_size": 99},
    )
    page = {"Origin": allowed}
    url = await created(proxy, 4)
    asks = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "tus-resumable"}
    for target, methods in (("/upload", {"POST"}), (url, {"PATCH", "HEAD", "DELETE"})):
        answer = await proxy.request("OPTIONS", target, {**page, **asks})
        assert answer.status == 204
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Max-Size"] == "99"
        assert set(answer.headers["Tus-Extension"].split(",")) == {
            "creation", "creation-with-upload", "checksum", "expiration", "termination",
        }  # fmt: skip
        assert answer.headers["Tus-Checksum-Algorithm"].split(",")[0] == "sha1"
        assert answer.headers["Access-Control-Allow-Origin"] == allowed
        assert methods <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
        may_send = set(answer.headers["Access-Control-Allow-Headers"].split(", "))
        assert {
            "Range",
            "Tus-Resumable",
            "Upload-Length",
            "Upload-Metadata",
            "Upload-Offset",
            "Content-Type",
        } <= may_send
    for answer in (
        await proxy.request("HEAD", url, {**page, **TUS}),
        await proxy.request("HEAD", "/upload/no", {**page, **TUS}),
    ):
        shown = ", ".join(answer.headers.getall("Access-Control-Expose-Headers")).split(", ")
        assert {"Age", "Upload-Offset", "Location", "Upload-Length", "Tus-Resumable"} <= set(shown)
    assert "Tus-Version" not in (await proxy.request("OPTIONS", "/x", page)).headers


async def test_no_route(start: StartProxy, s3: S3) -> None:
    """Without `uploads` there is no part of the protocol."""
    proxy = await start(uploads=None)
    assert (await proxy.request("PATCH", "/upload/x", BODY, b"x")).status == 405
    assert (await proxy.request("HEAD", "/upload/x", TUS)).status == 404
    assert "Tus-Version" not in (await proxy.request("OPTIONS", "/upload")).headers


async def test_no_route_any_more(start: StartProxy, s3: S3) -> None:
    """Without `uploads` the uploads of an earlier run are dropped, here and at S3 (I17)."""
    proxy = await start()
    url = await created(proxy, 2 * PART_SIZE)
    assert (await patched(proxy, url, 0, pattern(PART_SIZE + 1))).status == 204
    done = await created(proxy, 4, "done")
    assert (await patched(proxy, done, 0, b"data")).status == 204
    assert s3.unfinished == 1
    await proxy.stop()
    proxy = await start(uploads=None)
    await until(lambda: not s3.unfinished and not names(proxy))
    assert s3.get("done") == b"data"
    assert (await proxy.request("DELETE", "/done")).status == 204
    await until(lambda: not proxy.figures["bytes_used"])


CUTS = [0, 1, 65536, staging.GATHER_BYTES - 1, staging.GATHER_BYTES, PART_SIZE - 1, PART_SIZE, PART_SIZE + MIB]


@pytest.mark.parametrize("is_reset", [False, True], ids=["close", "reset"])
async def test_broken_off_at_many_bytes(proxy: Proxy, s3: S3, is_reset: bool) -> None:
    """Wherever the connection breaks, the offset is at most what was sent, and nearly all of it is kept.

    The object at the end is the intended one (I1, I8).
    """
    body = pattern(2 * PART_SIZE + 12345)
    s3.put("x", b"old")
    url = await created(proxy, len(body))
    upload = proxy.app.upload_manager.find(url.rpartition("/")[2])
    at = 0
    for cut in CUTS:
        if (count := min(cut, len(body) - at - 1)) < 0:
            break
        async with proxy.connection() as connection:
            told = {**BODY, "Upload-Offset": str(at), "Content-Length": str(len(body) - at)}
            await connection.send(message("PATCH", url, told) + body[at : at + count])
            await until(lambda: upload.is_busy)  # or a reset may take the request with it
            if is_reset:
                connection.abort()
        await until(lambda: not upload.is_busy and not proxy.relay.running)
        known = await offset_of(proxy, url)
        assert at <= known <= at + count
        if not is_reset:  # a reset may take with it what the kernel had for us
            # What came while S3 was given a part has no place yet.
            crossed = (at + count) // PART_SIZE > at // PART_SIZE
            assert at + count - known <= (MIB if crossed else 256 << 10)
        at = known
        assert s3.get("x") == b"old"
    assert (await patched(proxy, url, at, body[at:])).status == 204
    assert s3.get("x") == body == (await proxy.get("/x")).body
    assert s3.unfinished == 0


async def test_creation_broken_off(proxy: Proxy, s3: S3) -> None:
    """A creation that breaks off in its body leaves no upload, because its client does not know the URL (I12, I17)."""
    async with proxy.connection() as connection:
        told = {**BODY, "Upload-Length": "1000", "Content-Length": "1000", "Upload-Metadata": metadata(key="x")}
        await connection.send(message("POST", "/upload", told) + b"half")
    await until(lambda: any(line["method"] == "POST" for line in proxy.log))
    assert s3.keys() == []
    await until(lambda: not names(proxy) and not proxy.figures["bytes_used"])


@pytest.mark.parametrize(
    ("status", "size", "told"),
    [
        (413, 6, {}),
        (413, 6, {"Transfer-Encoding": "chunked"}),
        (400, 5, {"Upload-Checksum": "sha1 AA=="}),
        (460, 5, {"Upload-Checksum": sha1(b"other")}),
        (503, 5, {}),
        (503, PART_SIZE + 5, {}),
    ],
)
async def test_creation_that_fails(proxy: Proxy, s3: S3, status: int, size: int, told: dict[str, str]) -> None:
    """A creation leaves nothing, here or at S3, if its body is refused or S3 does not take it (I17)."""

    async def refuse(seen: Seen) -> bytes | None:
        return canned(503, "SlowDown") if seen.method == "PUT" and "partNumber=1" not in seen.target else None

    proxy.relay.on_request = refuse
    length = 5 if size < PART_SIZE else size
    head = {**BODY, "Upload-Length": str(length), "Upload-Metadata": metadata(key="x"), **told}
    async with proxy.connection() as connection:
        body = pattern(size)
        await connection.send(message("POST", "/upload", head, chunked(body) if "Transfer-Encoding" in told else body))
        assert (await connection.response("POST")).status == status
    # The file of a body that S3 refused is removed in the background.
    await until(lambda: (names(proxy), s3.unfinished, proxy.figures["bytes_used"]) == ([], 0, 0))
    assert proxy.app.upload_manager.unfinished == (0, 0)


async def test_two_at_once(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a request holds an upload others get 423, and it continues. HEAD returns the offset at that time."""
    monkeypatch.setattr(manager, "STALL_TIMEOUT_S", 60.0)
    body = pattern(1000)
    url = await created(proxy, len(body))
    async with proxy.connection() as connection:
        await connection.send(
            message("PATCH", url, {**BODY, "Upload-Offset": "0", "Content-Length": "1000"}, body[:500])
        )
        upload = proxy.app.upload_manager.find(url.rpartition("/")[2])
        await until(lambda: upload.is_busy)
        assert (await patched(proxy, url, 0, body)).status == 423
        assert (await proxy.request("DELETE", url, TUS)).status == 423
        assert await offset_of(proxy, url) == 0
        await connection.send(body[500:])
        assert (await connection.response("PATCH")).status == 204
    assert s3.get("x") == body


@pytest.mark.parametrize("asks_for", ["PATCH", "DELETE"])
async def test_a_connection_that_is_dead(proxy: Proxy, s3: S3, asks_for: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that still waits for bytes makes way for the client's next one, and the bytes that it got are kept."""
    monkeypatch.setattr(manager, "STALL_TIMEOUT_S", 0.0)
    body = pattern(1000)
    url = await created(proxy, len(body))
    upload = proxy.app.upload_manager.find(url.rpartition("/")[2])
    async with proxy.connection() as connection:
        await connection.send(
            message("PATCH", url, {**BODY, "Upload-Offset": "0", "Content-Length": "1000"}, body[:500])
        )
        await until(lambda: upload.is_busy and upload.stalled_s > 0)
        if asks_for == "PATCH":
            # The offset that the client knows may be behind what came before its connection died.
            assert (await patched(proxy, url, 0, body)).status == 409
            assert await offset_of(proxy, url) == 500
            assert (await patched(proxy, url, 500, body[500:])).status == 204
        else:
            assert (await proxy.request("DELETE", url, TUS)).status == 204
            assert (await proxy.request("HEAD", url, TUS)).status == 404
        assert (await connection.response("PATCH")).status == 409
    assert s3.keys() == (["x"] if asks_for == "PATCH" else [])
    assert all(name.endswith(".json") for name in names(proxy))


@pytest.mark.parametrize("is_power_lost", [False, True])
async def test_restart(start: StartProxy, s3: S3, is_power_lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart an upload continues at the same byte, or after a loss of power where S3 is (I14).

    A finished one is known as finished.
    """
    proxy = await start()
    body = pattern(2 * PART_SIZE + 999)
    url, done = await created(proxy, len(body)), await created(proxy, 4, "done")
    first = PART_SIZE + 5 * MIB + 3
    assert (await patched(proxy, url, 0, body[:first])).status == 204
    assert (await patched(proxy, done, 0, b"data")).status == 204
    used = proxy.figures["bytes_used"]
    assert used >= 5 * MIB
    await proxy.stop()
    if is_power_lost:
        monkeypatch.setattr("bucketfront.app.boot_id", lambda: 4711)
    proxy = await start()
    at = await offset_of(proxy, url)
    assert at == (PART_SIZE if is_power_lost else first)
    assert (proxy.figures["bytes_used"] == used) is not is_power_lost
    assert await offset_of(proxy, done) == 4
    assert (await patched(proxy, url, at, body[at:])).status == 204
    assert s3.get("x") == body
    assert s3.unfinished == 0
    assert all(name.endswith(".json") for name in names(proxy))


@pytest.mark.parametrize("restarts", [False, True])
async def test_expiry(start: StartProxy, s3: S3, restarts: bool) -> None:
    """An upload without a byte for `expire_after` is gone, at S3 as well, and its space is free again (I17).

    Every byte postpones that, and the client gets the time of expiry.
    """
    proxy = await start()
    body = pattern(PART_SIZE + 2 * MIB)
    url = await created(proxy, len(body))
    proxy.clock.advance(DAY - 10)
    answer = await patched(proxy, url, 0, body[:-MIB])
    assert answer.headers["Upload-Expires"] == dates.format(proxy.clock() + DAY)
    proxy.clock.advance(DAY - 10)
    await proxy.app.upload_manager.step()
    assert await offset_of(proxy, url) == len(body) - MIB
    assert s3.unfinished == 1
    if restarts:
        await proxy.stop()
        proxy = await start()
        assert await offset_of(proxy, url) == len(body) - MIB
        proxy.clock.advance(DAY)
    proxy.clock.advance(20)
    assert (await proxy.request("HEAD", url, TUS)).status == 404
    await proxy.app.upload_manager.step()
    assert (s3.unfinished, names(proxy), proxy.figures["bytes_used"]) == (0, [], 0)
    assert (await patched(proxy, url, len(body) - MIB, body[-MIB:])).status == 404


async def test_termination(start: StartProxy, s3: S3) -> None:
    """DELETE ends an upload: 404 from then on, its space is free, and S3 aborts it, also after a restart (I14)."""
    proxy = await start()
    body = pattern(PART_SIZE + 2 * MIB)
    url = await created(proxy, len(body))
    assert (await patched(proxy, url, 0, body[:-1])).status == 204
    assert s3.unfinished == 1

    async def refuse(seen: Seen) -> bytes | None:
        return canned(503, "SlowDown") if seen.method == "DELETE" else None

    proxy.relay.on_request = refuse
    assert (await proxy.request("DELETE", url, TUS)).status == 204
    assert (await proxy.request("HEAD", url, TUS)).status == 404
    assert (s3.unfinished, len(names(proxy))) == (1, 1)
    await proxy.stop()
    proxy.relay.on_request = None
    proxy = await start()
    assert (await proxy.request("HEAD", url, TUS)).status == 404
    await until(lambda: not names(proxy) and not proxy.figures["bytes_used"])
    assert (s3.unfinished, s3.keys()) == (0, [])


async def test_termination_of_a_finished_one(proxy: Proxy, s3: S3) -> None:
    """The object of a finished upload stays."""
    url = await created(proxy, 4)
    assert (await patched(proxy, url, 0, b"data")).status == 204
    assert (await proxy.request("DELETE", url, TUS)).status == 204
    assert (await proxy.request("HEAD", url, TUS)).status == 404
    assert s3.get("x") == b"data"
    assert names(proxy) == []


async def test_lost_response_to_complete(proxy: Proxy, s3: S3) -> None:
    """If the responses to CompleteMultipartUpload are lost, a HEAD shows the object, and the client gets 204 (I9).

    The key is invalidated (I5).
    """
    s3.put("x", b"old")
    assert (await proxy.get("/x")).body == b"old"
    body = pattern(PART_SIZE + MIB)
    url = await created(proxy, len(body))

    async def cut(seen: Seen) -> None:
        if seen.method == "POST" and "uploadId=" in seen.target:
            raise Cut

    proxy.relay.on_body = cut
    response = await patched(proxy, url, 0, body)
    assert (response.status, response.headers["ETag"]) == (204, s3.head("x")["ETag"])
    assert s3.get("x") == body == (await proxy.get("/x")).body


@pytest.mark.parametrize("asks_by", ["HEAD", "PATCH"])
async def test_outcome_that_is_found_out_later(proxy: Proxy, s3: S3, asks_by: str) -> None:
    """While nothing shows whether S3 made the object, the client gets 502 or 504, and the end is not reported. A later
    request finds the upload finished (I9). The key is invalidated each time (I5).
    """
    s3.put("x", b"old")
    body = pattern(PART_SIZE + MIB)
    url = await created(proxy, len(body))

    async def cut(seen: Seen) -> None:
        if seen.method == "POST" and "uploadId=" in seen.target:
            raise Cut

    async def deny(seen: Seen) -> bytes | None:
        return canned(500, "InternalError") if seen.method == "HEAD" else None

    proxy.relay.on_body, proxy.relay.on_request = cut, deny
    assert (await patched(proxy, url, 0, body)).status in (502, 504)
    proxy.relay.on_body = proxy.relay.on_request = None
    assert s3.get("x") == body == (await proxy.get("/x")).body
    if asks_by == "HEAD":
        assert await offset_of(proxy, url) == len(body)
    else:
        assert (await patched(proxy, url, len(body), b"")).status == 204
    assert (await proxy.request("HEAD", url, TUS)).headers["ETag"] == s3.head("x")["ETag"]


@pytest.mark.parametrize("asked", ["partNumber=2", "?uploadId="])
async def test_outcome_that_stays_unknown(proxy: Proxy, s3: S3, asked: str) -> None:
    """If S3 does not know the upload and the object is another one, the client gets 410 and begins again."""
    body = pattern(PART_SIZE + MIB)
    url = await created(proxy, len(body))
    assert (await patched(proxy, url, 0, body[:-1])).status == 204
    s3.put("x", body)  # it has one part, so that this upload did not make it

    async def deny(seen: Seen) -> bytes | None:
        return canned(404, "NoSuchUpload") if asked in seen.target else None

    proxy.relay.on_request = deny
    assert (await patched(proxy, url, len(body) - 1, body[-1:])).status == 410
    assert (await proxy.request("HEAD", url, TUS)).status == 404
    proxy.relay.on_request = None
    await proxy.app.upload_manager.step()
    assert (names(proxy), s3.unfinished, proxy.figures["bytes_used"]) == ([], 0, 0)


@pytest.mark.parametrize("is_ours", [True, False])
async def test_lost_response_to_a_conditional_put(proxy: Proxy, s3: S3, is_ours: bool) -> None:
    """With If-None-Match a repeated PutObject finds the object of the first, whose response was lost: that is a
    success. Any other object is 412.
    """
    url = await created(proxy, 4, If_None_Match="*")

    async def cut(seen: Seen) -> bytes | None:
        if seen.method == "PUT":
            raise Cut
        return None

    proxy.relay.on_request = cut
    assert (await patched(proxy, url, 0, b"data")).status == 502
    assert (await proxy.request("HEAD", url, TUS)).status == 502
    s3.put("x", b"data" if is_ours else b"else")
    proxy.relay.on_request = None
    assert (await proxy.request("HEAD", url, TUS)).status == (200 if is_ours else 412)
    assert s3.get("x") == (b"data" if is_ours else b"else")


async def test_s3_fails_at_a_part(proxy: Proxy, s3: S3) -> None:
    """While S3 accepts no part the client gets an error, and the bytes that came are kept.

    It continues from there (I9, I13).
    """
    body = pattern(2 * PART_SIZE + MIB)
    url = await created(proxy, len(body))

    async def refuse(seen: Seen) -> bytes | None:
        return canned(503, "SlowDown") if "partNumber=2" in seen.target else None

    proxy.relay.on_request = refuse
    assert (await patched(proxy, url, 0, body)).status == 503
    at = await offset_of(proxy, url)
    assert at == 2 * PART_SIZE
    proxy.relay.on_request = None
    assert (await patched(proxy, url, at, body[at:])).status == 204
    assert s3.get("x") == body


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5", "crc32"])
async def test_checksum(proxy: Proxy, s3: S3, algorithm: str) -> None:
    """A body with a checksum counts as a whole or not at all. A mismatch is 460, and the offset stays."""
    body, digest = pattern(2 * MIB), hashlib.new

    def claim(data: bytes) -> str:
        value = zlib.crc32(data).to_bytes(4, "big") if algorithm == "crc32" else digest(algorithm, data).digest()
        return f"{algorithm} {base64.b64encode(value).decode()}"

    url = await created(proxy, len(body))
    upload = proxy.app.upload_manager.find(url.rpartition("/")[2])
    assert (await patched(proxy, url, 0, body[:MIB], {**BODY, "Upload-Checksum": claim(body[:MIB])})).status == 204
    used = proxy.figures["bytes_used"]
    for accept in ("application/json", "text/html"):
        told = {**BODY, "Upload-Checksum": claim(body[MIB:]), "Accept": accept}
        answer = await patched(proxy, url, MIB, bytes(MIB), told)
        assert (answer.status, await offset_of(proxy, url), proxy.figures["bytes_used"]) == (460, MIB, used)
    async with proxy.connection() as connection:
        told = {**BODY, "Upload-Checksum": claim(body[MIB:]), "Upload-Offset": str(MIB), "Content-Length": str(MIB)}
        await connection.send(message("PATCH", url, told) + body[MIB:-1])
        await until(lambda: upload.is_busy)
    await until(lambda: not upload.is_busy)
    assert await offset_of(proxy, url) == MIB
    assert (await patched(proxy, url, MIB, body[MIB:], {**BODY, "Upload-Checksum": claim(body[MIB:])})).status == 204
    assert s3.get("x") == body
    assert all(name.endswith(".json") for name in names(proxy))


async def test_the_disk_fails(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk refuses bytes they wait in memory, up to a bound, and the upload succeeds (I16, I19)."""
    folder = proxy.app.upload_manager.folder

    async def fails(*args: object) -> None:
        raise StoreError("no space")

    body = pattern(PART_SIZE + 2 * MIB)
    url = await created(proxy, len(body))
    monkeypatch.setattr(folder, "write", fails)
    monkeypatch.setattr(folder, "save", fails)
    at = 0
    for stop in (MIB, 9 * MIB, len(body)):
        assert (await patched(proxy, url, at, body[at:stop])).status == 204
        at = stop
    assert s3.get("x") == body
    assert proxy.app.upload_manager.unfinished == (0, 0)
    monkeypatch.setattr(staging, "MAX_MEMORY_BYTES", MIB)
    url = await created(proxy, len(body), "y")
    answer = await patched(proxy, url, 0, body[: 2 * MIB])
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert 0 < await offset_of(proxy, url) <= MIB


async def test_the_disk_fails_under_a_checksum(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body with a checksum waits in memory as far as the disk refuses it (I16).

    One with a wrong checksum leaves nothing there (I19).
    """
    folder, body, taken = proxy.app.upload_manager.folder, pattern(3 * MIB), 0
    write, memory = folder.write, proxy.app.upload_manager.staging

    async def fills_up(name: str, part: int, offset: int, data: bytes, checksum: int) -> None:
        nonlocal taken
        if taken >= MIB // 2:
            raise StoreError("no space")
        taken += len(data)
        await write(name, part, offset, data, checksum)

    url = await created(proxy, len(body))
    monkeypatch.setattr(folder, "write", fills_up)
    for stop in (MIB, 2 * MIB, 3 * MIB):
        at, piece = stop - MIB, body[stop - MIB : stop]
        told = {**BODY, "Upload-Checksum": sha1(piece)}
        held = memory.memory_bytes
        assert (await patched(proxy, url, at, bytes(MIB), told)).status == 460
        assert memory.memory_bytes == held
        assert (await patched(proxy, url, at, piece, told)).status == 204
    assert s3.get("x") == body
    assert memory.memory_bytes == 0


async def test_files_that_cannot_be_removed(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The space of a file that cannot be removed counts until a later round of the upkeep removes it (I17)."""
    folder, body = proxy.app.upload_manager.folder, pattern(PART_SIZE + 2)

    async def fails(*args: object, **more: object) -> None:
        raise StoreError("no")

    url, other = await created(proxy, len(body)), await created(proxy, MIB, "y")
    used = proxy.figures["bytes_used"]
    for target in (url, other):
        assert (await patched(proxy, target, 0, body[: MIB // 2])).status == 204
    file_of(proxy, other).write_bytes(b"")
    monkeypatch.setattr(folder, "remove", fails)
    assert (await patched(proxy, url, MIB // 2, body[MIB // 2 : -1])).status == 204
    assert (await patched(proxy, other, MIB // 2, b"more")).status == status_of(StoreError())
    assert (await patched(proxy, other, 0, body[:4])).status == 204
    assert proxy.figures["bytes_used"] >= used + PART_SIZE + MIB // 2
    monkeypatch.undo()
    await proxy.app.upload_manager.step()
    assert proxy.figures["bytes_used"] == used + 2 * staging.PAGE_BYTES
    assert not file_of(proxy, url).exists()
    assert await offset_of(proxy, other) == 4


async def test_abandoned_uploads(proxy: Proxy, s3: S3) -> None:
    """Staged bytes have at most half of the cache's space, and beyond it the response is 503 (I17, I19).

    Those of an idle upload are dropped after a minute, and sent again.
    """
    body, half = pattern(PART_SIZE + MIB), proxy.figures["bytes_limit"] // 2
    most = PART_SIZE - MIB
    urls = [await created(proxy, len(body), str(number)) for number in range(6)]
    fitting = half // most
    for number, url in enumerate(urls):
        answer = await patched(proxy, url, 0, body[:most])
        assert answer.status == (204 if number < fitting else 503)
        proxy.clock.advance(1)
    assert answer.headers["Retry-After"] == "1"
    records = len(urls) * staging.PAGE_BYTES
    assert half - MIB < proxy.figures["bytes_used"] <= half + records
    assert proxy.app.upload_manager.staging.memory_bytes == 0
    s3.put("cold", body)
    assert [(await proxy.get("/cold")).body for _ in range(2)] == [body] * 2
    assert "hit" in (await proxy.get("/cold")).headers["Cache-Status"]
    proxy.clock.advance(manager.IDLE_S)
    at = await offset_of(proxy, urls[-1])
    assert (await patched(proxy, urls[-1], at, body[at:])).status == 204
    assert [await offset_of(proxy, url) for url in urls[:3]] == [0, 0, most]
    for number, url in enumerate(urls):
        at = await offset_of(proxy, url)
        if at < len(body):
            assert (await patched(proxy, url, at, body[at:])).status == 204
        assert s3.get(str(number)) == body
    assert proxy.app.upload_manager.staging.files.used == 0


async def test_the_disk_hangs(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call waits for a disk that hangs (I20), and then it counts as failing (I16).

    Bytes on it are sent again, and the late end of the call changes no object (I8).
    """
    gate, hangs, write = threading.Event(), [0], upload_folder._write_all

    def hang(fd: int, data: bytes, offset: int) -> None:
        hangs[0] += 1
        gate.wait()
        write(fd, data, offset)

    body, other = pattern(PART_SIZE + MIB), bytes(2 * MIB)
    url, second = await created(proxy, len(body)), await created(proxy, len(other), "y")
    assert (await patched(proxy, url, 0, body[:MIB])).status == 204
    monkeypatch.setattr(upload_folder, "DISK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(upload_folder, "_write_all", hang)
    try:
        assert (await patched(proxy, url, MIB, b"another" + body[: MIB - 7])).status == 204
        assert await offset_of(proxy, url) == 2 * MIB
        assert (await patched(proxy, second, 0, other)).status == 204
        assert (await patched(proxy, url, 2 * MIB, body[2 * MIB :])).status == status_of(StoreError())
        assert await offset_of(proxy, url) == 0
        assert (await patched(proxy, url, 0, body[:PART_SIZE])).status == 204
        assert hangs == [1]
    finally:
        gate.set()
    await until(lambda: not proxy.app.upload_manager.folder._hanging)
    assert (await patched(proxy, url, PART_SIZE, body[PART_SIZE:])).status == 204
    assert (s3.get("x"), s3.get("y")) == (body, other)


@pytest.mark.parametrize("restarts", [False, True])
async def test_corrupt_staged_bytes(start: StartProxy, s3: S3, restarts: bool) -> None:
    """Staged bytes that the disk changed are never sent as a part, and the client sends them again (I15)."""
    proxy = await start()
    body = pattern(MIB)
    url = await created(proxy, len(body))
    assert (await patched(proxy, url, 0, body[: MIB // 2])).status == 204
    if restarts:
        await proxy.stop()
    file = file_of(proxy, url)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    if restarts:
        proxy = await start()
    answer = await patched(proxy, url, MIB // 2, body[MIB // 2 :])
    assert answer.status == status_of(StoreError())
    assert s3.keys() == []
    assert await offset_of(proxy, url) == 0
    assert (await patched(proxy, url, 0, body)).status == 204
    assert s3.get("x") == body


@pytest.mark.parametrize("what", ["file", "end of the file", "folder"])
@pytest.mark.parametrize("restarts", [False, True])
async def test_lost_staged_bytes(start: StartProxy, s3: S3, what: str, restarts: bool) -> None:
    """Staged bytes that are gone leave no hole: the offset falls back, and the client sends them again (I8, I15)."""
    proxy = await start()
    body = pattern(MIB)
    url = await created(proxy, len(body))
    assert (await patched(proxy, url, 0, body[: MIB // 2])).status == 204
    if restarts:
        await proxy.stop()
        proxy = await start()
    file = file_of(proxy, url)
    if what == "file":
        file.unlink()
    elif what == "folder":
        shutil.rmtree(proxy.app.settings.cache.dir)
        await proxy.step()
    else:
        os.truncate(file, MIB // 4)
    answer = await patched(proxy, url, MIB // 2, body[MIB // 2 :])
    assert answer.status == status_of(StoreError())
    assert await offset_of(proxy, url) == 0
    assert (await patched(proxy, url, 0, body)).status == 204
    assert s3.get("x") == body


async def test_a_file_that_a_restart_finds_cut_short(start: StartProxy, s3: S3) -> None:
    """If a file lacks some of its bytes after a restart, none of them counts (I8)."""
    proxy = await start()
    body = pattern(MIB)
    url = await created(proxy, len(body))
    assert (await patched(proxy, url, 0, body[: MIB // 2])).status == 204
    await proxy.stop()
    os.truncate(file_of(proxy, url), MIB // 4)
    proxy = await start()
    assert await offset_of(proxy, url) == 0
    assert (await patched(proxy, url, 0, body)).status == 204
    assert s3.get("x") == body


async def test_bytes_behind_lost_ones(proxy: Proxy, s3: S3) -> None:
    """Bytes behind lost ones do not take their place (I8)."""
    body = pattern(2 * PART_SIZE)
    url = await created(proxy, len(body))
    assert (await patched(proxy, url, 0, body[:PART_SIZE])).status == 204
    file = file_of(proxy, url)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert (await patched(proxy, url, PART_SIZE, body[PART_SIZE:-1])).status == status_of(StoreError())
    assert await offset_of(proxy, url) == 0
    assert (await patched(proxy, url, 0, body)).status == 204
    assert s3.get("x") == body


async def test_corrupt_unverified_bytes(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a body with a checksum that the disk changed before their verification do not count (I15)."""
    folder, body = proxy.app.upload_manager.folder, pattern(MIB)
    read = folder.read

    async def rotten(name: str, part: int, offset: int, count: int) -> bytes:
        data = await read(name, part, offset, count)
        return bytes(len(data)) if part == 0 and offset else data

    url = await created(proxy, len(body))
    told = {**BODY, "Upload-Checksum": sha1(body)}
    monkeypatch.setattr(folder, "read", rotten)
    assert (await patched(proxy, url, 0, body, told)).status == status_of(StoreError())
    monkeypatch.undo()
    at = await offset_of(proxy, url)
    assert (await patched(proxy, url, at, body[at:])).status == 204
    assert s3.get("x") == body


async def test_files_of_no_use(start: StartProxy, s3: S3) -> None:
    """Files that belong to no upload are removed at the start, and so is an upload of another endpoint (I25)."""
    proxy = await start()
    url = await created(proxy, 10)
    assert (await patched(proxy, url, 0, b"half")).status == 204
    await proxy.stop()
    folder, name = proxy.app.settings.cache.dir / "uploads", url.rpartition("/")[2]
    for stranger in ("x", f"{'a' * 32}.json", f"{'b' * 32}.1", f"{name}.7", f"{name}.new", f"{'c' * 32}.json.new"):
        (folder / stranger).write_bytes(b"{}")
    proxy = await start()
    assert names(proxy) == [f"{name}.1", f"{name}.json"]
    assert await offset_of(proxy, url) == 4
    await proxy.stop()
    record = folder / f"{name}.json"
    record.write_bytes(record.read_bytes().replace(b'"origin": "http', b'"origin": "https'))
    proxy = await start()
    assert names(proxy) == []
    assert (await proxy.request("HEAD", url, TUS)).status == 404


async def test_parts_of_another_size(start: StartProxy, s3: S3) -> None:
    """A record whose parts do not have the size that it names is invalid, because its offset would be wrong (I8)."""
    proxy = await start()
    body = pattern(2 * PART_SIZE)
    url = await created(proxy, len(body))
    assert (await patched(proxy, url, 0, body[: PART_SIZE + 1])).status == 204
    await proxy.stop()
    record = proxy.app.settings.cache.dir / "uploads" / f"{url.rpartition('/')[2]}.json"
    record.write_bytes(record.read_bytes().replace(f", {PART_SIZE}]]".encode(), b", 4711]]"))
    proxy = await start()
    assert (await proxy.request("HEAD", url, TUS)).status == 404
    assert names(proxy) == []


async def test_the_number_of_uploads_is_bounded(proxy: Proxy) -> None:
    """Unfinished uploads are bounded: 503 beyond, once no finished one can be forgotten instead (I19)."""
    proxy.app.fair_shares.shares[Resource.RESUMABLE_UPLOADS].capacity = 3
    urls = [await created(proxy, 4, str(number)) for number in range(3)]
    assert (await patched(proxy, urls[0], 0, b"data")).status == 204
    urls.append(await created(proxy, 4, "4"))
    answer = await proxy.request("POST", "/upload", {**TUS, "Upload-Length": "4"})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert [(await proxy.request("HEAD", url, TUS)).status for url in urls] == [404, 200, 200, 200]


async def test_uploads_that_cannot_be_aborted(
    proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Uploads that S3 does not abort prevent no new one. They have their own bound and one log line each (I19)."""
    proxy.app.fair_shares.shares[Resource.RESUMABLE_UPLOADS].capacity = 2
    monkeypatch.setattr(manager, "MAX_DROPPED", 3)

    async def deny(seen: Seen) -> bytes | None:
        return canned(403, "AccessDenied") if seen.method == "DELETE" else None

    proxy.relay.on_request = deny
    body = pattern(PART_SIZE + 1)
    for number in range(5):
        url = await created(proxy, len(body) + 1, str(number))
        assert (await patched(proxy, url, 0, body)).status == 204
        assert (await proxy.request("DELETE", url, TUS)).status == 204
        await proxy.app.upload_manager.step()
    logged = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert sum("is not aborted yet" in message for message in logged) == 5
    assert sum("stay at S3" in message for message in logged) == 2
    assert (s3.unfinished, len(names(proxy))) == (5, 3)
    proxy.relay.on_request = None
    await proxy.app.upload_manager.step()
    assert (s3.unfinished, names(proxy), proxy.figures["bytes_used"]) == (2, [], 0)


async def test_expectation(proxy: Proxy, s3: S3) -> None:
    """`100 Continue` comes once the offset is known to be right, and not before."""
    url = await created(proxy, 4)
    for offset, status in ((1, 409), (0, 100)):
        async with proxy.connection() as connection:
            told = {**BODY, "Upload-Offset": str(offset), "Content-Length": "4", "Expect": "100-continue"}
            await connection.send(message("PATCH", url, told))
            assert (await connection.response("PATCH")).status == status
            if status == 100:
                await connection.send(b"data")
                assert (await connection.response("PATCH")).status == 204
    assert s3.get("x") == b"data"


async def test_a_kill_at_each_part(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends after S3 accepted a part and before it is noted sends the part again, and no byte is lost
    (I14).
    """
    proxy = await start()
    body = pattern(PART_SIZE + MIB)
    url = await created(proxy, len(body))
    transfer = proxy.app.upload_manager._transfer

    async def never(*args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(transfer, "_note_part", never)
    sending = asyncio.create_task(patched(proxy, url, 0, body))
    await until(lambda: any("partNumber=1" in seen.target and seen.is_over for seen in proxy.relay.seen))
    state = {path.name: path.read_bytes() for path in (proxy.app.settings.cache.dir / "uploads").iterdir()}
    monkeypatch.undo()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    for task in asyncio.all_tasks():
        if "never" in repr(task):
            task.cancel()
    await proxy.stop()
    for name, content in state.items():
        (proxy.app.settings.cache.dir / "uploads" / name).write_bytes(content)
    proxy = await start()
    at = await offset_of(proxy, url)
    assert at == PART_SIZE
    assert (await patched(proxy, url, at, body[at:])).status == 204
    assert s3.get("x") == body
