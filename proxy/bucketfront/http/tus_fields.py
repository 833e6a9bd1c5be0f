"""The tus protocol, version 1.0.0 (tus.io/protocols/resumable-upload): what its header fields say. Pure.

Rule 1: a number has decimal digits and nothing else, and fits into 63 bits.
Rule 2: what the protocol forbids is refused, not repaired: a client that sends it means something else.
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
CHECKSUM_MISMATCH = 460  # a status that no other protocol knows
MAX_METADATA_CHARS = 4096  # characters of Upload-Metadata; they are kept as long as the upload is

# What a page of another origin must be able to send and to read (Fetch standard).
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
    """A field of the protocol that cannot be read, is missing, or says what cannot be."""


class WrongVersion(ProxyError):
    """Another version of the protocol, or none, where this one is spoken."""


class WrongBodyType(ProxyError):
    """A body that is not `application/offset+octet-stream`."""


class WrongChecksum(ProxyError):
    """A body that is not the one that its Upload-Checksum was made of."""


def is_tus_request(method: str, fields: Mapping[str, str]) -> bool:
    """Whether a request on the upload route is one of this protocol. PATCH means nothing else there."""
    return method == "PATCH" or (method in _METHODS and "Tus-Resumable" in fields)


def method_of(method: str, fields: Mapping[str, str]) -> str:
    """The request's method; a client that can send nothing but GET and POST names it in X-HTTP-Method-Override."""
    return fields.get("X-HTTP-Method-Override", method).upper() if method == "POST" else method


def check_version(fields: Mapping[str, str]) -> None:
    """Raises WrongVersion."""
    if fields.get("Tus-Resumable") != VERSION:
        raise WrongVersion(f"tus {VERSION} is spoken here, see Tus-Version")


def check_body_type(fields: Mapping[str, str]) -> None:
    """Raises WrongBodyType."""
    if fields.get("Content-Type", "").strip().lower() != BODY_TYPE:
        raise WrongBodyType(f"the body's type must be {BODY_TYPE}")


def byte_count(name: str, fields: Mapping[str, str]) -> int:
    """The field as a number of bytes. Raises BadUploadHead."""
    text = fields.get(name, "")
    if _NUMBER.fullmatch(text) is None or int(text) >> 63:
        raise BadUploadHead(f"{name} must be a number of bytes")
    return int(text)


def upload_length(fields: Mapping[str, str]) -> int:
    """How many bytes the whole upload has. Raises BadUploadHead."""
    if "Upload-Defer-Length" in fields:
        raise BadUploadHead("creation-defer-length is not spoken here: send Upload-Length")
    if "Upload-Concat" in fields:
        raise BadUploadHead("concatenation is not spoken here: send the upload as one")
    return byte_count("Upload-Length", fields)


def metadata(text: str) -> dict[str, bytes]:
    """Upload-Metadata: pairs of a key and a value in Base64, which may be missing. Raises BadUploadHead."""
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
    """A value of the metadata as text; None where it is missing or empty. Raises BadUploadHead."""
    try:
        return found.get(name, b"").decode() or None
    except UnicodeDecodeError:
        raise BadUploadHead(f"the {name} in Upload-Metadata is not UTF-8") from None


def checksum(fields: Mapping[str, str]) -> Digest | None:
    """What Upload-Checksum says of the body of this request. Raises BadUploadHead."""
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
