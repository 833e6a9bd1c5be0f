"""What one key, or a client without one, may do."""

from dataclasses import dataclass
from typing import Self

from bucketfront.config.s3_settings import ALL_BUCKETS, S3GrantSettings


@dataclass(frozen=True, slots=True)
class Grant:
    """The permission to read the objects of some buckets below a prefix, and to write them with `may_write`.

    `buckets` is None for all.
    """

    buckets: frozenset[str] | None
    prefix: bytes
    may_write: bool

    @classmethod
    def of(cls, settings: S3GrantSettings) -> Self:
        buckets = None if ALL_BUCKETS in settings.buckets else frozenset(settings.buckets)
        return cls(buckets, settings.prefix.encode(), settings.write)

    def permits_bucket(self, bucket: str) -> bool:
        """Return whether the client may know that the bucket exists."""
        return self.buckets is None or bucket in self.buckets

    def permits(self, bucket: str, key: bytes, *, writes: bool) -> bool:
        """Return whether the client may read an object, or write it. `key` may be a prefix, for a list."""
        return self.permits_bucket(bucket) and key.startswith(self.prefix) and (self.may_write or not writes)


NOTHING = Grant(frozenset(), b"", may_write=False)
"""What a client without a key may do unless the settings say more."""
