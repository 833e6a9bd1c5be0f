"""What the rows of the index hold, and how they are encoded in its columns.

`decode_…` undoes `encode_…`. It raises one of DECODE_ERRORS for values that no run has written: those were corrupted on
disk. docs/on-disk.md describes the tables.
"""

import json
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from bucketfront.http.grammar import Headers
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

PAGE_BLOCKS = 256  # in one row of `pages`, which takes 1 KiB: a fill rewrites only the rows that it touches
CHECKSUM_BYTES = 4
DECODE_ERRORS = (ValueError, KeyError, TypeError, AttributeError)
NEVER_VALIDATED = -float(1 << 40)  # seconds since the epoch: an entry stale by a soft purge, whatever its Expires is
_NUMBER = (int, float)
# Of ROW_COLUMNS and of an outline. SQLite keeps whatever a damaged row has in a column, of any type.
_ROW_TYPES = (int, str, bytes, str, str, int, str, _NUMBER, _NUMBER, _NUMBER, int, int)
_OUTLINE_TYPES = (int, str, bytes, str, _NUMBER, _NUMBER, int)
OUTLINE_COLUMNS = "id, bucket, key, file, stored_at, accessed_at, bytes"
ROW_COLUMNS = "id, bucket, key, file, etag, size, metadata, stored_at, validated_at, accessed_at, bytes, epoch"


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as it is on disk. Times are in seconds since the epoch; `present` is a block set (see `blocks.py`)."""

    id: int
    key: ObjectKey
    file: str
    metadata: Metadata
    stored_at: float
    validated_at: float
    accessed_at: float
    bytes: int  # charged to the budget
    epoch: int
    present: int = 0


@dataclass(frozen=True, slots=True)
class Outline:
    """The part of a row that is needed to remove its entry. It costs little to read."""

    id: int
    key: ObjectKey
    file: str
    stored_at: float  # seconds since the epoch, as `accessed_at`
    accessed_at: float
    bytes: int


class RowName(NamedTuple):
    """An entry of the index by its id, with its key."""

    id: int
    key: ObjectKey


@dataclass(frozen=True, slots=True)
class DiscardedRow:
    """An entry that a purge removed, and whose file is still there. `key` is None if its row was replaced."""

    id: int
    key: ObjectKey | None
    file: str
    bytes: int
    stored_at: float
    accessed_at: float


@dataclass(frozen=True, slots=True)
class Page:
    """The claims about PAGE_BLOCKS consecutive blocks of an entry, from block `number` * PAGE_BLOCKS on.

    Bit n of `present` is set if the block at place n is in the file; `sums` has the CRC-32s by place.
    """

    number: int
    present: int = 0
    sums: bytes = b""

    def claims(self) -> Iterator[tuple[int, int]]:
        """Yield each present block of the entry with its CRC-32."""
        for place in range(PAGE_BLOCKS):
            if self.present >> place & 1:
                yield self.number * PAGE_BLOCKS + place, self.checksum(place)

    def checksum(self, place: int) -> int:
        start = CHECKSUM_BYTES * place
        return int.from_bytes(self.sums[start : start + CHECKSUM_BYTES], "little")

    def changed(self, checksums: Mapping[int, int | None]) -> "Page":
        """Return the page with these blocks changed, by place. A block without a checksum is no longer present."""
        present, sums = self.present, bytearray(self.sums)
        for place, checksum in checksums.items():
            start, stop = CHECKSUM_BYTES * place, CHECKSUM_BYTES * (place + 1)
            sums.extend(bytes(max(0, stop - len(sums))))
            sums[start:stop] = (checksum or 0).to_bytes(CHECKSUM_BYTES, "little")
            present = present & ~(1 << place) if checksum is None else present | 1 << place
        return Page(self.number, present, bytes(sums))


@dataclass(frozen=True, slots=True)
class Changes:
    """What one flush writes in one transaction."""

    rows: tuple[Row, ...] = ()
    sums: tuple[tuple[int, int, int], ...] = ()  # (entry, block, CRC-32) of blocks that became present
    lost: tuple[tuple[int, int], ...] = ()  # (entry, block) of blocks that are no longer present
    touched: tuple[tuple[float, int], ...] = ()  # (accessed_at, entry)
    removed: tuple[int, ...] = ()
    expired: tuple[int, ...] = ()  # entries that are stale from now on, unless `rows` has them
    discarded: tuple[int, ...] = ()  # entries that are removed, and whose rows stay as long as their files

    def __bool__(self) -> bool:
        return any((self.rows, self.sums, self.lost, self.touched, self.removed, self.expired, self.discarded))

    def without(self, entries: AbstractSet[int]) -> "Changes":
        """Return the changes without the rows and blocks of these entries."""
        if not entries:
            return self
        return replace(
            self,
            rows=tuple(row for row in self.rows if row.id not in entries),
            sums=tuple(claim for claim in self.sums if claim[0] not in entries),
            lost=tuple(block for block in self.lost if block[0] not in entries),
        )

    def by_page(self) -> dict[tuple[int, int], dict[int, int | None]]:
        """Return what changes in each (entry, page), in the form that `Page.changed` takes."""
        pages: dict[tuple[int, int], dict[int, int | None]] = {}
        for entry, block, checksum in self.sums:
            pages.setdefault((entry, block // PAGE_BLOCKS), {})[block % PAGE_BLOCKS] = checksum
        for entry, block in self.lost:
            pages.setdefault((entry, block // PAGE_BLOCKS), {})[block % PAGE_BLOCKS] = None
        return pages


# --- keys ------------------------------------------------------------------------------------------------------


def encode_key(key: ObjectKey) -> bytes:
    """Return the value of the column `key`. A version id follows a NUL byte, which no key contains."""
    return key.key.encode() if key.version is None else b"%s\0%s" % (key.key.encode(), key.version.encode())


def decode_key(bucket: str, encoded: bytes) -> ObjectKey:
    name, nul, version = encoded.partition(b"\0")
    return ObjectKey(bucket, name.decode(), version.decode() if nul else None)


# --- rows ------------------------------------------------------------------------------------------------------


def encode_row(row: Row, origin: str) -> tuple[object, ...]:
    """Return the values of a row: those of ROW_COLUMNS, with `origin` behind the id."""
    details = {
        "last_modified": row.metadata.last_modified,
        "headers": row.metadata.headers,
        "age": row.metadata.age,
        "version": row.metadata.version,
        "checksum": row.metadata.checksum,
        "opaque_etag": row.metadata.has_opaque_etag,
        "date": row.metadata.date,
        "cache_status": row.metadata.cache_status,
    }
    return (
        row.id, origin, row.key.bucket, encode_key(row.key), row.file, row.metadata.etag, row.metadata.size,
        json.dumps(details), row.stored_at, row.validated_at, row.accessed_at, row.bytes, row.epoch,
    )  # fmt: skip


def decode_row(values: tuple[Any, ...], present: int = 0) -> Row:
    """Return the row of the values of ROW_COLUMNS."""
    _check_types(values, _ROW_TYPES)
    (entry, bucket, key, file, etag, size, details, stored_at, validated_at, accessed_at, charged, epoch) = values
    return Row(
        entry, decode_key(bucket, key), file, _decode_metadata(etag, size, json.loads(details)), stored_at,
        validated_at, accessed_at, charged, epoch, present,
    )  # fmt: skip


def _decode_metadata(etag: str, size: int, details: dict[str, Any]) -> Metadata:
    checksum = details.get("checksum")
    return Metadata(
        etag,
        size,
        details["last_modified"],
        tuple((name, value) for name, value in details["headers"]),
        details["age"],
        details.get("version"),
        None if checksum is None else tuple(checksum),
        # Rows of older releases do not have the field, and their ETags may be anything.
        details.get("opaque_etag", True),
        details.get("date"),
        details.get("cache_status", ""),
    )


def decode_headers(details: object) -> Headers:
    """Return the headers of the value of the column `metadata`."""
    if not isinstance(details, str):
        raise TypeError(f"a column holds {type(details).__name__}")
    return tuple((str(name), str(value)) for name, value in json.loads(details)["headers"])


def decode_outline(values: tuple[Any, ...]) -> Outline:
    """Return the outline of the values of OUTLINE_COLUMNS."""
    _check_types(values, _OUTLINE_TYPES)
    entry, bucket, key, file, stored_at, accessed_at, charged = values
    return Outline(entry, decode_key(bucket, key), file, stored_at, accessed_at, charged)


def decode_discarded(values: tuple[Any, ...]) -> DiscardedRow:
    """Return a discarded entry of its id, bucket, key, file, bytes charged, and times of storing and last access."""
    _check_types(values[3:], (str, int, _NUMBER, _NUMBER))
    entry, bucket, key, file, charged, stored_at, accessed_at = values
    return DiscardedRow(entry, None if key is None else decode_key(bucket, key), file, charged, stored_at, accessed_at)


def _check_types(values: tuple[Any, ...], types: tuple[type | tuple[type, ...], ...]) -> None:
    for value, expected in zip(values, types, strict=True):
        if not isinstance(value, expected):
            raise TypeError(f"a column holds {type(value).__name__}")


# --- pages -----------------------------------------------------------------------------------------------------


def encode_page(entry: int, page: Page) -> tuple[int, int, bytes, bytes]:
    """Return the values of a row of `pages`."""
    return entry, page.number, page.present.to_bytes(PAGE_BLOCKS // 8, "little"), page.sums


def decode_page(number: int, present: bytes, sums: bytes) -> Page:
    return Page(number, int.from_bytes(present, "little"), sums)
