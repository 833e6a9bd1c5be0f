"""What the next GET of a path would get, and why: from views of its candidates, without I/O.

The cache decides about each candidate (`KeyView.decision`), and the order of the candidates is that of requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from bucketfront.cache import Decision, EntryView, KeyView, Removal, RemovalReason, StorageRefusal
from bucketfront.config.quantities import rounded_duration
from bucketfront.http.presentation import may_have_coding
from bucketfront.server.selection import Candidate


class Next(Enum):
    """What the next GET gets. The values are stable, for programs."""

    HIT = "hit"
    PARTIAL = "partial"  # a fresh entry, and the origin for the bytes that it lacks
    STALE = "stale"  # at once from a stale entry, which is revalidated in the background
    REVALIDATE = "revalidate"
    MISS = "miss"
    BYPASS = "bypass"  # from the origin, and not stored
    ABSENT = "absent"  # a 404 that is remembered
    REDIRECT = "redirect"
    REFUSED = "refused"  # before the cache is asked


@dataclass(frozen=True, slots=True)
class Examined:
    """A candidate with what the cache knows of it. `may_store` is false if a rule has `cache: false` for it."""

    candidate: Candidate
    view: KeyView
    may_store: bool

    @property
    def is_passed_over(self) -> bool:
        """Return whether requests try the other candidates first, because this one was refused a short while ago."""
        return self.candidate.is_optional and self.view.is_refused

    @property
    def is_absent(self) -> bool:
        """Return whether requests go on with the next candidate."""
        entry = self.view.entry
        has_other_coding = entry is not None and not may_have_coding(entry.metadata, self.candidate.coding)
        return self.view.decision is Decision.ABSENT or has_other_coding

    @property
    def next(self) -> Next:
        """Return what a GET gets that comes to this candidate."""
        match self.view.decision:
            case Decision.MISS:
                return Next.MISS if self.may_store else Next.BYPASS
            case Decision.HIT | Decision.STALE if self.candidate.location is not None:
                return Next.REDIRECT
            case Decision.HIT if self.view.blocks is not None and not self.view.blocks.is_complete:
                return Next.PARTIAL
            case decision:
                return Next(decision.value)

    @property
    def why(self) -> str:
        """Return the reason for `next` in a sentence."""
        view = self.view
        if self.next in (Next.HIT, Next.STALE, Next.REVALIDATE) and view.entry is not None:
            return _why_of_entry(self.next, view.entry)
        absent_for = rounded_duration(view.absent_for or 0.0)
        fixed = {
            Next.PARTIAL: "it is fresh, and the bytes that the cache lacks are fetched",
            Next.REDIRECT: f"clients are redirected to {self.candidate.location}",
            Next.BYPASS: "a rule has `cache: false` for it",
            Next.ABSENT: f"S3 has no such object; that is remembered for another {absent_for}",
        }
        return fixed.get(self.next) or why_not_cached(view)


def _why_of_entry(what: Next, entry: EntryView) -> str:
    if what is Next.HIT:
        return f"it is fresh for another {rounded_duration(entry.ttl)}"
    if entry.validated_at is None:
        return "it was marked stale"
    since = f"it is stale since {rounded_duration(-entry.ttl)}"
    return f"{since}, and is revalidated in the background" if what is Next.STALE else since


def deciding(found: Sequence[Examined]) -> Examined | None:
    """Return the candidate that the next GET gets. Returns None if the origin is known to have none of them."""
    ordered = [each for each in found if not each.is_passed_over] + [each for each in found if each.is_passed_over]
    return next((each for each in ordered if not each.is_absent), None)


def why_not_cached(view: KeyView) -> str:
    """Return why the cache has no entry of a key, as far as it knows."""
    if view.is_looked_up:
        return "it is not in the cache; a request to S3 is under way"
    if view.removal is None:
        return "it is not in the cache, and no request for it is remembered"
    return f"it is not in the cache: {described(view.removal, view.now)}"


def described(removal: Removal, now: float) -> str:
    """Return a removal or a refusal in words, with its time."""
    ago = f"{rounded_duration(now - removal.at)} ago"
    if isinstance(removal.reason, StorageRefusal):
        return f"{_REFUSED[removal.reason]}, {ago}"
    age, idle = rounded_duration(removal.age), rounded_duration(removal.idle)
    return f"{_REMOVED[removal.reason]} {ago}, {age} old and unused for {idle}"


_REMOVED = {
    RemovalReason.SPACE: "evicted for space",
    RemovalReason.IDLE: "removed because it was idle",
    RemovalReason.PURGED: "purged",
    RemovalReason.WRITTEN: "removed by a write through the proxy",
    RemovalReason.CHANGED: "removed because S3 had another version",
    RemovalReason.DELETED: "removed because S3 had no such object any more",
    RemovalReason.CORRUPT: "removed because its bytes did not fit S3's checksum",
    RemovalReason.INCOMPLETE: "removed because its body broke off",
    RemovalReason.LOST: "removed because its file was gone or the disk failed",
}
_REFUSED = {
    StorageRefusal.NO_STORE: "not stored because its own headers have no-store",
    StorageRefusal.PRIVATE: "not stored because its own headers have private",
    StorageRefusal.RULE: "not stored because a rule has `cache: false`",
    StorageRefusal.NO_VALIDATOR: "not stored because it has no ETag",
    StorageRefusal.TOO_LARGE: "not stored because it is larger than cache.max_size",
    StorageRefusal.NO_ROOM: "not stored because all that could make room was in use",
    StorageRefusal.DISK_FULL: "not stored because the disk was full",
    StorageRefusal.DISK_FAILING: "not stored because the disk failed",
    StorageRefusal.OVERTAKEN: "not stored because a purge, a write or a stop came meanwhile",
}
