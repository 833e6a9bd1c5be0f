"""The index on disk: which entries there are, what is known of them, which of their blocks are present.

SQLite in WAL mode. It is opened, not scanned: totals are kept by triggers, an entry is read when it is asked for.
Reads happen on the event loop, by primary key or index, in microseconds; every write goes through one thread.
Losing the last second of writes is harmless: an entry without a row is swept as an orphan file, a row without a
file is a miss, a bit that was not recorded is a refetch. Nothing here touches an object's file or reads the clock.
"""

import asyncio
import json
import logging
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from bucketfront.cache.storage import schema
from bucketfront.errors import IndexTooNew, StoreError
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

T = TypeVar("T")

READER_CACHE = 8192  # KiB: with a million entries the inner nodes of the trees that a lookup walks take 7 MiB
PAGE_BLOCKS = 256  # blocks in one row of `pages`: a fill rewrites only the rows it touches

_COLUMNS = "id, bucket, key, file, etag, size, metadata, stored_at, validated_at, accessed_at, bytes, epoch"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as it is on disk. Times in seconds since the epoch; `present` as in `blocks.py`."""

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
class Page:
    """What is claimed of an entry's blocks from number * PAGE_BLOCKS on, PAGE_BLOCKS of them: bits and CRC-32s."""

    number: int
    present: int
    sums: bytes

    def claims(self) -> Iterator[tuple[int, int]]:
        """Each present block of the entry and its CRC-32."""
        for place in range(PAGE_BLOCKS):
            if self.present >> place & 1:
                yield self.number * PAGE_BLOCKS + place, _checksum_at(self.sums, place)


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

    def without(self, entries: AbstractSet[int]) -> "Changes":
        """All but what is said of these."""
        if not entries:
            return self
        return replace(
            self,
            rows=tuple(row for row in self.rows if row.id not in entries),
            sums=tuple(claim for claim in self.sums if claim[0] not in entries),
            lost=tuple(block for block in self.lost if block[0] not in entries),
        )


class Index:
    """`path` is the database; `origin` names the endpoint, so that two of them never share an entry (I25).

    `is_durable`: what was flushed is there after power loss. `boot` numbers the boots of the machine, and `started_at`
    is when this run began, in seconds since the epoch: rows from before a power loss that may lack the latest changes
    are `trusted_from` then on only.
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
    ) -> None:
        self._path = path
        self._database = f"file:{quote(str(path))}"
        self._origin = origin
        self._block_size = block_size
        self._is_durable = is_durable
        self._boot = boot
        self._started_at = started_at
        self._thread = ThreadPoolExecutor(1, "index")
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._next_id = 1
        self.epoch = 0
        self.was_clean = True
        self.trusted_from = 0.0  # rows validated before this have to be again
        self.rotten: set[int] = set()  # entries whose rows went bad: they are to be removed
        self.identity: tuple[int, int] | None = None  # of the file: device and inode

    def open(self) -> None:
        """Open or make the database, and migrate one of an older schema. A damaged one, or one with another block size,
        gives way to a new one.

        Raises StoreError; IndexTooNew for the schema of a newer bucketfront, whose files stay untouched.
        """
        try:
            schema.refuse_newer(self._path)
            if self._damage_note.exists():
                self._set_aside("a read of the old one failed in the last run")
            try:
                self._connect()
            except sqlite3.DatabaseError as error:
                # A disk or a migration that fails leaves a sound database behind.
                if isinstance(error, sqlite3.OperationalError | sqlite3.IntegrityError) and not _is_damage(error):
                    raise
                self._set_aside(f"the old one is of no use: {error}")
                self._connect()
        except (sqlite3.Error, OSError) as error:
            self._close_connections()
            raise StoreError(f"cannot open the cache index {self._path}: {error}") from error
        except StoreError:
            self._close_connections()
            raise

    def open_in_memory(self) -> None:
        """In place of `open`, on a disk that has no room for it: what it holds goes with the process or `renew`."""
        self._database = f"file:bucketfront-{id(self)}?mode=memory&cache=shared"
        self._connect()

    def open_to_read(self) -> None:
        """Look at the database of a process that may be running. Raises StoreError, also for one that `open` would set
        aside.
        """
        try:
            self._reader = sqlite3.connect(f"{self._database}?mode=ro", isolation_level=None, uri=True)
            found = self._reader.execute("PRAGMA user_version").fetchone()[0]
            schema.check_version(self._path, found)
            if found != schema.SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"it has the older schema {found}; the next start of the proxy migrates it")
            ((size,),) = self._reader.execute("SELECT value FROM state WHERE name = 'block_size'")
            if size != self._block_size:
                raise sqlite3.DatabaseError(f"its blocks have {size} bytes, cache.block_size is {self._block_size}")
        except IndexTooNew:
            self._close_connections()
            raise
        except sqlite3.Error as error:
            self._close_connections()
            raise StoreError(f"cannot use the cache index {self._path}: {error}") from error

    def _connect(self) -> None:
        self._close_connections()
        writer = self._writer = self._connection()
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute(f"PRAGMA synchronous = {'FULL' if self._is_durable else 'NORMAL'}")
        writer.execute("PRAGMA journal_size_limit = 4194304")
        writer.execute("PRAGMA busy_timeout = 2000")
        found = writer.execute("PRAGMA user_version").fetchone()[0]
        schema.check_version(self._path, found)
        if found == 0:
            schema.create(writer, boot=self._boot, block_size=self._block_size)
        else:
            schema.migrate(writer, found)
        if (size := self._state("block_size")) != self._block_size:
            # Which bytes a bit speaks of depends on it.
            raise sqlite3.DatabaseError(f"its blocks have {size} bytes, now they are to have {self._block_size}")
        self._begin_run()
        highest = writer.execute("SELECT max(id) FROM entries").fetchone()[0] or 0
        self._next_id = max(self._next_id, highest + 1)
        if not self._database.endswith("shared"):
            file = self._path.stat()
            self.identity = file.st_dev, file.st_ino
        self._reader = self._connection()
        self._reader.execute("PRAGMA query_only = ON")
        self._reader.execute("PRAGMA read_uncommitted = ON")  # in memory a reader would be refused beside a writer
        self._reader.execute(f"PRAGMA cache_size = -{READER_CACHE}")
        self._reader.execute("SELECT count(*) FROM state").fetchone()

    def _connection(self) -> sqlite3.Connection:
        return sqlite3.connect(self._database, uri=True, isolation_level=None, check_same_thread=False)

    def _begin_run(self) -> None:
        """Sets what the last run has left to know, and notes this one, which has not ended well yet."""
        writer = self._writer
        assert writer is not None
        was_stopped = bool(self._state("clean"))
        is_same_boot = self._state("boot") == self._boot
        self.was_clean = was_stopped and is_same_boot
        if not self.was_clean:
            writer.execute("UPDATE state SET value = value + 1 WHERE name = 'epoch'")
        if not was_stopped and not is_same_boot and not self._state("durable"):
            # The last flushes may have gone with the power, and purges with them.
            writer.execute("UPDATE state SET value = ? WHERE name = 'trusted_from'", (math.ceil(self._started_at),))
        now = {"clean": 0, "boot": self._boot, "durable": self._is_durable}
        writer.executemany("UPDATE state SET value = ? WHERE name = ?", ((value, name) for name, value in now.items()))
        self.epoch = self._state("epoch")
        self.trusted_from = float(self._state("trusted_from"))

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
        log.warning("starting with an empty cache index: %s", why)
        self._close_connections()
        self._remove()

    def _remove(self) -> None:
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

    async def renew(self) -> None:
        """Begin anew and empty. Raises StoreError, and until it returns so does all else."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

        def start_over() -> None:
            self._close_connections()
            self._database = f"file:{quote(str(self._path))}"
            self._remove()
            self.open()

        await self._in_thread(start_over)

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
    def path(self) -> Path:
        return self._path

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
        return next(self._rows(found, with_pages=True), None)

    def oldest(self, limit: int, after: Outline | None = None) -> list[Outline]:
        """Entries in the order of their last access, from the oldest, or from the one that follows `after`, on."""
        start = (float("-inf"), 0) if after is None else (after.accessed_at, after.id)
        found = self._read(
            "SELECT id, bucket, key, file, accessed_at, bytes FROM entries WHERE (accessed_at, id) > (?, ?)"
            " ORDER BY accessed_at, id LIMIT ?",
            (*start, limit),
        )
        outlines = []
        for number, bucket, key, file, at, charged in found:
            with self._healing(number):
                outlines.append(Outline(number, _key(bucket, key), file, at, charged))
        return outlines

    def with_prefix(self, bucket: str, prefix: str, after: bytes, limit: int) -> list[Row]:
        """Entries whose key begins with `prefix` and comes after `after`, in the order of their bytes."""
        start = prefix.encode()
        beyond = start[:-1] + bytes((start[-1] + 1,)) if start else b"\xff"  # neither byte is 0xFF in UTF-8
        found = self._read(
            f"SELECT {_COLUMNS} FROM entries"  # noqa: S608 - constants
            " WHERE origin = ? AND bucket = ? AND key >= ? AND key > ? AND key < ? ORDER BY key LIMIT ?",
            (self._origin, bucket, start, after, beyond, limit),
        )
        return list(self._rows(found))

    def checksum(self, entry: int, block: int) -> int:
        """The CRC-32 recorded for a present block."""
        page, place = divmod(block, PAGE_BLOCKS)
        found = self._read("SELECT sums FROM pages WHERE entry = ? AND page = ?", (entry, page))
        return _checksum_at(found[0][0] if found else b"", place)

    def rows_after(self, last: int, limit: int) -> list[Row]:
        """Entries of all origins by their ids, from the one that follows `last` on; without their blocks."""
        found = self._read(
            f"SELECT {_COLUMNS} FROM entries WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 - constants
            (last, limit),
        )
        return list(self._rows(found))

    def row(self, entry: int) -> Row | None:
        """Without its blocks."""
        return next((row for row in self.rows_after(entry - 1, 1) if row.id == entry), None)

    def has_file(self, name: str) -> bool:
        return bool(self._read("SELECT 1 FROM entries WHERE substr(file, -2) = ? AND file = ?", (name[-2:], name)))

    def pages_of(self, entry: int) -> list[Page]:
        found = self._read("SELECT page, present, sums FROM pages WHERE entry = ? ORDER BY page", (entry,))
        return [Page(number, int.from_bytes(present, "little"), sums) for number, present, sums in found]

    def files_of_shard(self, shard: str) -> dict[str, tuple[int, int]]:
        """Whose files they are, and the bytes that are charged for each."""
        found = self._read("SELECT file, id, bytes FROM entries WHERE substr(file, -2) = ?", (shard,))
        return {file: (entry, charged) for file, entry, charged in found}

    async def flush(self, changes: Changes) -> None:
        """Write in one transaction, off the loop. Raises StoreError; nothing of it is written then."""
        await self._in_thread(lambda: self._write(changes, clean=False))

    async def space(self) -> int:
        """Return the bytes that the database's files take on the disk. Raises StoreError."""
        return await self._in_thread(lambda: sum(file.stat().st_blocks * 512 for file in self.files if file.exists()))

    async def count_again(self) -> None:
        """Set right what the triggers keep. Raises StoreError."""

        def count() -> None:
            assert self._writer is not None
            self._writer.execute(_RECOUNT)

        await self._in_thread(count)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, call))
        except sqlite3.Error as error:
            raise self._failed(error) from error
        except OSError as error:
            raise StoreError(f"the cache index failed: {error.strerror}") from error

    def _write(self, changes: Changes, *, clean: bool) -> None:
        writer = self._writer
        if writer is None:
            raise StoreError("the cache index could not be made anew")
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
        if self._reader is None:
            raise StoreError("the cache index is being made anew")
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
            "checksum": row.metadata.checksum,
            "opaque_etag": row.metadata.has_opaque_etag,
        }
        return (
            row.id, self._origin, row.key.bucket, key_octets(row.key), row.file, row.metadata.etag,
            row.metadata.size, json.dumps(told), row.stored_at, row.validated_at, row.accessed_at, row.bytes,
            row.epoch,
        )  # fmt: skip

    def _identity(self, row: Row) -> tuple[object, ...]:
        return self._origin, row.key.bucket, key_octets(row.key), row.id

    @contextmanager
    def _healing(self, entry: int) -> Iterator[None]:
        """What a row holds that nobody can have written, a disk has made of it: the row is to go (I15)."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if entry not in self.rotten:
                log.warning("a row of the index went bad, and is dropped: %s", error)
            self.rotten.add(entry)

    def _rows(self, found: Iterable[tuple[Any, ...]], *, with_pages: bool = False) -> Iterator[Row]:
        for values in found:
            row = None
            with self._healing(values[0]):
                row = self._row(values, with_pages=with_pages)
            if row is not None:
                yield row

    def _row(self, values: tuple[Any, ...], *, with_pages: bool = False) -> Row:
        (entry, bucket, key, file, etag, size, told, stored, validated, accessed, charged, epoch) = values
        details = json.loads(told)
        headers = tuple((name, value) for name, value in details["headers"])
        checksum = details.get("checksum")
        present = 0
        if with_pages:
            for page, bits in self._read("SELECT page, present FROM pages WHERE entry = ?", (entry,)):
                present |= int.from_bytes(bits, "little") << (page * PAGE_BLOCKS)
        return Row(
            entry, _key(bucket, key), file,
            Metadata(
                etag, size, details["last_modified"], headers, details["age"], details.get("version"),
                None if checksum is None else tuple(checksum),
                # A row that does not say was written before this was asked: its ETag may be anything.
                details.get("opaque_etag", True),
            ),
            stored, validated, accessed, charged, epoch, present,
        )  # fmt: skip


def _checksum_at(sums: bytes, place: int) -> int:
    return int.from_bytes(sums[4 * place : 4 * place + 4], "little")


def key_octets(key: ObjectKey) -> bytes:
    """What the `key` column holds: no key has a NUL in it, so what follows one is the version."""
    return key.key.encode() if key.version is None else b"%s\0%s" % (key.key.encode(), key.version.encode())


def _key(bucket: str, octets: bytes) -> ObjectKey:
    name, nul, version = octets.partition(b"\0")
    return ObjectKey(bucket, name.decode(), version.decode() if nul else None)


_RECOUNT = """
UPDATE state SET value = CASE name WHEN 'entries' THEN (SELECT count(*) FROM entries)
                         ELSE (SELECT coalesce(sum(bytes), 0) FROM entries) END
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
