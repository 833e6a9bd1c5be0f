"""Streamed uploads of S3's clients: the object is stored without the framing of its body."""

import base64
import zlib
from collections.abc import Mapping

import pytest
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern
from rows import each_row
from wire import Response, chunked

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
UNSIGNED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNATURE = b";chunk-signature=" + b"a" * 64
CHUNK = 8 << 10


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def framed(data: bytes, *, signature: bytes = b"", checksum: str | None = None) -> bytes:
    pieces = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), signature, piece) for piece in pieces)
    rest = b"" if checksum is None else f"x-amz-checksum-crc32:{checksum}\r\n".encode()
    return body + b"0%s\r\n%s\r\n" % (signature, rest)


def head(data: bytes, kind: str = UNSIGNED, **fields: str) -> dict[str, str]:
    trailer = {"x-amz-trailer": "x-amz-checksum-crc32"} if kind == UNSIGNED else {}
    length = {"x-amz-decoded-content-length": str(len(data))}
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return {"Content-Encoding": "aws-chunked", "x-amz-content-sha256": kind, **length, **trailer, **named}


async def put(proxy: Proxy, headers: Mapping[str, str], body: bytes, target: str = "/x") -> Response:
    return await proxy.request("PUT", target, headers, body)


@each_row("size", [0, 1, CHUNK, BLOCK + 7, 3 * PART + 7])
@each_row("kind", [SIGNED, UNSIGNED])
async def test_the_object_is_decoded(proxy: Proxy, s3: S3, size: int, kind: str) -> None:
    """The object has the client's bytes and no trace of the framing, at S3 and in the cache (I3)."""
    data = pattern(size)
    signature, checksum = (SIGNATURE, None) if kind == SIGNED else (b"", crc32(data))
    body = framed(data, signature=signature, checksum=checksum)
    async with proxy.connection() as connection:
        assert (await connection.request("PUT", "/x", head(data, kind), body)).status == 201
        response = await connection.request("GET", "/x")  # the connection carries on
    assert response.body == data == s3.get("x")
    assert "Content-Encoding" not in response.headers
    assert "ContentEncoding" not in s3.head("x")


async def test_framing_inside_of_http_chunks(proxy: Proxy, s3: S3) -> None:
    """A body of unknown length is framed twice, and its object may have no declared length."""
    data = pattern(BLOCK + 7)
    body = framed(data, checksum=crc32(data))
    fields = head(data, Transfer_Encoding="chunked")
    del fields["x-amz-decoded-content-length"]
    assert (await put(proxy, fields, chunked(body[:100], body[100:]))).status == 201
    assert s3.get("x") == data


async def test_other_codings_are_kept(proxy: Proxy, s3: S3) -> None:
    """The codings on all lines are one list, and only that of the framing is removed (RFC 9110 section 5.3)."""
    fields = head(b"data", checksum="")
    fields["Content-Encoding"] = "gzip\r\nContent-Encoding: AWS-Chunked"
    assert (await put(proxy, fields, framed(b"data", checksum=crc32(b"data")))).status == 201
    assert (s3.get("x"), s3.head("x")["ContentEncoding"]) == (b"data", "gzip")


@pytest.mark.parametrize("signs", [("Content-Encoding",), ("x-amz-content-sha256", "x-amz-trailer")])
async def test_one_sign_is_enough(proxy: Proxy, s3: S3, signs: tuple[str, ...]) -> None:
    """Some clients name the coding only, and others only the kind of signature. Neither framing is stored."""
    fields = {name: value for name, value in head(b"data").items() if name in signs}
    checksum = crc32(b"data") if "x-amz-trailer" in signs else None
    assert (await put(proxy, fields, framed(b"data", checksum=checksum))).status == 201
    assert s3.get("x") == b"data"


DATA = pattern(3 * PART)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (head(DATA), DATA),
        (head(DATA), framed(DATA)),
        (head(DATA), framed(DATA, checksum=crc32(b"other"))),
        (head(DATA), framed(DATA, checksum="x")),
        (head(DATA), framed(DATA, checksum=crc32(DATA))[:-9]),
        (head(DATA), framed(DATA[:-1], checksum=crc32(DATA[:-1]))),
        (head(DATA), framed(DATA + b"x", checksum=crc32(DATA + b"x"))),
        (head(DATA, Content_MD5="AAAAAAAAAAAAAAAAAAAAAA=="), framed(DATA, checksum=crc32(DATA))),
        (head(b""), framed(b"x", checksum=crc32(b"x"))),
        (head(b""), b""),
    ],
)
async def test_a_wrong_body_is_not_stored(proxy: Proxy, s3: S3, headers: dict[str, str], body: bytes) -> None:
    """A framing that is missing, cut or contradicts its head, or a wrong checksum: 400, and the old version (I8)."""
    s3.put("x", b"old")
    assert (await put(proxy, headers, body)).status == 400
    assert (s3.get("x"), s3.unfinished) == (b"old", 0)
    assert (await proxy.get("/x")).body == b"old"


async def test_the_limit_is_of_the_object(start: StartProxy, s3: S3) -> None:
    """An object of the largest size fits, although its body is longer, and one byte more does not."""
    proxy = await start(uploads={"max_size": BLOCK})
    for size, status in ((BLOCK, 201), (BLOCK + 1, 413)):
        data = pattern(size)
        fields, body = head(data), framed(data, checksum=crc32(data))
        assert (await put(proxy, fields, body)).status == status
        del fields["x-amz-decoded-content-length"]
        assert (await put(proxy, fields, body)).status == status
    assert s3.get("x") == pattern(BLOCK)


async def test_elsewhere_it_is_refused(proxy: Proxy, s3: S3) -> None:
    """A form and a resumable upload have no such framing, so it is never stored there: 501."""
    fields = head(b"data")
    boundary = {"Content-Type": "multipart/form-data; boundary=b"}
    file = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\ndata\r\n--b--\r\n'
    assert (await proxy.request("POST", "/", fields | boundary, file)).status == 501
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "4"}
    assert (await proxy.request("POST", "/upload/x", fields | tus, b"")).status == 501
    assert s3.keys() == []


async def test_delete_objects(proxy: Proxy, s3: S3) -> None:
    """The document of DeleteObjects may be framed as well."""
    s3.put("a", b"data")
    document = b"<Delete><Object><Key>a</Key></Object></Delete>"
    body = framed(document, checksum=crc32(document))
    assert (await proxy.request("POST", "/?delete", head(document), body)).status == 200
    assert s3.keys() == []
