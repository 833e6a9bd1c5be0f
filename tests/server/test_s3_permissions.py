"""What a key of the S3 endpoint may do: by its buckets, its prefix and `write`, and by the mounts within that."""

import asyncio
from typing import Any

import pytest
from proxy_under_test import S3, Proxy, StartProxy, WallClock
from rows import each_row
from s3_clients import SECRET, Client, endpoint
from wire import fetch


def key(name: str, **grant: Any) -> dict[str, Any]:
    return {"id": name, "secret": SECRET, **grant}


@pytest.fixture
def clock() -> WallClock:
    """The clock of the client as well, because a signature has a time."""
    clock = WallClock()
    clock.jump(-3600)
    return clock


@pytest.fixture
async def proxy(start: StartProxy, s3: S3) -> Proxy:
    keys = [
        key("reader", buckets=[s3.bucket]),
        key("below", buckets=[s3.bucket], prefix="pub/", write=True),
        key("app", buckets=["*"], write=True),
        key("elsewhere", buckets=["another"], write=True),
    ]
    mounts = [
        {"path": "/", "bucket": s3.bucket},
        {"path": "/other/", "bucket": "another"},
        {"path": "/team/", "bucket": s3.bucket, "prefix": "team/", "read": ["staff"]},
        {"path": "/fixed/", "bucket": s3.bucket, "prefix": "fixed/", "methods": ["GET", "PUT"], "write_once": True},
    ]
    access = {"staff": {"bearer": {"tokens": ["a-token-of-the-staff"]}}}
    return await start(**endpoint(keys=keys), mounts=mounts, access=access, uploads=None)


DENIED = 403, "AccessDenied"
PART = {"UploadId": "u", "PartNumber": 1, "Body": b"x"}
# Who, the operation, its key, its parameters; all of these are refused.
REFUSED = [
    ("reader", "put_object", "a", {"Body": b"x"}),
    ("reader", "delete_object", "a", {}),
    ("reader", "create_multipart_upload", "a", {}),
    ("reader", "upload_part", "a", PART),
    ("reader", "abort_multipart_upload", "a", {"UploadId": "u"}),
    ("reader", "copy_object", "b", {"CopySource": "BUCKET/a"}),
    ("below", "get_object", "a", {}),
    ("below", "head_object", "pub", {}),
    ("below", "get_object_attributes", "a", {"ObjectAttributes": ["ETag"]}),
    ("below", "put_object", "a", {"Body": b"x"}),
    ("below", "copy_object", "pub/b", {"CopySource": "BUCKET/a"}),
    ("below", "copy_object", "pub/b", {"CopySource": "/BUCKET/%61"}),
    ("below", "upload_part_copy", "pub/b", {"UploadId": "u", "PartNumber": 1, "CopySource": "BUCKET/a"}),
    ("below", "list_objects_v2", None, {}),
    ("below", "list_objects_v2", None, {"Prefix": "pu"}),
    ("below", "list_objects", None, {"Prefix": "other/"}),
    ("below", "list_object_versions", None, {}),
    ("below", "list_multipart_uploads", None, {}),
    ("elsewhere", "get_object", "a", {}),
    ("elsewhere", "list_objects_v2", None, {}),
    ("elsewhere", "head_bucket", None, {}),
    ("app", "get_object", "team/a", {}),
    ("app", "copy_object", "b", {"CopySource": "BUCKET/team/a"}),
    ("app", "put_object", "team/a", {"Body": b"x"}),
    ("app", "delete_object", "fixed/a", {}),
    ("app", "create_multipart_upload", "fixed/b", {}),
    ("app", "copy_object", "fixed/b", {"CopySource": "BUCKET/a"}),
]  # fmt: skip


@each_row("who, operation, name, parameters", REFUSED)
async def test_refused(
    who: str, operation: str, name: str | None, parameters: dict[str, Any], proxy: Proxy, s3: S3
) -> None:
    """An operation beyond the grant, or that a mount within it does not take, is refused and changes nothing (I32)."""
    for present in ("a", "team/a", "fixed/a"):
        s3.put(present, b"before")
    changed = {k: v.replace("BUCKET", s3.bucket) if isinstance(v, str) else v for k, v in parameters.items()}
    status, code = await Client(proxy, s3.bucket, who).refusal(operation, name, **changed)
    assert (status, code) in (DENIED, (403, "403"))  # the response to a HEAD has no code
    assert sorted(s3.keys()) == ["a", "fixed/a", "team/a"]
    assert {s3.get(present) for present in ("a", "team/a", "fixed/a")} == {b"before"}
    assert not s3.unfinished


async def test_permitted(proxy: Proxy, s3: S3) -> None:
    """What a grant permits is done."""
    below, app = Client(proxy, s3.bucket, "below"), Client(proxy, s3.bucket)
    await below.call("put_object", "pub/a", Body=b"data")
    await below.call("copy_object", "pub/b", CopySource=f"{s3.bucket}/pub/a")
    assert await below.read("pub/b") == await Client(proxy, s3.bucket, "reader").read("pub/b") == b"data"
    assert (await below.call("list_objects_v2", Prefix="pub/"))["KeyCount"] == 2
    await app.call("put_object", "fixed/a", Body=b"first")
    assert await app.refusal("put_object", "fixed/a", Body=b"second") == (412, "PreconditionFailed")
    assert s3.get("fixed/a") == b"first"


async def test_a_batch_of_deletes_is_judged_by_its_keys(proxy: Proxy, s3: S3) -> None:
    """DeleteObjects deletes the keys that the grant permits, and names the others with AccessDenied (I32)."""
    for name in ("pub/a", "a"):
        s3.put(name, b"x")
    found = await Client(proxy, s3.bucket, "below").call(
        "delete_objects", Delete={"Objects": [{"Key": "pub/a"}, {"Key": "a"}]}
    )
    assert [item["Key"] for item in found["Deleted"]] == ["pub/a"]
    assert [(item["Key"], item["Code"]) for item in found["Errors"]] == [("a", "AccessDenied")]
    assert s3.keys() == ["a"]


async def test_buckets_that_are_not_served(proxy: Proxy, s3: S3) -> None:
    """A bucket of no mount does not exist here, and a list of buckets names those of the grant."""
    client = Client(proxy, "not-served")
    assert await client.refusal("get_object", "a") == (404, "NoSuchBucket")
    assert await client.refusal("list_objects_v2") == (404, "NoSuchBucket")
    copied = await Client(proxy, s3.bucket).refusal("copy_object", "b", CopySource="not-served/a")
    assert copied == (404, "NoSuchBucket")
    listed = await Client(proxy, s3.bucket, "elsewhere").run(lambda found: found.list_buckets())
    assert [bucket["Name"] for bucket in listed["Buckets"]] == ["another"]


async def test_clients_that_do_not_sign(start: StartProxy, s3: S3) -> None:
    """A client without a signature may do what `anonymous` says, and nothing without it."""
    s3.put("pub/a", b"data")
    s3.put("a", b"data")
    closed = await start(**endpoint())
    assert closed.app.s3 is not None
    assert (await fetch(closed.app.s3.listener.address, f"/{s3.bucket}/pub/a")).status == 403
    await closed.stop()
    opened = await start(**endpoint(anonymous={"buckets": [s3.bucket], "prefix": "pub/"}))
    assert opened.app.s3 is not None
    address = opened.app.s3.listener.address
    assert (await fetch(address, f"/{s3.bucket}/pub/a")).body == b"data"
    refused = [
        await fetch(address, f"/{s3.bucket}/a"),
        await fetch(address, f"/{s3.bucket}/pub/a", method="DELETE"),
        await fetch(address, f"/{s3.bucket}/pub/b", method="PUT", body=b"x"),
        await fetch(address, f"/{s3.bucket}?list-type=2"),
    ]
    assert [response.status for response in refused] == [403] * 4
    assert all(b"<Code>AccessDenied</Code>" in response.body for response in refused)
    overridden = await fetch(address, f"/{s3.bucket}/pub/a?response-content-type=text/html")
    assert overridden.status == 400


async def test_a_page_of_another_site_writes_nothing(start: StartProxy, s3: S3) -> None:
    """Where clients may write without a signature, the page of another site may not (I33)."""
    proxy = await start(**endpoint(anonymous={"buckets": ["*"], "write": True}))
    assert proxy.app.s3 is not None
    address, target = proxy.app.s3.listener.address, f"/{s3.bucket}/a"
    foreign = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    assert (await fetch(address, target, method="PUT", headers=foreign, body=b"x")).status == 403
    rebound = {"Host": "evil.example", "Content-Type": "text/plain"}
    assert (await fetch(address, target, method="PUT", headers=rebound, body=b"x")).status == 421
    assert s3.keys() == []
    assert (await fetch(address, target, method="PUT", body=b"x")).status == 200
    assert s3.keys() == ["a"]


async def test_one_client_at_a_time_is_no_other(proxy: Proxy, s3: S3) -> None:
    """What is cached for the client of one key is not served to that of another which may not read it."""
    s3.put("a", b"data")
    reader, below = Client(proxy, s3.bucket, "reader"), Client(proxy, s3.bucket, "below")
    assert await reader.read("a") == b"data"
    results = await asyncio.gather(*(below.refusal("get_object", "a") for _ in range(5)))
    assert results == [DENIED] * 5
