"""What a response of the origin shows of an object's lifetime, for the forecast of what the cache would do."""

from dataclasses import dataclass
from typing import Self

from bucketfront.http.freshness import Freshness


@dataclass(frozen=True, slots=True)
class Observed:
    """A version, or an absence if `etag` is None. Times are in seconds, as in `Freshness`."""

    etag: str | None
    ttl: float
    stale_while_revalidate: float = 0.0
    is_storable: bool = True

    @classmethod
    def of(cls, etag: str, freshness: Freshness) -> Self:
        return cls(etag, freshness.ttl, freshness.stale_while_revalidate, freshness.storable)

    @classmethod
    def absence(cls, ttl: float) -> Self:
        return cls(None, ttl, is_storable=ttl > 0)
