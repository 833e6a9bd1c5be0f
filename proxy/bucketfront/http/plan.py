"""Decide the response to a GET or HEAD of a known version in full, before a byte is sent (RFC 9110)."""

from dataclasses import dataclass

from bucketfront.http import preconditions, ranges
from bucketfront.http.grammar import Headers
from bucketfront.http.metadata import Metadata
from bucketfront.http.preconditions import Verdict
from bucketfront.http.ranges import UNSATISFIABLE, Demand, Span
from bucketfront.http.response_fields import octets

_DEFAULT_TYPE = ("Content-Type", "application/octet-stream")
# RFC 9110 section 15.4.5: of the object's own headers, those that a 200 would have had and a cache needs.
_NOT_MODIFIED_HEADERS = frozenset({"cache-control", "cdn-cache-control", "expires", "surrogate-control", "vary"})


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The parts of a request that the plan depends on. Field values are as received, None for an absent field."""

    method: str
    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A response: its status, the headers that follow from the object, and the pieces of its body.

    `pieces` are, in sending order, spans of the object, and between them the bytes of a multipart body's framing. They
    are None if nothing of the object is sent (HEAD, 304, 412, 416). The GET of an empty object has the empty
    Span(0, 0). The sender adds Age, Date, Via and Cache-Status, which do not follow from the object. `demand` is of the
    spans.
    """

    status: int
    headers: Headers
    pieces: tuple[bytes | Span, ...] | None = None
    demand: Demand = Demand.WHOLE

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return the spans of the object to send, in sending order. They do not overlap."""
        return tuple(piece for piece in self.pieces or () if isinstance(piece, Span))

    @property
    def length(self) -> int:
        """Return the length of the body in bytes. It is 0 without pieces, even if Content-Length is not."""
        return _length(self.pieces or ())


def plan(request: RequestHead, metadata: Metadata, now: float, boundary: str = "") -> Plan:
    """Return a plan with status 200, 206, 304, 412 or 416 (RFC 9110 section 13.2.2).

    `now` is in seconds since the epoch. `boundary` separates the parts of a multipart response. It has at most 70
    characters that need no quotes (RFC 2046 section 5.1.1), and is random, so that no object can contain it. 412 and
    416 carry `Content-Length: 0`, which a server replaces if it sends an explanation.

    Raises ValueError if the method is neither GET nor HEAD, or if the response is multipart and `boundary` empty.
    """
    if request.method not in {"GET", "HEAD"}:
        raise ValueError(f"no plan for {request.method}: call preconditions.evaluate before a write")
    verdict = preconditions.evaluate(
        metadata,
        now,
        method=request.method,
        if_match=request.if_match,
        if_none_match=request.if_none_match,
        if_modified_since=request.if_modified_since,
        if_unmodified_since=request.if_unmodified_since,
    )
    if verdict is Verdict.FAILED:
        return Plan(412, (("Content-Length", "0"),))
    if verdict is Verdict.NOT_MODIFIED:
        return Plan(304, _not_modified_headers(metadata))
    if request.method == "HEAD":
        return Plan(200, _headers(metadata, metadata.size))
    chosen = _ranges(request, metadata, now)
    if chosen is UNSATISFIABLE:
        unsatisfied = (("Content-Range", f"bytes */{metadata.size}"), ("Content-Length", "0"))
        return Plan(416, unsatisfied)
    partial = None if chosen is None else _partial(chosen, ranges.demand(request.range), metadata, boundary)
    return partial or Plan(200, _headers(metadata, metadata.size), (Span(0, metadata.size),))


def _ranges(request: RequestHead, metadata: Metadata, now: float) -> ranges.Ranges:
    """Return the ranges, or None if an If-Range shows that the client has another version (sections 13.1.5, 14.2)."""
    if request.range is None:
        return None
    if request.if_range is not None and not preconditions.if_range_holds(request.if_range, metadata, now):
        return None
    return ranges.parse(request.range, metadata.size)


def _partial(requested: tuple[Span, ...], demand: Demand, metadata: Metadata, boundary: str) -> Plan | None:
    """Return a plan with status 206 (section 15.3.7), or None if the whole representation serves better.

    It serves better if the ranges add up to more than the representation, which only a broken client or an attacker
    requests (section 17.15). It also does if a multipart body would not be shorter.
    """
    if sum(span.length for span in requested) > metadata.size:
        return None
    parts = ranges.coalesce(requested)
    if len(parts) == 1:
        (part,) = parts
        return Plan(206, _headers(metadata, part.length, part), parts, demand)
    pieces = _framed(parts, metadata, boundary)
    length = _length(pieces)
    if length >= metadata.size:
        return None
    if not boundary:
        raise ValueError("a multipart response needs a boundary")
    return Plan(206, _multipart_headers(metadata, length, boundary), pieces, demand)


def _framed(parts: tuple[Span, ...], metadata: Metadata, boundary: str) -> tuple[bytes | Span, ...]:
    """Return the body of a multipart/byteranges: each part with its range and the object's type (section 14.6)."""
    _, object_type = _type(metadata)
    pieces: list[bytes | Span] = []
    line_end = ""  # ends the part before, because the content of a part has no line end
    for part in parts:
        head = (
            f"{line_end}--{boundary}\r\n"
            f"Content-Type: {object_type}\r\n"
            f"Content-Range: {_content_range(part, metadata)}\r\n\r\n"
        )
        # A type that is not UTF-8 is sent as the octets that the origin sent.
        pieces += octets(head), part
        line_end = "\r\n"
    return (*pieces, f"\r\n--{boundary}--\r\n".encode())


def _length(pieces: tuple[bytes | Span, ...]) -> int:
    return sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in pieces)


def _headers(metadata: Metadata, length: int, part: Span | None = None) -> Headers:
    content_range = () if part is None else (("Content-Range", _content_range(part, metadata)),)
    missing = (_type(metadata),) if metadata.header("Content-Type") is None else ()
    return (
        ("Content-Length", str(length)),
        *content_range,
        ("Accept-Ranges", "bytes"),
        *_validators(metadata),
        *_from_caches(metadata),
        *metadata.headers,
        *missing,
    )


def _multipart_headers(metadata: Metadata, length: int, boundary: str) -> Headers:
    """Return the headers of a multipart response (section 15.3.7.2).

    They have no Content-Range, so that a client does not read the body as a single part.
    """
    whole = _headers(metadata, length)
    own = (header for header in whole if header[0].lower() != "content-type")
    return (*own, ("Content-Type", f"multipart/byteranges; boundary={boundary}"))


def _content_range(part: Span, metadata: Metadata) -> str:
    return f"bytes {part.start}-{part.stop - 1}/{metadata.size}"


def _type(metadata: Metadata) -> tuple[str, str]:
    value = metadata.header("Content-Type")
    return _DEFAULT_TYPE if value is None else ("Content-Type", value)


def _not_modified_headers(metadata: Metadata) -> Headers:
    kept = (header for header in metadata.headers if header[0].lower() in _NOT_MODIFIED_HEADERS)
    return (*_validators(metadata), *_from_caches(metadata), *kept)


def _from_caches(metadata: Metadata) -> Headers:
    return (("Cache-Status", metadata.cache_status),) if metadata.cache_status else ()


def _validators(metadata: Metadata) -> Headers:
    tag = (("ETag", metadata.etag),) if metadata.etag else ()
    modified = () if metadata.last_modified is None else (("Last-Modified", metadata.last_modified),)
    return (*tag, *modified)
