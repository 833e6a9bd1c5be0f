"""Wire path -> S3 key: a total function to a key of at most 1024 bytes, or `BadPath` (I23).

The decoding is strict and does nothing else: no Unicode normalisation, no merging of slashes, no removal of
dot segments. `aiohttp`'s `request.path` is lossy and is never used for this.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from bucketfront.errors import BadPath

MAX_KEY_BYTES = 1024  # S3 API, "Object key naming": UTF-8, at most 1,024 bytes

_ESCAPE = re.compile(rb"%(?:([0-9A-Fa-f]{2})|.{0,2})", re.DOTALL)
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
# XML 1.0 section 2.2, `Char`: what is none of these cannot be written in a document, not even as a reference.
_XML_TEXT = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


class ObjectKey(NamedTuple):
    """What names an object at the origin. A tuple, because it is hashed on every request.

    `version` is S3's `versionId` where a client asked for one, None for whatever is current.
    """

    bucket: str
    key: str
    version: str | None = None

    def __str__(self) -> str:
        """For messages: percent-encoded, so that no log line gets a raw CR, LF or ESC (I28)."""
        pinned = "" if self.version is None else f"?versionId={percent_encode(self.version)}"
        return f"{self.bucket}/{percent_encode(self.key)}{pinned}"


@dataclass(frozen=True, slots=True)
class Target:
    """A request target, split but not yet mapped to a mount. `path` is percent-decoded bytes."""

    path: bytes
    query: str


def parse_target(raw: str) -> Target:
    """Decode a request target in origin form or absolute form (RFC 9112 sections 3.2.1 and 3.2.2).

    `raw` is the target as it came over the wire, bytes above 0x7F as surrogate escapes. Raises BadPath.
    """
    if not raw.startswith("/"):
        absolute = _ABSOLUTE_FORM.match(raw)
        if absolute is None:
            raise BadPath("the request target is neither a path nor an absolute URL")
        raw = raw[absolute.end() :]
        if not raw.startswith("/"):
            raw = "/" + raw
    path, _, query = raw.partition("?")
    if "#" in path:
        raise BadPath("the path holds a bare '#'; write it as %23")
    return Target(percent_decode(path.encode("utf-8", "surrogateescape")), query)


def percent_decode(path: bytes) -> bytes:
    """RFC 3986 section 2.1, strictly: a '%' without two hex digits raises BadPath."""
    if b"%" not in path:
        return path

    def octet(match: re.Match[bytes]) -> bytes:
        digits = match[1]
        if digits is None:
            raise BadPath(f"{match[0].decode('ascii', 'backslashreplace')!r} is no percent-escape")
        return bytes((int(digits, 16),))

    return _ESCAPE.sub(octet, path)


def percent_encode(key: str) -> str:
    """A key as the path of a URL; the inverse of `percent_decode`."""
    return "".join(chr(b) if b in _UNRESERVED else f"%{b:02X}" for b in key.encode())


def to_key(octets: bytes) -> str:
    """The S3 key these octets spell. Raises BadPath: S3 keys are UTF-8, 1 to 1024 bytes."""
    if not octets:
        raise BadPath("the path names a mount, not an object")
    if len(octets) > MAX_KEY_BYTES:
        raise BadPath(f"the key has {len(octets)} bytes; S3 allows {MAX_KEY_BYTES}")
    if b"\0" in octets:
        raise BadPath("the key holds a NUL byte")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadPath(f"the key is not UTF-8 (byte {error.start})") from error


def check_writable(key: str) -> None:
    """S3 repeats the key in its answer to CreateMultipartUpload, so that nobody could read the id of the upload.

    Raises BadPath, for a small body as well: whether a key can be written must not depend on the size.
    """
    if _XML_TEXT.fullmatch(key) is None:
        raise BadPath("the key holds a character that XML does not have, so S3 cannot take it in parts")
