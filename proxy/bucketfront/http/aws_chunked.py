"""Decode the body of a streamed upload of an S3 client: chunks within the body, and checksums behind them.

S3 API, "Signature calculations for the Authorization header: transferring payload in multiple chunks":

    body    = *( size [ ";chunk-signature=" signature ] CRLF data CRLF ) "0" [ ";chunk-signature=" signature ] CRLF rest
    rest    = *( name ":" value line-end ) CRLF

The signatures of the chunks are not verified, like that of the request. Clients differ in the line ends of the rest and
in its empty lines, so it is read to the end of the body.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from bucketfront.errors import ProxyError
from bucketfront.http import content_digests
from bucketfront.http.checksums import Digest

MAX_LINE_BYTES = 1 << 10  # a chunk's size and its signature have about 100
MAX_REST_BYTES = 8 << 10  # each checksum has about 70
MAX_OVERHEAD = 8  # a body has at most an eighth more bytes than the object, and MIN_OVERHEAD_BYTES
MIN_OVERHEAD_BYTES = 64 << 10

CODING = "aws-chunked"
CHECKSUM_PREFIX = "x-amz-checksum-"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\x20-\x7e]*)?")
_LENGTH = re.compile(r"[0-9]{1,19}")


class BadChunks(ProxyError):
    """A body that is not framed as its head declares, or whose object has another length than declared."""


@dataclass(frozen=True, slots=True)
class AwsChunked:
    """The framing that a head declares.

    `length` is the object's, in bytes, or None if it is unknown. `trailing` are the algorithms of the checksums behind
    the object.
    """

    length: int | None = None
    trailing: tuple[str, ...] = ()


def longest_body(limit: int) -> int:
    """Return how many bytes a body may have whose object has at most `limit`."""
    return limit + limit // MAX_OVERHEAD + MIN_OVERHEAD_BYTES


def declared_length(text: str | None) -> int | None:
    """Return the value of x-amz-decoded-content-length, None without one. Raises BadChunks."""
    if text is None:
        return None
    if _LENGTH.fullmatch(text) is None:
        raise BadChunks("x-amz-decoded-content-length must be a number of bytes")
    return int(text)


class _State(Enum):
    """What comes next in the body: SIZE, DATA, DATA_END, SIZE and so on, and REST after the size of the last chunk."""

    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    REST = auto()


class ChunkDecoder:
    """Decodes one body: feed it all pieces, then close it."""

    def __init__(self, framing: AwsChunked) -> None:
        self._framing = framing
        self._state = _State.SIZE
        self._pending = b""  # of a line, or of the rest
        self._left = 0  # bytes of the current chunk
        self._size = 0  # of the object so far

    def feed(self, piece: bytes) -> bytes:
        """Return the object's bytes within the piece. Raises BadChunks."""
        found: list[bytes] = []
        data, at = self._pending + piece, 0
        self._pending = b""
        while at < len(data):
            if self._state is _State.DATA:
                stop = min(at + self._left, len(data))
                found.append(data[at:stop])
                self._left -= stop - at
                at = stop
                if not self._left:
                    self._state = _State.DATA_END
            elif self._state is _State.REST:
                self._keep(data[at:], MAX_REST_BYTES)
                break
            else:
                end = data.find(b"\r\n", at)
                if end < 0:
                    self._keep(data[at:], MAX_LINE_BYTES)
                    break
                self._read_line(data[at:end])
                at = end + 2
        decoded = b"".join(found)
        self._size += len(decoded)
        if self._framing.length is not None and self._size > self._framing.length:
            raise BadChunks("the body has more bytes than x-amz-decoded-content-length")
        return decoded

    def close(self) -> tuple[Digest, ...]:
        """Return the checksums behind the object, once the body has ended. Raises BadChunks."""
        if self._state is not _State.REST or not self._pending.endswith(b"\n"):
            raise BadChunks("the body ends before its last chunk is complete")
        if self._framing.length not in (None, self._size):
            raise BadChunks(f"the chunks have {self._size} bytes, and not x-amz-decoded-content-length")
        fields = _fields(self._pending)
        announced = {CHECKSUM_PREFIX + algorithm for algorithm in self._framing.trailing}
        for name in fields:
            if name.startswith(CHECKSUM_PREFIX) and name not in announced:
                # S3 API, MalformedTrailerError. It would not be verified, and its sender relies on it.
                raise BadChunks(f"{name} is behind the last chunk, and x-amz-trailer does not name it")
        return tuple(_checksum(fields, algorithm) for algorithm in self._framing.trailing)

    def _read_line(self, line: bytes) -> None:
        if self._state is _State.DATA_END:
            if line:
                raise BadChunks("a chunk is longer than its size")
            self._state = _State.SIZE
            return
        found = _SIZE.fullmatch(line)
        if found is None or len(line) > MAX_LINE_BYTES:
            raise BadChunks("the size of a chunk is malformed")
        self._left = int(found[1], 16)
        self._state = _State.DATA if self._left else _State.REST

    def _keep(self, pending: bytes, limit: int) -> None:
        if len(pending) > limit:
            raise BadChunks("a line of the framing, or what follows the last chunk, is too long")
        self._pending = pending


def _fields(rest: bytes) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    for line in rest.decode("latin-1").split("\n"):
        name, colon, value = line.strip(" \t\r").partition(":")
        if name and not colon:
            raise BadChunks("what follows the last chunk has a line that is no field")
        if name and name.lower() in fields:
            raise BadChunks("a field behind the last chunk is given twice")
        fields[name.lower()] = value.strip(" \t")
    return fields


def _checksum(fields: Mapping[str, str], algorithm: str) -> Digest:
    value = content_digests.value_of(fields.get(CHECKSUM_PREFIX + algorithm, ""), algorithm)
    if value is None:
        raise BadChunks(f"the {algorithm} that x-amz-trailer names is missing behind the last chunk, or malformed")
    return Digest(algorithm, value)
