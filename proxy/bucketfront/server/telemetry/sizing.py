"""What hit ratio the cache would have if it were smaller or larger, from the requests of clients."""

from collections.abc import Sequence
from dataclasses import dataclass

from bucketfront.server.telemetry.access_log import AccessRecord, FinishedRequest
from bucketfront.server.telemetry.miss_ratio_curve import HitRatios, MissRatioCurve

FACTORS = (0.5, 1.0, 2.0, 4.0)  # of the cache's size
ENTRY_BYTES = 4096  # that an object takes besides its bytes
PAGE_BYTES = 4096  # of the disk
BLOCK_BYTES = 32 << 10  # of the first read of an object
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

    def add(self, requests: Sequence[FinishedRequest]) -> None:
        """Add requests in the order in which they ended. Each takes little time, because all hits come here.

        Requests of one batch with the same record are observed together, as if they had come in a row.
        """
        at = requests[-1][3] if requests else 0.0
        if self._curve.is_paused(int(at)):
            return
        found: dict[AccessRecord, list[int]] = {}
        for record, sent, _, _, _, _ in requests:
            if (sents := found.get(record)) is None:
                found[record] = [sent]
            else:
                sents.append(sent)
        all_times = all_bytes = 0
        for record, sents in found.items():
            if (name := _name_of(record)) is None:
                continue
            times, count = len(sents), sum(sents)
            all_times += times
            all_bytes += count
            if self._curve.wants(name):
                size = held_size(record.size, self._curve.observed_size(name), count)
                self._curve.observe(name, size, times, count, int(at))
        if all_times:
            self._curve.count(all_times, all_bytes)

    def sizing(self) -> Sizing | None:
        """Return the estimates of now. Returns None before the first request."""
        found = [(factor, self._curve.estimate(int(self._limit * factor))) for factor in FACTORS]
        estimates = tuple((factor, ratios) for factor, ratios in found if ratios is not None)
        if not estimates:
            return None
        return Sizing(estimates, self._curve.requests, self._curve.objects, self._curve.rate)


def _name_of(record: AccessRecord) -> int | None:
    """Return the name of the object that a request read, as the curve has it. Returns None if it does not count.

    A hash of strings with a random key is uniform.
    """
    is_counted = record.size and record.method == "GET" and record.status in _STATUSES
    return hash(record.key) if is_counted else None


def held_size(whole: int, before: int, sent: int) -> int:
    """Return what an object of `whole` bytes takes in the cache once `sent` more bytes of it were read.

    Ranges add up, because most clients read one part after another.
    """
    most = ENTRY_BYTES + -(-whole // PAGE_BYTES) * PAGE_BYTES
    return min(most, before + sent if before else ENTRY_BYTES + max(sent, BLOCK_BYTES))
