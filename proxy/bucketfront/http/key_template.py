"""Make the key of an upload that names none from a template: `{date}/{ulid}{ext}`.

Clients choose file names, so a name always becomes one segment of a key, whatever it contains
(docs/invariants.md#one-name).
"""

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime

PLACEHOLDERS = ("ulid", "date", "filename", "ext")
MAX_NAME_BYTES = 255  # in UTF-8; the limit of most file systems, so that the object can be saved
MAX_EXTENSION_CHARS = 16  # a longer text after the last dot is part of the name

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SEPARATORS = re.compile(r"[/\\]")
# Control and format characters (an override of the direction hides an extension), surrogates, line separators.
_UNWANTED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class BadTemplate(ValueError):
    """A template that yields no valid key, or the same key for all uploads."""


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A checked template. `text` is the template as written."""

    text: str

    def __post_init__(self) -> None:
        """Check the template. Raises BadTemplate."""
        names = _PLACEHOLDER.findall(self.text)
        if not set(names) <= set(PLACEHOLDERS):
            raise BadTemplate(f"must have no placeholders but {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}")
        literal = _PLACEHOLDER.sub("", self.text)
        if "{" in literal or "}" in literal:
            raise BadTemplate("must not have a brace without its other half")
        if not {"ulid", "filename"} & set(names):
            raise BadTemplate("must hold {ulid} or {filename}: all uploads would have one key")
        if any(unicodedata.category(character) in _UNWANTED for character in literal):
            raise BadTemplate("must not hold control characters")
        # Tried without an extension, because then `{ext}.` would be a dot segment as well.
        if self.text.startswith("/") or has_dot_segment(self.key(0.0, "ulid")):
            raise BadTemplate("must not begin with '/' nor have a segment '.' or '..'")

    def key(self, now: float, ulid: str, filename: str | None = None) -> str:
        """Return the key. `now` is in seconds since the epoch, and `filename` is as sent.

        Without a usable name, `{filename}` is the ULID and `{ext}` is empty.
        """
        name = None if filename is None else clean(filename)
        values = {
            "ulid": ulid,
            "date": datetime.fromtimestamp(now, UTC).strftime("%Y/%m/%d"),
            "filename": name or ulid,
            "ext": extension(name or ""),
        }
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.text)


def clean(filename: str) -> str | None:
    """Return a file's name as one segment of a key, or None if no usable character is left.

    Old browsers send the whole path, of which the last segment counts.
    """
    name = _SEPARATORS.split(filename)[-1]
    name = "".join(c for c in name if unicodedata.category(c) not in _UNWANTED)
    name = name.strip()
    if not name.strip("."):
        return None
    if len(name.encode()) > MAX_NAME_BYTES:
        kept = extension(name)
        room = MAX_NAME_BYTES - len(kept.encode())
        name = name.removesuffix(kept).encode()[:room].decode(errors="ignore") + kept
    return name


def extension(name: str) -> str:
    """Return `.jpg` of `a.jpg`, as written. It is empty if there is no extension, or no text before it."""
    stem, dot, last = name.rpartition(".")
    return dot + last if stem.strip(".") and last.isalnum() and len(last) <= MAX_EXTENSION_CHARS else ""


def has_dot_segment(key: str) -> bool:
    """Return whether a client that resolves the key as a path would get another one (RFC 3986 section 5.2.4)."""
    return not {".", ".."}.isdisjoint(key.split("/"))


def without_dot_segments(path: str) -> str:
    """Return the path that RFC 3986 section 5.2.4 makes of one that begins with a slash."""
    kept: list[str] = []
    _, *segments = path.split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
