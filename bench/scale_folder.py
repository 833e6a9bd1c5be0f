"""A cache folder as a long run leaves it: rows of the index's own schema, and files for those that the run uses.

Entries are numbered by their last access, oldest first (`rank`). Their order in the tables is unrelated to that. So
removing the oldest ones touches pages all over the database, as in a cache with a long history.
"""

import hashlib
import json
import os
import random
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bucketfront.cache.entries.entry import ENTRY_BYTES
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.boot import boot_id
from bucketfront.cache.storage.index import Index

BUCKET = "bench"
SIZE = 20_000  # bytes of each object
BLOCK = 32 << 10  # bytes, the default of `cache.block_size`
CONTENT = (b"x" * 4096).ljust(SIZE, b"\0")  # of each file, most of which is a hole
CHARGED = ENTRY_BYTES + blocks.allocated(1, SIZE, BLOCK)
TAGS = 100  # of which each entry has one
SPAN = 100 * 86_400.0  # seconds over which the accesses are spread
STRIDE = 7_368_787  # a prime: rank = number * STRIDE % entries shuffles without a table
_BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class Groups:
    """The ranks that have files. All but `purged` and `hits` are the oldest ones, in the order of their removal."""

    entries: int
    batch: int  # entries of one measurement
    all_have_files: bool = False

    @property
    def filed(self) -> range:
        """Return the oldest entries. Four measurements evict a batch each, and none may run out of files."""
        return range(6 * self.batch)

    def purged(self, which: int) -> range:
        """Return the batch below the prefix of `prefix(which)`."""
        stop = self.entries - which * self.batch
        return range(stop - self.batch, stop)

    @property
    def hits(self) -> range:
        """Return the entries that are requested over HTTP."""
        stop = self.entries - 2 * self.batch
        return range(stop - self.batch, stop)

    def has_file(self, rank: int) -> bool:
        return self.all_have_files or rank < self.filed.stop or rank >= self.hits.start


def tag(which: int) -> str:
    return f"title-{which}"


def prefix(which: int) -> str:
    return f"purged/{which}/"


def key_of(groups: Groups, rank: int) -> str:
    """Return a key of about 60 bytes, spread over the alphabet."""
    digest = hashlib.blake2b(b"%d" % rank, digest_size=12).hexdigest()
    head = next((prefix(which) for which in (0, 1) if rank in groups.purged(which)), "media/")
    return f"{head}{digest[:2]}/{digest[2:10]}/season-{rank % 9}/{digest[10:]}-1080p.m4s"


def file_of(rank: int) -> str:
    shard = hashlib.blake2b(b"f%d" % rank, digest_size=2).digest()
    return f"01JD{rank:020d}{_BASE32[shard[0] & 31]}{_BASE32[shard[1] & 31]}"


def accessed_at(groups: Groups, rank: int, now: float) -> float:
    """Return the last access in seconds since the epoch."""
    return now - SPAN + SPAN * rank / groups.entries


def make(folder: Path, origin: str, groups: Groups, orphans: int) -> float:
    """Fill `folder`, with `orphans` files that have no row. Returns the present time for this cache."""
    now = time.time()
    folder.mkdir(parents=True)
    index = Index(folder / "index.db", origin, block_size=BLOCK, boot=boot_id())
    index.open()
    index.abandon()
    present = (1).to_bytes(32, "little")
    checksum = zlib.crc32(CONTENT).to_bytes(4, "little")
    pages = ((number + 1, present, checksum) for number in range(groups.entries))
    fill(folder, _rows(origin, groups, now), pages, groups.entries, groups.entries * CHARGED)
    objects = folder / "objects"
    chance = random.Random(1)
    for rank in range(groups.entries):
        if groups.has_file(rank):
            _write(objects, file_of(rank), now, CONTENT if rank in groups.hits else CONTENT[:4096])
    for _ in range(orphans):
        _write(objects, "01JE" + "".join(chance.choices(_BASE32, k=22)), now, CONTENT[:4096])
    return now


def fill(
    folder: Path,
    rows: Iterable[tuple[object, ...]],
    pages: Iterable[tuple[int, bytes, bytes]],
    entries: int,
    charged: int,
) -> None:
    """Create a clean index of `entries` rows with the first page of each, and the subfolders.

    The rows are inserted without the schema's triggers, which would double the time. Triggers and indexes are restored
    afterwards.
    """
    for one in _BASE32:
        for two in _BASE32:
            (folder / "objects" / (one + two)).mkdir(parents=True)
    with closing(sqlite3.connect(folder / "index.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -1000000")
        extras = database.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE type IN ('trigger', 'index') AND sql IS NOT NULL"
        ).fetchall()
        database.execute("BEGIN")
        for kind, name, _ in extras:
            database.execute(f"DROP {kind} {name}")
        database.executemany(
            "INSERT INTO entries (id, origin, bucket, key, file, etag, size, metadata, stored_at, validated_at,"
            " accessed_at, bytes, epoch) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            rows,
        )
        database.executemany("INSERT INTO pages VALUES (?, 0, ?, ?)", pages)
        for kind, _, sql in sorted(extras):
            assert kind in {"index", "trigger"}
            database.execute(sql)
        database.execute("UPDATE state SET value = ? WHERE name = 'entries'", (entries,))
        database.execute("UPDATE state SET value = ? WHERE name = 'bytes'", (charged,))
        database.execute("UPDATE state SET value = 1 WHERE name = 'clean'")
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode = WAL")


def _rows(origin: str, groups: Groups, now: float) -> Iterator[tuple[object, ...]]:
    for number in range(groups.entries):
        rank = number * STRIDE % groups.entries
        etag = hashlib.blake2b(b"e%d" % rank, digest_size=16).hexdigest()
        headers = [
            ["Content-Type", "video/iso.segment"],
            ["Cache-Control", "public, max-age=31536000, immutable"],
            ["Content-Disposition", f'inline; filename="segment-{rank}.m4s"'],
            ["x-amz-meta-cache-tag", f"all, {tag(rank % TAGS)}"],
            ["x-amz-meta-job", etag[:24]],
            ["x-amz-meta-source", f"encoder-{rank % 64}.example.internal"],
        ]
        metadata = {"last_modified": "Tue, 15 Nov 2022 08:12:31 GMT", "headers": headers, "age": 0, "version": None}
        at = accessed_at(groups, rank, now)
        key = key_of(groups, rank).encode()
        yield (
            number + 1,
            origin,
            BUCKET,
            key,
            file_of(rank),
            f'"{etag}"',
            SIZE,
            json.dumps(metadata),
            at,
            now,
            at,
            CHARGED,
        )


def _write(objects: Path, name: str, now: float, data: bytes) -> None:
    """Write a file of SIZE bytes, of which those behind `data` are a hole. No hit is served as fast from a hole."""
    file = os.open(objects / name[-2:] / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.pwrite(file, data, 0)
        os.ftruncate(file, SIZE)
        os.utime(file, (now - SPAN, now - SPAN))
    finally:
        os.close(file)


def remember(folder: Path) -> None:
    """Load the index into the kernel's page cache."""
    for path in folder.glob("index.db*"):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def forget(folder: Path) -> None:
    """Drop the index from the kernel's page cache, so that the next reads come from the disk."""
    for path in folder.glob("index.db*"):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
