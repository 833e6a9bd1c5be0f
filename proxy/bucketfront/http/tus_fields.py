"""Parse the headers of the tus protocol, version 1.0.0 (tus.io/protocols/resumable-upload).

- A number consists of decimal digits and fits into 63 bits.
- A header that the protocol forbids is refused and not repaired, because the client may mean something else by it.
"""

import base64
import binascii
import re
from collections.abc import Mapping

from bucketfront.errors import ProxyError
from bucketfront.http import checksums
from bucketfront.http.checksums import Digest

VERSION = "1.0.0"
EXTENSIONS = ("creation", "creation-with-upload", "checksum", "expiration", "termination")
CHECKSUMS = ("sha1", "sha256", "md5", "crc32")
BODY_TYPE = "application/offset+octet-stream"
CHECKSUM_MISMATCH = 460  # a status of tus alone
MAX_METADATA_CHARS = 4096  # of Upload-Metadata, which is stored as long as the upload exists

# The headers that a page of another origin must be able to send and to read (Fetch standard).
REQUEST_HEADERS = (
    "Content-Type", "Tus-Resumable", "Upload-Checksum", "Upload-Length", "Upload-Metadata", "Upload-Offset",
    "X-HTTP-Method-Override", "X-Requested-With",
)  # fmt: skip
RESPONSE_HEADERS = (
    "ETag", "Location", "Tus-Checksum-Algorithm", "Tus-Extension", "Tus-Max-Size", "Tus-Resumable", "Tus-Version",
    "Upload-Expires", "Upload-Length", "Upload-Metadata", "Upload-Offset",
)  # fmt: skip

_METHODS = frozenset({"POST", "HEAD", "PATCH", "DELETE"})
_NUMBER = re.compile(r"[0-9]{1,19}")
_METADATA_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]+")  # visible ASCII without the comma


class BadUploadHead(ProxyError):
    """A header of the protocol that is malformed or missing, or has an impossible value."""


class WrongVersion(ProxyError):
    """A request of another version of the protocol, or without a version."""


class WrongBodyType(ProxyError):
    """A body that is not `application/offset+octet-stream`."""


class TusChecksumMismatch(ProxyError):
    """A body that does not have its Upload-Checksum."""


def is_tus_request(method: str, fields: Mapping[str, str]) -> bool:
    """Return whether a request on the upload route is one of this protocol. PATCH has no other meaning there."""
    return method == "PATCH" or (method in _METHODS and "Tus-Resumable" in fields)


def method_of(method: str, fields: Mapping[str, str]) -> str:
    """Return the request's method. A client limited to GET and POST sends it in X-HTTP-Method-Override."""
    return fields.get("X-HTTP-Method-Override", method).upper() if method == "POST" else method


def check_version(fields: Mapping[str, str]) -> None:
    """Check the protocol version of a request. Raises WrongVersion."""
    if fields.get("Tus-Resumable") != VERSION:
        raise WrongVersion(f"tus {VERSION} is spoken here, see Tus-Version")


def check_body_type(fields: Mapping[str, str]) -> None:
    """Check the type of a body with bytes of an upload. Raises WrongBodyType."""
    if fields.get("Content-Type", "").strip().lower() != BODY_TYPE:
        raise WrongBodyType(f"the body's type must be {BODY_TYPE}")


def byte_count(name: str, fields: Mapping[str, str]) -> int:
    """Return the value of a header as a number of bytes. Raises BadUploadHead."""
    text = fields.get(name, "")
    if _NUMBER.fullmatch(text) is None or int(text) >> 63:
        raise BadUploadHead(f"{name} must be a number of bytes")
    return int(text)


def upload_length(fields: Mapping[str, str]) -> int:
    """Return the number of bytes of the whole upload. Raises BadUploadHead."""
    if "Upload-Defer-Length" in fields:
        raise BadUploadHead("creation-defer-length is not spoken here: send Upload-Length")
    if "Upload-Concat" in fields:
        raise BadUploadHead("concatenation is not spoken here: send the upload as one")
    return byte_count("Upload-Length", fields)


def metadata(text: str) -> dict[str, bytes]:
    """Return Upload-Metadata: keys and their decoded values, which may be empty. Raises BadUploadHead."""
    if len(text) > MAX_METADATA_CHARS:
        raise BadUploadHead(f"Upload-Metadata has {len(text)} characters; {MAX_METADATA_CHARS} are taken")
    found: dict[str, bytes] = {}
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip(" ").partition(" ")
        if _METADATA_KEY.fullmatch(key) is None:
            raise BadUploadHead("Upload-Metadata must be pairs of an ASCII key and a value, with commas between them")
        if key in found:
            raise BadUploadHead("Upload-Metadata must name a key once")
        found[key] = _base64("Upload-Metadata", value)
    return found


def text_of(name: str, found: Mapping[str, bytes]) -> str | None:
    """Return a value of the metadata as text, or None if it is missing or empty. Raises BadUploadHead."""
    try:
        return found.get(name, b"").decode() or None
    except UnicodeDecodeError:
        raise BadUploadHead(f"the {name} in Upload-Metadata is not UTF-8") from None


def checksum(fields: Mapping[str, str]) -> Digest | None:
    """Return the Upload-Checksum of this request's body, or None if it has none. Raises BadUploadHead."""
    text = fields.get("Upload-Checksum")
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in CHECKSUMS:
        raise BadUploadHead(f"Upload-Checksum must be one of {', '.join(CHECKSUMS)}")
    digest = Digest(algorithm, _base64("Upload-Checksum", value))
    if len(digest.value) != checksums.size_of(algorithm):
        raise BadUploadHead(f"Upload-Checksum is no {algorithm}")
    return digest


def _base64(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadUploadHead(f"{name} must be in Base64") from None
