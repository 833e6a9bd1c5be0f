"""Why entries were removed, and why objects were not stored.

Each is counted by its reason, and the last one of a key is remembered for a while, so that an operator can see why the
key is not in the cache. The memory is bounded: it has the hashes of MAX_REMEMBERED keys, and none of their names.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from bucketfront.errors import DiskFull, ObjectTooLarge, StoreError, StoreFull
from bucketfront.http.freshness import Basis
from bucketfront.keys import ObjectKey

MAX_REMEMBERED = 10_000  # keys, at about 300 bytes each
AGE_BOUNDS_S = (1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)
"""The upper bounds of the histograms. The longest are of a day, a week and a month."""


class RemovalReason(Enum):
    """Why an entry was removed. The values are labels of metrics, so they are stable."""

    SPACE = "space"  # the cache needed its space for other objects
    IDLE = "idle"  # no request came within the idle timeout
    PURGED = "purged"
    WRITTEN = "written"  # a write or a delete through the proxy
    CHANGED = "changed"  # the origin has another version
    DELETED = "deleted"  # the origin has no such object any more
    CORRUPT = "corrupt"  # its bytes did not fit S3's own checksum
    INCOMPLETE = "incomplete"  # its body broke off, and no other response may complete it
    LOST = "lost"  # its file is gone, or the disk failed


class StorageRefusal(Enum):
    """Why an object was not stored. The values are labels of metrics, so they are stable."""

    NO_STORE = "no-store"  # its own Cache-Control has no-store
    PRIVATE = "private"  # its own Cache-Control has private
    RULE = "rule"  # a rule of the configuration has `cache: false`
    NO_VALIDATOR = "no-validator"  # no ETag tells its versions apart
    TOO_LARGE = "too-large"  # it is larger than the whole cache
    NO_ROOM = "no-room"  # all entries that could make room are in use
    DISK_FULL = "disk-full"
    DISK_FAILING = "disk-failing"
    OVERTAKEN = "overtaken"  # a write, a purge or the stop of the proxy came meanwhile


Reason = RemovalReason | StorageRefusal

_REFUSALS = {
    Basis.NO_STORE: StorageRefusal.NO_STORE,
    Basis.PRIVATE: StorageRefusal.PRIVATE,
    Basis.RULE: StorageRefusal.RULE,
    Basis.NO_VALIDATOR: StorageRefusal.NO_VALIDATOR,
}


def refusal_of(basis: Basis) -> StorageRefusal:
    """Return why an object is not stored whose freshness has that basis."""
    return _REFUSALS[basis]


def refusal_because_of(error: StoreError) -> StorageRefusal:
    """Return why an object, or some of its bytes, are not stored after that error of the disk or the budget."""
    match error:
        case ObjectTooLarge():
            return StorageRefusal.TOO_LARGE
        case StoreFull():
            return StorageRefusal.NO_ROOM
        case DiskFull():
            return StorageRefusal.DISK_FULL
        case _:
            return StorageRefusal.DISK_FAILING


@dataclass(frozen=True, slots=True)
class Removal:
    """The last known reason why a key has no entry.

    `at` is in seconds since the epoch, by the cache's clock. `age` is the time since the entry was stored, and `idle`
    the time since its last use, both in seconds at the removal. They are 0 for an object that was not stored.
    """

    reason: Reason
    at: float
    age: float = 0.0
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class RemovalFigures:
    """The removals for one reason since the start.

    `ages` and `idles` count them by AGE_BOUNDS_S: each bucket alone, and the last one has those beyond all bounds. The
    sums are in seconds.
    """

    reason: RemovalReason
    count: int
    ages: tuple[int, ...]
    age_sum: float
    idles: tuple[int, ...]
    idle_sum: float


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(AGE_BOUNDS_S) + 1))
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(AGE_BOUNDS_S, seconds)] += 1
        self.sum += seconds


@dataclass(slots=True)
class _Tally:
    count: int = 0
    ages: _Histogram = field(default_factory=_Histogram)
    idles: _Histogram = field(default_factory=_Histogram)


class Removals:
    """Counts removals and refusals, and remembers the last one of each key. `clock` is the cache's clock."""

    def __init__(self, clock: Callable[[], float], limit: int = MAX_REMEMBERED) -> None:
        self._clock = clock
        self._limit = limit
        self._last: OrderedDict[int, Removal] = OrderedDict()  # by the hash of the key, oldest first
        self._removed = {reason: _Tally() for reason in RemovalReason}
        self._refused = dict.fromkeys(StorageRefusal, 0)

    def __len__(self) -> int:
        return len(self._last)

    def removed(self, key: ObjectKey | None, reason: RemovalReason, stored_at: float, accessed_at: float) -> None:
        """Note that an entry was removed. Times are in seconds since the epoch. Without a key, it is only counted."""
        now = self._clock()
        age, idle = max(0.0, now - stored_at), max(0.0, now - accessed_at)
        tally = self._removed[reason]
        tally.count += 1
        tally.ages.add(age)
        tally.idles.add(idle)
        if key is not None:
            self._remember(key, Removal(reason, now, age, idle))

    def refused(self, key: ObjectKey, reason: StorageRefusal) -> None:
        """Note that an object was not stored."""
        self._refused[reason] += 1
        self._remember(key, Removal(reason, self._clock()))

    def last(self, key: ObjectKey) -> Removal | None:
        """Return the last removal or refusal of a key. Returns None if there was none, or it is forgotten."""
        return self._last.get(hash(key))

    def count(self, reason: RemovalReason) -> int:
        """Return the number of entries that were removed for that reason."""
        return self._removed[reason].count

    @property
    def figures(self) -> tuple[RemovalFigures, ...]:
        """Return the figures of all reasons."""
        return tuple(
            RemovalFigures(
                reason,
                tally.count,
                tuple(tally.ages.counts),
                tally.ages.sum,
                tuple(tally.idles.counts),
                tally.idles.sum,
            )
            for reason, tally in self._removed.items()
        )

    @property
    def refusals(self) -> tuple[tuple[StorageRefusal, int], ...]:
        """Return the number of refusals by reason."""
        return tuple(self._refused.items())

    def _remember(self, key: ObjectKey, removal: Removal) -> None:
        name = hash(key)
        self._last.pop(name, None)
        self._last[name] = removal
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
