"""Whether S3 has the bytes that were sent to it (docs/invariants.md#write-atomicity).

S3's response to a body declares the MD5 or another checksum of what it took. If that fits, the write is proven. Other
responses prove less, and a HEAD or a GET decides:

    the response declares          what decides
    a fitting MD5 or checksum      the response itself
    a checksum that differs        the response itself: the write failed
    an ETag that is no MD5         a HEAD: the size
    no ETag                        a HEAD: the ETag or the size, see `ExpectedObject`
    an ETag that looks like        a HEAD for the size, and a GET for the bytes. If these are right, the bucket's ETags
    another MD5                    are none, and only the size counts until the verdict expires.
"""

import logging
from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple

from bucketfront.cache import OriginResponse
from bucketfront.errors import ContentMismatch, InvalidOriginResponse, OriginError
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
        _check_size(key, found, sent.etag, expected.size)
        return sent.etag
    if found is None or not expected.is_proven_by(found, was_accepted=True):
        raise InvalidOriginResponse(f"PUT {key}: the origin named no ETag, and a HEAD does not show the object")
    return found.etag


async def check_completed(
    origin: S3Origin, key: ObjectKey, etag: str, expected: ExpectedObject, unproven: UnprovenBytes | None
) -> None:
    """Check the object that was made of parts. `etag` is that of the response.

    `unproven` are those of a part whose ETag was not its MD5, while the bucket's ETags were unknown. Raises
    ContentMismatch if S3 has other bytes.
    """
    if unproven is not None:
        found = await _found(origin, key)
        if found is None:
            raise InvalidOriginResponse(f"{key}: the ETags of parts are not their MD5s, and a HEAD fails")
        await _prove(origin, key, found, etag, expected.size, unproven)
    elif etag != expected.etag:
        _check_size(key, await _found(origin, key), etag, expected.size)


async def _found(origin: S3Origin, key: ObjectKey) -> Metadata | None:
    try:
        found = await origin.head(key)
    except OriginError as error:
        log.info("what S3 made of %s is not known: %s", key, error)
        return None
    return found if isinstance(found, Metadata) else None


def _check_size(key: ObjectKey, found: Metadata | None, etag: str, size: int) -> None:
    """Raise ContentMismatch if this version has another size. Another version is a later write."""
    if found is not None and found.etag == etag and found.size != size:
        raise _mismatch(key, f"it has {found.size} of {size} bytes")


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
            await digest.update(piece)
    finally:
        response.body.close()
    return await digest.value()


def _is_opaque(origin: S3Origin, bucket: str) -> bool:
    return origin.verdicts.known((bucket, _OPAQUE)) is True


def _mismatch(key: ObjectKey, why: str) -> ContentMismatch:
    log.warning("%s was written, and S3 has other bytes than were sent: %s", key, why)
    return ContentMismatch(f"PUT {key}: the origin has other bytes than were sent: {why}")
