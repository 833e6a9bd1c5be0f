"""The requests of clients to a proxy under faults: whole objects, ranges, joins, aborted reads, HEADs, writes and
deletes.
"""

import itertools
import random
from dataclasses import dataclass

from chaos_client import ChaosClient
from chaos_content import WORD
from history import Record
from origin_process import OriginProcess

KIB = 1 << 10
FIRST_WRITTEN_VERSION = 1 << 20  # versions from here on are written by clients, those below by other writers


@dataclass(frozen=True, slots=True)
class WorkloadObjects:
    """The keys and their writers. Several clients read `large` ones at once, and clients also write `written` ones."""

    small: tuple[str, ...]
    large: tuple[str, ...]
    written: tuple[str, ...]
    small_size: int = 300 * KIB
    large_size: int = 1200 * KIB

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.small, *self.large, *self.written)

    def size(self, key: str, rng: random.Random) -> int:
        """Return the size of a new version in bytes: at least a word, so that no two versions are the same bytes."""
        limit = self.large_size if key in self.large else self.small_size
        return rng.randint(limit // 2, limit) if rng.random() < 0.9 else rng.randint(WORD, 64)


OBJECTS = WorkloadObjects(
    small=tuple(f"small/{number}" for number in range(12)),
    large=tuple(f"large {number}" for number in range(4)),
    written=tuple(f"written/{number}.bin" for number in range(6)),
)


class Workload:
    """A random series of requests. `rng` decides every request; the outcome depends on the machine."""

    def __init__(self, rng: random.Random, objects: WorkloadObjects = OBJECTS) -> None:
        self.objects = objects
        self._rng = rng
        self.versions = itertools.count(FIRST_WRITTEN_VERSION)

    def fill(self, origin: OriginProcess) -> None:
        """Store the first version of each object."""
        for key in self.objects.keys:
            origin.call("store", key, self.objects.size(key, self._rng))

    def change(self, origin: OriginProcess) -> None:
        """Overwrite or delete an object as another client would."""
        key = self._rng.choice(self.objects.keys)
        if key in self.objects.written and self._rng.random() < 0.3:
            origin.call("delete", key)
        else:
            origin.call("store", key, self.objects.size(key, self._rng))

    async def step(self, client: ChaosClient) -> Record:
        """Send one request."""
        rng, objects = self._rng, self.objects
        if rng.random() < 0.15:
            return await self._write(client)
        kind = rng.choices(("whole", "range", "hot", "join", "leave", "head"), (20, 30, 15, 12, 8, 8))[0]
        key, large = rng.choice(objects.keys), rng.choice(objects.large)
        match kind:
            case "range":
                start = rng.randrange(objects.large_size if key in objects.large else objects.small_size)
                return await client.get(key, start, rng.choice((None, start + 1, start + rng.randrange(1, 200_000))))
            case "hot":
                return await client.get(objects.written[0], 0, 1000)
            case "leave":
                return await client.get(large, leave_at=rng.randrange(1, objects.large_size // 2))
            case "head":
                return await client.head(key)
            case _:
                return await client.get(objects.large[0] if kind == "join" else key)

    async def _write(self, client: ChaosClient) -> Record:
        rng = self._rng
        # Half of the writes go to the key with the most reads, so that they meet reads at every stage.
        key = rng.choice((self.objects.written[0], rng.choice(self.objects.written)))
        size = self.objects.size(key, rng)
        match rng.choices(("put", "break off", "delete"), (6, 2, 2))[0]:
            case "put":
                return await client.put(key, next(self.versions), size)
            case "break off":
                return await client.put(key, next(self.versions), size, leave_at=rng.randrange(size))
            case _:
                return await client.delete(key)
