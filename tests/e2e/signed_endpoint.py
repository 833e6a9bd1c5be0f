"""The S3 endpoint of bucketfront for programs that sign their requests, in front of SeaweedFS.

With `S3_CLIENTS=straight` in the environment the same tests run against SeaweedFS itself, which shows what a failure is
due to. Such a run writes no rows of docs/compatibility.md.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bucketfront_process import Running, bucketfront
from held_port import held_port
from site_under_test import BUCKET, MOUNTS, Origin

from bucketfront.config.settings import Settings

IS_STRAIGHT = os.environ.get("S3_CLIENTS") == "straight"
REGION = "us-east-1"
ACCESS_KEY = "app"
SECRET_KEY = "app-secret-of-forty-characters-0123456789"

_SECTION = """
s3:
  host: 127.0.0.1
  port: {port}
  keys: [{{id: {access_key}, secret: {secret_key}, buckets: [{bucket}], write: true}}]
"""


@dataclass(frozen=True, slots=True)
class SignedEndpoint:
    """What a client of S3 is given: an URL without a slash at the end, and a key. `running` has the processes."""

    url: str
    access_key: str
    secret_key: str
    running: Running

    @property
    def host(self) -> str:
        """Return host and port."""
        return self.url.removeprefix("http://")

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that tell AWS's SDKs all of this."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def has_endpoint() -> bool:
    """Return whether this version of bucketfront has an S3 endpoint."""
    return "s3" in Settings.model_fields


@contextlib.contextmanager
def signed_endpoint(origin: Origin, folder: Path, more: str = "") -> Iterator[SignedEndpoint]:
    """Run a bucketfront with an S3 endpoint, and `more` lines of its section. With `IS_STRAIGHT`, return the origin."""
    if IS_STRAIGHT:
        server = origin.server
        running = Running(server.endpoint_url, "", server.pid, folder / "none")
        yield SignedEndpoint(server.endpoint_url, server.access_key, server.secret_key, running)
        return
    with held_port() as port:
        named = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "bucket": BUCKET}
        section = _SECTION.format(port=port, **named) + more
        with bucketfront(origin.configuration(folder, MOUNTS + section), folder) as running:
            yield SignedEndpoint(f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY, running)
            assert "Traceback" not in running.printed(), running.printed()
