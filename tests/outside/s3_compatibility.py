"""bucketfront in front of one S3 server of others: what the probes find, and a history of random requests."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from bucketfront_process import bucketfront
from s3_history import History, Outcome
from s3_probes import PROBES, tried
from s3_servers import Endpoint, Server
from s3_wire import REGION, Objects

ROOT = Path(__file__).parents[2]
STEPS = 120
SEED = 13
BUCKET, DIRECT_BUCKET = "compatibility", "directly"

# A lifetime of 0, so that each read is compared with what the server has at that time.
CONFIG = """\
server: {{port: 0}}
admin: {{port: 0}}
origin:
  endpoint_url: {endpoint}
  addressing_style: path
  credentials: {{access_key_id: {access_key}, secret_access_key: {secret_key}}}
mounts:
  - {{path: /, bucket: {bucket}, methods: [GET, HEAD, PUT, DELETE]}}
freshness: {{default_ttl: 0, negative_ttl: 0, stale_while_revalidate: 0, stale_if_error: 0}}
cache: {{dir: {folder}/cache, min_free: 0}}
access_log: {{path: {folder}/access.log}}
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found at the server itself, and through bucketfront."""

    what: str
    at_bucketfront: str
    at_server: str


@dataclass(frozen=True, slots=True)
class Report:
    server: Server
    findings: list[Finding]
    outcome: Outcome
    warnings: list[str]


def examine(server: Server, folder: Path, steps: int = STEPS) -> Report:
    """Start the server and bucketfront in an empty folder, and end both. Raises installs.NotInstallable."""
    (folder / "server").mkdir()
    with server.run(folder / "server") as endpoint:
        for bucket in (BUCKET, DIRECT_BUCKET):
            _create(endpoint, bucket)
        with bucketfront(_configuration(endpoint, folder), folder) as running:
            proxy, direct = Objects(running.url), Objects(f"{endpoint.url}/{DIRECT_BUCKET}", endpoint)
            # The probes come second, and first through bucketfront, because an odd key ends one of the servers.
            outcome = History(proxy, Objects(f"{endpoint.url}/{BUCKET}", endpoint), SEED).run(steps)
            findings = [Finding(probe.what, tried(probe, proxy), tried(probe, direct)) for probe in PROBES]
        return Report(server, findings, outcome, _warnings(folder))


def _configuration(endpoint: Endpoint, folder: Path) -> str:
    return CONFIG.format(
        endpoint=endpoint.url,
        access_key=endpoint.access_key,
        secret_key=endpoint.secret_key,
        bucket=BUCKET,
        folder=folder,
    )


def _create(endpoint: Endpoint, bucket: str) -> None:
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint.url,
        region_name=REGION,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    with contextlib.closing(client):
        client.create_bucket(Bucket=bucket)


def _warnings(folder: Path) -> list[str]:
    """Return the kinds of warnings that bucketfront printed: the logger and the start of the message."""
    lines = (folder / "stderr").read_text(errors="replace").splitlines()
    return sorted({found[1] for line in lines if (found := re.search(r" (?:WARNING|ERROR) (.*)", line))})
