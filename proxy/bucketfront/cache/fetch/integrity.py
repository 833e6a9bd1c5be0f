"""Whether the bytes that came are those that S3 says the version has: compared once, when a fill has all of them.

An object of up to HELD bytes is compared before the last of them is served, a larger one right after, by a thread of
low priority: MD5 takes more than a second a GiB. What does not fit is given up and counted; the request begins again,
or is cut where its head has left.

Rule 1: a checksum that S3 calls one always has the last word.
Rule 2: an ETag that looks like an MD5 may be none: some S3-alikes encrypt. That is believed of a bucket of which no
ETag has ever fitted, when the same bytes come a second time; from then on its ETags are not looked at.
"""

import logging
import re
from collections import OrderedDict
from dataclasses import dataclass

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.origin import Origin
from bucketfront.cache.storage import digests
from bucketfront.cache.storage.storage import Storage
from bucketfront.errors import ContentMismatch, OriginError
from bucketfront.http.checksums import MD5, Digest
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

HELD = 256 << 20  # bytes: a third of a second of MD5, at the end of a download of seconds
AT_ONCE = 16 << 10  # bytes: less is compared in the event loop, in 20 us at most
MAX_REMEMBERED = 256  # versions whose bytes did not fit

_MULTIPART = re.compile(r'"[0-9a-f]{32}-[0-9]+"')

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Bucket:
    """What is known of a bucket's ETags."""

    has_fitted: bool = False
    is_opaque: bool = False


class Integrity:
    """Decides; all of it is synchronous, and none of it reads bytes."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._misfits: OrderedDict[tuple[ObjectKey, str], bytes] = OrderedDict()
        self.compared = 0  # objects
        self.corrupt_objects = 0  # whose bytes were not those that S3 told

    def told(self, key: ObjectKey, metadata: Metadata) -> Digest | None:
        """What the bytes have to give, as far as anything is known."""
        digest = digests.told(metadata)
        if digest is not None and digest.algorithm == MD5 and self._bucket(key).is_opaque:
            return None
        return digest

    def fits(self, key: ObjectKey, metadata: Metadata, told: Digest, found: bytes | None) -> bool:
        """Whether these bytes may be served; `found` is what they give, None where the file ended early."""
        self.compared += 1
        bucket = self._bucket(key)
        is_md5 = told.algorithm == MD5
        if found == told.value:
            bucket.has_fitted |= is_md5
            return True
        version = key, metadata.etag
        if is_md5 and not bucket.has_fitted and found is not None and self._misfits.get(version) == found:
            log.warning("%s gave the same bytes twice: the ETags of bucket %s are no MD5s", key, key.bucket)
            bucket.is_opaque = True
            return True
        if found is not None:
            self._misfits[version] = found
            while len(self._misfits) > MAX_REMEMBERED:
                self._misfits.popitem(last=False)
        self.corrupt_objects += 1
        log.warning(
            "%s: what came has %s %s, S3 says %s",
            key,
            told.algorithm,
            None if found is None else found.hex(),
            told.value.hex(),
        )
        return False

    def _bucket(self, key: ObjectKey) -> _Bucket:
        return self._buckets.setdefault(key.bucket, _Bucket())


class Comparison:
    """Reads what was written, asks what S3 tells of it, and has `Integrity` decide."""

    def __init__(self, origin: Origin, store: Storage, integrity: Integrity) -> None:
        self._origin = origin
        self._store = store
        self._integrity = integrity

    async def check(self, entry: Entry, part_size: int, *, data: bytes = b"", is_urgent: bool) -> None:
        """Of a file that has all of its object's bytes; `data` are those bytes where they are at hand.

        Raises ContentMismatch; StoreError.
        """
        key, metadata = entry.key, entry.metadata
        if metadata.size > part_size and metadata.checksum is None and _MULTIPART.fullmatch(metadata.etag):
            metadata = await self._asked(key, metadata)
        told = self._integrity.told(key, metadata)
        if told is None or entry.file is None:
            return
        if len(data) == metadata.size <= AT_ONCE:
            found: bytes | None = digests.of_bytes(data, told.algorithm)
        else:
            found = await self._store.digest(entry.file, metadata.size, told.algorithm, is_urgent=is_urgent)
        if not self._integrity.fits(key, metadata, told, found):
            raise ContentMismatch(f"{key} is not what S3 says it is")

    async def _asked(self, key: ObjectKey, metadata: Metadata) -> Metadata:
        """With the checksum of an object that was put in parts: no GET of a range tells it."""
        try:
            found = await self._origin.head(key)
        except OriginError as error:
            log.info("%s is not compared: %s", key, error)
            return metadata
        return found if isinstance(found, Metadata) and found.is_version(metadata) else metadata
