"""The index on disk: which entries there are, what is known of them, which of their blocks are present.

SQLite in WAL mode. It is opened, not scanned: totals are kept by triggers, an entry is read when it is asked for.
Reads happen on the event loop, by primary key or index, in microseconds; every write goes through one thread.
Losing the last second of writes is harmless: an entry without a row is swept as an orphan file, a row without a
file is a miss, a bit that was not recorded is a refetch. Nothing here touches an object's file or reads the clock.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from proxy.errors import StoreError
from proxy.http.metadata import Metadata
from proxy.keys import ObjectKey

T = TypeVar("T")

SCHEMA_VERSION = 1
READER_CACHE = 8192  # KiB: with a million entries the inner nodes of the trees that a lookup walks take 7 MiB
PAGE_BLOCKS = 256  # blocks in one row of `pages`: a fill rewrites only the rows it touches

_SCHEMA = """
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL, bucket TEXT NOT NULL, key BLOB NOT NULL,
    file TEXT NOT NULL, etag TEXT NOT NULL, size INTEGER NOT NULL, metadata TEXT NOT NULL,
    stored_at REAL NOT NULL, validated_at REAL NOT NULL, accessed_at REAL NOT NULL,
    bytes INTEGER NOT NULL,   -- charged against max_size
    epoch INTEGER NOT NULL,   -- the last unclean stop before every present block was written or verified
    UNIQUE (origin, bucket, key)
);
CREATE INDEX entries_by_access ON entries (accessed_at);
CREATE INDEX entries_by_shard ON entries (substr(file, -2), file);
CREATE TABLE pages (
    entry INTEGER NOT NULL, page INTEGER NOT NULL,
    present BLOB NOT NULL,    -- bitmap, little endian
    sums BLOB NOT NULL,       -- CRC-32 of each block of the page, 4 bytes little endian, 0 where absent
    PRIMARY KEY (entry, page)
) WITHOUT ROWID;
CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN
    UPDATE state SET value = value + NEW.bytes WHERE name = 'bytes';
    UPDATE state SET value = value + 1 WHERE name = 'entries';
END;
CREATE TRIGGER entry_changed AFTER UPDATE OF bytes ON entries BEGIN
    UPDATE state SET value = value + NEW.bytes - OLD.bytes WHERE name = 'bytes';
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    UPDATE state SET value = value - OLD.bytes WHERE name = 'bytes';
    UPDATE state SET value = value - 1 WHERE name = 'entries';
    DELETE FROM pages WHERE entry = OLD.id;
END;
INSERT INTO state VALUES ('bytes', 0), ('entries', 0), ('clean', 1), ('epoch', 0);
"""

_COLUMNS = "id, bucket, key, file, etag, size, metadata, stored_at, validated_at, accessed_at, bytes, epoch"

log = logging.getLogger("bucketfront.index")


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as it is on disk. Times in seconds since the epoch; `present` as in `proxy/cache/blocks.py`."""

    id: int
    key: ObjectKey
    file: str
    metadata: Metadata
    stored_at: float
    validated_at: float
    accessed_at: float
    bytes: int
    epoch: int
    present: int = 0


@dataclass(frozen=True, slots=True)
class Outline:
    """What it takes to remove an entry: of a row that costs little to read, its metadata untouched."""

    id: int
    key: ObjectKey
    file: str
    accessed_at: float  # seconds since the epoch
    bytes: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What one flush writes, in one transaction. `sums` are (entry, block) -> CRC-32 of newly present blocks."""

    rows: tuple[Row, ...] = ()
    sums: tuple[tuple[int, int, int], ...] = ()
    lost: tuple[tuple[int, int], ...] = ()  # (entry, block) no longer present
    touched: tuple[tuple[float, int], ...] = ()  # (accessed_at, id)
    removed: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows or self.sums or self.lost or self.touched or self.removed)


class Index:
    """`path` is the database; `origin` names the endpoint, so that two of them never share an entry (I25)."""

    def __init__(self, path: Path, origin: str) -> None:
        self._path = path
        self._origin = origin
        self._thread = ThreadPoolExecutor(1, "index")
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._next_id = 1
        self.epoch = 0
        self.was_clean = True

    def open(self) -> None:
        """Open or make the database. One that is damaged is set aside and a new one begun. Raises StoreError."""
        try:
            if self._damage_note.exists():
                self._set_aside("a read failed in the last run")
            try:
                self._connect()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                    raise
                self._set_aside(str(error))
                self._connect()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot open the cache index {self._path}: {error}") from error

    def _connect(self) -> None:
        self._close_connections()
        writer = self._writer = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute("PRAGMA journal_size_limit = 4194304")
        writer.execute("PRAGMA busy_timeout = 2000")
        found = writer.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"schema {found}, this version knows {SCHEMA_VERSION}")
        if found == 0:
            writer.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        self.was_clean = bool(self._state("clean"))
        if not self.was_clean:
            writer.execute("UPDATE state SET value = value + 1 WHERE name = 'epoch'")
        writer.execute("UPDATE state SET value = 0 WHERE name = 'clean'")
        self.epoch = self._state("epoch")
        self._next_id = (writer.execute("SELECT max(id) FROM entries").fetchone()[0] or 0) + 1
        self._reader = sqlite3.connect(self._path, isolation_level=None)
        self._reader.execute("PRAGMA query_only = ON")
        self._reader.execute(f"PRAGMA cache_size = -{READER_CACHE}")
        self._reader.execute("SELECT count(*) FROM state").fetchone()

    def _state(self, name: str) -> int:
        assert self._writer is not None
        row = self._writer.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return int(row[0])

    @property
    def _damage_note(self) -> Path:
        return self._path.with_name(self._path.name + "-damaged")

    def _failed(self, error: sqlite3.Error) -> StoreError:
        """Damage in the middle of the file does not show when it is opened: the next start has to know (I14)."""
        if _is_damage(error):
            with suppress(OSError):  # a disk that cannot take the note fails the next start's opening as well
                self._damage_note.touch()
        return StoreError(f"the cache index failed: {error}")

    def _set_aside(self, why: str) -> None:
        log.warning("the cache index is damaged (%s): starting with an empty one", why)
        self._close_connections()
        for file in (*self.files, self._damage_note):
            file.unlink(missing_ok=True)

    def _close_connections(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    async def close(self, last: Changes) -> None:
        """Write `last`, note that the stop was clean, fold the WAL back."""
        await self._in_thread(lambda: self._write(last, clean=True))
        self._thread.shutdown(wait=True)
        self._close_connections()

    def abandon(self) -> None:
        """Close without the note of a clean stop, as after a kill."""
        self._thread.shutdown(wait=True)
        self._close_connections()

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def totals(self) -> tuple[int, int]:
        """Bytes charged and entries, as of the last flush."""
        rows = dict(self._read("SELECT name, value FROM state WHERE name IN ('bytes', 'entries')", ()))
        return rows["bytes"], rows["entries"]

    def newest_access(self) -> float | None:
        """When an entry was last used, in seconds since the epoch as of then; None where there is none."""
        newest: float | None = self._read("SELECT max(accessed_at) FROM entries", ())[0][0]
        return newest

    @property
    def files(self) -> tuple[Path, ...]:
        """The database's own files, whether they are there or not."""
        return tuple(self._path.with_name(self._path.name + suffix) for suffix in ("", "-wal", "-shm"))

    def load(self, key: ObjectKey) -> Row | None:
        where = "WHERE origin = ? AND bucket = ? AND key = ?"
        found = self._read(
            f"SELECT {_COLUMNS} FROM entries {where}",  # noqa: S608 - constants
            (self._origin, key.bucket, key_octets(key)),
        )
        return self._row(found[0], with_pages=True) if found else None

    def oldest(self, limit: int, after: Outline | None = None) -> list[Outline]:
        """Entries in the order of their last access, from the oldest, or from the one that follows `after`, on."""
        start = (float("-inf"), 0) if after is None else (after.accessed_at, after.id)
        found = self._read(
            "SELECT id, bucket, key, file, accessed_at, bytes FROM entries WHERE (accessed_at, id) > (?, ?)"
            " ORDER BY accessed_at, id LIMIT ?",
            (*start, limit),
        )
        return [
            Outline(number, _key(bucket, key), file, at, charged) for number, bucket, key, file, at, charged in found
        ]

    def with_prefix(self, bucket: str, prefix: str, after: bytes, limit: int) -> list[Row]:
        """Entries whose key begins with `prefix` and comes after `after`, in the order of their bytes."""
        start = prefix.encode()
        beyond = start[:-1] + bytes((start[-1] + 1,)) if start else b"\xff"  # neither byte is 0xFF in UTF-8
        found = self._read(
            f"SELECT {_COLUMNS} FROM entries"  # noqa: S608 - constants
            " WHERE origin = ? AND bucket = ? AND key >= ? AND key > ? AND key < ? ORDER BY key LIMIT ?",
            (self._origin, bucket, start, after, beyond, limit),
        )
        return [self._row(values) for values in found]

    def checksum(self, entry: int, block: int) -> int:
        """The CRC-32 recorded for a present block."""
        page, place = divmod(block, PAGE_BLOCKS)
        found = self._read("SELECT sums FROM pages WHERE entry = ? AND page = ?", (entry, page))
        sums = found[0][0] if found else b""
        return int.from_bytes(sums[4 * place : 4 * place + 4], "little")

    def files_of_shard(self, shard: str) -> set[str]:
        return {row[0] for row in self._read("SELECT file FROM entries WHERE substr(file, -2) = ?", (shard,))}

    async def flush(self, changes: Changes) -> None:
        """Write in one transaction, off the loop. Raises StoreError; nothing of it is written then."""
        await self._in_thread(lambda: self._write(changes, clean=False))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, call))
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _write(self, changes: Changes, *, clean: bool) -> None:
        writer = self._writer
        assert writer is not None
        writer.execute("BEGIN IMMEDIATE")
        try:
            with closing(writer.cursor()) as cursor:
                cursor.executemany("DELETE FROM entries WHERE id = ?", ((entry,) for entry in changes.removed))
                cursor.executemany(_SUPERSEDE, (self._identity(row) for row in changes.rows))
                cursor.executemany(_UPSERT, (self._values(row) for row in changes.rows))
                for entry, page, present, sums in _pages(cursor, changes):
                    cursor.execute("INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?)", (entry, page, present, sums))
                cursor.executemany("UPDATE entries SET accessed_at = max(accessed_at, ?) WHERE id = ?", changes.touched)
                if clean:
                    cursor.execute("UPDATE state SET value = 1 WHERE name = 'clean'")
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise
        if clean:
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _read(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        assert self._reader is not None
        try:
            return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _values(self, row: Row) -> tuple[object, ...]:
        told = {
            "last_modified": row.metadata.last_modified,
            "headers": row.metadata.headers,
            "age": row.metadata.age,
            "version": row.metadata.version,
        }
        return (
            row.id, self._origin, row.key.bucket, key_octets(row.key), row.file, row.metadata.etag,
            row.metadata.size, json.dumps(told), row.stored_at, row.validated_at, row.accessed_at, row.bytes,
            row.epoch,
        )  # fmt: skip

    def _identity(self, row: Row) -> tuple[object, ...]:
        return self._origin, row.key.bucket, key_octets(row.key), row.id

    def _row(self, values: tuple[Any, ...], *, with_pages: bool = False) -> Row:
        (entry, bucket, key, file, etag, size, told, stored, validated, accessed, charged, epoch) = values
        details = json.loads(told)
        headers = tuple((name, value) for name, value in details["headers"])
        present = 0
        if with_pages:
            for page, bits in self._read("SELECT page, present FROM pages WHERE entry = ?", (entry,)):
                present |= int.from_bytes(bits, "little") << (page * PAGE_BLOCKS)
        return Row(
            entry, _key(bucket, key), file,
            Metadata(etag, size, details["last_modified"], headers, details["age"], details.get("version")),
            stored, validated, accessed, charged, epoch, present,
        )  # fmt: skip


def key_octets(key: ObjectKey) -> bytes:
    """What the `key` column holds: no key has a NUL in it, so what follows one is the version."""
    return key.key.encode() if key.version is None else b"%s\0%s" % (key.key.encode(), key.version.encode())


def _key(bucket: str, octets: bytes) -> ObjectKey:
    name, nul, version = octets.partition(b"\0")
    return ObjectKey(bucket, name.decode(), version.decode() if nul else None)


_SUPERSEDE = "DELETE FROM entries WHERE origin = ? AND bucket = ? AND key = ? AND id <> ?"
_UPSERT = """
INSERT INTO entries (id, origin, bucket, key, file, etag, size, metadata,
                     stored_at, validated_at, accessed_at, bytes, epoch)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET metadata = excluded.metadata, validated_at = excluded.validated_at,
    accessed_at = excluded.accessed_at, bytes = excluded.bytes, epoch = excluded.epoch
"""


def _pages(cursor: sqlite3.Cursor, changes: Changes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """The rows of `pages` that `changes` touches, as they are to be."""
    wanted: dict[tuple[int, int], dict[int, int | None]] = {}
    for entry, block, crc in changes.sums:
        wanted.setdefault((entry, block // PAGE_BLOCKS), {})[block % PAGE_BLOCKS] = crc
    for entry, block in changes.lost:
        wanted.setdefault((entry, block // PAGE_BLOCKS), {})[block % PAGE_BLOCKS] = None
    for (entry, page), blocks in wanted.items():
        if cursor.execute("SELECT 1 FROM entries WHERE id = ?", (entry,)).fetchone() is None:
            continue  # removed in the meantime
        found = cursor.execute("SELECT present, sums FROM pages WHERE entry = ? AND page = ?", (entry, page)).fetchone()
        present = int.from_bytes(found[0], "little") if found else 0
        sums = bytearray(found[1] if found else b"")
        for place, checksum in blocks.items():
            sums.extend(bytes(max(0, 4 * place + 4 - len(sums))))
            sums[4 * place : 4 * place + 4] = (checksum or 0).to_bytes(4, "little")
            present = present & ~(1 << place) if checksum is None else present | 1 << place
        yield entry, page, present.to_bytes(PAGE_BLOCKS // 8, "little"), bytes(sums)


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
