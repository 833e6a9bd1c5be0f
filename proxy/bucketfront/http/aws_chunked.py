"""The framing of a streamed upload to S3: chunks within the body, and checksums behind them.

S3 API, "Signature calculations for the Authorization header: transferring payload in multiple chunks":

    body    = *( size [ ";chunk-signature=" signature ] CRLF data CRLF ) "0" [ ";chunk-signature=" signature ] CRLF rest
    rest    = *( name ":" value line-end ) CRLF

The signatures of the chunks are verified if that of the request was (`Signatures`). Clients differ in the line ends of
the rest and in its empty lines, so it is read to the end of the body. The encoder signs no chunks, and ends the rest as
botocore does.
"""

import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from bucketfront.errors import ProxyError
from bucketfront.http import content_digests
from bucketfront.http.checksums import Digest, size_of

MAX_LINE_BYTES = 1 << 10  # a chunk's size and its signature have about 100
MAX_REST_BYTES = 8 << 10  # each checksum has about 70
MAX_OVERHEAD = 8  # a body has at most an eighth more bytes than the object, and MIN_OVERHEAD_BYTES
MIN_OVERHEAD_BYTES = 64 << 10

CODING = "aws-chunked"
CHECKSUM_PREFIX = "x-amz-checksum-"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
"""The `x-amz-content-sha256` of a body that `ChunkEncoder` makes."""

CHUNK_BYTES = 1 << 20  # as botocore's; S3 wants 8 KiB at least, and some compatible servers hold a chunk in memory
_TRAILER_SIGNATURE = "x-amz-trailer-signature"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\x20-\x7e]*)?")
_SIGNED_SIZE = re.compile(rb"[^;]*;chunk-signature=([0-9a-f]{64})")
_LENGTH = re.compile(r"[0-9]{1,19}")


class BadChunks(ProxyError):
    """A body that is not framed as its head declares, or whose object has another length than declared."""


class BadTrailer(BadChunks):
    """What follows the last chunk is malformed, or lacks what the head declares."""


@dataclass(frozen=True, slots=True)
class AwsChunked:
    """The framing that a head declares.

    `length` is the object's, in bytes, or None if it is unknown. `trailing` are the algorithms of the checksums behind
    the object.
    """

    length: int | None = None
    trailing: tuple[str, ...] = ()


class Signatures(Protocol):
    """Verifies the signatures within one body, in their order. `bucketfront.http.sigv4.ChunkSignatures` does."""

    def verify_chunk(self, digest: str, signature: str) -> None: ...

    def verify_trailer(self, fields: Sequence[tuple[str, str]], signature: str) -> None: ...


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
    """Decodes one body: feed it all pieces, then close it.

    With `signatures` each chunk must have its signature, and so must the checksums behind the object. `feed` and
    `close` raise what they raise.
    """

    def __init__(self, framing: AwsChunked, signatures: Signatures | None = None) -> None:
        self._framing = framing
        self._signatures = signatures
        self._signature = ""  # of the current chunk
        self._digest = hashlib.sha256()  # of the current chunk
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
                if self._signatures is not None:
                    self._digest.update(found[-1])
                if not self._left:
                    self._state = _State.DATA_END
                    self._verify_chunk()
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
                # It would not be verified, and its sender relies on it.
                raise BadTrailer(f"{name} is behind the last chunk, and x-amz-trailer does not name it")
        if self._signatures is not None and self._framing.trailing:
            signature = fields.pop(_TRAILER_SIGNATURE, "")
            self._signatures.verify_trailer(list(fields.items()), signature)
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
        if self._signatures is not None:
            signed = _SIGNED_SIZE.fullmatch(line)
            if signed is None:
                raise BadChunks("a chunk has no signature")
            self._signature, self._digest = signed[1].decode(), hashlib.sha256()
            if not self._left:
                self._verify_chunk()

    def _verify_chunk(self) -> None:
        """Verify the signature of the chunk that is complete."""
        if self._signatures is not None:
            self._signatures.verify_chunk(self._digest.hexdigest(), self._signature)

    def _keep(self, pending: bytes, limit: int) -> None:
        if len(pending) > limit:
            raise BadChunks("a line of the framing, or what follows the last chunk, is too long")
        self._pending = pending


class ChunkEncoder:
    """Frames an object of `length` bytes, with the checksums of the algorithms `trailing` behind it.

    `framed_length` is the length of the whole body, in bytes. All chunks but the last one have CHUNK_BYTES, so that it
    is known before the first byte.
    """

    def __init__(self, length: int, trailing: Sequence[str] = ()) -> None:
        self._left = length
        self._in_chunk = 0  # bytes that the current chunk still gets
        self._trailing = tuple(trailing)
        whole, rest = divmod(length, CHUNK_BYTES)
        self.framed_length = (
            whole * _chunk_length(CHUNK_BYTES)
            + (_chunk_length(rest) if rest else 0)
            + len(_LAST_CHUNK)
            + sum(len(_trailer(Digest(algorithm, bytes(size_of(algorithm))))) for algorithm in self._trailing)
            + len(_LINE_END)
        )

    def feed(self, piece: bytes | memoryview) -> bytes:
        """Return the part of the body that has the piece. Raises BadChunks if the object is longer than declared."""
        if len(piece) > self._left:
            raise BadChunks("the object has more bytes than were declared")
        found: list[bytes | memoryview] = []
        at, data = 0, memoryview(piece)
        while at < len(data):
            if not self._in_chunk:
                self._in_chunk = min(self._left, CHUNK_BYTES)
                found.append(b"%x\r\n" % self._in_chunk)
            taken = data[at : at + self._in_chunk]
            found.append(taken)
            at += len(taken)
            self._left -= len(taken)
            self._in_chunk -= len(taken)
            if not self._in_chunk:
                found.append(_LINE_END)
        return b"".join(found)

    def close(self, digests: Sequence[Digest] = ()) -> bytes:
        """Return the end of the body, with `digests` of the algorithms in their order.

        Raises BadChunks if the object is shorter than declared.
        """
        if self._left:
            raise BadChunks(f"the object has {self._left} bytes less than were declared")
        assert tuple(digest.algorithm for digest in digests) == self._trailing, "those that were announced"
        return _LAST_CHUNK + b"".join(map(_trailer, digests)) + _LINE_END


_LINE_END = b"\r\n"
_LAST_CHUNK = b"0\r\n"


def _chunk_length(size: int) -> int:
    return len(b"%x" % size) + size + 2 * len(_LINE_END)


def _trailer(digest: Digest) -> bytes:
    value = binascii.b2a_base64(digest.value, newline=False)
    return f"{CHECKSUM_PREFIX}{digest.algorithm}:".encode() + value + _LINE_END


def _fields(rest: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in rest.decode("latin-1").split("\n"):
        name, colon, value = line.strip(" \t\r").partition(":")
        if not name and not colon:
            continue
        if not name or not colon:
            raise BadTrailer("what follows the last chunk has a line that is no field")
        if name.lower() in fields:
            raise BadTrailer("a field behind the last chunk is given twice")
        fields[name.lower()] = value.strip(" \t")
    return fields


def _checksum(fields: Mapping[str, str], algorithm: str) -> Digest:
    value = content_digests.value_of(fields.get(CHECKSUM_PREFIX + algorithm, ""), algorithm)
    if value is None:
        raise BadTrailer(f"the {algorithm} that x-amz-trailer names is missing behind the last chunk, or malformed")
    return Digest(algorithm, value)
