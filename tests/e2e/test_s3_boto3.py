"""boto3 at the S3 endpoint, with its transfer manager and its checksums.

What boto3 stored is compared at the origin, and what it fetched with what was stored there.
"""

import base64
import hashlib
import sys
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from anycrc import Model
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from case import Case
from fakes import object_bytes
from programs import Program
from signed_endpoint import REGION, SignedEndpoint
from site_under_test import BUCKET, Site

MIB = 1 << 20
PART = 5 * MIB  # the smallest that S3 takes
SIZE = 17 * MIB + 3
IN_PARTS = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)
PROGRAM = Program("boto3", sys.executable, boto3.__version__)
ODD_NAMES = ["a b", "a+b", "ä/ö", "(1)&=?#", "%41", "quote'\"", "~tilde", "a/b", "*", "日本"]


def client_at(url: str, access_key: str, secret_key: str, **options: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(
            signature_version="s3v4",  # presigned URLs are else of version 2
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            **options,
        ),
    )


@pytest.fixture(scope="module")
def client(endpoint: SignedEndpoint) -> Iterator[Any]:
    made = client_at(endpoint.url, endpoint.access_key, endpoint.secret_key)
    yield made
    made.close()


@pytest.fixture
def key(place: Site) -> Callable[[str], dict[str, str]]:
    """Return a function that returns bucket and key of a name, as parameters."""
    return lambda name: {"Bucket": BUCKET, "Key": f"{place.folder}/{name}"}


def code_of(call: Callable[..., Any], **given: Any) -> tuple[int, str]:
    """Return status and code of the error that a call raises."""
    with pytest.raises(ClientError) as raised:
        call(**given)
    response = raised.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def body_of(response: Any) -> bytes:
    data: bytes = response["Body"].read()
    return data


def based(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


# --- the transfer manager ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["", "CRC32", "SHA1", "SHA256"])
def test_transfers(place: Site, case: Case, client: Any, tmp_path: Path, algorithm: str) -> None:
    """A file goes up in parts with a checksum each, and comes back by ranges at once, as it was (I1)."""
    case.of(PROGRAM, f"`upload_file` and `download_file` in parts, {algorithm or 'default'} checksums")
    data = object_bytes(SIZE)
    (tmp_path / "data").write_bytes(data)
    extra = {"Metadata": {"a": "b"}, "ContentType": "video/mp4"}
    if algorithm:
        extra["ChecksumAlgorithm"] = algorithm
    name = f"{place.folder}/data"
    client.upload_file(str(tmp_path / "data"), BUCKET, name, Config=IN_PARTS, ExtraArgs=extra)
    assert place.stored("data") == data
    for number in range(2):
        client.download_file(BUCKET, name, str(tmp_path / f"back-{number}"), Config=IN_PARTS)
        assert (tmp_path / f"back-{number}").read_bytes() == data
    case.count(place)
    assert case.sent <= 1.1 * SIZE
    head = client.head_object(Bucket=BUCKET, Key=name)
    assert (head["ContentLength"], head["ContentType"], head["Metadata"]) == (SIZE, "video/mp4", {"a": "b"})
    assert head["ETag"].endswith('-4"')


def test_a_new_version(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """What a client has written, in one request or in parts, is what it reads next (I5)."""
    case.of(PROGRAM, "a read behind each `put_object` and each upload in parts")
    for number in range(3):
        small = b"version %d" % number
        client.put_object(**key("data"), Body=small)
        assert body_of(client.get_object(**key("data"))) == small
        large = object_bytes(PART + 1, number)
        upload = client.create_multipart_upload(**key("data"))["UploadId"]
        parts = [
            {
                "PartNumber": at,
                "ETag": client.upload_part(**key("data"), UploadId=upload, PartNumber=at, Body=piece)["ETag"],
            }
            for at, piece in ((1, large[:PART]), (2, large[PART:]))
        ]
        assert body_of(client.get_object(**key("data"))) == small
        client.complete_multipart_upload(**key("data"), UploadId=upload, MultipartUpload={"Parts": parts})
        assert body_of(client.get_object(**key("data"))) == large
    client.delete_object(**key("data"))
    assert code_of(client.get_object, **key("data")) == (404, "NoSuchKey")


def test_readers_at_once(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """Many clients that read one new object cost the origin one transfer of it."""
    case.of(PROGRAM, "8 readers of one new object at once")
    data = object_bytes(4 * MIB)
    place.store("data", data)
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(body_of(client.get_object(**key("data"))))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [data] * 8
    case.count(place)
    assert case.sent <= 1.1 * len(data)


def test_upload_in_parts(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """Parts are listed, as are uploads, and an upload that is aborted leaves neither parts nor an object."""
    case.of(PROGRAM, "`list_parts`, `list_multipart_uploads`, `abort_multipart_upload`")
    upload = client.create_multipart_upload(**key("data"))["UploadId"]
    etag = client.upload_part(**key("data"), UploadId=upload, PartNumber=7, Body=b"part")["ETag"]
    parts = client.list_parts(**key("data"), UploadId=upload)["Parts"]
    assert [(part["PartNumber"], part["ETag"], part["Size"]) for part in parts] == [(7, etag, 4)]
    listed = client.list_multipart_uploads(Bucket=BUCKET, Prefix=place.folder)["Uploads"]
    assert [(each["Key"], each["UploadId"]) for each in listed] == [(key("data")["Key"], upload)]
    client.abort_multipart_upload(**key("data"), UploadId=upload)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=BUCKET, Prefix=place.folder)
    part = {"UploadId": upload, "PartNumber": 8, "Body": b"part"}
    assert code_of(client.upload_part, **key("data"), **part) == (404, "NoSuchUpload")
    assert place.names() == []


# --- checksums -----------------------------------------------------------------------------------------------


def digests(data: bytes) -> dict[str, str]:
    return {
        "CRC32": based(zlib.crc32(data).to_bytes(4)),
        "CRC32C": based(Model("CRC32C").calc(data).to_bytes(4)),
        "CRC64NVME": based(Model("CRC64-NVME").calc(data).to_bytes(8)),
        "SHA1": based(hashlib.sha1(data).digest()),
        "SHA256": based(hashlib.sha256(data).digest()),
    }


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]], algorithm: str) -> None:
    """S3 keeps the checksum that a client sends, and gives it back. One that does not fit stores nothing."""
    case.of(PROGRAM, f"`put_object` and `get_object` with a checksum by {algorithm}")
    data = object_bytes(100_000)
    field, value = f"Checksum{algorithm}", digests(data)[algorithm]
    put = client.put_object(**key("data"), Body=data, **{field: value})
    assert put[field] == value
    for _ in range(2):
        found = client.get_object(**key("data"), ChecksumMode="ENABLED")
        assert (body_of(found), found.get(field)) == (data, value)
    assert client.head_object(**key("data"), ChecksumMode="ENABLED")[field] == value
    wrong = {field: digests(b"other")[algorithm]}
    assert code_of(client.put_object, **key("wrong"), Body=data, **wrong)[0] == 400
    assert place.names() == ["data"]


def test_wrong_md5(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """A body that does not fit its Content-MD5 is refused as S3 does, and stored nowhere."""
    case.of(PROGRAM, "`put_object` with a Content-MD5 that does not fit")
    md5 = based(hashlib.md5(b"other").digest())
    assert code_of(client.put_object, **key("data"), Body=b"data", ContentMD5=md5) == (400, "BadDigest")
    assert place.names() == []


def test_attributes(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """`get_object_attributes` has size, ETag and storage class, and those of a new version behind a write."""
    case.of(PROGRAM, "`get_object_attributes`")
    for body in (b"data", b"longer data"):
        put = client.put_object(**key("data"), Body=body)
        found = client.get_object_attributes(**key("data"), ObjectAttributes=["ETag", "ObjectSize", "StorageClass"])
        assert (found["ETag"], found["ObjectSize"]) == (put["ETag"].strip('"'), len(body))


# --- lists ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2", "list_object_versions"])
def test_lists(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]], operation: str) -> None:
    """Pages of lists hold all names, odd ones as well, and show what was written and deleted just before."""
    case.of(PROGRAM, f"`{operation}` by pages, with a delimiter, of odd names")
    for name in ODD_NAMES:
        client.put_object(**key(name), Body=name.encode())

    def listed(**given: Any) -> tuple[list[str], list[str]]:
        pages = list(client.get_paginator(operation).paginate(Bucket=BUCKET, **given))
        items = [item for page in pages for item in page.get("Contents", page.get("Versions", ()))]
        folders = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", ())]
        return [item["Key"].removeprefix(f"{place.folder}/") for item in items], folders

    all_below = {"Prefix": f"{place.folder}/"}
    assert sorted(listed(**all_below)[0]) == sorted(ODD_NAMES)
    names, folders = listed(**all_below, Delimiter="/")
    assert sorted(folders) == [f"{place.folder}/a/", f"{place.folder}/ä/"]
    assert sorted(names) == sorted(name for name in ODD_NAMES if "/" not in name)
    for name in ("a/b", "ä/ö"):  # SeaweedFS sorts names of folders otherwise than S3, and so loses some between pages
        client.delete_object(**key(name))
    assert sorted(listed(**all_below, PaginationConfig={"PageSize": 3})[0]) == sorted(names)


def test_odd_names(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """Each odd name is one object of its own, for reads, copies and deletes alike (I23)."""
    case.of(PROGRAM, "odd names in reads, heads, copies and deletes")
    for name in ODD_NAMES:
        client.put_object(**key(name), Body=name.encode())
    assert sorted(place.names()) == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        assert body_of(client.get_object(**key(name))) == name.encode()
        client.copy_object(**key(f"{name}-copy"), CopySource=key(name))
        assert body_of(client.get_object(**key(f"{name}-copy"))) == name.encode()
        client.delete_object(**key(name))
        assert code_of(client.head_object, **key(name))[0] == 404
    assert sorted(place.names()) == sorted(f"{name}-copy" for name in ODD_NAMES)


def test_buckets(place: Site, case: Case, client: Any) -> None:
    """A client finds its bucket and where it is, and no other one."""
    case.of(PROGRAM, "`list_buckets`, `head_bucket`, `get_bucket_location`")
    assert BUCKET in [each["Name"] for each in client.list_buckets()["Buckets"]]
    client.head_bucket(Bucket=BUCKET)
    assert client.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] in (None, REGION)
    assert code_of(client.head_bucket, Bucket="no-such-bucket")[0] in (403, 404)
    assert code_of(client.list_objects_v2, Bucket="no-such-bucket")[0] in (403, 404)


# --- copies and deletes --------------------------------------------------------------------------------------


def test_copies(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """A copy, in one request or in parts, replaces what was cached of its target (I5)."""
    case.of(PROGRAM, "`copy_object`, and `copy` in parts")
    first, second = object_bytes(1000), object_bytes(SIZE, 2)
    client.put_object(**key("first"), Body=first, Metadata={"a": "b"})
    place.store("second", second)
    client.put_object(**key("target"), Body=b"old")
    assert body_of(client.get_object(**key("target"))) == b"old"
    client.copy_object(**key("target"), CopySource=key("first"))
    found = client.get_object(**key("target"))
    assert (body_of(found), found["Metadata"]) == (first, {"a": "b"})
    client.copy_object(**key("target"), CopySource=key("first"), MetadataDirective="REPLACE", Metadata={"c": "d"})
    assert client.head_object(**key("target"))["Metadata"] == {"c": "d"}
    client.copy(key("second"), BUCKET, key("target")["Key"], Config=IN_PARTS)
    assert body_of(client.get_object(**key("target"))) == second
    assert place.stored("target") == second
    assert code_of(client.copy_object, **key("target"), CopySource=key("none")) == (404, "NoSuchKey")
    assert body_of(client.get_object(**key("target"))) == second


def test_deletes(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """`delete_objects` removes each name from S3 and from the cache, and reports each (I5)."""
    case.of(PROGRAM, "`delete_objects` of 60 cached objects")
    names = [f"data-{number}" for number in range(60)]
    for name in names:
        client.put_object(**key(name), Body=name.encode())
        body_of(client.get_object(**key(name)))
    objects = [{"Key": key(name)["Key"]} for name in (*names[:50], "none")]
    done = client.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})
    assert sorted(each["Key"] for each in done["Deleted"]) == sorted(each["Key"] for each in objects)
    assert place.names() == sorted(names[50:])
    for name in names[:50]:
        assert code_of(client.get_object, **key(name)) == (404, "NoSuchKey")
    assert body_of(client.get_object(**key(names[55]))) == names[55].encode()
    quiet = client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key(names[55])["Key"]}], "Quiet": True})
    assert "Deleted" not in quiet


def test_tags(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """Tags that come with an object are stored with it, and replaced with it."""
    case.of(PROGRAM, "`put_object` with tags")
    case.cannot("`get_object` has no `TagCount`, because tags change without a new version")
    client.put_object(**key("data"), Body=b"data", Tagging="a=b&c=d")

    def stored() -> list[tuple[str, str]]:
        found = place.origin.objects.get_object_tagging(**key("data"))["TagSet"]
        return sorted((tag["Key"], tag["Value"]) for tag in found)

    assert stored() == [("a", "b"), ("c", "d")]
    assert body_of(client.get_object(**key("data"))) == b"data"
    client.put_object(**key("data"), Body=b"new", Tagging="e=f")
    assert (stored(), body_of(client.get_object(**key("data")))) == ([("e", "f")], b"new")


# --- conditions and ranges -----------------------------------------------------------------------------------


def test_conditional_writes(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """A write whose condition does not hold stores nothing, and one whose condition holds does."""
    case.of(PROGRAM, "`put_object` with `IfNoneMatch` and `IfMatch`")
    etag = client.put_object(**key("data"), Body=b"one", IfNoneMatch="*")["ETag"]
    assert code_of(client.put_object, **key("data"), Body=b"two", IfNoneMatch="*") == (412, "PreconditionFailed")
    assert body_of(client.get_object(**key("data"))) == b"one"
    client.put_object(**key("data"), Body=b"three", IfMatch=etag)
    assert code_of(client.put_object, **key("data"), Body=b"four", IfMatch=etag) == (412, "PreconditionFailed")
    assert (body_of(client.get_object(**key("data"))), place.stored("data")) == (b"three", b"three")


def test_conditional_reads(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """Conditions of a read are decided as S3 decides them, cold and warm."""
    case.of(PROGRAM, "`get_object` and `head_object` with `IfMatch`, `IfNoneMatch`, `IfModifiedSince`, …")
    put = client.put_object(**key("data"), Body=b"data")
    later, earlier = datetime.now(UTC) + timedelta(days=1), datetime(2020, 1, 1, tzinfo=UTC)
    for call in (client.get_object, client.head_object, client.get_object):
        refused = 412, "PreconditionFailed" if call == client.get_object else "412"
        assert call(**key("data"), IfMatch=put["ETag"])["ETag"] == put["ETag"]
        assert call(**key("data"), IfNoneMatch='"other"', IfModifiedSince=earlier)["ETag"] == put["ETag"]
        assert code_of(call, **key("data"), IfMatch='"other"') == refused
        assert code_of(call, **key("data"), IfUnmodifiedSince=earlier) == refused
        assert code_of(call, **key("data"), IfNoneMatch=put["ETag"]) == (304, "304")
        assert code_of(call, **key("data"), IfModifiedSince=later) in ((304, "304"), (200, ""))


def test_ranges(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """Ranges of a cold object and of a cached one have the same bytes, and one beyond the end is refused (I1)."""
    case.of(PROGRAM, "`get_object` with `Range`")
    data = object_bytes(300_000)
    place.store("data", data)
    for _ in range(2):
        for wanted, part in (("0-9", data[:10]), ("299990-", data[-10:]), ("-7", data[-7:]), ("5-999999", data[5:])):
            found = client.get_object(**key("data"), Range=f"bytes={wanted}")
            assert (body_of(found), found["ResponseMetadata"]["HTTPStatusCode"]) == (part, 206)
        assert code_of(client.get_object, **key("data"), Range="bytes=300000-") == (416, "InvalidRange")
    assert place.origin_bytes() <= 1.1 * len(data)


def test_parts_of_an_object(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """`PartNumber` reads the part that was uploaded under that number, and says how many there are."""
    case.of(PROGRAM, "`get_object` and `head_object` with `PartNumber`")
    data = object_bytes(PART + 100)
    upload = client.create_multipart_upload(**key("data"))["UploadId"]
    parts = [
        {
            "PartNumber": at,
            "ETag": client.upload_part(**key("data"), UploadId=upload, PartNumber=at, Body=piece)["ETag"],
        }
        for at, piece in ((1, data[:PART]), (2, data[PART:]))
    ]
    client.complete_multipart_upload(**key("data"), UploadId=upload, MultipartUpload={"Parts": parts})
    found = client.get_object(**key("data"), PartNumber=2)
    assert (body_of(found), found["PartsCount"]) == (data[PART:], 2)
    head = client.head_object(**key("data"), PartNumber=1)
    assert (head["ContentLength"], head["PartsCount"]) == (PART, 2)
    assert body_of(client.get_object(**key("data"))) == data


def test_response_fields(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """A client chooses fields of one response, and the next one has those of the object."""
    case.of(PROGRAM, "`get_object` with `ResponseContentType` and `ResponseContentDisposition`")
    client.put_object(**key("data"), Body=b"data", ContentType="text/plain", CacheControl="max-age=5")
    chosen = {"ResponseContentType": "text/csv", "ResponseContentDisposition": 'attachment; filename="a.csv"'}
    for _ in range(2):
        found = client.get_object(**key("data"), **chosen)
        assert (found["ContentType"], found["ContentDisposition"]) == tuple(chosen.values())
        plain = client.get_object(**key("data"))
        assert (plain["ContentType"], plain.get("ContentDisposition")) == ("text/plain", None)
        assert plain["CacheControl"] == "max-age=5"


# --- who asks ------------------------------------------------------------------------------------------------


def fetched(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method=method)) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_presigned_urls(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """A presigned URL reads or writes the one object that it names, by the method that it names."""
    case.of(PROGRAM, "presigned URLs to read and to write")
    for name in ("data", *ODD_NAMES):
        put = client.generate_presigned_url("put_object", Params=key(name))
        assert fetched(put, "PUT", name.encode())[0] == 200
        url = client.generate_presigned_url("get_object", Params=key(name))
        assert fetched(url) == (200, name.encode())
        assert fetched(url, "DELETE")[0] == 403
        assert fetched(url.replace(place.folder, "other"))[0] == 403
    assert sorted(place.names()) == sorted(["data", *ODD_NAMES])
    url = client.generate_presigned_url("get_object", Params={**key("data"), "ResponseContentType": "text/csv"})
    assert fetched(url) == (200, b"data")
    assert fetched(url.replace("csv", "html"))[0] == 403


def test_wrong_keys(place: Site, case: Case, endpoint: SignedEndpoint, key: Callable[[str], dict[str, str]]) -> None:
    """A client with a wrong secret or an unknown key reads and writes nothing, and learns why."""
    case.of(PROGRAM, "wrong secrets and unknown keys")
    place.store("data", b"data")
    for access_key, secret_key, code in (
        (endpoint.access_key, "wrong", "SignatureDoesNotMatch"),
        ("unknown", "wrong", "InvalidAccessKeyId"),
    ):
        other = client_at(endpoint.url, access_key, secret_key)
        assert code_of(other.get_object, **key("data")) == (403, code)
        assert code_of(other.put_object, **key("data"), Body=b"other") == (403, code)
        assert code_of(other.delete_object, **key("data")) == (403, code)
        assert code_of(other.list_objects_v2, Bucket=BUCKET) == (403, code)
        other.close()
    assert place.stored("data") == b"data"


def test_errors(place: Site, case: Case, client: Any, key: Callable[[str], dict[str, str]]) -> None:
    """Errors have the codes of S3."""
    case.of(PROGRAM, "errors of S3")
    upload = client.create_multipart_upload(**key("data"))["UploadId"]
    etag = client.upload_part(**key("data"), UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    complete = {**key("data"), "UploadId": upload}
    unknown = {"Parts": [{"PartNumber": 9, "ETag": etag}]}
    assert code_of(client.get_object, **key("none")) == (404, "NoSuchKey")
    assert code_of(client.head_object, **key("none")) == (404, "404")
    assert code_of(client.complete_multipart_upload, **complete, MultipartUpload=unknown) == (400, "InvalidPart")
    assert code_of(client.abort_multipart_upload, **key("data"), UploadId="none") == (404, "NoSuchUpload")
    assert code_of(client.get_object, **key("none"), Range="bytes=5-")[0] == 404
    client.abort_multipart_upload(**complete)
