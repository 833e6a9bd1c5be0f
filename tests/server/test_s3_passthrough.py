"""`s3.mode: passthrough`: S3 decides on each request of a client, and the bytes come from the cache."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from proxy_under_test import PART, S3, Proxy, StartProxy, WallClock, pattern
from relay import canned
from s3_clients import Client
from s3_guard import OWN, Guard
from s3_signer import Signer, target_of
from wire import Response, fetch

from bucketfront.cache import Waste
from bucketfront.errors import ConfigError
from bucketfront.http import client_signature
from bucketfront.keys import ObjectKey

SECRETS = {"alice": "alice-secret-0123", "bob": "bob-secret-45678", OWN: OWN}
BODY = pattern(PART - 1)


@pytest.fixture
def clock() -> WallClock:
    """The clock of the client and of S3 as well, because a signature has a time."""
    clock = WallClock()
    clock.jump(-3600)
    return clock


@dataclass(slots=True)
class Setup:
    """A proxy whose clients S3 knows: `alice` may use all of the bucket, and `bob` what begins with `public/`."""

    proxy: Proxy
    s3: S3
    guard: Guard
    clock: WallClock

    @property
    def url(self) -> str:
        assert self.proxy.app.s3 is not None
        return self.proxy.app.s3.listener.address

    def signer(self, user: str) -> Signer:
        return Signer(user, SECRETS[user], self.clock)

    def presigned(self, user: str, key: str = "a", expires: int = 600) -> str:
        return self.signer(user).presigned("GET", self.url + target_of(self.s3.bucket, key), expires)

    async def send(
        self, user: str, key: str = "a", method: str = "GET", signed: Mapping[str, str] | None = None, **fields: str
    ) -> Response:
        """Send a request that `user` signs now. `fields` are not signed, and have `_` in place of `-`."""
        target = target_of(self.s3.bucket, key)
        head = self.signer(user).fields(method, self.url + target, signed)
        return await self.raw(target, method, {**head, **fields})

    async def raw(self, target: str, method: str = "GET", fields: Mapping[str, str] | None = None) -> Response:
        named = {name.replace("_", "-"): value for name, value in (fields or {}).items()}
        return await fetch(self.url, target, method=method, headers={"Host": urlsplit(self.url).netloc, **named})

    def client(self, user: str, **options: Any) -> Client:
        return Client(self.proxy, self.s3.bucket, user, secret=SECRETS[user], **options)

    @property
    def last(self) -> tuple[str, int | None]:
        """Return the condition and the status of the last request of the origin."""
        seen = self.proxy.relay.seen[-1]
        return seen.headers.get("if-none-match", ""), seen.status


async def started(start: StartProxy, s3: S3, clock: WallClock, **settings: Any) -> Setup:
    sections = settings.pop("sections", {})
    proxy = await start(s3={"port": 0, "mode": "passthrough", **settings}, **sections)
    every = f"/{s3.bucket}"
    guard = Guard(clock, dict(SECRETS), {"alice": every, "bob": f"{every}/public/", OWN: every})
    proxy.relay.on_request = guard
    return Setup(proxy, s3, guard, clock)


@pytest.fixture
async def setup(start: StartProxy, s3: S3, clock: WallClock) -> Setup:
    return await started(start, s3, clock)


@pytest.fixture
async def remembering(start: StartProxy, s3: S3, clock: WallClock) -> Setup:
    """The same with an `authorization_ttl` of a minute."""
    return await started(start, s3, clock, authorization_ttl="1m")


def code_of(response: Response) -> str:
    return response.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


# --- reads -----------------------------------------------------------------------------------------------------


async def test_bytes_come_from_the_cache(setup: Setup) -> None:
    """S3 allows each read with a 304, and its bytes come from the cache (I31)."""
    etag = setup.s3.put("a", BODY)
    first = await setup.send("alice")
    assert (first.status, first.body) == (200, BODY)
    before = setup.proxy.relay.body_bytes
    for _ in range(2):
        again = await setup.send("alice")
        assert (again.status, again.body) == (200, BODY)
        assert "fwd-status=304" in again.headers["Cache-Status"]
        assert setup.last == (etag, 304)
    assert setup.proxy.relay.body_bytes == before
    assert setup.guard.asked == [("alice", 200)] * 3


async def test_the_access_log_names_whom_s3_has_verified(setup: Setup) -> None:
    """A key id is in the access log if S3 has accepted its signature. Anyone could claim it otherwise (I37)."""
    setup.s3.put("a", BODY)
    await setup.send("alice")
    await setup.send("bob")
    await setup.client("alice").call("put_object", "a", Body=b"x")
    assert [line.get("user") for line in setup.proxy.log] == ["s3:alice", None, "s3:alice"]


async def test_closed_bodies_are_waste(setup: Setup) -> None:
    """What has come of a body that is fetched again counts once more, and as waste (I37)."""
    setup.s3.put("a", BODY)

    async def whole(seen: Any) -> bytes | None:
        if OWN in seen.headers["authorization"].partition("/")[0]:
            return await setup.guard(seen)
        # In one piece with its head, so that all of it has come with that.
        return b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "x"\r\nConnection: close\r\n\r\n12345'

    setup.proxy.relay.on_request = whole
    assert (await setup.send("alice")).body == b"12345"
    wasted = [account.wasted[Waste.TWICE] for account in setup.proxy.app.cache.traffic.values()]
    assert sum(wasted) == 5


async def test_a_refusal_is_of_its_client_alone(setup: Setup) -> None:
    """A 403 passes as S3 sent it, changes nothing in the cache, and no other client shares it (I13)."""
    etag = setup.s3.put("a", BODY)
    for cached in (False, True):
        refused = await setup.send("bob")
        assert (refused.status, code_of(refused)) == (403, "AccessDenied")
        assert refused.headers["x-amz-request-id"] == "of-s3"
        allowed = await setup.send("alice")
        assert (allowed.status, allowed.body) == (200, BODY)
        assert setup.last[1] == (304 if cached else 206) or not cached
    assert setup.last == (etag, 304)
    assert [status for user, status in setup.guard.asked if user == "bob"] == [403, 403]


async def test_concurrent_clients_share_bytes_and_no_decision(setup: Setup) -> None:
    """S3 decides on each of many requests at once, whoever else asks for the same object (I31)."""
    setup.s3.put("a", BODY)
    users = ["alice", "bob"] * 5
    found = await asyncio.gather(*(setup.send(user) for user in users))
    assert [response.status for response in found] == [200, 403] * 5
    assert all(response.body == BODY for response in found[::2])
    assert len(setup.guard.asked) >= 10


@pytest.mark.parametrize("is_cached", [False, True])
async def test_wrong_signatures(setup: Setup, is_cached: bool) -> None:
    """A signature that S3 refuses reads nothing, whether the object is in the cache or not (I31)."""
    setup.s3.put("a", BODY)
    if is_cached:
        await setup.send("alice")
    forger = replace(setup.signer("alice"), secret_key="a-secret-that-is-wrong")
    target = target_of(setup.s3.bucket, "a")
    forged = await setup.raw(target, "GET", forger.fields("GET", setup.url + target))
    assert (forged.status, code_of(forged)) == (403, "SignatureDoesNotMatch")
    head = await setup.raw(target, "HEAD", forger.fields("HEAD", setup.url + target))
    assert (head.status, head.body) == (403, b"")
    other = setup.signer("alice").fields("GET", setup.url + target_of(setup.s3.bucket, "b"))
    assert (await setup.raw(target, "GET", other)).status == 403
    assert (await setup.raw(target, "GET", {"Authorization": "Bearer x", "Host": "127.0.0.1"})).status == 403
    assert (await setup.raw(target, "GET", {"Host": "127.0.0.1"})).status == 403


async def test_a_new_version_is_served_at_once(setup: Setup) -> None:
    """A write past the proxy is what the next read gets, whatever the lifetime of the cached version is (I9)."""
    setup.s3.put("a", b"first")
    assert (await setup.send("alice")).body == b"first"
    setup.s3.put("a", b"second")
    assert (await setup.send("alice")).body == b"second"
    assert (await setup.send("alice")).body == b"second"
    assert setup.last[1] == 304
    setup.s3.delete("a")
    gone = await setup.send("alice")
    assert (gone.status, code_of(gone)) == (404, "NoSuchKey")


async def test_kinds_of_reads(setup: Setup) -> None:
    """Ranges, HEADs, presigned URLs and anonymous requests get what S3 would send, cold and warm."""
    setup.s3.put("public/a", BODY, ContentType="text/x-test", ACL="public-read")
    setup.guard.readable[""] = f"/{setup.s3.bucket}/public/"
    for _ in range(2):
        part = await setup.send("bob", "public/a", Range="bytes=10-19")
        assert (part.status, part.body) == (206, BODY[10:20])
        signed = await setup.send("bob", "public/a", signed={"Range": "bytes=20-29"})
        assert (signed.status, signed.body) == (206, BODY[20:30])
        head = await setup.send("bob", "public/a", method="HEAD")
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(BODY)))
        assert head.headers["Content-Type"] == "text/x-test"
        assert (await setup.raw(setup.presigned("bob", "public/a"))).body == BODY
        anonymous = await setup.raw(target_of(setup.s3.bucket, "public/a"), "GET", {"Host": "127.0.0.1"})
        assert (anonymous.status, anonymous.body) == (200, BODY)
    assert (await setup.send("bob", "public/a", Range=f"bytes={len(BODY)}-")).status == 416
    assert (await setup.raw(setup.presigned("bob", "a"))).status == 403


async def test_conditions_of_the_client(setup: Setup) -> None:
    """A condition of the client's own is S3's to judge, and no other is added to it."""
    etag = setup.s3.put("a", BODY)
    for _ in range(2):
        assert (await setup.send("alice", If_None_Match=etag)).status == 304
        assert setup.last == (etag, 304)
        assert (await setup.send("alice", signed={"If-None-Match": '"other"'})).body == BODY
        part = await setup.send("alice", signed={"If-Match": etag, "Range": "bytes=1-2"})
        assert (part.status, part.body) == (206, BODY[1:3])
        assert (await setup.send("alice", signed={"If-Match": '"other"'})).status == 412
    head = setup.signer("alice").fields("GET", setup.url + target_of(setup.s3.bucket, "a"))
    names = head["Authorization"].replace("SignedHeaders=host;", "SignedHeaders=host;if-none-match;")
    await setup.raw(target_of(setup.s3.bucket, "a"), "GET", {**head, "Authorization": names})
    assert setup.last == ("", 403), "a field that is signed as absent was added"


async def test_an_outage_allows_nothing(setup: Setup) -> None:
    """Without S3 nothing is allowed, although the object is in the cache and fresh (I31)."""
    setup.s3.put("a", BODY)
    await setup.send("alice")
    assert (await setup.proxy.get("/a")).cache_status.startswith("hit")

    async def fail(_: object) -> bytes:
        return canned(500, "InternalError")

    setup.proxy.relay.on_request = fail
    assert (await setup.send("alice")).status == 502
    await setup.proxy.relay.stop()
    assert (await setup.send("alice")).status in (502, 503, 504)
    assert (await setup.proxy.get("/a")).body == BODY


async def test_what_our_own_credentials_may_not(setup: Setup) -> None:
    """A client whom S3 allows a read gets it, although the credentials of the proxy may not read."""
    setup.s3.put("a", BODY)
    del setup.guard.readable[OWN]
    for _ in range(2):
        found = await setup.send("alice")
        assert (found.status, found.body) == (200, BODY)
    assert (await setup.send("bob")).status == 403


async def test_another_object_than_ours(setup: Setup) -> None:
    """If S3 takes a request for another object than the proxy does, the client gets S3's object (I25)."""
    setup.s3.put("secret", BODY)
    assert (await setup.send("alice", "secret")).body == BODY
    of_s3 = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "other"\r\nConnection: close\r\n\r\nother'

    async def as_other(seen: Any) -> bytes | None:
        return of_s3 if "Credential=bob/" in seen.headers.get("authorization", "") else await setup.guard(seen)

    setup.proxy.relay.on_request = as_other
    for _ in range(2):
        assert (await setup.send("bob", "secret")).body == b"other"
    assert (await setup.send("alice", "secret")).body == BODY


async def test_an_object_with_a_key_of_kms(setup: Setup) -> None:
    """S3 has to decrypt an object with a key of KMS for each client, because a 304 would not show that it may."""
    setup.s3.put("a", BODY, ServerSideEncryption="aws:kms")
    for _ in range(2):
        assert (await setup.send("alice")).body == BODY
        asked = [seen for seen in setup.proxy.relay.seen if "Credential=alice/" in seen.headers["authorization"]]
        assert "if-none-match" not in asked[-1].headers


async def test_names_of_hosts(start: StartProxy, s3: S3, clock: WallClock) -> None:
    """S3 gets the Host that was signed, and a name that may mean another bucket to it gets 421 (I29)."""
    setup = await started(start, s3, clock, domain="s3.test", sections={"server": {"hosts": ["cache.test"]}})

    async def as_found(_: object) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-amz-id-2: x\r\nConnection: close\r\n\r\n"

    setup.proxy.relay.on_request = as_found
    for host, path, status in (
        ("cache.test:80", target_of(s3.bucket, "a"), 200),
        ("s3.test", target_of(s3.bucket, "a"), 200),
        (f"{s3.bucket}.s3.test", "/a", 200),
        ("other.test", target_of(s3.bucket, "a"), 421),
        ("s3.test.other.test", target_of(s3.bucket, "a"), 421),
    ):
        head = setup.signer("alice").fields("GET", f"http://{host}{path}")
        before = len(setup.proxy.relay.seen)
        assert (await setup.raw(path, "GET", head)).status == status
        sent = setup.proxy.relay.seen[before:]
        assert [seen.headers["host"] for seen in sent][:1] == ([host] if status == 200 else [])


async def test_loops(setup: Setup) -> None:
    """A request that this proxy has sent itself is refused, and each request that it sends shows that in Via."""
    setup.s3.put("a", BODY)
    await setup.send("alice")
    via = setup.proxy.relay.seen[0].headers["via"]
    assert (await setup.send("alice", Via=via)).status == 508


# --- all other operations --------------------------------------------------------------------------------------


async def test_each_write_is_seen_at_once(setup: Setup) -> None:
    """What an operation writes is what both listeners read next, whichever operation it is (I5)."""
    s3, client = setup.s3, setup.client("alice")
    s3.put("source", b"of a copy")

    async def seen() -> bytes:
        by_mount = (await setup.proxy.get("/a")).body
        assert (await setup.send("alice")).body == by_mount
        return by_mount

    await client.call("put_object", "a", Body=b"put", Metadata={"colour": "blue"})
    assert await seen() == b"put"
    assert s3.head("a")["Metadata"] == {"colour": "blue"}
    await client.call("copy_object", "a", CopySource=f"{s3.bucket}/source")
    assert await seen() == b"of a copy"
    upload = (await client.call("create_multipart_upload", "a"))["UploadId"]
    part = await client.call("upload_part", "a", UploadId=upload, PartNumber=1, Body=b"in parts")
    assert await seen() == b"of a copy"
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    await client.call("complete_multipart_upload", "a", UploadId=upload, MultipartUpload=parts)
    assert await seen() == b"in parts"
    await client.call("delete_object", "a")
    assert (await setup.proxy.get("/a")).status == 404
    await client.call("put_object", "a", Body=b"again")
    assert await seen() == b"again"
    await client.call("delete_objects", Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]})
    assert (await setup.proxy.get("/a")).status == 404
    assert await client.refusal("get_object", "a") == (404, "NoSuchKey")


async def test_writes_that_s3_refuses(setup: Setup) -> None:
    """A write that S3 does not allow changes nothing, and its error is S3's own."""
    setup.s3.put("a", BODY)
    bob = setup.client("bob")
    assert await bob.refusal("put_object", "a", Body=b"x") == (403, "AccessDenied")
    assert await bob.refusal("delete_object", "a") == (403, "AccessDenied")
    assert await bob.refusal("delete_objects", Delete={"Objects": [{"Key": "a"}]}) == (403, "AccessDenied")
    assert await bob.refusal("list_objects_v2") == (403, "AccessDenied")
    assert (await setup.send("alice")).body == BODY == setup.s3.get("a")


async def test_operations_without_an_object(setup: Setup) -> None:
    """Lists, tags and operations that bucketfront does not know pass as they are."""
    client = setup.client("alice")
    setup.s3.put("a b/ä", BODY)
    found = await client.call("list_objects_v2", Prefix="a b/")
    assert [item["Key"] for item in found["Contents"]] == ["a b/ä"]
    await client.call("put_object_tagging", "a b/ä", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    assert (await client.call("get_object_tagging", "a b/ä"))["TagSet"] == [{"Key": "k", "Value": "v"}]
    await client.call("head_bucket")
    assert await setup.client("alice").refusal("get_bucket_policy") == (404, "NoSuchBucketPolicy")
    assert await Client(setup.proxy, "of-no-mount", "alice", secret=SECRETS["alice"]).refusal("get_object", "a") == (
        404,
        "NoSuchBucket",
    )


async def test_a_page_of_another_site(setup: Setup) -> None:
    """An anonymous write that a web page may have sent does not reach S3, even if anyone may write (I33)."""
    setup.guard.readable[""] = "/"
    target = target_of(setup.s3.bucket, "a")
    fields = {"Host": "127.0.0.1", "Origin": "http://evil.test", "Content-Length": "0"}
    assert (await setup.raw(target, "PUT", fields)).status == 403
    assert not setup.proxy.relay.seen


# --- what is remembered ----------------------------------------------------------------------------------------


async def test_the_same_request_is_not_asked_again(remembering: Setup) -> None:
    """Within `authorization_ttl` S3 is not asked for the very same request, whatever range it wants."""
    setup = remembering
    setup.s3.put("a", BODY)
    url = setup.presigned("alice")
    assert (await setup.raw(url)).body == BODY
    for _ in range(2):
        again = await setup.raw(url)
        assert again.headers["Cache-Status"].startswith("bucketfront; hit")
        assert again.body == BODY
    part = await setup.raw(url, "GET", {"Range": "bytes=1-2"})
    assert (part.status, part.body) == (206, BODY[1:3])
    assert setup.guard.asked == [("alice", 200)]
    setup.clock.advance(60)
    assert (await setup.raw(url)).body == BODY
    assert setup.guard.asked == [("alice", 200)] * 2


async def test_nothing_is_remembered_by_default(setup: Setup) -> None:
    """Without `authorization_ttl` S3 decides on the very same request each time."""
    setup.s3.put("a", BODY)
    url = setup.presigned("alice")
    for _ in range(3):
        assert (await setup.raw(url)).status == 200
    assert setup.guard.asked == [("alice", 200)] * 3


async def test_another_request_is_asked(remembering: Setup) -> None:
    """A request that differs in anything that S3 decides by is another one, whose signature S3 verifies."""
    setup = remembering
    setup.s3.put("a", BODY)
    url = setup.presigned("alice")
    assert (await setup.raw(url)).status == 200
    signature = url.rpartition("=")[2]
    for other, fields in (
        (url.replace(signature, signature[::-1]), {}),
        (url.replace("alice", "bob"), {}),
        (url.replace("Expires=600", "Expires=6000"), {}),
        (f"{url}&X-Amz-Security-Token=x", {}),
        (url, {"Host": "127.0.0.1:1"}),
        (url, {"x-amz-security-token": "x"}),
    ):
        assert (await setup.raw(other, "GET", fields)).status == 403
    assert (await setup.raw(url, "HEAD")).status == 403
    assert len(setup.guard.asked) == 8


async def test_an_expired_signature_serves_nothing(remembering: Setup) -> None:
    """A remembered request ends with its signature, also before `authorization_ttl` (I31)."""
    setup = remembering
    setup.s3.put("a", BODY)
    url = setup.presigned("alice", expires=20)
    assert (await setup.raw(url)).status == 200
    setup.clock.advance(19)
    assert (await setup.raw(url)).headers["Cache-Status"].startswith("bucketfront; hit")
    setup.clock.advance(2)
    assert (await setup.raw(url)).status == 403


async def test_a_refusal_ends_what_is_remembered(remembering: Setup) -> None:
    """After a 403 S3 decides on the request again and again, and only what it allows is remembered."""
    setup = remembering
    setup.s3.put("a", BODY)
    url = setup.presigned("alice")
    assert (await setup.raw(url)).status == 200
    setup.clock.advance(60)
    allowed = setup.guard.readable.pop("alice")
    for _ in range(2):
        assert (await setup.raw(url)).status == 403
    setup.guard.readable["alice"] = allowed
    assert (await setup.raw(url)).status == 200
    assert [status for _, status in setup.guard.asked] == [200, 403, 403, 200]


async def test_a_refusal_holds_for_the_remembered_request(remembering: Setup) -> None:
    """After a 403 the request is not remembered, although `authorization_ttl` has not passed (I31)."""
    setup = remembering
    setup.s3.put("a", BODY)
    url = setup.presigned("alice")
    assert (await setup.raw(url)).status == 200
    await setup.proxy.app.cache.purge([ObjectKey(setup.s3.bucket, "a")])
    del setup.guard.readable["alice"]
    assert (await setup.raw(url)).status == 403
    assert (await setup.proxy.get("/a")).body == BODY  # the version is in the cache again, and fresh
    assert (await setup.raw(url)).status == 403


@pytest.mark.parametrize("of", ["object", "acl", "bucket"])
async def test_a_write_ends_what_is_remembered(remembering: Setup, of: str) -> None:
    """After a write of the object, its ACL or its bucket S3 decides again, because that may change who may read."""
    setup = remembering
    setup.s3.put("a", BODY)
    url, client = setup.presigned("alice"), setup.client("alice")
    assert (await setup.raw(url)).status == 200
    if of == "object":
        await client.call("put_object", "a", Body=BODY)
    elif of == "acl":
        await client.call("put_object_acl", "a", ACL="private")
    else:
        await client.call("put_bucket_acl", ACL="private")
    assert (await setup.send("alice")).status == 200  # the object is in the cache again
    del setup.guard.readable["alice"]
    assert (await setup.raw(url)).status == 403


async def test_a_new_version_ends_what_is_remembered(remembering: Setup) -> None:
    """What S3 has shown to a client is one version. S3 shows the client the next one itself (I6)."""
    setup = remembering
    setup.s3.put("a", b"first")
    url = setup.presigned("alice")
    assert (await setup.raw(url)).body == b"first"
    await setup.proxy.request("PUT", "/a", body=b"second")
    assert (await setup.raw(url)).body == b"second"
    assert setup.guard.asked == [("alice", 200)] * 2


# --- settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"keys": [{"id": "app", "secret": "0123456789abcdef", "buckets": ["*"]}]},
        {"anonymous": {"buckets": ["*"]}},
        {"pass_through": True},
        {"authorization_ttl": "2h"},
    ],
)
async def test_settings_of_the_other_mode(start: StartProxy, settings: dict[str, Any]) -> None:
    """Keys of ours would have no effect, so the start fails with them (I30)."""
    with pytest.raises((ConfigError, ValueError)):
        await start(s3={"port": 0, "mode": "passthrough", **settings})
    with pytest.raises((ConfigError, ValueError)):
        await start(s3={"port": 0, "anonymous": {"buckets": ["*"]}, "authorization_ttl": "1s"})


def test_fields_that_pass() -> None:
    """S3 gets the fields that are signed and those of an allow-list, and none of the connection (I25)."""
    fields = {
        "host": "h",
        "authorization": "AWS4-HMAC-SHA256 Credential=k/20300101/us-east-1/s3/aws4_request,"
        f"SignedHeaders=host;x-signed;connection,Signature={'0' * 64}",
        "x-amz-date": "20300101T000000Z",
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "x-signed": "1",
        "x-unsigned": "2",
        "connection": "x-signed, x-amz-date",
        "via": "1.1 other",
        "range": "bytes=0-1",
        "content-length": "0",
    }
    signature = client_signature.signature_of(fields, "")
    assert set(client_signature.passed_fields(fields, signature)) == {
        "host", "authorization", "x-amz-content-sha256", "x-signed", "range",
    }  # fmt: skip
