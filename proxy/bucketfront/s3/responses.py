"""S3's response headers as our values. Each is checked before it is used.

See docs/invariants.md#version-purity and docs/invariants.md#one-source-of-metadata.
"""

import re
from collections.abc import Mapping

from bucketfront.cache import NotModified
from bucketfront.errors import AmbiguousPart, InvalidOriginResponse, ObjectChanged, RangeIgnored, RangeUnsatisfiable
from bucketfront.http import content_digests, etags
from bucketfront.http.grammar import Headers
from bucketfront.http.metadata import OBJECT_HEADERS, Metadata
from bucketfront.http.ranges import FromTo, Requested, Span, Suffix
from bucketfront.http.response_fields import USER_METADATA_PREFIX, ResponseFields, is_text

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
# A 206 of an empty object: MinIO sends `bytes 0--1/0` for a suffix, and s3rver `bytes 0-0/0` for every range.
_RANGE_OF_NOTHING = re.compile(r"bytes [0-9]+--?[0-9]+/0")
_SIZE_UNKNOWN = re.compile(r"bytes [0-9]{1,19}-[0-9]{1,19}/\*")  # RFC 9110 section 14.4
_UNSATISFIED_RANGE = re.compile(r"bytes \*/([0-9]{1,19})")

# Fields that only describe an object. Without one of the others, it could be stored against its will, or be unreadable.
_DESCRIPTIONS = frozenset({"content-type", "content-language", "content-disposition"})

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})  # of pages: S3 itself sends XML

# S3 API: the operations that read no object respond with 200 or 204, and some S3-alikes with 201. A 202 is no success
# yet, and a 206 describes a part of something else.
_DONE = frozenset({200, 201, 204})

MAX_CACHE_STATUS = 512  # characters of what caches before this one report, which each stored object keeps

# S3 API, GetObject: the version id of an object that was written while its bucket had no versioning. S3 may omit it.
_NO_VERSION = "null"


def metadata(
    headers: ResponseFields, size: int, requested_version: str | None = None, *, is_whole: bool = False
) -> Metadata:
    """Return the metadata that `headers` have of an object of `size` bytes.

    `is_whole` means that the response has the whole object, so that its checksum is the object's. An ETag or a
    Last-Modified that contradicts itself counts as absent. Raises InvalidOriginResponse if the version is not the
    requested one, or if the response is a page that is not from S3.
    """
    if is_page(headers):
        raise InvalidOriginResponse("the origin sent an HTML page without a field of S3; see origin.endpoint_url")
    return Metadata(
        etag=etags.normalised(headers.agreed("etag") or ""),
        size=size,
        last_modified=headers.agreed("last-modified") or None,
        headers=_object_headers(headers),
        age=_age(headers),
        version=_version(headers, requested_version),
        checksum=content_digests.checksum(headers) if is_whole else None,
        has_opaque_etag=content_digests.has_opaque_etag(headers),
        date=headers.agreed("date") or None,
        cache_status=_cache_status(headers),
    )


def is_page(headers: Mapping[str, str]) -> bool:
    """Return whether a 200 has HTML and no field that S3 sends with an object.

    That is the page of a captive portal, a firewall or a console port, and no object of that type.
    """
    is_from_s3 = any(name in ("etag", "last-modified") or name.startswith("x-amz-") for name in headers)
    return media_type(headers) in HTML_TYPES and not is_from_s3


def media_type(headers: Mapping[str, str]) -> str:
    """Return the media type of the body in lower case, without its parameters, or "" if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def has_bare_etag(headers: Mapping[str, str]) -> bool:
    """Return whether the ETag has no quotes. Some origins that send such ones match no If-Match with quotes."""
    etag = headers.get("etag", "")
    return etag != "" and '"' not in etag


def version_id(headers: Mapping[str, str]) -> str | None:
    """Return the version id of the object, or None if its bucket has no versions."""
    sent = headers.get("x-amz-version-id", _NO_VERSION)
    return None if sent == _NO_VERSION else sent


def _version(headers: Mapping[str, str], requested: str | None) -> str | None:
    # Some compatible servers ignore parameters that they do not know, and SeaweedFS ignores `versionId` in an
    # unversioned bucket. They send the current object, and the cache would serve it as that version for ever.
    sent = headers.get("x-amz-version-id", _NO_VERSION)
    if requested is not None and sent != requested:
        raise InvalidOriginResponse(f"asked for version id {requested[:80]!r}, the origin sent {sent[:80]!r}")
    return version_id(headers)


def not_modified(
    headers: ResponseFields, if_none_match: str | None = None, requested_version: str | None = None
) -> NotModified:
    """Return the content of a 304 to a request with `if_none_match`.

    Raises InvalidOriginResponse if it names another version or another ETag than the request.
    """
    sent, requested = etags.parse(etags.normalised(headers.get("etag", ""))), etags.parse(if_none_match or "")
    if sent is not None and requested is not None and not etags.weak_match(sent, requested):
        raise InvalidOriginResponse(f"the origin answered 304 with ETag {str(sent)[:80]!r} for {requested}")
    # The origin compared the ETag, so a 304 without a version id is valid. SeaweedFS sends none.
    if "x-amz-version-id" in headers:
        _version(headers, requested_version)
    return NotModified(
        headers.agreed("last-modified") or None,
        _age(headers),
        _object_headers(headers),
        headers.agreed("date") or None,
        _cache_status(headers),
    )


def _age(headers: ResponseFields) -> int:
    # RFC 9111 section 5.1: the first member of several counts, and an invalid one is ignored.
    return _count(headers.first("age") or "0") or 0


def _cache_status(headers: ResponseFields) -> str:
    """Return the reports of caches between S3 and here, nearest to S3 first. Others cannot tell a cut list."""
    value = headers.get("cache-status", "")
    return value if len(value) <= MAX_CACHE_STATUS and is_text(value) and "cache-status" not in headers.damaged else ""


def _object_headers(headers: ResponseFields) -> Headers:
    """Return the object's headers in sending order. A field without a value is no header, except user metadata.

    User metadata that Connection names is the connection's. The other headers are never such (RFC 9110 section 7.6.1):
    without its Cache-Control an object could be stored against its will, and without its coding be unreadable.
    """
    of_connection = {name.strip(" \t").lower() for name in headers.get("connection", "").split(",")}
    damaged = damaged_descriptions(headers)
    known = (
        (name, _object_header(headers, name))
        for name in OBJECT_HEADERS
        if name.lower() in headers and name.lower() not in damaged
    )
    own = sorted(headers.keys() - of_connection - damaged)
    user = ((name, headers[name]) for name in own if name.startswith(USER_METADATA_PREFIX))
    return (*((name, value) for name, value in known if value), *user)


def damaged_descriptions(headers: ResponseFields) -> frozenset[str]:
    """Return the fields that are dropped because of a control character, with names in lower case."""
    if not headers.damaged:
        return headers.damaged
    return frozenset(name for name in headers.damaged if name in _DESCRIPTIONS or name.startswith(USER_METADATA_PREFIX))


def _object_header(headers: ResponseFields, name: str) -> str:
    if name == "Content-Type":
        return headers.last("content-type") or ""
    value = headers[name.lower()]
    return _without_framing(value) if name == "Content-Encoding" else value


def _without_framing(encoding: str) -> str:
    # `aws-chunked` is the framing of an upload, which some compatible servers keep in the object's metadata.
    codings = [coding.strip() for coding in encoding.split(",")]
    if "aws-chunked" not in (coding.lower() for coding in codings):
        return encoding
    return ", ".join(coding for coding in codings if coding and coding.lower() != "aws-chunked")


def is_chunked(headers: Mapping[str, str]) -> bool:
    """Return whether the body itself shows its end (RFC 9112 section 6.3), and no field has its length."""
    codings = headers.get("transfer-encoding", "").lower()
    return "content-length" not in headers and codings.rpartition(",")[2].strip() == "chunked"


def span_sent(
    status: int, headers: Mapping[str, str], part: FromTo | Suffix, measured: int | None = None
) -> tuple[Span, int]:
    """Return the span of bytes in a response to a GET of `part`, and the size of the whole object.

    A 200 has the whole object, so an origin that ignores Range can serve a part that begins at 0. `measured` is the
    length of a 200's body in bytes if it is chunked. A chunked 206 has the length of its Content-Range. Raises
    InvalidOriginResponse if status, Content-Range, Content-Type and Content-Length contradict each other or the
    request, RangeIgnored for a 200 that was to begin later, RangeUnsatisfiable if the object is empty.
    """
    if status == 200:
        _check_no_content_range(status, headers)
        length = content_length(headers) if measured is None else measured
        if isinstance(part, FromTo) and part.start > 0:
            raise RangeIgnored(f"the origin ignored a Range that begins at {part.start}")
        return Span(0, length), length
    content_range = headers.get("content-range", "")
    if status == 206 and _RANGE_OF_NOTHING.fullmatch(content_range):
        raise RangeUnsatisfiable("the object is empty")
    if status == 206 and _SIZE_UNKNOWN.fullmatch(content_range):
        raise AmbiguousPart(f"the origin sent Content-Range {content_range!r}, without the size")
    found = _CONTENT_RANGE.fullmatch(content_range)
    if status != 206 or found is None:
        raise InvalidOriginResponse(f"the origin answered {status} with Content-Range {headers.get('content-range')!r}")
    # With Content-Range, a Content-Type of multipart/byteranges is the object's own: RFC 9110 section 15.3.7.2.
    span, total = Span(int(found[1]), int(found[2]) + 1), int(found[3])
    length = span.length if is_chunked(headers) else content_length(headers)
    if not span.start < span.stop <= total or span.length != length or not _is_requested(span, total, part):
        raise InvalidOriginResponse(
            f"the origin sent Content-Range {found[0]!r} and Content-Length {length} for {part}"
        )
    return span, total


def size_sent(status: int, headers: Mapping[str, str]) -> int | None:
    """Return the size of the object in a response to HEAD, which has no Range. Returns None if it is not there.

    RFC 9110 section 9.3.2 lets a server omit Content-Length. Raises InvalidOriginResponse if the response is not a 200,
    describes a part, or has a malformed size.
    """
    if status != 200:
        raise InvalidOriginResponse(f"the origin answered {status} to HEAD")
    _check_no_content_range(status, headers)
    return content_length(headers) if "content-length" in headers else None


def check_done(status: int, operation: str) -> None:
    """Raise InvalidOriginResponse if a 2xx to an operation that reads no object does not mean that it is done."""
    if status < 300 and status not in _DONE:
        raise InvalidOriginResponse(f"the origin answered {status} to {operation}")


def _check_no_content_range(status: int, headers: Mapping[str, str]) -> None:
    # RFC 9110 section 14.4: Content-Range describes the body of a 206 or the size in a 416. Some S3-alikes send a part
    # with Content-Range and the status 200, so the length is that of the part and not that of the object.
    if "content-range" in headers:
        raise AmbiguousPart(f"the origin answered {status} with Content-Range {headers['content-range'][:80]!r}")


def is_unsatisfiable(headers: Mapping[str, str], part: Requested | None) -> bool:
    """Return whether a 416 fits a request for `part`, None for one without Range.

    S3 sends no Content-Range with a 416. If another server does, `part` must lie outside the size in it.
    """
    if part is None:
        return False
    found = _UNSATISFIED_RANGE.fullmatch(headers.get("content-range", ""))
    return found is None or part.within(int(found[1])) is None


def content_length(headers: Mapping[str, str]) -> int:
    """Return the Content-Length in bytes. Raises InvalidOriginResponse if it is absent or malformed."""
    length = _count(headers.get("content-length", ""))
    if length is None:
        raise InvalidOriginResponse("the origin sent no Content-Length")
    return length


def _is_requested(span: Span, total: int, part: FromTo | Suffix) -> bool:
    if isinstance(part, Suffix):
        return span == Span(max(0, total - part.length), total)
    return span == part.within(total)


def check_version(sent: Metadata, if_match: str | None) -> None:
    """Raise ObjectChanged if `sent` is another version. Some compatible servers ignore `If-Match` on a ranged GET."""
    if if_match is not None and sent.etag != if_match:
        raise ObjectChanged(f"asked for version {if_match}, the origin sent {sent.etag}")


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None
