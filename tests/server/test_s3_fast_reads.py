"""Signed reads of whole, fresh objects are served without aiohttp, with the responses of the ordinary path."""

import re
from pathlib import Path
from typing import Any

import pytest
from proxy_under_test import S3, Proxy, StartProxy, WallClock, pattern
from rows import each_row
from s3_clients import SECRET, Client, endpoint, signed_fields
from wire import Response, fetch

from bucketfront.config.secret_file import SecretFile
from bucketfront.server.access import watched_file

SIZE = 100_000
# Of each response: the time, and the id.
VARYING = {"age", "date", "x-request-id", "x-amz-request-id", "cache-status"}


@pytest.fixture
def clock() -> WallClock:
    """The clock of the client as well, because a signature has a time."""
    clock = WallClock()
    clock.jump(-3600)
    return clock


def served(proxy: Proxy) -> int:
    """Return how many responses the fast path has served."""
    assert proxy.app.s3 is not None
    return proxy.app.s3.generations.fast_path.served


async def send(proxy: Proxy, target: str, method: str = "GET", key_id: str = "app", **headers: str) -> Response:
    assert proxy.app.s3 is not None
    address = proxy.app.s3.listener.address
    fields = signed_fields(method, f"{address}{target}", key_id, **headers)
    return await fetch(address, target, method=method, headers=fields)


def comparable(response: Response) -> tuple[int, dict[str, str], bytes]:
    fields = {name.lower(): value for name, value in response.headers.items() if name.lower() not in VARYING}
    return response.status, fields, re.sub(rb"<RequestId>[^<]*", b"", response.body)


ROWS: list[tuple[str, str, dict[str, str], bool]] = [
    ("GET", "", {}, True),
    ("HEAD", "", {}, True),
    ("GET", "", {"Range": "bytes=10-19"}, True),
    ("GET", "", {"Range": "bytes=-5"}, True),
    ("GET", "", {"Range": "bytes=99999999-"}, False),
    ("GET", "", {"Range": "bytes=0-1,5-6"}, False),
    ("GET", "", {"If_None_Match": "ETAG"}, True),
    ("HEAD", "", {"If_None_Match": "ETAG"}, True),
    ("GET", "", {"If_None_Match": '"other"'}, True),
    ("GET", "", {"If_Match": '"other"'}, False),
    ("GET", "", {"x_amz_checksum_mode": "ENABLED"}, True),
    ("HEAD", "", {"x_amz_checksum_mode": "ENABLED"}, True),
    ("GET", "", {"x_amz_checksum_mode": "ENABLED", "Range": "bytes=0-9"}, True),
    ("GET", "", {"x_request_id": "of-the-client"}, True),
    ("GET", "", {"Origin": "https://page.example"}, True),
    ("GET", "?response-content-type=text%2Fx-test", {}, True),
    ("GET", "?response-content-type=a&response-content-type=b", {}, False),
    ("GET", "?x-id=GetObject", {}, True),
    ("GET", "?partNumber=1", {}, False),
    ("GET", "?acl", {}, False),
    ("DELETE", "?acl", {}, False),
]


@each_row("method, query, headers, is_plain", ROWS)
async def test_both_paths_agree(
    method: str, query: str, headers: dict[str, str], is_plain: bool, start: StartProxy, s3: S3
) -> None:
    """A response is the same whichever path serves it, and plain reads are served by the fast one."""
    etag = s3.put("a/b c", pattern(SIZE), Metadata={"colour": "blue"}, ChecksumAlgorithm="CRC32")
    headers = {name: value.replace("ETAG", etag) for name, value in headers.items()}
    found = []
    for is_fast in (True, False):
        proxy = await start(**endpoint(), server={"fast_path": is_fast})
        assert (await send(proxy, f"/{s3.bucket}/a/b%20c")).body == pattern(SIZE)
        await proxy.settled()
        before = served(proxy)
        found.append(comparable(await send(proxy, f"/{s3.bucket}/a/b%20c{query}", method, **headers)))
        assert served(proxy) - before == (is_fast and is_plain)
        await proxy.stop()
    assert found[0] == found[1]


async def test_each_request_is_verified(start: StartProxy, s3: S3, clock: WallClock) -> None:
    """A head that was served before is refused once its time is over, and so is another one with its signature."""
    proxy = await start(**endpoint())
    assert proxy.app.s3 is not None
    s3.put("a", b"data")
    s3.put("b", b"other")
    address = proxy.app.s3.listener.address
    fields = signed_fields("GET", f"{address}/{s3.bucket}/a")
    for target in ("a", "b"):
        await send(proxy, f"/{s3.bucket}/{target}")
    before = served(proxy)
    assert (await fetch(address, f"/{s3.bucket}/a", headers=fields)).body == b"data"
    assert served(proxy) == before + 1
    moved = await fetch(address, f"/{s3.bucket}/b", headers=fields)
    assert (moved.status, b"SignatureDoesNotMatch" in moved.body) == (403, True)
    clock.jump(901)
    late = await fetch(address, f"/{s3.bucket}/a", headers=fields)
    assert (late.status, b"RequestTimeTooSkewed" in late.body) == (403, True)
    assert served(proxy) == before + 1


async def test_grants_hold(start: StartProxy, s3: S3) -> None:
    """What one key has read, and what is prepared for it, another key without the permission does not get."""
    keys = [
        {"id": "app", "secret": SECRET, "buckets": ["*"]},
        {"id": "below", "secret": SECRET, "buckets": ["*"], "prefix": "pub/"},
    ]
    proxy = await start(**endpoint(keys=keys))
    s3.put("a", b"data")
    for _ in range(2):
        assert (await send(proxy, f"/{s3.bucket}/a")).body == b"data"
        assert (await send(proxy, f"/{s3.bucket}/a", key_id="below")).status == 403
    assert served(proxy) == 1


async def test_a_write_ends_what_is_prepared(start: StartProxy, s3: S3) -> None:
    """After a write through either side, the next signed read has the new version (I5)."""
    proxy = await start(**endpoint())
    client = Client(proxy, s3.bucket)
    target = f"/{s3.bucket}/a"
    await client.call("put_object", "a", Body=b"first")
    assert (await send(proxy, target)).body == b"first"
    await proxy.request("PUT", "/a", {}, b"second")
    assert (await send(proxy, target)).body == b"second"
    await client.call("put_object", "a", Body=b"third")
    assert (await send(proxy, target)).body == b"third"
    assert served(proxy)


async def test_a_secret_that_changed(
    start: StartProxy, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the file of a secret has changed, signatures by the old one are refused."""
    monkeypatch.setattr(watched_file, "CHECK_INTERVAL_S", 0.0)  # in place of two seconds
    file = tmp_path / "secret"
    file.write_text(SECRET)
    keys: list[dict[str, Any]] = [{"id": "app", "secret": SecretFile.read(file), "buckets": ["*"]}]
    proxy = await start(**endpoint(keys=keys))
    s3.put("a", b"data")
    for _ in range(2):
        assert (await send(proxy, f"/{s3.bucket}/a")).status == 200
    file.write_text("another-secret-of-the-app")
    assert (await send(proxy, f"/{s3.bucket}/a")).status == 403
