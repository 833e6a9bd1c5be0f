"""Tiers: the origin of one bucketfront is another one, whose mount has the name of the bucket (docs/fleet.md#tiers)."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from held_port import held_port
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, WallClock, pattern
from pydantic import SecretStr
from relay import Relay

from bucketfront.config.origin_settings import OriginSettings, StaticCredentials

METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE"]
BODY = pattern(BLOCK)

StartTiers = Callable[[], Awaitable[tuple[Proxy, Proxy]]]


@pytest.fixture
def start_tiers(start: StartProxy, s3: S3, tmp_path: Path) -> StartTiers:
    """Start a proxy beside S3, and one whose origin is the first. Return them in this order."""

    async def started() -> tuple[Proxy, Proxy]:
        upper = await start(mounts=mounts_of(s3.bucket), uploads=None)
        return upper, await start(**lower_of(tmp_path / "lower", upper.address))

    return started


def mounts_of(bucket: str) -> list[dict[str, Any]]:
    """Return the mounts of a proxy that answers as an S3 with this bucket does."""
    return [{"path": f"/{bucket}/", "bucket": bucket, "methods": METHODS}]


def lower_of(folder: Path, endpoint: str) -> dict[str, Any]:
    """Return the sections of a proxy with a folder of its own and this origin."""
    folder.mkdir()
    return {
        "origin": {"endpoint_url": endpoint},
        "cache": {"dir": str(folder / "cache")},
        "access_log": {"path": str(folder / "access.log")},
    }


async def test_each_object_is_fetched_once(start_tiers: StartTiers, s3: S3, relay: Relay) -> None:
    """S3 sends an object once, and Cache-Status lists the tiers, the one nearest to S3 first, also of a hit and a 304
    (single flight, RFC 9211 section 2).
    """
    s3.put("x", BODY)
    upper, lower = await start_tiers()
    first = await lower.get("/x")
    assert first.body == BODY
    assert first.headers.getall("Cache-Status") == [
        "bucketfront; fwd=miss; fwd-status=206; stored, bucketfront; fwd=miss; fwd-status=206; stored"
    ]
    for headers, status in (({}, 200), ({"Range": "bytes=7-9"}, 206), ({"If-None-Match": first.headers["ETag"]}, 304)):
        for _ in range(3):  # the last ones are of the fast path
            again = await lower.get("/x", **{name.replace("-", "_"): value for name, value in headers.items()})
            assert again.status == status
            assert again.headers["Cache-Status"] == (
                "bucketfront; fwd=miss; fwd-status=206; stored, bucketfront; hit; ttl=300"
            )
    assert (await upper.get(f"/{s3.bucket}/x")).headers["Cache-Status"] == "bucketfront; hit; ttl=300"
    assert len([seen for seen in relay.seen if seen.method == "GET"]) == 1


async def test_a_restart_keeps_what_the_upper_tier_said(
    start_tiers: StartTiers, start: StartProxy, s3: S3, tmp_path: Path
) -> None:
    """What Cache-Status says of the upper tier outlives a restart with the object."""
    s3.put("x", BODY)
    upper, lower = await start_tiers()
    await lower.get("/x")
    await lower.stop()
    sections = {
        "origin": {"endpoint_url": upper.address},
        "cache": {"dir": str(tmp_path / "lower" / "cache")},
    }
    again = await (await start(**sections)).get("/x")
    assert again.headers["Cache-Status"].startswith("bucketfront; fwd=miss; fwd-status=206; stored, bucketfront; ")


async def test_the_age_of_both_tiers_counts(start_tiers: StartTiers, s3: S3, clock: WallClock) -> None:
    """An object that the upper tier has had for 100 s is fresh for 100 s less in the lower one (bounded staleness)."""
    s3.put("x", BODY)
    upper, lower = await start_tiers()
    await upper.get(f"/{s3.bucket}/x")
    clock.advance(100)
    await upper.app.catch_up()  # its front ends learn what the clock shows
    first = await lower.get("/x")
    assert (first.headers["Age"], first.body) == ("100", BODY)
    assert (await lower.get("/x")).headers["Cache-Status"].endswith(", bucketfront; hit; ttl=200")
    clock.advance(250)
    await upper.app.catch_up()
    renewed = await lower.get("/x")
    assert renewed.headers["Cache-Status"].count("bucketfront; ") == 2
    assert renewed.body == BODY


async def test_absence_is_no_fault_of_a_tier(start_tiers: StartTiers) -> None:
    """A key without an object is a 404 through both tiers (fail closed, whose fault)."""
    _, lower = await start_tiers()
    response = await lower.get("/missing")
    assert (response.status, response.cache_status) == (404, "fwd=miss; fwd-status=404; stored")


async def test_writes_through_both(start_tiers: StartTiers, s3: S3) -> None:
    """A write through the lower tier is what both serve from then on (read your writes)."""
    s3.put("x", BODY)
    upper, lower = await start_tiers()
    for proxy, target in ((lower, "/x"), (upper, f"/{s3.bucket}/x")):
        assert (await proxy.get(target)).body == BODY
    written = await lower.request("PUT", "/x", body=b"new")
    assert written.status in (200, 201), written.body
    for proxy, target in ((lower, "/x"), (upper, f"/{s3.bucket}/x")):
        assert (await proxy.get(target)).body == b"new"
    assert (await lower.request("DELETE", "/x")).status == 204
    for proxy, target in ((lower, "/x"), (upper, f"/{s3.bucket}/x")):
        assert (await proxy.get(target)).status == 404


async def test_head_of_the_bucket(start_tiers: StartTiers, s3: S3, client_of: Callable[[OriginSettings], Any]) -> None:
    """A client of S3 finds the mount as a bucket, and no bucket where there is no mount (S3 API, HeadBucket)."""
    upper, _ = await start_tiers()
    credentials = StaticCredentials(access_key_id="a", secret_access_key=SecretStr("b"))
    client = client_of(OriginSettings(endpoint_url=upper.address, credentials=credentials))
    found = await asyncio.to_thread(client.head_bucket, Bucket=s3.bucket)
    assert found["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "us-east-1"
    with pytest.raises(ClientError) as raised:
        await asyncio.to_thread(client.head_bucket, Bucket="another")
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    browser = await upper.request("HEAD", f"/{s3.bucket}")
    assert browser.status == 308  # a client of HTTP goes to the mount


@pytest.mark.parametrize("length", [1, 2])
async def test_loops_end(start: StartProxy, s3: S3, tmp_path: Path, length: int) -> None:
    """A proxy that is its own origin, directly or through another, says so at once (RFC 9110 section 7.6.3)."""
    with held_port() as port:
        last = f"http://127.0.0.1:{port}"
    served = {"mounts": mounts_of(s3.bucket), "uploads": None}
    endpoint = last
    if length == 2:
        other = await start(**lower_of(tmp_path / "other", last), **served)
        endpoint = other.address
    proxy = await start(**lower_of(tmp_path / "first", endpoint), **served, server={"port": port})
    response = await proxy.get(f"/{s3.bucket}/x")
    assert response.status == 502, response.body
    found = [(line["status"], line["fault"]) for line in proxy.log]
    assert found[-1] == (502, "OriginRefused" if length == 1 else "OriginServerError")
    assert set(found[:-1]) == {(508, "LoopDetected")}
    assert len(found) == (2 if length == 1 else 4)  # the other proxy sends a 502, which is worth a retry


async def test_a_chain_has_an_end(proxy: Proxy, s3: S3) -> None:
    """A request that has passed eight proxies is refused, and other values of Via mean nothing."""
    s3.put("x", BODY)
    via = ", ".join(f"1.1 bucketfront-{number:016x}" for number in range(8))
    assert (await proxy.get("/x", Via=via)).status == 508
    assert (
        await proxy.get("/x", Via="1.0 fred, 1.1 bucketfront, HTTP/1.1 proxy.example.com:80 (bucketfront)")
    ).status == 200


async def test_s3_gets_no_via_of_clients(proxy: Proxy, s3: S3, relay: Relay) -> None:
    """S3 gets the names of bucketfronts, and no other values of Via that clients send."""
    s3.put("x", BODY)
    await proxy.get("/x", Via="1.1 secret.internal, 1.1 bucketfront-0123456789abcdef")
    (seen,) = relay.seen
    first, own = seen.headers["via"].split(", ")
    assert first == "1.1 bucketfront-0123456789abcdef"
    assert own.startswith("1.1 bucketfront-")
