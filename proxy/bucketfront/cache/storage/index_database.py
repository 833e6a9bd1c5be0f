"""The SQLite database of the index: opened, migrated, made anew if it is damaged, and closed.

It is in WAL mode. Reads run in the event loop, and one thread does all writes. The state of a run is in its table
`state`: whether the last one ended cleanly, in which boot of the machine, and which rows may be trusted.
"""

import asyncio
import logging
import math
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from bucketfront.cache.storage import schema
from bucketfront.errors import IndexTooNew, StoreError
from bucketfront.http.cache_tags import TagFields

T = TypeVar("T")

READER_CACHE_KIB = 8192  # with a million entries the inner nodes of the trees that a lookup walks take 7 MiB
WAL_LIMIT_BYTES = 4 << 20  # to which SQLite cuts the WAL after a checkpoint
_PRIVATE_FILE = 0o600  # SQLite itself would make files that others may read
BUSY_TIMEOUT_MS = 2000  # for a lock of another process that has the database open, such as `bucketfront verify`

log = logging.getLogger(__name__)


class IndexDatabase:
    """The database at `path`. Use it in the event loop; only `open` and its like may run before there is one.

    If `is_durable` is true, flushed rows outlive a loss of power. `boot` identifies the boot of the machine, and
    `started_at` is the start of this run, in seconds since the epoch. After a loss of power that may have cost the
    latest changes, rows are only trusted if they were validated since.

    `tag_fields` name the tags of objects. Without them, the tags of rows stay as they are.
    """

    def __init__(
        self,
        path: Path,
        *,
        block_size: int,
        is_durable: bool = False,
        boot: int = 0,
        started_at: float = 0.0,
        tag_fields: TagFields | None = None,
    ) -> None:
        self._path = path
        self._database = f"file:{quote(str(path))}"
        self._block_size = block_size
        self._is_durable = is_durable
        self._boot = boot
        self._started_at = started_at
        self._tag_fields = tag_fields
        self._thread = ThreadPoolExecutor(1, "index")
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._is_closed = False
        self._next_id = 1
        self.epoch = 0
        self.was_clean = True
        self.trusted_from = 0.0  # rows that were validated before this need it again
        self.identity: tuple[int, int] | None = None  # of the file: device and inode

    def open(self) -> None:
        """Open or create the database, and migrate an older schema.

        A new database replaces a damaged one, and one with another block size. Raises StoreError; raises IndexTooNew
        for the schema of a newer bucketfront, and leaves its files untouched.
        """
        try:
            schema.refuse_newer(self._path)
            if any(_is_no_file(path) for path in self.files):
                self._set_aside("the old one is no file")
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
        """Open a database in memory if the disk has no space for one. It ends with the process or with `renew`."""
        self._database = f"file:bucketfront-{id(self)}?mode=memory&cache=shared"
        self._connect()

    def open_to_read(self) -> None:
        """Open the database of a process that may be running, only to read it.

        Raises StoreError, also for a database that `open` would replace.
        """
        try:
            self._reader = sqlite3.connect(f"{self._database}?mode=ro", isolation_level=None, uri=True)
            found = self._reader.execute("PRAGMA user_version").fetchone()[0]
            schema.check_version(self._path, found)
            if found != schema.SCHEMA_VERSION:
                outcome = "migrates it" if found in schema.MIGRATIONS else "begins an empty index"
                raise sqlite3.DatabaseError(f"it has the older schema {found}; the next start of the proxy {outcome}")
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
        if not self._database.endswith("shared"):
            self._make_private()
        writer = self._writer = self._connection()
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute(f"PRAGMA synchronous = {'FULL' if self._is_durable else 'NORMAL'}")
        writer.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        writer.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        found = writer.execute("PRAGMA user_version").fetchone()[0]
        schema.check_version(self._path, found)
        if found == 0:
            schema.create(writer, boot=self._boot, block_size=self._block_size)
        else:
            schema.migrate(writer, found)
        if (size := self._state("block_size")) != self._block_size:
            # The block size decides which bytes a bit stands for.
            raise sqlite3.DatabaseError(f"its blocks have {size} bytes, now they are to have {self._block_size}")
        self._begin_run()
        highest = writer.execute("SELECT max(id) FROM entries").fetchone()[0] or 0
        self._next_id = max(self._next_id, highest + 1)
        if not self._database.endswith("shared"):
            file = self._path.stat()
            self.identity = file.st_dev, file.st_ino
        self._reader = self._connection()
        self._reader.execute("PRAGMA query_only = ON")
        self._reader.execute("PRAGMA read_uncommitted = ON")  # without it a database in memory locks readers out
        self._reader.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
        self._reader.execute("SELECT count(*) FROM state").fetchone()

    def _make_private(self) -> None:
        """Create the file if it is missing, and keep it from others to read. SQLite's files beside it get its mode."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(self._path, flags, _PRIVATE_FILE))
        for path in self.files:
            with suppress(FileNotFoundError):
                path.chmod(_PRIVATE_FILE)

    def _connection(self) -> sqlite3.Connection:
        return sqlite3.connect(self._database, uri=True, isolation_level=None, check_same_thread=False)

    def _begin_run(self) -> None:
        """Read how the last run ended, and note that this one has not ended cleanly yet."""
        writer = self._writer
        assert writer is not None
        was_stopped = bool(self._state("clean"))
        is_same_boot = self._state("boot") == self._boot
        self.was_clean = was_stopped and is_same_boot
        # Also after a clean stop: another process may have changed files meanwhile.
        writer.execute("UPDATE state SET value = value + 1 WHERE name = 'epoch'")
        if not was_stopped and not is_same_boot and not self._state("durable"):
            # The loss of power may have undone the last flushes, and purges among them.
            writer.execute("UPDATE state SET value = ? WHERE name = 'trusted_from'", (math.ceil(self._started_at),))
        if self._tag_fields is not None and self._state("tag_fields") != self._tag_fields.fingerprint:
            # Rows have the tags of other fields. They keep those until `tag_rows` has come to them.
            writer.execute(
                "UPDATE state SET value = CASE name WHEN 'tag_fields' THEN ?"
                " ELSE (SELECT coalesce(max(id), 0) FROM entries) END WHERE name IN ('tag_fields', 'untagged')",
                (self._tag_fields.fingerprint,),
            )
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
        """Return the StoreError for `error`, and note damage for the next start.

        Opening a database does not reveal damage in the middle of its file (docs/invariants.md#crash-only).
        """
        if _is_damage(error):
            with suppress(OSError):  # a disk that refuses the note also fails when the next start opens it
                self._damage_note.touch(_PRIVATE_FILE)
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

    def reopen(self) -> None:
        """Open the database again after `close` or `abandon`, as `open` does."""
        self._thread = ThreadPoolExecutor(1, "index")
        self._database = f"file:{quote(str(self._path))}"
        self.open()
        self._is_closed = False

    async def renew(self) -> None:
        """Replace the database by an empty one. Raises StoreError, as all other calls do until it returns."""
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
        """Close without a note of a clean stop, as a kill does."""
        self._is_closed = True
        self._thread.shutdown(wait=True)
        self._close_connections()

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    @property
    def path(self) -> Path:
        return self._path

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the paths of the database's files, whether they exist or not."""
        return tuple(self._path.with_name(self._path.name + suffix) for suffix in ("", "-wal", "-shm"))

    async def space(self) -> int:
        """Return the bytes that the database's files take on the disk. Raises StoreError."""
        return await self._in_thread(lambda: sum(file.stat().st_blocks * 512 for file in self.files if file.exists()))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if self._is_closed:
            raise StoreError("the cache index is closed")
        try:
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, call))
        except sqlite3.Error as error:
            raise self._failed(error) from error
        except OSError as error:
            raise StoreError(f"the cache index failed: {error.strerror}") from error

    @staticmethod
    @contextmanager
    def _transaction(writer: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
        """Commit what the block writes, or nothing of it if the block raises."""
        writer.execute("BEGIN IMMEDIATE")
        try:
            with closing(writer.cursor()) as cursor:
                yield cursor
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise

    def _read(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        if self._reader is None:
            raise StoreError("the cache index is being made anew")
        try:
            return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error


def _is_no_file(path: Path) -> bool:
    """Return whether something else than a file has the name. Opening a named pipe would wait for ever: fifo(7)."""
    with suppress(FileNotFoundError):
        return not stat.S_ISREG(path.lstat().st_mode)
    return False


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
