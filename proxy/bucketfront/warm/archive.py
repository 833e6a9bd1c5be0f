"""The format of an archive: what `export --with-bytes` writes, and what `import` reads. Pure.

An archive is a tar stream (POSIX.1-2001, "pax"), so that other tools can list and unpack it. Its members, in order:

    bucketfront.json            the format, and the size of the blocks that the checksums are of
    00000001/object.json        an object: its path, its version as S3 names it, and how often it was used
    00000001/00000000000000000  bytes of it from that offset on; the pax record BUCKETFRONT.crc32 has a CRC-32 a block
    …                           further bytes, in ascending order, and further objects, the most used ones first
    end.json                    the number of objects and bytes; without it the archive is cut off

The names are numbers, so that no key becomes a path of the file system. All that is read is checked, because an
archive may come from anywhere.
"""

import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from zlib_ng import zlib_ng

from bucketfront.errors import ProxyError
from bucketfront.http.metadata import Metadata

M = TypeVar("M", bound=BaseModel)

VERSION = 1
HEADER = "bucketfront-archive"
CHECKSUMS = "BUCKETFRONT.crc32"
HEADER_NAME, END_NAME = "bucketfront.json", "end.json"
UNIT = tarfile.BLOCKSIZE
REGULAR, EXTENDED = tarfile.REGTYPE, tarfile.XHDTYPE  # types of members
TAIL = bytes(2 * UNIT)  # ends every tar file

SEGMENT_BYTES = 1 << 20  # of one member, in memory at a time; a block may be larger
MAX_SEGMENT_BYTES = 16 << 20  # the largest block
MIN_BLOCK_BYTES = 4096
MAX_JSON_BYTES = 64 << 10  # of an object: S3's metadata has 2 KiB, and a key 1 KiB
MAX_OBJECT_BYTES = 1 << 50  # larger than any object of S3

_MEMBER = re.compile(r"(\d{8,18})/(object\.json|\d{17,19})")
_MODE = 0o600
_DIGITS = 8  # of a CRC-32 in hex

_Text = Annotated[str, StringConstraints(max_length=8192)]


class BadArchive(ProxyError):
    """An archive cannot be used from here on. The message has the reason and the cure."""


class ArchivedObject(BaseModel):
    """An object of an archive. `path` is a request path as clients send it, as in a manifest.

    `etag`, `size`, `last_modified`, `version` and `headers` are those of `Metadata`. `stored` are the bytes that
    follow at most. `uses` are the requests after the first one, of which few are counted.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    path: Annotated[str, StringConstraints(min_length=1, max_length=8192, pattern="^/")]
    etag: _Text
    size: Annotated[int, Field(ge=0, le=MAX_OBJECT_BYTES)]
    last_modified: _Text | None = None
    version: _Text | None = None
    headers: Annotated[tuple[tuple[_Text, _Text], ...], Field(max_length=100)] = ()
    stored: Annotated[int, Field(ge=0, le=MAX_OBJECT_BYTES)] = 0
    uses: Annotated[int, Field(ge=0)] = 0

    @property
    def metadata(self) -> Metadata:
        """Return what the archive claims of the version."""
        return Metadata(self.etag, self.size, self.last_modified, self.headers, version=self.version)


class ArchiveHeader(BaseModel):
    """The first member of an archive. `version` is the number of the format."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    version: Annotated[int, Field(alias=HEADER)]
    block_size: Annotated[int, Field(ge=MIN_BLOCK_BYTES, le=MAX_SEGMENT_BYTES)]


class ArchiveEnd(BaseModel):
    """The last member of an archive: what it has in all."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    objects: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes of an object from `start` on, which fit their checksums."""

    start: int
    data: bytes


# --- writing ---------------------------------------------------------------------------------------------------


def header(block_size: int, version: str) -> bytes:
    """Return the first member. `version` is that of the bucketfront that writes it."""
    return _json_member(HEADER_NAME, {HEADER: VERSION, "by": f"bucketfront {version}", "block_size": block_size})


def object_member(number: int, described: ArchivedObject) -> bytes:
    """Return the member that begins an object. `number` counts from 1."""
    return _json_member(f"{number:08}/object.json", described.model_dump())


def segment_member(number: int, start: int, data: bytes, sums: Sequence[int]) -> bytes:
    """Return a member with bytes of an object. `sums` are the CRC-32s of its blocks."""
    records = {CHECKSUMS: " ".join(f"{one:0{_DIGITS}x}" for one in sums)}
    return _member(f"{number:08}/{start:017}", data, records)


def end(objects: int, count: int) -> bytes:
    """Return the last member, and what ends a tar file."""
    return _json_member(END_NAME, ArchiveEnd(objects=objects, bytes=count).model_dump()) + TAIL


def end_of(tail: bytes) -> ArchiveEnd | None:
    """Return the last member of an archive that ends with these bytes, None if it is cut off."""
    start = len(tail) - len(TAIL) - 2 * UNIT
    name = END_NAME.encode()
    if start < 0 or not tail.endswith(TAIL) or tail[start : start + len(name) + 1] != name + b"\0":
        return None
    try:
        return ArchiveEnd.model_validate_json(tail[start + UNIT : start + 2 * UNIT].rstrip(b"\0"))
    except ValidationError:
        return None


def _json_member(name: str, content: dict[str, Any]) -> bytes:
    return _member(name, json.dumps(content).encode() + b"\n", {})


def _member(name: str, data: bytes, records: dict[str, str]) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.pax_headers = len(data), _MODE, records
    return b"".join((info.tobuf(tarfile.PAX_FORMAT), data, bytes(-len(data) % UNIT)))


# --- reading ---------------------------------------------------------------------------------------------------


def is_archive(begin: bytes) -> bool:
    """Return whether a file that begins with these bytes is a tar file, and so no manifest."""
    return begin[257:262] == b"ustar"


def parse_head(unit: bytes) -> tarfile.TarInfo | None:
    """Return the head of a member, or None for the end of the tar file. Raises BadArchive."""
    if unit == bytes(UNIT):
        return None
    try:
        head = tarfile.TarInfo.frombuf(unit, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise BadArchive(f"a member has no valid head ({error}); is the file cut, packed or damaged?") from error
    if head.type not in (REGULAR, EXTENDED):
        raise BadArchive("a member is no file; was the archive written by `bucketfront export --with-bytes`?")
    limit = MAX_SEGMENT_BYTES if head.type == REGULAR else MAX_JSON_BYTES
    if not 0 <= head.size <= limit:
        raise BadArchive(f"a member has {head.size} bytes, and {limit} are allowed")
    return head


def parse_sums(records: bytes) -> tuple[int, ...]:
    """Return the checksums in the records of a pax header. Raises BadArchive."""
    for keyword, value in _records(records):
        if keyword == CHECKSUMS:
            try:
                return tuple(int(one, 16) for one in value.split())
            except ValueError as error:
                raise BadArchive("a member has malformed checksums") from error
    return ()


def _records(data: bytes) -> list[tuple[str, str]]:
    """Return keywords and values: each record is `LENGTH KEYWORD=VALUE`, and a newline."""
    found, at = [], 0
    while at < len(data):
        digits, space, _ = data[at : at + UNIT].partition(b" ")
        length = int(digits) if space and digits.isdigit() and len(digits) < _DIGITS else 0
        record = data[at + len(digits) + 1 : at + length]
        keyword, equals, value = record.partition(b"=")
        if not record.endswith(b"\n") or not equals or at + length > len(data):
            raise BadArchive("a member has a malformed pax header")
        found.append((keyword.decode("utf-8", "replace"), value[:-1].decode("utf-8", "replace")))
        at += length
    return found


def parse_header(content: bytes) -> ArchiveHeader:
    """Return the first member. Raises BadArchive, also for another version of the format."""
    found = _validated(ArchiveHeader, content, HEADER_NAME)
    if found.version != VERSION:
        raise BadArchive(
            f"it has version {found.version} of the format, and this bucketfront reads {VERSION}; export it with the"
            " same version of bucketfront"
        )
    return found


def parse_object(content: bytes) -> ArchivedObject:
    """Return the object that a member describes. Raises BadArchive."""
    return _validated(ArchivedObject, content, "an object")


def parse_end(content: bytes) -> ArchiveEnd:
    """Return the last member. Raises BadArchive."""
    return _validated(ArchiveEnd, content, END_NAME)


def place(name: str) -> tuple[int, int | None]:
    """Return the number of a member's object, and the offset of its bytes, None for its description.

    Raises BadArchive.
    """
    found = _MEMBER.fullmatch(name)
    if found is None:
        raise BadArchive(f"there is a member {name[:100]!r}, which no archive has")
    return int(found[1]), None if found[2] == "object.json" else int(found[2])


def check_segment(segment: Segment, size: int, block_size: int, sums: Sequence[int]) -> bool:
    """Return whether bytes of an object of `size` bytes fit their checksums.

    Raises BadArchive if they are no blocks of that object.
    """
    start, stop = segment.start, segment.start + len(segment.data)
    if start % block_size or not segment.data or stop > size or (stop % block_size and stop != size):
        raise BadArchive(f"the bytes from {start} to {stop} are no blocks of an object of {size} bytes")
    view = memoryview(segment.data)
    return [zlib_ng.crc32(view[at : at + block_size]) for at in range(0, len(view), block_size)] == list(sums)


def _validated(model: type[M], content: bytes, name: str) -> M:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'all'}: {e['msg']}" for e in error.errors()[:3])
        raise BadArchive(f"{name} of the archive is malformed: {places}") from error
