"""What a purge selects, as a frozen value. No I/O here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from bucketfront.cache.upkeep.spared_version import SparedVersion
from bucketfront.http.glob import Glob
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey


@dataclass(frozen=True, slots=True)
class PathGlob:
    """A pattern (see `Glob`) for the paths of keys: `path`, and the key behind its first `skip` characters."""

    pattern: str
    path: str = ""
    skip: int = 0
    glob: Glob = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "glob", Glob(self.pattern))

    def matches(self, key: str) -> bool:
        return self.glob.matches(self.path + key[self.skip :])


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys of a bucket that begin with `prefix`, with all their versions. `glob` selects some of them."""

    bucket: str
    prefix: str
    glob: PathGlob | None = None

    def has(self, key: ObjectKey) -> bool:
        """Return whether the range has the key."""
        if key.bucket != self.bucket or not key.key.startswith(self.prefix):
            return False
        return self.glob is None or self.glob.matches(key.key)

    def meets(self, other: "KeyRange") -> bool:
        """Return whether a key may be in both."""
        return self.bucket == other.bucket and (
            self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix)
        )

    def covers(self, other: "KeyRange") -> bool:
        """Return whether all keys of the other range are in this one, as far as the prefixes show it."""
        return self.glob is None and self.bucket == other.bucket and other.prefix.startswith(self.prefix)


@dataclass(frozen=True, slots=True)
class PurgeSelection:
    """The objects to purge: keys, ranges of keys, objects with a tag, and all of the cache if `everything` is true.

    `versions` includes the pinned versions of `keys`. A range always includes them. The entry of a key stays as it is
    if all versions that `spared` has for the key spare it.
    """

    keys: frozenset[ObjectKey] = frozenset()
    ranges: tuple[KeyRange, ...] = ()
    tags: tuple[str, ...] = ()
    everything: bool = False
    versions: bool = False
    spared: Mapping[ObjectKey, tuple[SparedVersion, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        keys: Iterable[ObjectKey] = (),
        ranges: Iterable[KeyRange] = (),
        *,
        tags: Iterable[str] = (),
        everything: bool = False,
        versions: bool = False,
        spared: Mapping[ObjectKey, tuple[SparedVersion, ...]] | None = None,
    ) -> Self:
        """Return a selection without the ranges that others cover."""
        if everything:
            return cls(everything=True, versions=True)
        kept: list[KeyRange] = []
        for candidate in sorted(ranges, key=lambda each: (each.glob is not None, len(each.prefix))):
            if not any(known.covers(candidate) for known in kept):
                kept.append(candidate)
        return cls(frozenset(keys), tuple(kept), tuple(dict.fromkeys(tags)), versions=versions, spared=spared or {})

    @property
    def needs_walk(self) -> bool:
        """Return whether not all selected keys are known by name."""
        return self.everything or self.versions or bool(self.ranges) or bool(self.tags)

    def has(self, key: ObjectKey) -> bool:
        """Return whether the selection has the key, whatever tags its object has."""
        return self.everything or self.has_by_name(key) or any(each.has(key) for each in self.ranges)

    def has_by_name(self, key: ObjectKey) -> bool:
        """Return whether `keys` has the key, or the object of that version."""
        if key in self.keys:
            return True
        return self.versions and key.version is not None and key._replace(version=None) in self.keys

    def spares(self, key: ObjectKey, metadata: Metadata) -> bool:
        """Return whether the entry of a key stays as it is, with that metadata."""
        tests = self.spared.get(key, ())
        return bool(tests) and all(each.spares(metadata) for each in tests)

    def spares_write(self, key: ObjectKey, etag: str) -> bool:
        """Return whether the lookup of a key goes on that follows a write with that ETag."""
        tests = self.spared.get(key, ())
        return bool(tests) and all(each.is_of_write(etag) for each in tests)

    def before(self, range_: KeyRange) -> Callable[[ObjectKey], bool]:
        """Return a function that tells the keys which an earlier part of the selection has than this range."""
        earlier = [each for each in self.ranges[: self.ranges.index(range_)] if each.meets(range_)]
        return lambda key: self.has_by_name(key) or any(each.has(key) for each in earlier)
