"""What to answer to a GET or HEAD of a known version, decided in full before a byte is sent (RFC 9110)."""

from dataclasses import dataclass

from proxy.http import preconditions, ranges
from proxy.http.metadata import Metadata
from proxy.http.preconditions import Verdict
from proxy.http.ranges import UNSATISFIABLE, Span

Headers = tuple[tuple[str, str], ...]

_DEFAULT_TYPE = ("Content-Type", "application/octet-stream")
# RFC 9110 section 15.4.5: of the object's own headers, those that a 200 would have had and a cache needs.
_NOT_MODIFIED_HEADERS = frozenset({"cache-control", "expires"})


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What of a request bears on the plan. Field values as received, None where the field is absent."""

    method: str
    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """An answer: its status, the headers that follow from the object, the bytes of its body.

    `span` None means that nothing of the object is sent (HEAD, 304, 412, 416); an empty object's GET has the
    empty Span(0, 0). Age, Date, Via and Cache-Status are not the object's: they are added where the answer is
    sent.
    """

    status: int
    headers: Headers
    span: Span | None = None


def plan(request: RequestHead, metadata: Metadata, now: float) -> Plan:
    """200, 206, 304, 412 or 416 (RFC 9110 section 13.2.2); `now` is in seconds since the epoch.

    Of several satisfiable ranges the whole representation is sent, as section 14.2 allows. 412 and 416 carry
    `Content-Length: 0`; a server that sends an explanation with them replaces it. Raises ValueError if the
    method is neither GET nor HEAD: nothing else selects a representation.
    """
    if request.method not in {"GET", "HEAD"}:
        raise ValueError(f"no plan for {request.method}: ask preconditions.evaluate before a write")
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
        return Plan(200, _headers(metadata, None))
    chosen = _ranges(request, metadata, now)
    if chosen is UNSATISFIABLE:
        unsatisfied = (("Content-Range", f"bytes */{metadata.size}"), ("Content-Length", "0"))
        return Plan(416, unsatisfied)
    if chosen is not None and len(chosen) == 1:
        return Plan(206, _headers(metadata, chosen[0]), chosen[0])
    return Plan(200, _headers(metadata, None), Span(0, metadata.size))


def _ranges(request: RequestHead, metadata: Metadata, now: float) -> ranges.Ranges:
    """Sections 13.1.5 and 14.2: the Range, unless an If-Range says that the client holds something else."""
    if request.range is None:
        return None
    if request.if_range is not None and not preconditions.if_range_holds(request.if_range, metadata, now):
        return None
    return ranges.parse(request.range, metadata.size)


def _headers(metadata: Metadata, part: Span | None) -> Headers:
    length = metadata.size if part is None else part.length
    headers = [("Content-Length", str(length))]
    if part is not None:
        headers.append(("Content-Range", f"bytes {part.start}-{part.stop - 1}/{metadata.size}"))
    headers.append(("Accept-Ranges", "bytes"))
    headers += _validators(metadata)
    headers += metadata.headers
    if metadata.header("Content-Type") is None:
        headers.append(_DEFAULT_TYPE)
    return tuple(headers)


def _not_modified_headers(metadata: Metadata) -> Headers:
    kept = (header for header in metadata.headers if header[0].lower() in _NOT_MODIFIED_HEADERS)
    return (*_validators(metadata), *kept)


def _validators(metadata: Metadata) -> Headers:
    tag = (("ETag", metadata.etag),) if metadata.etag else ()
    modified = () if metadata.last_modified is None else (("Last-Modified", metadata.last_modified),)
    return (*tag, *modified)
