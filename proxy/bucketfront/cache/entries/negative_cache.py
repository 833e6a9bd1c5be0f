"""S3's 404s, remembered in memory for a short time (docs/invariants.md#errors-are-not-data).

Refusals are remembered beside them: a 403 or a failure of an optional candidate. They only keep such a candidate from
being requested again at once. No client gets one as a response.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from bucketfront.cache.entries.freshness_bound import UNBOUNDED, FreshnessBound
from bucketfront.keys import ObjectKey

MAX_ABSENCES = 10_000  # so that requests for random keys take a few MiB of memory at most


@dataclass(eq=False, slots=True)
class Absence:
    """One 404 of the time `since`. See `holds`. Times are in seconds since the epoch."""

    until: float
    since: float = 0.0
    bound: FreshnessBound = UNBOUNDED
    is_valid: bool = True

    def holds(self, now: float) -> bool:
        """Return whether a response may be this 404."""
        return self.is_valid and now < self.until and now < self.bound.until(self.since)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One 403 if `is_denied`, else a failure of the origin. It holds until `until` (seconds since the epoch)."""

    until: float
    is_denied: bool


class NegativeCache:
    """The 404s and the refusals by key. `ttl` returns for how many seconds those of a key hold; 0 means not at all."""

    def __init__(self, ttl: Callable[[ObjectKey], float], bound: FreshnessBound = UNBOUNDED) -> None:
        self._bound = bound
        self._ttl = ttl
        self._known: OrderedDict[ObjectKey, Absence] = OrderedDict()
        self._refusals: OrderedDict[ObjectKey, Refusal] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, key: ObjectKey, now: float) -> None:
        if (ttl := self._ttl(key)) <= 0:
            return
        self.forget(key)
        self._known[key] = Absence(now + ttl, now, self._bound)
        if len(self._known) > MAX_ABSENCES:
            _, oldest = self._known.popitem(last=False)
            oldest.is_valid = False

    def find(self, key: ObjectKey, now: float) -> Absence | None:
        """Return the 404 of `key` if it still holds."""
        known = self._known.get(key)
        return known if known is not None and known.holds(now) else None

    def contains(self, key: ObjectKey) -> bool:
        """Return whether the latest that S3 returned for `key` is a 404, even if it does not hold any more."""
        return key in self._known

    def ttl(self, key: ObjectKey, now: float) -> float | None:
        """Return for how many seconds the 404 of `key` still holds. Returns None if it does not."""
        known = self.find(key, now)
        return None if known is None else known.until - now

    def ttl_of(self, key: ObjectKey) -> float:
        """Return for how many seconds a 404 of `key` would hold that came now."""
        return self._ttl(key)

    def refuse(self, key: ObjectKey, now: float, *, is_denied: bool) -> None:
        """Remember a 403, or a failure of the origin, for as long as a 404."""
        if (ttl := self._ttl(key)) <= 0:
            return
        self._refusals.pop(key, None)
        self._refusals[key] = Refusal(now + ttl, is_denied)
        if len(self._refusals) > MAX_ABSENCES:
            self._refusals.popitem(last=False)

    def refusal(self, key: ObjectKey, now: float) -> Refusal | None:
        """Return the refusal of `key` if it still holds."""
        known = self._refusals.get(key)
        return None if known is None or known.until <= now else known

    def change_ttl(self, ttl: Callable[[ObjectKey], float]) -> None:
        """Let `ttl` decide from now on. Forgets what was remembered by the one before."""
        self._ttl = ttl
        for key in self.keys():
            self.forget(key)

    def forget(self, key: ObjectKey) -> None:
        self._refusals.pop(key, None)
        known = self._known.pop(key, None)
        if known is not None:
            known.is_valid = False

    def keys(self) -> list[ObjectKey]:
        """Return the keys of all 404s and refusals."""
        return [*self._known, *self._refusals]
