"""What the cache asks of an origin: a small Protocol, so that it never sees aiobotocore.

`s3/client.py` is the real one; `tests/fakes.py` has others. All pass one conformance suite.
"""

from dataclasses import dataclass
from typing import Protocol

from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.keys import ObjectKey


class Body(Protocol):
    """The bytes of one answer, in order."""

    async def read(self) -> bytes:
        """The next bytes, `b""` once all declared ones came.

        Raises BodyTruncated when the origin stopped early, OriginTimeout when it stalled. A read that is cancelled
        loses no byte: the next one goes on.
        """

    def close(self) -> None:
        """Give the connection back: to the pool after a complete read, else closed. May be called twice."""


@dataclass(frozen=True, slots=True)
class OriginResponse:
    """A 200 or 206: bytes [start, stop) of the version that `metadata` describes."""

    metadata: Metadata
    start: int
    stop: int
    body: Body


@dataclass(frozen=True, slots=True)
class NotModified:
    """A 304: the object's bytes are still those named in `if_none_match`; its metadata may have changed.

    S3 keeps the ETag of an object that is copied onto itself with other metadata. Here is what the 304 said of it, as
    sent, None where it said nothing; `age` in seconds.
    """

    last_modified: str | None = None
    age: int = 0
    cache_control: str | None = None
    expires: str | None = None


class Origin(Protocol):
    async def get(
        self,
        key: ObjectKey,
        part: FromTo | Suffix,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> OriginResponse | NotModified:
        """S3 GetObject with a Range, of `key.version` if there is one, else of the current version.

        Raises ObjectNotFound, ObjectChanged (`if_match` failed), RangeUnsatisfiable (also for every range of an
        empty object), AccessDenied, OriginTimeout, OriginCircuitOpen (no request was sent), OriginServerError,
        OriginUnavailable; of a version also NoSuchVersion and DeleteMarker, and InvalidOriginResponse if the origin
        sends another version or does not name it.
        """

    async def head(self, key: ObjectKey, *, if_none_match: str | None = None) -> Metadata | NotModified:
        """S3 HeadObject. Raises as `get` does."""
