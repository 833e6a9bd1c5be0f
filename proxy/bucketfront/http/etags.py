"""Entity tags (RFC 9110 section 8.8.3) and the lists of them in If-Match and If-None-Match."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

# etagc is %x21 / %x23-7E / obs-text, so a comma is legal inside the quotes and a backslash escapes nothing.
# Octets above 0x7F arrive decoded or as surrogate escapes, in either case as characters above 0x7F.
_ENTITY_TAG = re.compile('(W/)?("[\x21\x23-\x7e\x80-\U0010ffff]*+")')
# RFC 9110 section 5.6.1.2: a recipient skips empty list elements.
_SEPARATOR = re.compile(r"[ \t]*+(?:,[ \t]*+)*")


class Wildcard(Enum):
    """The field value `*`, which stands for any current representation."""

    ANY = "*"


ANY: Final[Literal[Wildcard.ANY]] = Wildcard.ANY


@dataclass(frozen=True, slots=True)
class ETag:
    """An entity tag. `opaque` is the opaque-tag with its quotes, `weak` the `W/` before it."""

    opaque: str
    weak: bool = False

    def __str__(self) -> str:
        return f"W/{self.opaque}" if self.weak else self.opaque


def parse(text: str) -> ETag | None:
    """Return the entity tag that `text` has in wire form, or None if it is malformed."""
    match = _ENTITY_TAG.fullmatch(text)
    return None if match is None else _etag(match)


def normalised(text: str) -> str:
    """Return the ETag of a response in wire form, or "" if it cannot tell versions apart.

    Some S3-alikes leave the quotes out, and they are added. An empty tag is the same for all versions.
    """
    if parse(text) is None:
        text = f'"{text}"'
    found = parse(text)
    return "" if found is None or found.opaque == '""' else text


def parse_list(header: str) -> tuple[ETag, ...] | Literal[Wildcard.ANY] | None:
    """Return the tags of If-Match or If-None-Match (RFC 9110 sections 13.1.1 and 13.1.2), which may be none.

    Returns None if the list is malformed. A malformed If-Match must match nothing, which prevents a lost update. A
    malformed If-None-Match must be ignored, so that the client gets the whole response.
    """
    if header.strip(" \t") == "*":
        return ANY
    found: list[ETag] = []
    position, separated = _skip_separator(header, 0)
    while position < len(header):
        match = _ENTITY_TAG.match(header, position)
        if match is None or (found and not separated):
            return None
        found.append(_etag(match))
        position, separated = _skip_separator(header, match.end())
    return tuple(found)


def strong_match(one: ETag, other: ETag) -> bool:
    """Return whether two tags are equal and neither is weak (RFC 9110 section 8.8.3.2)."""
    return one.opaque == other.opaque and not one.weak and not other.weak


def weak_match(one: ETag, other: ETag) -> bool:
    """Return whether two opaque tags are equal, weak or not (RFC 9110 section 8.8.3.2)."""
    return one.opaque == other.opaque


def _etag(match: re.Match[str]) -> ETag:
    return ETag(match[2], weak=match[1] is not None)


def _skip_separator(header: str, position: int) -> tuple[int, bool]:
    """Return where the next element begins, and whether a comma came before it."""
    match = _SEPARATOR.match(header, position)
    assert match is not None, "the pattern matches the empty string"
    return match.end(), "," in match[0]
