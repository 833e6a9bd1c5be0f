"""`bucketfront verify`: compares the index with the disk, reads every block, and repairs the folder on request.

A folder in use is only read, and findings are checked again, because its process may just have been changing them. A
repair takes the folder's lock. Nothing here may run in the event loop.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from bucketfront.cache.storage import audit, blocks
from bucketfront.cache.storage.file_storage import punch
from bucketfront.cache.storage.folder import Folder
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import Changes, Row
from bucketfront.errors import CacheInUse, StoreError
from bucketfront.http.ranges import Span

PAGE_ROWS = 64  # read from the index at a time, so that memory stays small
SETTLING_S = 3.0  # after which a running process, which flushes once a second, has written its changes


class Damage(StrEnum):
    GONE = "gone"  # the entry has no file, or one of another size, so that it is a miss
    CORRUPT = "corrupt"  # blocks have other checksums than recorded
    ORPHAN = "orphan"  # a file belongs to no entry
    TOTALS = "totals"  # the index has wrong totals of its entries or their space


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. `where` is the bucket and key, or the path of an orphan; `blocks` are the corrupt ones."""

    damage: Damage
    where: str
    file: str = ""
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The result: how many entries and blocks were read, and the faults. `is_repaired` is true if all were repaired."""

    entries: int
    blocks: int
    findings: tuple[Finding, ...]
    is_repaired: bool = False


def verify(
    root: Path, block_size: int, *, repair: bool, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Report:
    """Compare the index in `root` with the disk, and repair the faults if `repair` is true.

    `progress` is called with the number of entries that are done and of all. Raises StoreError; raises CacheInUse if a
    repair cannot have the lock.
    """
    if not (root / "index.db").is_file():
        raise StoreError(f"there is no cache in {root}")
    folder = Folder(root)
    index = Index(folder.root / "index.db", origin="", block_size=block_size)
    try:
        is_alone = _open(folder, must=repair)
        index.open_to_read()
        inspection = _Inspection(folder, index, block_size)
        inspection.run(progress)
        if not is_alone and inspection.findings:
            time.sleep(SETTLING_S)
            inspection.run_again()
        report = Report(inspection.entries, inspection.blocks, tuple(inspection.findings.values()))
        if not repair or not report.findings:
            return report
        index.abandon()
        asyncio.run(_repair(folder, root, block_size, inspection))
        return Report(report.entries, report.blocks, report.findings, is_repaired=True)
    except OSError as error:
        raise StoreError(f"the cache folder failed: {error}") from error
    finally:
        index.abandon()
        folder.close()


def _open(folder: Folder, *, must: bool) -> bool:
    """Open the folder, and lock it unless another process has it. Returns whether it is locked.

    Raises CacheInUse if it `must` be locked and cannot be.
    """
    try:
        folder.open()
    except CacheInUse:
        if must:
            raise
        folder.open_to_read()
        return False
    return True


class _Inspection:
    """A pass over rows and files. `findings` are by entry id or the name of an orphan; totals have the key None."""

    def __init__(self, folder: Folder, index: Index, block_size: int) -> None:
        self._folder = folder
        self._index = index
        self._block_size = block_size
        self.entries = self.blocks = 0
        self.findings: dict[int | str | None, Finding] = {}
        self._discarded: set[int] = set()

    def run(self, progress: Callable[[int, int], None]) -> None:
        # Discarded entries have bytes and maybe a file, which the next start of the proxy removes.
        discarded = self._index.discarded_bytes()
        charged, known = sum(discarded.values()), set(discarded)
        self._discarded = {entry for ids in self._index.discarded_ids(PAGE_ROWS) for entry in ids}
        total_bytes, total_entries = self._index.totals()
        for row in self._rows():
            self._inspect(row)
            known.add(row.file)
            charged += row.bytes
            self.entries += 1
            progress(self.entries, total_entries)
        for shard in self._folder.shards():
            for file in self._folder.files(shard):
                if file.name not in known:
                    self.findings[file.name] = Finding(Damage.ORPHAN, f"objects/{shard}/{file.name}", file.name)
        if (charged, self.entries) != (total_bytes, total_entries):
            told = f"{total_entries} entries of {total_bytes} bytes, there are {self.entries} of {charged}"
            self.findings[None] = Finding(Damage.TOTALS, told)

    def run_again(self) -> None:
        """Check the findings again, and keep those that are still true."""
        before, self.findings = self.findings, {}
        for about in before:
            if isinstance(about, int) and (row := self._index.row(about)) is not None:
                self._inspect(row)
            elif isinstance(about, str) and not self._index.has_file(about) and self._has_file(about):
                self.findings[about] = before[about]

    def _rows(self) -> Iterator[Row]:
        last = 0
        while rows := self._index.rows_after(last, PAGE_ROWS):
            yield from rows
            last = rows[-1].id

    def _inspect(self, row: Row) -> None:
        if row.id in self._discarded:
            return
        corrupt = 0
        where = str(row.key)
        for page in self._index.pages(row.id) or ():
            claims = tuple(page.claims())
            found = audit.damaged(self._folder, row.file, row.metadata.size, claims, self._block_size)
            if found is None:
                self.findings[row.id] = Finding(Damage.GONE, where, row.file)
                return
            self.blocks += len(claims)
            corrupt |= found
        if corrupt:
            self.findings[row.id] = Finding(Damage.CORRUPT, where, row.file, tuple(blocks.members(corrupt)))
        elif not self._has_file(row.file):
            self.findings[row.id] = Finding(Damage.GONE, where, row.file)

    def _has_file(self, name: str) -> bool:
        try:
            os.close(self._folder.open_file(name, os.O_RDONLY))
        except FileNotFoundError:
            return False
        return True


async def _repair(folder: Folder, root: Path, block_size: int, inspection: _Inspection) -> None:
    index = Index(root / "index.db", origin="", block_size=block_size)
    index.open()
    try:
        rows: list[Row] = []
        lost: list[tuple[int, int]] = []
        removed: list[int] = []
        for about, finding in inspection.findings.items():
            if finding.damage is Damage.ORPHAN:
                folder.unlink(finding.file)
            elif finding.damage is Damage.GONE and isinstance(about, int):
                folder.unlink(finding.file)
                removed.append(about)
            elif finding.damage is Damage.CORRUPT and isinstance(about, int) and (row := index.row(about)):
                rows.append(_punch_corrupt(folder, row, finding.blocks, block_size))
                lost += [(about, block) for block in finding.blocks]
        await index.flush(Changes(rows=tuple(rows), lost=tuple(lost), removed=tuple(removed)))
        await index.recount()
        await index.close(Changes())
    finally:
        index.abandon()


def _punch_corrupt(folder: Folder, row: Row, corrupt: tuple[int, ...], block_size: int) -> Row:
    """Free the space of corrupt blocks, and return the row that is charged for the others."""
    size = row.metadata.size
    fd = folder.open_file(row.file, os.O_RDWR)
    try:
        for block in corrupt:
            punch(fd, Span(block * block_size, min(size, (block + 1) * block_size)))
    finally:
        os.close(fd)
    freed = blocks.allocated(sum(1 << block for block in corrupt), size, block_size)
    return replace(row, bytes=row.bytes - freed)
