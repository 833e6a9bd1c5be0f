"""Writes an archive of what the cache holds, the most used objects first. See `warm.archive` for the format."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from bucketfront.cache import Cache, Held, Snapshot
from bucketfront.http.response_fields import is_text
from bucketfront.keys import ObjectKey
from bucketfront.warm import archive, heat
from bucketfront.warm.archive import SEGMENT_BYTES, ArchivedObject

MEMBER_BYTES = 4 * archive.UNIT  # of a member besides its content, at most


class ArchiveExport:
    """One archive. `path_of` returns a path of a key, None without one. `limit` is in bytes, None without a limit.

    It holds one segment in memory, and one object open.
    """

    def __init__(
        self, cache: Cache, path_of: Callable[[ObjectKey], str | None], limit: int | None, version: str
    ) -> None:
        self._cache = cache
        self._path_of = path_of
        self._limit = limit
        self._version = version
        self.objects = 0
        self.bytes = 0  # of objects

    async def content(self) -> AsyncGenerator[bytes, None]:
        """Yield the archive. It ends before the first object beyond the limit. Raises StoreError."""
        yield archive.header(self._cache.block_size, self._version)
        written = 0
        async with aclosing(heat.all_held(self._cache)) as all_held:
            async for held in all_held:
                path = self._path_of(held.key) if held.key is not None and _is_whole_story(held) else None
                if held.key is None or path is None or (snapshot := await self._cache.snapshot(held.key)) is None:
                    continue
                with snapshot:
                    if self._limit is not None and written + cost(snapshot) > self._limit:
                        break
                    async for chunk in self._object(path, snapshot):
                        written += len(chunk)
                        yield chunk
        yield archive.end(self.objects, self.bytes)

    async def _object(self, path: str, snapshot: Snapshot) -> AsyncGenerator[bytes, None]:
        self.objects += 1
        yield archive.object_member(self.objects, _described(path, snapshot))
        for span in snapshot.spans(SEGMENT_BYTES):
            piece = await snapshot.read(span)
            if piece is not None:
                self.bytes += len(piece.data)
                yield archive.segment_member(self.objects, span.start, piece.data, piece.sums)


def cost(snapshot: Snapshot) -> int:
    """Return how many bytes an object takes in an archive, at most."""
    members = 2 + snapshot.stored // SEGMENT_BYTES
    return snapshot.stored + members * MEMBER_BYTES


def _is_whole_story(held: Held) -> bool:
    """Return whether an object can be named by a path alone, and has bytes. Pinned versions cannot."""
    return held.key is not None and held.key.version is None and bool(held.spans or not held.size)


def _described(path: str, snapshot: Snapshot) -> ArchivedObject:
    metadata = snapshot.metadata
    return ArchivedObject(
        path=path,
        etag=metadata.etag,
        size=metadata.size,
        last_modified=metadata.last_modified,
        version=metadata.version,
        headers=tuple(field for field in metadata.headers if is_text(field[1])),
        stored=snapshot.stored,
        uses=snapshot.uses,
    )
