"""What the cache requires of the place that holds the bytes of versions: a Protocol, and the values it hands out.

`FileStorage` is the implementation, with one sparse file per version. No other module may rely on that. All of them
read and send by `Region`, so that another storage may pack many versions into one file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from bucketfront.http.ranges import Span


class Region(NamedTuple):
    """Where the bytes of one version are: `length` bytes of the open file `fd`, from byte `offset` of the file on."""

    fd: int
    offset: int
    length: int

    def locate(self, span: Span) -> Span:
        """Return where in the file the bytes `span` of the version are."""
        return Span(span.start + self.offset, span.stop + self.offset) if self.offset else span


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The open bytes of one version. The owner of the entry closes it with `Storage.close_file`.

    `name` identifies the bytes over restarts.
    """

    name: str
    region: Region

    def with_length(self, length: int) -> "StoredFile":
        """Return the same file for a version that has grown to `length` bytes."""
        return replace(self, region=self.region._replace(length=length))


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """The space of a file system: bytes, and inodes, of which each file takes one.

    `inodes` is 0 if the file system has no fixed number of them, such as btrfs.
    """

    free: int
    total: int
    free_inodes: int = 0
    inodes: int = 0


class Storage(Protocol):
    """Holds the bytes of versions. All spans and offsets count from the first byte of the version.

    Call it in the event loop; a call that waits raises StoreError if the disk fails or takes too long. A cancelled
    caller ends no call that has begun. Blocks are `block_size` bytes, and checksums are CRC-32.
    """

    failures: int
    """The calls that failed."""

    @property
    def is_usable(self) -> bool:
        """Return whether calls may work. Returns False for a while after a failure."""

    def note_failure(self, reason: str) -> None:
        """Note a failure, after which `is_usable` is False for a while."""

    # --- one version ---------------------------------------------------------------------------------------

    async def create(self, size: int) -> StoredFile:
        """Make room for a version of `size` bytes, of which none is present. Writes may make it longer.

        Raises DiskFull if the file system refuses one more file. That is no failure: the caller may free space and try
        again.
        """

    async def open_file(self, name: str, size: int, present: list[Span] | None) -> StoredFile | None:
        """Open the version again, after a restart or after `close_file`.

        If `present` is given, the bytes outside of these spans are freed. Returns None if there is no version of this
        name with `size` bytes.
        """

    async def write(
        self, file: StoredFile, offset: int, data: bytes | memoryview, checksum: int, block_size: int
    ) -> list[int]:
        """Write `data` at `offset`. Returns the checksum of each block that it touches, in order.

        `checksum` is the one of the first block up to `offset`, and the first result continues it. Raises DiskFull as
        `create` does.
        """

    async def read(self, file: StoredFile, span: Span) -> bytes:
        """Return these bytes. Raises EOFError if the version ends early."""

    async def read_known(self, file: StoredFile, span: Span, sums: Sequence[int], block_size: int) -> bytes | None:
        """Return these bytes, or None if a block of them has another checksum than `sums`.

        `span` begins at the start of a block. Raises EOFError if the version ends early.
        """

    async def read_in(self, file: StoredFile, span: Span) -> None:
        """Bring these bytes into memory, so that sending them does not wait for the disk."""

    async def checksums(self, file: StoredFile, span: Span, block_size: int) -> list[int | None]:
        """Return the checksum of each block of `span`, or None for one that is unreadable or that the version lacks.

        `span` begins at the start of a block.
        """

    async def digest(self, file: StoredFile, size: int, algorithm: str, *, is_urgent: bool = True) -> bytes | None:
        """Return the digest of the first `size` bytes, or None if the version is shorter.

        A digest that is not urgent takes only the processor time that other work leaves.
        """

    async def audit(self, name: str, size: int, claims: Sequence[tuple[int, int]], block_size: int) -> int | None:
        """Return the set of blocks that do not have the checksum which `claims` names for them.

        Returns None if there is no version of this name with `size` bytes.
        """

    async def punch(self, file: StoredFile, span: Span) -> None:
        """Free the space of these bytes."""

    async def sync(self, file: StoredFile) -> None:
        """Wait until all writes have reached the disk.

        Do not try again after a failure: the kernel drops the pages that it could not write, so a second call succeeds
        without them.
        """

    async def remove(self, name: str) -> None:
        """Unlink the version if it is still there. It stays readable for those that have it open."""

    async def remove_all(self, names: Sequence[str]) -> None:
        """Remove several versions. If one cannot be removed, the others are removed all the same."""

    async def close_file(self, file: StoredFile) -> None:
        """Close the version after all calls that change it. A removed one frees its space then."""

    # --- the whole -----------------------------------------------------------------------------------------

    async def disk_space(self) -> DiskSpace:
        """Return the free space and the whole."""

    async def has_lost(self, index: str, identity: tuple[int, int] | None) -> bool:
        """Return whether another process deleted the storage, or replaced the index file `index` beside it."""

    async def renew(self) -> None:
        """Begin again with an empty storage after a loss. Raises CacheInUse."""
