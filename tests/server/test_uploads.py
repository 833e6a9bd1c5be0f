"""PUT, POST and DELETE. S3 gets exactly the sent bytes, whole or not at all, and reads see the result at once."""

import asyncio
import gzip
import re

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from relay import Seen, canned
from rows import each_row
from wire import chunked, message

from bucketfront.server import object_writer

ULID = r"[0-9A-HJKMNP-TV-Z]{26}"
MIB = 1 << 20


async def test_put(proxy: Proxy, s3: S3) -> None:
    """PUT stores the body and responds with 201, key, Location and S3's own ETag. A GET then returns the body."""
    body = pattern(3 * BLOCK + 1)
    response = await proxy.request("PUT", "/a%20b/c.bin", {"Content-Type": "text/x-test; charset=utf-8"}, body)
    assert (response.status, response.json()) == (201, {"key": "a b/c.bin"})
    assert response.headers["Location"] == "/a%20b/c.bin"
    assert response.headers["Content-Type"] == "application/json"
    stored = s3.head("a b/c.bin")
    assert response.headers["ETag"] == stored["ETag"]
    assert stored["ContentType"] == "text/x-test; charset=utf-8"
    assert s3.get("a b/c.bin") == body
    got = await proxy.get("/a%20b/c.bin")
    assert (got.body, got.headers["ETag"]) == (body, stored["ETag"])


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("/upload", ULID),
        ("/upload/", ULID),
        ("/upload/x.bin", r"x\.bin"),
        ("/upload/a/b%20c", "a/b c"),
        ("/upload/a/", f"a/{ULID}"),
        ("/folder/", f"folder/{ULID}"),
        ("/", ULID),
    ],
)
async def test_post(proxy: Proxy, s3: S3, target: str, key: str) -> None:
    """POST to a folder, or to the upload route, makes a ULID if no key is named, and Location leads to the object."""
    response = await proxy.request("POST", target, body=b"data")
    assert response.status == 201
    made = response.json()["key"]
    assert re.fullmatch(key, made)
    assert s3.keys() == [made]
    assert response.headers["ETag"] == s3.head(made)["ETag"]
    assert (await proxy.get(response.headers["Location"])).body == b"data"


async def test_upload_route_of_its_own(start: StartProxy, s3: S3) -> None:
    """The upload route writes into its mount, whatever the mount's methods are, and Location is below that mount."""
    proxy = await start(
        mounts=[{"path": "/", "bucket": s3.bucket, "prefix": "root/"}, {"path": "/download/", "bucket": s3.bucket}],
        uploads={"path": "/in", "mount": "/download/"},
    )
    response = await proxy.request("POST", "/in/x.txt", body=b"data")
    assert (response.status, response.json(), response.headers["Location"]) == (
        201,
        {"key": "x.txt"},
        "/download/x.txt",
    )
    assert s3.keys() == ["x.txt"]
    assert (await proxy.request("PUT", "/download/x.txt", body=b"no")).status == 405


@pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 17 * MIB])
async def test_chunked(proxy: Proxy, s3: S3, size: int) -> None:
    """A body of unknown length arrives whole, in parts if it is large, and no upload is left unfinished."""
    body = pattern(size)
    pieces = [body[at : at + MIB - 7] for at in range(0, size, MIB - 7)]
    response = await proxy.request("PUT", "/x", {"Transfer-Encoding": "chunked"}, chunked(*pieces))
    assert response.status == 201
    assert s3.get("x") == body
    assert s3.unfinished == 0


async def test_empty_body(proxy: Proxy, s3: S3) -> None:
    """An empty body is an object too, if the client declares it as empty."""
    for headers, body in (({}, b""), ({"Transfer-Encoding": "chunked"}, chunked())):
        s3.put("x", b"old")
        assert (await proxy.request("PUT", "/x", headers, body)).status == 201
        assert s3.get("x") == b""


@each_row("version", ["1.0", "1.1"])
@each_row("line", ["PUT /x", "POST /upload/x", "POST /upload", "POST /?delete"])
async def test_no_length(proxy: Proxy, s3: S3, line: str, version: str) -> None:
    """A write without a length does not empty the object.

    It is a 411, and the connection closes (RFC 9110 section 15.5.12).
    """
    s3.put("x", b"old")
    async with proxy.connection() as connection:
        await connection.send(f"{line} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode() + b"data")
        assert (await connection.response("PUT")).status == 411
        assert await connection.rest() == b""
    assert s3.get("x") == b"old"
    assert proxy.relay.seen == []


async def test_expect_continue(proxy: Proxy, s3: S3) -> None:
    """The 100 comes before the body is sent, the 201 after it (RFC 9110 section 10.1.1)."""
    async with proxy.connection() as connection:
        await connection.send(message("PUT", "/x", {"Expect": "100-continue", "Content-Length": "4"}))
        assert (await connection.head()).status == 100
        await connection.send(b"data")
        assert (await connection.response("PUT")).status == 201
        assert (await connection.request("GET", "/x")).body == b"data"
    assert s3.get("x") == b"data"


REFUSED = [
    # target, headers, status
    ("/x", {"Content-Length": "1001"}, 413),
    ("/ro/x", {"Content-Length": "4"}, 405),
    ("/%ff", {"Content-Length": "4"}, 400),
    ("/x", {"Content-Length": "4", "x-amz-content-sha256": "STREAMING-OTHER"}, 501),
    ("/x", {"Content-Length": "4", "Content-Encoding": "aws-chunked", "x-amz-trailer": "x-amz-meta-a"}, 501),
    ("/x", {"Content-Length": "4", "Content-Encoding": "aws-chunked", "x-amz-decoded-content-length": "x"}, 400),
    ("/x", {"Content-Length": "4", "Content-Encoding": "aws-chunked", "x-amz-decoded-content-length": "1001"}, 413),
]


async def test_refused_before_the_body(start: StartProxy, s3: S3) -> None:
    """A request that its head alone forbids is refused without a 100 and without a request to the origin, and the
    connection closes (I24).
    """
    proxy = await start(
        mounts=[
            {"path": "/", "bucket": s3.bucket, "methods": ["GET", "PUT"]},
            {"path": "/ro/", "bucket": s3.bucket},
        ],
        uploads={"max_size": 1000},
    )

    async def answered(target: str, headers: dict[str, str]) -> tuple[int, bytes]:
        async with proxy.connection() as connection:
            await connection.send(message("PUT", target, {**headers, "Expect": "100-continue"}))
            response = await connection.response("PUT")
            return response.status, b"" if response.status == 100 else await connection.rest()

    found = await asyncio.gather(*(answered(target, headers) for target, headers, _ in REFUSED))
    assert found == [(status, b"") for _, _, status in REFUSED]
    assert proxy.relay.seen == []


async def test_body_of_a_refused_upload_is_no_request(start: StartProxy, s3: S3) -> None:
    """After an error to an upload the connection never reads the body as the next request (I24)."""
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket}], uploads=None)
    s3.put("x", b"secret")
    hidden = message("GET", "/x")
    for headers, body in (({}, hidden), ({"Transfer-Encoding": "chunked"}, chunked(hidden) + hidden)):
        async with proxy.connection() as connection:
            await connection.send(message("PUT", "/y", headers, body))
            assert (await connection.response("PUT")).status == 405
            assert b"secret" not in await connection.rest()
    assert proxy.relay.seen == []


async def test_body_of_a_get_is_no_request(proxy: Proxy, s3: S3) -> None:
    """A GET may have a body (RFC 9110 section 9.3.1). It is skipped, cold and warm, and never parsed (I24)."""
    s3.put("x", b"data")
    s3.put("hidden", b"secret")
    async with proxy.connection() as connection:
        for _ in range(2):
            response = await connection.request("GET", "/x", body=message("GET", "/hidden"))
            assert response.body == b"data"
    assert [seen for seen in proxy.relay.seen if seen.target.endswith("hidden")] == []


@pytest.mark.parametrize("size", [1001, 200_000])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_too_large(start: StartProxy, s3: S3, size: int, is_chunked: bool) -> None:
    """A body over `uploads.max_size` is a 413, with a declared length and without, and nothing is stored (I8)."""
    proxy = await start(uploads={"max_size": 1000})
    s3.put("x", b"old")
    body = bytes(size)
    headers = {"Transfer-Encoding": "chunked"} if is_chunked else {}
    response = await proxy.request("PUT", "/x", headers, chunked(body) if is_chunked else body)
    assert response.status == 413
    assert s3.get("x") == b"old"
    assert (await proxy.get("/x")).body == b"old"


async def test_max_size_itself_is_allowed(start: StartProxy, s3: S3) -> None:
    """The limit is inclusive."""
    proxy = await start(uploads={"max_size": 1000})
    assert (await proxy.request("PUT", "/x", body=bytes(1000))).status == 201
    headers = {"Transfer-Encoding": "chunked"}
    assert (await proxy.request("PUT", "/y", headers, chunked(bytes(1000)))).status == 201


async def test_too_large_after_the_first_parts(start: StartProxy, s3: S3) -> None:
    """A body of unknown length that proves too large leaves neither an object nor parts that cost money (I8)."""
    proxy = await start(uploads={"max_size": 9 * MIB})
    pieces = [bytes(MIB)] * 10
    response = await proxy.request("PUT", "/x", {"Transfer-Encoding": "chunked"}, chunked(*pieces))
    assert response.status == 413
    assert s3.keys() == []
    assert s3.unfinished == 0


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({"Content-Length": str(MIB)}, bytes(MIB // 2)),
        ({"Content-Length": "10"}, b"half"),
        ({"Transfer-Encoding": "chunked"}, chunked(bytes(MIB), end=False)),
        ({"Transfer-Encoding": "chunked"}, chunked(b"half", end=False)),
        ({"Transfer-Encoding": "chunked"}, b"10\r\nhalf"),
        ({"Transfer-Encoding": "chunked"}, chunked(bytes(9 * MIB), end=False)),
    ],
    ids=["declared", "declared-small", "chunked", "chunked-small", "in-a-chunk", "multipart"],
)
async def test_client_that_leaves_half_way(proxy: Proxy, s3: S3, headers: dict[str, str], sent: bytes) -> None:
    """A client that closes early never makes a shorter object, and the old version stays (I8)."""
    s3.put("x", b"old")
    assert (await proxy.get("/x")).body == b"old"
    async with proxy.connection() as connection:
        await connection.send(message("PUT", "/x", headers) + sent)
    await until(lambda: any(line["method"] == "PUT" for line in proxy.log) and not proxy.relay.running)
    assert s3.get("x") == b"old"
    assert (await proxy.get("/x")).body == b"old"
    assert s3.unfinished == 0


async def test_read_your_writes(proxy: Proxy, s3: S3) -> None:
    """After a 2xx every read has the new state, whatever was cached before, also a 404 (I5)."""
    assert (await proxy.get("/x")).status == 404
    for body in (b"one", b"two", b"three"):
        assert (await proxy.request("PUT", "/x", body=body)).status == 201
        for _ in range(2):
            assert (await proxy.get("/x")).body == body
        assert (await proxy.request("HEAD", "/x")).headers["Content-Length"] == str(len(body))
    assert (await proxy.request("DELETE", "/x")).status == 204
    assert (await proxy.get("/x")).status == 404
    assert s3.keys() == []


async def test_delete_of_what_is_not_there(proxy: Proxy) -> None:
    """DELETE is idempotent: a 204 if there was no object, as in S3."""
    for _ in range(2):
        response = await proxy.request("DELETE", "/never")
        assert (response.status, response.body) == (204, b"")


async def test_fill_from_before_a_write_is_not_kept(proxy: Proxy, s3: S3) -> None:
    """A GET that reached the origin before a PUT may have the old version, but leaves no entry of it (I6)."""
    old, new = pattern(2 * BLOCK, 1), pattern(2 * BLOCK, 2)
    s3.put("x", old)
    gate = asyncio.Event()
    held = asyncio.Event()

    async def hold(seen: Seen) -> None:
        if seen.method == "GET" and not gate.is_set():
            held.set()
            await gate.wait()

    proxy.relay.on_body = hold
    racing = asyncio.create_task(proxy.get("/x"))
    await held.wait()
    assert (await proxy.request("PUT", "/x", body=new)).status == 201
    reading = asyncio.create_task(proxy.get("/x"))
    gate.set()
    first = await racing
    assert first.body in (old, new) or not first.is_complete
    assert (await reading).body == new
    assert (await proxy.get("/x")).body == new


async def test_lookup_from_before_a_delete_is_not_kept(proxy: Proxy, s3: S3) -> None:
    """The same for a lookup whose response arrives only after the DELETE (I6)."""
    s3.put("x", b"old")
    gate, held = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if seen.method == "GET" and not gate.is_set():
            held.set()
            await gate.wait()
        return None

    proxy.relay.on_request = hold
    racing = asyncio.create_task(proxy.get("/x"))
    await held.wait()
    assert (await proxy.request("DELETE", "/x")).status == 204
    s3.put("x", b"stranger")  # what the held request will find
    gate.set()
    assert (await racing).body == b"stranger"
    s3.delete("x")
    assert (await proxy.get("/x")).status == 404


async def test_encoded_bodies_stay_as_sent(proxy: Proxy, s3: S3) -> None:
    """A gzip body is stored and returned as it was sent, with its Content-Encoding, and never decompressed (I24)."""
    body = gzip.compress(pattern(10_000))
    await proxy.request("PUT", "/x", {"Content-Encoding": "gzip"}, body)
    assert s3.get("x") == body
    response = await proxy.get("/x")
    assert (response.body, response.headers["Content-Encoding"]) == (body, "gzip")
    await proxy.request("PUT", "/y", {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}, chunked(b"no gzip"))
    assert s3.get("y") == b"no gzip"


async def test_object_headers_are_stored(proxy: Proxy, s3: S3) -> None:
    """The allow-listed headers and user metadata go to S3, and no other header of the client (I25)."""
    await proxy.request(
        "PUT",
        "/x",
        {
            "Content-Type": "text/css",
            "Cache-Control": "max-age=5",
            "Content-Disposition": "inline",
            "x-amz-meta-who": "me",
            "x-amz-acl": "private",
            "x-amz-security-token": "secret",
            "x-amz-storage-class": "STANDARD_IA",
            "x-amz-tagging": "a=1&b=2",
            "Cookie": "secret",
        },
        b"data",
    )
    response = await proxy.get("/x")
    assert response.headers["Content-Type"] == "text/css"
    assert response.headers["Cache-Control"] == "max-age=5"
    assert response.headers["Content-Disposition"] == "inline"
    assert response.headers["x-amz-meta-who"] == "me"
    put = next(seen for seen in proxy.relay.seen if seen.method == "PUT")
    assert put.headers["x-amz-storage-class"] == "STANDARD_IA"
    assert not {"x-amz-acl", "x-amz-security-token", "cookie"} & put.headers.keys()
    tags = s3.client.get_object_tagging(Bucket=s3.bucket, Key="x")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"a": "1", "b": "2"}


@each_row(
    "headers",
    [
        {"x-amz-copy-source": "/bucket/other"},
        {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
        {"x-amz-object-lock-mode": "COMPLIANCE"},
        {"x-amz-write-offset-bytes": "3"},
        {"x-amz-acl": "public-read"},
        {"x-amz-expected-bucket-owner": "123"},
    ],
)
async def test_what_is_not_implemented_is_not_passed_over(proxy: Proxy, s3: S3, headers: dict[str, str]) -> None:
    """A copy is no empty object, an append no replacement, and an ignored lock no lock, so they are a 501 (I8)."""
    s3.put("x", b"old")
    assert (await proxy.request("PUT", "/x", headers, b"")).status == 501
    assert (await proxy.request("POST", "/upload/x", headers, b"")).status == 501
    assert (await proxy.request("DELETE", "/x", headers)).status == 501
    assert s3.get("x") == b"old"
    assert proxy.relay.seen == []


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (400, "BadDigest", 400),
        (409, "OperationAborted", 409),
        (409, "ConditionalRequestConflict", 409),
        (412, "PreconditionFailed", 502),  # the write had no condition
        (403, "AccessDenied", 403),
        (503, "SlowDown", 503),
    ],
)
async def test_refused_by_s3(proxy: Proxy, s3: S3, status: int, code: str, told: int) -> None:
    """The client gets S3's refusal in few words. The old version stays, and the next read fetches it again (I8, I9)."""
    s3.put("x", b"old")
    assert (await proxy.get("/x")).body == b"old"

    async def refuse(seen: Seen) -> bytes | None:
        return canned(status, code) if seen.method == "PUT" else None

    proxy.relay.on_request = refuse
    response = await proxy.request("PUT", "/x", body=b"data")
    assert response.status == told
    assert code not in response.body.decode()
    proxy.relay.reset()
    assert (await proxy.get("/x")).body == b"old"
    assert len(proxy.relay.seen) == 1


async def test_a_disk_that_does_not_answer(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write waits only for a bounded time until the old file is unlinked.

    No read gets that file any more (I5, I16, I20).
    """
    monkeypatch.setattr(object_writer, "INVALIDATE_TIMEOUT_S", 0.1)
    s3.put("x", b"old")
    assert (await proxy.get("/x")).body == b"old"
    await proxy.settled()
    store = proxy.app.cache_assembly.store
    remove, gate = store.remove, asyncio.Event()

    async def slow(name: str) -> None:
        await gate.wait()
        await remove(name)

    monkeypatch.setattr(store, "remove", slow)
    assert (await proxy.request("PUT", "/x", body=b"new")).status == 201
    assert (await proxy.get("/x")).body == b"new"
    gate.set()
    await until(lambda: len(proxy.files) == 1)
