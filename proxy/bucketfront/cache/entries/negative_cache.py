"""S3's 404s, remembered in memory for a short time (docs/invariants.md#errors-are-not-data)."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from bucketfront.keys import ObjectKey

MAX_ABSENCES = 10_000  # so that requests for random keys take a few MiB of memory at most


@dataclass(eq=False, slots=True)
class Absence:
    """One 404. It holds until `until` (seconds since the epoch), and only while `is_valid` is true."""

    until: float
    is_valid: bool = True


class NegativeCache:
    """The 404s by key. `ttl` returns for how many seconds the 404 of a key holds; 0 means not at all."""

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
        if len(self._known) > MAX_ABSENCES:
            _, oldest = self._known.popitem(last=False)
            oldest.is_valid = False

    def find(self, key: ObjectKey, now: float) -> Absence | None:
        """Return the 404 of `key` if it still holds."""
        known = self._known.get(key)
        return None if known is None or known.until <= now else known

    def contains(self, key: ObjectKey) -> bool:
        """Return whether the latest that S3 returned for `key` is a 404, even if it does not hold any more."""
        return key in self._known

    def ttl(self, key: ObjectKey, now: float) -> float | None:
        """Return for how many seconds the 404 of `key` still holds. Returns None if it does not."""
        known = self.find(key, now)
        return None if known is None else known.until - now

    def forget(self, key: ObjectKey) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            known.is_valid = False

    def forget_all(self, is_hit: Callable[[ObjectKey], bool]) -> None:
        for key in [key for key in self._known if is_hit(key)]:
            self.forget(key)
