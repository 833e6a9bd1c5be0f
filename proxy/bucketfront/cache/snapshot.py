"""The bytes that the cache holds of one version, for an archive."""

from collections.abc import Iterator
from typing import NamedTuple, Self

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.part_fetch import FetchContext
from bucketfront.cache.storage import blocks
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import Span


class Piece(NamedTuple):
    """Bytes of a version, and the CRC-32 of each of their blocks."""

    span: Span
    data: bytes
    sums: tuple[int, ...]


class Snapshot:
    """One version, pinned: use it as a context manager. It holds the open file, so its bytes are of no other version.

    It has the blocks that were present when it was made. This is no use of the entry. `was_hot`: it was in memory
    before.
    """

    def __init__(self, entry: Entry, context: FetchContext, *, was_hot: bool) -> None:
        self._entry = entry
        self._context = context
        self._was_hot = was_hot
        self._present = entry.present

    @property
    def metadata(self) -> Metadata:
        return self._entry.metadata

    @property
    def uses(self) -> int:
        """Return the requests after the first one, of which few are counted."""
        return max(0, self._entry.uses)

    @property
    def stored(self) -> int:
        """Return the number of bytes that are present."""
        return blocks.byte_count(self._present, self._entry.metadata.size, self._context.block_size)

    def spans(self, limit: int) -> Iterator[Span]:
        """Yield what is present in ascending order: spans of at most `limit` bytes, or else of one block.

        None of them goes over a multiple of `limit`, so that a cache with larger blocks gets whole ones.
        """
        size, total = self._context.block_size, self._entry.metadata.size
        step = max(1, limit // size)
        # In octets, because each operation on a set of millions of blocks takes as long as all of them.
        octets = self._present.to_bytes(self._present.bit_length() // 8 + 1, "little")
        for first in range(0, self._present.bit_length(), step):
            near = int.from_bytes(octets[first // 8 : (first + step) // 8 + 1], "little")
            part = near >> first % 8 & ((1 << step) - 1)
            for run in blocks.missing(~part, range(step)):
                yield blocks.span_of(range(first + run.start, first + run.stop), total, size)

    async def read(self, span: Span) -> Piece | None:
        """Return these bytes with their checksums, or None if the disk has others, which are then verified before use.

        Raises StoreError.
        """
        entry, context = self._entry, self._context
        run = blocks.covering(span, context.block_size)
        if entry.file is None or blocks.mask(run) & ~entry.present:
            return None  # a block was found corrupt meanwhile
        sums = tuple(context.entries.checksum(entry, block) for block in run)
        try:
            data = await context.store.read_known(entry.file, span, sums, context.block_size)
        except EOFError:
            data = None
        if data is None:
            context.entries.mark_unverified(entry, blocks.mask(run))
            return None
        return Piece(span, data, sums)

    def close(self) -> None:
        if not self._was_hot:
            self._context.entries.cool_first(self._entry)
        self._context.unpin(self._entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
