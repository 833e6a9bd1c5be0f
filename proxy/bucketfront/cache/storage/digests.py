"""S3's checksums of objects (User Guide, "Checking object integrity"), computed from bytes and from files."""

import base64
import os

from bucketfront.http import checksums
from bucketfront.http.checksums import MD5, Digest
from bucketfront.http.metadata import Metadata

READ_BYTES = 1 << 20  # at once: the calls cost little beside the digest


def expected(metadata: Metadata) -> Digest | None:
    """Return the digest that the bytes of a version must have.

    It is S3's checksum of the whole object, else the MD5 in its ETag. Returns None if S3 gave neither.
    """
    if metadata.checksum is not None:
        algorithm, value = metadata.checksum
        return Digest(algorithm, base64.b64decode(value))
    if metadata.content_md5 is not None:
        return Digest(MD5, bytes.fromhex(metadata.content_md5))
    return None


def of_bytes(data: bytes | memoryview, algorithm: str) -> bytes:
    """Return the digest of `data`. Call it in a thread if the data is long."""
    state = checksums.hasher(algorithm)
    state.update(data)
    return state.digest()


def of_file(fd: int, size: int, algorithm: str) -> bytes | None:
    """Return the digest of the first `size` bytes of a file. Call it in a thread.

    Returns None if the file is shorter. Raises OSError.
    """
    state = checksums.hasher(algorithm)
    missing = size
    while missing and (piece := os.pread(fd, min(READ_BYTES, missing), size - missing)):
        missing -= len(piece)
        state.update(piece)
    return None if missing else state.digest()
