"""Check that S3 allows what the mounts are for: reading, and writing where a mount takes writes."""

import random
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

from bucketfront.checks.result import CheckResult, CheckVerdict, failed, fine, warning
from bucketfront.config.mount_settings import MountSettings
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.config.settings import Settings
from bucketfront.errors import AccessDenied, NoSuchBucket, OriginError
from bucketfront.http.write_head import NoSuchWrite, WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.breaker import Breaker
from bucketfront.s3.bucket_probe import (
    DeleteAccess,
    ReadAccess,
    clue,
    is_readable,
    probe_delete,
    probe_multipart,
    probe_read,
)
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.conditions import WriteStep, keeps_conditions, keeps_if_match, require

_CHECK_ENDPOINT = "Check origin.endpoint_url"
_ACCESS = {
    ReadAccess.GRANTED: "reachable, s3:GetObject is allowed",
    ReadAccess.GRANTED_UNLISTED: "reachable, s3:GetObject is allowed. Without s3:ListBucket, absent objects get 403",
    ReadAccess.DENIED: "reachable, s3:GetObject is denied, and no mount takes GET",
    ReadAccess.UNKNOWN: (
        "reachable, credentials accepted. S3 denies a list and an absent object, so whether s3:GetObject is allowed"
        " does not show, and absent objects get 403. With s3:ListBucket they get 404"
    ),
}
_WRITES = frozenset({"PUT", "POST"})
CLOCK_TOLERANCE_S = 900  # S3 refuses a signature that is 15 minutes off


@dataclass(frozen=True, slots=True)
class CheckTarget:
    """What one or several mounts do with the keys of a prefix. `documents` are the objects of their sites."""

    bucket: str
    prefix: str
    reads: bool
    writes: bool
    deletes: bool
    is_write_once: bool
    documents: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.bucket}/{self.prefix}" if self.prefix else self.bucket


async def check_buckets(settings: Settings, origin: S3Origin) -> AsyncIterator[CheckResult]:
    """Yield the results for each bucket and prefix of the mounts, the writes of a bucket after its reads."""
    for target in _targets(settings):
        # The failures of one target must not open the breaker for the next one, whose own reason is wanted.
        origin.breaker = Breaker(time.monotonic, random.random)
        result = await _reads(origin, target, is_made=settings.origin.create_bucket)
        yield _with_terms(result, settings.origin)
        if not result.is_fine or result.message == WILL_BE_MADE:
            continue
        writes = await _writes(origin, target) if target.writes else None
        deletes = await _deletes(origin, target) if target.deletes else None
        results = [result for result in (writes, deletes) if result is not None]
        if writes is not None and writes.is_fine:
            # A server that ignores a condition stores an object, which has to be deleted again.
            may_store = deletes is not None and deletes.verdict is CheckVerdict.FINE
            results.append(await _conditions(origin, target, may_store=may_store))
        for result in results:
            yield result
    if skew := origin.signing_clock.skew:
        yield warning("clock", f"{_clock(-skew)}, and requests are signed with the origin's time: set the clock (NTP)")


def _with_terms(result: CheckResult, origin: OriginSettings) -> CheckResult:
    """Add which setting may be the reason why S3 denies access. S3 names neither of them."""
    if result.verdict is CheckVerdict.FINE or "s3:" not in result.message:
        return result
    if origin.expected_bucket_owner is not None:
        hint = "S3 denies access as well if the bucket is not of the account origin.expected_bucket_owner"
    elif not origin.request_payer:
        hint = "S3 denies access as well if the bucket makes the requester pay, see origin.request_payer"
    else:
        return result
    return replace(result, message=f"{result.message}. {hint}")


def _targets(settings: Settings) -> Iterator[CheckTarget]:
    """Yield each pair of bucket and prefix once."""
    upload_path = None if settings.uploads is None else settings.uploads.mount
    found: dict[tuple[str, str], list[MountSettings]] = {}
    for mount in settings.mounts:
        found.setdefault((mount.bucket, mount.prefix), []).append(mount)
    for (bucket, prefix), mounts in found.items():
        methods = {method for mount in mounts for method in mount.methods}
        sites = [mount.site for mount in mounts if mount.site is not None]
        names = [name for site in sites for name in (site.index, site.fallback, *site.errors.values()) if name]
        yield CheckTarget(
            bucket,
            prefix,
            reads="GET" in methods,
            writes=bool(methods & _WRITES) or any(mount.path == upload_path for mount in mounts),
            deletes="DELETE" in methods,
            is_write_once=any(mount.write_once for mount in mounts),
            documents=tuple(dict.fromkeys(names)),
        )


WILL_BE_MADE = "does not exist, and the start will make it"


async def _reads(origin: S3Origin, target: CheckTarget, *, is_made: bool) -> CheckResult:
    subject, name = "bucket", target.name
    try:
        access = await probe_read(origin, target.bucket, target.prefix)
        if access is ReadAccess.UNKNOWN:
            access = await _with_documents(origin, target)
    except NoSuchBucket as error:
        return fine(subject, WILL_BE_MADE, name) if is_made else failed(subject, str(error), name)
    except OriginError as error:
        return failed(subject, explained(error), name)
    if access is ReadAccess.NOT_S3:
        where = origin.endpoint.url
        return failed(subject, f"an object came for a key that none has: {where} is no S3. {_CHECK_ENDPOINT}", name)
    if access is ReadAccess.DENIED and target.reads:
        return failed(subject, f"{_missing('s3:GetObject')}, for {name}{'' if target.prefix else '/'}*", name)
    return (warning if access is ReadAccess.UNKNOWN else fine)(subject, _ACCESS[access], name)


async def _with_documents(origin: S3Origin, target: CheckTarget) -> ReadAccess:
    """Return whether one of the site's objects can be read, which a list could not show."""
    for document in target.documents:
        if await is_readable(origin, ObjectKey(target.bucket, target.prefix + document)):
            return ReadAccess.GRANTED_UNLISTED
    return ReadAccess.UNKNOWN


async def _writes(origin: S3Origin, target: CheckTarget) -> CheckResult:
    subject, name = "writes", target.name
    try:
        upload = await probe_multipart(origin, target.bucket, target.prefix)
    except OriginError as error:
        return failed(subject, _denied(error, "s3:PutObject"), name)
    try:
        await upload.abort()
    except OriginError as error:
        left = f"uploads that fail stay at S3, as now an empty one of {upload.key}"
        return warning(subject, f"{_denied(error, 's3:AbortMultipartUpload')}; {left}", name)
    return fine(subject, "s3:PutObject and s3:AbortMultipartUpload are allowed", name)


async def _conditions(origin: S3Origin, target: CheckTarget, *, may_store: bool) -> CheckResult:
    """Try writes whose condition is false, which S3 must refuse. At AWS's own endpoints it is known that it does.

    Without `may_store` or write_once, only a PutObject with If-Match is tried. S3 stores nothing for it.
    """
    subject, name = "conditions", target.name
    key, tried = ObjectKey(target.bucket, target.prefix), "If-Match"
    try:
        if target.is_write_once:
            for step in WriteStep:
                await require(origin, key, WriteHead(only_if_absent=True), step)
        if target.is_write_once or may_store:
            tried = "If-Match and If-None-Match"
            is_kept = await keeps_conditions(origin, target.bucket, target.prefix)
        else:
            is_kept = await keeps_if_match(origin, key)
    except NoSuchWrite as error:
        cure = "write_once refuses uploads with 501: leave it out, or use another S3"
        return failed(subject, f"{error}, so that {cure}", name)
    except OriginError as error:
        # Writes without a condition work. A condition takes s3:GetObject as well.
        kind = failed if target.is_write_once else warning
        return kind(subject, _denied(error, "s3:PutObject"), name)
    if is_kept:
        return fine(subject, f"{tried} of writes {'is' if tried == 'If-Match' else 'are'} kept", name)
    return warning(
        subject, "the origin does not keep If-Match or If-None-Match of each write, so that such writes get 501", name
    )


async def _deletes(origin: S3Origin, target: CheckTarget) -> CheckResult:
    subject, name = "deletes", target.name
    try:
        access = await probe_delete(origin, target.bucket, target.prefix)
    except OriginError as error:
        return failed(subject, _denied(error, "s3:DeleteObject"), name)
    if access is DeleteAccess.UNKNOWN:
        return warning(subject, "s3:DeleteObject is not tried, because it might leave a delete marker", name)
    return fine(subject, "s3:DeleteObject is allowed", name)


def _denied(error: OriginError, action: str) -> str:
    return _missing(clue(error).action or action) if isinstance(error, AccessDenied) else explained(error)


def _missing(action: str) -> str:
    return f"access denied: the permission {action} is missing in the policies of the bucket or of origin.credentials"


def explained(error: OriginError) -> str:
    """Return the message of an error, with what its response shows beyond S3's code."""
    found, message = clue(error), str(error)
    if found.is_page:
        page = "an HTML page came, so this is no S3 but a console, a load balancer or a login page"
        return f"{message}: {page}. {_CHECK_ENDPOINT}"
    if error.response is None and "origin." not in message:
        message = f"{message}; check origin.endpoint_url and the network"
    if found.endpoint:
        message = f"{message}; its endpoint is {found.endpoint}"
    if found.clock_ahead is not None and abs(found.clock_ahead) > CLOCK_TOLERANCE_S:
        message = f"{message}; {_clock(found.clock_ahead)}"
    return message


def _clock(ahead: float) -> str:
    """Return by how many seconds this machine's clock is ahead of the origin's, or behind it."""
    return f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the origin's"
