"""The text of docs/compatibility.md: the clients of others in front of bucketfront, and what became of each.

No I/O here. The last run of a test counts: a run of some tests leaves the rows of the others.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

PASSED, FAILED, NOT_RUN = "works", "failed", "not run"
GROUPS = {
    "players": "Players in a browser",
    "media_tools": "Media tools",
    "download_tools": "Download tools",
    "package_tools": "Package managers and git",
    "data_readers": "Data readers",
    "sdks": "SDKs, at the HTTP listener",
    "s3_boto3": "boto3, at the S3 endpoint",
    "s3_sdks": "Other SDKs, at the S3 endpoint",
    "s3_tools": "Tools, at the S3 endpoint",
    "s3_tables": "Tables and file systems, at the S3 endpoint",
    "upload_clients": "Uploads",
    "edges": "Edges",
    "fleet_fronts": "Fleets behind HAProxy, nginx and Envoy",
    "fleet_nodes": "Nodes of a fleet: loss, and rolling upgrades",
    "fronts": "Fronts of TCP, and Unix sockets",
    "deployment": "Deployment",
    "deploy_files": "Files of deploy/",
    "guides": "Guides",
    "fronts_security": "Attacks through fronts",
    "foreign_page": "Pages of other sites",
    "slow_attacks": "Slow clients",
    "admin_schema": "The admin port",
    "dashboard": "The dashboard",
}
"""The test modules `test_….py` of tests/e2e in the order of the page, and their headings."""

_HEAD = """\
# Clients

Real programs in front of, behind and on top of bucketfront. `make e2e` runs them and writes this page; do not edit it.
Each one drives a running bucketfront in front of SeaweedFS, with a log of the origin's requests between them, and is
judged by the bytes, by what the origin had to send, and by what it prints. The last run of each test counts.

S3 servers of others, behind bucketfront, are in [s3-servers.md](s3-servers.md).
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One test of one client. `requests` and `sent` (bytes) are the origin's, -1 if they were not counted.

    `reason` is why it did not run. `limit` is what the client cannot do, and why.
    """

    group: str
    client: str
    version: str
    what: str
    outcome: str
    date: str
    reason: str = ""
    limit: str = ""
    requests: int = -1
    sent: int = -1


def loaded(text: str) -> dict[str, Row]:
    return {node: Row(**fields) for node, fields in json.loads(text).items()}


def dumped(rows: Mapping[str, Row]) -> str:
    return json.dumps({node: asdict(row) for node, row in sorted(rows.items())}, indent=1, ensure_ascii=False) + "\n"


def page(rows: Iterable[Row]) -> str:
    """Return the page. Its first part is what does not work."""
    every = list(rows)
    lines = [_HEAD, "## What does not work", ""]
    lines += sorted({f"- {row.client}: {row.limit}" for row in every if row.limit}) or ["Nothing that was tried."]
    lines += [
        f"- {row.client}, {row.what}: {row.outcome}{f' ({row.reason})' if row.reason else ''}"
        for row in every
        if row.outcome != PASSED
    ]
    for group, title in GROUPS.items():
        found = sorted((row for row in every if row.group == group), key=lambda row: (row.client.lower(), row.what))
        if found:
            lines += ["", f"## {title}", "", *_table(found)]
    return "\n".join(lines) + "\n"


def _table(rows: Iterable[Row]) -> Iterable[str]:
    yield "| client | version | what was done | result | origin requests | origin bytes | date |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        counts = [f"{count:,}" if count >= 0 else "" for count in (row.requests, row.sent)]
        cells = (row.client, row.version, row.what, row.outcome, *counts, row.date)
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
