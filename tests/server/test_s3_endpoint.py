"""The S3 endpoint is one with the cache that the mounts have: one fetch, and each write is seen on both sides."""

import asyncio
import io

import pytest
from proxy_under_test import PART, S3, Proxy, StartProxy, WallClock, pattern
from s3_clients import SECRET, Client, endpoint, signed_fields
from wire import fetch


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
def client(proxy: Proxy, s3: S3) -> Client:
    return Client(proxy, s3.bucket)


def gets(proxy: Proxy) -> int:
    """Return the GETs of objects that the origin has had."""
    return sum(seen.method == "GET" and "list-type" not in seen.target for seen in proxy.relay.seen)


async def test_one_fetch_for_both_listeners(proxy: Proxy, client: Client, s3: S3) -> None:
    """Clients of both listeners that ask for an object at once share one fetch of it (I10)."""
    s3.put("film", data := pattern(PART - 1))

    async def by_http() -> bytes:
        return (await proxy.get("/film")).body

    assert await asyncio.gather(by_http(), *(client.read("film") for _ in range(5))) == [data] * 6
    assert gets(proxy) == 1
    assert (await proxy.get("/film")).body == await client.read("film") == data
    assert gets(proxy) == 1


async def test_each_write_is_seen_on_the_other_side(proxy: Proxy, client: Client, s3: S3) -> None:
    """What an operation writes is what the mounts have at once, whichever operation it is (I5)."""
    s3.put("source", b"of a copy")

    async def seen() -> bytes:
        return (await proxy.get("/a")).body

    await client.call("put_object", "a", Body=b"put")
    assert await seen() == b"put"
    await client.call("copy_object", "a", CopySource=f"{s3.bucket}/source")
    assert await seen() == b"of a copy"
    upload = (await client.call("create_multipart_upload", "a"))["UploadId"]
    part = await client.call("upload_part", "a", UploadId=upload, PartNumber=1, Body=b"in parts")
    assert await seen() == b"of a copy"
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    await client.call("complete_multipart_upload", "a", UploadId=upload, MultipartUpload=parts)
    assert await seen() == b"in parts"
    await client.call("delete_object", "a")
    assert (await proxy.get("/a")).status == 404
    await client.call("put_object", "a", Body=b"again")
    assert await seen() == b"again"
    await client.call("delete_objects", Delete={"Objects": [{"Key": "a"}]})
    assert (await proxy.get("/a")).status == 404


async def test_a_write_of_the_mount_is_seen_by_s3(proxy: Proxy, client: Client) -> None:
    """What a client of a mount writes is what a client of S3 reads at once (I5)."""
    await client.call("put_object", "a", Body=b"first")
    assert await client.read("a") == b"first"
    await proxy.request("PUT", "/a", {"Content-Type": "text/plain"}, b"second")
    assert await client.read("a") == b"second"
    await proxy.request("DELETE", "/a")
    assert await client.refusal("get_object", "a") == (404, "NoSuchKey")


async def test_the_transfer_manager(client: Client, s3: S3) -> None:
    """A large file is uploaded in parts and downloaded in ranges, each with its checksum."""
    data = pattern(18 << 20)
    await client.run(lambda s3_client: s3_client.upload_fileobj(io.BytesIO(data), s3.bucket, "large"))
    assert s3.get("large") == data
    found = io.BytesIO()
    await client.run(lambda s3_client: s3_client.download_fileobj(s3.bucket, "large", found))
    assert found.getvalue() == data


async def test_a_plain_put_is_cached(proxy: Proxy, client: Client) -> None:
    """An object that a client has put is served without a request to the origin, with what it was put with."""
    await client.call("put_object", "a", Body=b"data", ContentType="text/x-test", Metadata={"colour": "blue"})
    before = len(proxy.relay.seen)
    found = await client.call("get_object", "a")
    assert (found["ContentType"], found["Metadata"]) == ("text/x-test", {"colour": "blue"})
    assert found["ResponseMetadata"]["HTTPHeaders"]["cache-status"].startswith("bucketfront; hit")
    assert len(proxy.relay.seen) == before


async def test_a_put_that_only_s3_understands(proxy: Proxy, client: Client, s3: S3) -> None:
    """A PutObject with a field that only the origin understands goes there, and is what is read afterwards (I5)."""
    await client.call("put_object", "a", Body=b"old")
    assert (await proxy.get("/a")).body == b"old"
    await client.call("put_object", "a", Body=b"new", WebsiteRedirectLocation="/elsewhere")
    assert s3.head("a")["WebsiteRedirectLocation"] == "/elsewhere"
    assert (await proxy.get("/a")).body == b"new"


async def test_virtual_hosts(start: StartProxy, s3: S3) -> None:
    """Below `s3.domain` the bucket is in the host name, and the path is the key alone."""
    proxy = await start(**endpoint(domain="s3.test"))
    assert proxy.app.s3 is not None
    s3.put("a/b c", b"data")
    for host, target, body in (
        (f"{s3.bucket}.s3.test", "/a/b%20c", b"data"),
        (f"{s3.bucket}.s3.test:8080", "/?list-type=2", b"<Key>a/b c</Key>"),
        ("s3.test", f"/{s3.bucket}/a/b%20c", b"data"),
        (f"{s3.bucket}.other.test", "/a/b%20c", b"<Code>NoSuchBucket</Code>"),
    ):
        fields = signed_fields("GET", f"http://{host}{target}")
        assert body in (await fetch(proxy.app.s3.listener.address, target, headers=fields)).body


async def test_lists_and_buckets(client: Client, s3: S3) -> None:
    """Lists come from the origin, in all their forms, and the buckets are those of the mounts."""
    for key in ("a/1", "a/2", "b"):
        s3.put(key, b"x")
    found = await client.call("list_objects_v2", Delimiter="/")
    assert [item["Prefix"] for item in found["CommonPrefixes"]] == ["a/"]
    first = await client.call("list_objects", MaxKeys=2)
    assert [item["Key"] for item in first["Contents"]] == ["a/1", "a/2"]
    assert len((await client.call("list_object_versions", Prefix="a/"))["Versions"]) == 2
    assert "LocationConstraint" in await client.call("get_bucket_location")
    await client.call("head_bucket")
    buckets = (await client.run(lambda s3_client: s3_client.list_buckets()))["Buckets"]
    assert [bucket["Name"] for bucket in buckets] == [s3.bucket]


async def test_operations_that_are_not_known(proxy: Proxy, client: Client, s3: S3, start: StartProxy) -> None:
    """An operation without an implementation gets S3's 501, and with `pass_through` the origin's response."""
    s3.put("a", b"x")
    before = len(proxy.relay.seen)
    assert await client.refusal("get_object_tagging", "a") == (501, "NotImplemented")
    assert await client.refusal("get_bucket_versioning") == (501, "NotImplemented")
    assert len(proxy.relay.seen) == before
    await proxy.stop()
    passing = Client(await start(**endpoint(pass_through=True)), s3.bucket)
    tagging = {"TagSet": [{"Key": "colour", "Value": "blue"}]}
    await passing.call("put_object_tagging", "a", Tagging=tagging)
    assert (await passing.call("get_object_tagging", "a"))["TagSet"] == tagging["TagSet"]


async def test_checksums_of_the_origin(proxy: Proxy, client: Client, s3: S3) -> None:
    """A client that asks for checksums gets that of S3, from the cache as well."""
    await client.call("put_object", "a", Body=b"data", ChecksumAlgorithm="SHA256")
    expected = s3.client.head_object(Bucket=s3.bucket, Key="a", ChecksumMode="ENABLED")["ChecksumSHA256"]
    for _ in range(2):
        found = await client.call("get_object", "a", ChecksumMode="ENABLED")
        assert found["ChecksumSHA256"] == expected
        assert (await client.call("head_object", "a", ChecksumMode="ENABLED"))["ChecksumSHA256"] == expected


async def test_the_log_names_the_key_of_the_client(proxy: Proxy, client: Client) -> None:
    """The access log has the key id of a client, and no signature and no secret (I28)."""
    await client.call("put_object", "a", Body=b"data")
    url = await client.run(
        lambda s3_client: s3_client.generate_presigned_url("get_object", {"Bucket": client.bucket, "Key": "a"})
    )
    assert "X-Amz-Signature" in url
    assert (await client.read("a")) == b"data"
    lines = [line for line in proxy.log if line.get("mount") == "s3"]
    assert [line["user"] for line in lines] == ["s3:app"] * 2
    assert not [line for line in lines if "Signature" in str(line) or SECRET in str(line)]
