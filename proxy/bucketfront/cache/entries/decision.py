"""What a lookup does with what the cache knows of a key. A pure decision, for requests and for operators alike."""

from enum import Enum

from bucketfront.cache.entries.entry import Entry


class Decision(Enum):
    """The values are stable, for programs."""

    HIT = "hit"  # a fresh entry serves; bytes that it lacks are fetched
    STALE = "stale"  # a stale entry serves at once, and is revalidated in the background
    REVALIDATE = "revalidate"  # the origin is asked whether a stale entry is current
    MISS = "miss"
    ABSENT = "absent"  # a 404 of the origin is remembered


def decide(entry: Entry | None, absent_for: float | None, now: float, *, revalidate: bool = False) -> Decision:
    """Return what a lookup does.

    `absent_for` are the seconds for which a 404 still holds, None without one. `now` is in seconds since the epoch.
    With `revalidate` the client wants a request to the origin.
    """
    if entry is None:
        return Decision.MISS if absent_for is None or revalidate else Decision.ABSENT
    if revalidate:
        return Decision.REVALIDATE
    ttl = entry.ttl(now)
    if ttl > 0:
        return Decision.HIT
    return Decision.STALE if -ttl < entry.freshness.stale_while_revalidate else Decision.REVALIDATE
