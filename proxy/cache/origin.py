"""What the cache asks of an origin: a small Protocol, so that it never sees aiobotocore.

`proxy/origin/client.py` is the real one; `tests/fakes.py` has others. All pass one conformance suite.
"""

from dataclasses import dataclass
from typing import Protocol

from proxy.http.metadata import Metadata
from proxy.http.ranges import FromTo, Suffix
from proxy.keys import ObjectKey


class Body(Protocol):
    """The bytes of one answer, in order."""

    async def read(self) -> bytes:
        """The next bytes, `b""` once all declared ones came.

        Raises BodyTruncated when the origin stopped early, OriginTimeout when it stalled.
        """

    def close(self) -> None:
        """Give the connection back: to the pool after a complete read, else closed. May be called twice."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200 or 206: bytes [start, stop) of the version that `metadata` describes."""

    metadata: Metadata
    start: int
    stop: int
    body: Body


class NotModified:
    """A 304: the version named in `if_none_match` is still the current one."""


class Origin(Protocol):
    async def get(
        self,
        key: ObjectKey,
        part: FromTo | Suffix,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Answer | NotModified:
        """S3 GetObject with a Range.

        Raises ObjectNotFound, ObjectChanged (`if_match` failed), RangeUnsatisfiable (also for every range of an
        empty object), AccessDenied, OriginTimeout, OriginUnavailable.
        """

    async def head(self, key: ObjectKey, *, if_none_match: str | None = None) -> Metadata | NotModified:
        """S3 HeadObject. Raises as `get` does."""
