"""One version of one object as the cache holds it, in memory.

Theory of operation
-------------------
Lookups of a key find its PUBLISHED entry. A removed entry stays in use as long as it is pinned, because its readers go
on with the open file. After the last of them the file is closed. The space is free then if the file was UNLINKED.
`Entry.state` changes only in `become`, by this table:

    NEW          PUBLISHED, REMOVED
    PUBLISHED    REMOVED, RELEASED
    REMOVED      UNLINKED, LEFT_BEHIND
    UNLINKED     -
    LEFT_BEHIND  -
    RELEASED     -
"""

from enum import Enum, auto
from typing import Protocol

from bucketfront.cache.entries.freshness_bound import UNBOUNDED, FreshnessBound
from bucketfront.cache.entries.lease import Lease
from bucketfront.cache.entries.removals import Reason
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.records import Outline, Row
from bucketfront.cache.storage.storage import StoredFile
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

ENTRY_BYTES = 4096  # charged for every entry besides its blocks: its rows, their index entries, the inode's extents

MAX_USES = 3  # counted at most: two bits tell popular entries from the others

_UNREAD = Metadata("", 0)


class EntryState(Enum):
    NEW = auto()  # no lookup finds it yet
    PUBLISHED = auto()  # lookups of its key find it
    REMOVED = auto()  # no lookup finds it any more; its file, if it has one, still has its name
    UNLINKED = auto()  # its file has lost its name
    LEFT_BEHIND = auto()  # the disk refused to unlink its file: its bytes stay charged, and the next start sweeps it
    RELEASED = auto()  # another process owns the file now, and its readers here go on as with a removed one


TRANSITIONS = {
    EntryState.NEW: (EntryState.PUBLISHED, EntryState.REMOVED),
    EntryState.PUBLISHED: (EntryState.REMOVED, EntryState.RELEASED),
    EntryState.REMOVED: (EntryState.UNLINKED, EntryState.LEFT_BEHIND),
    EntryState.UNLINKED: (),
    EntryState.LEFT_BEHIND: (),
    EntryState.RELEASED: (),
}
_REACHABLE = (EntryState.NEW, EntryState.PUBLISHED)


class EntryVerification(Protocol):
    """The verification of an entry's blocks, by `cache.fetch.block_verification.BlockVerification`."""

    async def wait(self) -> None:
        """Wait until no block of the entry is being verified."""


class EntryFill(Protocol):
    """The part of a fill that an entry's owner uses. `cache.fetch.fill.Fill` is the implementation."""

    @property
    def verification(self) -> EntryVerification: ...


class SpareResponse(Protocol):
    """A response of a lookup whose bytes no file takes. `cache.fetch.passthrough.Spare` is the implementation."""

    def close(self) -> None:
        """Let its connection go."""


class Entry:
    """A version with its metadata, its file and its block set. Only `EntryTable`, the fill and the disposal change it.

    Times are in seconds since the epoch. `present` claims that the file has these blocks (docs/invariants.md#no-holes).
    `unverified` are those of them that an earlier run wrote or verified, and this one did not yet. An entry without a
    `file_name` exists in memory only.
    """

    __slots__ = (
        "accessed_at", "bound", "bytes", "charged", "epoch", "file", "file_name", "fill", "freshness", "has_supplied",
        "id", "is_removed", "key", "lease", "lost", "metadata", "new_sums", "pins", "policy_number", "present",
        "removed_because", "spare", "state", "stored_at", "unread", "unverified", "uses", "validated_at",
    )  # fmt: skip

    def __init__(
        self,
        entry_id: int,
        key: ObjectKey,
        metadata: Metadata,
        freshness: Freshness,
        now: float,
        epoch: int,
        bound: FreshnessBound = UNBOUNDED,
    ) -> None:
        self.id = entry_id
        self.bound = bound
        self.key = key
        self.metadata = metadata
        self.freshness = freshness
        self.policy_number = 0  # of the policy that decided on the freshness; the table has that of the present one
        self.stored_at = self.validated_at = self.accessed_at = now
        self.epoch = epoch
        self.file_name: str | None = None
        self.file: StoredFile | None = None
        self.fill: EntryFill | None = None
        self.spare: SpareResponse | None = None  # until the first stream of the entry begins, or its last pin ends
        self.lease: Lease | None = None  # the one that was granted; a change of the entry revokes it
        self.present = 0
        self.unverified = 0
        self.unread = 0  # the present blocks that came from the origin, and of which no client has read a byte
        self.removed_because: Reason | None = None
        self.new_sums: dict[int, int] = {}  # CRC-32 of blocks that the index does not have yet
        self.lost: set[int] = set()  # blocks that are gone, but not yet from the index
        self.bytes = 0  # charged to the budget
        self.charged = 0  # the blocks that `bytes` includes: the present ones and those that a fetch has begun
        self.has_supplied = False  # some of its blocks came from another cache, and not from the origin
        self.pins = 0
        self.uses = 0  # requests after the first that found all their bytes, up to MAX_USES; a policy lowers it
        self.state = EntryState.NEW
        self.is_removed = False  # lookups do not find it any more; each hit reads this three times

    @classmethod
    def from_row(cls, row: Row, freshness: Freshness, epoch: int, bound: FreshnessBound = UNBOUNDED) -> "Entry":
        """Return the entry of a row. `epoch` is the current one: blocks of an older one are unverified."""
        entry = cls(row.id, row.key, row.metadata, freshness, row.stored_at, row.epoch, bound)
        entry.validated_at, entry.accessed_at = row.validated_at, row.accessed_at
        entry.file_name = row.file
        entry.bytes = row.bytes
        entry.present = entry.charged = row.present
        entry.unverified = row.present if row.epoch < epoch else 0
        entry.become(EntryState.PUBLISHED)
        return entry

    @classmethod
    def from_outline(cls, row: Outline, epoch: int) -> "Entry":
        """Return an entry that is only good to be removed: it has no metadata and no blocks."""
        entry = cls(row.id, row.key, _UNREAD, Freshness(0.0), row.stored_at, epoch)
        entry.accessed_at = row.accessed_at
        entry.file_name = row.file
        entry.bytes = row.bytes
        entry.become(EntryState.PUBLISHED)
        return entry

    def become(self, state: EntryState) -> None:
        assert state in TRANSITIONS[self.state], f"{self} cannot become {state.name}"
        self.state = state
        self.is_removed = state not in _REACHABLE

    def row(self) -> Row:
        assert self.file_name is not None
        return Row(
            self.id, self.key, self.file_name, self.metadata, self.stored_at, self.validated_at, self.accessed_at,
            self.bytes, self.epoch,
        )  # fmt: skip

    def age(self, now: float) -> float:
        """Return the age in seconds, as of RFC 9111 section 4.2.3."""
        return max(0.0, now - self.validated_at) + self.metadata.age

    def ttl(self, now: float) -> float:
        """Return the seconds of freshness left; negative if the entry is stale."""
        return self.bound.ttl(self.validated_at, self.validated_at + self.freshness.ttl, now)

    def revoke(self) -> None:
        """Revoke the lease on this entry, if there is one."""
        if self.lease is not None:
            self.lease.revoke()
            self.lease = None

    def is_complete(self, block_size: int) -> bool:
        return blocks.are_all(self.present, self.metadata.size, block_size)

    def __repr__(self) -> str:
        return (
            f"<Entry {self.key} {self.metadata.etag} {self.present.bit_count()} blocks, {self.pins} pins"
            f", {self.state.name.lower()}>"
        )
