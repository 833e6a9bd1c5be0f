"""The parameters of S3's calls for an object, and their effect there."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from itertools import chain, repeat
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from fakes import Head, RawConnection, RawServer, answering, response
from rows import each_row
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import ObjectNotFound, OriginUnavailable, PreconditionFailed, WriteConflict, WriteRefused
from bucketfront.http import write_head
from bucketfront.http.checksums import Digest, hasher
from bucketfront.http.delete_objects import Deleted, DeleteFailure, DeleteOutcome
from bucketfront.http.write_head import NoSuchWrite, WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3 import delete
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.params import complete_params, create_params, put_params
from bucketfront.s3.upload.uploader import S3Uploader

MiB = 1 << 20
ETAG = '"5eb63bbbe01eeed093cb22bb8f5acdc3"'
CONDITIONS = {"IfNoneMatch": "*"}
OBJECT = {
    "ContentType": "text/css",
    "Metadata": {"colour": "blue"},
    "Tagging": "a=1",
    "StorageClass": "STANDARD_IA",
}
HEAD = WriteHead(
    headers=(("content-type", "text/css"),),
    metadata=(("colour", "blue"),),
    tagging="a=1",
    storage_class="STANDARD_IA",
    only_if_absent=True,
    checksums=(
        Digest("md5", b"m" * 16),
        Digest("sha256", b"s" * 32),
        Digest("crc32", b"cccc"),
        Digest("sha512", b"5" * 64),
    ),
)


async def stream(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), MiB):
        yield content[start : start + MiB]


def test_each_call_gets_its_own() -> None:
    """The call that creates the object has its headers, and the call that makes it the conditions.

    The call with the bytes has one of the checksums that S3 knows, because S3 accepts no more.
    """
    encoded = {"ContentMD5": base64.b64encode(b"m" * 16).decode(), "ChecksumCRC32": base64.b64encode(b"cccc").decode()}
    assert put_params(HEAD) == OBJECT | CONDITIONS | encoded
    assert create_params(HEAD) == OBJECT
    assert complete_params(HEAD) == CONDITIONS
    assert complete_params(WriteHead(if_match=ETAG)) == {"IfMatch": ETAG}
    assert put_params(WriteHead()) == create_params(WriteHead()) == complete_params(WriteHead()) == {}


@each_row(
    ("answer", "error"),
    [
        (response("412 Precondition Failed", b"<Error><Code>PreconditionFailed</Code></Error>"), PreconditionFailed),
        (response("409 Conflict", b"<Error><Code>ConditionalRequestConflict</Code></Error>"), WriteConflict),
        (response("409 Conflict", b"<Error><Code>OperationAborted</Code></Error>"), WriteConflict),
        (response("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>"), ObjectNotFound),
        (response("501 Not Implemented", b"<Error><Code>NotImplemented</Code></Error>"), NoSuchWrite),
    ],
)
async def test_refusals(answer: bytes, error: type[Exception]) -> None:
    """S3's responses to a conditional write: 412, 409, and 404 if If-Match names a version of an absent object."""
    async with asyncio.timeout(HANG_S), RawServer(answering(answer)) as server:
        settings = OriginSettings.model_validate(
            {
                "endpoint_url": server.endpoint_url,
                "credentials": {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"},
            }
        )
        async with S3Origin(settings) as origin:
            with pytest.raises(error) as raised:
                await S3Uploader(origin, 10).put(ObjectKey("b", "o"), stream(b""), 0, WriteHead(if_match=ETAG))
    assert type(raised.value) is error
    assert [head.headers["if-match"] == ETAG for head in server.heads] == [False, True][
        : len(server.heads)
    ]  # a probe first


# --- against S3 servers ----------------------------------------------------------------------------------------------


SEAWEED = pytest.param("seaweed", marks=pytest.mark.e2e)
BY_SEAWEED_ALONE = pytest.mark.parametrize("s3", [SEAWEED], indirect=True)  # moto does not look at it


@pytest.fixture(params=["moto_s3", SEAWEED])
async def s3(
    request: pytest.FixtureRequest,
    client_of: Callable[[OriginSettings], Any],
    bucket_of: Callable[[OriginSettings], str],
) -> AsyncIterator[tuple[S3Uploader, str, Any]]:
    """Return the code under test, a bucket, and its owner's client."""
    settings: OriginSettings = request.getfixturevalue(request.param)
    async with asyncio.timeout(HANG_S), S3Origin(settings) as origin:
        yield S3Uploader(origin, progress_timeout=10), bucket_of(settings), client_of(settings)


@pytest.mark.parametrize("size", [11, 9 * MiB], ids=["one put", "multipart"])
async def test_an_object_with_all_of_it(s3: tuple[S3Uploader, str, Any], size: int) -> None:
    """Headers, metadata and tags arrive with a PutObject and with parts, and the signatures are valid."""
    writes, bucket, client = s3
    fields = [
        ("Content-Type", "text/css; charset=utf-8"),
        ("Content-Encoding", "gzip"),
        ("Content-Language", "de, en"),
        ("Content-Disposition", "attachment; filename*=UTF-8''a%20b"),
        ("Cache-Control", "max-age=60"),
        ("x-amz-meta-colour", "light  blue"),
        ("x-amz-tagging", "a=1&b=%2F+x"),
    ]
    await writes.put(ObjectKey(bucket, "o"), stream(b"x" * size), None, write_head.parse(fields))
    stored = client.head_object(Bucket=bucket, Key="o")
    assert stored["ContentType"] == "text/css; charset=utf-8"
    assert stored["ContentEncoding"] == "gzip"
    assert stored["ContentLanguage"] == "de, en"
    assert stored["ContentDisposition"] == "attachment; filename*=UTF-8''a%20b"
    assert stored["CacheControl"] == "max-age=60"
    assert " ".join(stored["Metadata"]["colour"].split()) == "light blue"
    tags = client.get_object_tagging(Bucket=bucket, Key="o")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"a": "1", "b": "/ x"}


@pytest.mark.parametrize("algorithm", ["md5", "crc32", "crc32c", "crc64nvme", "sha1", "sha256", "sha512"])
async def test_checksums_are_sent_on(s3: tuple[S3Uploader, str, Any], algorithm: str) -> None:
    """S3 accepts a body with a right checksum, for each algorithm."""
    writes, bucket, client = s3
    state = hasher(algorithm)
    state.update(b"hello world")
    head = WriteHead(checksums=(Digest(algorithm, state.digest()),))
    await writes.put(ObjectKey(bucket, "o"), stream(b"hello world"), 11, head)
    assert client.get_object(Bucket=bucket, Key="o")["Body"].read() == b"hello world"


@BY_SEAWEED_ALONE
async def test_a_checksum_that_does_not_hold(s3: tuple[S3Uploader, str, Any]) -> None:
    """S3 refuses a body with a wrong MD5, so that the checksum is verified there as well."""
    writes, bucket, client = s3
    head = WriteHead(checksums=(Digest("md5", hashlib.md5(b"other").digest()),))
    with pytest.raises(WriteRefused):
        await writes.put(ObjectKey(bucket, "o"), stream(b"hello world"), 11, head)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("size", [11, 9 * MiB], ids=["one put", "multipart"])
async def test_if_absent(s3: tuple[S3Uploader, str, Any], size: int) -> None:
    """`If-None-Match: *`: the first write makes the object, the second is refused and changes nothing."""
    writes, bucket, client = s3
    key, head = ObjectKey(bucket, "o"), WriteHead(only_if_absent=True)
    written = await writes.put(key, stream(b"x" * size), None, head)
    with pytest.raises(PreconditionFailed):
        await writes.put(key, stream(b"y" * size), None, head)
    assert client.head_object(Bucket=bucket, Key="o")["ETag"] == written.etag
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


async def replaced_once(s3: tuple[S3Uploader, str, Any], size: int) -> None:
    writes, bucket, client = s3
    key = ObjectKey(bucket, "o")
    first = await writes.put(key, stream(b"1" * size), None, WriteHead())
    second = await writes.put(key, stream(b"2" * size), None, WriteHead(if_match=first.etag))
    with pytest.raises(PreconditionFailed):
        await writes.put(key, stream(b"3" * size), None, WriteHead(if_match=first.etag))
    assert client.head_object(Bucket=bucket, Key="o")["ETag"] == second.etag


async def test_if_match(s3: tuple[S3Uploader, str, Any]) -> None:
    """`If-Match`: the named version is replaced, and another one is not (no lost update)."""
    await replaced_once(s3, 11)


@BY_SEAWEED_ALONE
async def test_if_match_of_a_multipart_upload(s3: tuple[S3Uploader, str, Any]) -> None:
    """The same with the condition of CompleteMultipartUpload."""
    await replaced_once(s3, 9 * MiB)


async def test_delete_objects(s3: tuple[S3Uploader, str, Any]) -> None:
    """All named objects are deleted, an absent one among them. Others stay."""
    writes, bucket, client = s3
    names = ["a b", "ü/日本", "<&>", "x+y%20", "quo'te\""]
    for name in (*names, "stays"):
        client.put_object(Bucket=bucket, Key=name, Body=b"x")
    keys = [ObjectKey(bucket, name) for name in (*names, "never")]
    assert await writes.delete_objects(keys) == dict.fromkeys(keys, Deleted())
    assert [one["Key"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["stays"]


async def test_a_key_that_the_response_does_not_name_is_not_deleted() -> None:
    """A key that the response does not name, or names with an error, counts as not deleted.

    S3's own text is not passed on (I28).
    """
    answer = response(
        "200 OK",
        b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code>"
        b"<Message>secret</Message></Error></DeleteResult>",
    )
    answers = chain([answer], repeat(response("500 Internal Server Error")))

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.reader.readexactly(int(head.headers["content-length"]))
        await connection.send(next(answers))

    keys = [ObjectKey("bucket", name) for name in "abc"]
    async with asyncio.timeout(HANG_S), RawServer(script) as server:
        settings = OriginSettings.model_validate(
            {
                "endpoint_url": server.endpoint_url,
                "credentials": {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"},
                "max_connections": 1,
            }
        )
        async with S3Origin(settings) as origin:
            told = await S3Uploader(origin, 10).delete_objects(keys)
            with pytest.raises(OriginUnavailable):
                await S3Uploader(origin, 10).delete_objects(keys)
            assert origin.free_slots == 1
    assert told[keys[0]] == Deleted()
    assert told[keys[1]] == DeleteFailure("AccessDenied", "The origin refused it.")
    assert isinstance(unknown := told[keys[2]], DeleteFailure)
    assert unknown.code == "InternalError"


@each_row(
    ("body", "expected"),
    [
        # S3's own response: each version by its id, and the marker that the deletion of the key made.
        (
            """<Deleted><Key>a</Key><VersionId>1</VersionId></Deleted>
            <Deleted><Key>a</Key><DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>m</DeleteMarkerVersionId></Deleted>
            <Error><Key>b</Key><VersionId>2</VersionId><Code>AccessDenied</Code></Error>""",
            ["deleted", "marker m", "AccessDenied"],
        ),
        # One that leaves the versions out, or names that of a marker.
        (
            """<Deleted><Key>a</Key><VersionId>1</VersionId></Deleted>
            <Deleted><Key>a</Key></Deleted><Deleted><Key>b</Key></Deleted>""",
            ["deleted", "deleted", "deleted"],
        ),
        # The result of one version is never taken for that of another.
        (
            "<Deleted><Key>a</Key><VersionId>1</VersionId></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error>",
            ["deleted", "InternalError", "AccessDenied"],
        ),
        ("<Deleted><Key>a</Key></Deleted>", ["InternalError", "deleted", "InternalError"]),
        (
            "<Deleted><Key>b</Key><VersionId>2</VersionId></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error>",
            ["InternalError", "InternalError", "deleted"],
        ),
    ],
)
def test_results_of_versions(body: str, expected: list[str]) -> None:
    """Each result is that of the key and version that the origin names. Others have an unknown outcome."""
    root = ET.fromstring(f"<DeleteResult>{body}</DeleteResult>")
    keys = [ObjectKey("bucket", "a", "1"), ObjectKey("bucket", "a"), ObjectKey("bucket", "b", "2")]

    def items(name: str) -> list[dict[str, object]]:
        found = [{child.tag: child.text for child in item} for item in root.iter(name)]
        return [{**item, "DeleteMarker": item.get("DeleteMarker") == "true"} for item in found]

    outcomes = delete.outcomes_of(keys, {"Deleted": items("Deleted"), "Errors": items("Error")})
    assert list(outcomes) == keys
    assert [_described(outcome) for outcome in outcomes.values()] == expected


def _described(outcome: DeleteOutcome) -> str:
    if isinstance(outcome, DeleteFailure):
        return outcome.code
    return f"marker {outcome.marker_version}" if outcome.is_marker else "deleted"
