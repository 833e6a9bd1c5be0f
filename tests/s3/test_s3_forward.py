"""Requests of S3's clients that go to the origin re-signed, with a real S3 behind."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from fakes import object_bytes
from rows import each_row
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import AccessDenied, BucketNotForwarded, ObjectNotFound, RequestRefused
from bucketfront.http.aws_chunked import UNSIGNED_TRAILER, ChunkEncoder
from bucketfront.http.checksums import Digest, hasher
from bucketfront.s3.client import S3Origin
from bucketfront.s3.forwarded_request import ForwardedRequest
from bucketfront.s3.forwarded_response import ForwardedResponse

NS = "{http://s3.amazonaws.com/doc/2006-03-01/}"
MIB = 1 << 20

SERVERS = [pytest.param("moto_s3"), pytest.param("seaweed", marks=pytest.mark.e2e)]


class Sent:
    """A response that was read to its end."""

    def __init__(self, response: ForwardedResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.refusal = response.refusal
        self.body = body

    @property
    def xml(self) -> ET.Element:
        return ET.fromstring(self.body)

    def texts(self, name: str) -> list[str]:
        return [found.text or "" for found in self.xml.iter() if found.tag.removeprefix(NS) == name]


class Forwarding:
    """An origin and a bucket of it. `send` forwards one request, and `client` is boto3's for the same server."""

    def __init__(self, origin: S3Origin, client: Any, bucket: str, *, is_seaweed: bool) -> None:
        self.origin = origin
        self.client = client
        self.bucket = bucket
        self.is_seaweed = is_seaweed

    async def send(self, operation: str, method: str, key: str = "", query: str = "", **given: Any) -> Sent:
        bucket = given.pop("bucket", self.bucket)
        async with self.origin.forward(ForwardedRequest(operation, method, bucket, key, query, **given)) as response:
            return Sent(response, b"".join([bytes(piece) async for piece in response.chunks()]))

    def body_of(self, key: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return found


@pytest.fixture
async def forwarding(
    request: pytest.FixtureRequest, client_of: Callable[[OriginSettings], Any], bucket_of: Callable[[Any], str]
) -> AsyncIterator[Forwarding]:
    settings: OriginSettings = request.getfixturevalue(request.param)
    bucket = bucket_of(settings)
    async with asyncio.timeout(2 * HANG_S), S3Origin(settings) as origin:
        yield Forwarding(origin, client_of(settings), bucket, is_seaweed=request.param == "seaweed")
        assert origin.free_slots == settings.max_connections


each_server = pytest.mark.parametrize("forwarding", SERVERS, indirect=True)


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@each_server
async def test_lists(forwarding: Forwarding) -> None:
    """Lists have the keys of the bucket, in the encoding that the client has asked for."""
    keys = ["a b+c", "dir/sub/x", "dir/y", "ü/日本"]
    for key in keys:
        forwarding.client.put_object(Bucket=forwarding.bucket, Key=key, Body=b"x")
    found = await forwarding.send("ListObjectsV2", "GET", query="list-type=2")
    assert (found.status, sorted(found.texts("Key"))) == (200, sorted(keys))
    found = await forwarding.send(
        "ListObjectsV2", "GET", query="list-type=2&prefix=dir%2F&delimiter=/&x-id=ListObjectsV2"
    )
    assert found.texts("Key") == ["dir/y"]
    assert "dir/sub/" in found.texts("Prefix")
    found = await forwarding.send("ListObjects", "GET", query="prefix=a+b%2b&encoding-type=url")
    assert [key.replace("+", "%20") for key in found.texts("Key")] == ["a%20b%2Bc"]
    assert forwarding.bucket in (await forwarding.send("ListBuckets", "GET", bucket=None)).texts("Name")
    assert (await forwarding.send("HeadBucket", "HEAD")).status == 200
    assert (await forwarding.send("GetBucketLocation", "GET", query="location")).status == 200


@each_server
async def test_a_multipart_upload(forwarding: Forwarding) -> None:
    """A multipart upload passes through from its begin to its end, and another one is aborted."""
    begun = await forwarding.send(
        "CreateMultipartUpload", "POST", "a+b (c)", "uploads", fields=(("x-amz-meta-m", "1"),)
    )
    (upload_id,) = begun.texts("UploadId")
    parts = [object_bytes(5 * MIB, 1), object_bytes(100, 2)]
    etags = []
    for number, part in enumerate(parts, 1):
        sent = await forwarding.send(
            "UploadPart",
            "PUT",
            "a+b (c)",
            f"partNumber={number}&uploadId={upload_id}",
            body=pieces(part),
            length=len(part),
        )
        assert sent.status == 200
        etags.append(sent.headers["ETag"])
    listed = await forwarding.send("ListParts", "GET", "a+b (c)", f"uploadId={upload_id}")
    assert listed.texts("PartNumber") == ["1", "2"]
    text = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in enumerate(etags, 1)
    )
    body = f"<CompleteMultipartUpload>{text}</CompleteMultipartUpload>".encode()
    done = await forwarding.send(
        "CompleteMultipartUpload", "POST", "a+b (c)", f"uploadId={upload_id}", body=body, length=len(body)
    )
    assert (done.status, done.texts("Key")) == (200, ["a+b (c)"])
    assert forwarding.body_of("a+b (c)") == b"".join(parts)

    (upload_id,) = (await forwarding.send("CreateMultipartUpload", "POST", "k", "uploads=")).texts("UploadId")
    uploads = await forwarding.send("ListMultipartUploads", "GET", query="uploads")
    assert uploads.texts("UploadId") == [upload_id]
    assert (await forwarding.send("AbortMultipartUpload", "DELETE", "k", f"uploadId={upload_id}")).status == 204
    gone = await forwarding.send("ListParts", "GET", "k", f"uploadId={upload_id}")
    assert (gone.status, gone.texts("Code")) == (404, ["NoSuchUpload"])


@each_server
async def test_copy_tags_and_deletes(forwarding: Forwarding) -> None:
    """Copies, tags and deletes pass through."""
    forwarding.client.put_object(Bucket=forwarding.bucket, Key="from/ö", Body=b"content")
    source = f"/{forwarding.bucket}/from/%C3%B6"
    copied = await forwarding.send("CopyObject", "PUT", "to", fields=(("x-amz-copy-source", source),))
    assert (copied.status, forwarding.body_of("to")) == (200, b"content")
    tags = b"<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>"
    assert (
        await forwarding.send("PutObjectTagging", "PUT", "to", "tagging", body=tags, length=len(tags))
    ).status == 200
    assert (await forwarding.send("GetObjectTagging", "GET", "to", "tagging")).texts("Value") == ["v"]
    listed = b"<Delete><Object><Key>to</Key></Object><Object><Key>from/\xc3\xb6</Key></Object></Delete>"
    md5 = base64.b64encode(hashlib.md5(listed, usedforsecurity=False).digest()).decode()
    fields = (("content-md5", md5),)
    deleted = await forwarding.send(
        "DeleteObjects", "POST", "", "delete", fields=fields, body=listed, length=len(listed)
    )
    assert (deleted.status, sorted(deleted.texts("Key"))) == (200, ["from/ö", "to"])
    assert (await forwarding.send("GetObject", "GET", "to")).status == 404


@each_server
async def test_a_body_with_its_checksum_behind_it(forwarding: Forwarding) -> None:
    """A body that is framed anew with a trailing checksum is stored without its framing."""
    data = object_bytes(2 * MIB + 7, 4)
    encoder, running = ChunkEncoder(len(data), ["crc32"]), hasher("crc32")

    async def framed() -> AsyncIterator[bytes]:
        async for piece in pieces(data):
            running.update(piece)
            yield encoder.feed(piece)
        yield encoder.close([Digest("crc32", running.digest())])

    fields = (
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", str(len(data))),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
        ("x-amz-sdk-checksum-algorithm", "CRC32"),
    )
    length = encoder.framed_length
    sent = await forwarding.send(
        "PutObject", "PUT", "o", fields=fields, body=framed(), length=length, payload=UNSIGNED_TRAILER
    )
    assert (sent.status, forwarding.body_of("o")) == (200, data)


@each_server
async def test_refusals_of_s3_pass(forwarding: Forwarding) -> None:
    """I35: what the client's request has caused reaches it as S3 has sent it, and no trouble is reported."""
    forwarding.client.put_object(Bucket=forwarding.bucket, Key="o", Body=b"content")
    absent = await forwarding.send("GetObject", "GET", "absent")
    assert (absent.status, absent.texts("Code")) == (404, ["NoSuchKey"])
    assert isinstance(absent.refusal, ObjectNotFound)
    no_bucket = await forwarding.send("ListObjectsV2", "GET", query="list-type=2", bucket="no-such-bucket")
    assert (no_bucket.status, no_bucket.texts("Code")) == (404, ["NoSuchBucket"])
    assert (await forwarding.send("HeadBucket", "HEAD", bucket="no-such-bucket")).status == 404
    assert (await forwarding.send("HeadObject", "HEAD", "absent")).status == 404
    range_beyond = await forwarding.send("GetObject", "GET", "o", fields=(("range", "bytes=100-"),))
    assert (range_beyond.status, range_beyond.texts("Code")) == (416, ["InvalidRange"])
    etag = (await forwarding.send("HeadObject", "HEAD", "o")).headers["etag"]
    assert (await forwarding.send("GetObject", "GET", "o", fields=(("if-none-match", etag),))).status == 304
    failed = await forwarding.send("GetObject", "GET", "o", fields=(("if-match", '"other"'),))
    assert (failed.status, failed.texts("Code")) == (412, ["PreconditionFailed"])
    assert "0 failures" in repr(forwarding.origin.breaker)
    assert forwarding.origin.calls.failures._kinds == set()


@each_server
@pytest.mark.parametrize(
    "key", ["a+b", "a b", "(x)", "a//b", "/lead", "trail/", "a%2Fb", "ü/日本", "q?x&y=z", "~!*'#;"]
)
async def test_any_key(forwarding: Forwarding, key: str) -> None:
    """I23: every key is written and read under its own name."""
    assert (await forwarding.send("PutObject", "PUT", key, body=b"content", length=7)).status == 200
    stored = forwarding.body_of(key)
    assert (await forwarding.send("GetObject", "GET", key)).body == stored
    if not (key.endswith("/") and forwarding.is_seaweed):  # it makes a folder of such a key
        assert stored == b"content"


@each_row("bucket", ["mine--use1-az4--x-s3", "a/b", "..", "arn:aws:s3:us-east-1:123456789012:accesspoint/mine"])
async def test_unusual_buckets_are_refused(bucket: str) -> None:
    """I29: the name of a bucket that is no plain name forms no URL."""
    settings = OriginSettings.model_validate({"credentials": {"access_key_id": "A", "secret_access_key": "s"}})
    async with S3Origin(settings) as origin:
        with pytest.raises(BucketNotForwarded):
            async with origin.forward(ForwardedRequest("ListObjectsV2", "GET", bucket)):
                pass


@each_row("field", [("x-amz-meta-a", "b\r\nx: y"), ("x-amz-meta-a", "\udcff"), ("a b", "c"), ("x-amz-meta-a", "\0")])
async def test_fields_that_http_does_not_allow(field: tuple[str, str]) -> None:
    """I24: a field that could end its line, or that is no text, is refused before anything is sent."""
    settings = OriginSettings.model_validate(
        {"endpoint_url": "http://127.0.0.1:9", "credentials": {"access_key_id": "A", "secret_access_key": "s"}}
    )
    async with S3Origin(settings) as origin:
        with pytest.raises(RequestRefused) as raised:
            async with origin.forward(ForwardedRequest("PutObject", "PUT", "bucket", "o", fields=(field,))):
                pass
    assert not isinstance(raised.value, AccessDenied)
