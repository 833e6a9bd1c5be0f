"""Tiers that speak S3: the origin of one bucketfront is the S3 endpoint of another (docs/fleet.md#tiers)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, WallClock, pattern
from relay import Relay
from s3_clients import SECRET, Client, endpoint

Lower = Callable[..., dict[str, Any]]


@pytest.fixture
def clock() -> WallClock:
    """The clock of both tiers, behind which the SDK's is, because a signature has a time."""
    clock = WallClock()
    clock.jump(-3600)
    return clock


@pytest.fixture
async def upper(start: StartProxy) -> Proxy:
    return await start(**endpoint())


@pytest.fixture
def lower_of(upper: Proxy, tmp_path: Path) -> Lower:
    """Return the sections of a lower tier, which signs with a key of the upper one."""

    def sections(secret: str = SECRET) -> dict[str, Any]:
        assert upper.app.s3 is not None
        folder = tmp_path / "lower"
        folder.mkdir()
        return {
            "origin": {
                "endpoint_url": upper.app.s3.listener.address,
                "addressing_style": "path",
                "credentials": {"access_key_id": "app", "secret_access_key": secret},
            },
            "cache": {"dir": str(folder / "cache")},
            "access_log": {"path": str(folder / "access.log")},
            **endpoint(),
        }

    return sections


async def test_reads_through_both(
    upper: Proxy, lower_of: Lower, start: StartProxy, s3: S3, relay: Relay, clock: WallClock
) -> None:
    """S3 sends each byte once, `Cache-Status` lists both tiers, and a confirmation crosses both (single flight)."""
    body = pattern(2 * PART + 1)
    s3.put("x", body)
    lower = await start(**lower_of())
    cold = await lower.get("/x", Range=f"bytes={BLOCK}-{BLOCK + 9}")
    assert (cold.status, cold.body) == (206, body[BLOCK : BLOCK + 10])
    assert cold.headers["Cache-Status"].count("bucketfront; fwd=miss") == 2
    assert (await lower.get("/x")).body == await Client(lower, s3.bucket).read("x") == body
    fetched = [seen.range for seen in relay.seen if seen.method == "GET"]
    assert len(fetched) == len(set(fetched))
    assert (await lower.get("/missing")).status == 404
    clock.advance(400)  # longer than the lifetime, shorter than the skew of a signature
    again = await lower.get("/x")
    assert (again.body, "fwd=stale; fwd-status=304" in again.headers["Cache-Status"]) == (body, True)
    assert len([seen for seen in relay.seen if seen.status in (200, 206)]) == len(fetched)


async def test_writes_through_both(lower_of: Lower, upper: Proxy, start: StartProxy, s3: S3) -> None:
    """What any client of either tier's listeners writes below is what both serve next (read your writes)."""
    lower = await start(**lower_of())
    client = Client(lower, s3.bucket)
    await client.call("put_object", "x", Body=b"by S3", Metadata={"a": "b"})
    await lower.request("PUT", "/y", {"Content-Type": "text/plain"}, b"by HTTP")
    upload = (await client.call("create_multipart_upload", "z"))["UploadId"]
    part = await client.call("upload_part", "z", UploadId=upload, PartNumber=1, Body=b"in parts")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    await client.call("complete_multipart_upload", "z", UploadId=upload, MultipartUpload=parts)
    for key, body in (("x", b"by S3"), ("y", b"by HTTP"), ("z", b"in parts")):
        assert s3.get(key) == (await lower.get(f"/{key}")).body == (await upper.get(f"/{key}")).body == body
    listed = await client.call("list_objects_v2")
    assert [item["Key"] for item in listed["Contents"]] == ["x", "y", "z"]
    await client.call("delete_objects", Delete={"Objects": [{"Key": key} for key in "xyz"]})
    assert [(await proxy.get("/x")).status for proxy in (lower, upper)] == [404, 404]
    assert s3.keys() == []


async def test_a_key_that_the_upper_tier_refuses(lower_of: Lower, start: StartProxy, s3: S3) -> None:
    """A secret that the upper tier does not have is a fault of the lower one, and no 403 of its clients."""
    s3.put("x", b"data")
    lower = await start(**lower_of("another-secret-of-16"))
    assert (await lower.get("/x")).status in (502, 503)
    status, code = await Client(lower, s3.bucket).refusal("get_object", "x")
    assert (status, code) in {(502, "ServiceUnavailable"), (503, "ServiceUnavailable")}
