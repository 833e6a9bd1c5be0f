"""Comparison of the fetched bytes with S3's own checksum of the version, once for each fill that has all of them.

An object of up to MAX_HELD_BYTES is compared before the last of its bytes is served. A larger one is compared right
after, by a thread of low priority, because MD5 takes more than a second for each GiB. An object that does not fit is
removed and counted. Its request starts again, or is cut if its head was sent already.

Rule 1: a declared checksum is final.
Rule 2: an ETag that looks like an MD5 may be something else, because some S3-alikes encrypt, or compute it otherwise
for some objects. Two complete fetches of a version with the same bytes, which do not fit, are the evidence: bytes that
go wrong on the way differ. Then the version's ETag is ignored, and so are all of a bucket in which no ETag ever fitted.
What is known of versions is bounded, and ends with the process. So a version costs two fetches at most, and not two
for each request.
"""

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.origin import Origin
from bucketfront.cache.storage import digests
from bucketfront.cache.storage.storage import Storage
from bucketfront.errors import ContentMismatch, OriginError
from bucketfront.http import content_digests
from bucketfront.http.checksums import MD5, Digest
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

T = TypeVar("T")

MAX_HELD_BYTES = 256 << 20  # a third of a second of MD5, at the end of a download that takes seconds
MAX_INLINE_BYTES = 16 << 10  # compared in the event loop, which takes 20 us at most
MAX_REMEMBERED = 256  # versions whose bytes did not fit
MAX_OPAQUE = 4096  # versions whose ETag is no MD5; each takes some hundred bytes

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Bucket:
    """What is known of a bucket's ETags."""

    has_fitted: bool = False
    is_opaque: bool = False


class Integrity:
    """Decides whether bytes fit. It is synchronous, and reads no bytes itself."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._misfits: OrderedDict[_VersionId, bytes] = OrderedDict()  # the MD5 of what came
        self._opaque: OrderedDict[_VersionId, None] = OrderedDict()  # versions whose ETag is no MD5
        self.compared = 0  # objects
        self.corrupt_objects = 0  # objects whose bytes did not fit

    def expected(self, key: ObjectKey, metadata: Metadata) -> Digest | None:
        """Return the digest that the bytes must have, or None if S3 declares none that can be used."""
        digest = digests.expected(metadata)
        if digest is None or digest.algorithm != MD5:
            return digest
        return None if self._bucket(key).is_opaque or _version_id(key, metadata) in self._opaque else digest

    def fits(
        self, key: ObjectKey, metadata: Metadata, expected: Digest, found: bytes | None, *, is_evidence: bool = True
    ) -> bool:
        """Return whether the bytes may be served. `found` is their digest, None if the file ended early.

        Bytes are no evidence against the ETag if some of them did not come from the origin.
        """
        self.compared += 1
        bucket = self._bucket(key)
        is_md5 = expected.algorithm == MD5
        if found == expected.value:
            bucket.has_fitted |= is_md5
            return True
        version = _version_id(key, metadata)
        if is_evidence and is_md5 and found is not None and self._misfits.get(version) == found:
            self._note_opaque(version, bucket)
            return True
        if is_evidence and found is not None:
            _remember(self._misfits, version, found, MAX_REMEMBERED)
        self.corrupt_objects += 1
        log.warning(
            "%s: what came has %s %s, S3 says %s",
            key,
            expected.algorithm,
            None if found is None else found.hex(),
            expected.value.hex(),
        )
        return False

    def _note_opaque(self, version: "_VersionId", bucket: _Bucket) -> None:
        key, etag, *_ = version
        self._misfits.pop(version)
        if bucket.has_fitted:
            log.warning("%s gave the same bytes twice: its ETag %s is no MD5", key, etag)
            _remember(self._opaque, version, None, MAX_OPAQUE)
        else:
            log.warning("%s gave the same bytes twice: the ETags of bucket %s are no MD5s", key, key.bucket)
            bucket.is_opaque = True

    def _bucket(self, key: ObjectKey) -> _Bucket:
        return self._buckets.setdefault(key.bucket, _Bucket())


_VersionId = tuple[ObjectKey, str, int, str | None]


def _version_id(key: ObjectKey, metadata: Metadata) -> _VersionId:
    return key, metadata.etag, metadata.size, metadata.last_modified


def _remember(memory: OrderedDict[_VersionId, T], version: _VersionId, what: T, limit: int) -> None:
    memory[version] = what
    while len(memory) > limit:
        memory.popitem(last=False)


class Comparison:
    """Reads the bytes of complete objects, and has `Integrity` decide about them."""

    def __init__(self, origin: Origin, store: Storage, integrity: Integrity) -> None:
        self._origin = origin
        self._store = store
        self._integrity = integrity

    async def check(self, entry: Entry, part_size: int, *, data: bytes | memoryview = b"", is_urgent: bool) -> None:
        """Compare the bytes of a complete entry. `data` has those bytes, if they are at hand.

        Raises ContentMismatch, StoreError.
        """
        key, metadata = entry.key, entry.metadata
        if metadata.size > part_size and metadata.checksum is None and content_digests.is_etag_of_parts(metadata.etag):
            metadata = await self._with_checksum(key, metadata)
        expected = self._integrity.expected(key, metadata)
        if expected is None or entry.file is None:
            return
        if len(data) == metadata.size <= MAX_INLINE_BYTES:
            found: bytes | None = digests.of_bytes(data, expected.algorithm)
        else:
            found = await self._store.digest(entry.file, metadata.size, expected.algorithm, is_urgent=is_urgent)
        if not self._integrity.fits(key, metadata, expected, found, is_evidence=not entry.has_supplied):
            raise ContentMismatch(f"{key} is not what S3 says it is")

    async def _with_checksum(self, key: ObjectKey, metadata: Metadata) -> Metadata:
        """Return the metadata with the checksum of an object that was uploaded in parts, which only a HEAD has."""
        try:
            found = await self._origin.head(key)
        except OriginError as error:
            log.info("%s is not compared: %s", key, error)
            return metadata
        return found if isinstance(found, Metadata) and found.is_version(metadata) else metadata
