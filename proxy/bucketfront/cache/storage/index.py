"""The index on disk: which entries exist, their metadata, and which of their blocks are present.

A start opens the database and does not scan it: triggers keep the totals, and a lookup reads one entry. Reads are by
primary key or index, and take microseconds.

The loss of the last second of writes is harmless. A sweep removes a file without a row, a row without a file is a miss,
and a block without its bit is fetched again. The index touches no object's file and reads no clock.
"""

import logging
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bucketfront.cache.storage import records
from bucketfront.cache.storage.index_database import IndexDatabase
from bucketfront.cache.storage.records import Changes, DiscardedRow, Outline, Page, Row, RowName
from bucketfront.errors import StoreError
from bucketfront.http.cache_tags import TagFields
from bucketfront.keys import ObjectKey

log = logging.getLogger(__name__)


class Index(IndexDatabase):
    """The rows in the database at `path`. See `IndexDatabase` for the other parameters.

    `origin` names the endpoint, so that two endpoints never share an entry (docs/invariants.md#complete-cache-key).
    """

    def __init__(
        self,
        path: Path,
        origin: str,
        *,
        block_size: int,
        is_durable: bool = False,
        boot: int = 0,
        started_at: float = 0.0,
        tag_fields: TagFields | None = None,
    ) -> None:
        super().__init__(
            path,
            block_size=block_size,
            is_durable=is_durable,
            boot=boot,
            started_at=started_at,
            tag_fields=tag_fields,
        )
        self._origin = origin
        self.corrupt: set[int] = set()  # entries to remove, because their rows do not decode

    async def close(self, last: Changes) -> None:
        """Write `last`, note a clean stop, and move the WAL into the database."""
        await self._in_thread(lambda: self._write(last, clean=True))
        self.abandon()

    async def distrust(self, before: float) -> None:
        """Note for later runs that rows which were validated before a time are stale. Raises StoreError."""

        def note() -> None:
            assert self._writer is not None
            self._writer.execute(
                "UPDATE state SET value = max(value, ?) WHERE name = 'trusted_from'", (math.ceil(before),)
            )

        await self._in_thread(note)

    def totals(self) -> tuple[int, int]:
        """Return the bytes charged and the number of entries, as of the last flush."""
        rows = dict(self._read("SELECT name, value FROM state WHERE name IN ('bytes', 'entries')", ()))
        return rows["bytes"], rows["entries"]

    def newest_access(self) -> float | None:
        """Return the last access to any entry, in seconds since the epoch. Returns None if there are no entries."""
        found = self._read(
            "SELECT accessed_at FROM entries WHERE typeof(accessed_at) IN ('integer', 'real')"
            " ORDER BY accessed_at DESC LIMIT 1",
            (),
        )
        return found[0][0] if found else None

    def load(self, key: ObjectKey) -> Row | None:
        """Return the row of `key` with its blocks, or None. Raises StoreError."""
        where = "WHERE origin = ? AND bucket = ? AND key = ?"
        found = self._read(
            f"SELECT {records.ROW_COLUMNS} FROM entries {where}",  # noqa: S608 - constants
            (self._origin, key.bucket, records.encode_key(key)),
        )
        return next(self._rows(found, with_pages=True), None)

    def oldest(self, limit: int, after: Outline | None = None) -> list[Outline]:
        """Return entries in the order of their last access, oldest first, and only those behind `after`."""
        start = (float("-inf"), 0) if after is None else (after.accessed_at, after.id)
        found = self._read(
            f"SELECT {records.OUTLINE_COLUMNS} FROM entries WHERE (accessed_at, id) > (?, ?)"  # noqa: S608 - constants
            " ORDER BY accessed_at, id LIMIT ?",
            (*start, limit),
        )
        return list(self._outlines(found))

    def newest(self, limit: int, before: tuple[float, int] | None = None) -> list[Row]:
        """Return entries in the order of their last access, newest first, and only those behind `before`.

        `before` is the time of an access and an id. Raises StoreError.
        """
        found = self._read(
            f"SELECT {records.ROW_COLUMNS} FROM entries WHERE origin = ? AND (accessed_at, id) < (?, ?)"  # noqa: S608 - constants
            " ORDER BY accessed_at DESC, id DESC LIMIT ?",
            (self._origin, *(before or (float("inf"), 0)), limit),
        )
        return list(self._rows(found, with_pages=True))

    def outline(self, entry: int) -> Outline | None:
        """Return what `oldest` returns of one entry, or None. Raises StoreError."""
        found = self._read(
            f"SELECT {records.OUTLINE_COLUMNS} FROM entries WHERE id = ?",  # noqa: S608 - constants
            (entry,),
        )
        return next(self._outlines(found), None)

    def outline_of(self, key: ObjectKey) -> Outline | None:
        """Return what `oldest` returns of the entry of `key`, or None. Raises StoreError."""
        found = self._read(
            f"SELECT {records.OUTLINE_COLUMNS} FROM entries"  # noqa: S608 - constants
            " WHERE origin = ? AND bucket = ? AND key = ?",
            (self._origin, key.bucket, records.encode_key(key)),
        )
        return next(self._outlines(found), None)

    def below(self, bucket: str, prefix: str, limit: int) -> Iterator[list[RowName]]:
        """Yield the entries whose key begins with `prefix` in pages, in the order of the keys' bytes.

        Each page is read when it is needed, so the caller may change the index meanwhile. Raises StoreError.
        """
        start, beyond = _bounds(prefix)
        is_behind, after = ">=", start
        while found := self._read(
            "SELECT id, bucket, key FROM entries"  # noqa: S608 - two constants
            f" WHERE origin = ? AND bucket = ? AND key {is_behind} ? AND key < ? ORDER BY key LIMIT ?",
            (self._origin, bucket, after, beyond, limit),
        ):
            is_behind, after = ">", found[-1][2]
            yield self._names(found)

    def ids_below(self, bucket: str, prefix: str, limit: int) -> Iterator[list[int]]:
        """Yield what `below` does, the ids alone, also those of rows that do not decode."""
        start, beyond = _bounds(prefix)
        is_behind, after = ">=", start
        while found := self._read(
            "SELECT id, key FROM entries"  # noqa: S608 - two constants
            f" WHERE origin = ? AND bucket = ? AND key {is_behind} ? AND key < ? ORDER BY key LIMIT ?",
            (self._origin, bucket, after, beyond, limit),
        ):
            is_behind, after = ">", found[-1][1]
            yield [entry for entry, _ in found]

    def all_names(self, limit: int) -> Iterator[list[RowName]]:
        """Yield the entries of all origins in pages, as `below` does."""
        for found in self._all(limit):
            yield self._names([values[:3] for values in found])

    def all_ids(self, limit: int) -> Iterator[list[int]]:
        """Yield what `all_names` does, the ids alone, also those of rows that do not decode."""
        for found in self._all(limit):
            yield [values[0] for values in found]

    def _all(self, limit: int) -> Iterator[list[tuple[Any, ...]]]:
        after: tuple[object, ...] = ("", "", b"")
        while found := self._read(
            "SELECT id, bucket, key, origin FROM entries WHERE (origin, bucket, key) > (?, ?, ?)"
            " ORDER BY origin, bucket, key LIMIT ?",
            (*after, limit),
        ):
            after = (found[-1][3], *found[-1][1:3])
            yield found

    def discarded_ids(self, limit: int) -> Iterator[list[int]]:
        """Yield the ids of discarded entries in pages. Raises StoreError."""
        after = 0
        while found := self._read("SELECT entry FROM discarded WHERE entry > ? ORDER BY entry LIMIT ?", (after, limit)):
            after = found[-1][0]
            yield [entry for (entry,) in found]

    def count_discarded(self) -> int:
        """Return the number of discarded entries that have a row. Raises StoreError."""
        count: int = self._read("SELECT count(*) FROM discarded WHERE file IS NULL", ())[0][0]
        return count

    def discarded(self, limit: int) -> tuple[list[int], list[DiscardedRow]]:
        """Return the ids of the first discarded entries, and those of them that decode. Raises StoreError."""
        found = self._read(
            "SELECT discarded.entry, bucket, key, coalesce(entries.file, discarded.file),"
            " coalesce(entries.bytes, discarded.bytes), coalesce(entries.stored_at, discarded.stored_at),"
            " coalesce(entries.accessed_at, discarded.accessed_at)"
            " FROM discarded LEFT JOIN entries ON entries.id = discarded.entry"
            " ORDER BY discarded.entry LIMIT ?",
            (limit,),
        )
        rows: list[DiscardedRow] = []
        for values in found:
            with suppress(*records.DECODE_ERRORS):  # it goes without its file, which the next sweep removes
                rows.append(records.decode_discarded(values))
        return [values[0] for values in found], rows

    def discarded_bytes(self) -> dict[str, int]:
        """Return the bytes charged for the files of discarded entries without a row, by file. Raises StoreError."""
        return dict(self._read("SELECT file, bytes FROM discarded WHERE file IS NOT NULL", ()))

    async def forget(self, discarded: Sequence[int]) -> None:
        """Remove discarded entries, whose files are gone. Raises StoreError."""
        await self._in_thread(lambda: self._forget(discarded))

    def _forget(self, discarded: Sequence[int]) -> None:
        if self._writer is None:
            raise StoreError("the cache index could not be made anew")
        with self._transaction(self._writer) as cursor:
            # In this order the triggers note no file of a row in `discarded`, which takes a third of the time.
            cursor.executemany("DELETE FROM discarded WHERE entry = ?", ((entry,) for entry in discarded))
            cursor.executemany("DELETE FROM entries WHERE id = ?", ((entry,) for entry in discarded))

    def tagged(self, tag: str, others: Sequence[str], limit: int) -> Iterator[list[RowName]]:
        """Yield the entries of all origins with `tag` and none of the `others` in pages, as `below` does."""
        marks = ", ".join("?" * len(others))
        after = 0
        while found := self._read(
            "SELECT id, bucket, key FROM tags CROSS JOIN entries ON entries.id = tags.entry"
            " WHERE tags.tag = ? AND tags.entry > ? ORDER BY tags.entry LIMIT ?",
            (tag, after, limit),
        ):
            first, after = found[0][0], found[-1][0]
            if others:
                known = self._read(
                    f"SELECT entry FROM tags WHERE tag IN ({marks}) AND entry BETWEEN ? AND ?",  # noqa: S608 - marks
                    (*others, first, after),
                )
                skipped = {entry for (entry,) in known}
                found = [values for values in found if values[0] not in skipped]
            yield self._names(found)

    def with_prefix(self, bucket: str, prefix: str, after: bytes, limit: int) -> list[Row]:
        """Return entries whose key begins with `prefix` and comes after `after`, in the order of the keys' bytes."""
        start, beyond = _bounds(prefix)
        # One lower bound, because SQLite would search by the first of two, and step through all up to the other.
        is_behind, lowest = (">", after) if after >= start else (">=", start)
        found = self._read(
            f"SELECT {records.ROW_COLUMNS} FROM entries"  # noqa: S608 - constants
            f" WHERE origin = ? AND bucket = ? AND key {is_behind} ? AND key < ? ORDER BY key LIMIT ?",
            (self._origin, bucket, lowest, beyond, limit),
        )
        return list(self._rows(found))

    def checksum(self, entry: int, block: int) -> int:
        """Return the CRC-32 recorded for a present block."""
        page, place = divmod(block, records.PAGE_BLOCKS)
        found = self._read("SELECT sums FROM pages WHERE entry = ? AND page = ?", (entry, page))
        return Page(page, sums=found[0][0] if found else b"").checksum(place)

    def rows_after(self, last: int, limit: int) -> list[Row]:
        """Return entries of all origins by their ids, only those behind `last`, without their blocks."""
        found = self._read(
            f"SELECT {records.ROW_COLUMNS} FROM entries WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 - constants
            (last, limit),
        )
        return list(self._rows(found))

    def row(self, entry: int) -> Row | None:
        """Return the row of an entry, without its blocks."""
        return next((row for row in self.rows_after(entry - 1, 1) if row.id == entry), None)

    def has_file(self, name: str) -> bool:
        return bool(self._read("SELECT 1 FROM entries WHERE substr(file, -2) = ? AND file = ?", (name[-2:], name)))

    def pages(self, entry: int) -> list[Page]:
        found = self._read("SELECT page, present, sums FROM pages WHERE entry = ? ORDER BY page", (entry,))
        return [records.decode_page(*values) for values in found]

    def files_of_shard(self, shard: str, limit: int) -> Iterator[dict[str, tuple[int, int]]]:
        """Yield the entry of each file and the bytes charged for it, by file name, in pages as `below` does."""
        after = ""
        while found := self._read(
            "SELECT file, id, bytes FROM entries WHERE substr(file, -2) = ? AND file > ? AND typeof(bytes) = 'integer'"
            " ORDER BY file LIMIT ?",
            (shard, after, limit),
        ):
            after = found[-1][0]
            yield {file: (entry, charged) for file, entry, charged in found}

    async def flush(self, changes: Changes) -> None:
        """Write the changes in one transaction, in the thread. Raises StoreError, and writes none of them then."""
        await self._in_thread(lambda: self._write(changes, clean=False))

    async def tag_rows(self, limit: int) -> bool:
        """Note the tags of up to `limit` rows that an earlier release, or one with other tag fields, has written.

        Returns whether there are more such rows. Raises StoreError.
        """
        return await self._in_thread(lambda: self._tag_rows(limit))

    def _tag_rows(self, limit: int) -> bool:
        writer, fields = self._writer, self._tag_fields
        if writer is None:
            raise StoreError("the cache index could not be made anew")
        if fields is None or not (upto := self._state("untagged")):
            return False
        found = writer.execute(
            "SELECT id, metadata FROM entries WHERE id <= ? ORDER BY id DESC LIMIT ?", (upto, limit)
        ).fetchall()
        tagged: list[tuple[int, frozenset[str]]] = []
        for entry, details in found:
            with suppress(*records.DECODE_ERRORS):  # the next read of the row schedules its removal
                tagged.append((entry, fields.tags(records.decode_headers(details))))
        upto = found[-1][0] - 1 if len(found) == limit else 0
        with self._transaction(writer) as cursor:
            _write_tags(cursor, tagged)
            cursor.execute("UPDATE state SET value = ? WHERE name = 'untagged'", (upto,))
        return upto > 0

    async def recount(self) -> None:
        """Correct the totals that the triggers keep. Raises StoreError."""

        def count() -> None:
            assert self._writer is not None
            self._writer.execute(_RECOUNT)

        await self._in_thread(count)

    def _write(self, changes: Changes, *, clean: bool) -> None:
        writer = self._writer
        if writer is None:
            raise StoreError("the cache index could not be made anew")
        with self._transaction(writer) as cursor:
            # The files of these are removed elsewhere, and so no discarded entry is left of them.
            cursor.executemany("DELETE FROM discarded WHERE entry = ?", ((entry,) for entry in changes.removed))
            cursor.executemany("DELETE FROM entries WHERE id = ?", ((entry,) for entry in changes.removed))
            cursor.executemany(
                "INSERT OR IGNORE INTO discarded (entry) VALUES (?)",
                ((entry,) for entry in sorted(changes.discarded)),  # neighbours are in the same pages
            )
            cursor.executemany(
                "UPDATE entries SET validated_at = ? WHERE id = ?",
                ((records.NEVER_VALIDATED, entry) for entry in changes.expired),
            )
            cursor.executemany(_SUPERSEDE, (self._replaced_by(row) for row in changes.rows))
            cursor.executemany(_UPSERT, (records.encode_row(row, self._origin) for row in changes.rows))
            if self._tag_fields is not None:
                _write_tags(cursor, [(row.id, self._tag_fields.tags(row.metadata.headers)) for row in changes.rows])
            _write_pages(cursor, changes)
            cursor.executemany("UPDATE entries SET accessed_at = max(accessed_at, ?) WHERE id = ?", changes.touched)
            if clean:
                cursor.execute("UPDATE state SET value = 1 WHERE name = 'clean'")
        if clean:
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _replaced_by(self, row: Row) -> tuple[object, ...]:
        return self._origin, row.key.bucket, records.encode_key(row.key), row.id

    @contextmanager
    def _noting_corruption(self, entry: int) -> Iterator[None]:
        """Schedule the removal of a row that does not decode (docs/invariants.md#self-healing)."""
        try:
            yield
        except records.DECODE_ERRORS as error:
            self._note_corruption(entry, error)

    def _note_corruption(self, entry: int, error: Exception) -> None:
        if entry not in self.corrupt:
            log.warning("a row of the index went bad, and is dropped: %s", error)
        self.corrupt.add(entry)

    def _rows(self, found: Iterable[tuple[Any, ...]], *, with_pages: bool = False) -> Iterator[Row]:
        for values in found:
            row = None
            with self._noting_corruption(values[0]):
                row = records.decode_row(values, self._present(values[0]) if with_pages else 0)
            if row is not None:
                yield row

    def _names(self, found: Iterable[tuple[Any, ...]]) -> list[RowName]:
        names: list[RowName] = []
        for entry, bucket, key in found:
            try:
                names.append(RowName(entry, records.decode_key(bucket, key)))
            except records.DECODE_ERRORS as error:
                self._note_corruption(entry, error)
        return names

    def _outlines(self, found: Iterable[tuple[Any, ...]]) -> Iterator[Outline]:
        for values in found:
            outline = None
            with self._noting_corruption(values[0]):
                outline = records.decode_outline(values)
            if outline is not None:
                yield outline

    def _present(self, entry: int) -> int:
        present = 0
        for page, bits in self._read("SELECT page, present FROM pages WHERE entry = ?", (entry,)):
            present |= int.from_bytes(bits, "little") << (page * records.PAGE_BLOCKS)
        return present


_RECOUNT = """
UPDATE state SET value = CASE name WHEN 'entries' THEN (SELECT count(*) FROM entries)
                         ELSE (SELECT coalesce(sum(bytes), 0) FROM entries)
                              + (SELECT coalesce(sum(bytes), 0) FROM discarded) END
WHERE name IN ('entries', 'bytes')
"""
_SUPERSEDE = "DELETE FROM entries WHERE origin = ? AND bucket = ? AND key = ? AND id <> ?"
_UPSERT = """
INSERT INTO entries (id, origin, bucket, key, file, etag, size, metadata,
                     stored_at, validated_at, accessed_at, bytes, epoch)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET metadata = excluded.metadata, validated_at = excluded.validated_at,
    accessed_at = excluded.accessed_at, bytes = excluded.bytes, epoch = excluded.epoch
"""


def _bounds(prefix: str) -> tuple[bytes, bytes]:
    """Return the first key that begins with `prefix`, and one behind the last."""
    start = prefix.encode()
    return start, start[:-1] + bytes((start[-1] + 1,)) if start else b"\xff"  # UTF-8 has no byte 0xFF


def _write_tags(cursor: sqlite3.Cursor, tagged: Sequence[tuple[int, frozenset[str]]]) -> None:
    """Replace the tags of entries by these."""
    cursor.executemany("DELETE FROM tags WHERE entry = ?", ((entry,) for entry, _ in tagged))
    cursor.executemany("INSERT INTO tags VALUES (?, ?)", ((tag, entry) for entry, tags in tagged for tag in tags))


def _write_pages(cursor: sqlite3.Cursor, changes: Changes) -> None:
    for (entry, number), checksums in changes.by_page().items():
        if cursor.execute("SELECT 1 FROM entries WHERE id = ?", (entry,)).fetchone() is None:
            continue  # it was removed meanwhile
        found = cursor.execute(
            "SELECT page, present, sums FROM pages WHERE entry = ? AND page = ?", (entry, number)
        ).fetchone()
        page = (records.decode_page(*found) if found else Page(number)).changed(checksums)
        cursor.execute("INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?)", records.encode_page(entry, page))
