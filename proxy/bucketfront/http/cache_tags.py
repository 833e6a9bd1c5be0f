"""The tags of an object, by which operators purge objects together.

An object names its tags in one or more of its header fields, separated by commas or white space: `Cache-Tag: a, b` and
`Surrogate-Key: a b` are the same. Case counts.
"""

import re
import zlib
from collections.abc import Iterable
from itertools import islice

from bucketfront.http.grammar import Headers
from bucketfront.http.response_fields import is_text

MAX_TAGS = 1000  # of one object; S3's user metadata, of 2 KB at most, has no room for more
MAX_TAG_CHARS = 1024  # as common CDNs have it

_NO_TAGS: frozenset[str] = frozenset()
_SEPARATORS = re.compile(r"[\s,]+")


def is_tag(text: str) -> bool:
    """Return whether an object can have this tag."""
    return 0 < len(text) <= MAX_TAG_CHARS and not _SEPARATORS.search(text) and is_text(text)


class TagFields:
    """The header fields that name tags."""

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(name.lower() for name in names)

    def __repr__(self) -> str:
        return f"TagFields({sorted(self._names)})"

    @property
    def fingerprint(self) -> int:
        """Return a number that other fields do not have. It is not 0."""
        return 1 + zlib.crc32(",".join(sorted(self._names)).encode())

    def tags(self, headers: Headers) -> frozenset[str]:
        """Return the tags of an object, at most the first MAX_TAGS. A tag that is too long does not count."""
        values = [value for name, value in headers if name.lower() in self._names]
        if not values:
            return _NO_TAGS
        found = dict.fromkeys(tag for value in values for tag in _SEPARATORS.split(value) if is_tag(tag))
        return frozenset(islice(found, MAX_TAGS))
