"""What hit ratio a cache of another size would have: a miss-ratio curve of a sample of the objects, in bounded memory.

Theory of operation
-------------------
The method is SHARDS with a fixed number of samples (Waldspurger et al., "Efficient MRC Construction with SHARDS",
2015), for objects of different sizes. An object is in the sample if the hash of its name is below a threshold. Then all
requests for it are observed, and no request for another one. A sample of a rate R has R of the bytes between two
requests for an object. So the distance in the whole stream is that of the sample, divided by R, and an observed request
stands for 1/R requests.

1. If more than `max_objects` are in the sample, the threshold falls to the largest hash, which leaves. It also falls if
   more than MAX_OBSERVED_PER_S requests are observed, because that takes time of the event loop. A sample of few
   objects stays, and the rest of that second does not count.
2. Objects below the largest cache of interest leave the sample. Their next request is a miss in any case.
3. The number of all requests and their bytes are known. The difference between them and what the sample stands for is
   due to the few most popular objects, which hit in any cache (the adjusted SHARDS of the paper).
4. The counts are halved each HALF_LIFE_REQUESTS, so that the curve follows the traffic.
"""

import heapq
from dataclasses import dataclass

from bucketfront.server.telemetry.reuse_distances import ReuseDistances

MAX_OBJECTS = 8192  # in the sample, at about 300 bytes each
MAX_OBSERVED_PER_S = 500  # each takes 5 to 20 microseconds, most of it for memory that no cache of the processor has
FEW_OBJECTS = 64  # a smaller sample shows too little
HALF_LIFE_REQUESTS = 1 << 20
HASHES = 1 << 24  # of which the threshold permits some

_STEPS = 8  # of the distances between a power of two and the next one


@dataclass(frozen=True, slots=True)
class HitRatios:
    """The estimate for a cache of `size` bytes: the shares of requests and of bytes that it would have, 0 to 1."""

    size: int
    requests: float
    bytes: float


@dataclass(slots=True)
class _Counts:
    """Requests and their bytes."""

    requests: float = 0.0
    bytes: float = 0.0

    def add(self, requests: float, count: float) -> None:
        self.requests += requests
        self.bytes += count

    def halve(self) -> None:
        self.requests /= 2
        self.bytes /= 2


class MissRatioCurve:
    """The curve of all requests that are counted. `horizon` is the size in bytes of the largest cache of interest."""

    def __init__(self, horizon: int, max_objects: int = MAX_OBJECTS) -> None:
        self._horizon = horizon
        self._max_objects = max_objects
        self._stack = ReuseDistances()
        self._threshold = HASHES
        self._largest: list[tuple[int, int]] = []  # a heap of objects in the sample: the largest hash first
        self._all = _Counts()
        self._observed = _Counts()  # what the sample stands for, as the following
        self._by_distance: dict[int, _Counts] = {}  # of requests after the first one, by step of the distance
        self._second = 0
        self._in_second = 0  # requests observed in this second

    @property
    def rate(self) -> float:
        """Return the share of all objects that the sample has."""
        return self._threshold / HASHES

    @property
    def objects(self) -> int:
        """Return the number of objects in the sample."""
        return len(self._stack)

    @property
    def requests(self) -> float:
        """Return how many requests the curve is of. Older ones count less."""
        return self._all.requests

    def is_paused(self, second: int) -> bool:
        """Return whether enough requests of this second were observed, so that no further ones count."""
        return self._in_second > MAX_OBSERVED_PER_S and second == self._second

    def __contains__(self, name: int) -> bool:
        return name in self._stack

    def count(self, requests: int, count: int) -> None:
        """Count requests and their bytes, whether or not their objects are in the sample."""
        self._all.add(requests, count)
        if self._all.requests >= HALF_LIFE_REQUESTS:
            self._halve()

    def wants(self, name: int) -> bool:
        """Return whether the requests for an object are to be observed. `name` is a uniform hash of its name."""
        return name % HASHES < self._threshold

    def observe(self, name: int, size: int, times: int, count: int, second: int) -> int | None:
        """Take `times` requests in a row for an object that the sample wants, with `count` bytes in all.

        `size` is what the object takes in a cache, and `second` is the time. Returns the size that a cache needs so
        that the first of them is a hit, None if the object is new in the sample.
        """
        needed = self._observe(name, size, times, count)
        self._bound(second)
        return needed

    def observed_size(self, name: int) -> int:
        """Return the size that an object in the sample had at its latest request, 0 if it is not in the sample."""
        return self._stack.size(name)

    def estimate(self, size: int) -> HitRatios | None:
        """Return the hit ratios of a cache of `size` bytes. Returns None before the first request."""
        if not self._all.requests:
            return None
        requests = self._all.requests - self._observed.requests
        count = self._all.bytes - self._observed.bytes
        for step, counts in self._by_distance.items():
            low, high = _bounds(step)
            share = min(1.0, max(0.0, (size + 1 - low) / (high - low)))
            requests += share * counts.requests
            count += share * counts.bytes
        return HitRatios(size, _ratio(requests, self._all.requests), _ratio(count, self._all.bytes))

    def _observe(self, name: int, size: int, times: int, count: int) -> int | None:
        distance = self._stack.request(name, size)
        weight = HASHES / self._threshold
        self._observed.add(weight * times, weight * count)
        first = count / times
        needed = None
        if distance is None:
            heapq.heappush(self._largest, (-(name % HASHES), name))
        else:
            needed = int(distance * weight) + size
            self._count(needed, weight, weight * first)
        if times > 1:
            self._count(size, weight * (times - 1), weight * (count - first))
        return needed

    def _count(self, distance: int, requests: float, count: float) -> None:
        step = _step(distance)
        if (counts := self._by_distance.get(step)) is None:
            counts = self._by_distance[step] = _Counts()
        counts.add(requests, count)

    def _bound(self, second: int) -> None:
        """Keep the sample within its bounds of memory and time."""
        stack = self._stack
        while stack.total * HASHES > self._horizon * self._threshold and len(stack) > 1:
            stack.remove_lowest()
        while len(stack) > self._max_objects:
            self._lower(-self._largest[0][0])
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > MAX_OBSERVED_PER_S and len(stack) > FEW_OBJECTS:
            self._in_second = 0
            self._lower(self._threshold // 2)
        if len(self._largest) > 2 * len(stack) + FEW_OBJECTS:
            # Objects that left by their age are still in the heap.
            self._largest = list({pair for pair in self._largest if pair[1] in self._stack})
            heapq.heapify(self._largest)

    def _lower(self, threshold: int) -> None:
        self._threshold = threshold
        while self._largest and -self._largest[0][0] >= threshold:
            _, name = heapq.heappop(self._largest)
            if name in self._stack:
                self._stack.remove(name)

    def _halve(self) -> None:
        for counts in (self._all, self._observed, *self._by_distance.values()):
            counts.halve()


def _ratio(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole else 0.0


def _step(distance: int) -> int:
    """Return the number of the step that a distance falls into. A step is at most an eighth of its distances wide."""
    if distance < _STEPS:
        return distance
    power = distance.bit_length() - 1
    return _STEPS * (power - 2) + (distance >> (power - 3)) - _STEPS


def _bounds(step: int) -> tuple[int, int]:
    """Return the first distance of a step, and that of the next one."""
    if step < _STEPS:
        return step, step + 1
    power, number = divmod(step, _STEPS)
    width = 1 << (power - 1)
    low = (_STEPS + number) * width
    return low, low + width
