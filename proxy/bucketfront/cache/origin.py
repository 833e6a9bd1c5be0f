"""The Protocol of an origin that the cache fetches from, so that the cache never sees aiobotocore.

`s3/client.py` implements it for S3. The tests have other implementations, and one conformance suite checks all.
"""

from dataclasses import dataclass, field
from typing import Protocol

from bucketfront.http.grammar import Headers
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.keys import ObjectKey


class ResponseBody(Protocol):
    """The bytes of one response, in order."""

    async def read(self) -> bytes | memoryview:
        """Return the next bytes, or `b""` after all declared bytes came.

        A cancelled read loses no byte: the next read continues. Raises BodyTruncated if the origin stopped early,
        OriginTimeout if it stalled.
        """

    def close(self) -> None:
        """Return the connection to the pool after a complete read, else close it. A second call does nothing."""


@dataclass(frozen=True, slots=True)
class OriginResponse:
    """A 200 or 206 with the bytes [start, stop) of the version that `metadata` describes.

    An origin that ignores Range sends 200.
    """

    metadata: Metadata
    start: int
    stop: int
    body: ResponseBody
    status: int = 206


@dataclass(frozen=True, slots=True)
class NotModified:
    """A 304: the object still has the bytes named in `if_none_match`. Its metadata may have changed.

    S3 keeps the ETag of an object that is copied onto itself with other metadata. `last_modified`, `headers`, `date`
    and `cache_status` are those of `Metadata`, as far as the 304 has them. `age` is in seconds.
    """

    last_modified: str | None = None
    age: int = 0
    headers: Headers = ()
    date: str | None = field(default=None, compare=False)
    cache_status: str = field(default="", compare=False)


class Origin(Protocol):
    async def get(
        self,
        key: ObjectKey,
        part: FromTo | Suffix,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> OriginResponse | NotModified:
        """Send S3 GetObject with a Range, for `key.version` if it is set, else for the current version.

        Raises ObjectNotFound, ObjectChanged (`if_match` failed), RangeUnsatisfiable (also for every range of an
        empty object), AccessDenied, OriginTimeout, OriginCircuitOpen (no request was sent), OriginServerError,
        OriginUnavailable. A request for a version also raises NoSuchVersion and DeleteMarker, and
        InvalidOriginResponse if the response is of another version or does not name its version.
        """

    async def head(self, key: ObjectKey, *, if_none_match: str | None = None) -> Metadata | NotModified:
        """Send S3 HeadObject. Raises what `get` raises."""

    def admit(self, key: ObjectKey, *, joins: bool) -> None:
        """Call this before a request waits for the origin. It counts for the client of the running task.

        Raises ShareUsedUp or WholeUsedUp, unless it `joins` requests about `key` that run already. Those are then no
        longer delayed because of the client that began them.
        """
