"""Read a request's query string: a version, changed headers (S3 GetObject), or an S3 sub-resource.

- Every function is total: it returns a value or raises BadQuery. Its cost is linear in the length, which is bounded
  (docs/invariants.md#cost-of-a-request).
- A value becomes a header only if it is printable ASCII (no CR, LF or NUL). No message quotes a value
  (docs/invariants.md#secrets-stay-in).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from string import hexdigits

from bucketfront.errors import ProxyError
from bucketfront.http.grammar import Headers, is_field_value

MAX_QUERY_CHARS = 8192  # a common bound of servers for a request line
MAX_PARAMETERS = 100  # far more than S3 defines for one request
MAX_VERSION_CHARS = 1024  # S3's longest version id
MAX_OVERRIDE_CHARS = 2048  # longer than any useful Content-Disposition

VERSION = "versionId"

# S3 API, GetObject: the header that each parameter replaces.
_OVERRIDES = {
    "response-content-type": "Content-Type",
    "response-content-language": "Content-Language",
    "response-content-disposition": "Content-Disposition",
    "response-content-encoding": "Content-Encoding",
    "response-cache-control": "Cache-Control",
    "response-expires": "Expires",
}

SUBRESOURCES = frozenset(
    {
        # Of an object. `append` is not S3's own parameter, but some S3-compatible servers write by it.
        "acl", "annotation", "annotationName", "append", "attributes", "encryption", "legal-hold", "partNumber",
        "renameObject", "restore", "retention", "select", "select-type", "tagging", "torrent", "uploadId", "uploads",
        "versionId",
        # Of a bucket
        "abac", "accelerate", "analytics", "cors", "delete", "intelligent-tiering", "inventory", "lifecycle",
        "list-type", "location", "logging", "metadataAnnotationTable", "metadataConfiguration",
        "metadataInventoryTable", "metadataJournalTable", "metadataTable", "metrics", "notification", "object-lock",
        "ownershipControls", "policy", "policyStatus", "publicAccessBlock", "replication", "requestPayment", "session",
        "versioning", "versions", "website",
    }
)  # fmt: skip
"""S3's sub-resources and multipart parameters, which change the meaning of a write. Case matters, as in S3."""

# Those that clients of S3 send with a value. They send the others alone, as `?acl` or `?acl=`.
_VALUED = frozenset({"annotationName", "list-type", "partNumber", "renameObject", "select-type", "uploadId"})

# S3 API, ListObjects, which has no sub-resource.
_OF_LISTS = frozenset({"delimiter", "encoding-type", "marker", "max-keys", "prefix"})

# A table, because a call for each escape would make a long query cost milliseconds.
_OCTETS = {f"{high}{low}".encode(): bytes.fromhex(high + low) for high in hexdigits for low in hexdigits}
_VERSION_ID = re.compile(r"[\x21-\x7e]+")


SIGNED = frozenset({"bf_key", "bf_expires", "bf_sig", "bf_net"})
"""The parameters of a signed URL, which are about access and not about the object."""


class BadQuery(ProxyError):
    """A query string that is malformed, or has a value that no header may hold."""


class QueryTooLong(BadQuery):
    """The query is longer than MAX_QUERY_CHARS."""


class NoSuchOperation(ProxyError):
    """A request means an operation of S3 that is not implemented here, and not the object that its path names."""


@dataclass(frozen=True, slots=True)
class Query:
    """The query of a read.

    `version` is S3's `versionId`, None for the current one. `overrides` are header names in their usual spelling with
    their values. `others` are the decoded names of parameters without a meaning for a read. Both keep the order of the
    query.
    """

    version: str | None = None
    overrides: Headers = ()
    others: tuple[str, ...] = ()


NOTHING = Query()


def parse(query: str) -> Query:
    """Return the query of a GET or HEAD, given as sent without its '?' (S3 GetObject, HeadObject).

    Values of parameters without a meaning are not checked. Raises BadQuery if the query is too long, has too many
    parameters, or a name that is not percent-encoded UTF-8. Also raises it if a parameter with a meaning occurs twice,
    or has an invalid value.
    """
    if not query:
        return NOTHING
    version: str | None = None
    overrides: dict[str, tuple[str, str]] = {}
    others: list[str] = []
    for name, value in _parameters(query):
        header = _OVERRIDES.get(name)
        if name == VERSION:
            if version is not None:
                raise BadQuery(f"{VERSION} is given twice")
            version = _version(value)
        elif header is not None:
            if name in overrides:
                raise BadQuery(f"{name} is given twice")
            overrides[name] = header, _override(name, value)
        elif name not in SIGNED:
            others.append(name)
    return Query(version, tuple(overrides.values()), tuple(others))


def subresource(query: str) -> str | None:
    """Return the first parameter by which a request does not mean the object itself (SUBRESOURCES), or None.

    Raises BadQuery if the query is too long, has too many parameters, or a malformed name, because then the meaning of
    a write is unclear.
    """
    if not query:
        return None
    return next((name for name, _ in _parameters(query) if name in SUBRESOURCES), None)


def operation_of_read(query: str, *, is_s3: bool, has_versions: bool = True) -> str | None:
    """Return the first parameter by which a GET or HEAD does not mean the object itself, or None.

    `is_s3` is true if the request is certainly from a client of S3. Without that, a parameter counts only in the form
    in which such clients send it, so that `?session=1` and `?prefix=a` of a web page have no meaning. Without
    `has_versions`, such a client's `versionId` counts as well, because it does not mean the current version.
    Raises BadQuery as `subresource` does.
    """
    if not query:
        return None
    for name, value in _parameters(query):
        if name == VERSION and (has_versions or not is_s3):
            continue
        is_sent_so = is_s3 or not value or name in _VALUED
        if (name in SUBRESOURCES and is_sent_so) or (is_s3 and name in _OF_LISTS):
            return name
    return None


def is_delete_objects(query: str) -> bool:
    """Return whether a POST with this query is S3's DeleteObjects: `?delete` without another sub-resource.

    Raises BadQuery as `subresource` does.
    """
    return {name for name, _ in _parameters(query) if name in SUBRESOURCES} == {"delete"}


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    """Yield each decoded name with its value as sent. A parameter without '=' has the empty value."""
    if len(query) > MAX_QUERY_CHARS:
        raise QueryTooLong(f"the query has {len(query)} characters; {MAX_QUERY_CHARS} are allowed")
    if query.count("&") >= MAX_PARAMETERS:
        raise BadQuery(f"the query has more than {MAX_PARAMETERS} parameters")
    for parameter in query.split("&"):
        if parameter:
            name, _, value = parameter.partition("=")
            decoded = _decode(name)
            if decoded is None:
                raise BadQuery("the name of a query parameter is not percent-encoded UTF-8")
            yield decoded, value


def is_version_id(text: str) -> bool:
    """Return whether S3 may have given this id to a version."""
    return len(text) <= MAX_VERSION_CHARS and _VERSION_ID.fullmatch(text) is not None


def _version(value: str) -> str:
    version = _decode(value) or ""
    if not is_version_id(version):
        raise BadQuery(f"{VERSION} must be 1 to {MAX_VERSION_CHARS} visible ASCII characters")
    return version


def _override(name: str, value: str) -> str:
    decoded = _decode(value) or ""
    if len(decoded) > MAX_OVERRIDE_CHARS or not decoded or not is_field_value(decoded):
        raise BadQuery(f"{name} must be 1 to {MAX_OVERRIDE_CHARS} printable ASCII characters, no space at its ends")
    return decoded


def _decode(text: str) -> str | None:
    """Decode form encoding ('+' is a space) strictly.

    Returns None if an escape is broken or the octets are not UTF-8.
    """
    try:
        first, *escaped = text.replace("+", " ").encode("utf-8", "surrogateescape").split(b"%")
        return b"".join([first, *[_OCTETS[octets[:2]] + octets[2:] for octets in escaped]]).decode("utf-8")
    except (KeyError, UnicodeError):
        return None
