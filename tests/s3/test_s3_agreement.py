"""A write is a success only if S3 took the bytes that were sent."""

import base64
import hashlib
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from fakes import RawServer, object_bytes, response
from multipart_server import MultipartServer, error, etag_of, etag_of_parts
from rows import each_row

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import ContentMismatch, InvalidOriginResponse, OriginError
from bucketfront.http import write_head
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload import multipart, parts
from bucketfront.s3.upload.sent_digest import MAX_INLINE_BYTES, SentDigest
from bucketfront.s3.upload.spool import Spool
from bucketfront.s3.upload.uploader import S3Uploader

KEY = ObjectKey("bucket", "o")
PART = 100_000
SMALL, LARGE = object_bytes(PART // 2), object_bytes(3 * PART + 7)
BODIES = pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
NOTHING = WriteHead()


class Lines:
    """A spool in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, data: bytes) -> None:
        self.data += data

    async def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        for at in range(start, stop, 70_000):
            yield bytes(self.data[at : min(at + 70_000, stop)])

    async def acknowledge(self, start: int, stop: int) -> None:
        """Accept it. This spool gives no room back."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_SIZE", PART)
    monkeypatch.setattr(multipart, "RETRY_PAUSE_S", 0.0)


@asynccontextmanager
async def origin_of(server: MultipartServer) -> AsyncIterator[S3Origin]:
    async with RawServer(server) as raw:
        settings = {
            "endpoint_url": raw.endpoint_url,
            "credentials": {"access_key_id": "any", "secret_access_key": "any"},
            "max_connections": 2,
        }
        async with S3Origin(OriginSettings.model_validate(settings)) as origin:
            yield origin


async def write(origin: S3Origin, body: bytes, head: WriteHead = NOTHING, key: ObjectKey = KEY) -> str:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 30_000):
            yield body[at : at + 30_000]

    spool: Spool = Lines()
    return (await S3Uploader(origin, 5.0).put(key, chunks(), len(body), head, spool)).etag


def scrambled(body: bytes) -> str:
    """Return an ETag that looks like an MD5 and is none."""
    return etag_of(b"secret" + body)


def without_body(sent: bytes) -> bytes:
    """Return the response to a HEAD."""
    return sent[: sent.index(b"\r\n\r\n") + 4]


def flipped(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:] if body else body


FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda body: b"",  # moto takes a form for an empty object
    "a byte less": lambda body: body[:-1],
    "another bit": flipped,
    "one byte more": lambda body: body + b"x",
}


@BODIES
@pytest.mark.parametrize("fault", FAULTS)
async def test_other_bytes_are_no_success(body: bytes, fault: str) -> None:
    """A server that stores other bytes than were sent is found out by its ETags, at the first write (I8)."""
    server = MultipartServer()
    server.stored_as = FAULTS[fault]
    async with origin_of(server) as origin:
        with pytest.raises(ContentMismatch):
            await write(origin, body)


@each_row("fault", FAULTS)
async def test_a_wrong_part_is_sent_again(fault: str) -> None:
    """A part that arrived wrong once is sent again, if the bucket's ETags are MD5s. The object is the body (I8)."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        await write(origin, SMALL, key=ObjectKey("bucket", "other"))
        left = [FAULTS[fault]]
        server.stored_as = lambda body: left.pop()(body) if left else body
        await write(origin, LARGE)
    assert server.objects["o"][0] == LARGE
    assert server.steps.count("part") == 5


async def test_parts_that_stay_wrong_leave_the_old_version() -> None:
    """A part that arrives wrong each time ends the upload before its completion (I8)."""
    server = MultipartServer()
    server.store("o", b"old")
    async with origin_of(server) as origin:
        await write(origin, SMALL, key=ObjectKey("bucket", "other"))
        server.stored_as = lambda body: flipped(body) if len(body) == 7 else body
        with pytest.raises(InvalidOriginResponse):
            await write(origin, LARGE)
    assert server.objects["o"][0] == b"old"
    assert server.uploads == {}


async def test_one_wrong_part_among_right_ones_leaves_the_old_version() -> None:
    """A wrong part of the first upload to a bucket is found before the completion, if other parts fit (I8)."""
    server = MultipartServer()
    server.store("o", b"old")
    server.stored_as = lambda body: flipped(body) if len(body) == 7 else body
    async with origin_of(server) as origin:
        with pytest.raises((ContentMismatch, InvalidOriginResponse)):
            await write(origin, LARGE)
    assert server.objects["o"][0] == b"old"


@BODIES
async def test_etags_that_are_no_md5s(body: bytes) -> None:
    """A bucket whose ETags look like MD5s and are none is read once. After that a HEAD shows the size."""
    server = MultipartServer()
    server.put_etag = server.part_etag = scrambled
    server.object_etag = lambda some: scrambled(b"".join(some))
    async with origin_of(server) as origin:
        assert await write(origin, body) == server.objects["o"][1]
        assert server.steps.count("get") == 1
        for _ in range(3):
            await write(origin, SMALL)
            await write(origin, LARGE)
        assert server.steps.count("get") == 1
        server.stored_as = FAULTS["a byte less"]
        with pytest.raises(ContentMismatch):
            await write(origin, SMALL)


@BODIES
@pytest.mark.parametrize("etag", ['"opaque"', 'W/"weak"', '"0f343b0931126a20f133d67c2b018a3b-9"'])
@pytest.mark.parametrize("fault", [None, "nothing", "a byte less"])
async def test_etags_of_another_form(body: bytes, etag: str, fault: str | None) -> None:
    """An ETag that does not look like an MD5 proves nothing, so a HEAD shows the size."""
    server = MultipartServer()
    server.put_etag = server.part_etag = lambda _: etag
    server.object_etag = lambda _: etag
    server.stored_as = bytes if fault is None else FAULTS[fault]
    async with origin_of(server) as origin:
        if fault is None:
            assert await write(origin, body) == etag
        else:
            with pytest.raises(ContentMismatch):
                await write(origin, body)
    assert server.steps.count("get") == 0


@pytest.mark.parametrize("name", ["aws:kms", "aws:kms:dsse"])
async def test_encrypted_objects(name: str) -> None:
    """The ETag of an object that KMS encrypts is no MD5, so a HEAD shows the size. A denied one is no failure."""
    server = MultipartServer()
    server.put_etag = server.part_etag = scrambled
    server.extra = {"x-amz-server-side-encryption": name}
    async with origin_of(server) as origin:
        await write(origin, SMALL)
        await write(origin, LARGE)
        assert server.steps.count("get") == 0
        server.answer("head", without_body(error("403 Forbidden", "AccessDenied")))
        server.answer("get", error("403 Forbidden", "AccessDenied"))
        await write(origin, SMALL)


DENIED = error("403 Forbidden", "AccessDenied")
BROKEN = error("500 Internal Server Error", "InternalError")


@BODIES
@pytest.mark.parametrize("reads", [error("404 Not Found", "NoSuchKey"), BROKEN, DENIED], ids=["absent", "500", "403"])
async def test_an_opaque_etag_alone(body: bytes, reads: bytes) -> None:
    """I9: a 200 with an ETag that is no MD5 is no success if a HEAD fails, except for credentials that only write."""
    server = MultipartServer()
    server.put_etag = lambda _: '"opaque"'
    server.object_etag = lambda _: '"opaque"'
    server.answer("put", response("200 OK", ETag='"opaque"'), undone=1)
    server.answer("head", *[without_body(reads)] * 9)
    server.answer("get", *[reads] * 9)
    async with origin_of(server) as origin:
        if reads is DENIED:
            assert await write(origin, body) == '"opaque"'
        else:
            with pytest.raises(InvalidOriginResponse):
                await write(origin, body)


@each_row("is_later", [True, False])
@each_row("size", [len(SMALL), 3])
async def test_another_version_under_an_opaque_etag(size: int, is_later: bool) -> None:
    """A version under another ETag than the response's is a later write only if its Last-Modified shows it (I8)."""
    server = MultipartServer()
    server.dated = None if is_later else "Wed, 01 Jan 2025 00:00:00 GMT"
    server.store("o", b"x" * size, '"another"')
    accepted = response("200 OK", ETag='"opaque"', Date=formatdate(usegmt=True))
    server.answer("put", accepted, undone=1)
    async with origin_of(server) as origin:
        if is_later:
            assert await write(origin, SMALL) == '"opaque"'
        else:
            with pytest.raises(ContentMismatch):
                await write(origin, SMALL)


@pytest.mark.parametrize("fault", [None, "other bytes"])
async def test_an_etag_of_other_parts(fault: str | None) -> None:
    """An ETag like that of other parts than were sent is checked by a GET of both ends, once for a bucket (I8)."""
    server = MultipartServer()

    def completed(some: list[bytes]) -> str:
        if fault is not None:
            some[:] = [flipped(part) for part in some]
        return f'"{"ab" * 16}-{len(some)}"'

    server.object_etag = completed
    async with origin_of(server) as origin:
        if fault is not None:
            with pytest.raises(ContentMismatch):
                await write(origin, LARGE)
            return
        for _ in range(2):
            await write(origin, LARGE)
    assert server.objects["o"][0] == LARGE
    assert server.steps.count("get") == 2


@BODIES
@pytest.mark.parametrize("is_right", [True, False])
async def test_an_md5_in_upper_case(body: bytes, is_right: bool) -> None:
    """An ETag is compared with the MD5 in any case, so one in upper case needs no further request (I8)."""
    server = MultipartServer()
    server.put_etag = server.part_etag = lambda some: etag_of(some).upper()
    server.object_etag = lambda some: etag_of_parts(some).upper()
    if not is_right:
        server.stored_as = flipped
    async with origin_of(server) as origin:
        if is_right:
            assert await write(origin, body) == server.objects["o"][1]
            assert server.steps.count("head") == server.steps.count("get") == 0
        else:
            with pytest.raises(ContentMismatch):
                await write(origin, body)


@pytest.mark.parametrize("is_right", [True, False])
async def test_a_checksum_in_the_response(is_right: bool) -> None:
    """A checksum that the response declares decides, whatever the ETag is."""
    sum_of = base64.b64encode(zlib.crc32(SMALL if is_right else LARGE).to_bytes(4, "big")).decode()
    server = MultipartServer()
    server.put_etag = scrambled
    server.extra = {"x-amz-checksum-crc32": sum_of}
    sent = base64.b64encode(zlib.crc32(SMALL).to_bytes(4, "big")).decode()
    async with origin_of(server) as origin:
        head = write_head.parse([("x-amz-checksum-crc32", sent)])
        if is_right:
            await write(origin, SMALL, head)
        else:
            with pytest.raises(ContentMismatch):
                await write(origin, SMALL, head)
    assert server.steps == ["put"]


@each_row("fault", [None, "nothing", "a byte less"])
async def test_no_etag_in_the_response(fault: str | None) -> None:
    """A PutObject whose response has no ETag is a success once a HEAD shows the object (I9)."""
    server = MultipartServer()
    server.stored_as = bytes if fault is None else FAULTS[fault]
    server.answer("put", response("200 OK"))
    async with origin_of(server) as origin:
        if fault is None:
            assert await write(origin, SMALL) == etag_of(SMALL)
        else:
            with pytest.raises(OriginError):
                await write(origin, SMALL)


async def test_no_etags_at_all() -> None:
    """A server without ETags can be written to: a new object of the size proves the write."""
    server = MultipartServer()
    server.put_etag = lambda _: ""
    async with origin_of(server) as origin:
        assert await write(origin, SMALL) == ""


@each_row(
    "answer",
    [
        error("200 OK", "InternalError"),
        response("200 OK", b"<html>log in</html>", Content_Type="text/html"),
        response("200 OK", ETag=etag_of(b"another")),
        response("200 OK"),
    ],
)
async def test_a_200_without_a_write(answer: bytes) -> None:
    """A 200 with an error document, a page or another ETag is no success while the old version is there (I9)."""
    server = MultipartServer()
    server.store("o", b"old")
    server.answer("put", answer, undone=1)
    async with origin_of(server) as origin:
        with pytest.raises(OriginError):
            await write(origin, SMALL)


async def test_an_ordinary_bucket_gets_no_further_request() -> None:
    """ETags that fit need no HEAD."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        await write(origin, b"")
        await write(origin, SMALL)
        assert await write(origin, LARGE) == etag_of_parts([LARGE[at : at + PART] for at in range(0, len(LARGE), PART)])
    assert server.steps == ["put", "put", "create", *["part"] * 4, "complete"]


@each_row("size", [0, 1, MAX_INLINE_BYTES, MAX_INLINE_BYTES + 1, 1_000_000])
async def test_the_digest_of_pieces(size: int) -> None:
    """The digest of pieces of any size is that of the whole."""
    body, digest = object_bytes(size), SentDigest()
    steps = [1, 70_000, MAX_INLINE_BYTES, 40_000]
    at = 0
    while at < size:
        step = steps[at % len(steps)]
        await digest.update(body[at : at + step])
        at += step
    assert await digest.value() == hashlib.md5(body).hexdigest()
