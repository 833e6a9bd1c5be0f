"""Check what the proxy needs before it can serve: configuration, cache folder, buckets. For `bucketfront check`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from bucketfront.config.settings import Settings
from bucketfront.errors import AccessDenied, NoSuchBucket, OriginError, OriginTimeout
from bucketfront.s3.client import S3Origin


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. `message` has the fix if the check failed."""

    subject: str
    is_fine: bool
    message: str


async def run_checks(settings: Settings) -> list[CheckResult]:
    """Return the results of all checks. An embedded S3 is not checked, because it starts with the proxy."""
    results = [
        CheckResult("configuration", is_fine=True, message=f"{len(settings.mounts)} mounts"),
        _disk(settings),
    ]
    if settings.origin.endpoint_url == "embedded":
        results.append(CheckResult("origin", is_fine=True, message="embedded: starts and ends with the proxy"))
        return results
    try:
        async with S3Origin(settings.origin) as origin:
            results.append(CheckResult("origin", is_fine=True, message=str(origin.endpoint)))
            is_made = settings.origin.create_bucket
            buckets = sorted({mount.bucket for mount in settings.mounts})
            results += [await _bucket(origin, bucket, is_made=is_made) for bucket in buckets]
    except OriginError as error:
        results.append(CheckResult("origin", is_fine=False, message=str(error)))
    return results


async def _bucket(origin: S3Origin, bucket: str, *, is_made: bool) -> CheckResult:
    """Probe a bucket. `is_made`: the proxy makes a missing bucket at its start."""
    subject = f"bucket {bucket}"
    try:
        await origin.probe(bucket)
    except NoSuchBucket:
        if is_made:
            return CheckResult(subject, is_fine=True, message="will be made")
        return CheckResult(subject, is_fine=False, message="does not exist; make it, or set origin.create_bucket: true")
    except AccessDenied:
        return CheckResult(
            subject,
            is_fine=False,
            message="access denied; check origin.credentials and the bucket's policy (s3:GetObject)",
        )
    except OriginTimeout as error:
        return CheckResult(subject, is_fine=False, message=f"{error}; check origin.endpoint_url and the network")
    except OriginError as error:
        return CheckResult(subject, is_fine=False, message=f"{error}; check origin.endpoint_url and origin.region")
    return CheckResult(subject, is_fine=True, message="reachable, credentials accepted")


def _disk(settings: Settings) -> CheckResult:
    folder = settings.cache.dir
    subject = f"cache folder {folder}"
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        fix = "make it writable for this user, or set cache.dir to a folder that is"
        return CheckResult(subject, is_fine=False, message=f"{error.strerror}; {fix}")
    return CheckResult(subject, is_fine=True, message="writable" if place == folder else "will be made")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return folder if folder.exists() else _existing(folder.parent)
