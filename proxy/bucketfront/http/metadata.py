"""What one origin response said about one version of an object (I4)."""

import re
from dataclasses import dataclass

# The object headers that pass from the origin to clients, as S3 sends them. `x-amz-meta-*` passes too (I25).
OBJECT_HEADERS = (
    "Content-Type",
    "Content-Encoding",
    "Content-Language",
    "Content-Disposition",
    "Cache-Control",
    # Stored because they decide freshness here before Cache-Control does. Passed on, though a surrogate may keep them
    # to itself: a CDN in front of us is of the class of caches that they are meant for (RFC 9213 section 3).
    "CDN-Cache-Control",
    "Surrogate-Control",
    "Expires",
)
USER_METADATA_PREFIX = "x-amz-meta-"

_MD5 = re.compile(r'"([0-9a-f]{32})"')


@dataclass(frozen=True, slots=True)
class Metadata:
    """One version's metadata, all of it from one response.

    `etag` is on-the-wire form, quotes included. `size` is the whole object's length in bytes. `last_modified` is
    the HTTP date as sent, or None. `headers` are the allow-listed object headers, in sending order.
    `age` is the origin's own `Age` in seconds (0 where it sent none). `version` is S3's version id; None where
    there is none, or it is "null": that one can be overwritten. `checksum` is S3's own of the whole object, where the
    answer was about the whole object and said it: the algorithm (crc32, crc32c, crc64nvme, sha1, sha256) and the value
    in base64. `has_opaque_etag`: encrypted so that the ETag is no MD5, whatever it looks like.
    """

    etag: str
    size: int
    last_modified: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    age: int = 0
    version: str | None = None
    checksum: tuple[str, str] | None = None
    has_opaque_etag: bool = False

    def is_version(self, other: "Metadata") -> bool:
        """Whether both describe the same bytes."""
        return (self.etag, self.size) == (other.etag, other.size)

    @property
    def content_md5(self) -> str | None:
        """MD5 of the object's bytes, 32 hex digits, where the ETag is one (S3 API, "Common response headers"): of an
        object that was put in one piece and is not encrypted with keys of KMS or of its owner.
        """
        found = None if self.has_opaque_etag else _MD5.fullmatch(self.etag)
        return None if found is None else found[1]

    def header(self, name: str) -> str | None:
        """The value of one object header; `name` in any case."""
        wanted = name.lower()
        return next((value for header, value in self.headers if header.lower() == wanted), None)
