"""Changes by clients of S3 that end badly: responses that are lost, errors in a success, clients that leave."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from botocore.exceptions import ClientError
from proxy_under_test import S3, Proxy, StartProxy, WallClock, descriptors_open, until
from relay import Cut, Relay, Seen, canned
from rows import each_row
from s3_clients import Client, RawClient, endpoint
from wire import connected, message

from bucketfront.fair_share import Resource, UsedUp


@pytest.fixture
def clock() -> WallClock:
    """The clock of the client as well, because a signature has a time."""
    clock = WallClock()
    clock.jump(-3600)
    return clock


@pytest.fixture
async def proxy(start: StartProxy) -> Proxy:
    return await start(**endpoint(pass_through=True))


@pytest.fixture
def client(proxy: Proxy, s3: S3) -> Client:
    return Client(proxy, s3.bucket)


async def _put(client: Client, _: S3) -> None:
    await client.call("put_object", "a", Body=b"new")


async def _copy(client: Client, s3: S3) -> None:
    s3.put("source", b"new")
    await client.call("copy_object", "a", CopySource=f"{s3.bucket}/source")


async def _complete(client: Client, s3: S3) -> None:
    upload = s3.client.create_multipart_upload(Bucket=s3.bucket, Key="a")["UploadId"]
    part = s3.client.upload_part(Bucket=s3.bucket, Key="a", UploadId=upload, PartNumber=1, Body=b"new")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    await client.call("complete_multipart_upload", "a", UploadId=upload, MultipartUpload=parts)


async def _delete(client: Client, _: S3) -> None:
    await client.call("delete_object", "a")


async def _delete_many(client: Client, _: S3) -> None:
    await client.call("delete_objects", Delete={"Objects": [{"Key": "a"}]})


CHANGES = [(_put, b"new"), (_copy, b"new"), (_complete, b"new"), (_delete, None), (_delete_many, None)]


@each_row("change, left", CHANGES)
async def test_a_change_whose_response_is_lost(
    change: Callable[[Client, S3], Awaitable[None]],
    left: bytes | None,
    proxy: Proxy,
    client: Client,
    s3: S3,
    relay: Relay,
) -> None:
    """If the origin dies after it has made a change, clients of both listeners read what it made (I9)."""
    relay.on_request = None  # that of the row before
    await client.call("put_object", "a", Body=b"old")
    assert (await proxy.get("/a")).body == await client.read("a") == b"old"

    async def cut(seen: Seen) -> bytes | None:
        if seen.method in ("GET", "HEAD"):
            return None
        await asyncio.to_thread(s3.delete, "a") if left is None else await asyncio.to_thread(s3.put, "a", left)
        raise Cut

    relay.on_request = cut
    with pytest.raises(ClientError):
        await change(client, s3)
    response = await proxy.get("/a")
    if left is None:
        assert response.status == 404
        assert await client.refusal("get_object", "a") == (404, "NoSuchKey")
    else:
        assert response.body == await client.read("a") == left


async def test_a_completion_that_fails_within_a_success(proxy: Proxy, client: Client, s3: S3, relay: Relay) -> None:
    """An error in the body of a 200 reaches the client, and what S3 has then is read from S3 (I5, I9)."""
    s3.put("a", b"old")
    assert (await proxy.get("/a")).body == b"old"

    async def fail(seen: Seen) -> bytes | None:
        return canned(200, "InternalError") if seen.method == "POST" else None

    relay.on_request = fail
    s3.put("a", b"other")  # S3 made the object, and failed afterwards
    parts = {"Parts": [{"PartNumber": 1, "ETag": '"x"'}]}
    status, code = await client.refusal("complete_multipart_upload", "a", UploadId="u", MultipartUpload=parts)
    assert (status >= 200, code) == (True, "InternalError")
    assert (await proxy.get("/a")).body == b"other"


async def test_clients_that_leave_in_the_middle(proxy: Proxy, clock: WallClock, s3: S3) -> None:
    """A client that leaves in the middle of its body changes nothing, and gives back all that it had (I3, I19)."""
    s3.put("a", b"old")
    raw, body = RawClient(proxy, clock), b"x" * 300_000
    shares = proxy.app.fair_shares.shares
    await raw.send("GET", f"/{s3.bucket}/a")
    await proxy.settled()
    tasks, descriptors = len(asyncio.all_tasks()), descriptors_open()
    for query in ("", "?partNumber=1&uploadId=u"):
        for sent in (1, 100_000, len(body) - 1):
            target = f"/{s3.bucket}/a{query}"
            fields = raw.signer.fields("PUT", raw.address + target, {}, body)
            async with connected(raw.address) as connection:
                await connection.send(message("PUT", target, fields, body)[: sent - len(body)])
                await until(lambda: shares[Resource.UPLOADS].used == 1)
                connection.abort()
            await until(lambda: shares[Resource.UPLOADS].used == 0)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await until(lambda: descriptors_open() <= descriptors)
    assert s3.get("a") == b"old"
    assert (await proxy.get("/a")).body == b"old"


async def test_one_key_cannot_take_all(proxy: Proxy, clock: WallClock, s3: S3, relay: Relay) -> None:
    """A key whose requests have its share of all is refused further ones, and other clients are served (I34)."""
    s3.put("a", b"data")
    share = proxy.app.fair_shares.shares[Resource.REQUESTS]
    share.capacity = 8
    gate = asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if "held" in seen.target:
            await gate.wait()
        return None

    relay.on_request = hold
    raw = RawClient(proxy, clock)
    held = [asyncio.create_task(raw.send("GET", f"/{s3.bucket}/held{number}")) for number in range(7)]
    await until(lambda: share.used == 7)
    refused = await raw.send("GET", f"/{s3.bucket}/a")
    assert (refused.status, b"<Code>SlowDown</Code>" in refused.body) == (429, True), refused.body
    assert proxy.app.fair_shares.refused[Resource.REQUESTS, UsedUp.SHARE] == 1
    assert (await proxy.get("/a")).body == b"data"
    gate.set()
    assert {response.status for response in await asyncio.gather(*held)} == {404}
