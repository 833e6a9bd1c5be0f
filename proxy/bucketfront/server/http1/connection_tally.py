"""How many connections each process has, in memory that all of them share.

Each process writes one number, its own, and reads all others. Without a lock two of them could both take the last
place. So a process counts a connection before it reads the others' numbers, and takes it back if there is no place.
"""

import mmap
import os

SLOTS = 256  # more than there can be processes, also while some retire
_SLOT_BYTES = 4


class ConnectionTally:
    """The shared numbers, of which this process writes that of `slot`. The owner has the slot 0."""

    def __init__(self, descriptor: int, slot: int) -> None:
        """Map the memory of `descriptor`, which the caller keeps or closes."""
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, SLOTS * _SLOT_BYTES)
        self._counts = memoryview(self._memory).cast("I")
        self._slot = slot

    @classmethod
    def create(cls) -> "ConnectionTally":
        """Return the tally of an owner. It has no file, and ends with the last process that maps it. Needs Linux."""
        descriptor = os.memfd_create("connections")
        os.truncate(descriptor, SLOTS * _SLOT_BYTES)
        return cls(descriptor, 0)

    def publish(self, count: int) -> None:
        """Let all processes know how many connections this one has."""
        self._counts[self._slot] = count

    @property
    def others(self) -> int:
        """Return how many connections all other processes have."""
        return sum(self._counts) - self._counts[self._slot]

    def clear(self, slot: int) -> None:
        """Forget the connections of a process that has ended."""
        self._counts[slot] = 0

    def close(self) -> None:
        """Let go of the memory. No other method may be called after this."""
        self._counts.release()
        self._memory.close()  # it has a copy of the descriptor
        os.close(self.descriptor)
