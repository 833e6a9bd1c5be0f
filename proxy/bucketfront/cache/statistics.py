"""The cache in figures; `/metrics` and `stats` only format them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters since the start, and what is there now. Sizes in bytes."""

    entries: int
    bytes_used: int
    bytes_limit: int
    index_bytes: int
    hits: int  # lookups answered by a fresh entry, or by a remembered 404
    stale_hits: int  # answered by a stale entry: revalidated in the background, or the origin was down
    misses: int  # lookups that found nothing
    revalidations: int  # lookups that found a stale entry and asked
    lookups: int  # metadata flights that went to the origin
    lookups_joined: int  # requests that waited on another's metadata flight
    flights: int  # parts asked of the origin
    flights_running: int
    flights_split: int  # parts cut in two for a reader further on
    hedges: int  # second requests for what was late
    hedges_won: int  # those that brought bytes sooner
    retries_refused: int  # failures that were final because too many had been asked again already
    endings: tuple[tuple[str, int], ...]  # flights by how they ended
    passthroughs: int  # stretches that went on uncached
    written: int  # bodies of uploads that became entries
    evicted: int  # entries removed for space or idleness
    corrupt_blocks: int  # whose bytes on the disk had another checksum: given up and fetched again
    corrupt_objects: int  # whose bytes were not those that S3's own checksum told: given up
    compared_objects: int  # with S3's own checksum
    scrubbed_blocks: int  # read by the scrubber
    disk_failures: int
    disk_is_usable: bool
    absences: int
