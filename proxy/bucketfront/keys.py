"""The mapping from wire path to S3 key: a total function to a key of at most 1024 bytes, or to `BadPath`.

The decoding is strict: it does not normalise Unicode, merge slashes or remove dot segments
(docs/invariants.md#one-name). `aiohttp`'s `request.path` loses information, so it is not used.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from bucketfront.errors import BadPath

MAX_KEY_BYTES = 1024  # S3 API, "Object key naming": UTF-8, at most 1,024 bytes

_ESCAPE = re.compile(rb"%(?:([0-9A-Fa-f]{2})|.{0,2})", re.DOTALL)
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
# XML 1.0 section 2.2, `Char`. A document cannot contain other characters, not even as a reference.
_XML_TEXT = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
_SPELLED_OCTET = re.compile(rb"%..|.", re.DOTALL)
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
_OF_PATHS = _UNRESERVED | frozenset(b"!$&'()*+,;=:@")  # RFC 3986 section 3.3: characters of a path that need no escape


class ObjectKey(NamedTuple):
    """The name of an object at the origin. It is a tuple, because it is hashed on every request.

    `version` is the `versionId` that a client requested, None for the current version.
    """

    bucket: str
    key: str
    version: str | None = None

    def __str__(self) -> str:
        """Return the name for messages, percent-encoded, so that no log line gets a raw CR, LF or ESC.

        See docs/invariants.md#secrets-stay-in.
        """
        pinned = "" if self.version is None else f"?versionId={percent_encode(self.version)}"
        return f"{self.bucket}/{percent_encode(self.key)}{pinned}"


@dataclass(frozen=True, slots=True)
class Target:
    """A request target, split, before it is mapped to a mount.

    `path` has the percent-decoded bytes, and `spelling` is the path as sent. `query` is raw.
    """

    path: bytes
    query: str
    spelling: str


def parse_target(raw: str) -> Target:
    """Decode a request target in origin form or absolute form (RFC 9112 sections 3.2.1 and 3.2.2).

    `raw` is the target as sent, with bytes above 0x7F as surrogate escapes. Raises BadPath.
    """
    path, query = split_target(raw)
    if "#" in path:
        raise BadPath("the path holds a bare '#'; write it as %23")
    return Target(percent_decode(path.encode("utf-8", "surrogateescape")), query, path)


def split_target(raw: str) -> tuple[str, str]:
    """Return the path and the query of a request target as they were sent. Raises BadPath."""
    if not raw.startswith("/"):
        absolute = _ABSOLUTE_FORM.match(raw)
        if absolute is None:
            raise BadPath("the request target is neither a path nor an absolute URL")
        raw = raw[absolute.end() :]
        if not raw.startswith("/"):
            raw = "/" + raw
    path, _, query = raw.partition("?")
    return path, query


def percent_decode(path: bytes) -> bytes:
    """Decode all percent-escapes (RFC 3986 section 2.1). Raises BadPath for a '%' without two hex digits."""
    if b"%" not in path:
        return path

    def octet(match: re.Match[bytes]) -> bytes:
        digits = match[1]
        if digits is None:
            raise BadPath(f"{match[0].decode('ascii', 'backslashreplace')!r} is no percent-escape")
        return bytes((int(digits, 16),))

    return _ESCAPE.sub(octet, path)


def percent_encode(key: str) -> str:
    """Return a key as the path of a URL: the inverse of `percent_decode`."""
    return "".join(chr(b) if b in _UNRESERVED else f"%{b:02X}" for b in key.encode())


def url_path(path: bytes) -> str:
    """Return the one spelling in which URLs name a mount, without needless escapes. `path` is decoded."""
    spelling = "".join(chr(b) if b in _OF_PATHS else f"%{b:02X}" for b in path)
    # RFC 3986 section 4.2: a reference that begins with "//" names a host (docs/invariants.md#fixed-egress).
    return f"/%2F{spelling[2:]}" if spelling.startswith("//") else spelling


def spelling_behind(spelling: str, count: int) -> str:
    """Return what follows the first `count` decoded octets in the path `spelling`, spelled as it was sent."""
    octets = _SPELLED_OCTET.findall(spelling.encode("utf-8", "surrogateescape"))[count:]
    return "".join(chr(b) if 0x20 < b < 0x7F else f"%{b:02X}" for b in b"".join(octets))


def to_key(octets: bytes) -> str:
    """Return the S3 key that `octets` encode. Raises BadPath if they are no UTF-8, or not 1 to 1024 bytes."""
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
    """Raise BadPath if S3 cannot take an upload to `key` in parts, because XML cannot represent the key.

    S3 repeats the key in its response to CreateMultipartUpload, and that response could not be parsed. This applies to
    small bodies as well, so that the size does not decide whether a key can be written.
    """
    if _XML_TEXT.fullmatch(key) is None:
        raise BadPath("the key holds a character that XML does not have, so S3 cannot take it in parts")
