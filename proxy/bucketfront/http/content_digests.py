"""What S3's response headers declare about the bytes of an object (S3 User Guide, "Checking object integrity").

- The ETag is the MD5 of bytes that were put in one piece, unless they are encrypted with keys of KMS or of their owner.
- The ETag of an object that was uploaded in parts is the MD5 of its parts' ETags, and `-` with their number.
- `x-amz-checksum-*` declares other checksums.

Some compatible servers have ETags that look like these and are others. So an ETag that fits proves the bytes, and one
that differs disproves nothing by itself.
"""

import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping

from bucketfront.http.checksums import Digest, size_of

# Some compatible servers send the digits in upper case.
_MD5 = re.compile(r'"([0-9a-fA-F]{32})"')
_OF_PARTS = re.compile(r'"[0-9a-fA-F]{32}-[0-9]{1,5}"')
# S3 API: the algorithms of `x-amz-checksum-…`.
_ALGORITHMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")


def md5_of(etag: str) -> str | None:
    """Return the MD5 that an ETag in wire form looks like, as 32 hex digits in lower case, or None."""
    found = _MD5.fullmatch(etag)
    return None if found is None else found[1].lower()


def has_opaque_etag(headers: Mapping[str, str]) -> bool:
    """Return whether the encryption that `headers` declare makes the ETag something else than an MD5.

    The names are in lower case.
    """
    return (
        headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
        or "x-amz-server-side-encryption-customer-algorithm" in headers
    )


def is_etag_of_parts(etag: str) -> bool:
    """Return whether an ETag in wire form looks like that of an object that was uploaded in parts."""
    return _OF_PARTS.fullmatch(etag) is not None


def comparable(etag: str) -> str:
    """Return an ETag in wire form, in lower case if it looks like an MD5 or like that of an object of parts."""
    return etag.lower() if _MD5.fullmatch(etag) or _OF_PARTS.fullmatch(etag) else etag


def etag_of_parts(etags: Iterable[str]) -> str | None:
    """Return the ETag of an object whose parts have `etags`, or None if one of these does not look like an MD5."""
    values = [md5_of(etag) for etag in etags]
    known = [bytes.fromhex(value) for value in values if value is not None]
    if len(known) < len(values):
        return None
    return f'"{hashlib.md5(b"".join(known), usedforsecurity=False).hexdigest()}-{len(known)}"'


def checksum(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the algorithm and the base64 value of the first of `checksums`, or None."""
    for algorithm in checksums(headers):
        return algorithm, headers[f"x-amz-checksum-{algorithm}"]
    return None


def checksums(headers: Mapping[str, str]) -> dict[str, Digest]:
    """Return all checksums that `headers` declare for all bytes, by algorithm.

    A COMPOSITE checksum (`value-N`) is computed from those of the parts, and cannot be compared with the bytes. Some
    compatible servers send it without its type and without the number, so that of an object in parts needs its type.
    """
    kind = headers.get("x-amz-checksum-type")
    if kind != "FULL_OBJECT" and (kind is not None or is_etag_of_parts(headers.get("etag", ""))):
        return {}
    found = {name: value_of(headers.get(f"x-amz-checksum-{name}", ""), name) for name in _ALGORITHMS}
    return {name: Digest(name, value) for name, value in found.items() if value is not None}


def value_of(text: str, algorithm: str) -> bytes | None:
    """Return the bytes of a checksum in base64, or None if it is not one of the algorithm."""
    try:
        value = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
    return value if len(value) == size_of(algorithm) else None
