"""Whether S3 has the bytes that were sent to it (docs/invariants.md#write-atomicity).

S3's response to a body declares the MD5 or another checksum of what it took. If that fits, the write is proven. Other
responses prove less, and a HEAD or a GET decides:

    the response declares          what decides
    a fitting MD5 or checksum      the response itself
    a checksum that differs        the response itself: the write failed
    an ETag that is no MD5         a HEAD: the size under this ETag, or a later write
    no ETag                        a HEAD: the ETag or the size, see `ExpectedObject`
    an ETag that looks like        a HEAD for the size, and a GET for the bytes. If these are right, the bucket's ETags
    another MD5                    are none, and only the size counts until the verdict expires.
    an ETag of other parts         the same, for the first part and the last one

A HEAD that finds no object, or that fails, leaves the outcome unknown. Credentials that may only write get no HEAD, and
then an ETag that is no MD5 is the proof.
"""

import logging
from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple

from bucketfront.cache import OriginResponse
from bucketfront.errors import AccessDenied, ContentMismatch, InvalidOriginResponse, OriginError
from bucketfront.http import content_digests
from bucketfront.http.checksums import Digest
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.expected_object import ExpectedObject
from bucketfront.s3.upload.sent_digest import SentDigest
from bucketfront.s3.upload.single_call import SentBody

_FITTED = "an ETag was the MD5 of its body"  # verdicts about buckets
_OPAQUE = "an ETag looked like an MD5 and was none"
_OPAQUE_OF_PARTS = "an ETag looked like that of parts and was none"

log = logging.getLogger(__name__)


class Agreement(Enum):
    """What a response to a body shows of the bytes."""

    PROVEN = auto()
    DISPROVEN = auto()
    DIFFERENT = auto()  # the ETag looks like the MD5 of other bytes
    UNKNOWN = auto()


class UnprovenBytes(NamedTuple):
    """The bytes from `start` up to, but not including, `stop`, which S3 took under an ETag that is not their `md5`."""

    start: int
    stop: int
    md5: str


def agreement(sent: SentBody, claims: Iterable[Digest] = ()) -> Agreement:
    """Return what the response shows. `claims` are checksums that the body has."""
    declared = content_digests.checksums(sent.headers)
    found = content_digests.md5_of(sent.etag)
    if found is None or sent.md5 is None or content_digests.has_opaque_etag(sent.headers):
        shown = Agreement.UNKNOWN
    else:
        shown = Agreement.PROVEN if found == sent.md5 else Agreement.DIFFERENT
    for claim in claims:
        if claim.algorithm in declared:
            return Agreement.PROVEN if declared[claim.algorithm] == claim else Agreement.DISPROVEN
    return shown


def must_be_md5(origin: S3Origin, bucket: str) -> bool:
    """Return whether the bucket's ETags are known as MD5s, so that one that differs is an error."""
    return origin.verdicts.known((bucket, _FITTED)) is True and not _is_opaque(origin, bucket)


def note_fitting(origin: S3Origin, bucket: str) -> None:
    """Note that an ETag was the MD5 of its body."""
    origin.verdicts.note((bucket, _FITTED), holds=True)


async def agreed_etag(origin: S3Origin, key: ObjectKey, sent: SentBody, expected: ExpectedObject) -> str:
    """Return the ETag of the object that a PutObject made, "" if it has none.

    Raises ContentMismatch if S3 has other bytes, and InvalidOriginResponse if that is not known.
    """
    shown = agreement(sent, expected.head.checksums)
    if shown is Agreement.PROVEN:
        note_fitting(origin, key.bucket)
        return sent.etag
    if shown is Agreement.DISPROVEN:
        raise _mismatch(key, "the response declares another checksum")
    found = await _found(origin, key)
    if shown is Agreement.DIFFERENT:
        if found is None:
            raise InvalidOriginResponse(f"PUT {key}: the ETag {sent.etag} is not the body's MD5, and a HEAD fails")
        assert sent.md5 is not None
        await _prove(origin, key, found, sent.etag, expected.size, UnprovenBytes(0, expected.size, sent.md5))
        return sent.etag
    if sent.etag:
        _check_version(key, found, sent.etag, expected)
        return sent.etag
    if found is None or not expected.is_proven_by(found, was_accepted=True):
        raise InvalidOriginResponse(f"PUT {key}: the origin named no ETag, and a HEAD does not show the object")
    return found.etag


async def check_completed(
    origin: S3Origin,
    key: ObjectKey,
    etag: str,
    expected: ExpectedObject,
    unproven: UnprovenBytes | None,
    ends: Iterable[UnprovenBytes] = (),
) -> None:
    """Check the object that was made of parts. `etag` is that of the response.

    `unproven` are those of a part whose ETag was not its MD5, while the bucket's ETags were unknown. `ends` are the
    first and the last part, with their ETags as MD5s. Raises ContentMismatch if S3 has other bytes, and
    InvalidOriginResponse if that is not known.
    """
    if unproven is not None:
        found = await _found(origin, key)
        if found is None:
            raise InvalidOriginResponse(f"{key}: the ETags of parts are not their MD5s, and a HEAD fails")
        await _prove(origin, key, found, etag, expected.size, unproven)
    elif not expected.has_etag(etag):
        found = await _found(origin, key)
        _check_version(key, found, etag, expected)
        if expected.etag is not None and content_digests.is_etag_of_parts(etag):
            await _check_ends(origin, key, found, etag, ends)


async def _found(origin: S3Origin, key: ObjectKey) -> Metadata | None:
    """Return what a HEAD shows, or None if our credentials may only write.

    Raises InvalidOriginResponse if it shows no object, or if it fails.
    """
    try:
        found = await origin.head(key)
    except AccessDenied as error:
        log.info("what S3 made of %s is not known: %s", key, error)
        return None
    except OriginError as error:
        raise InvalidOriginResponse(
            f"PUT {key}: the origin accepted it, and a HEAD does not show it: {error}"
        ) from error
    assert isinstance(found, Metadata), "no condition was sent"
    return found


def _check_version(key: ObjectKey, found: Metadata | None, etag: str, expected: ExpectedObject) -> None:
    """Raise ContentMismatch unless a HEAD shows this version with its size, or a later write."""
    if found is None:
        return
    is_other = found.etag.removeprefix("W/") not in ("", etag.removeprefix("W/"))
    is_later = is_other and expected.is_newer(found)
    if found.size != expected.size and not is_later:
        raise _mismatch(key, f"it has {found.size} of {expected.size} bytes")
    if is_other and expected.is_older(found):
        raise _mismatch(key, f"it still has the ETag {found.etag} of an older version")


async def _check_ends(
    origin: S3Origin, key: ObjectKey, found: Metadata | None, etag: str, ends: Iterable[UnprovenBytes]
) -> None:
    """Raise ContentMismatch if `etag` is that of other parts, and S3 has them.

    Proves nothing if the ETags of the bucket or of this version are not MD5s, or if there is a later write.
    """
    if not must_be_md5(origin, key.bucket) or origin.verdicts.known((key.bucket, _OPAQUE_OF_PARTS)):
        return
    if found is None:
        raise InvalidOriginResponse(f"{key}: the ETag {etag} is not that of its parts, and a HEAD is denied")
    if found.has_opaque_etag or content_digests.comparable(found.etag) != content_digests.comparable(etag):
        return
    for part in ends:
        if part.start < part.stop and await _md5_at(origin, key, part.start, part.stop) != part.md5:
            raise _mismatch(key, f"its ETag is {etag}, and its bytes are others")
    log.warning("%s has the right bytes and the ETag %s, which is not that of its parts", key, etag)
    origin.verdicts.note((key.bucket, _OPAQUE_OF_PARTS), holds=True)


async def _prove(origin: S3Origin, key: ObjectKey, found: Metadata, etag: str, size: int, part: UnprovenBytes) -> None:
    """Raise ContentMismatch unless the bytes of `part` are at S3, or its bucket is known for ETags that are no MD5s."""
    if found.size != size:
        raise _mismatch(key, f"its ETag is {etag}, and it has {found.size} of {size} bytes")
    if _is_opaque(origin, key.bucket):
        return
    if part.start < part.stop and await _md5_at(origin, key, part.start, part.stop) != part.md5:
        raise _mismatch(key, f"its ETag is {etag}, and its bytes are others")
    log.warning("%s has the right bytes and the ETag %s: the ETags of bucket %s are no MD5s", key, etag, key.bucket)
    origin.verdicts.note((key.bucket, _OPAQUE), holds=True)


async def _md5_at(origin: S3Origin, key: ObjectKey, start: int, stop: int) -> str:
    response = await origin.get(key, FromTo(start, stop))
    assert isinstance(response, OriginResponse), "no condition was sent"
    digest = SentDigest()
    try:
        while piece := await response.body.read():
            await digest.update(bytes(piece))
    finally:
        response.body.close()
    return await digest.value()


def _is_opaque(origin: S3Origin, bucket: str) -> bool:
    return origin.verdicts.known((bucket, _OPAQUE)) is True


def _mismatch(key: ObjectKey, why: str) -> ContentMismatch:
    log.warning("%s was written, and S3 has other bytes than were sent: %s", key, why)
    return ContentMismatch(f"PUT {key}: the origin has other bytes than were sent: {why}")
