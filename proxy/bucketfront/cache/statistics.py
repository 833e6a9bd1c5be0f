"""The cache in figures. `/metrics` and `stats` only format them."""

from dataclasses import dataclass
from enum import Enum, auto


class Found(Enum):
    """How a lookup found its entry."""

    FRESH = auto()
    STALE = auto()  # it serves because it is being revalidated, or because the origin fails
    ELSEWHERE = auto()  # at the origin, or by a lease; it is counted already


@dataclass(slots=True)
class Counters:
    """What the cache's own modules count since the start. Each field means the same in `Statistics`."""

    hits: int = 0
    stale_hits: int = 0
    partials: int = 0
    misses: int = 0
    revalidations: int = 0
    passthroughs: int = 0
    written: int = 0
    scrubbed_blocks: int = 0

    def count(self, found: Found, *, lacked_all: bool, lacked_some: bool) -> None:
        """Count a lookup once its response has ended. An entry that lacked requested bytes is no hit."""
        if found is Found.ELSEWHERE:
            return
        if lacked_all:
            self.misses += 1
        elif lacked_some:
            self.partials += 1
        elif found is Found.FRESH:
            self.hits += 1
        else:
            self.stale_hits += 1


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters since the start, and the present state. Sizes are in bytes."""

    entries: int
    bytes_used: int
    bytes_limit: int
    index_bytes: int
    hits: int  # lookups that a fresh entry or a remembered 404 served
    stale_hits: int  # lookups that a stale entry served: it is revalidated in the background, or the origin fails
    partials: int  # lookups that found an entry without some of the bytes that were requested
    misses: int  # lookups that found no entry, or an entry without any bytes
    revalidations: int  # lookups that found a stale entry and sent a request
    lookups: int  # metadata requests to the origin
    lookups_joined: int  # requests that waited for the lookup of another one
    flights: int  # part fetches
    flights_running: int
    flights_split: int  # part fetches cut in two for a reader further on
    hedges: int  # second requests for late bytes
    hedges_won: int  # hedges that brought bytes first
    retries_refused: int  # failures that were final because the retry budget was spent
    endings: tuple[tuple[str, int], ...]  # part fetches by outcome
    passthroughs: int  # stretches that were served without the cache
    passthrough_pauses: int  # waits of such stretches for their clients, without an origin connection
    written: int  # bodies of uploads that became entries
    evicted: int  # entries removed for space or idleness
    corrupt_blocks: int  # blocks whose bytes on disk had another checksum; they are fetched again
    corrupt_objects: int  # objects whose bytes did not fit S3's own checksum; they are removed
    compared_objects: int  # objects compared with S3's own checksum
    scrubbed_blocks: int  # blocks read by the scrubber
    disk_failures: int
    disk_is_usable: bool
    absences: int  # 404s in the negative cache
    disk_size: int  # of the file system of the cache folder
    disk_free: int
    disk_inodes: int  # 0 if the file system has no fixed number of them
    disk_free_inodes: int
