"""Reads an archive from a stream, one member at a time, and checks all of it. See `warm.archive` for the format."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from bucketfront.warm import archive
from bucketfront.warm.archive import MAX_JSON_BYTES, UNIT, ArchivedObject, ArchiveEnd, BadArchive, Segment

_CUT = "the archive is cut off; what came before is imported. Import the whole file to go on"


class ArchiveReader:
    """Reads from `read`, which returns at most so many bytes, and none at the end."""

    def __init__(self, read: Callable[[int], Awaitable[bytes]]) -> None:
        self._read_some = read
        self.received = 0  # bytes
        self.damaged = 0  # segments whose bytes do not fit their checksums

    async def content(self) -> AsyncGenerator[ArchivedObject | Segment, None]:
        """Yield each object, and behind it its bytes in ascending order. Raises BadArchive, also if the end is missing.

        Bytes that do not fit their checksums are left out and counted.
        """
        name, content, _ = await self._member()
        if name != archive.HEADER_NAME:
            raise BadArchive(f"it does not begin with {archive.HEADER_NAME}, so it is no archive of bucketfront")
        block_size = archive.parse_header(content).block_size
        described, number, after = None, 0, 0
        while True:
            name, content, sums = await self._member()
            if name == archive.END_NAME:
                self._check_end(archive.parse_end(content), number)
                return
            found, start = archive.place(name)
            if start is None:
                if found != number + 1:
                    raise BadArchive(f"object {found} follows object {number}")
                described, number, after = archive.parse_object(content), found, 0
                yield described
                continue
            if described is None or found != number or start < after:
                raise BadArchive(f"the bytes {name} are not in their place")
            segment = Segment(start, content)
            if archive.check_segment(segment, described.size, block_size, sums):
                yield segment
            else:
                self.damaged += 1
            after = start + len(content)

    def _check_end(self, end: ArchiveEnd, number: int) -> None:
        if end.objects != number:
            raise BadArchive(f"it has {number} objects, and its end names {end.objects}")

    async def _member(self) -> tuple[str, bytes, tuple[int, ...]]:
        """Return the name of the next member, its content, and its checksums. Raises BadArchive."""
        head = archive.parse_head(await self._read(UNIT))
        sums: tuple[int, ...] = ()
        if head is not None and head.type == archive.EXTENDED:
            sums = archive.parse_sums(await self._read_padded(head.size))
            head = archive.parse_head(await self._read(UNIT))
        if head is None or head.type != archive.REGULAR:
            raise BadArchive(_CUT)
        if head.name.endswith(".json") and head.size > MAX_JSON_BYTES:
            raise BadArchive(f"the member {head.name[:100]!r} is too large")
        return head.name, await self._read_padded(head.size), sums

    async def _read_padded(self, count: int) -> bytes:
        data = await self._read(count + -count % UNIT)
        return data[:count]

    async def _read(self, count: int) -> bytes:
        parts: list[bytes] = []
        left = count
        while left:
            part = await self._read_some(left)
            if not part:
                raise BadArchive(_CUT)
            self.received += len(part)
            left -= len(part)
            parts.append(part)
        return b"".join(parts)
