"""How a stored version is shown to a client, without changing what is stored (I25).

What is closer to the request wins: stored < guessed type < content coding < rule < query.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bucketfront.http import media_types
from bucketfront.http.grammar import Headers
from bucketfront.http.metadata import Metadata

_ACCEPT_ENCODING = "Accept-Encoding"
_LIFETIMES = frozenset({"Cache-Control", "Expires"})
_UNTYPED = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Presentation:
    """What becomes of the stored headers. Names compare case-insensitively."""

    guessed_type: str | None = None
    """For an object without a type, or with a GENERIC one."""
    coding: str | None = None
    """The content coding of the version, which is then the precompressed sibling of what was asked for."""
    varies: bool = False
    """Whether another Accept-Encoding could have had another answer. True also with `coding`."""
    cache_control: str | None = None
    """A rule's, in place of the object's Cache-Control and its Expires."""
    changes: tuple[tuple[str, str | None], ...] = ()
    """A rule's headers to set, or with None to drop."""
    overrides: tuple[tuple[str, str], ...] = ()
    """The query's headers to set."""

    @property
    def sets_lifetime(self) -> bool:
        """Whether it is not the object that says how long clients may keep the answer."""
        return self.cache_control is not None or any(name in _LIFETIMES for name, _ in self.overrides)


AS_STORED = Presentation()


def present(metadata: Metadata, presentation: Presentation) -> Metadata:
    """The metadata to answer with: other headers, never another version, size or age.

    The very same object where nothing changes. A header that is set takes the place of the first of its name,
    and of all of them; the others keep their order.
    """
    headers = metadata.headers
    for name, value in _changes(metadata, presentation):
        headers = _with(headers, name, value)
    if presentation.varies or presentation.coding is not None:
        # After the rule: a CDN that is not told of the coding mixes the answers up, whatever a rule drops.
        headers = _varying(headers)
    for name, value in presentation.overrides:
        headers = _with(headers, name, value)
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
    """RFC 9110 section 8.3: the type is that of the decoded bytes, so a sibling's `application/gzip` must go."""
    kind = None if stored is None else media_types.essence(stored)
    if presentation.coding is not None and kind in media_types.COMPRESSED:
        return presentation.guessed_type
    unknown = kind is None or kind in media_types.GENERIC or (presentation.coding is not None and kind == _UNTYPED)
    return presentation.guessed_type or stored if unknown else stored


def _with(headers: Headers, name: str, value: str | None) -> Headers:
    """`headers` with `name` set to `value`, or without it where that is None."""
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


def _varying(headers: Headers) -> Headers:
    """RFC 9110 section 12.5.5: `Vary` names Accept-Encoding too, unless it says `*`, which covers all."""
    stored = [value for name, value in headers if name.lower() == "vary"]
    named = {field.strip(" \t").lower() for value in stored for field in value.split(",")}
    if "*" in named or _ACCEPT_ENCODING.lower() in named:
        return headers
    return _with(headers, "Vary", ", ".join([*filter(None, stored), _ACCEPT_ENCODING]))
