"""The S3 endpoint while it runs: TLS, new settings and secrets, a stop, and front ends beside it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from certificates import localhost_certificate
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, WallClock, pattern, until
from relay import Relay, Seen
from reloadable import ConfigFile, Site
from s3_clients import SECRET, Client, RawClient, endpoint
from s3_signer import Signer
from wire import connected, fetch, message

from bucketfront.app import App
from bucketfront.config.loader import load_with_places
from bucketfront.config.s3_settings import S3Settings
from bucketfront.config.secret_file import SecretFile
from bucketfront.fair_share import Resource
from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.server.s3_endpoint.key_ring import Identity, KeyRing


@pytest.fixture
def clock() -> WallClock:
    """The clock of the client as well, because a signature has a time."""
    clock = WallClock()
    clock.jump(-3600)
    return clock


@pytest.fixture
async def site(tmp_path: Path, s3: S3, relay: Relay, clock: WallClock) -> AsyncIterator[Site]:
    config = ConfigFile(tmp_path, relay.url, s3.bucket)
    config.write(**endpoint())
    app = App(
        load_with_places(config.path, {}).settings,
        clock=clock,
        elapsed=clock.passed,
        read=lambda: load_with_places(config.path, {}),
    )
    async with app:
        yield Site(Proxy(app, relay, clock), config)


async def test_bodies_over_tls(start: StartProxy, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS, where SDKs send checksums behind an unsigned body, bodies of every size arrive (I1, I3)."""
    chain, key = localhost_certificate(tmp_path)
    proxy = await start(**endpoint(tls={"certificate": str(chain), "key": str(key)}))
    assert proxy.app.s3 is not None
    url = proxy.app.s3.listener.address.replace("127.0.0.1", "localhost")
    assert url.startswith("https://")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(chain))
    client = Client(proxy, s3.bucket, url=url)
    for size in (0, 1, BLOCK, (1 << 20) - 1, (1 << 20) + 1):
        body = pattern(size)
        await client.call("put_object", "a", Body=body, ChecksumAlgorithm="SHA256")
        put = next(seen for seen in reversed(proxy.relay.seen) if seen.method == "PUT")
        assert put.headers["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        assert s3.get("a") == await client.read("a") == (await proxy.get("/a")).body == body
    upload = (await client.call("create_multipart_upload", "b"))["UploadId"]
    part = await client.call("upload_part", "b", UploadId=upload, PartNumber=1, Body=body)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    await client.call("complete_multipart_upload", "b", UploadId=upload, MultipartUpload=parts)
    assert s3.get("b") == await client.read("b") == body


async def test_new_settings_while_requests_run(site: Site, s3: S3, relay: Relay, clock: WallClock) -> None:
    """A request ends by the rules under which it began, and the next one has the new ones."""
    proxy, target = site.proxy, f"/{s3.bucket}/a"
    raw, body = RawClient(proxy, clock), b"x" * 1000
    fields = raw.signer.fields("PUT", raw.address + target, {}, body)
    async with connected(raw.address) as connection:
        await connection.send(message("PUT", target, fields, body)[:-500])
        await until(lambda: proxy.app.fair_shares.shares[Resource.UPLOADS].used == 1)
        reader = {"id": "reader", "secret": SECRET, "buckets": ["*"]}
        await site.reload(s3={"keys": [reader], "anonymous": {"buckets": ["*"]}, "pass_through": True})
        assert (await raw.send("GET", target)).status == 403
        await connection.send(body[-500:])
        assert (await connection.response("PUT")).status == 200
    assert s3.get("a") == body
    assert (await RawClient(proxy, clock, "reader").send("GET", target)).body == body
    assert (await RawClient(proxy, clock, "reader").send("PUT", target, {}, b"x")).status == 403
    assert (await fetch(raw.address, target)).body == body
    await site.reload(s3={"anonymous": None})
    assert (await fetch(raw.address, target)).status == 403


async def test_a_secret_in_a_file_is_rotated(tmp_path: Path, clock: WallClock) -> None:
    """A file that has changed counts for the next requests, and one that is unusable leaves the old secret."""
    path = tmp_path / "secret"
    path.write_text("the-first-secret")
    path.chmod(0o600)
    passed = 0.0
    keys = [{"id": "app", "secret": SecretFile.read(path), "buckets": ["*"]}]
    ring = KeyRing(S3Settings.model_validate({"keys": keys}), clock, lambda: passed)

    async def identity(secret: str) -> Identity:
        nonlocal passed
        passed += 60.0
        signed = Signer("app", secret, clock).fields("GET", "http://a/b/k")
        fields = {name.lower(): value for name, value in signed.items()}
        return await ring.identify("GET", "/b/k", "", fields)

    assert (await identity("the-first-secret")).credential == "s3:app"
    path.write_text("the-second-secret")
    assert (await identity("the-second-secret")).credential == "s3:app"
    with pytest.raises(S3Refused) as raised:
        await identity("the-first-secret")
    assert raised.value.refusal is Refusal.MISMATCH
    path.write_text("short")
    assert (await identity("the-second-secret")).credential == "s3:app"
    await ring.close()


async def test_a_stop_waits_for_requests(start: StartProxy, s3: S3, clock: WallClock) -> None:
    """A stop lets a PutObject and a GetObject that run come to their ends."""
    proxy = await start(**endpoint())
    s3.put("b", b"data")
    raw, gate, body = RawClient(proxy, clock), asyncio.Event(), b"x" * 1000

    async def hold(_: Seen) -> bytes | None:
        await gate.wait()
        return None

    proxy.relay.on_request = hold
    running = [
        asyncio.create_task(raw.send("PUT", f"/{s3.bucket}/a", {}, body)),
        asyncio.create_task(raw.send("GET", f"/{s3.bucket}/b")),
    ]
    await until(lambda: len(proxy.relay.seen) >= 2)
    stopping = asyncio.create_task(proxy.stop())
    await asyncio.sleep(0)
    gate.set()
    put, got = await asyncio.gather(*running)
    await stopping
    assert (put.status, got.status, got.body) == (200, 200, b"data")
    assert s3.get("a") == body


HOSTS: list[tuple[str, str, str, int]] = [
    ("GET", "127.0.0.1", "/BUCKET/a", 200),
    ("GET", "s3.test", "/BUCKET/a", 200),
    ("GET", "BUCKET.s3.test", "/a", 200),
    ("GET", "rebound.example", "/BUCKET/a", 421),
    ("GET", "BUCKET.rebound.example", "/a", 421),
    ("PUT", "rebound.example", "/BUCKET/a", 421),
    ("GET", "a.BUCKET.s3.test", "/a", 404),
    ("GET", "xs3.test", "/BUCKET/a", 421),
]


async def test_names_of_clients_that_do_not_sign(start: StartProxy, s3: S3) -> None:
    """A name that a page has given our address is not served, and those below `s3.domain` are (I33)."""
    grant = {"buckets": ["*"], "write": True}
    proxy = await start(**endpoint(domain="s3.test", anonymous=grant))
    assert proxy.app.s3 is not None
    s3.put("a", b"data")
    for method, host, target, status in HOSTS:
        fields = {"Host": host.replace("BUCKET", s3.bucket)}
        named = target.replace("BUCKET", s3.bucket)
        body = b"x" if method == "PUT" else None
        response = await fetch(proxy.app.s3.listener.address, named, method=method, headers=fields, body=body)
        assert response.status == status, (host, response.body)
    assert s3.get("a") == b"data"


async def test_front_ends_beside_the_owner(start: StartProxy, s3: S3, clock: WallClock) -> None:
    """What S3's clients write is what front ends with leases serve next, and requests count once (I36, I37)."""
    proxy = await start(server={"workers": 2}, **endpoint())
    client = RawClient(proxy, clock)
    for number in range(30):
        body = b"%d" % number
        kind = number % 3
        if kind == 2:
            assert (await client.send("DELETE", f"/{s3.bucket}/a")).status == 204
        else:
            assert (await client.send("PUT", f"/{s3.bucket}/a", {}, body)).status == 200
        for _ in range(4):
            response = await proxy.get("/a")
            assert (response.status, kind == 2 or response.body == body) == (404 if kind == 2 else 200, True)
    metrics = (await proxy.admin("GET", "/metrics")).body.decode()
    counted = [
        line for line in metrics.splitlines() if line.startswith("bucketfront_requests_total{") and 's3"' in line
    ]
    assert sum(float(line.rpartition(" ")[2]) for line in counted) == 30
