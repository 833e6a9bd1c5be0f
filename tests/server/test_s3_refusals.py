"""What the S3 endpoint responds to signatures that do not hold, as S3 responds to them. Nothing is stored then."""

import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from held_port import held_port
from proxy_under_test import S3, StartProxy, WallClock
from rows import each_row
from s3_refusals import BODY, KEY, OF_READS, OF_WRITES, Place, Row
from s3_signer import Signer
from wire import Response, fetch

from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.config.settings import Settings

has_endpoint = pytest.mark.skipif("s3" not in Settings.model_fields, reason="this version has no S3 endpoint")

SECRET = "app-secret-of-forty-characters-0123456789"


@pytest.fixture
async def place(start: StartProxy, s3: S3, clock: WallClock) -> AsyncIterator[Place]:
    """Return an endpoint with a key that may do all with the bucket."""
    with held_port() as port:
        key = {"id": "app", "secret": SECRET, "buckets": [s3.bucket], "write": True}
        await start(s3={"port": port, "keys": [key]})
        yield Place(f"http://127.0.0.1:{port}", s3.bucket, Signer("app", SECRET, clock))


async def sent(place: Place, row: Row) -> Response:
    request = row.made(place)
    return await fetch(place.url, request.target, method=request.method, headers=request.fields, body=request.body)


def outcome(response: Response) -> tuple[int, str]:
    """Return status and code. Each error is S3's document, with the id of the request in it and in a field."""
    if response.status < 300:
        return response.status, ""
    root = ET.fromstring(response.body)
    assert root.tag == "Error"
    assert root.findtext("RequestId") == response.headers["x-amz-request-id"]
    assert root.findtext("Message")
    return response.status, root.findtext("Code") or ""


@has_endpoint
@each_row("row", OF_READS, ids=lambda row: row.what)
async def test_reads(place: Place, s3: S3, row: Row) -> None:
    """A request whose signature does not hold reads nothing, and its error is the one of S3 (I8)."""
    s3.put(KEY, BODY)
    response = await sent(place, row)
    assert outcome(response) == row.wanted
    assert (response.body == BODY) == (response.status == 200)
    assert s3.get(KEY) == BODY


@has_endpoint
@each_row("row", OF_WRITES, ids=lambda row: row.what)
async def test_writes(place: Place, s3: S3, row: Row) -> None:
    """A body that is not the signed one is stored nowhere, and its error is the one of S3."""
    s3.put("written", b"before")
    assert outcome(await sent(place, row)) == row.wanted
    assert s3.get("written") == (BODY if row.wanted[0] == 200 else b"before")
    assert s3.unfinished == 0


@has_endpoint
@each_row("row", [row for row in OF_READS if row.wanted[0] != 200], ids=lambda row: row.what)
async def test_heads(place: Place, s3: S3, row: Row) -> None:
    """The error of a HEAD has the status, and no body."""
    request = row.made(place)
    if request.method == "GET":
        response = await fetch(place.url, request.target, method="HEAD", headers=request.fields)
        assert response.status in (row.wanted[0], 403)
        assert response.body == b""


# --- the table itself ----------------------------------------------------------------------------------------


@pytest.mark.e2e
@each_row("row", [row for row in (*OF_READS, *OF_WRITES) if row.as_seaweed], ids=lambda row: row.what)
async def test_seaweed(
    seaweed: OriginSettings,
    client_of: Callable[[OriginSettings], Any],
    bucket_of: Callable[[OriginSettings], str],
    row: Row,
) -> None:
    """The requests are what they are called: another program that verifies signatures responds the same."""
    assert isinstance(seaweed.credentials, StaticCredentials)
    assert seaweed.endpoint_url is not None
    keys = [
        secret.get_secret_value()
        for secret in (seaweed.credentials.access_key_id, seaweed.credentials.secret_access_key)
    ]
    s3 = S3(client_of(seaweed), bucket_of(seaweed))
    s3.put(KEY, BODY)
    s3.put("written", b"before")
    response = await sent(Place(seaweed.endpoint_url, s3.bucket, Signer(keys[0], keys[1], time.time)), row)
    assert outcome(response) == row.wanted
    assert s3.get("written") == (BODY if row in OF_WRITES and response.status == 200 else b"before")
