"""S3's 404s, remembered for a short time, in memory, and only so many (I13)."""

from collections import OrderedDict
from collections.abc import Callable

from proxy.keys import ObjectKey

CAPACITY = 10_000


class Absences:
    """Key -> when the 404 may no longer be believed, in seconds since the epoch. `ttl`: seconds to believe it."""

    def __init__(self, ttl: Callable[[ObjectKey], float]) -> None:
        self._ttl = ttl
        self._until: OrderedDict[ObjectKey, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def remember(self, key: ObjectKey, now: float) -> None:
        if (ttl := self._ttl(key)) <= 0:
            return
        self._until[key] = now + ttl
        self._until.move_to_end(key)
        if len(self._until) > CAPACITY:
            self._until.popitem(last=False)

    def ttl(self, key: ObjectKey, now: float) -> float | None:
        """Seconds that the 404 still holds, None where there is none."""
        until = self._until.get(key)
        if until is None or until <= now:
            return None
        return until - now

    def forget(self, is_hit: Callable[[ObjectKey], bool]) -> None:
        for key in [key for key in self._until if is_hit(key)]:
            del self._until[key]
