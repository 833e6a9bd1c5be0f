"""Hostile clients of the S3 endpoint: requests that are signed well and mean more than their key may do, or less.

Each test has the requests as bytes, because SDKs cannot send them.
"""

from typing import Any

import pytest
from proxy_under_test import S3, Proxy, StartProxy, WallClock
from rows import each_row
from s3_clients import SECRET, RawClient, endpoint
from s3_signer import SIGNED_CHUNKS
from wire import fetch

from bucketfront.http.s3_requests import CUSTOMER_KEY_FIELDS


@pytest.fixture
def clock() -> WallClock:
    """The clock of the client as well, because a signature has a time."""
    clock = WallClock()
    clock.jump(-3600)
    return clock


def key(name: str, **grant: Any) -> dict[str, Any]:
    return {"id": name, "secret": SECRET, **grant}


@pytest.fixture
async def proxy(start: StartProxy, s3: S3) -> Proxy:
    keys = [key("app", buckets=["*"], write=True), key("below", buckets=[s3.bucket], prefix="pub/", write=True)]
    return await start(**endpoint(keys=keys))


@pytest.fixture
def below(proxy: Proxy, clock: WallClock) -> RawClient:
    """The client whose key has the prefix pub/."""
    return RawClient(proxy, clock, "below")


@pytest.fixture
def hostile(proxy: Proxy, clock: WallClock) -> RawClient:
    return RawClient(proxy, clock)


@each_row(
    "query",
    ["list-type=2&prefix=&prefix=pub/", "list-type=2&prefix=pub/&prefix=", "prefix=&%70refix=pub/",
     "versions&prefix=&prefix=pub/", "uploads&prefix=pub/&prefix="],
)  # fmt: skip
async def test_a_parameter_that_is_given_twice(query: str, below: RawClient, proxy: Proxy, s3: S3) -> None:
    """A parameter that occurs twice is refused, because the origin may take the value that was not judged (I5)."""
    s3.put("secret", b"x")
    before = len(proxy.relay.seen)
    response = await below.send("GET", f"/{s3.bucket}?{query}")
    assert (response.status, b"<Code>InvalidArgument</Code>" in response.body) == (400, True)
    assert len(proxy.relay.seen) == before


@each_row("name", ["x-amz-copy-source", "X-Amz-Copy-Source", "%78-amz-copy-source", "x-amz-copy%2Dsource"])
async def test_a_copy_source_in_the_query(name: str, below: RawClient, s3: S3) -> None:
    """A field in the query counts as a field of the head, as in S3, so a copy is judged by its source as well."""
    s3.put("secret", b"secret")
    for send in (below.send, below.presigned):
        response = await send("PUT", f"/{s3.bucket}/pub/a?{name}=/{s3.bucket}/secret", body=b"")
        assert response.status == 403, response.body
    assert s3.keys() == ["secret"]


async def test_fields_in_the_query_are_those_of_the_object(hostile: RawClient, s3: S3, proxy: Proxy) -> None:
    """A presigned URL with fields in its query stores them, as SDKs for browsers send them."""
    target = f"/{s3.bucket}/a?x-amz-meta-colour=blue&x-amz-sdk-checksum-algorithm=CRC32&x-id=PutObject"
    assert (await hostile.presigned("PUT", target, body=b"data")).status == 200
    assert s3.head("a")["Metadata"] == {"colour": "blue"}
    assert "x-amz-meta" not in next(seen.target for seen in proxy.relay.seen if seen.method == "PUT")


async def test_a_field_in_the_query_and_in_the_head(hostile: RawClient, s3: S3) -> None:
    """A field in the query that the head has with another value is refused, because one of them would be ignored."""
    fields = {"x-amz-meta-a": "1"}
    response = await hostile.send("PUT", f"/{s3.bucket}/a?x-amz-meta-a=2", fields, b"x")
    assert response.status == 400
    assert s3.keys() == []


@each_row("payload", [None, SIGNED_CHUNKS])
async def test_a_body_that_was_cut_to_nothing(payload: str | None, hostile: RawClient, s3: S3) -> None:
    """A signed PUT whose body is replaced by an empty one stores nothing: the hash of the body is signed (I3)."""
    target = f"/{s3.bucket}/a"
    fields = {} if payload is None else {"x-amz-decoded-content-length": "4", "content-encoding": "aws-chunked"}
    signed = hostile.signer.fields("PUT", hostile.address + target, fields, b"data", payload=payload)
    response = await fetch(hostile.address, target, method="PUT", headers=signed, body=b"")
    assert response.status == 400, response.body
    assert s3.keys() == []


async def test_a_put_without_a_length(hostile: RawClient, s3: S3) -> None:
    """A PutObject or part without a framing field is refused as in S3, and stores no empty object."""
    for query in ("", "?uploadId=u&partNumber=1"):
        response = await hostile.send("PUT", f"/{s3.bucket}/a{query}")
        assert (response.status, b"MissingContentLength" in response.body) == (411, True)
    assert s3.keys() == []


async def test_objects_with_keys_of_clients(hostile: RawClient, proxy: Proxy, s3: S3) -> None:
    """An object that a client stores with a key of its own (SSE-C) is never in the cache."""
    fields = dict.fromkeys(CUSTOMER_KEY_FIELDS, "AES256")
    assert (await hostile.send("PUT", f"/{s3.bucket}/a", fields, b"secret")).status == 200
    gets = len(proxy.relay.seen)
    await proxy.get("/a")
    assert len(proxy.relay.seen) > gets, "S3 decides on a read without the key"


PASSING: list[tuple[str, str, dict[str, str]]] = [
    ("PUT", "/BUCKET/a?unknown", {"x-amz-copy-source": "/another/secret"}),
    ("PUT", "/BUCKET/fixed/a?unknown", {"x-amz-copy-source": "/BUCKET/team/secret"}),
    ("PUT", "/BUCKET/a?renameObject", {"x-amz-rename-source": "/BUCKET/team/secret"}),
    ("DELETE", "/BUCKET/fixed/a?unknown", {}),
    ("POST", "/BUCKET?delete&unknown", {}),
    ("POST", "/BUCKET", {"content-type": "multipart/form-data; boundary=x"}),
]


@pytest.fixture
async def passing(start: StartProxy, s3: S3) -> Proxy:
    """A proxy with `pass_through`, and mounts that limit what the key may do below their prefixes."""
    keys = [key("app", buckets=[s3.bucket], write=True)]
    mounts = [
        {"path": "/", "bucket": s3.bucket},
        {"path": "/other/", "bucket": "another"},
        {"path": "/team/", "bucket": s3.bucket, "prefix": "team/", "read": ["staff"]},
        {"path": "/fixed/", "bucket": s3.bucket, "prefix": "fixed/", "methods": ["GET", "PUT"]},
    ]
    access = {"staff": {"bearer": {"tokens": ["a-token-of-the-staff"]}}}
    return await start(**endpoint(keys=keys, pass_through=True), mounts=mounts, access=access, uploads=None)


@each_row("method, target, fields", PASSING)
async def test_pass_through_is_no_second_door(
    method: str, target: str, fields: dict[str, str], passing: Proxy, clock: WallClock, s3: S3
) -> None:
    """An unknown parameter makes no operation pass whose objects the key may not have, or the cache cannot follow."""
    named = {name: value.replace("BUCKET", s3.bucket) for name, value in fields.items()}
    before = len(passing.relay.seen)
    response = await RawClient(passing, clock).send(method, target.replace("BUCKET", s3.bucket), named, b"")
    assert response.status in (403, 501), response.body
    assert len(passing.relay.seen) == before


@each_row(
    "source",
    ["/../BUCKET/secret", "BUCKET", "/BUCKET/", "//BUCKET/pub/a", "%42UCKET/pub/a", "BUCKET/pub/%zz", "BUCKET/%ff",
     "BUCKET/pub/a?versionId=%0d%0a", "arn:aws:s3:us-east-1:123456789012:accesspoint/pub/object/secret",
     "BUCKET%2Fsecret", "BUCKET/pub/a%00", ""],
)  # fmt: skip
async def test_copy_sources_that_name_no_object(source: str, hostile: RawClient, proxy: Proxy, s3: S3) -> None:
    """A copy source that does not name a bucket and a key in plain is refused, and the origin never sees it (I23)."""
    before = len(proxy.relay.seen)
    fields = {"x-amz-copy-source": source.replace("BUCKET", s3.bucket)}
    response = await hostile.send("PUT", f"/{s3.bucket}/copy", fields, b"")
    assert (response.status, b"<Code>InvalidArgument</Code>" in response.body) == (400, True), response.body
    assert len(proxy.relay.seen) == before
