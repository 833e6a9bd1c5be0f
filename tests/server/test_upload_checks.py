"""Checksums of bodies, conditional writes and size limits. A refused write leaves the old version (I8)."""

import asyncio
import base64
import hashlib
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web
from proxy_under_test import S3, Proxy, StartProxy, pattern
from relay import Seen, canned
from rows import each_row
from stopwatch import HANG_S
from wire import chunked, message

from bucketfront.http import checksums
from bucketfront.server.error_responses import SlowClient
from bucketfront.server.receive.request_body import received
from bucketfront.server.telemetry.exchange import Exchange

MIB = 1 << 20
ALGORITHMS = ("md5", "sha1", "sha256", "sha512", "crc32", "crc32c", "crc64nvme")


def encoded(algorithm: str, data: bytes) -> str:
    state = checksums.hasher(algorithm)
    state.update(data)
    return base64.b64encode(state.digest()).decode()


def claims(body: bytes) -> list[dict[str, str]]:
    """Return the headers of each way to declare a checksum."""
    return [
        *({f"x-amz-checksum-{name}": encoded(name, body)} for name in ALGORITHMS),
        {"Content-MD5": encoded("md5", body)},
        {"Digest": f"MD5={encoded('md5', body)}"},
        {"Digest": f"SHA={encoded('sha1', body)}, SHA-512={encoded('sha512', body)}"},
        {"Content-Digest": f"sha-256=:{encoded('sha256', body)}:"},
        {"Repr-Digest": f"sha-256=:{encoded('sha256', body)}:"},
        {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()},
    ]


NAMES = [f"{name} {value[:8]}" for claim in claims(b"") for name, value in claim.items()]


@each_row("number", range(len(claims(b""))), ids=NAMES)
@each_row("framing", [{}, {"Transfer-Encoding": "chunked"}], ids=["length", "chunked"])
async def test_checksums(proxy: Proxy, s3: S3, number: int, framing: dict[str, str]) -> None:
    """A body that matches its checksum is stored. Any other, empty or not, is a 400 and leaves the old version."""
    old = b"the old version"
    for body in (b"", pattern(100_000)):
        wire = chunked(*([body] if body else [])) if framing else body
        assert (await proxy.request("PUT", "/x", body=old)).status == 201
        assert (await proxy.request("PUT", "/x", framing | claims(body + b".")[number], wire)).status == 400
        assert s3.get("x") == old
        assert (await proxy.get("/x")).body == old
        assert (await proxy.request("PUT", "/x", framing | claims(body)[number], wire)).status == 201
        assert s3.get("x") == body
        assert (await proxy.get("/x")).body == body


async def test_the_last_piece_is_held_back(proxy: Proxy, s3: S3) -> None:
    """S3 never gets all of a body with a wrong checksum, although S3 verifies none itself (I8)."""
    body = pattern(17 * MIB)
    wrong = {"Content-Digest": f"sha-512=:{encoded('sha512', body[1:])}:"}
    pieces = [body[at : at + MIB] for at in range(0, len(body), MIB)]
    assert (await proxy.request("PUT", "/known", wrong, body)).status == 400
    response = await proxy.request("PUT", "/x", {"Transfer-Encoding": "chunked", **wrong}, chunked(*pieces))
    assert (response.status, "sha512" in response.json()["error"]) == (400, True)
    assert s3.keys() == []
    assert s3.unfinished == 0


async def test_checksums_are_sent_on(proxy: Proxy, s3: S3) -> None:
    """A checksum that S3 can verify itself is passed on as the client sent it."""
    told = {"x-amz-checksum-crc32c": encoded("crc32c", b"data"), "Content-MD5": encoded("md5", b"data")}
    assert (await proxy.request("PUT", "/x", told, b"data")).status == 201
    (put,) = [seen for seen in proxy.relay.seen if seen.method == "PUT"]
    assert {name: put.headers[name.lower()] for name in told} == told


REFUSED = [
    # headers, status
    ({"Content-MD5": "nonsense"}, 400),
    ({"Digest": "sha-256=nonsense"}, 400),
    ({"Content-Digest": "sha-256=nonsense"}, 400),
    ({"Expires": "9" * 20}, 400),
    ({"Expires": "1e400"}, 400),
    ({"Repr-Digest": "sha-256=nonsense"}, 400),
    ({"x-amz-content-sha256": "nonsense"}, 400),
    ({"x-amz-checksum-crc32": "nonsense"}, 400),
    ({"x-amz-checksum-xxhash3": "AAAA"}, 501),
    ({"Content-Range": "bytes 0-3/10"}, 400),
    ({"x-amz-storage-class": "GLACIER"}, 400),
    ({"x-amz-tagging": "nonsense"}, 400),
    ({"x-amz-meta-a": "ü"}, 400),
    ({"If-None-Match": '"x"'}, 501),
    ({"If-Match": "*"}, 501),
    ({"If-Match": 'W/"x"'}, 412),
    ({"If-Match": "x"}, 400),
    ({"If-Unmodified-Since": "Wed, 21 Oct 2065 07:28:00 GMT"}, 501),
    ({"Content-Length": "0", "Content-MD5": encoded("md5", b"x")}, 400),
    ({"Content-Length": "101"}, 413),
    ({"Upload-Complete": "?0"}, 501),
    ({"Upload-Complete": "?0", "Upload-Draft-Interop-Version": "8", "Content-Length": "0"}, 501),
    ({"Upload-Complete": " ?0 ; a=1"}, 501),
    ({"Upload-Complete": "true"}, 400),
    ({"Upload-Incomplete": "?1"}, 501),
    ({"Upload-Complete": "?1", "Upload-Offset": "4"}, 501),
    ({"Upload-Complete": "?1", "Upload-Length": "8"}, 501),
    ({"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "6", "Upload-Metadata": "key YQ=="}, 501),
    ({"Upload-Length": "4", "Upload-Metadata": "filename YQ=="}, 501),
    ({"Upload-Defer-Length": "1"}, 501),
    ({"Tus-Resumable": "1.0.0", "Upload-Length": "4", "Content-Length": "0"}, 501),
    ({"Upload-Length": "nonsense"}, 501),
]

PART = {"Upload-Complete": "?0", "Upload-Draft-Interop-Version": "8"}
WHOLE = (
    {"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "8", "Upload-Length": "4", "Upload-Offset": "0"},
    {"Upload-Incomplete": "?0", "Upload-Draft-Interop-Version": "3"},
    {"Upload-Draft-Interop-Version": "8"},
)


async def test_a_part_of_an_object_is_not_stored(start: StartProxy, s3: S3) -> None:
    """A body that is a part of the object gets 501 and a reason, by each way of writing; the old version stays (I8)."""
    mount = {"path": "/", "bucket": s3.bucket, "methods": ["GET", "PUT", "POST"]}
    proxy = await start(mounts=[mount], uploads={"path": "/upload"})
    s3.put("x", b"the old version")
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\npart\r\n--b--\r\n'
    for method, path, fields, body in (
        ("PUT", "/x", {}, b"part"),
        ("PUT", "/x", {"Transfer-Encoding": "chunked"}, chunked(b"part")),
        ("PUT", "/x", {"Content-Length": "0"}, b""),
        ("POST", "/", {}, b"part"),
        ("POST", "/upload", {"Content-Length": "0"}, b""),
        ("POST", "/upload/x", {}, b"part"),
        ("POST", "/", {"Content-Type": "multipart/form-data; boundary=b"}, form),
    ):
        response = await proxy.request(method, path, PART | fields, body)
        assert response.status == 501, (method, path)
        assert b"part of the object" in response.body
    assert s3.get("x") == b"the old version"
    assert s3.keys() == ["x"]


@pytest.mark.parametrize("fields", WHOLE, ids=["complete", "not incomplete", "version only"])
async def test_a_whole_upload_of_the_draft_is_an_ordinary_one(proxy: Proxy, s3: S3, fields: dict[str, str]) -> None:
    """A client of resumable uploads that sends the whole object in one request has it stored."""
    response = await proxy.request("PUT", "/x", fields, b"body")
    assert response.status == 201
    # tus-js-client takes the response for a failure without it.
    assert response.headers.get("Upload-Offset") == ("4" if len(fields) > 1 else None)
    assert s3.get("x") == b"body"
    assert (await proxy.get("/x")).body == b"body"


async def test_what_the_head_decides_is_decided_before_the_body(start: StartProxy, s3: S3) -> None:
    """Impossible sizes, conditions and fields get no 100 and no request to S3, and the connection closes (I24)."""
    mount = {"path": "/", "bucket": s3.bucket, "methods": ["PUT"], "max_size": 100}
    proxy = await start(mounts=[mount, {**mount, "path": "/once/", "max_size": None, "write_once": True}])

    async def answered(target: str, headers: dict[str, str]) -> tuple[int, bytes]:
        async with proxy.connection() as connection:
            told = {"Content-Length": "4", **headers, "Expect": "100-continue"}
            await connection.send(message("PUT", target, told))
            response = await connection.response("PUT")
            return response.status, b"" if response.status == 100 else await connection.rest()

    found = await asyncio.gather(*(answered("/x", headers) for headers, _ in REFUSED))
    assert found == [(status, b"") for _, status in REFUSED]
    assert await answered("/once/x", {"If-Match": '"x"'}) == (412, b"")
    assert (await answered("/once/x", {"Content-Length": "101"}))[0] == 100
    assert proxy.relay.seen == []


async def test_max_size_of_a_mount(start: StartProxy, s3: S3) -> None:
    """The smaller limit of mount and uploads counts, inclusive, also for bodies of unknown length."""
    mount = {"bucket": s3.bucket, "methods": ["PUT"]}
    proxy = await start(
        mounts=[{**mount, "path": "/", "max_size": 100}, {**mount, "path": "/large/", "max_size": 1000}],
        uploads={"max_size": 500},
    )
    for target, limit in (("/x", 100), ("/large/x", 500)):
        for framing in ({}, {"Transfer-Encoding": "chunked"}):
            for size, status in ((limit, 201), (limit + 1, 413)):
                body = chunked(bytes(size)) if framing else bytes(size)
                assert (await proxy.request("PUT", target, framing, body)).status == status


async def test_if_none_match(proxy: Proxy, s3: S3) -> None:
    """`If-None-Match: *` is a 201 if there is no object, and else a 412 that leaves it."""
    only_new = {"If-None-Match": "*"}
    assert (await proxy.request("PUT", "/x", only_new, b"one")).status == 201
    refused = await proxy.request("PUT", "/x", only_new, b"two")
    assert (refused.status, refused.json()) == (412, {"error": "the condition of the write does not hold"})
    assert (await proxy.get("/x")).body == s3.get("x") == b"one"


async def test_if_match(proxy: Proxy, s3: S3) -> None:
    """`If-Match` replaces the version that the client knows, and is a 412 for another one (no lost update)."""
    first = (await proxy.request("PUT", "/x", body=b"one")).headers["ETag"]
    assert (await proxy.request("PUT", "/x", {"If-Match": first}, b"two")).status == 201
    assert (await proxy.request("PUT", "/x", {"If-Match": first}, b"three")).status == 412
    assert (await proxy.get("/x")).body == s3.get("x") == b"two"


async def test_write_once(start: StartProxy, s3: S3) -> None:
    """On a write-once mount no object is overwritten, by PUT, POST or a form. Other mounts are unaffected."""
    mount = {"bucket": s3.bucket, "methods": ["GET", "PUT", "POST"]}
    proxy = await start(
        mounts=[{**mount, "path": "/", "write_once": True}, {**mount, "path": "/free/"}], uploads={"path": "/up"}
    )
    assert (await proxy.request("PUT", "/x", body=b"one")).status == 201
    form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\ntwo\r\n--b--'
    multipart = {"Content-Type": "multipart/form-data; boundary=b"}
    assert (await proxy.request("PUT", "/x", body=b"two")).status == 412
    assert (await proxy.request("POST", "/up/x", body=b"two")).status == 412
    assert (await proxy.request("POST", "/up/x", multipart, form)).status == 412
    assert (await proxy.request("POST", "/up/", body=b"new")).status == 201
    assert s3.get("x") == b"one"
    assert (await proxy.request("PUT", "/free/x", body=b"two")).status == 201
    assert (await proxy.get("/x")).status in (200, 304)


async def test_a_conflict(proxy: Proxy, s3: S3) -> None:
    """S3's 409 to a conditional write goes to the client, which may retry, and the object is looked up anew (I9)."""

    async def conflict(seen: Seen) -> bytes | None:
        return canned(409, "ConditionalRequestConflict") if seen.method == "PUT" else None

    s3.put("x", b"old")
    proxy.relay.on_request = conflict
    assert (await proxy.request("PUT", "/x", {"If-None-Match": "*"}, b"new")).status == 409
    assert (await proxy.get("/x")).body == b"old"


async def test_conditional_deletes_are_not_taken(proxy: Proxy, s3: S3) -> None:
    """A DELETE with an ignored condition would be a lost update, so it is refused."""
    s3.put("x", b"old")
    for headers in ({"If-Match": '"x"'}, {"If-Unmodified-Since": "Wed, 21 Oct 2015 07:28:00 GMT"}):
        assert (await proxy.request("DELETE", "/x", headers)).status == 501
    assert s3.get("x") == b"old"


async def test_a_type_by_extension(start: StartProxy, s3: S3) -> None:
    """An upload without a type gets one by its key, unless the mount guesses none. A type that was sent stays."""
    mount = {"bucket": s3.bucket, "methods": ["GET", "PUT"]}
    proxy = await start(mounts=[{**mount, "path": "/"}, {**mount, "path": "/raw/", "guess_types": False}])
    for target, headers, kind in (
        ("/a.mp4", {}, "video/mp4"),
        ("/b.mp4", {"Content-Type": "text/x"}, "text/x"),
        ("/raw/c.mp4", {}, "binary/octet-stream"),
        ("/d", {}, "binary/octet-stream"),
    ):
        assert (await proxy.request("PUT", target, headers, b"data")).status == 201
        assert s3.head(target.rpartition("/")[2])["ContentType"] == kind


async def test_key_template(start: StartProxy, s3: S3) -> None:
    """A POST without a key gets one by the mount's template, below its folder."""
    mount = {"path": "/", "bucket": s3.bucket, "methods": ["POST"], "key_template": "{date}/{ulid}{ext}"}
    proxy = await start(mounts=[mount])
    proxy.clock.now = 1_793_000_000.0
    key = (await proxy.request("POST", "/in/", body=b"data")).json()["key"]
    assert key.startswith("in/2026/10/26/")
    assert s3.keys() == [key]


async def test_deadline(start: StartProxy, s3: S3) -> None:
    """A steady body without end is a 408 after `uploads.deadline`, and is not stored (I8, I20)."""
    proxy = await start(uploads={"deadline": "300ms"})
    async with proxy.connection() as connection:
        await connection.send(message("PUT", "/x", {"Transfer-Encoding": "chunked"}))

        async def steadily() -> None:
            while True:
                await connection.send(chunked(bytes(100), end=False))
                await asyncio.sleep(0.02)

        sending = asyncio.create_task(steadily())
        response = await connection.response("PUT")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert (response.status, "0.3 s" in response.json()["error"]) == (408, True)
    assert s3.keys() == []


async def test_deadline_of_a_body_that_is_always_there() -> None:
    """If all bytes arrive before they are read, no read waits, and the deadline counts nevertheless (I20)."""

    class Ready:
        async def read(self, count: int) -> bytes:
            return bytes(count)

    request = cast("web.BaseRequest", SimpleNamespace(content=Ready()))
    chunks = received(Exchange(request, asyncio.get_running_loop().time()), None, 1 << 40, deadline=0.1)

    async def consume() -> None:
        async for _ in chunks:
            await asyncio.sleep(0)

    with pytest.raises(SlowClient, match=r"after 0\.1 s"):
        await asyncio.wait_for(consume(), HANG_S)


def test_the_algorithms_are_told_apart() -> None:
    """The table above covers every algorithm that can be verified."""
    assert set(ALGORITHMS) == checksums.ALGORITHMS
    assert encoded("sha256", b"x") == base64.b64encode(hashlib.sha256(b"x").digest()).decode()
