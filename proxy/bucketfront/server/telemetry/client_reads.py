"""What clients read, by mount: the requests that S3 would have served without bucketfront. It knows no prices."""

from dataclasses import dataclass

from bucketfront.http.cache_status import Forward

# What the proxy refused or responded to by itself, and writes.
_OF_THE_PROXY = frozenset({Forward.BYPASS.value, Forward.METHOD.value})
_FROM_CACHE = frozenset({"hit", "stale-hit"})


@dataclass(slots=True)
class ClientReads:
    """Reads of clients and the bytes that were sent for them. `hits` and `cached_bytes` came without the origin."""

    requests: int = 0
    bytes: int = 0
    hits: int = 0
    cached_bytes: int = 0

    def add(self, outcome: str, times: int, sent: int, from_origin: int) -> None:
        """Add `times` reads with the cache's decision `outcome`. The bytes are those of all of them."""
        self.requests += times
        self.bytes += sent
        self.cached_bytes += sent - from_origin
        self.hits += times if outcome in _FROM_CACHE else 0


def is_read(method: str, status: int, outcome: str) -> bool:
    """Return whether S3 would have served the request itself, and charged for it."""
    return method in ("GET", "HEAD") and status < 500 and outcome not in _OF_THE_PROXY
