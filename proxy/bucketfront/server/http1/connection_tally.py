"""How many connections each process has, in all and of each client, in memory that all of them share.

Each process writes its own numbers, and reads those of all others. Without a lock two of them could both take the last
place. So a process counts a connection before it reads the others' numbers, and takes it back if there is no place.

A client has one of BUCKETS numbers in the row of each process. Two clients with one number count as one, which happens
by chance alone, because the hash has a key.
"""

import mmap
import os
from hashlib import blake2b
from itertools import compress

SLOTS = 256  # more than there can be processes, also while some retire
BUCKETS = 1 << 14  # 64 KiB for each process, of which the kernel provides what is used
_NUMBER_BYTES = 4
_KEY_BYTES = 16
_ROWS = _KEY_BYTES // _NUMBER_BYTES + SLOTS  # the first number behind the key and the totals


class ConnectionTally:
    """The shared numbers, of which this process writes those of `slot`. The owner has the slot 0."""

    def __init__(self, descriptor: int, slot: int) -> None:
        """Map the memory of `descriptor`, which the caller keeps or closes."""
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, (_ROWS + SLOTS * BUCKETS) * _NUMBER_BYTES)
        self._key = self._memory[:_KEY_BYTES]
        numbers = memoryview(self._memory).cast("I")
        self._totals = numbers[_KEY_BYTES // _NUMBER_BYTES : _ROWS]
        self._rows = numbers[_ROWS:]
        numbers.release()
        self._slot = slot

    @classmethod
    def create(cls) -> "ConnectionTally":
        """Return the tally of an owner. It has no file, and ends with the last process that maps it. Needs Linux."""
        descriptor = os.memfd_create("connections")
        os.truncate(descriptor, (_ROWS + SLOTS * BUCKETS) * _NUMBER_BYTES)
        os.pwrite(descriptor, os.urandom(_KEY_BYTES), 0)
        return cls(descriptor, 0)

    def publish(self, count: int) -> None:
        """Let all processes know how many connections this one has."""
        self._totals[self._slot] = count

    @property
    def others(self) -> int:
        """Return how many connections all other processes have."""
        return sum(self._totals) - self._totals[self._slot]

    def bucket_of(self, client: str) -> int:
        """Return the number of a client, which is the same in all processes."""
        return int.from_bytes(blake2b(client.encode(), digest_size=4, key=self._key).digest()) % BUCKETS

    def count(self, bucket: int, change: int) -> None:
        """Let all processes know that this one has so many more connections of a client."""
        self._rows[self._slot * BUCKETS + bucket] += change

    def of_client(self, bucket: int) -> int:
        """Return how many connections a client has at all processes."""
        rows = compress(range(bucket, SLOTS * BUCKETS, BUCKETS), self._totals)
        return sum(map(self._rows.__getitem__, rows))

    def clear(self, slot: int) -> None:
        """Forget the connections of a process that has ended."""
        self._totals[slot] = 0
        self._rows[slot * BUCKETS : (slot + 1) * BUCKETS] = memoryview(bytes(BUCKETS * _NUMBER_BYTES)).cast("I")

    def close(self) -> None:
        """Let go of the memory. No other method may be called after this."""
        self._totals.release()
        self._rows.release()
        self._memory.close()  # it has a copy of the descriptor
        os.close(self.descriptor)
