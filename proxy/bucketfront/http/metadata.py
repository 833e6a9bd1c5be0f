"""Hold the metadata of one version, all of it from one response (docs/invariants.md#one-source-of-metadata)."""

from dataclasses import dataclass, field, replace

from bucketfront.http import content_digests
from bucketfront.http.grammar import Headers
from bucketfront.http.response_fields import is_text

# The object headers that pass from the origin to clients, as S3 sends them. `x-amz-meta-*` passes too.
OBJECT_HEADERS = (
    "Content-Type",
    "Content-Encoding",
    "Content-Language",
    "Content-Disposition",
    "Cache-Control",
    # These two are stored because they take precedence over Cache-Control here. They are also forwarded, because a CDN
    # in front of bucketfront belongs to the caches that they address (RFC 9213 section 3).
    "CDN-Cache-Control",
    "Surrogate-Control",
    "Expires",
    # Tags, by which a CDN in front and bucketfront itself purge objects.
    "Cache-Tag",
    "Surrogate-Key",
)

# The fields that a 304 renews (RFC 9111 section 3.2): how long the response may be used.
_LIFETIMES = frozenset({"cache-control", "cdn-cache-control", "surrogate-control", "expires"})
# These describe the bytes that a 304 leaves as they are. Some servers send those of an error document with it.
_OF_THE_BYTES = frozenset({"content-type", "content-encoding"})


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of one version.

    - `etag` is in wire form, with its quotes, or "" if the response has none that can tell versions apart.
    - `size` is the length of the whole object in bytes.
    - `last_modified` is the HTTP date as sent, or None.
    - `headers` are the allow-listed object headers, in sending order.
    - `age` is the origin's own `Age` in seconds, or 0 if it sent none.
    - `version` is S3's version id. It is None if S3 sent none, or "null", because that version can be overwritten.
    - `checksum` is S3's checksum of the whole object, if the response has it: the algorithm (crc32, crc32c, crc64nvme,
      sha1, sha256) and the value in base64.
    - `date` is the response's own `Date` as sent, or None. It describes the response and not the version.
    - `cache_status` is the `Cache-Status` of caches between S3 and this one, or "". It describes the response as well.
    - `has_opaque_etag`: the object is encrypted such that its ETag is not an MD5, even if it looks like one.
    """

    etag: str
    size: int
    last_modified: str | None = None
    headers: Headers = ()
    age: int = 0
    version: str | None = None
    checksum: tuple[str, str] | None = None
    has_opaque_etag: bool = False
    date: str | None = field(default=None, compare=False)
    cache_status: str = field(default="", compare=False)

    def is_version(self, other: "Metadata") -> bool:
        """Return whether both describe the same bytes. Neither is from a 304, which may omit fields: see `renewed`.

        Some origins have an ETag that never changes, and it may look like an MD5. So Last-Modified and the version id
        must agree as well. A response that has one of them is of another version than a response without it. An object
        that is copied onto itself is therefore another version, whose bytes are fetched once more. Some origins decode
        an object on the way, so the coding must agree too.
        """
        if (self.etag, self.size) != (other.etag, other.size) or self.coding != other.coding:
            return False
        return self.last_modified == other.last_modified and self.version == other.version

    @property
    def has_validator(self) -> bool:
        """Return whether the ETag can tell this version from others. Without that, the object is not stored.

        An ETag that is not UTF-8 passes to clients, but not into the index and not into a signed request.
        """
        return len(self.etag.removeprefix("W/")) > 2 and is_text(self.etag)

    @property
    def is_strong(self) -> bool:
        """Return whether bytes of several responses with this ETag are bytes of one version.

        They are not with a weak ETag (RFC 9110 section 8.8.1).
        """
        return self.has_validator and self.etag[0] == '"'

    @property
    def has_second_validator(self) -> bool:
        """Return whether more than the ETag, which may never change, tells this version from others of its size."""
        return self.last_modified is not None or self.version is not None

    @property
    def content_md5(self) -> str | None:
        """Return the MD5 of the object's bytes as 32 hex digits, or None if the ETag is not one.

        The ETag is an MD5 if the object was put in one piece and is not encrypted with keys of KMS or of its owner.
        S3's API reference documents this under "Common response headers".
        """
        return None if self.has_opaque_etag else content_digests.md5_of(self.etag)

    def renewed(
        self, last_modified: str | None, headers: Headers, age: int, date: str | None, cache_status: str
    ) -> "Metadata | None":
        """Return this metadata renewed by the fields of a 304 (RFC 9111 section 3.2).

        Returns None if the object was written since with the same bytes, so that all of its metadata may be new.
        """
        if last_modified not in (None, self.last_modified):
            return None
        for name, value in headers:
            if name.lower() not in _LIFETIMES | _OF_THE_BYTES and value != self.header(name):
                return None
        sent = {name.lower(): (name, value) for name, value in headers if name.lower() in _LIFETIMES}
        kept = (header for header in self.headers if header[0].lower() not in sent)
        return replace(self, headers=_in_order((*kept, *sent.values())), age=age, date=date, cache_status=cache_status)

    @property
    def coding(self) -> str:
        """Return the content codings in lower case, or "" if the bytes have none."""
        coding = (self.header("Content-Encoding") or "").lower()
        return "" if coding == "identity" else coding

    def header(self, name: str) -> str | None:
        """Return the value of one object header, or None. `name` may have any case."""
        wanted = name.lower()
        return next((value for header, value in self.headers if header.lower() == wanted), None)


def _in_order(headers: Headers) -> Headers:
    """Return headers in the order of OBJECT_HEADERS, with user metadata behind them."""
    place = {name.lower(): number for number, name in enumerate(OBJECT_HEADERS)}
    return tuple(sorted(headers, key=lambda header: place.get(header[0].lower(), len(place))))
