"""The object that a write is to make, and whether the one that S3 has is that object.

The response to a write may be lost, empty, or contradict an earlier one. A HEAD shows what S3 has. It proves the write
if it shows the bytes that were sent, and if these are not an older object's (docs/invariants.md#unknown-outcome).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bucketfront.http import content_digests, dates
from bucketfront.http.metadata import Metadata
from bucketfront.http.response_fields import USER_METADATA_PREFIX
from bucketfront.http.write_head import WriteHead

# S3's own default. Some compatible servers have the second one.
_DEFAULT_TYPES = frozenset({"binary/octet-stream", "application/octet-stream"})
CLOCK_SLACK_S = 2.0  # HTTP dates have whole seconds, and S3 may date a response later than the object


def begun_at(headers: Mapping[str, str], elapsed: float) -> float | None:
    """Return a time before the request whose response has these headers, in seconds by the origin's clock, or None.

    `elapsed` is how many seconds ago the request was sent.
    """
    at = dates.parse(headers.get("date", ""), 0.0)
    return None if at is None else at - elapsed - CLOCK_SLACK_S


@dataclass(frozen=True, slots=True)
class ExpectedObject:
    """The object that a write makes.

    - `size` is in bytes.
    - `etag` is the ETag in wire form that S3 gives it, or None if that is not known.
    - `head` has its properties, and the conditions of the write.
    - `begun_at` is a time before which the write had not begun, in seconds by the origin's clock, or None.
    """

    size: int
    etag: str | None
    head: WriteHead
    begun_at: float | None = None

    def is_proven_by(self, found: Metadata, *, was_accepted: bool) -> bool:
        """Return whether this write made the object that a HEAD found.

        `was_accepted` means that S3 has reported the write as done, without the ETag. S3 also no longer knows a
        multipart upload once it is completed.
        """
        if found.size != self.size:
            return False
        is_newer = self.is_newer(found)
        if self.has_etag(found.etag):
            # The same bytes may have been there before, under other headers or against the condition.
            return was_accepted or is_newer or (not self._is_conditional and self._has_headers_of(found))
        if self.etag is not None and content_digests.is_etag_of_parts(found.etag):
            return False
        return was_accepted and is_newer

    def has_etag(self, etag: str) -> bool:
        """Return whether an ETag in wire form is the one that S3 gives the object."""
        return self.etag is not None and content_digests.comparable(etag) == self.etag

    def is_newer(self, found: Metadata) -> bool:
        """Return whether the object that a HEAD found was written after this write began."""
        at = self._time_of(found)
        return at is not None and self.begun_at is not None and at >= self.begun_at

    def is_older(self, found: Metadata) -> bool:
        """Return whether the object that a HEAD found was written before this write began."""
        at = self._time_of(found)
        return at is not None and self.begun_at is not None and at < self.begun_at

    @staticmethod
    def _time_of(found: Metadata) -> float | None:
        return dates.parse(found.last_modified or "", 0.0)

    @property
    def _is_conditional(self) -> bool:
        return self.head.only_if_absent or self.head.if_match is not None

    def _has_headers_of(self, found: Metadata) -> bool:
        wanted = {name.lower(): value for name, value in self.head.headers}
        wanted |= {f"{USER_METADATA_PREFIX}{name}": value for name, value in self.head.metadata}
        present = {name.lower(): value for name, value in found.headers}
        if "content-type" not in wanted and present.get("content-type") in _DEFAULT_TYPES:
            del present["content-type"]
        return wanted == present
