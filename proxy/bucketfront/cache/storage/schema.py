"""The tables of the index, and the numbered steps from each released schema to the next.

SQLite keeps the schema's number in the database's header (PRAGMA user_version). A step is one transaction: either all
of it and the new number are there, or nothing of it. A schema with a higher number than ours was written by a newer
bucketfront: it is refused, and its files stay as they are.
"""

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bucketfront.errors import IndexTooNew

SCHEMA_VERSION = 4
MAX_PLAUSIBLE_VERSION = 999  # a header with a higher number is damaged, not new

SCHEMA = """
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL, bucket TEXT NOT NULL, key BLOB NOT NULL,
    file TEXT NOT NULL, etag TEXT NOT NULL, size INTEGER NOT NULL, metadata TEXT NOT NULL,
    stored_at REAL NOT NULL, validated_at REAL NOT NULL, accessed_at REAL NOT NULL,
    bytes INTEGER NOT NULL,   -- charged against max_size
    epoch INTEGER NOT NULL,   -- the last start before every present block was written or verified
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
CREATE TABLE tags (tag TEXT NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (tag, entry)) WITHOUT ROWID;
CREATE INDEX tags_by_entry ON tags (entry);
CREATE TABLE discarded (      -- entries that a purge removed, whose files and rows are removed in the background
    entry INTEGER PRIMARY KEY,
    file TEXT, bytes INTEGER NOT NULL DEFAULT 0,              -- of an entry whose row another one has replaced
    stored_at REAL, accessed_at REAL
);
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
    DELETE FROM tags WHERE entry = OLD.id;
    UPDATE discarded SET file = OLD.file, bytes = OLD.bytes, stored_at = OLD.stored_at, accessed_at = OLD.accessed_at
        WHERE entry = OLD.id;
END;
CREATE TRIGGER discarded_replaced AFTER UPDATE OF bytes ON discarded BEGIN
    UPDATE state SET value = value + NEW.bytes - OLD.bytes WHERE name = 'bytes';
END;
CREATE TRIGGER discarded_removed AFTER DELETE ON discarded WHEN OLD.bytes BEGIN
    UPDATE state SET value = value - OLD.bytes WHERE name = 'bytes';
END;
INSERT INTO state VALUES ('bytes', 0), ('entries', 0), ('clean', 1), ('epoch', 0), ('durable', 0), ('trusted_from', 0),
    ('tag_fields', 0),        -- fingerprint of the header fields that name tags
    ('untagged', 0);          -- rows with ids up to this one may lack their tags
"""

# It reads no row, so a start with a million of them is as quick as any. The rows get their tags later, in pages.
_TO_3 = """
CREATE TABLE tags (tag TEXT NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (tag, entry)) WITHOUT ROWID;
CREATE INDEX tags_by_entry ON tags (entry);
DROP TRIGGER entry_removed;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    UPDATE state SET value = value - OLD.bytes WHERE name = 'bytes';
    UPDATE state SET value = value - 1 WHERE name = 'entries';
    DELETE FROM pages WHERE entry = OLD.id;
    DELETE FROM tags WHERE entry = OLD.id;
END;
INSERT INTO state VALUES ('tag_fields', 0), ('untagged', (SELECT coalesce(max(id), 0) FROM entries))
"""

_TO_4 = """
CREATE TABLE discarded (
    entry INTEGER PRIMARY KEY,
    file TEXT, bytes INTEGER NOT NULL DEFAULT 0,
    stored_at REAL, accessed_at REAL
);
DROP TRIGGER entry_removed;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    UPDATE state SET value = value - OLD.bytes WHERE name = 'bytes';
    UPDATE state SET value = value - 1 WHERE name = 'entries';
    DELETE FROM pages WHERE entry = OLD.id;
    DELETE FROM tags WHERE entry = OLD.id;
    UPDATE discarded SET file = OLD.file, bytes = OLD.bytes, stored_at = OLD.stored_at, accessed_at = OLD.accessed_at
        WHERE entry = OLD.id;
END;
CREATE TRIGGER discarded_replaced AFTER UPDATE OF bytes ON discarded BEGIN
    UPDATE state SET value = value + NEW.bytes - OLD.bytes WHERE name = 'bytes';
END;
CREATE TRIGGER discarded_removed AFTER DELETE ON discarded WHEN OLD.bytes BEGIN
    UPDATE state SET value = value - OLD.bytes WHERE name = 'bytes';
END
"""

MIGRATIONS: Mapping[int, str] = MappingProxyType({2: _TO_3, 3: _TO_4})
"""The SQL that turns schema n into schema n + 1, by n. A released step never changes."""

_MAGIC: Final = b"SQLite format 3\0"
_VERSION_AT: Final = slice(60, 64)  # SQLite, "Database File Format", section 1.3: big-endian


def refuse_newer(path: Path) -> None:
    """Read the header of the database at `path` without opening it. Raises IndexTooNew, OSError."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            header = file.read(_VERSION_AT.stop) or b""
    except FileNotFoundError:
        return
    if header.startswith(_MAGIC):
        check_version(path, int.from_bytes(header[_VERSION_AT], "big", signed=True))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe without a writer counts as empty


def check_version(path: Path, version: int) -> None:
    """Check that no newer bucketfront wrote the database. Raises IndexTooNew."""
    if SCHEMA_VERSION < version <= MAX_PLAUSIBLE_VERSION:
        raise IndexTooNew(
            f"the cache index {path} has schema {version}, and this bucketfront knows schema {SCHEMA_VERSION}; "
            "upgrade bucketfront, or set cache.dir to another folder"
        )


def create(writer: sqlite3.Connection, *, boot: int, block_size: int) -> None:
    """Create the tables in an empty database. Raises sqlite3.Error."""
    facts = f"('boot', {boot}), ('block_size', {block_size})"
    _run(writer, f"{SCHEMA} INSERT INTO state VALUES {facts};", SCHEMA_VERSION)  # noqa: S608 - two numbers


def migrate(writer: sqlite3.Connection, found: int) -> None:
    """Take the steps from schema `found` to ours, each in a transaction of its own.

    Raises sqlite3.DatabaseError if there is no way from `found`, else the sqlite3.Error of the step that failed.
    """
    if found < SCHEMA_VERSION and found not in MIGRATIONS:
        raise sqlite3.DatabaseError(f"no migration from schema {found}")
    for version in range(found, SCHEMA_VERSION):
        _run(writer, MIGRATIONS[version], version + 1)
    if found < SCHEMA_VERSION:
        # The header shows the new number now, also to a bucketfront that reads the header alone.
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _run(writer: sqlite3.Connection, script: str, version: int) -> None:
    try:
        writer.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {version}; COMMIT;")
    except sqlite3.Error:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise
