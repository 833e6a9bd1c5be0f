"""S3's response headers -> our values, each checked before it is believed (I1, I4)."""

import binascii
import re
from collections.abc import Mapping

from bucketfront.cache import NotModified
from bucketfront.errors import InvalidOriginResponse, ObjectChanged
from bucketfront.http import etags
from bucketfront.http.metadata import OBJECT_HEADERS, USER_METADATA_PREFIX, Metadata
from bucketfront.http.ranges import FromTo, Span, Suffix

# Algorithm -> bytes of its value (S3 API, GetObject: `x-amz-checksum-…`).
_CHECKSUMS = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


# GetObject: the version of an object of a bucket that was never versioned, which has no header either.
_NO_VERSION = "null"


def metadata(
    headers: Mapping[str, str], size: int, asked_version: str | None = None, *, is_whole: bool = False
) -> Metadata:
    """`headers` has lower-case names. `is_whole`: the answer is about the whole object, and so is its checksum.

    Raises InvalidOriginResponse where there is no ETag to name the version, or the version id is not the one asked for.
    """
    etag = headers.get("etag", "")
    if etags.parse(etag) is None:
        raise InvalidOriginResponse(f"the origin sent no usable ETag ({etag[:80]!r})")
    return Metadata(
        etag=etag,
        size=size,
        last_modified=headers.get("last-modified"),
        headers=tuple(_object_headers(headers)),
        age=_count(headers.get("age", "0")) or 0,
        version=_version(headers, asked_version),
        checksum=_checksum(headers) if is_whole else None,
        has_opaque_etag=(
            headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
            or "x-amz-server-side-encryption-customer-algorithm" in headers
        ),
    )


def _checksum(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The object's own. One made of its parts' checksums (COMPOSITE, `value-N`) cannot be compared with its bytes."""
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    for algorithm, length in _CHECKSUMS.items():
        value = headers.get(f"x-amz-checksum-{algorithm}", "")
        try:
            if len(binascii.a2b_base64(value, strict_mode=True)) == length:
                return algorithm, value
        except ValueError:
            continue
    return None


def _version(headers: Mapping[str, str], asked: str | None) -> str | None:
    # S3-alikes ignore parameters that they do not know, SeaweedFS this one in an unversioned bucket: what they send
    # then is the current object, and kept as a version it would be wrong for good.
    sent = headers.get("x-amz-version-id", _NO_VERSION)
    if asked is not None and sent != asked:
        raise InvalidOriginResponse(f"asked for version id {asked[:80]!r}, the origin sent {sent[:80]!r}")
    return None if sent == _NO_VERSION else sent


def not_modified(headers: Mapping[str, str], asked_version: str | None = None) -> NotModified:
    """What a 304 says. Raises InvalidOriginResponse where it speaks of another version than was asked for."""
    # The ETag has been compared already, so a 304 that names no version will do: SeaweedFS's does not.
    if "x-amz-version-id" in headers:
        _version(headers, asked_version)
    return NotModified(
        last_modified=headers.get("last-modified") or None,
        age=_count(headers.get("age", "0")) or 0,
        cache_control=headers.get("cache-control") or None,
        expires=headers.get("expires") or None,
    )


def _object_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    passed = [(name, headers[name.lower()]) for name in OBJECT_HEADERS if headers.get(name.lower())]
    user = [(name, value) for name, value in sorted(headers.items()) if name.startswith(USER_METADATA_PREFIX)]
    return [(name, _without_framing(value) if name == "Content-Encoding" else value) for name, value in passed] + user


def _without_framing(encoding: str) -> str:
    # `aws-chunked` is the framing of somebody's upload, which some S3-alikes keep in the object's metadata.
    codings = [coding.strip() for coding in encoding.split(",")]
    return ", ".join(coding for coding in codings if coding.lower() != "aws-chunked") or "identity"


def span_sent(status: int, headers: Mapping[str, str], part: FromTo | Suffix) -> tuple[Span, int]:
    """Which bytes an answer to `part` holds, and the whole object's size.

    A 200 is the whole object: an origin that ignores Range is bearable where the part begins at 0. Raises
    InvalidOriginResponse where status, Content-Range and Content-Length do not fit together or with what was asked.
    """
    length = content_length(headers)
    if status == 200:
        if isinstance(part, FromTo) and part.start > 0:
            raise InvalidOriginResponse(f"the origin ignored a Range that begins at {part.start}")
        return Span(0, length), length
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if status != 206 or found is None:
        raise InvalidOriginResponse(f"the origin answered {status} with Content-Range {headers.get('content-range')!r}")
    span, total = Span(int(found[1]), int(found[2]) + 1), int(found[3])
    if not span.start < span.stop <= total or span.length != length or not _as_asked(span, total, part):
        raise InvalidOriginResponse(
            f"the origin sent Content-Range {found[0]!r} and Content-Length {length} for {part}"
        )
    return span, total


def content_length(headers: Mapping[str, str]) -> int:
    """In bytes. Raises InvalidOriginResponse where there is none."""
    length = _count(headers.get("content-length", ""))
    if length is None:
        raise InvalidOriginResponse("the origin sent no Content-Length")
    return length


def _as_asked(span: Span, total: int, part: FromTo | Suffix) -> bool:
    if isinstance(part, Suffix):
        return span == Span(max(0, total - part.length), total)
    return span == part.within(total)


def same_version(sent: Metadata, if_match: str | None) -> None:
    """Raises ObjectChanged: S3-alikes have ignored `If-Match` on a ranged GET."""
    if if_match is not None and sent.etag != if_match:
        raise ObjectChanged(f"asked for version {if_match}, the origin sent {sent.etag}")


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None
