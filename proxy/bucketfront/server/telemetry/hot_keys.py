"""The keys that had the most weight of late, in bounded memory, with a bound on the error.

Theory of operation
-------------------
These are the counters of Misra and Gries ("Finding repeated elements", 1982). They are those of the space-saving
sketch less its smallest counter (Agarwal et al., "Mergeable summaries", 2012), and take whole batches at less cost.

At most PRUNE_FACTOR times `capacity` counters and one batch are kept. Beyond that, `_prune` subtracts the largest
counter that has to go from all counters, and keeps the positive ones. So `capacity` + 1 counters lose that weight at
once, and for each key, at any time:

    weight counted  <=  true weight  <=  weight counted + error
    error           <=  total weight / (capacity + 1)

Hence each key with more than one part in `capacity` + 1 of the total weight is among the counters.

All weights halve in `half_life_s`. Instead of all counters getting smaller, the weights that are added get larger: see
`_scale`. This changes no comparison of two counters, and both lines above hold for the decayed weights.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

PRUNE_FACTOR = 4  # a prune sorts all counters, so it should remove many
MAX_DOUBLINGS = 64.0  # of the weights that are added, before the counters are made smaller; floats have a thousand


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key with the weight that was counted of it. Its true weight is larger by at most `HotKeys.error`."""

    key: str
    weight: float


class HotKeys:
    """The keys with the most weight, which halves in `half_life_s` seconds. `clock` is in seconds."""

    def __init__(self, capacity: int, half_life_s: float, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._half_life_s = half_life_s
        self._clock = clock
        self._began = clock()
        self._epoch = self._began  # when a weight of 1 was added as 1
        self._counted: dict[str, float] = {}
        self._error = 0.0
        self._total = 0.0

    def __len__(self) -> int:
        return len(self._counted)

    def add(self, weights: Iterable[tuple[str, float]]) -> None:
        """Add a batch of keys with their weights, which are not negative."""
        scale = self._scale()
        counted = self._counted
        for key, weight in weights:
            scaled = weight * scale
            counted[key] = counted.get(key, 0.0) + scaled
            self._total += scaled
        if len(counted) > PRUNE_FACTOR * self._capacity:
            self._prune()

    def top(self, count: int) -> list[HotKey]:
        """Return the keys with the most weight counted, the heaviest first."""
        scale = self._scale()
        heaviest = sorted(self._counted.items(), key=lambda item: (-item[1], item[0]))[:count]
        return [HotKey(key, weight / scale) for key, weight in heaviest]

    def weight(self, key: str) -> float:
        """Return the weight that was counted of a key, 0 if it has no counter."""
        scale = self._scale()  # it may replace the counters
        return self._counted.get(key, 0.0) / scale

    @property
    def error(self) -> float:
        """Return how much larger than its counter the weight of a key may be."""
        scale = self._scale()
        return self._error / scale

    @property
    def total(self) -> float:
        """Return the weight of all keys."""
        scale = self._scale()
        return self._total / scale

    @property
    def window_s(self) -> float:
        """Return the seconds that weights stand for: a weight of 1 in each second adds up to as many. At least 1."""
        age = self._clock() - self._began
        return max(1.0, self._half_life_s / math.log(2) * (1 - math.exp2(-age / self._half_life_s)))

    def _scale(self) -> float:
        """Return how much a weight of 1 counts now, which doubles in each half-life."""
        doublings = (self._clock() - self._epoch) / self._half_life_s
        if doublings <= MAX_DOUBLINGS:
            return math.exp2(doublings)
        factor = math.exp2(-doublings)
        self._counted = {key: weight * factor for key, weight in self._counted.items() if weight * factor > 0}
        self._error *= factor
        self._total *= factor
        self._epoch += doublings * self._half_life_s
        return 1.0

    def _prune(self) -> None:
        """Keep at most `capacity` counters."""
        least = sorted(self._counted.values(), reverse=True)[self._capacity]
        self._counted = {key: weight - least for key, weight in self._counted.items() if weight > least}
        self._error += least
