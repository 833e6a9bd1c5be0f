"""The space the cache may take. Every byte counted against the limit is counted here, and nowhere else (I17).

Bytes are taken before they are written and given back after the file system has them again.
"""

from dataclasses import dataclass


@dataclass
class Budget:
    """All in bytes. `limit` is `max_size`; `floor` is `min_free`; `overhead` is what the index itself takes."""

    limit: int
    used: int = 0
    floor: int = 0
    overhead: int = 0
    taken: int = 0  # ever
    _free: int | None = None  # on the disk, as last sampled
    _taken: int = 0  # and not in the sample

    def sample(self, free: int, promised: int = 0) -> None:
        """What the disk said it has free. Against it count `promised` bytes, which were taken and may not have been
        written when it was asked, and until the next sample what is taken afterwards.
        """
        self._free = free
        self._taken = promised

    @property
    def room(self) -> int:
        """Bytes that may be taken now; negative when over."""
        within = self.limit - self.used - self.overhead
        if self._free is None:
            return within
        return min(within, self._free - self._taken - self.floor)

    @property
    def is_bound_by_disk(self) -> bool:
        """True where `min_free`, not `max_size`, is what leaves no room."""
        return self.room < self.limit - self.used - self.overhead

    def take(self, count: int) -> None:
        self.used += count
        self.taken += count
        self._taken += count

    def give_back(self, count: int) -> None:
        assert count <= self.used, f"gave back {count} of {self.used} bytes"
        self.used -= count
