"""Takes the objects of an archive into the cache, in their order.

Theory of operation
-------------------
S3 confirms the version of each object before its bytes are stored (`Cache.adopt`). Small objects are read whole and
taken side by side, because each of them costs a HEAD. Bytes of a large one are stored as they come. So the memory of an
import does not depend on the archive. `ArchiveImport.state` changes only in `_become`, by this table:

    RUNNING      DONE, FULL, FAILED
    DONE         -
    FULL         -
    FAILED       -

What came before the end is in the cache in any case. A repeated import costs nothing for it but its reading.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import Enum

from ulid import ULID

from bucketfront.cache import AdoptionRefusal, Cache, Reader
from bucketfront.errors import BadPath, DiskFull, NoSuchMount, ProxyError, StoreError, StoreFull
from bucketfront.fair_share import acting_for
from bucketfront.http.ranges import Span
from bucketfront.keys import ObjectKey
from bucketfront.task_set import TaskSet
from bucketfront.warm.allowance import Allowance
from bucketfront.warm.archive import ArchivedObject, BadArchive, Segment
from bucketfront.warm.archive_reader import ArchiveReader
from bucketfront.warm.job import MAX_FAILED_IN_A_ROW, MAX_FAILURES, MAX_REASON_CHARS, WARM_CLIENT, FailedItem

PARALLEL = 8  # small objects at once
SMALL_BYTES = 1 << 20  # that are stored of a small object, at most

log = logging.getLogger(__name__)


class ImportState(Enum):
    RUNNING = "running"
    DONE = "done"  # all of the archive was read
    FULL = "full"  # the cache holds no more
    FAILED = "failed"  # the archive, the origin or the disk is of no use, or the client has left


TRANSITIONS = {
    ImportState.RUNNING: (ImportState.DONE, ImportState.FULL, ImportState.FAILED),
    ImportState.DONE: (),
    ImportState.FULL: (),
    ImportState.FAILED: (),
}


@dataclass(slots=True)
class Tally:
    """What an import has done with the objects of its archive, each of which counts once."""

    imported: int = 0  # some of its bytes were stored
    present: int = 0  # the cache has its bytes
    changed: int = 0  # S3 has another version
    gone: int = 0  # S3 has no such object
    not_stored: int = 0  # a rule, its own fields, its size or the disk keep it out
    outside: int = 0  # its path is below no mount
    failed: int = 0
    failures: list[FailedItem] = field(default_factory=list)  # the first ones
    bytes: int = 0  # that were stored

    @property
    def objects(self) -> int:
        return (
            self.imported + self.present + self.changed + self.gone + self.not_stored + self.outside + self.failed
        )  # fmt: skip


class _Object:
    """One object, the bytes of which are added in their order."""

    def __init__(self, described: ArchivedObject, key: ObjectKey) -> None:
        self.described = described
        self.key = key
        self.is_small = described.stored <= SMALL_BYTES
        self.segments: list[Segment] = []  # of a small one
        self.reader: Reader | None = None  # of a large one, unless it was refused
        self.received = 0  # bytes
        self.stored = 0  # bytes
        self.promised: int | None = None  # bytes that it has of the allowance
        self.is_over = False  # it was counted, or the import ends with it: it takes no more bytes
        self._start, self._rest = 0, b""  # bytes that do not fill a block yet

    def note(self, segment: Segment) -> None:
        """Count bytes that came. Raises BadArchive if they are more than the archive declares."""
        self.received += len(segment.data)
        if self.received > self.described.stored:
            raise BadArchive(f"{self.described.path[:200]!r} has more bytes than it declares")

    async def store(self, segment: Segment, reader: Reader, block_size: int) -> None:
        """Store what fills blocks of this cache, whose size may be another one. Raises as `Reader.supply`."""
        start, data = segment.start, segment.data
        if self._rest and self._start + len(self._rest) == start:
            start, data = self._start, self._rest + data
        stop = start + len(data)
        whole = stop if stop == self.described.size else stop // block_size * block_size
        self._start, self._rest = max(start, whole), data[max(0, whole - start) :]
        if whole > start:
            self.stored += await reader.supply(start, data[: whole - start])


class ArchiveImport:
    """One import, which runs once `run` is called. `read` returns at most so many bytes of the archive."""

    def __init__(
        self, cache: Cache, key_of: Callable[[str], ObjectKey], read: Callable[[int], Awaitable[bytes]]
    ) -> None:
        """`key_of` returns the key of a request path. It raises BadPath, NoSuchMount."""
        self.id = str(ULID())
        self._cache = cache
        self._key_of = key_of
        self._archive = ArchiveReader(read)
        self._allowance = Allowance(cache.capacity)
        self._current: _Object | None = None
        self._small = TaskSet()
        self._places = asyncio.Semaphore(PARALLEL)
        self._promised = 0  # objects that have room, and are not stored yet
        self._landed = asyncio.Event()
        self._failed_in_a_row = 0
        self.state = ImportState.RUNNING
        self.message = ""
        self.tally = Tally()

    @property
    def received(self) -> int:
        """Return the bytes of the archive that were read."""
        return self._archive.received

    @property
    def damaged(self) -> int:
        """Return the number of segments whose bytes do not fit their checksums."""
        return self._archive.damaged

    async def run(self) -> None:
        """Read the archive until its end, or until it may not go on."""
        with acting_for(WARM_CLIENT):
            try:
                await self._take_all()
            except BadArchive as error:
                self._become(ImportState.FAILED, str(error))
            except BaseException:
                self._become(ImportState.FAILED, "it was ended; import the file again to go on")
                await self._small.close()
                raise
            finally:
                self._close_current()
                await self._small.wait()
        self._become(ImportState.DONE)

    async def _take_all(self) -> None:
        async with aclosing(self._archive.content()) as content:
            async for part in content:
                if isinstance(part, Segment):
                    await self._add(part)
                else:
                    await self._finish_current()
                    await self._begin(part)
                if self.state is not ImportState.RUNNING:
                    return
        await self._finish_current()

    # --- objects ---------------------------------------------------------------------------------------------

    async def _begin(self, described: ArchivedObject) -> None:
        try:
            key = self._key_of(described.path)
        except (BadPath, NoSuchMount):
            self.tally.outside += 1
            return
        found = self._current = _Object(described, key)
        if not found.is_small:
            await self._guarded(found, self._open(found))

    async def _add(self, segment: Segment) -> None:
        found = self._current
        if found is None:
            return  # its object is outside
        found.note(segment)
        if found.is_small:
            found.segments.append(segment)
        elif found.reader is not None and not found.is_over:
            await self._guarded(found, found.store(segment, found.reader, self._cache.block_size))

    async def _finish_current(self) -> None:
        found, self._current = self._current, None
        if found is None:
            return
        if not found.is_small:
            self._end(found)
            return
        await self._places.acquire()
        self._small.start(self._take_small(found), name=f"import {found.key}").add_done_callback(
            lambda _: self._places.release()
        )

    def _close_current(self) -> None:
        if self._current is not None:
            self._end(self._current)
            self._current = None

    async def _take_small(self, found: _Object) -> None:
        await self._guarded(found, self._open(found))
        for segment in found.segments:
            if found.reader is not None and not found.is_over:
                await self._guarded(found, found.store(segment, found.reader, self._cache.block_size))
        self._end(found)

    async def _open(self, found: _Object) -> None:
        """Have S3 confirm the version, and take room for its bytes. Raises OriginErrors."""
        described = found.described
        adopted = await self._cache.adopt(found.key, described.metadata, described.uses)
        if isinstance(adopted, AdoptionRefusal):
            self._count_refusal(found, adopted)
            return
        found.reader = adopted
        if not adopted.missing(Span(0, described.size)):
            self._allowance.note_present(described.stored)
        elif await self._has_room(described.stored):
            found.promised = described.stored
            self._promised += 1
        else:
            found.is_over = True
            self._become(ImportState.FULL, "the cache is full: an import replaces a tenth at most; see cache.max_size")

    async def _has_room(self, count: int) -> bool:
        """Take room for so many bytes, maybe once other objects are stored, which count twice until then."""
        while self.state is ImportState.RUNNING:
            if self._allowance.take(count, self._cache.free_bytes):
                return True
            if not self._promised:
                return False
            self._landed.clear()
            await self._landed.wait()
        return False

    async def _guarded(self, found: _Object, step: Awaitable[None]) -> None:
        """Wait for a step of an object, and count the object as failed if that fails."""
        try:
            await step
        except (StoreFull, DiskFull) as error:
            found.is_over = True
            self._become(ImportState.FULL, f"the cache or its disk is full: {error}")
        except ProxyError as error:
            self._count_failure(found, error)

    def _end(self, found: _Object) -> None:
        """Count an object unless it is counted, and let go of it."""
        if found.reader is not None:
            found.reader.close()
            found.reader = None
            if found.promised is not None:
                self._allowance.landed(found.promised)
                self._promised -= 1
                self._landed.set()
            if not found.is_over:
                self._failed_in_a_row = 0
                self.tally.imported += found.stored > 0
                self.tally.present += found.stored == 0
        self.tally.bytes += found.stored
        found.is_over = True

    def _count_refusal(self, found: _Object, refusal: AdoptionRefusal) -> None:
        found.is_over = True
        self._failed_in_a_row = 0
        match refusal:
            case AdoptionRefusal.GONE:
                self.tally.gone += 1
            case AdoptionRefusal.CHANGED:
                self.tally.changed += 1
            case AdoptionRefusal.NOT_STORED:
                self.tally.not_stored += 1

    def _count_failure(self, found: _Object, error: ProxyError) -> None:
        found.is_over = True
        self.tally.failed += 1
        if len(self.tally.failures) < MAX_FAILURES:
            reason = FailedItem(found.described.path[:MAX_REASON_CHARS], str(error)[:MAX_REASON_CHARS])
            self.tally.failures.append(reason)
        self._failed_in_a_row += 1
        if isinstance(error, StoreError):
            self._become(ImportState.FAILED, f"the disk of the cache fails: {error}")
        elif self._failed_in_a_row >= MAX_FAILED_IN_A_ROW:
            self._become(ImportState.FAILED, f"{MAX_FAILED_IN_A_ROW} objects failed in a row, the last one: {error}")

    def _become(self, state: ImportState, message: str = "") -> None:
        if state not in TRANSITIONS[self.state]:
            return  # the first end counts
        self.state, self.message = state, message
