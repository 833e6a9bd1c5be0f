"""The versions that a purge leaves as they are, because the change that caused it is not about them. No I/O here.

S3 reports changes late, more than once and out of order. So a report may be about the version that is in the cache,
for example after a write through the proxy itself.
"""

from dataclasses import dataclass
from math import floor

from bucketfront.http import dates
from bucketfront.http.metadata import Metadata


@dataclass(frozen=True, slots=True)
class WrittenVersion:
    """A version that was written at S3. What it does not know is None.

    `etag` has no quotes, `version` is S3's version id, and `at` is the time of the write by S3's clock, in seconds
    since the epoch.
    """

    etag: str | None = None
    size: int | None = None
    version: str | None = None
    at: float | None = None

    def spares(self, metadata: Metadata) -> bool:
        """Return whether the metadata are those of this version, or of a later write of the same bytes.

        Without an id of the version, Last-Modified must be of the second of the write at least: an object that is
        copied onto itself has the same ETag and other metadata.
        """
        if self.version is not None and metadata.version is not None:
            return self.version == metadata.version
        if self.etag is None or self.at is None or metadata.etag.strip('"') != self.etag:
            return False
        if self.size is not None and self.size != metadata.size:
            return False
        modified = None if metadata.last_modified is None else dates.parse(metadata.last_modified, self.at)
        return modified is not None and modified >= floor(self.at)

    def is_of_write(self, etag: str) -> bool:
        """Return whether this is the version of a write whose response had the ETag."""
        return self.etag is not None and etag.strip('"') == self.etag


@dataclass(frozen=True, slots=True)
class DeletedVersion:
    """A version, by its id, that is gone for good. The current version of its key may be another one."""

    version: str

    def spares(self, metadata: Metadata) -> bool:
        """Return whether the metadata are those of another version."""
        return metadata.version is not None and metadata.version != self.version

    def is_of_write(self, _etag: str) -> bool:
        """Return False, because the write may be the deleted version."""
        return False


SparedVersion = WrittenVersion | DeletedVersion
