"""The space that the cache may take. All of it is counted here and nowhere else (docs/invariants.md#space-bound).

Bytes are taken before they are written, and given back after the file system has freed them. Files are counted for
their inodes alone.
"""

from dataclasses import dataclass

_UNLIMITED = 1 << 62  # files, of a file system without a fixed number of inodes


@dataclass
class Budget:
    """The account, in bytes. `limit` is `max_size`, `floor` is `min_free`, and `overhead` is the space of the index.

    `inode_floor` is the number of inodes that stay free.
    """

    limit: int
    used: int = 0
    floor: int = 0
    overhead: int = 0
    taken: int = 0  # since the start, given back or not
    _free: int | None = None  # on the disk, as of the last sample
    _unsampled: int = 0  # taken, but maybe not yet written when the sample was taken
    inode_floor: int = 0
    files_taken: int = 0  # since the start, removed or not
    _free_inodes: int = _UNLIMITED  # as of the last sample
    _unsampled_files: int = 0
    disk_size: int = 0  # of the whole disk, as of the last sample
    inodes: int = 0  # of the whole disk; 0 if their number is not fixed

    def sample(self, free: int, promised: int = 0) -> None:
        """Note the free bytes of the disk.

        `promised` bytes were taken, but may not have been written when the disk was sampled. They count against `free`,
        as do the bytes that are taken until the next sample.
        """
        self._free = free
        self._unsampled = promised

    def sample_inodes(self, free: int | None, promised: int = 0) -> None:
        """Note the free inodes of the disk, as `sample` does. None means that their number is not fixed."""
        self._free_inodes = _UNLIMITED if free is None else free
        self._unsampled_files = promised

    @property
    def available(self) -> int:
        """Return the bytes that may be taken now. The number is negative if too many are in use."""
        within = self.limit - self.used - self.overhead
        if self._free is None:
            return within
        return min(within, self._free - self._unsampled - self.floor)

    @property
    def available_files(self) -> int:
        """Return the files that may be made now. The number is negative if too few inodes are free."""
        return self._free_inodes - self._unsampled_files - self.inode_floor

    @property
    def disk_free(self) -> int:
        """Return the free bytes of the disk as of the last sample."""
        return self._free or 0

    @property
    def free_inodes(self) -> int:
        """Return the free inodes as of the last sample, 0 if their number is not fixed."""
        return self._free_inodes if self.inodes else 0

    @property
    def lacks_inodes(self) -> bool:
        """Return whether so few inodes are free that evictions do not keep the floor, because others take them.

        A cache that takes all inodes down to the floor lacks none, because each new file takes the place of an old one.
        """
        return self.inodes > 0 and self._free_inodes <= self.inode_floor // 2

    @property
    def is_overdrawn(self) -> bool:
        """Return whether entries must be removed although no request needs space."""
        return self.available < 0 or self.available_files < 0

    @property
    def is_bound_by_disk(self) -> bool:
        """Return whether `min_free` is the tighter bound, and not `max_size`."""
        return self.available < self.limit - self.used - self.overhead or self.available_files <= 0

    def take(self, count: int) -> None:
        """Count bytes that will be written. The caller has checked that they are available."""
        self.used += count
        self.taken += count
        self._unsampled += count

    def take_files(self, count: int) -> None:
        """Count files that will be made. The caller has checked that the disk has inodes for them."""
        self.files_taken += count
        self._unsampled_files += count

    def give_back(self, count: int) -> None:
        """Count bytes that the file system has freed, or that will not be written."""
        assert count <= self.used, f"gave back {count} of {self.used} bytes"
        self.used -= count
