"""Whether the bytes that came are those that S3 says the version has: compared once, when a fill has all of them.

An object of one part is compared before its last bytes are served; a larger one right after, by a thread of low
priority, since that takes about a second a GiB. What does not fit is given up and counted: the request begins again, or
is cut where its head has left.

Rule 1: a checksum that S3 calls one always has the last word.
Rule 2: an ETag that looks like an MD5 may be none: some S3-alikes encrypt. That is believed of a bucket of which no
ETag has ever fitted, when the same bytes come a second time; from then on its ETags are not looked at.
"""

import logging
import re
from collections import OrderedDict
from dataclasses import dataclass

from proxy.cache import digests
from proxy.cache.digests import Digest
from proxy.http.metadata import Metadata
from proxy.keys import ObjectKey

MAX_REMEMBERED = 256  # versions whose bytes did not fit

_MULTIPART = re.compile(r'"[0-9a-f]{32}-[0-9]+"')

log = logging.getLogger("bucketfront.integrity")


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
        if digest is not None and digest.algorithm == digests.MD5 and self._bucket(key).is_opaque:
            return None
        return digest

    def fits(self, key: ObjectKey, metadata: Metadata, told: Digest, found: bytes | None) -> bool:
        """Whether these bytes may be served; `found` is what they give, None where the file ended early."""
        self.compared += 1
        bucket = self._bucket(key)
        is_md5 = told.algorithm == digests.MD5
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


def is_worth_asking(metadata: Metadata) -> bool:
    """A HEAD may tell a checksum of the whole object: of one that was put in parts, where no GET of a part does."""
    return metadata.checksum is None and _MULTIPART.fullmatch(metadata.etag) is not None
