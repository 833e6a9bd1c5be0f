"""S3's 404s, remembered for a short time, in memory, and only so many (I13)."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from bucketfront.keys import ObjectKey

CAPACITY = 10_000


@dataclass(eq=False, slots=True)
class Absence:
    """One 404, to be believed before `until` (seconds since the epoch), and only as long as `is_valid`."""

    until: float
    is_valid: bool = True


class NegativeCache:
    """`ttl`: seconds to believe the 404 of a key."""

    def __init__(self, ttl: Callable[[ObjectKey], float]) -> None:
        self._ttl = ttl
        self._known: OrderedDict[ObjectKey, Absence] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, key: ObjectKey, now: float) -> None:
        if (ttl := self._ttl(key)) <= 0:
            return
        self.forget(key)
        self._known[key] = Absence(now + ttl)
        if len(self._known) > CAPACITY:
            _, oldest = self._known.popitem(last=False)
            oldest.is_valid = False

    def find(self, key: ObjectKey, now: float) -> Absence | None:
        """The 404 that still holds."""
        known = self._known.get(key)
        return None if known is None or known.until <= now else known

    def was(self, key: ObjectKey) -> bool:
        """There was a 404, and nothing is known since."""
        return key in self._known

    def ttl(self, key: ObjectKey, now: float) -> float | None:
        """Seconds that the 404 still holds, None where there is none."""
        known = self.find(key, now)
        return None if known is None else known.until - now

    def forget(self, key: ObjectKey) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            known.is_valid = False

    def forget_all(self, is_hit: Callable[[ObjectKey], bool]) -> None:
        for key in [key for key in self._known if is_hit(key)]:
            self.forget(key)
