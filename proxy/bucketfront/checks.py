"""`bucketfront check`: what has to be right before the proxy can work, each with its cure."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from bucketfront.config.settings import Settings
from bucketfront.errors import AccessDenied, ObjectNotFound, OriginError, OriginTimeout
from bucketfront.s3.client import S3Origin


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    is_fine: bool
    finding: str


async def run_checks(settings: Settings) -> list[Finding]:
    findings = [
        Finding("configuration", is_fine=True, finding=f"{len(settings.mounts)} mounts"),
        _disk(settings),
    ]
    if settings.origin.endpoint_url == "embedded":
        findings.append(Finding("origin", is_fine=True, finding="embedded: starts and ends with the proxy"))
        return findings
    try:
        async with S3Origin(settings.origin) as origin:
            findings += [await _bucket(origin, bucket) for bucket in sorted({m.bucket for m in settings.mounts})]
    except OriginError as error:
        findings.append(Finding("origin", is_fine=False, finding=str(error)))
    return findings


async def _bucket(origin: S3Origin, bucket: str) -> Finding:
    what = f"bucket {bucket}"
    try:
        await origin.probe(bucket)
    except ObjectNotFound:
        return Finding(what, is_fine=False, finding="does not exist; make it, or set origin.create_bucket: true")
    except AccessDenied:
        return Finding(
            what,
            is_fine=False,
            finding="access denied; check origin.credentials and the bucket's policy (s3:GetObject)",
        )
    except OriginTimeout as error:
        return Finding(what, is_fine=False, finding=f"{error}; check origin.endpoint_url and the network")
    except OriginError as error:
        return Finding(what, is_fine=False, finding=f"{error}; check origin.endpoint_url and origin.region")
    return Finding(what, is_fine=True, finding="reachable, credentials accepted")


def _disk(settings: Settings) -> Finding:
    folder = settings.cache.dir
    what = f"cache folder {folder}"
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        cure = "make it writable for this user, or set cache.dir to a folder that is"
        return Finding(what, is_fine=False, finding=f"{error.strerror}; {cure}")
    return Finding(what, is_fine=True, finding="writable" if place == folder else "will be made")


def _existing(folder: Path) -> Path:
    """The nearest place above that is there."""
    folder = folder.absolute()
    return folder if folder.exists() else _existing(folder.parent)
