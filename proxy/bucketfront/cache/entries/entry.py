"""One version of one object as the cache holds it, in memory."""

from typing import Protocol

from bucketfront.cache.entries.lease import Lease
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.records import Outline, Row
from bucketfront.cache.storage.storage import StoredFile
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

# Charged for every entry besides its blocks: its rows, their index entries, the inode's extents.
ENTRY_BYTES = 4096

_UNREAD = Metadata("", 0)


class EntryFill(Protocol):
    """What an entry needs of its fill. `cache.fetch.fill.Fill` is the implementation."""

    async def verified(self) -> None:
        """Wait until no block of the entry is being verified."""


class Entry:
    """Changed only by `EntryTable` and by the fill; all else reads it.

    Present blocks are claims about bytes in the file (I2). `unverified` are those of them that were written
    before an unclean stop and not looked at since. An entry without a `file_name` is metadata only, in memory.
    """

    __slots__ = (
        "accessed_at", "bytes", "charged", "epoch", "file", "file_name", "fill", "freshness", "id", "key",
        "lease", "left_behind", "lost", "metadata", "new_sums", "pins", "present", "published", "removed", "stored_at",
        "unlinked", "unverified", "validated_at",
    )  # fmt: skip

    def __init__(
        self, entry_id: int, key: ObjectKey, metadata: Metadata, freshness: Freshness, now: float, epoch: int
    ) -> None:
        self.id = entry_id
        self.key = key
        self.metadata = metadata
        self.freshness = freshness
        self.stored_at = self.validated_at = self.accessed_at = now
        self.epoch = epoch
        self.file_name: str | None = None
        self.file: StoredFile | None = None
        self.fill: EntryFill | None = None
        self.lease: Lease | None = None  # granted; whatever changes the entry revokes it
        self.present = 0
        self.unverified = 0
        self.new_sums: dict[int, int] = {}  # CRC-32 of blocks that the index does not have yet
        self.lost: set[int] = set()  # blocks that the index still has
        self.bytes = 0  # charged to the budget
        self.charged = 0  # the blocks among that: the present ones, and those begun and not finished
        self.pins = 0
        self.published = False  # reachable by its key
        self.removed = False  # no longer reachable; its file goes, or is gone
        self.unlinked = False
        self.left_behind = False  # the disk refused to unlink it: its bytes stay charged, the next start sweeps it

    @classmethod
    def from_row(cls, row: Row, freshness: Freshness, epoch: int) -> "Entry":
        entry = cls(row.id, row.key, row.metadata, freshness, row.stored_at, row.epoch)
        entry.validated_at, entry.accessed_at = row.validated_at, row.accessed_at
        entry.file_name = row.file
        entry.bytes = row.bytes
        entry.present = entry.charged = row.present
        entry.unverified = row.present if row.epoch < epoch else 0
        entry.published = True
        return entry

    @classmethod
    def from_outline(cls, row: Outline, epoch: int) -> "Entry":
        """Return an entry that is only good to be removed: it has no metadata and no blocks."""
        entry = cls(row.id, row.key, _UNREAD, Freshness(0.0), row.accessed_at, epoch)
        entry.file_name = row.file
        entry.bytes = row.bytes
        entry.published = True
        return entry

    def row(self) -> Row:
        assert self.file_name is not None
        return Row(
            self.id, self.key, self.file_name, self.metadata, self.stored_at, self.validated_at, self.accessed_at,
            self.bytes, self.epoch,
        )  # fmt: skip

    def age(self, now: float) -> float:
        """RFC 9111 section 4.2.3, in seconds: since the last validation, plus what the origin said."""
        return max(0.0, now - self.validated_at) + self.metadata.age

    def ttl(self, now: float) -> float:
        """Seconds of freshness left; negative when stale."""
        return self.validated_at + self.freshness.ttl - now

    def revoke(self) -> None:
        """Revoke the lease on this entry, if there is one."""
        if self.lease is not None:
            self.lease.revoke()
            self.lease = None

    def is_complete(self, block_size: int) -> bool:
        return self.present == blocks.all_blocks(self.metadata.size, block_size)

    def __repr__(self) -> str:
        return (
            f"<Entry {self.key} {self.metadata.etag} {self.present.bit_count()} blocks, {self.pins} pins"
            f"{', removed' if self.removed else ''}>"
        )
