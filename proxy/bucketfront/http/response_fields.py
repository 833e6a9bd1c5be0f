"""The header fields of the origin's response, from the list of its field lines (RFC 9110 section 5.3).

Values are octets. They become text as UTF-8 with surrogate escapes, as aiohttp reads a request, so that `octets`
returns what the origin sent, also Latin-1 and other obs-text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from bucketfront.http.grammar import is_token

# RFC 9110 section 5.5: a recipient replaces CR, LF and NUL by a space. No server accepts the other control characters
# from us either, except tab.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Of the fields that bucketfront reads or passes on, those that are lists. User metadata is one as well (S3 User Guide,
# "Working with object metadata"). A repeated line of another field is either a copy or a contradiction.
_LISTS = frozenset(
    {"cache-control", "cdn-cache-control", "surrogate-control", "content-encoding", "content-language", "vary",
     "cache-tag", "surrogate-key"}
)  # fmt: skip
USER_METADATA_PREFIX = "x-amz-meta-"


class ResponseFields(Mapping[str, str]):
    """The fields by their names in lower case. Each value is the list of all lines of its field, joined with ", ".

    Equal lines of a field that is no list are one line. `damaged` names the fields in which a control character became
    a space.
    """

    __slots__ = ("_lines", "_values", "damaged")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        lines: dict[str, tuple[str, ...]] = {}
        damaged: set[str] = set()
        for raw_name, raw_value in raw:
            name, sent = _text(raw_name).lower(), _text(raw_value)
            value = _CONTROL.sub(" ", sent).strip(" \t")
            if value != sent and _CONTROL.search(sent) is not None:
                damaged.add(name)
            known = lines.get(name, ())
            if is_token(name) and (value not in known or name in _LISTS or name.startswith(USER_METADATA_PREFIX)):
                lines[name] = (*known, value)
        self.damaged = frozenset(damaged)
        self._lines = lines
        self._values = {name: found[0] if len(found) == 1 else ", ".join(found) for name, found in lines.items()}

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"ResponseFields({dict(self)!r})"

    def agreed(self, name: str) -> str | None:
        """Return the value of a field that is no list. Returns None if it is absent, or its lines contradict."""
        lines = self._lines.get(name, ())
        return lines[0] if len(lines) == 1 else None

    def first(self, name: str) -> str | None:
        """Return the first member of the first line, or None (RFC 9111 section 5.1 requires that of Age)."""
        lines = self._lines.get(name)
        return None if lines is None else lines[0].partition(",")[0].rstrip(" \t")

    def last(self, name: str) -> str | None:
        """Return the last line, or None. RFC 9110 section 8.3 names that for Content-Type, and browsers do it."""
        lines = self._lines.get(name)
        return None if lines is None else lines[-1]


def octets(value: str) -> bytes:
    """Return the octets of a field value."""
    return value.encode("utf-8", "surrogateescape")


def is_text(value: str) -> bool:
    """Return whether the octets of a value are UTF-8, so that other software can take it as text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
