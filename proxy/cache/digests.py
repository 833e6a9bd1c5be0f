"""S3's checksums of objects (User Guide, "Checking object integrity"), of bytes and of files; long ones for threads."""

import base64
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import anycrc

from proxy.http.metadata import Metadata

PIECE = 1 << 20  # bytes read at once
MD5 = "md5"

_CRC32C, _CRC64NVME = anycrc.Model("CRC32-ISCSI"), anycrc.Model("CRC64-NVME")


@dataclass(frozen=True, slots=True)
class Digest:
    """`algorithm` is md5, or S3's name of a checksum in lower case; `value` its bytes."""

    algorithm: str
    value: bytes


def told(metadata: Metadata) -> Digest | None:
    """What S3 says of a version's bytes: its checksum of the whole object, or else the MD5 that the ETag is."""
    if metadata.checksum is not None:
        algorithm, value = metadata.checksum
        return Digest(algorithm, base64.b64decode(value))
    if metadata.content_md5 is not None:
        return Digest(MD5, bytes.fromhex(metadata.content_md5))
    return None


def of_bytes(data: bytes, algorithm: str) -> bytes:
    return _ALGORITHMS[algorithm]((data,))


def of_file(fd: int, size: int, algorithm: str) -> bytes | None:
    """Of its first `size` bytes; None where it is shorter. Raises OSError."""
    missing = size

    def pieces() -> Iterator[bytes]:
        nonlocal missing
        while missing and (piece := os.pread(fd, min(PIECE, missing), size - missing)):
            missing -= len(piece)
            yield piece

    found = _ALGORITHMS[algorithm](pieces())
    return None if missing else found


def _hashed(algorithm: str) -> Callable[[Iterable[bytes]], bytes]:
    def digest(pieces: Iterable[bytes]) -> bytes:
        state = hashlib.new(algorithm, usedforsecurity=False)
        for piece in pieces:
            state.update(piece)
        return state.digest()

    return digest


def _cyclic(step: Callable[[bytes, int], int], length: int) -> Callable[[Iterable[bytes]], bytes]:
    def digest(pieces: Iterable[bytes]) -> bytes:
        value = 0
        for piece in pieces:
            value = step(piece, value)
        return value.to_bytes(length, "big")

    return digest


_ALGORITHMS: dict[str, Callable[[Iterable[bytes]], bytes]] = {
    MD5: _hashed("md5"),
    "sha1": _hashed("sha1"),
    "sha256": _hashed("sha256"),
    "crc32": _cyclic(zlib.crc32, 4),
    "crc32c": _cyclic(_CRC32C.calc, 4),
    "crc64nvme": _cyclic(_CRC64NVME.calc, 8),
}
