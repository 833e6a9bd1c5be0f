"""Framing at the S3 endpoint: lengths, chunks, pipelines and old versions of HTTP, by hostile clients."""

import hashlib
from base64 import b64encode
from urllib.parse import parse_qs

import pytest
from proxy_under_test import S3, Proxy, StartProxy, WallClock
from s3_clients import RawClient, endpoint
from s3_signer import SIGNED_CHUNKS, UNSIGNED, UNSIGNED_TRAILER, Chunks
from wire import connected, fetch, message

BODY = b"0123456789" * 2000


@pytest.fixture
def clock() -> WallClock:
    """The clock of the client as well, because a signature has a time."""
    clock = WallClock()
    clock.jump(-3600)
    return clock


@pytest.fixture
async def proxy(start: StartProxy) -> Proxy:
    return await start(**endpoint())


@pytest.fixture
def raw(proxy: Proxy, clock: WallClock) -> RawClient:
    return RawClient(proxy, clock)


def signed(raw: RawClient, target: str, payload: str = UNSIGNED, **fields: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return raw.signer.fields("PUT", raw.address + target, named, BODY, payload=payload)


async def test_the_last_chunk_has_a_wrong_signature(raw: RawClient, s3: S3) -> None:
    """A body whose last chunk is not signed, or is missing, stores nothing, although all data was good (I3, I8)."""
    target = f"/{s3.bucket}/a"
    fields = signed(
        raw, target, SIGNED_CHUNKS, content_encoding="aws-chunked", x_amz_decoded_content_length=str(len(BODY))
    )
    for end, code in ((b"0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n", b"SignatureDoesNotMatch"), (b"", b"")):
        body = Chunks(raw.signer, fields).chunk(BODY) + end
        response = await fetch(raw.address, target, method="PUT", headers=fields, body=body)
        assert (response.status in (400, 403), code in response.body) == (True, True), response.body
    assert s3.keys() == []


async def test_signed_chunks_of_a_presigned_url(raw: RawClient, s3: S3) -> None:
    """If a presigned URL is for signed chunks, their signatures are verified as well (I8)."""
    target = f"/{s3.bucket}/a"
    given = {"x-amz-content-sha256": SIGNED_CHUNKS, "x-amz-decoded-content-length": str(len(BODY))}
    signed_target = raw.signer.presigned("PUT", raw.address + target, fields=given)
    fields = {"Host": raw.address.removeprefix("http://"), **given}
    seed = parse_qs(signed_target.partition("?")[2])
    head = {"X-Amz-Date": seed["X-Amz-Date"][0], "Authorization": f"Signature={seed['X-Amz-Signature'][0]}"}
    chunks = Chunks(raw.signer, head)
    right = chunks.chunk(BODY) + chunks.chunk(b"") + b"\r\n"
    for body, status in ((right.replace(b"9012", b"9112", 1), 403), (right, 200)):
        response = await fetch(raw.address, signed_target, method="PUT", headers=fields, body=body)
        assert response.status == status, response.body
        assert s3.keys() == ([] if status == 403 else ["a"])


async def test_a_trailing_checksum_that_is_wrong(raw: RawClient, s3: S3, proxy: Proxy) -> None:
    """A checksum behind the body that is wrong, or that belongs to another body, stores nothing (I3, I8)."""
    target = f"/{s3.bucket}/a"
    fields = signed(
        raw,
        target,
        UNSIGNED_TRAILER,
        content_encoding="aws-chunked",
        x_amz_decoded_content_length=str(len(BODY)),
        x_amz_trailer="x-amz-checksum-sha256",
    )
    right, wrong = (b64encode(hashlib.sha256(data).digest()) for data in (BODY, b"another"))
    for data, digest, status in (
        (BODY, wrong, 400),
        (BODY[:-1], right, 400),
        (BODY + b"x", right, 400),
        (BODY, right, 200),
    ):
        body = b"%x\r\n%b\r\n0\r\nx-amz-checksum-sha256:%b\r\n\r\n" % (len(data), data, digest)
        response = await fetch(raw.address, target, method="PUT", headers=fields, body=body)
        assert response.status == status, response.body
        assert s3.keys() == ([] if status == 400 else ["a"])
    assert (await proxy.get("/a")).body == BODY


async def test_bodies_of_another_length(raw: RawClient, s3: S3) -> None:
    """A body that ends early stores nothing, and what follows a whole one is the next request (I24)."""
    target = f"/{s3.bucket}/a"
    fields = signed(raw, target)
    async with connected(raw.address) as connection:
        await connection.send(message("PUT", target, fields, BODY)[:-1])
        connection.socket.shutdown(1)
        assert (await connection.rest())[:12] in (b"", b"HTTP/1.1 400")
    assert s3.keys() == []
    async with connected(raw.address) as connection:
        head = message("GET", f"/{s3.bucket}/secret", {"Host": raw.address.removeprefix("http://")})
        await connection.send(message("PUT", target, fields, BODY) + head)
        assert (await connection.response("PUT")).status == 200
        assert (await connection.response()).status == 403
    assert s3.get("a") == BODY


async def test_chunked_transfer_encoding(raw: RawClient, s3: S3) -> None:
    """A PutObject in chunks of HTTP has no length, so it gets 411 as at S3 (I24)."""
    target = f"/{s3.bucket}/a"
    fields = signed(raw, target, Transfer_Encoding="chunked")
    head = message("PUT", target, fields)
    async with connected(raw.address) as connection:
        await connection.send(head + b"1\r\nx\r\n0\r\n\r\n")
        response = await connection.response("PUT")
    assert (response.status, b"MissingContentLength" in response.body) == (411, True), response.body
    assert s3.keys() == []


async def test_expect(raw: RawClient, s3: S3) -> None:
    """`100 Continue` invites a body that is permitted, and none whose request is refused."""
    target = f"/{s3.bucket}/a"
    fields = signed(raw, target) | {"Expect": "100-continue", "Content-Length": str(len(BODY))}
    async with connected(raw.address) as connection:
        await connection.send(message("PUT", target, fields))
        assert (await connection.head()).status == 100
        await connection.send(BODY)
        assert (await connection.response("PUT")).status == 200
    wrong = fields | {"Authorization": fields["Authorization"][:-4] + "0000"}
    async with connected(raw.address) as connection:
        await connection.send(message("PUT", target, wrong))
        assert (await connection.response("PUT")).status == 403
    assert s3.keys() == ["a"]


async def test_other_forms_of_requests(raw: RawClient, s3: S3) -> None:
    """The path of a target in absolute form counts, an old version of HTTP is served, and ambiguous heads are not."""
    s3.put("a", b"data")
    target = f"/{s3.bucket}/a"
    fields = raw.signer.fields("GET", raw.address + target)
    host = f"Host: {fields['Host']}\r\n"
    rest = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if name != "Host")
    rows = [
        (f"GET {target} HTTP/1.0\r\n{host}{rest}\r\n", b"200", True),
        (f"GET http://other.example{target} HTTP/1.1\r\n{host}{rest}\r\n", b"200", True),
        (f"HEAD {target} HTTP/1.1\r\n{host}{rest}\r\n", b"403", False),
        (f"GET {target} HTTP/1.1\r\n{host}{host}{rest}\r\n", b"400", False),
        (f"GET {target} HTTP/1.1\r\n{host}{rest}x-amz-date: {fields['X-Amz-Date']}\r\n\r\n", b"403", False),
        (f"GET {target} HTTP/1.1\r\n{host}{rest}Authorization: a\r\n\r\n", b"400", False),
        (f"GET /{target} HTTP/1.1\r\n{host}{rest}\r\n", b"400", False),
    ]
    for text, status, is_served in rows:
        async with connected(raw.address) as connection:
            await connection.send(text.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode())
            response = await connection.rest()
        assert (response[9:12], response.endswith(b"data")) == (status, is_served), (text, response)
