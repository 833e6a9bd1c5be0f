"""How much a job may bring into the cache, so that it displaces neither the hot set nor what it brought itself. Pure.

1. A job fills free space, up to a fiftieth of the cache, which it leaves to clients and to the index.
2. In a full cache, all of its objects together may take a tenth of the cache. The eviction policy takes that from
   objects on probation, and from those that were used longest ago (see `cache.entries.probation`).
3. Beyond that it ends, because each further object would displace one of its own. Objects that were there before count
   as well, so that a repeated job does not displace what the one before has brought.
"""

REPLACED_PART = 10  # one in so many bytes of the cache: as many as the policy keeps for what was requested once
SPARE_PART = 50
OBJECT_BYTES = 4096  # that an entry takes besides its bytes


class Allowance:
    """The account of one job. `capacity` is `cache.max_size` in bytes."""

    def __init__(self, capacity: int) -> None:
        self._replaceable = capacity // REPLACED_PART
        self._spare = capacity // SPARE_PART
        self._promised = 0  # taken, and maybe not yet in the cache's own account
        self.held = 0

    def take(self, count: int, free: int) -> bool:
        """Take room for `count` bytes beside those that are on their way, while `free` bytes of the cache are free.

        Call `landed` once they are there, or will not come. Returns False if the job may not bring them.
        """
        cost = count + OBJECT_BYTES
        if cost > free - self._promised - self._spare and self.held + cost > self._replaceable:
            return False
        self._promised += cost
        self.held += cost
        return True

    def landed(self, count: int) -> None:
        """Note that bytes are in the cache's own account."""
        self._promised -= count + OBJECT_BYTES

    def note_present(self, count: int) -> None:
        """Count bytes of the job's objects that were there before."""
        self.held += count
