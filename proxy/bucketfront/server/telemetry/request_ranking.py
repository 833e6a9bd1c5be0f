"""Which objects are hot, and which requests were slow of late."""

import heapq
import itertools
from collections.abc import Callable, Sequence

from bucketfront.server.telemetry.access_log import AccessRecord, FinishedRequest
from bucketfront.server.telemetry.hot_keys import HotKeys

MAX_HOT_OBJECTS = 256  # an object with more than 1/257 of the requests or bytes is found
HALF_LIFE_S = 60.0  # of what an object's requests count
MAX_SAMPLES_PER_S = 10.0  # batches: up to 640 requests a second all are noted, which takes a microsecond of each
LARGE_BYTES = 256 << 10  # of a response; sending as many takes far longer than noting them
MAX_SLOW = 10  # requests
SLOW_PERIOD_S = 60.0  # the slowest requests are those of this period so far, and of the one before

_READS = frozenset({"GET", "HEAD"})


class SlowestRequests:
    """The slowest requests of the last one or two periods. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._numbers = itertools.count()  # requests cannot be compared
        self._current: list[tuple[float, int, FinishedRequest]] = []  # a heap, the fastest one first
        self._before: list[tuple[float, int, FinishedRequest]] = []
        self.least_s = 0.0  # a faster request is not among the slowest

    def add(self, request: FinishedRequest) -> None:
        self._turn()
        heapq.heappush(self._current, (request[4], next(self._numbers), request))
        if len(self._current) > MAX_SLOW:
            heapq.heappop(self._current)
            self.least_s = self._current[0][0]

    def top(self) -> list[FinishedRequest]:
        """Return the slowest requests, the slowest first."""
        self._turn()
        slowest = heapq.nlargest(MAX_SLOW, (*self._current, *self._before))
        return [request for _, _, request in slowest]

    def _turn(self) -> None:
        """Begin another period if it is time."""
        now = self._clock()
        periods = (now - self._since) // SLOW_PERIOD_S
        if periods < 1:
            return
        self._before = self._current if periods == 1 else []
        self._current, self.least_s = [], 0.0
        self._since += periods * SLOW_PERIOD_S


class RequestRanking:
    """Ranks finished requests in batches. `clock` is in seconds.

    The weights of `by_requests` are requests by path, those of `by_bytes` are bytes. A busy proxy samples the hot
    objects: of at most MAX_SAMPLES_PER_S batches each request is noted, and counts for those of the batches between as
    well. Large responses always count, because there are few of them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.by_requests = HotKeys(MAX_HOT_OBJECTS, HALF_LIFE_S, clock)
        self.by_bytes = HotKeys(MAX_HOT_OBJECTS, HALF_LIFE_S, clock)
        self.slowest = SlowestRequests(clock)
        self._clock = clock
        self._samples = MAX_SAMPLES_PER_S  # batches that may be sampled now
        self._samples_at = clock()
        self._unsampled = 0  # requests since the last sample

    def add(self, requests: Sequence[FinishedRequest]) -> None:
        """Add requests in the order of their ends."""
        slowest = self.slowest
        large: list[tuple[str, float]] = []
        for request in requests:
            if request[4] > slowest.least_s:
                slowest.add(request)
            if request[1] >= LARGE_BYTES:
                large.append((request[0].path, request[1]))
        if large:
            self.by_bytes.add(large)
        self._sample(requests)

    def _sample(self, requests: Sequence[FinishedRequest]) -> None:
        """Note the objects of a batch, if there is time for it."""
        now = self._clock()
        self._samples = min(MAX_SAMPLES_PER_S, self._samples + (now - self._samples_at) * MAX_SAMPLES_PER_S)
        self._samples_at = now
        self._unsampled += len(requests)
        if self._samples < 1:
            return
        self._samples -= 1
        each = self._unsampled / len(requests)
        self._unsampled = 0
        times: dict[str, float] = {}  # by path, as the bytes sent
        sizes: dict[str, float] = {}
        for record, sent, _, _, _, _ in requests:
            if _is_of_object(record):
                path = record.path
                times[path] = times.get(path, 0.0) + each
                if 0 < sent < LARGE_BYTES:
                    sizes[path] = sizes.get(path, 0.0) + sent * each
        self.by_requests.add(times.items())
        self.by_bytes.add(sizes.items())


def _is_of_object(record: AccessRecord) -> bool:
    """Return whether the client got an object, or got the response that it has it already."""
    return record.status < 400 and record.method in _READS
