"""Present a stored version to a client, without a change of what is stored (docs/invariants.md#complete-cache-key).

Later sources override earlier ones: stored headers, guessed type, content coding, rule, query.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bucketfront.http import cache_control, content_disposition, media_types, negotiation
from bucketfront.http.grammar import Headers
from bucketfront.http.metadata import Metadata

_ACCEPT_ENCODING = "Accept-Encoding"
_LIFETIMES = frozenset({"Cache-Control", "Expires"})
_OF_SHARED_CACHES = frozenset({"cdn-cache-control", "surrogate-control"})  # RFC 9213, and its forerunner
_UNTYPED = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Presentation:
    """The changes to the stored headers. Names compare case-insensitively."""

    guessed_type: str | None = None
    """The type for an object without one, or with a GENERIC one."""
    coding: str | None = None
    """The content coding of the version, if it is the precompressed sibling of the requested object."""
    varies: bool = False
    """Whether another Accept-Encoding could get another response. True also with `coding`."""
    cache_control: str | None = None
    """A rule's Cache-Control, in place of the object's Cache-Control and Expires."""
    changes: tuple[tuple[str, str | None], ...] = ()
    """A rule's headers to set, or with None to remove."""
    overrides: tuple[tuple[str, str], ...] = ()
    """The headers that the query sets."""

    is_private: bool = False
    """Whether shared caches may not store the response, because a rule decides who may read it."""

    inline_types: frozenset[str] | None = None
    """The active types that browsers may show. Those that are not listed become downloads. None lists all."""

    @property
    def sets_lifetime(self) -> bool:
        """Return whether a rule or the query, and not the object, sets how long clients may keep the response."""
        return self.cache_control is not None or any(name in _LIFETIMES for name, _ in self.overrides)


def may_have_coding(metadata: Metadata, coding: str | None) -> bool:
    """Return whether an object may be presented with the content coding `coding` (None: as it is stored).

    Its name is no proof: an object with a stored Content-Encoding of another coding has bytes of that one.
    """
    stored = metadata.header("Content-Encoding")
    return coding is None or stored is None or negotiation.coding_named(stored) in (coding, negotiation.IDENTITY)


def present(metadata: Metadata, presentation: Presentation) -> Metadata:
    """Return the metadata for the response: other headers, but the same version, size and age.

    If no header changes, it is the same object. A header that is set replaces all headers of its name, at the place of
    the first. The others keep their order.
    """
    headers = metadata.headers
    for name, value in _changes(metadata, presentation):
        headers = _with(headers, name, value)
    if presentation.varies or presentation.coding is not None:
        # After the rule, because a CDN that does not know of the coding mixes responses up, whatever a rule removes.
        headers = _varying(headers)
    for name, value in presentation.overrides:
        headers = _with(headers, name, value)
    if presentation.is_private:
        headers = _private(headers)
    if presentation.inline_types is not None:
        # Last, so that neither the object nor a rule nor the query can evade it.
        headers = _downloaded(headers, presentation.inline_types)
    return metadata if headers == metadata.headers else replace(metadata, headers=headers)


def _changes(metadata: Metadata, presentation: Presentation) -> Iterable[tuple[str, str | None]]:
    stored = metadata.header("Content-Type")
    shown = _content_type(stored, presentation)
    if shown != stored:
        yield "Content-Type", shown
    if presentation.coding is not None:
        yield "Content-Encoding", presentation.coding
    if presentation.cache_control is not None:
        yield "Cache-Control", presentation.cache_control
        yield "Expires", None
    yield from presentation.changes


def _content_type(stored: str | None, presentation: Presentation) -> str | None:
    """Return the type of the decoded bytes (RFC 9110 section 8.3), so not a sibling's `application/gzip`."""
    kind = None if stored is None else media_types.essence(stored)
    if presentation.coding is not None and kind in media_types.COMPRESSED:
        return presentation.guessed_type
    unknown = kind is None or kind in media_types.GENERIC or (presentation.coding is not None and kind == _UNTYPED)
    return presentation.guessed_type or stored if unknown else stored


def _with(headers: Headers, name: str, value: str | None) -> Headers:
    """Return `headers` with `name` set to `value`, or without `name` if the value is None."""
    wanted = name.lower()
    changed: list[tuple[str, str]] = []
    left = value
    for header in headers:
        if header[0].lower() != wanted:
            changed.append(header)
        elif left is not None:
            changed.append((name, left))
            left = None
    if left is not None:
        changed.append((name, left))
    return tuple(changed)


def _downloaded(headers: Headers, inline_types: frozenset[str]) -> Headers:
    """Return the headers with `Content-Disposition: attachment` if the type is active and not listed."""
    types = [value for name, value in headers if name.lower() == "content-type"]
    if not any(media_types.is_active(kind) and not media_types.is_among(kind, inline_types) for kind in types):
        return headers
    given = next((value for name, value in headers if name.lower() == "content-disposition"), "")
    return _with(headers, "Content-Disposition", content_disposition.attachment(given))


def _private(headers: Headers) -> Headers:
    """Return the headers with a Cache-Control that shared caches obey, and without those for them alone."""
    given = [value for name, value in headers if name.lower() == "cache-control"]
    headers = tuple((name, value) for name, value in headers if name.lower() not in _OF_SHARED_CACHES)
    return _with(headers, "Cache-Control", cache_control.private(", ".join(given)))


def _varying(headers: Headers) -> Headers:
    """Add Accept-Encoding to `Vary`, unless it is `*`, which covers all (RFC 9110 section 12.5.5)."""
    stored = [value for name, value in headers if name.lower() == "vary"]
    named = {field.strip(" \t").lower() for value in stored for field in value.split(",")}
    if "*" in named or _ACCEPT_ENCODING.lower() in named:
        return headers
    return _with(headers, "Vary", ", ".join([*filter(None, stored), _ACCEPT_ENCODING]))
