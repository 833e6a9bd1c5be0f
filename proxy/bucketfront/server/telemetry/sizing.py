"""What hit ratio the cache would have if it were smaller or larger, from the requests of clients."""

from dataclasses import dataclass

from bucketfront.server.telemetry.access_log import AccessRecord
from bucketfront.server.telemetry.miss_ratio_curve import HitRatios, MissRatioCurve

FACTORS = (0.5, 1.0, 2.0, 4.0)  # of the cache's size
ENTRY_BYTES = 4096  # that an object takes besides its bytes
PAGE_BYTES = 4096  # of the disk
BLOCK_BYTES = 64 << 10  # of the first read of an object
_STATUSES = frozenset({200, 206, 304})


@dataclass(frozen=True, slots=True)
class Sizing:
    """The estimates for each of FACTORS. `requests` is how many the curve is of, and `objects` those in its sample."""

    estimates: tuple[tuple[float, HitRatios], ...]
    requests: float
    objects: int
    rate: float


class SizingCurve:
    """Feeds a curve with the GETs of clients. `limit` is the cache's size in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # A step of a distance is an eighth wide, so the curve reaches a little further than the largest factor.
        self._curve = MissRatioCurve(int(limit * FACTORS[-1] * 1.25))

    def add(self, record: AccessRecord, times: int, sent: int, second: int) -> None:
        """Add `times` requests in a row, with `sent` bytes in all."""
        if record.method != "GET" or record.status not in _STATUSES or record.key is None or not record.size:
            return
        name = hash(record.key)  # of strings with a random key, so that it is uniform
        before = self._curve.observed_size(name)
        self._curve.add(name, _size(record.size, before, sent), times, sent, second)

    def sizing(self) -> Sizing | None:
        """Return the estimates of now. Returns None before the first request."""
        found = [(factor, self._curve.estimate(int(self._limit * factor))) for factor in FACTORS]
        estimates = tuple((factor, ratios) for factor, ratios in found if ratios is not None)
        if not estimates:
            return None
        return Sizing(estimates, self._curve.requests, self._curve.objects, self._curve.rate)


def _size(whole: int, before: int, sent: int) -> int:
    """Return what an object of `whole` bytes takes in the cache once `sent` more bytes of it were read.

    Ranges add up, because most clients read one part after another.
    """
    most = ENTRY_BYTES + -(-whole // PAGE_BYTES) * PAGE_BYTES
    return min(most, before + sent if before else ENTRY_BYTES + max(sent, BLOCK_BYTES))
