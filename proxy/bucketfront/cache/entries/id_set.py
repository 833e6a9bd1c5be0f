"""A set of ids of entries. It takes about a bit for each id in a row, because a purge may have millions."""

from collections.abc import Iterable

_CHUNK_IDS = 1024


class IdSet:
    """Ids, which are positive integers."""

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}  # bitmaps of _CHUNK_IDS ids each
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, entry: int) -> bool:
        return bool(self._count) and bool(self._chunks.get(entry // _CHUNK_IDS, 0) >> entry % _CHUNK_IDS & 1)

    def update(self, entries: Iterable[int]) -> list[int]:
        """Add ids, each of which comes once, and return those that are new."""
        chunks = self._chunks
        new = [entry for entry in entries if not chunks.get(entry // _CHUNK_IDS, 0) >> entry % _CHUNK_IDS & 1]
        for entry in new:
            chunk = entry // _CHUNK_IDS
            chunks[chunk] = chunks.get(chunk, 0) | 1 << entry % _CHUNK_IDS
        self._count += len(new)
        return new

    def discard(self, entry: int) -> None:
        if entry in self:
            chunk = entry // _CHUNK_IDS
            self._chunks[chunk] &= ~(1 << entry % _CHUNK_IDS)
            self._count -= 1
            if not self._chunks[chunk]:
                del self._chunks[chunk]

    def clear(self) -> None:
        self._chunks.clear()
        self._count = 0
