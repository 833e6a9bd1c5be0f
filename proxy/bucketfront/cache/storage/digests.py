"""S3's checksums of objects (User Guide, "Checking object integrity"), of bytes and of files; long ones for threads."""

import base64
import os

from bucketfront.http import checksums
from bucketfront.http.checksums import MD5, Digest
from bucketfront.http.metadata import Metadata

PIECE = 1 << 20  # bytes read at once


def told(metadata: Metadata) -> Digest | None:
    """What S3 says of a version's bytes: its checksum of the whole object, or else the MD5 that the ETag is."""
    if metadata.checksum is not None:
        algorithm, value = metadata.checksum
        return Digest(algorithm, base64.b64decode(value))
    if metadata.content_md5 is not None:
        return Digest(MD5, bytes.fromhex(metadata.content_md5))
    return None


def of_bytes(data: bytes, algorithm: str) -> bytes:
    state = checksums.hasher(algorithm)
    state.update(data)
    return state.digest()


def of_file(fd: int, size: int, algorithm: str) -> bytes | None:
    """Of its first `size` bytes; None where it is shorter. Raises OSError."""
    state = checksums.hasher(algorithm)
    missing = size
    while missing and (piece := os.pread(fd, min(PIECE, missing), size - missing)):
        missing -= len(piece)
        state.update(piece)
    return None if missing else state.digest()
