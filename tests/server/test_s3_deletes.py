"""DeleteObjects by clients of S3 in a bucket with versions: versions by their ids, and delete markers."""

import asyncio
import base64
import hashlib
from typing import Any

import pytest
from botocore.exceptions import ClientError
from proxy_under_test import S3, Proxy, StartProxy, WallClock
from relay import Cut, Relay, Seen, canned
from rows import each_row
from s3_clients import SECRET, Client, RawClient, endpoint

LONG = {"default_ttl": "1h"}  # so that a read after a change is right only by the invalidation


@pytest.fixture
def clock() -> WallClock:
    """The clock of the client as well, because a signature has a time."""
    clock = WallClock()
    clock.jump(-3600)
    return clock


@pytest.fixture
async def proxy(start: StartProxy, s3: S3) -> Proxy:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    return await start(**endpoint(), freshness=LONG)


@pytest.fixture
def client(proxy: Proxy, s3: S3) -> Client:
    return Client(proxy, s3.bucket)


def put(s3: S3, key: str, body: bytes) -> str:
    """Store an object, and return its version."""
    return str(s3.client.put_object(Bucket=s3.bucket, Key=key, Body=body)["VersionId"])


async def delete(client: Client, *objects: tuple[str, str | None], **more: Any) -> Any:
    """Delete objects by key and version."""
    listed = [{"Key": key} if version is None else {"Key": key, "VersionId": version} for key, version in objects]
    return await client.call("delete_objects", Delete={"Objects": listed, **more})


async def test_versions_by_their_ids(proxy: Proxy, client: Client, s3: S3) -> None:
    """A deleted version is read no more, and if it was the current one, the one before it is current (I5)."""
    first, second, third = (put(s3, "a", body) for body in (b"first", b"second", b"third"))
    for version, body in ((first, b"first"), (second, b"second"), (third, b"third")):
        assert await client.read("a", VersionId=version) == body
    assert (await proxy.get("/a")).body == await client.read("a") == b"third"
    found = await delete(client, ("a", third), ("a", first))
    assert found["Deleted"] == [{"Key": "a", "VersionId": third}, {"Key": "a", "VersionId": first}]
    assert (await proxy.get("/a")).body == await client.read("a") == await client.read("a", VersionId=second)
    assert await client.read("a") == b"second"
    for version in (first, third):
        assert (await client.refusal("get_object", "a", VersionId=version))[0] == 404


async def test_delete_markers(proxy: Proxy, client: Client, s3: S3) -> None:
    """The response names the delete marker that a deletion makes. Without that marker the object is back (I5)."""
    put(s3, "a", b"data")
    assert (await proxy.get("/a")).body == await client.read("a") == b"data"
    (made,) = (await delete(client, ("a", None)))["Deleted"]
    assert (made["Key"], made["DeleteMarker"], "VersionId" in made) == ("a", True, False)
    assert (await proxy.get("/a")).status == (await client.refusal("get_object", "a"))[0] == 404
    marker = made["DeleteMarkerVersionId"]
    assert [item["VersionId"] for item in (await client.call("list_object_versions"))["DeleteMarkers"]] == [marker]
    (removed,) = (await delete(client, ("a", marker)))["Deleted"]
    assert (removed["Key"], removed["VersionId"]) == ("a", marker)
    assert (await proxy.get("/a")).body == await client.read("a") == b"data"


async def test_each_object_has_one_result(client: Client, s3: S3) -> None:
    """A key comes once with each of its versions, in the order of the document, however often it is named."""
    put(s3, "b", b"data")
    first, second = put(s3, "a", b"first"), put(s3, "a", b"second")
    found = await delete(client, ("a", second), ("b", None), ("a", None), ("a", second), ("b", None), ("a", first))
    named = [(item["Key"], item.get("VersionId")) for item in found["Deleted"]]
    assert named == [("a", second), ("b", None), ("a", None), ("a", first)]
    left = s3.client.list_object_versions(Bucket=s3.bucket)
    assert sorted(item["Key"] for item in left["DeleteMarkers"]) == ["a", "b"]
    assert [item["Key"] for item in left["Versions"]] == ["b"]


async def test_quiet(client: Client, s3: S3) -> None:
    """With Quiet the response names failures alone."""
    version = put(s3, "a", b"data")
    assert "Deleted" not in await delete(client, ("a", version), Quiet=True)
    assert "Versions" not in s3.client.list_object_versions(Bucket=s3.bucket)


@each_row("version", ["", " ", "a b", "x" * 1025, "ü"])
async def test_what_is_no_version(version: str, proxy: Proxy, client: Client, s3: S3, relay: Relay) -> None:
    """An id that no version has is refused for its object alone, and never counts as the current version."""
    put(s3, "a", b"data")
    put(s3, "b", b"data")
    found = await delete(client, ("a", version), ("b", None))
    errors = [(item["Key"], item.get("VersionId", ""), item["Code"]) for item in found["Errors"]]
    assert errors == [("a", version, "NoSuchVersion")]
    assert [item["Key"] for item in found["Deleted"]] == ["b"]
    assert s3.keys() == ["a"]
    assert (await proxy.get("/a")).body == b"data"


async def test_conditions(client: Client, s3: S3) -> None:
    """An object with a condition is refused alone, also with a version, and stays."""
    version = put(s3, "a", b"data")
    named = {"Key": "a", "VersionId": version, "ETag": '"other"'}
    found = await client.call("delete_objects", Delete={"Objects": [named]})
    errors = [(item["Key"], item["VersionId"], item["Code"]) for item in found["Errors"]]
    assert errors == [("a", version, "NotImplemented")]
    assert s3.get("a") == b"data"


@each_row("fault", ["lost", "failed"])
async def test_unknown_outcome(fault: str, proxy: Proxy, client: Client, s3: S3, relay: Relay) -> None:
    """If the origin's response is lost, the version and the object are read from the origin again (I9)."""
    relay.on_request = None  # that of the row before
    first, second = put(s3, fault, b"first"), put(s3, fault, b"second")
    assert (await proxy.get(f"/{fault}")).body == await client.read(fault, VersionId=second) == b"second"

    async def lose(seen: Seen) -> bytes | None:
        if seen.method != "POST":
            return None
        await asyncio.to_thread(s3.client.delete_object, Bucket=s3.bucket, Key=fault, VersionId=second)
        if fault == "lost":
            raise Cut
        return canned(500, "InternalError")

    relay.on_request = lose
    with pytest.raises(ClientError):
        await delete(client, (fault, second))
    assert (await client.refusal("get_object", fault, VersionId=second))[0] == 404
    assert (await proxy.get(f"/{fault}")).body == await client.read(fault, VersionId=first) == b"first"


async def test_a_read_during_a_delete(proxy: Proxy, client: Client, s3: S3, relay: Relay) -> None:
    """What reads store of a version while S3 deletes it is not served afterwards (I5, I6)."""
    put(s3, "a", b"first")
    second = put(s3, "a", b"second")

    async def read_meanwhile(seen: Seen) -> bytes | None:
        if seen.method == "POST":
            assert await client.read("a", VersionId=second) == (await proxy.get("/a")).body == b"second"
        return None

    relay.on_request = read_meanwhile
    await delete(client, ("a", second))
    assert (await client.refusal("get_object", "a", VersionId=second))[0] == 404
    assert (await proxy.get("/a")).body == b"first"


async def test_versions_are_judged_by_their_keys(start: StartProxy, s3: S3) -> None:
    """A grant permits the versions of its keys, and those of no other (I32)."""
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    keys = [{"id": "below", "secret": SECRET, "buckets": [s3.bucket], "prefix": "pub/", "write": True}]
    mounts = [
        {"path": "/", "bucket": s3.bucket},
        {"path": "/pub/fixed/", "bucket": s3.bucket, "prefix": "pub/fixed/", "methods": ["GET"]},
    ]
    proxy = await start(**endpoint(keys=keys), mounts=mounts, uploads=None)
    versions = {name: put(s3, name, b"data") for name in ("a", "pub/a", "pub/fixed/a")}
    found = await delete(Client(proxy, s3.bucket, "below"), *versions.items())
    assert [(item["Key"], item["VersionId"]) for item in found["Deleted"]] == [("pub/a", versions["pub/a"])]
    refused = [(item["Key"], item["VersionId"], item["Code"]) for item in found["Errors"]]
    assert refused == [(name, versions[name], "AccessDenied") for name in ("a", "pub/fixed/a")]
    assert sorted(s3.keys()) == ["a", "pub/fixed/a"]


@each_row("field", ["x-amz-bypass-governance-retention", "x-amz-mfa", "x-amz-expected-bucket-owner"])
async def test_fields_that_are_not_passed_on(field: str, proxy: Proxy, clock: WallClock, s3: S3) -> None:
    """A DeleteObjects with a field that the origin would not get is refused as a whole, and deletes nothing."""
    version = put(s3, "a", b"data")
    body = f"<Delete><Object><Key>a</Key><VersionId>{version}</VersionId></Object></Delete>".encode()
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    response = await RawClient(proxy, clock).send(
        "POST", f"/{s3.bucket}?delete=", {field: "true", "content-md5": md5}, body
    )
    assert response.status == 501
    assert s3.get("a") == b"data"


async def test_mounts_delete_no_versions(proxy: Proxy, s3: S3) -> None:
    """A mount refuses a version, because a client of it has no way to name past versions for a deletion."""
    version = put(s3, "a", b"data")
    body = f"<Delete><Object><Key>a</Key><VersionId>{version}</VersionId></Object></Delete>".encode()
    response = await proxy.request("POST", "/?delete", body=body)
    assert (response.status, b"<Code>NotImplemented</Code>" in response.body) == (200, True)
    assert s3.get("a") == b"data"


LISTS = ["list-type=2&marker=x", "marker=a&fetch-owner=true", "versions&marker=x&start-after=y", "uploads&max-keys=1"]


@each_row("query", [*LISTS, *(f"{query}&metadata=true" for query in LISTS)])
async def test_parameters_of_other_lists(query: str, proxy: Proxy, clock: WallClock, s3: S3, relay: Relay) -> None:
    """A list with parameters of another list goes to the origin with all of them, as S3 ignores them."""
    put(s3, "z", b"data")
    response = await RawClient(proxy, clock).send("GET", f"/{s3.bucket}?{query}")
    assert response.status == 200, response.body
    sent = relay.seen[-1].target.partition("?")[2]
    wanted = {part if "=" in part else f"{part}=" for part in query.split("&")}
    assert {part if "=" in part else f"{part}=" for part in sent.split("&")} >= wanted


@each_row(
    ("query", "status"),
    [
        ("list-type=2", 200),
        ("list-type=2&metadata=true", 403),
        ("metadata=true&prefix=te", 403),
        ("versions&metadata=true&prefix=team/a", 403),
        ("list-type=2&metadata=true&prefix=open/", 200),
        ("list-type=2&metadata=true&prefix=tea-", 200),
    ],
)
async def test_metadata_in_lists(query: str, status: int, start: StartProxy, clock: WallClock, s3: S3) -> None:
    """MinIO's `metadata` is permitted where the client may read all objects that the list can have (I32)."""
    mounts = [
        {"path": "/", "bucket": s3.bucket},
        {"path": "/open/", "bucket": s3.bucket, "prefix": "open/"},
        {"path": "/team/", "bucket": s3.bucket, "prefix": "team/", "read": ["staff"]},
    ]
    access = {"staff": {"bearer": {"tokens": ["a-token-of-the-staff"]}}}
    proxy = await start(**endpoint(), mounts=mounts, access=access, uploads=None)
    response = await RawClient(proxy, clock).send("GET", f"/{s3.bucket}?{query}")
    await proxy.stop()  # the next row has the same folder
    assert response.status == status
